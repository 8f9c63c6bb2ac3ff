// Colours, in OKLCH so that equal numbers look equally bright.

// What stands for a group by its rank, the largest group first: [hue, and for
// the colour-blind: lightness in light and dark, chroma, hue]. The latter are
// the colours of Okabe and Ito, which differ in lightness too.
const wheel = [62, 252, 150, 312, 200, 18, 100, 342, 228, 285, 125, 40];
const safeWheel = [
  [0.80, 0.56, 0.13, 75], [0.66, 0.44, 0.12, 245], [0.77, 0.53, 0.10, 165], [0.70, 0.47, 0.11, 345],
  [0.84, 0.60, 0.08, 232], [0.68, 0.47, 0.15, 45], [0.93, 0.64, 0.13, 105], [0.80, 0.45, 0.00, 0],
];

function hash(s) {
  let h = 2166136261;
  for (let i = 0; i < s.length; i++) h = Math.imul(h ^ s.charCodeAt(i), 16777619);
  return (h >>> 0) / 4294967296;
}

const dark = () => document.documentElement.dataset.theme === 'dark';
const lch = (l, c, h) => `oklch(${l.toFixed(3)} ${c.toFixed(3)} ${h.toFixed(0)})`;
const inkOn = l => l > 0.6 ? '#16181d' : '#ffffff';

// groupColor is the colour of a group, varied a little by t (0 to 1) so that
// neighbours of one group are told apart.
function groupColor(kind, id, t) {
  const label = groupNames(kind)[id], wave = t - 0.5;
  if (label === '[kernel]' || label === 'kernel') {
    const l = (state.safe ? (dark() ? 0.39 : 0.88) : dark() ? 0.45 : 0.80) + 0.05 * wave;
    return {fill: lch(l, 0.018, 60), ink: inkOn(l)};
  }
  if (!label) {
    const l = (dark() ? 0.38 : 0.88) + 0.04 * wave;
    return {fill: lch(l, 0.006, 250), ink: inkOn(l)};
  }
  if (state.safe) {
    const [light, deep, c, h] = safeWheel[id % safeWheel.length];
    const l = (dark() ? deep : light) + 0.05 * wave;
    return {fill: lch(l, c, h), ink: inkOn(l)};
  }
  const round = Math.floor(id / wheel.length); // later rounds are paler
  const l = (dark() ? 0.50 : 0.825) + 0.055 * wave + 0.02 * (round % 2);
  return {fill: lch(l, Math.max((dark() ? 0.088 : 0.092) - 0.03 * round, 0.03), wheel[id % wheel.length] + 14 * wave), ink: inkOn(l)};
}

function groupNames(kind) { return {module: D.modules, space: D.spaces, lang: D.langs}[kind]; }

// changeColor is the colour of a change of share: red or orange for more in the
// new profile, blue for less. Small changes show too: it goes by the root.
let changeScale = 0.05;
function changeColor(delta) {
  const t = Math.min(Math.sqrt(Math.abs(delta) / changeScale), 1);
  const strong = Math.abs(delta) < 0.0005 ? 0 : 0.15 + 0.85 * t;
  const h = delta < 0 ? 255 : state.safe ? 62 : 27;
  const l = dark() ? 0.33 + 0.25 * strong : 0.94 - 0.28 * strong;
  return {fill: lch(l, strong ? 0.02 + (dark() ? 0.13 : 0.15) * strong : 0.004, h), ink: inkOn(l)};
}

let frameColors = [];
function recolor() {
  frameColors = [];
  if (comparison) {
    let most = 0;
    for (let i = 1; i < N; i++) most = Math.max(most, Math.abs(change(i)));
    changeScale = Math.max(most, 0.005);
  }
}
function colorOf(i) {
  if (state.color === 'change') return changeColor(change(i));
  if (i === 0) return {fill: dark() ? '#2b3139' : '#e6e6e1', ink: dark() ? '#e8eaed' : '#1b1d21'};
  const f = frameOf[i];
  return frameColors[f] ??= groupColor(state.color, D.frames[state.color][f], hash(D.frames.name[f]));
}

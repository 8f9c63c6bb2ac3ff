(() => {
'use strict';
const pad = 10, width = 1200 - 2 * pad, char = 7;
const frames = document.getElementById('frames'), said = document.getElementById('said'), found = document.getElementById('found');
const boxes = [...frames.children].map(g => {
  const [title, rect, text] = g.children, name = title.textContent.split('\n')[0];
  const x = +rect.getAttribute('x') - pad;
  return {g, rect, text, name, short: g.dataset.short || name, x, w: +rect.getAttribute('width'), level: +g.getAttribute('aria-level'), parent: null, children: []};
});
const path = [];
for (const b of boxes) {
  path.length = b.level - 1;
  b.parent = path[path.length - 1] || null;
  if (b.parent) b.parent.children.push(b);
  path.push(b);
}
let zoomed = boxes[0], focused = boxes[0];

function fit(b, w) {
  const n = Math.floor((w - 6) / char);
  return b.name.length <= n ? b.name : b.short.length <= n ? b.short : n < 3 ? '' : b.short.slice(0, n - 1) + '…';
}
function zoom(to) {
  zoomed = to;
  const scale = width / Math.max(to.w, 1e-9);
  for (const b of boxes) {
    const from = Math.max((b.x - to.x) * scale, 0), end = Math.min((b.x + b.w - to.x) * scale, width), w = end - from;
    b.g.style.display = w > 0.25 ? '' : 'none';
    b.g.classList.toggle('above', b.level < to.level);
    if (w <= 0.25) continue;
    b.rect.setAttribute('x', pad + from);
    b.rect.setAttribute('width', w);
    b.text.setAttribute('x', pad + from + 3);
    b.text.textContent = fit(b, w);
  }
  focus(to);
}
function say(b) { said.textContent = b ? b.g.firstElementChild.textContent.replace(/\n/g, ' · ') : ''; }
function focus(b) {
  focused.g.removeAttribute('tabindex');
  focused = b;
  b.g.setAttribute('tabindex', '0');
  b.g.focus({preventScroll: false});
  say(b);
}
function search(text) {
  let sum = 0, n = 0, test = null;
  try {
    test = text ? new RegExp(text, /\p{Lu}/u.test(text) ? 'u' : 'iu') : null;
  } catch {
    found.textContent = 'not a regular expression';
    return;
  }
  frames.classList.toggle('searching', !!test);
  for (const b of boxes) {
    const hit = !!test && b !== boxes[0] && test.test(b.name);
    b.hit = hit;
    b.below = !!b.parent && (b.parent.hit || b.parent.below);
    b.g.classList.toggle('hit', hit);
    if (hit) n++;
    if (hit && !b.below) sum += b.w;
  }
  found.textContent = test ? (100 * sum / boxes[0].w).toFixed(1) + ' % in ' + n + (n === 1 ? ' frame' : ' frames') : '';
}
const shown = b => b && b.g.style.display !== 'none' ? b : null;
function beside(step) {
  const row = boxes.filter(b => b.level === focused.level && shown(b)).sort((a, b) => a.x - b.x);
  return row[row.indexOf(focused) + step];
}
const keys = {
  ArrowUp: () => focus(focused.children.filter(shown).sort((a, b) => b.w - a.w)[0] || focused),
  ArrowDown: () => focus(focused.parent || focused),
  ArrowLeft: () => focus(beside(-1) || focused),
  ArrowRight: () => focus(beside(1) || focused),
  Enter: () => zoom(focused),
  Escape: () => frames.classList.contains('searching') ? search('') : zoom(zoomed.parent || boxes[0]),
  Home: () => zoom(boxes[0]),
  '/': () => search(prompt('Search functions (regular expression)') || ''),
};
document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.metaKey || e.altKey || !keys[e.key]) return;
  e.preventDefault();
  keys[e.key]();
});
const boxAt = e => boxes.find(b => b.g === e.target.closest('#frames > g'));
frames.addEventListener('click', e => { const b = boxAt(e); if (b) zoom(b); });
frames.addEventListener('mouseover', e => say(boxAt(e)));
frames.addEventListener('mouseleave', () => say(null));
boxes[0].g.setAttribute('tabindex', '0');
document.documentElement.searchFrames = search;
})();

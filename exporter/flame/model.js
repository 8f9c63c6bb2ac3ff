// The profile: decoded, summed up, laid out. No drawing.
const D = JSON.parse(document.getElementById('profile').textContent);
const N = D.nodes.frame.length;
const frameOf = Int32Array.from(D.nodes.frame);
const lineOf = Int32Array.from(D.nodes.line);
const depth = Int32Array.from(D.nodes.depth);
const parent = new Int32Array(N).fill(-1);
const subtreeEnd = new Int32Array(N); // nodes stand in preorder: a subtree ends before this one
const comparison = D.base !== null;

(function link() {
  const path = [];
  for (let i = 0; i < N; i++) {
    while (path.length > depth[i]) subtreeEnd[path.pop()] = i;
    if (path.length) parent[i] = path[path.length - 1];
    path.push(i);
  }
  while (path.length) subtreeEnd[path.pop()] = N;
})();

// Children of node i are kids[kidsFrom[i]] … kids[kidsFrom[i+1]-1].
const kidsFrom = new Int32Array(N + 1);
const kids = new Int32Array(Math.max(N - 1, 0));
for (let i = 1; i < N; i++) kidsFrom[parent[i] + 1]++;
for (let i = 0; i < N; i++) kidsFrom[i + 1] += kidsFrom[i];
(function fill() {
  const next = kidsFrom.slice();
  for (let i = 1; i < N; i++) kids[next[parent[i]]++] = i;
})();

// What the present type of value gives: own values of nodes and whole ones, of
// the new profile and, in a comparison, of the base.
const now = {self: null, total: null}, before = {self: null, total: null};
const x = new Float64Array(N); // where a node begins, in values

const state = {
  type: D.type, widths: 'new', sort: 'weight', view: 'icicle', color: comparison ? 'change' : D.color,
  safe: false, theme: 'auto', zoom: 0, focus: 0, search: '', mark: null,
};

function sums(self, rest) {
  const total = new Float64Array(N);
  for (let i = N - 1; i >= 0; i--) {
    total[i] += self[i] + (rest ? rest[i] : 0);
    if (i) total[parent[i]] += total[i];
  }
  return total;
}

// measure takes the values of the present type.
function measure() {
  now.self = Float64Array.from(D.self[state.type]);
  now.total = sums(now.self, D.rest && D.rest[state.type]);
  if (comparison) {
    before.self = Float64Array.from(D.base[state.type]);
    before.total = sums(before.self, D.baseRest && D.baseRest[state.type]);
  }
}

// width is what the widths of frames are taken from.
function widthOf() { return comparison && state.widths === 'base' ? before.total : now.total; }

// place orders siblings and gives each node its place.
function place() {
  const w = widthOf(), other = comparison ? (w === now.total ? before.total : now.total) : w;
  const byName = (a, b) => compareText(D.frames.name[frameOf[a]], D.frames.name[frameOf[b]]);
  const byWeight = (a, b) => w[b] - w[a] || other[b] - other[a] || byName(a, b);
  const order = state.sort === 'name' ? byName : byWeight;
  for (let i = 0; i < N; i++) {
    const from = kidsFrom[i], to = kidsFrom[i + 1];
    if (to - from > 1) kids.subarray(from, to).sort(order);
    let at = x[i];
    for (let k = from; k < to; k++) {
      x[kids[k]] = at;
      at += Math.max(w[kids[k]], 0);
    }
  }
}

function compareText(a, b) { return a < b ? -1 : a > b ? 1 : 0; }

const share = (v, all) => all ? v / all : 0;
const nowShare = i => share(now.total[i], now.total[0]);
const baseShare = i => share(before.total[i], before.total[0]);
const change = i => nowShare(i) - baseShare(i);

function name(i) { return i === 0 ? 'all' : D.frames.name[frameOf[i]]; }
function moduleOf(i) { return i === 0 ? '' : D.modules[D.frames.module[frameOf[i]]]; }
function sourceOf(i) {
  if (i === 0) return '';
  const file = D.files[D.frames.file[frameOf[i]]];
  return file && lineOf[i] ? file + ':' + lineOf[i] : file;
}

// shortName leaves out what can be spared where there is little room: the
// directories of a Go package, parameters and template arguments.
function shortName(f) {
  const full = D.frames.name[f], lang = D.langs[D.frames.lang[f]];
  if (lang === 'go') {
    const end = full.search(/[([{]/), head = end < 0 ? full : full.slice(0, end);
    return full.slice(head.lastIndexOf('/') + 1);
  }
  const impl = lang === 'rust' && /^<(.+) as .+>(::[^>]*)$/.exec(full);
  if (impl) return impl[1] + impl[2];
  if (lang === 'c++' || lang === 'rust') {
    let out = '', level = 0;
    for (const c of full) {
      if (c === '<') level++;
      else if (c === '>') level = Math.max(level - 1, 0);
      else if (c === '(' && level === 0 && out) break;
      else if (level === 0) out += c;
    }
    return out.trim() || full;
  }
  return full;
}
const shortNames = [];
function short(f) { return shortNames[f] ??= shortName(f); }

const digits = n => String(Math.round(Math.abs(n))).replace(/\B(?=(\d{3})+$)/g, '\u202f');
function three(n) { return n >= 99.95 ? n.toFixed(0) : n >= 9.995 ? n.toFixed(1) : n.toFixed(2); }
const timeUnits = {nanoseconds: 1, ns: 1, microseconds: 1e3, us: 1e3, milliseconds: 1e6, ms: 1e6, seconds: 1e9, s: 1e9};

// format writes a value of the present type for people.
function format(v) {
  const unit = D.types[state.type].unit, sign = v < 0 ? '−' : '';
  v = Math.abs(v);
  if (timeUnits[unit]) {
    const ns = v * timeUnits[unit];
    if (ns < 1000) return sign + Math.round(ns) + ' ns';
    for (const [size, u, most] of [[1e3, 'µs', 999.5], [1e6, 'ms', 999.5], [1e9, 's', 999.5], [6e10, 'm', 100], [3.6e12, 'h', 100], [8.64e13, 'd', Infinity]]) {
      if (ns / size < most) return sign + three(ns / size) + ' ' + u;
    }
  }
  if (unit === 'bytes') {
    let u = 'B';
    for (const next of ['KiB', 'MiB', 'GiB', 'TiB']) {
      if (v < 1023.5) break;
      v /= 1024;
      u = next;
    }
    return sign + (u === 'B' ? Math.round(v) : three(v)) + ' ' + u;
  }
  return sign + digits(v) + (unit && unit !== 'count' ? ' ' + unit : unit === 'count' && D.types[state.type].name === 'samples' ? (v === 1 ? ' sample' : ' samples') : '');
}
function percent(s) {
  if (s > 0 && s < 0.0005) return '< 0.1 %';
  if (s < 1 && s >= 0.9995) return '> 99.9 %';
  return (100 * s).toFixed(1) + ' %';
}
function points(s) {
  const p = 100 * s;
  return Math.abs(p) < 0.05 ? '±0.0 pp' : (p > 0 ? '+' : '−') + Math.abs(p).toFixed(1) + ' pp';
}

// Search: which frames match, and how much of the whole is below them.
const hits = new Uint8Array(D.frames.name.length);
const found = {active: false, frames: 0, share: 0, error: ''};

function search() {
  found.active = false;
  found.error = '';
  hits.fill(0);
  let test = null;
  if (state.mark) {
    const of = D.frames[state.mark.kind];
    test = f => of[f] === state.mark.id;
  } else if (state.search) {
    let re;
    try {
      re = new RegExp(state.search, /\p{Lu}/u.test(state.search) ? 'u' : 'iu');
    } catch (e) {
      found.error = 'not a regular expression';
      return;
    }
    test = f => re.test(D.frames.name[f]);
  }
  if (!test) return;
  found.active = true;
  for (let f = 0; f < hits.length; f++) hits[f] = test(f) ? 1 : 0;
  // A match below another counts once.
  const w = widthOf();
  let sum = 0, n = 0, skip = 0;
  for (let i = 1; i < N; i++) {
    if (!hits[frameOf[i]]) continue;
    n++;
    if (i >= skip) {
      sum += w[i];
      skip = subtreeEnd[i];
    }
  }
  found.frames = n;
  found.share = share(sum, w[0]);
}

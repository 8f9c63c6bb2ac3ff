// What a person does, and what the page says of it.
const $ = id => document.getElementById(id);
const root = document.documentElement;

function element(tag, props, ...children) {
  const e = Object.assign(document.createElement(tag), props);
  e.append(...children);
  return e;
}

// facts of a node, as pairs for the tip and as text for the line below the graph
// and for screen readers.
function factsOf(i) {
  const t = D.types[state.type], facts = [];
  if (comparison) {
    facts.push(['new', format(now.total[i]) + ' · ' + percent(nowShare(i))]);
    facts.push(['base', format(before.total[i]) + ' · ' + percent(baseShare(i))]);
    facts.push(['change', points(change(i)) + (before.total[i] === 0 ? ' · not in the base' : now.total[i] === 0 ? ' · gone' : '')]);
  } else {
    facts.push([t.title, format(now.total[i]) + ' · ' + percent(nowShare(i))]);
    if (parent[i] > 0) facts.push(['of its caller', percent(share(now.total[i], now.total[parent[i]]))]);
  }
  if (i && now.self[i]) facts.push(['itself', format(now.self[i]) + ' · ' + percent(share(now.self[i], now.total[0]))]);
  if (moduleOf(i)) facts.push(['module', moduleOf(i)]);
  if (i && D.langs[D.frames.lang[frameOf[i]]]) facts.push(['language', D.langs[D.frames.lang[frameOf[i]]]]);
  if (sourceOf(i)) facts.push(['source', sourceOf(i)]);
  return facts;
}

function describe(i) {
  const line = $('details');
  line.replaceChildren();
  if (i < 0) return;
  line.append(element('b', {textContent: name(i)}));
  for (const [what, text] of factsOf(i)) {
    line.append(element('span', {textContent: what}), text);
  }
}

// announce tells screen readers of the frame that has the focus.
function announce() {
  const i = state.focus, e = $('current');
  const siblings = i ? Array.from(kids.subarray(kidsFrom[parent[i]], kidsFrom[parent[i] + 1])) : [0];
  e.setAttribute('aria-level', depth[i] + 1);
  e.setAttribute('aria-posinset', siblings.indexOf(i) + 1);
  e.setAttribute('aria-setsize', siblings.length);
  if (kidsFrom[i + 1] > kidsFrom[i]) e.setAttribute('aria-expanded', 'true');
  else e.removeAttribute('aria-expanded');
  e.setAttribute('aria-selected', String(i === state.zoom));
  e.textContent = name(i) + ', ' + factsOf(i).map(f => f.join(' ')).join(', ');
}

function focus(i, quiet) {
  state.focus = i;
  announce();
  describe(i);
  if (!quiet) scrollTo(i);
  draw();
}

function zoom(i, calm) {
  state.zoom = state.focus = i;
  announce();
  describe(i);
  crumbs();
  fillTable();
  hideTip();
  travel(i, calm);
  remember();
}

function crumbs() {
  const path = [];
  for (let i = state.zoom; i >= 0; i = parent[i]) path.unshift(i);
  const nav = $('crumbs');
  nav.replaceChildren();
  const add = (i, last) => {
    if (nav.childNodes.length) nav.append(element('span', {textContent: '›', ariaHidden: 'true'}));
    const text = i ? short(frameOf[i]) : 'all';
    if (last) {
      const s = element('span', {textContent: text, title: name(i)});
      s.setAttribute('aria-current', 'true');
      nav.append(s);
    } else {
      nav.append(element('button', {type: 'button', textContent: text, title: name(i), onclick: () => zoom(i)}));
    }
  };
  if (path.length <= 9) {
    path.forEach((i, k) => add(i, k === path.length - 1));
    return;
  }
  path.slice(0, 3).forEach(i => add(i));
  nav.append(element('span', {textContent: '› … ' + (path.length - 7) + ' more …'}));
  path.slice(-4).forEach((i, k) => add(i, k === 3));
}

function showTip(i, cx, cy) {
  if (i < 0) return hideTip();
  const tip = $('tip'), list = element('dl', {});
  for (const [what, text] of factsOf(i)) {
    const dd = element('dd', {textContent: text});
    if (what === 'change') dd.className = change(i) > 0.0005 ? 'grew' : change(i) < -0.0005 ? 'shrank' : '';
    list.append(element('dt', {textContent: what}), dd);
  }
  tip.replaceChildren(element('b', {textContent: name(i)}), list);
  tip.hidden = false;
  const r = tip.getBoundingClientRect();
  tip.style.left = Math.max(Math.min(cx + 14, innerWidth - r.width - 8), 8) + 'px';
  tip.style.top = (cy + 18 + r.height > innerHeight - 8 ? Math.max(cy - r.height - 12, 8) : cy + 18) + 'px';
}
function hideTip() { $('tip').hidden = true; }

function updateSearch() {
  search();
  const out = $('found');
  $('search').setAttribute('aria-invalid', String(!!found.error));
  out.className = found.error ? 'bad' : '';
  out.textContent = found.error || (found.active ? percent(found.share) + ' in ' + digits(found.frames) + (found.frames === 1 ? ' frame' : ' frames') : '');
  for (const b of $('legend').querySelectorAll('button')) {
    b.setAttribute('aria-pressed', String(!!state.mark && state.mark.kind === state.color && +b.dataset.id === state.mark.id));
  }
  fillTable();
  draw();
  remember();
}

// nextHit moves the focus to the next or previous match that is in sight.
function nextHit(step) {
  if (!found.active) return;
  const boxes = sight.rows.flat().filter(b => b.node > 0 && hits[frameOf[b.node]]).map(b => b.node).sort((a, b) => a - b);
  if (!boxes.length) return;
  let k = step > 0 ? boxes.findIndex(i => i > state.focus) : boxes.findLastIndex(i => i < state.focus);
  if (k < 0) k = step > 0 ? 0 : boxes.length - 1;
  view.focus({preventScroll: true});
  focus(boxes[k]);
}

function legend() {
  const box = $('legend');
  box.replaceChildren();
  if (state.color === 'change') {
    const scale = element('span', {className: 'scale', role: 'img', ariaLabel: 'blue: less, ' + (state.safe ? 'orange' : 'red') + ': more'});
    const stops = [];
    for (let k = -4; k <= 4; k++) stops.push(changeColor(changeScale * Math.sign(k) * (k / 4) ** 2).fill);
    scale.style.background = 'linear-gradient(to right, ' + stops.join(', ') + ')';
    box.append('less in ' + D.newName, scale, 'more in ' + D.newName + ' than in ' + D.baseName + ' (share of each profile’s own total, up to ' + points(changeScale).slice(1) + ')');
    return;
  }
  const of = D.frames[state.color], names = groupNames(state.color);
  const weights = new Float64Array(names.length);
  for (let i = 1; i < N; i++) weights[of[frameOf[i]]] += now.self[i];
  const ids = [...weights.keys()].filter(id => weights[id] > 0).sort((a, b) => weights[b] - weights[a]);
  for (const id of ids.slice(0, 12)) {
    const chip = element('i', {});
    chip.style.background = groupColor(state.color, id, 0.5).fill;
    const b = element('button', {type: 'button', title: 'Show where (again: everything)'}, chip,
      element('span', {textContent: names[id] || 'unknown'}), percent(share(weights[id], now.total[0])));
    b.dataset.id = id;
    b.setAttribute('aria-pressed', 'false');
    b.onclick = () => {
      const same = state.mark && state.mark.kind === state.color && state.mark.id === id;
      state.mark = same ? null : {kind: state.color, id};
      state.search = $('search').value = '';
      updateSearch();
    };
    box.append(b);
  }
  if (ids.length > 12) box.append((ids.length - 12) + ' more');
}

// look applies what changes colours, repaint everything.
function look() {
  const wanted = state.theme === 'auto' ? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light') : state.theme;
  root.dataset.theme = wanted;
  root.classList.toggle('safe', state.safe);
  $('theme').textContent = 'Theme: ' + state.theme;
  $('safe').setAttribute('aria-pressed', String(state.safe));
  readTheme();
  recolor();
  legend();
  refit();
}

// layout applies what moves frames.
function layout(calm) {
  measure();
  place();
  search();
  $('flip').textContent = state.view === 'flame' ? 'Flame ▲' : 'Icicle ▼';
  $('sort').textContent = state.sort === 'name' ? 'By name' : 'By weight';
  $('widths').textContent = 'Widths: ' + state.widths;
  recolor();
  legend();
  zoom(state.zoom, calm);
  updateSearch();
}

const switches = {
  flip() { state.view = state.view === 'flame' ? 'icicle' : 'flame'; layout(true); },
  sort() { state.sort = state.sort === 'name' ? 'weight' : 'name'; layout(true); },
  safe() { state.safe = !state.safe; look(); remember(); keep(); },
  theme() { state.theme = {auto: 'light', light: 'dark', dark: 'auto'}[state.theme]; look(); remember(); keep(); },
  widths() {
    if (!comparison) return;
    state.widths = state.widths === 'new' ? 'base' : 'new';
    layout(true);
  },
  color() {
    const s = $('color');
    s.selectedIndex = (s.selectedIndex + 1) % s.options.length;
    s.onchange();
  },
};

// The state is kept in the address, so that a link shows what its sender saw;
// taste is kept for the next graph too, where the browser allows.
function remember() {
  const p = new URLSearchParams();
  if (state.zoom) p.set('zoom', state.zoom);
  if (state.search) p.set('search', state.search);
  if (state.view !== 'icicle') p.set('view', state.view);
  if (state.sort !== 'weight') p.set('sort', state.sort);
  if (state.widths !== 'new') p.set('widths', state.widths);
  if (state.color !== (comparison ? 'change' : D.color)) p.set('color', state.color);
  if (state.type !== D.type) p.set('type', D.types[state.type].name);
  if (state.theme !== 'auto') p.set('theme', state.theme);
  if (state.safe) p.set('safe', '1');
  try {
    history.replaceState(null, '', '#' + p);
  } catch { /* a file's address may not be changed in some browsers */ }
}
function keep() {
  try {
    localStorage.setItem('sbxtrace-flame', JSON.stringify({theme: state.theme, safe: state.safe}));
  } catch { /* nowhere to keep it */ }
}
function recall() {
  const oneOf = (v, ...of) => of.includes(v) ? v : of[0];
  try {
    const kept = JSON.parse(localStorage.getItem('sbxtrace-flame') || '{}');
    state.theme = oneOf(kept.theme, 'auto', 'light', 'dark');
    state.safe = kept.safe === true;
  } catch { /* nothing kept */ }
  const p = new URLSearchParams(location.hash.slice(1));
  const node = parseInt(p.get('zoom'), 10);
  state.zoom = node > 0 && node < N ? node : 0;
  state.search = p.get('search') || '';
  state.view = oneOf(p.get('view'), 'icicle', 'flame');
  state.sort = oneOf(p.get('sort'), 'weight', 'name');
  state.widths = comparison ? oneOf(p.get('widths'), 'new', 'base') : 'new';
  state.color = [...$('color').options].some(o => o.value === p.get('color')) ? p.get('color') : state.color;
  state.type = Math.max(0, p.has('type') ? D.types.findIndex(t => t.name === p.get('type')) : state.type);
  if (p.has('theme')) state.theme = oneOf(p.get('theme'), 'auto', 'light', 'dark');
  if (p.has('safe')) state.safe = p.get('safe') === '1';
}

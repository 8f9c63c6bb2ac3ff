// Drawing: the frames that are in sight, on a canvas of the size of the view.
const view = document.getElementById('view'), spacer = document.getElementById('spacer');
const canvas = document.getElementById('canvas'), ctx = canvas.getContext('2d');
const rowHeight = 21;
const narrowest = 0.6; // px: what is narrower is not drawn
const sight = {from: 0, to: 1, rows: [], tiny: 0}; // the values in sight; boxes per row
let cssWidth = 0, cssHeight = 0;
const font = '12.5px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

// arrange finds the boxes of all frames that are wide enough to see. Runs of
// narrower siblings become one box without a node.
function arrange() {
  const w = widthOf(), scale = cssWidth / Math.max(sight.to - sight.from, 1e-12);
  const rows = [], todo = [0];
  const add = (row, node, from, to) => (rows[row] ??= []).push({node, x: from, w: to - from});
  let tiny = 0;
  while (todo.length) {
    const i = todo.pop();
    add(depth[i], i, Math.max((x[i] - sight.from) * scale, 0), Math.min((x[i] + w[i] - sight.from) * scale, cssWidth));
    let from = 0, to = -1; // of a run of narrow ones
    const endRun = () => {
      if (to - from >= 1) add(depth[i] + 1, -1, from, to);
      to = -1;
    };
    for (let k = kidsFrom[i]; k < kidsFrom[i + 1]; k++) {
      const c = kids[k], a = (x[c] - sight.from) * scale, b = (x[c] + w[c] - sight.from) * scale;
      if (b <= 0 || a >= cssWidth) continue;
      if (b - a >= narrowest) {
        endRun();
        todo.push(c);
        continue;
      }
      tiny++;
      if (to < 0) from = Math.max(a, 0);
      to = Math.min(b, cssWidth);
    }
    endRun();
  }
  for (const row of rows) row.sort((a, b) => a.x - b.x);
  sight.rows = rows;
  sight.tiny = tiny;
}

function contentHeight() { return sight.rows.length * rowHeight + 1; }

// top is where a row begins in the content.
function rowTop(row) {
  return state.view === 'flame' ? contentHeight() - 1 - (row + 1) * rowHeight : row * rowHeight;
}

// resize fits the canvas to the view and the view's content to the rows.
function resize() {
  const h = contentHeight();
  spacer.style.height = h + 'px';
  const width = view.clientWidth, height = Math.min(h, view.clientHeight || h);
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = height + 'px';
  }
  cssHeight = height;
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
}

function refit() {
  cssWidth = view.clientWidth;
  arrange();
  const before = view.clientWidth;
  resize();
  if (view.clientWidth !== before) { // a scroll bar came or went
    cssWidth = view.clientWidth;
    arrange();
    resize();
  }
  draw();
}

let css = {};
function readTheme() {
  const s = getComputedStyle(document.documentElement);
  for (const v of ['bg', 'ink', 'soft', 'hit', 'hit-ink', 'rest', 'accent']) css[v] = s.getPropertyValue('--' + v).trim();
}

const textWidths = new Map();
function textWidth(s) {
  let w = textWidths.get(s);
  if (w === undefined) {
    if (textWidths.size > 50000) textWidths.clear();
    w = ctx.measureText(s).width;
    textWidths.set(s, w);
  }
  return w;
}

// fitText returns as much of a frame's name as fits.
function fitText(i, room) {
  if (i === 0) return textWidth('all') <= room ? 'all' : '';
  const full = D.frames.name[frameOf[i]];
  if (full.length * 4 < room * 3 && textWidth(full) <= room) return full;
  const s = short(frameOf[i]);
  if (textWidth(s) <= room) return s;
  let n = Math.floor(s.length * room / textWidth(s));
  while (n > 1 && textWidth(s.slice(0, n) + '…') > room) n--;
  return n > 1 ? s.slice(0, n) + '…' : '';
}

let hovered = -1;
function draw() {
  ctx.clearRect(0, 0, cssWidth, cssHeight);
  ctx.font = font;
  ctx.textBaseline = 'middle';
  const top = view.scrollTop;
  for (let row = 0; row < sight.rows.length; row++) {
    const y = rowTop(row) - top;
    if (y + rowHeight < 0 || y > cssHeight) continue;
    for (const b of sight.rows[row]) drawBox(b, y);
  }
  outline(hovered, css.ink, 1.5);
  if (document.activeElement === view || state.focus !== state.zoom) outline(state.focus, css.accent, 2.5);
}

function drawBox(b, y) {
  const gap = b.w > 3 ? 1 : 0, h = rowHeight - 1;
  if (b.node < 0) {
    ctx.fillStyle = css.rest;
    ctx.fillRect(b.x, y, b.w - gap, h);
    return;
  }
  const hit = found.active && b.node && hits[frameOf[b.node]];
  let {fill, ink} = colorOf(b.node);
  if (hit && !state.mark) [fill, ink] = [css.hit, css['hit-ink']];
  const above = depth[b.node] < depth[state.zoom];
  ctx.globalAlpha = found.active && !hit ? 0.28 : above ? 0.55 : 1;
  ctx.fillStyle = fill;
  if (b.w > 6) {
    ctx.beginPath();
    ctx.roundRect(b.x, y, b.w - gap, h, 2);
    ctx.fill();
  } else {
    ctx.fillRect(b.x, y, Math.max(b.w - gap, 0.5), h);
  }
  if (b.w > 24) {
    const text = fitText(b.node, b.w - 9);
    if (text) {
      ctx.globalAlpha = found.active && !hit ? 0.6 : above ? 0.8 : 1;
      ctx.fillStyle = ctx.globalAlpha < 0.7 ? css.ink : above && dark() ? '#ffffff' : ink;
      ctx.fillText(text, b.x + 4.5, y + h / 2 + 0.5);
    }
  }
  ctx.globalAlpha = 1;
}

function boxOf(i) {
  const row = i >= 0 ? sight.rows[depth[i]] : null;
  return row ? row.find(b => b.node === i) : undefined;
}

function outline(i, color, width) {
  const b = boxOf(i);
  if (!b) return;
  ctx.strokeStyle = color;
  ctx.lineWidth = width;
  ctx.strokeRect(b.x + width / 2, rowTop(depth[i]) - view.scrollTop + width / 2, Math.max(b.w - 1 - width, 1), rowHeight - 1 - width);
}

// nodeAt returns the node below a point of the canvas, -1 for none.
function nodeAt(px, py) {
  const y = py + view.scrollTop;
  const row = state.view === 'flame' ? Math.floor((contentHeight() - 1 - y) / rowHeight) : Math.floor(y / rowHeight);
  const boxes = sight.rows[row];
  if (!boxes) return -1;
  let lo = 0, hi = boxes.length - 1;
  while (lo < hi) {
    const mid = (lo + hi + 1) >> 1;
    if (boxes[mid].x <= px) lo = mid; else hi = mid - 1;
  }
  const b = boxes[lo];
  return px >= b.x && px < b.x + Math.max(b.w, 1) ? b.node : -1;
}

function scrollTo(i) {
  const y = rowTop(depth[i]);
  if (y < view.scrollTop) view.scrollTop = Math.max(y - rowHeight, 0);
  else if (y + rowHeight > view.scrollTop + view.clientHeight) view.scrollTop = y + 2 * rowHeight - view.clientHeight;
}

// travel moves the sight to node i, smoothly unless the system asks for calm.
let journey = 0;
function travel(i, calm) {
  const w = widthOf(), from = {a: sight.from, b: sight.to}, to = {a: x[i], b: x[i] + w[i]};
  if (to.b <= to.a) to.b = to.a + 1e-9;
  cancelAnimationFrame(journey);
  const done = () => {
    sight.from = to.a;
    sight.to = to.b;
    refit();
    if (state.view === 'flame') view.scrollTop = rowTop(depth[i]) + 2 * rowHeight - view.clientHeight;
    else view.scrollTop = Math.max(rowTop(depth[i]) - 4 * rowHeight, 0);
    draw();
  };
  if (calm || N > 30000 || matchMedia('(prefers-reduced-motion: reduce)').matches) return done();
  const began = performance.now();
  const step = t => {
    const p = Math.min((t - began) / 170, 1), e = 1 - (1 - p) ** 3;
    if (p >= 1) return done();
    sight.from = from.a + (to.a - from.a) * e;
    sight.to = from.b + (to.b - from.b) * e;
    refit();
    journey = requestAnimationFrame(step);
  };
  journey = requestAnimationFrame(step);
}

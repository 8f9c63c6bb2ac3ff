// Keys and the mouse.

// neighbour returns the frame next to i that is in sight: a sibling, or what
// else stands in its row.
function neighbour(i, step) {
  const row = (sight.rows[depth[i]] || []).filter(b => b.node >= 0);
  const k = row.findIndex(b => b.node === i) + step;
  return k >= 0 && k < row.length ? row[k].node : i;
}

// widestChild returns the child of i with most of it that is in sight.
function widestChild(i) {
  let best = i, width = 0;
  for (const b of sight.rows[depth[i] + 1] || []) {
    if (b.node >= 0 && parent[b.node] === i && b.w > width) [best, width] = [b.node, b.w];
  }
  return best;
}

const moves = {
  ArrowLeft: () => neighbour(state.focus, -1),
  ArrowRight: () => neighbour(state.focus, 1),
  ArrowUp: () => state.view === 'flame' ? widestChild(state.focus) : Math.max(parent[state.focus], 0),
  ArrowDown: () => state.view === 'flame' ? Math.max(parent[state.focus], 0) : widestChild(state.focus),
};

function escape() {
  if (state.search || state.mark) {
    state.search = $('search').value = '';
    state.mark = null;
    updateSearch();
  } else if (state.zoom) {
    zoom(Math.max(parent[state.zoom], 0));
  } else {
    focus(0);
  }
}

function onKey(e) {
  if (e.ctrlKey || e.metaKey || e.altKey || $('keys').open) return;
  const typing = e.target === $('search'), choosing = e.target.tagName === 'SELECT';
  if (e.key === 'Escape') {
    escape();
    if (typing) view.focus({preventScroll: true});
  } else if (typing) {
    if (e.key === 'Enter') nextHit(e.shiftKey ? -1 : 1);
    else return;
  } else if (choosing) {
    return;
  } else if (e.key === '/') {
    $('search').focus();
    $('search').select();
  } else if (e.target === view && moves[e.key]) {
    focus(moves[e.key]());
  } else if (e.target === view && (e.key === 'Enter' || e.key === ' ')) {
    zoom(state.focus);
  } else if (e.key === 'Home' && e.target === view) {
    zoom(0);
  } else if (e.key === 'n' || e.key === 'N') {
    nextHit(e.key === 'n' ? 1 : -1);
  } else {
    const act = {f: 'flip', s: 'sort', c: 'safe', t: 'theme', b: 'widths', o: 'color'}[e.key];
    if (act) switches[act]();
    else if (e.key === '?') $('keys').showModal();
    else return;
  }
  e.preventDefault();
}

function listen() {
  document.addEventListener('keydown', onKey);
  let pending = 0, px = 0, py = 0;
  canvas.addEventListener('mousemove', e => {
    [px, py] = [e.clientX, e.clientY];
    pending ||= requestAnimationFrame(() => {
      pending = 0;
      const r = canvas.getBoundingClientRect(), i = nodeAt(px - r.left, py - r.top);
      if (i !== hovered) {
        hovered = i;
        draw();
        describe(i >= 0 ? i : state.focus);
      }
      showTip(i, px, py);
    });
  });
  canvas.addEventListener('mouseleave', () => {
    cancelAnimationFrame(pending);
    pending = 0;
    hovered = -1;
    hideTip();
    describe(state.focus);
    draw();
  });
  canvas.addEventListener('click', e => {
    const r = canvas.getBoundingClientRect(), i = nodeAt(e.clientX - r.left, e.clientY - r.top);
    if (i >= 0) zoom(i);
  });
  view.addEventListener('scroll', () => { hideTip(); draw(); });
  view.addEventListener('focus', draw);
  view.addEventListener('blur', draw);
  new ResizeObserver(() => { if (view.clientWidth !== cssWidth || Math.min(view.clientHeight, contentHeight()) !== cssHeight) refit(); }).observe(view);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { if (state.theme === 'auto') look(); });

  $('search').addEventListener('input', e => {
    state.search = e.target.value;
    state.mark = null;
    updateSearch();
  });
  for (const id of ['flip', 'sort', 'safe', 'theme', 'widths']) $(id).onclick = switches[id];
  $('keysbutton').onclick = () => $('keys').showModal();
  $('color').onchange = () => {
    state.color = $('color').value;
    state.mark = null;
    recolor();
    legend();
    updateSearch();
  };
  $('type').onchange = () => { state.type = +$('type').value; layout(true); };
}

(function start() {
  root.classList.toggle('comparison', comparison);
  $('widths').hidden = !comparison;
  D.types.forEach((t, k) => $('type').append(element('option', {value: k, textContent: t.title})));
  $('typefield').hidden = D.types.length < 2;
  const kinds = [['module', 'module', D.modules], ['space', 'package', D.spaces], ['lang', 'language', D.langs]];
  if (comparison) $('color').append(element('option', {value: 'change', textContent: 'change'}));
  for (const [value, text, names] of kinds) {
    if (names.filter(n => n).length > 0) $('color').append(element('option', {value, textContent: text}));
  }
  recall();
  $('color').value = state.color;
  $('type').value = state.type;
  $('search').value = state.search;
  measure();
  place();
  look();
  layout(true);
  listen();
})();

// The table of functions, of what the graph is zoomed to.
const tableRows = 100;
const order = {by: comparison ? 'selfChange' : 'self', down: true};

// functionRows sums up, per function, the values below the zoomed frame: those
// of the function itself, and those of all that it calls, recursion once.
function functionRows() {
  const n = D.frames.name.length, open = new Int32Array(n), rows = new Map();
  const end = subtreeEnd[state.zoom], path = [];
  for (let i = Math.max(state.zoom, 1); i < end; i++) {
    while (path.length && subtreeEnd[path[path.length - 1]] <= i) open[frameOf[path.pop()]]--;
    const f = frameOf[i];
    let r = rows.get(f);
    if (!r) rows.set(f, r = {frame: f, node: i, self: 0, total: 0, baseSelf: 0, baseTotal: 0, most: -1});
    r.self += now.self[i];
    if (comparison) r.baseSelf += before.self[i];
    if (now.self[i] > r.most) [r.node, r.most] = [i, now.self[i]];
    if (!open[f]++) {
      r.total += now.total[i];
      if (comparison) r.baseTotal += before.total[i];
    }
    path.push(i);
  }
  return [...rows.values()];
}

function columns() {
  const all = now.total[0], was = comparison ? before.total[0] : 0;
  const value = (key, title) => ({key, title, of: r => r[key], text: r => r[key] ? format(r[key]) : '–', number: true});
  const part = (key, title) => ({
    key: key + 'Share', title, of: r => r[key], number: true, bar: r => share(r[key], all), text: r => r[key] ? percent(share(r[key], all)) : '–',
  });
  const changed = (key, base, title) => {
    const of = r => share(r[key], all) - share(r[base], was);
    return {key: key + 'Change', title, of: r => Math.abs(of(r)), delta: of, text: r => points(of(r)), number: true};
  };
  const text = (key, title, of, soft) => ({key, title, of, text: of, soft});
  return [
    ...(comparison
      ? [part('self', 'Self, new'), changed('self', 'baseSelf', 'Self, change'), part('total', 'Total, new'), changed('total', 'baseTotal', 'Total, change')]
      : [value('self', 'Self'), part('self', 'Self %'), value('total', 'Total'), part('total', 'Total %')]),
    text('name', 'Function', r => D.frames.name[r.frame]),
    text('module', 'Module', r => D.modules[D.frames.module[r.frame]], true),
    text('source', 'Source', r => sourceOf(r.node).replace(/^.*[\/\\]/, ''), true),
  ];
}

function fillTable() {
  const cols = columns(), head = element('tr', {}), body = document.createDocumentFragment();
  for (const c of cols) {
    const th = element('th', {scope: 'col', className: c.number ? 'number' : ''});
    if (c.key === order.by) th.setAttribute('aria-sort', order.down ? 'descending' : 'ascending');
    th.append(element('button', {type: 'button', textContent: c.title, onclick: () => {
      order.down = order.by === c.key ? !order.down : !!c.number;
      order.by = c.key;
      fillTable();
    }}));
    head.append(th);
  }
  const by = cols.find(c => c.key === order.by), sign = order.down ? -1 : 1;
  const all = functionRows();
  const rows = (found.active ? all.filter(r => hits[r.frame]) : all).map(r => [by.of(r), r]);
  rows.sort(([a, r], [b, s]) => sign * (a < b ? -1 : a > b ? 1 : 0) || s.total - r.total);
  for (const [, r] of rows.slice(0, tableRows)) body.append(tableRow(cols, r));
  $('functions').tHead.replaceChildren(head);
  $('functions').tBodies[0].replaceChildren(body);
  const what = found.active ? 'matching functions' : 'functions';
  $('scope').textContent = (rows.length > tableRows ? 'the first ' + tableRows + ' of ' + digits(rows.length) + ' ' + what : digits(rows.length) + ' ' + (rows.length === 1 ? what.slice(0, -1) : what)) +
    (state.zoom ? ' below ' + short(frameOf[state.zoom]) : '');
}

function tableRow(cols, r) {
  const tr = element('tr', {});
  for (const c of cols) {
    const td = element('td', {className: c.number ? 'number' : c.soft ? 'soft' : 'name'});
    if (c.key === 'name') {
      td.append(element('button', {type: 'button', textContent: c.text(r), title: 'Show where it is called', onclick: () => {
        state.mark = null;
        state.search = $('search').value = '^' + D.frames.name[r.frame].replace(/[\\^$.*+?()[\]{}|\/]/g, '\\$&') + '$';
        updateSearch();
        view.scrollIntoView({block: 'nearest'});
      }}));
    } else {
      td.textContent = c.text(r);
      if (c.soft) td.title = c.key === 'source' ? sourceOf(r.node) : c.text(r);
    }
    if (c.delta) td.classList.add(c.delta(r) > 0.0005 ? 'grew' : c.delta(r) < -0.0005 ? 'shrank' : 'soft');
    if (c.bar) {
      const bar = element('i', {});
      bar.style.width = 100 * Math.min(Math.max(c.bar(r), 0), 1) + '%';
      td.append(element('span', {className: 'share', ariaHidden: 'true'}, bar));
    }
    tr.append(td);
  }
  return tr;
}

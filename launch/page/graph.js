// The graph: boxes in levels, callers above those they call, and a line for each edge.
'use strict';

const SVG = 'http://www.w3.org/2000/svg';
const MANY = 4; // more nodes of a group are one box

function drawn(kind, attributes, ...children) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function count(value) {
  if (value === null || value === undefined) return '-';
  const [size, unit] = value >= 1e9 ? [1e9, 'G'] : value >= 1e6 ? [1e6, 'M']
    : value >= 1e4 ? [1e3, 'k'] : [1, ''];
  const scaled = value / size;
  return scaled.toFixed(scaled >= 100 || Number.isInteger(scaled) ? 0 : 1) + unit;
}
const bytes = (value) => (value === null ? '-'
  : count(value).replace(/([kMG]?)$/, ' $1B'));
function seconds(value) {
  if (value === null || value === undefined) return '-';
  if (value < 1e-3) return Math.round(value * 1e6) + ' µs';
  if (value < 1) return (value * 1e3).toFixed(value < 0.01 ? 1 : 0) + ' ms';
  return value < 120 ? value.toFixed(1) + ' s' : Math.round(value / 60) + ' min';
}
function cut(text, width) {
  const most = Math.floor(width / 6.2);
  return text.length > most ? text.slice(0, most - 1) + '…' : text;
}

const up = (node) => ['running', 'serving', 'finished'].includes(node.state);
const wrong = (node) => ['failed', 'restarting'].includes(node.state)
  || (up(node) && !node.answers && node.silent !== null);

// What a node mostly did of late: the class of its dot.
function doing(node) {
  if (wrong(node)) return 'bad';
  if (!up(node)) return 'idle';
  const waited = Object.values(node.recent.waiting).reduce((a, b) => a + b, 0);
  const shares = {computing: node.recent.computing, sending: node.recent.sending,
    waiting: waited, idle: node.recent.idle};
  return Object.keys(shares).reduce((a, b) => (shares[b] > shares[a] ? b : a), 'idle');
}

// One box for a node, or for a group of many.
function boxesOf(status) {
  const groups = new Map();
  for (const node of status.nodes) {
    const path = node.name.split('/').slice(0, -1).join('/');
    const key = path ? path + '/' : node.name;
    groups.set(key, [...(groups.get(key) || []), node]);
  }
  const boxes = [];
  for (const [key, nodes] of groups) {
    if (nodes.length > MANY) {
      boxes.push({title: key.slice(0, -1) + ' ×' + nodes.length, nodes});
    } else {
      boxes.push(...nodes.map((node) => ({title: node.name, nodes: [node]})));
    }
  }
  return boxes;
}

// The edges between boxes; of several the sums, and the longest latencies.
function edgesOf(status, boxes) {
  const boxOf = new Map(boxes.flatMap((box) => box.nodes.map((node) => [node.name, box])));
  const sum = (a, b) => (a === null ? b : b === null ? a : a + b);
  const most = (a, b) => (a === null ? b : b === null ? a : Math.max(a, b));
  const merged = new Map();
  for (const edge of status.edges) {
    const from = boxOf.get(edge.caller), to = boxOf.get(edge.callee);
    const key = from.title + '>' + to.title;
    const one = merged.get(key) || {from, to, calls: null, bytes: null, p50: null,
      p99: null, open: 0, errors: 0};
    one.calls = sum(one.calls, edge.calls_per_second);
    one.bytes = sum(one.bytes, edge.bytes_per_second);
    one.p50 = most(one.p50, edge.latency_p50);
    one.p99 = most(one.p99, edge.latency_p99);
    one.open += edge.open;
    one.errors += edge.errors;
    merged.set(key, one);
  }
  return [...merged.values()].filter((edge) => edge.from !== edge.to);
}

// Puts each box into a row: its level, which takes several rows where it is too narrow.
function place(boxes, levels, width) {
  const levelOf = new Map(levels.flatMap((names, level) => names.map((n) => [n, level])));
  const gap = width < 500 ? 12 : 34, high = 62, between = width < 500 ? 46 : 66;
  const wide = Math.min(220, (width - gap) / 2 - gap);
  const most = Math.max(1, Math.floor((width - gap) / (wide + gap)));
  let y = 6;
  for (let level = 0; level < levels.length; level++) {
    const here = boxes.filter((box) => levelOf.get(box.nodes[0].name) === level);
    const rows = Math.ceil(here.length / most), each = Math.ceil(here.length / (rows || 1));
    for (let start = 0; start < here.length; start += each) {
      const row = here.slice(start, start + each);
      const left = (width - row.length * (wide + gap) + gap) / 2;
      row.forEach((box, index) => Object.assign(box, {x: left + index * (wide + gap), y,
        wide, high}));
      y += high + (start + each < here.length ? 14 : between);
    }
  }
  return y - between + 8;
}

// Ends on the boxes' rims, spread out so that lines don't lie on each other.
function route(edges) {
  const along = (box, index, total) => box.x + (box.wide * (index + 1)) / (total + 1);
  for (const side of ['from', 'to']) {
    const other = side === 'from' ? 'to' : 'from';
    for (const box of new Set(edges.map((edge) => edge[side]))) {
      const mine = edges.filter((edge) => edge[side] === box);
      mine.sort((a, b) => a[other].x - b[other].x);
      mine.forEach((edge, i) => { edge[side + 'X'] = along(box, i, mine.length); });
    }
  }
  for (const edge of edges) {
    const down = edge.to.y > edge.from.y;
    const y0 = edge.from.y + (down ? edge.from.high : 0);
    const y1 = edge.to.y + (down ? -5 : edge.to.high + 5);
    const bend = Math.max(24, Math.abs(y1 - y0) / 2) * (down ? 1 : -1);
    edge.points = [[edge.fromX, y0], [edge.fromX, y0 + bend], [edge.toX, y1 - bend],
      [edge.toX, y1]];
  }
}
function at(points, t) {
  const weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t ** 3];
  return [0, 1].map((axis) => points.reduce((s, p, i) => s + p[axis] * weights[i], 0));
}

// Where a label has room: not on a box, nor on another label.
function roomFor(edge, wide, high, taken, width) {
  for (const t of [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.12, 0.88]) {
    const [x, y] = at(edge.points, t);
    const left = Math.min(Math.max(x - wide / 2, 0), width - wide);
    const spot = {x: left, y: y - high / 2, wide, high};
    if (!taken.some((o) => spot.x < o.x + o.wide + 2 && o.x < spot.x + wide + 2
        && spot.y < o.y + o.high + 2 && o.y < spot.y + high + 2)) {
      return spot;
    }
  }
  return null;
}

function drawBox(box, narrow, open) {
  const nodes = box.nodes, first = nodes[0], inner = box.wide - 18;
  const bad = nodes.filter(wrong);
  const total = (what, of = nodes) => of.reduce((sum, node) => sum + (node[what] || 0), 0);
  const processes = [...new Map(nodes.map((node) => [node.host + node.pid, node])).values()];
  const states = new Set(nodes.map((node) => node.state));
  const shown = bad[0] || first;
  const restarts = total('restarts');
  const plain = states.size === 1 && up(shown);
  const facts = [narrow && plain ? '' : states.size === 1 ? shown.state
    : `${nodes.filter(up).length} up`,
    restarts ? `${restarts} restarts` : '',
    nodes.some((node) => node.cpu !== null) ? total('cpu', processes).toFixed(2) + ' cpu' : '',
    nodes.some((node) => node.memory) ? bytes(total('memory', processes)) : ''].filter(Boolean);
  const text = (y, kind, words) => drawn('text', {x: box.x + 9, y: box.y + y, class: kind},
    cut(words, inner));
  const group = drawn('a', {'data-node': first.name},
    drawn('title', {}, nodes.map((n) => `${n.name}: ${n.waits.text || n.state}`).join('\n')),
    drawn('rect', {x: box.x, y: box.y, width: box.wide, height: box.high, rx: 7,
      class: bad.length ? 'box bad' : 'box'}),
    text(19, '', box.title),
    drawn('circle', {cx: box.x + box.wide - 13, cy: box.y + 15, r: 4.5,
      class: doing(shown) === 'bad' ? 'bad-dot' : doing(shown)}),
    text(36, 'small', shown.waits.text ? (narrow ? '' : 'waits for ') + shown.waits.text
      : shown.service),
    text(52, 'small', facts.join(' · ')));
  if (first.waits.kind === 'nothing') group.children[4].textContent =
    cut(shown.waits.text.replace('nothing: ', ''), inner);
  group.addEventListener('click', () => open(first.name));
  return group;
}

function drawGraph(place_, status, open) {
  const width = Math.max(280, place_.clientWidth), narrow = width < 500;
  const boxes = boxesOf(status);
  const height = place(boxes, status.levels, width);
  const edges = edgesOf(status, boxes);
  route(edges);
  const taken = boxes.map(({x, y, wide, high}) => ({x, y, wide, high}));
  const lines = [], labels = [];
  const busiest = [...edges].sort((a, b) => (b.bytes || 0) - (a.bytes || 0));
  for (const edge of busiest) {
    const [a, b, c, d] = edge.points;
    const used = edge.calls > 0 || edge.open > 0;
    const thick = 1 + Math.min(4, Math.log10(1 + (edge.bytes || 0) / 1e3));
    const down = d[1] > a[1] ? 1 : -1;
    const said = `${edge.from.title} → ${edge.to.title}: ${count(edge.calls)} calls/s, `
      + `${bytes(edge.bytes)}/s, p50 ${seconds(edge.p50)}, p99 ${seconds(edge.p99)}`;
    const group = drawn('g', {class: 'call'}, drawn('title', {}, said),
      drawn('path', {d: `M${a} C${b} ${c} ${d}`, class: used ? 'edge' : 'edge off',
        'stroke-width': thick}),
      drawn('path', {d: `M${d[0] - 4},${d[1]} l8,0 l-4,${6 * down} z`, class: 'tip'}));
    lines.push(group);
    if (!used) continue;
    const rows = [`${count(edge.calls)}/s  ${bytes(edge.bytes)}/s`,
      ...(narrow ? [] : [`${seconds(edge.p50)}  p99 ${seconds(edge.p99)}`])];
    const wide = Math.max(...rows.map((row) => row.length)) * 5.6 + 8;
    const spot = roomFor(edge, wide, rows.length * 13 + 3, taken, width);
    if (!spot) continue;
    taken.push(spot);
    labels.push(drawn('g', {class: 'call'}, drawn('title', {}, said),
      drawn('rect', {x: spot.x, y: spot.y, width: wide, height: spot.high, rx: 4,
        class: 'label'}),
      ...rows.map((row, i) => drawn('text', {x: spot.x + 4, y: spot.y + 12 + 13 * i,
        class: 'small'}, row))));
  }
  const svg = drawn('svg', {viewBox: `0 0 ${width} ${height}`, height, role: 'img',
    'aria-label': 'the graph'}, ...lines, ...boxes.map((box) => drawBox(box, narrow, open)),
  ...labels);
  place_.replaceChildren(svg);
  return edges;
}

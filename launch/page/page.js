// Asks the program once a second how it stands, and shows it.
'use strict';

const token = new URLSearchParams(location.search).get('token');
const byId = (id) => document.getElementById(id);
const opened = new Map(); // by node, what is shown below its line: 'log' or 'stacks'
let asked = 0;

async function ask(path, method = 'GET') {
  const answer = await fetch(path, {method, headers: {'X-Callsheet-Token': token}});
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.text);
  return body;
}

function element(kind, attributes, ...children) {
  const made = document.createElement(kind);
  Object.assign(made, attributes);
  made.append(...children);
  return made;
}

function say(text) {
  byId('said').textContent = text;
  byId('said').hidden = !text;
}

function showHead(status) {
  document.title = `${status.program}: ${status.state}`;
  byId('program').textContent = status.program;
  const state = byId('state');
  state.textContent = status.state;
  state.className = 'badge ' + (status.state === 'failed' ? 'bad' : 'good');
  const restarts = status.nodes.reduce((sum, node) => sum + node.restarts, 0);
  byId('facts').textContent = [status.backend, `${status.nodes.length} nodes`,
    `for ${seconds(status.time - status.started)}`,
    restarts ? `${restarts} restarts` : ''].filter(Boolean).join(' · ');
  byId('bottleneck').textContent = status.bottleneck;
  byId('bottleneck').hidden = !status.bottleneck;
  byId('snapshot').hidden = !status.snapshots;
}

function bar(shares) {
  const waited = Object.values(shares.waiting).reduce((a, b) => a + b, 0);
  const parts = {computing: shares.computing, sending: shares.sending, waiting: waited,
    idle: shares.idle};
  const made = element('span', {className: 'bar'});
  made.title = Object.entries(parts).map(([n, s]) => `${n} ${Math.round(s * 100)}%`)
    .join(', ');
  for (const [name, share] of Object.entries(parts)) {
    const part = element('span', {className: name});
    part.style.width = share * 100 + '%';
    made.append(part);
  }
  return made;
}

function facts(node) {
  const known = [['service', node.service], ['state', node.state],
    ['restarts', node.restarts], ['process', node.pid && `${node.pid} on ${node.host}`],
    ['cpu', node.cpu !== null && node.cpu.toFixed(2) + ' cores'],
    ['memory', node.memory && bytes(node.memory)],
    ['GPU memory', node.gpu_memory !== null && bytes(node.gpu_memory)],
    ['waits for', node.waits.text], ['calls in hand', node.queue],
    ['slowest call', node.slowest && `${node.slowest}, ${seconds(node.slowest_seconds)}`],
    ['parameters', node.parameter_age !== null && seconds(node.parameter_age) + ' old']];
  for (const [table, says] of Object.entries(node.tables)) {
    if (says === null || typeof says !== 'object') {
      known.push([table, typeof says === 'number' ? count(says) : says]);
      continue;
    }
    for (const [name, value] of Object.entries(says)) {
      const shown = typeof value === 'number' ? count(value)
        : value === null && name === 'credit' ? 'unbounded' : value;
      known.push([`${table} ${name.replaceAll('_', ' ')}`, shown]);
    }
  }
  return known.filter(([, value]) => value !== null && value !== false && value !== ''
    && value !== undefined);
}

function makeNode(node) {
  const line = element('summary', {}), told = element('div', {className: 'facts'});
  const text = element('pre', {hidden: true});
  const show = (what) => element('button', {onclick: async () => {
    opened.set(node.name, what);
    await showText(node.name);
  }}, what === 'log' ? 'Log' : 'Stacks');
  const more = element('div', {className: 'more'}, told,
    element('div', {className: 'buttons'}, show('log'), show('stacks')), text);
  const made = element('details', {id: 'node-' + node.name}, line, more);
  made.addEventListener('toggle', () => {
    if (!made.open) opened.delete(node.name);
    else if (!opened.has(node.name)) { opened.set(node.name, 'log'); showText(node.name); }
  });
  return made;
}

async function showText(name) {
  const what = opened.get(name), text = byId('node-' + name).querySelector('pre');
  const path = `${what}?node=${encodeURIComponent(name)}`;
  const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 30;
  try {
    const told = await ask(path, what === 'log' ? 'GET' : 'POST');
    text.textContent = told.text || (told.path ? '(empty)'
      : 'its output goes to the terminal');
  } catch (error) {
    text.textContent = error.message;
  }
  text.hidden = false;
  if (what === 'log' && atEnd) text.scrollTop = text.scrollHeight;
}

function showNodes(status) {
  for (const node of status.nodes) {
    const made = byId('node-' + node.name) || byId('nodes').appendChild(makeNode(node));
    const waits = node.waits.text || node.state;
    const number = (text) => element('span', {className: 'number'}, text);
    const line = made.querySelector('summary');
    if (line.matches(':active')) continue; // else the click would find nothing
    line.replaceChildren(
      element('i', {className: doing(node)}),
      element('span', {className: 'name', title: node.service}, node.name),
      number(node.state + (node.restarts ? ` ↻${node.restarts}` : '')),
      element('span', {className: 'waits', title: waits},
        node.waits.kind === 'nothing' ? waits.replace('nothing: ', '')
          : node.waits.text ? 'waits for ' + waits : ''),
      bar(node.recent),
      number(node.cpu === null ? '-' : node.cpu.toFixed(2) + ' cpu'),
      number(node.memory ? bytes(node.memory) : '-'));
    if (made.open) {
      made.querySelector('.facts').replaceChildren(...facts(node).map(([name, value]) =>
        element('span', {}, element('b', {}, name + ' '), String(value))));
    }
  }
}

function showEdges(edges) {
  const cell = (text) => element('td', {}, String(text));
  byId('edges').tBodies[0].replaceChildren(...edges.map((edge) => element('tr', {},
    cell(edge.from.title), cell(edge.to.title), cell(count(edge.calls)),
    cell(bytes(edge.bytes)), cell(seconds(edge.p50)), cell(seconds(edge.p99)),
    cell(edge.open), cell(edge.errors))));
}

// A chart of lines: each has its points [[x, y], ...] and its name.
function chart(title, lines) {
  const width = 400, height = 190, left = 46, bottom = 22, top = 24;
  const points = lines.flatMap((line) => line.points);
  if (!points.length) return null;
  const range = (axis) => points.reduce(([low, high], point) =>
    [Math.min(low, point[axis]), Math.max(high, point[axis])], [Infinity, -Infinity]);
  const [x0, x1] = range(0);
  let [y0, y1] = range(1);
  if (y0 > 0 && y0 < y1 / 2) y0 = 0;
  if (y0 === y1) [y0, y1] = [y0 - 1, y1 + 1];
  const x = (value) => left + ((value - x0) / (x1 - x0 || 1)) * (width - left - 8);
  const y = (value) => height - bottom - ((value - y0) / (y1 - y0))
    * (height - bottom - top);
  const svg = drawn('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img',
    'aria-label': title}, drawn('text', {x: 4, y: 13}, title));
  for (const value of [y0, (y0 + y1) / 2, y1]) {
    svg.append(drawn('line', {x1: left, x2: width - 8, y1: y(value), y2: y(value),
      class: 'grid'}), drawn('text', {x: left - 5, y: y(value) + 4, class: 'small',
      'text-anchor': 'end'}, count(Math.abs(value) < 1e-9 ? 0 : value)));
  }
  for (const [value, anchor] of [[x0, 'start'], [x1, 'end']]) {
    svg.append(drawn('text', {x: x(value), y: height - 6, class: 'small',
      'text-anchor': anchor}, count(value)));
  }
  lines.forEach((line, index) => svg.append(drawn('polyline', {
    points: line.points.map((p) => `${x(p[0])},${y(p[1])}`).join(' '),
    class: index ? 'line second' : 'line'}, drawn('title', {}, line.name))));
  return svg;
}

function showCurves(told) {
  if (!told.rows || !told.rows.length) return;
  const column = new Map(told.figures.map((name, index) => [name, index]));
  const acted = told.rows.some((row) => row[column.get('actor_steps')]);
  const line = (name, x) => ({name, points: told.rows
    .map((row) => [row[column.get(x)], row[column.get(name)]])
    .filter(([a, b]) => a !== null && b !== null && a !== undefined && b !== undefined)});
  const steps = acted ? 'actor_steps' : 'learner_steps';
  const charts = [
    chart(`return (evaluated${acted ? ', acting' : ''}) over ${steps.replace('_', ' ')}`,
      [line('evaluator/return', 'evaluator/' + steps), line('actor/return', steps)]),
    chart('steps per second (learner, actors) over seconds',
      [line('learner_steps_per_second', 'seconds'),
        line('actor_steps_per_second', 'seconds')]),
    chart('loss over learner steps', [line('learner/loss', 'learner_steps')]),
  ].filter(Boolean);
  byId('curves').replaceChildren(...charts);
  byId('learning').hidden = !charts.length;
}

function open(name) {
  const made = byId('node-' + name);
  made.open = true;
  made.scrollIntoView({behavior: 'smooth', block: 'center'});
}

async function press(button, path) {
  button.disabled = true;
  try {
    say((await ask(path, 'POST')).text);
  } catch (error) {
    say(error.message);
  }
  button.disabled = false;
}

byId('stop').addEventListener('click', (event) => {
  if (confirm('Stop the program? Its nodes end in order.')) press(event.target, 'stop');
});
byId('snapshot').addEventListener('click', (event) => press(event.target, 'snapshot'));

let last = null;
function show() {
  if (!last) return;
  showHead(last);
  showNodes(last);
  // What the pointer is on stays, and its words with it.
  if (byId('graph').querySelector('a:hover, g.call:hover')) return;
  showEdges(drawGraph(byId('graph'), last, open));
}

async function tick() {
  try {
    last = await ask('status');
    show();
    if (asked % 3 === 0) showCurves(await ask('curves'));
    for (const [name, what] of opened) if (what === 'log') await showText(name);
    asked += 1;
  } catch (error) {
    const gone = error instanceof TypeError; // of fetch: nobody is there
    say(gone ? 'the program has ended, or can not be reached' : error.message);
    if (gone && last) {
      byId('state').textContent = 'away';
      byId('state').className = 'badge bad';
    }
  }
  setTimeout(tick, document.hidden ? 5000 : 1000);
}

addEventListener('resize', show);
tick();

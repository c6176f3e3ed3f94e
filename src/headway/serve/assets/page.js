'use strict';
const $ = id => document.getElementById(id), SVG = 'http://www.w3.org/2000/svg';
const CHARTS = [
  ['chart-rate', '/s', [['answered', 'answered_per_s'], ['refused', 'refused_per_s'], ['failed', 'failed_per_s']]],
  ['chart-time', 's', [['p50', 'p50'], ['p90', 'p90'], ['p99', 'p99']]],
  ['chart-queue', 's', [['mean queue', 'queue_s'], ['mean service', 'service_s']]],
  ['chart-rows', '', [['rows a batch', 'rows']]],
];
let last = null, failures = 0, timer = 0, hover = null, said = '';

const digits = v => v === 0 ? '0' : v >= 1000 ? Math.round(v).toLocaleString('en') : String(Number(v.toPrecision(3)));
const seconds = v => v == null ? '–' : v >= 1 ? digits(v) + ' s' : v >= 1e-3 ? digits(v * 1e3) + ' ms' : digits(v * 1e6) + ' µs';
const shown = (v, unit) => v == null ? '–' : unit === 's' ? seconds(v) : digits(v) + unit;
const share = v => v == null ? '–' : digits(v * 100) + '%';
const put = (id, text, mood) => { const e = $(id); if (e.textContent !== text) e.textContent = e.title = text; if (mood !== undefined) e.className = mood; };

function say(text, bad) {
  if (text === said) return;
  said = text;
  put('state', text, bad ? 'bad' : '');
}

function nice(top) {
  if (!(top > 0)) return 1;
  const scale = 10 ** Math.floor(Math.log10(top));
  return [1, 2, 3, 5, 10].find(step => step * scale >= top * 0.999) * scale;
}

function line(points, top) {
  let path = '', drawing = false;
  points.forEach((v, i) => {
    if (v == null) { drawing = false; return; }
    path += (drawing ? 'L' : 'M') + i + ' ' + (100 - 100 * v / top).toFixed(2) + (drawing ? '' : 'h.01');
    drawing = true;
  });
  return path;
}

function draw([id, unit, lines], series, bound) {
  const figure = $(id), svg = figure.querySelector('svg'), count = series[lines[0][1]].length;
  const values = lines.flatMap(([, key]) => series[key].filter(v => v != null));
  const top = nice(Math.max(bound || 0, ...values));
  const at = hover == null ? count - 1 : Math.min(count - 1, Math.round(hover * (count - 1)));
  const paths = [['grid', `M0 0H${count - 1}M0 50H${count - 1}M0 100H${count - 1}`]];
  if (hover != null) paths.push(['at', `M${at} 0V100`]);
  if (bound) paths.push(['bound', `M0 ${100 - 100 * bound / top}H${count - 1}`]);
  lines.forEach(([, key], i) => paths.push(['s' + i, line(series[key], top)]));
  svg.setAttribute('viewBox', `0 0 ${count - 1} 100`);
  svg.replaceChildren(...paths.map(([name, d]) => {
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('class', name);
    path.setAttribute('d', d);
    return path;
  }));
  const legend = lines.map(([label, key], i) => ['k' + i, label + ' ' + shown(series[key][at], unit)]);
  if (bound) legend.push(['kb', 'bound ' + seconds(bound)]);
  if (hover != null) legend.push(['', count - at + ' s ago']);
  figure.querySelector('figcaption').replaceChildren(...legend.map(([name, text]) => {
    const item = document.createElement('span');
    item.className = name;
    if (name) item.append(document.createElement('i'));
    item.append(text);
    return item;
  }));
  figure.querySelector('.top').textContent = shown(top, unit);
  svg.setAttribute('aria-label', legend.map(([, text]) => text).join(', '));
}

function options(live) {
  const keys = live.gauges.models.map(m => m.name + ' ' + m.version), select = $('which');
  if (select.dataset.keys === keys.join('\n')) return;
  select.dataset.keys = keys.join('\n');
  const kept = select.value;
  select.replaceChildren(new Option('All models', ''), ...keys.map(key => new Option(key, key)));
  select.value = keys.includes(kept) ? kept : '';
  select.hidden = keys.length < 2;
}

function table(live, seen) {
  const all = live.models.reduce((sum, m) => sum + m.recent.answered_per_s, 0);
  $('models').replaceChildren(...live.gauges.models.map(m => {
    const recent = seen.get(m.name + ' ' + m.version)?.recent, row = document.createElement('tr');
    const mixed = Object.entries(recent?.variants ?? {}).map(([name, part]) => part < 0.9995 ? `${name} ${share(part)}` : name).join(', ');
    const name = m.bound_percentile || 'p99', time = recent?.percentiles[name] ?? null;
    const cells = [`${m.name} ${m.version}`, m.state + (m.reason ? ': ' + m.reason : ''), mixed || m.variant || '–', m.plan || '–',
      share(all && recent ? recent.answered_per_s / all : 0), shown(recent?.answered_per_s ?? 0, '/s'),
      m.rate_per_s ? shown(m.rate_per_s, '/s') : '–', `${name} ${seconds(time)}`, m.bound_s ? '≤ ' + seconds(m.bound_s) : 'none'];
    cells.forEach((text, i) => {
      const cell = document.createElement(i ? 'td' : 'th');
      if (!i) cell.scope = 'row';
      if (i === 7 && m.bound_s && time != null) cell.className = time > m.bound_s ? 'badly' : 'good';
      cell.textContent = text;
      row.append(cell);
    });
    return row;
  }));
}

function tiles(live, part, models) {
  const r = part.recent, g = live.gauges, bounds = new Set(models.map(m => `${m.bound_percentile} ${m.bound_s}`));
  const bound = bounds.size === 1 && models[0].bound_s || null, name = bound && models[0].bound_percentile || 'p99', time = r.percentiles[name] ?? null;
  put('rate', shown(r.answered_per_s, '/s'));
  const found = Object.entries(r.refused_by_reason);
  const reasons = found.map(([reason, v]) => reason + (found.length > 1 ? ' ' + shown(v, '/s') : '')).join(', ');
  put('refused', r.refused_per_s ? `refused ${shown(r.refused_per_s, '/s')}: ${reasons}` : r.failed_per_s ? `failed ${shown(r.failed_per_s, '/s')}` : 'none refused',
    r.refused_per_s || r.failed_per_s ? 'sub badly' : 'sub');
  put('tail-name', name + ' of total time');
  const over = bound && time > bound;
  put('tail', seconds(time), 'big ' + (bound && time != null ? over ? 'badly' : 'good' : ''));
  put('tail-bound', !bound ? 'no bound' : time == null ? `bound ${seconds(bound)}` : over ? `✗ above the bound, ${seconds(bound)}` : `✓ within the bound, ${seconds(bound)}`);
  put('waiting', digits(g.waiting ?? 0) + ' waiting');
  put('flight', `${digits(g.in_flight ?? 0)} running, ${digits(g.connections ?? 0)} connections`);
  put('batch', shown(r.rows, r.rows == null ? '' : ' rows'));
  put('service', r.service_s == null ? 'no batch' : `${seconds(r.service_s)} each`);
  const used = Object.entries(r.variants);
  put('variant', used.length ? used[0][0] : models[0]?.variant || '–');
  put('variants', used.length > 1 ? used.map(([v, part]) => `${v} ${share(part)}`).join(', ') : used.length ? 'all answers' : 'no answers yet');
  return [name, bound];
}

function show(live) {
  options(live);
  const seen = new Map(live.models.map(m => [m.model + ' ' + m.version, m])), key = $('which').value;
  const models = live.gauges.models.filter(m => !key || m.name + ' ' + m.version === key);
  const empty = { series: Object.fromEntries(Object.keys(live.all.series).map(k => [k, live.all.series[k].map(() => null)])),
    recent: { answered_per_s: 0, refused_per_s: 0, failed_per_s: 0, rows: null, service_s: null, percentiles: {}, variants: {}, refused_by_reason: {} } };
  const part = key ? seen.get(key) ?? empty : live.all;
  const [, bound] = tiles(live, part, models);
  CHARTS.forEach(chart => draw(chart, part.series, chart[0] === 'chart-time' ? bound : null));
  table(live, seen);
  const quiet = part.series.answered_per_s.every(v => !v) && part.series.refused_per_s.every(v => !v);
  say(live.gauges.draining ? 'Draining: the server answers what it has accepted, and stops.' : !live.gauges.ready ? 'Not ready.' :
    quiet ? 'Ready. No requests in the last two minutes.' : 'Ready. Numbers are of the last 10 seconds, charts of the last two minutes.',
    live.gauges.draining || !live.gauges.ready);
}

async function poll() {
  clearTimeout(timer);
  if (document.hidden) return;
  let wait = 1000;
  try {
    const token = sessionStorage.getItem('headway-token'), headers = token ? { Authorization: 'Bearer ' + token } : {};
    const answer = await fetch('/v2/headway/live', { headers, cache: 'no-store', signal: AbortSignal.timeout(5000) });
    $('ask').hidden = answer.status !== 401;
    if (answer.status === 401) { $('live').hidden = true; say('This server asks for a token.', true); return; }
    if (!answer.ok) throw new Error('status ' + answer.status);
    last = await answer.json();
    failures = 0;
    $('live').hidden = false;
    show(last);
  } catch (error) {
    wait = Math.min(30000, 1000 * 2 ** ++failures);
    say(`The server does not answer; trying again every ${wait / 1000} s. Numbers are from before.`, true);
  }
  timer = setTimeout(poll, wait);
}

document.querySelectorAll('.plot').forEach(plot => {
  plot.addEventListener('pointermove', event => {
    const box = plot.getBoundingClientRect();
    hover = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    if (last) show(last);
  });
  plot.addEventListener('pointerleave', () => { hover = null; if (last) show(last); });
});
$('ask').addEventListener('submit', event => {
  event.preventDefault();
  sessionStorage.setItem('headway-token', $('token').value);
  $('token').value = '';
  poll();
});
$('which').addEventListener('change', () => last && show(last));
document.addEventListener('visibilitychange', poll);
poll();

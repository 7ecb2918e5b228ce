// Copyright 2026 dynsplit_ros developers
// SPDX-License-Identifier: Apache-2.0
// Draws each figure of the page into the width that it has, from the data that the page brings along.
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const NS = 'http://www.w3.org/2000/svg';
  const plots = [];

  function add(parent, name, attributes, text) {
    const node = document.createElementNS(NS, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    parent.appendChild(node);
    return node;
  }

  const colour = (series) => `var(--c${series.colour})`;
  const known = (value) => value !== null && value !== undefined;

  function short(value) {
    if (!known(value)) return '–';
    const size = Math.abs(value);
    return String(Number(size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toPrecision(2)));
  }

  function clock(seconds, span) {
    if (span <= 180) return `${Number(seconds.toFixed(1))} s`;
    const whole = Math.round(seconds), pad = (n) => String(n).padStart(2, '0');
    return (span > 7200 ? Math.floor(whole / 3600) + ':' + pad(Math.floor(whole / 60) % 60) : Math.floor(whole / 60)) + ':' + pad(whole % 60);
  }

  function steps(low, high, most, sizes) {
    const rough = (high - low) / Math.max(1, most);
    let size = sizes.find((one) => one >= rough);
    if (!size) {
      const power = 10 ** Math.floor(Math.log10(rough));
      size = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
    }
    const found = [];
    for (let value = Math.ceil(low / size - 1e-9) * size; value <= high + size * 1e-9; value += size) found.push(Math.abs(value) < size * 1e-9 ? 0 : value);
    return found;
  }

  function decades(low, high, most) {
    for (const subs of [[1, 2, 5], [1, 3], [1]]) {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
        for (const sub of subs) {
          const value = Number((sub * 10 ** power).toPrecision(3));
          if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
        }
      if (found.length <= most || subs.length === 1) return found.filter((_, i) => i % Math.ceil(found.length / most) === 0);
    }
  }

  function extent(chart) {
    let low = Infinity, high = -Infinity;
    const see = (value) => { if (known(value) && (!chart.log || value > 0)) { low = Math.min(low, value); high = Math.max(high, value); } };
    for (const s of chart.series) {
      if (s.kind === 'stack') s.layers[0].y.forEach((_, i) => see(s.layers.reduce((sum, layer) => sum + layer.y[i], 0)));
      else { (s.y || []).forEach(see); (s.low || []).forEach(see); (s.high || []).forEach(see); }
    }
    if (!(low <= high)) [low, high] = chart.log ? [1, 10] : [0, 1];
    if (chart.range) [low, high] = [chart.range[0] ?? low, chart.range[1] ?? high];
    if (chart.log) return high / low < 4 ? [low / 2, high * 2] : [low / 1.25, high * 1.25];
    return chart.range && known(chart.range[1]) ? [low, high] : [low, high + 0.06 * ((high - low) || 1)];
  }

  // What a figure of this width shows on its upright axis, and how much room that takes at the left.
  function measure(plot) {
    const { chart, box } = plot;
    const width = Math.max(200, Math.floor(box.clientWidth)), narrow = width < 520, height = (narrow ? 0.82 : 1) * chart.height;
    const [low, high] = extent(chart);
    const top = chart.phases.length && !narrow ? 20 : 8, bottom = height - 22;
    const scale = chart.log ? Math.log : (value) => value;
    const y = (value) => bottom - (scale(value) - scale(low)) / (scale(high) - scale(low)) * (bottom - top);
    const room = Math.max(2, Math.floor((bottom - top) / 24));
    let ticks = chart.ticks ? chart.ticks.map(([value, name, long]) => [value, narrow ? name : long])
      : (chart.log ? decades(low, high, room) : steps(low, high, room, [])).map((value) => [value, short(value)]);
    if (chart.ticks) { // those that have no room of 13 px beside the one before are left out
      let last = Infinity;
      ticks = ticks.filter(([value]) => { const at = y(value); if (last - at < 13) return false; last = at; return true; });
    }
    const left = Math.min(0.36 * width, 12 + 6.6 * Math.max(2, ...ticks.map(([, name]) => name.length)));
    return { width, narrow, height, low, high, top, bottom, y, ticks, left };
  }

  function draw(plot, left) {
    const { chart, box } = plot;
    const { width, narrow, height, low, high, top, bottom, y, ticks } = plot.measured;
    if (plot.width === width && plot.left === left) return;
    plot.width = width;
    if (plot.svg) plot.svg.remove();
    const svg = plot.svg = add(box, 'svg', { viewBox: `0 0 ${width} ${height}`, height, role: 'img', 'aria-label': chart.title });
    const right = width - 8;
    const x = (value) => left + value / data.span * (right - left);
    plot.x = x; plot.left = left; plot.right = right;

    for (const [index, [from, to, name]] of chart.phases.entries()) {
      if (index % 2) add(svg, 'rect', { x: x(from), y: top, width: Math.max(0, x(to) - x(from)), height: bottom - top, style: 'fill:var(--shade)' });
      if (!narrow && x(to) - x(from) > 6.6 * name.length) add(svg, 'text', { x: (x(from) + x(to)) / 2, y: 12, 'text-anchor': 'middle' }, name);
    }
    for (const [from, to] of chart.lost)
      add(svg, 'rect', { x: x(from), y: top, width: Math.max(1, x(to) - x(from)), height: bottom - top, style: 'fill:var(--lost)' });
    for (const [value, name] of ticks) {
      if (y(value) < top - 1 || y(value) > bottom + 1) continue;
      add(svg, 'line', { x1: left, x2: right, y1: y(value), y2: y(value), style: 'stroke:var(--line)' });
      add(svg, 'text', { x: left - 7, y: y(value) + 4, 'text-anchor': 'end' }, name);
    }
    const times = steps(0, data.span, Math.max(2, (right - left) / (data.span > 7200 ? 96 : 72)), data.span > 180 ? [15, 30, 60, 120, 300, 600, 900, 1800, 3600] : []);
    for (const value of times) {
      add(svg, 'line', { x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4, style: 'stroke:var(--soft)' });
      const anchor = x(value) > right - 14 ? 'end' : 'middle';
      add(svg, 'text', { x: x(value), y: height - 4, 'text-anchor': anchor }, clock(value, data.span));
    }
    add(svg, 'line', { x1: left, x2: right, y1: bottom, y2: bottom, style: 'stroke:var(--soft)' });
    for (const s of chart.series) paint(svg, s, x, (value) => y(chart.log ? Math.max(value, low) : Math.min(Math.max(value, low), high)), bottom);
    plot.cursor = add(svg, 'line', { y1: top, y2: bottom, style: 'stroke:var(--soft);stroke-dasharray:3 3', visibility: 'hidden' });
  }

  function paint(svg, s, x, y, bottom) {
    if (s.kind === 'stack') {
      const base = s.x.map(() => 0);
      for (const layer of s.layers) {
        let path = '';
        layer.y.forEach((value, i) => {
          if (!value) return;
          const from = y(base[i]), to = y(base[i] + value), wide = Math.max(0.6, x(Math.min(s.x[i] + s.step, data.span)) - x(s.x[i]) - (s.x.length < 90 ? 1 : 0));
          path += `M${x(s.x[i]).toFixed(1)} ${from.toFixed(1)}h${wide.toFixed(1)}V${to.toFixed(1)}h${-wide.toFixed(1)}z`;
          base[i] += value;
        });
        if (path) add(svg, 'path', { d: path, style: `fill:${colour(layer)};opacity:.88` });
      }
      return;
    }
    if (s.kind === 'dots') {
      const path = s.x.map((at, i) => known(s.y[i]) ? `M${x(at).toFixed(1)} ${y(s.y[i]).toFixed(1)}h0` : '').join('');
      if (path) add(svg, 'path', { d: path, style: `stroke:${colour(s)};stroke-width:${s.x.length > 900 ? 3 : 4.2};stroke-linecap:round;fill:none;opacity:.8` });
      return;
    }
    if (s.kind === 'band') {
      for (const [from, to] of runs(s.low)) {
        const up = [], down = [];
        for (let i = from; i < to; i++) { up.push(`${x(s.x[i]).toFixed(1)} ${y(s.high[i]).toFixed(1)}`); down.unshift(`${x(s.x[i]).toFixed(1)} ${y(s.low[i]).toFixed(1)}`); }
        add(svg, 'path', { d: `M${up.join('L')}L${down.join('L')}z`, style: `fill:${colour(s)};opacity:.2` });
      }
      return;
    }
    let path = '';
    for (const [from, to] of runs(s.y))
      for (let i = from; i < to; i++) {
        const at = x(s.x[i]).toFixed(1), value = y(s.y[i]).toFixed(1);
        path += i === from ? `M${at} ${value}` : s.kind === 'step' ? `H${at}V${value}` : `L${at} ${value}`;
      }
    if (path) add(svg, 'path', { d: path, style: `stroke:${colour(s)};stroke-width:${s.thin ? 1 : 1.7};stroke-linejoin:round;fill:none${s.faint ? ';opacity:.45' : ''}` });
  }

  function runs(values) {
    const found = [];
    let from = -1;
    for (let i = 0; i <= values.length; i++) {
      if (i < values.length && known(values[i])) { if (from < 0) from = i; }
      else if (from >= 0) { found.push([from, i]); from = -1; }
    }
    return found;
  }

  function nearest(xs, at) {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] <= at) low = middle; else high = middle; }
    return high >= 0 && Math.abs(xs[high] - at) < Math.abs(xs[low] - at) ? high : low;
  }

  function say(chart, at) {
    const lines = [clock(at, data.span)];
    for (const s of chart.series) {
      if (!s.x.length || s.kind === 'band' || s.silent) continue;
      const i = s.kind === 'stack' ? Math.min(s.x.length - 1, Math.max(0, Math.floor(at / s.step))) : nearest(s.x, at);
      if (s.kind === 'stack') for (const layer of s.layers) { if (layer.y[i]) lines.push(`${layer.name}: ${short(layer.y[i])} ${chart.unit}`); }
      else if (Math.abs(s.x[i] - at) < data.span / 25) lines.push(`${s.name}: ${s.words ? s.words[s.y[i]] : `${short(s.y[i])} ${chart.unit}`}`);
    }
    return lines.join('\n');
  }

  function point(at, source) {
    for (const plot of plots) {
      if (!plot.cursor) continue;
      plot.cursor.setAttribute('visibility', at === null ? 'hidden' : 'visible');
      plot.tip.hidden = at === null || plot !== source;
      if (at === null) continue;
      plot.cursor.setAttribute('x1', plot.x(at)); plot.cursor.setAttribute('x2', plot.x(at));
      if (plot !== source) continue;
      plot.tip.textContent = say(plot.chart, at);
      const middle = (plot.left + plot.right) / 2, right = plot.x(at) < middle;
      plot.tip.style.left = right ? `${plot.x(at) + 12}px` : 'auto';
      plot.tip.style.right = right ? 'auto' : `${plot.width - plot.x(at) + 12}px`;
    }
  }

  for (const [id, chart] of Object.entries(data.charts)) {
    const holder = document.getElementById(id), box = holder.querySelector('.plot');
    const tip = document.createElement('div');
    tip.className = 'tip'; tip.hidden = true;
    box.textContent = '';
    box.appendChild(tip);
    const plot = { chart, box, tip };
    plots.push(plot);
    box.addEventListener('pointermove', (event) => {
      const at = (event.clientX - box.getBoundingClientRect().left - plot.left) / (plot.right - plot.left) * data.span;
      point(at < 0 || at > data.span ? null : at, plot);
    });
    box.addEventListener('pointerleave', () => point(null, plot));
  }
  // All figures begin at the same place, so that one instant is in one line down the page.
  function again() {
    for (const plot of plots) plot.measured = measure(plot);
    const left = Math.max(...plots.map((plot) => plot.measured.left));
    for (const plot of plots) draw(plot, left);
  }
  again();
  if (window.ResizeObserver) new ResizeObserver(again).observe(document.querySelector('main'));
  else window.addEventListener('resize', again);
  document.documentElement.dataset.drawn = String(plots.length);
})();

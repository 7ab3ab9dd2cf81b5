// What all plots share: a method's colour, bands, direct labels at the ends, ticks without prefixes, one way to draw.
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
// Pixels of line and gap in turn; none of a whole line. As many as a search of one method has rows.
const DASHES = DATA.palette.dashes;
const darkMode = window.matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map();
const FONT = "12px system-ui, sans-serif";
const LABELLED = 12;  // more labels do not fit beside a plot
const STAR = "★";

const byId = (id) => document.getElementById(id);
const COLORS = DATA.palette.light.length;
const color = (index) => (darkMode.matches ? DATA.palette.dark : DATA.palette.light)[index % COLORS];
const pattern = (index) => DASHES[Math.floor(index / COLORS) % DASHES.length];
const dash = (index) => pattern(index).map((pixels) => `${pixels}px`).join(",") || "solid";
// Plotly reads a little HTML in names; a run's name is text.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
// Keys of the configuration are typed as they are; columns of metrics are words.
const word = (key) => DATA.words[key] || (key.includes(".") ? key : key.replaceAll("_", " "));
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function element(tag, text, attributes) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  return made;
}

const ruler = document.createElement("canvas").getContext("2d");
function widthOf(text) { ruler.font = FONT; return ruler.measureText(text).width; }
// Whole numbers at 1, 2 and 5 of each decade: Plotly would write 2 and 5 between 100 and 1000, and mean 200 and 500.
function wholeTicks([low, high]) {
  const values = [];
  for (let power = Math.floor(low); power <= high; power += 1) {
    for (const digit of high - low < 2 ? [1, 2, 5] : [1]) {
      const place = Math.log10(digit) + power;
      if (place >= low && place <= high) values.push(Number(`${digit}e${power}`));
    }
  }
  return { tickmode: "array", tickvals: values, ticktext: values.map((value) => value.toLocaleString("en", { maximumFractionDigits: 6 })) };
}

// `range` is of the axis: of logarithms on a logarithmic one. 10⁻⁶ rather than 1µ, 30,000 rather than 30k.
function axis(title, log, range) {
  const largest = range && !log ? Math.max(...range.map(Math.abs)) : 1;
  const powers = log || largest >= 1e7 || (largest > 0 && largest < 1e-3);
  const decades = log && range ? range[1] - range[0] : 0;
  const told = log && range && range[0] > -3 && range[1] < 6 ? wholeTicks(range) : {};
  // Fewer ticks than two measure nothing: Plotly's own choice then.
  const ticks = told.tickvals && told.tickvals.length > 1 ? told : { dtick: decades > 8 ? 2 : decades >= 2 ? 1 : undefined };
  return { title: { text: title }, type: log ? "log" : "linear", range, gridcolor: style("--grid"), zerolinecolor: style("--grid"), automargin: true,
    exponentformat: powers ? "power" : "none", separatethousands: !powers, ...ticks };
}

function paint(target) {
  const make = drawn.get(target);
  const made = window.Plotly ? make() : null;
  target.hidden = made === null;
  target.dataset.painted = "true";
  if (made === null) { if (window.Plotly) Plotly.purge(target); return; }
  const layout = {
    height: 360, margin: { t: 8, r: 10, b: 44, l: 52 }, hovermode: "closest", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: style("--ink"), family: "system-ui, sans-serif", size: 12 }, showlegend: false,
    hoverlabel: { namelength: -1, bgcolor: style("--panel"), font: { color: style("--ink") } }, ...made.layout,
  };
  Plotly.react(target, made.traces, layout, { responsive: true, displayModeBar: false });
}

// Draws what the reader changed: now, or when it comes near if it was never seen. And again when the page turns dark or
// light. `make` returns {traces, layout}, or null for nothing.
function draw(id, make) {
  const target = byId(id);
  // What is hidden never comes near.
  target.hidden = false;
  if (target.dataset.painted) { drawn.set(target, make); paint(target); } else drawLater(target, make);
}

// Draws when the reader comes near: a page of a hundred plots opens at once.
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); paint(entry.target); }
}, { rootMargin: "500px" });
function drawLater(target, make) { drawn.set(target, make); watcher.observe(target); }
// What is folded away has no width to be drawn in.
function drawAll() {
  for (const target of drawn.keys()) if (!target.closest("details:not([open])")) { watcher.unobserve(target); paint(target); }
}

darkMode.addEventListener("change", () => {
  for (const target of drawn.keys()) if (target.dataset.painted) paint(target);
  marks();
});
window.addEventListener("beforeprint", drawAll);
let turned = window.innerWidth;
window.addEventListener("resize", () => {
  // Labels have places in pixels.
  if (Math.abs(window.innerWidth - turned) < 40) return;
  turned = window.innerWidth;
  for (const target of drawn.keys()) if (target.dataset.painted) paint(target);
});

function spanOf(values, log) {
  const known = values.filter((value) => Number.isFinite(value) && (!log || value > 0)).map((value) => (log ? Math.log10(value) : value));
  if (known.length === 0) return undefined;
  let low = Infinity, high = -Infinity;
  for (const value of known) { low = Math.min(low, value); high = Math.max(high, value); }
  const room = (high - low) * 0.04 || Math.abs(high) * 0.05 || 1;
  return [low - room, high + room];
}

const lastOf = (curve) => { for (let k = curve.y.length - 1; k >= 0; k -= 1) if (Number.isFinite(curve.y[k])) return k; return -1; };

// Moves labels apart that would lie over each other; `places` are pixels from the top, in any order.
function spread(places, height, least = 14) {
  const order = places.map((place, at) => [place, at]).sort((a, b) => a[0] - b[0]);
  const moved = [];
  let before = -Infinity;
  for (const [place, at] of order) { before = Math.max(place, before + least); moved[at] = before; }
  // Half a line above the axis, whose ticks are below it.
  let below = height - least / 2 + least;
  for (const [, at] of order.reverse()) { below = Math.min(moved[at], below - least); moved[at] = below; }
  return moved;
}

// Curves {name, index, x, y, low, high, published} in one pair of axes; `spec.x` and `spec.y` are the axes' titles.
function chart(target, spec) {
  const height = spec.height || 360, top = 8, bottom = 44;
  const stars = spec.curves.filter((curve) => curve.published !== null && curve.published !== undefined);
  const shift = stars.length ? 34 : 20;  // room for a star, and for a line from the curve's end to a label that was moved
  const room = Math.max(...spec.curves.map((curve) => widthOf(curve.name))) + shift + 6;
  // A name that is cut off names nothing: the legend has whole ones.
  const labelled = spec.curves.length <= LABELLED && target.clientWidth >= 420 && room <= target.clientWidth * 0.4;
  const all = spec.curves.flatMap((curve) => [...curve.y, ...(curve.low || []), ...(curve.high || [])]).concat(stars.map((curve) => curve.published));
  const yRange = spanOf(all, spec.logY);
  const along = spec.curves.flatMap((curve) => curve.x).filter((value) => !spec.logX || value > 0);
  const reach = spanOf(along, spec.logX);
  // The curves' ends touch the labels.
  const xRange = reach && along.length > 1 ? [reach[0], spec.logX ? Math.log10(Math.max(...along)) : Math.max(...along)] : reach;
  if (xRange && xRange[0] === xRange[1]) xRange[1] += 1;
  if (xRange && spec.curves.every((curve) => curve.x.length < 2)) xRange[1] = reach[1];
  const edge = xRange && (spec.logX ? 10 ** xRange[1] : xRange[1]);
  // Single points at one place would lie over each other: beside each other, by their names.
  const places = new Set(spec.curves.flatMap((curve) => curve.x));
  if (places.size === 1 && spec.curves.length > 1 && stars.length === 0) return dots(target, spec, height, yRange);
  const traces = [];
  for (const curve of spec.curves) {
    const line = { color: color(curve.index), dash: dash(curve.index), width: 2 };
    if (curve.low && curve.low.length > 1) {
      traces.push({ x: [...curve.x, ...[...curve.x].reverse()], y: [...curve.high, ...[...curve.low].reverse()], fill: "toself", mode: "lines",
        fillcolor: line.color + "26", line: { width: 0 }, hoverinfo: "skip", name: `band of ${plain(curve.name)}`, meta: "band" });
    }
  }
  for (const curve of spec.curves) {
    const line = { color: color(curve.index), dash: dash(curve.index), width: 2 };
    const few = curve.x.length <= 8;
    traces.push({ name: plain(curve.name), x: curve.x, y: curve.y, mode: curve.x.length > 1 ? (few ? "lines+markers" : "lines") : "markers", line, cliponaxis: false,
      marker: { color: line.color, size: curve.x.length > 1 ? 5 : 8 }, meta: "curve",
      error_y: whisker(curve),
      hovertemplate: `${plain(spec.x)} %{x}<br>${plain(spec.y)} %{y}<extra>${plain(curve.name)}</extra>` });
    const end = lastOf(curve);
    if (labelled && end >= 0 && curve.x.length > 1 && curve.x[end] < edge) {
      traces.push({ x: [curve.x[end], edge], y: [curve.y[end], curve.y[end]], mode: "lines", opacity: 0.5, hoverinfo: "skip", meta: "leader",
        line: { color: line.color, width: 1, dash: "dot" } });
    }
  }
  const annotations = stars.map((curve) => ({ text: STAR, x: 1, xref: "paper", xanchor: "left", xshift: 3, y: spec.logY ? Math.log10(curve.published) : curve.published, yref: "y",
    showarrow: false, font: { color: color(curve.index), size: 15 }, hovertext: plain(`${curve.name}: ${curve.published} in the paper, at its own length`) }));
  const shapes = [];
  if (labelled && yRange) {
    const inner = height - top - bottom;
    const ended = spec.curves.filter((curve) => lastOf(curve) >= 0 && (!spec.logY || curve.y[lastOf(curve)] > 0));
    const at = ended.map((curve) => (spec.logY ? Math.log10(curve.y[lastOf(curve)]) : curve.y[lastOf(curve)]));
    const places = at.map((value) => inner * (1 - (value - yRange[0]) / (yRange[1] - yRange[0])));
    spread(places, inner).forEach((place, k) => {
      annotations.push({ text: plain(ended[k].name), x: 1, xref: "paper", xanchor: "left", xshift: shift - 2, y: at[k], yref: "y",
        yshift: places[k] - place, showarrow: false, font: { color: color(ended[k].index), size: 12 } });
      // In the drawing's own pixels, so that nothing is measured twice: from the end of the axes to the label.
      const low = shift - 16, right = shift - 3;
      shapes.push({ type: "line", xref: "paper", xsizemode: "pixel", xanchor: 1, x0: low, x1: right, yref: "y", ysizemode: "pixel", yanchor: at[k],
        y0: 0, y1: places[k] - place, line: { color: color(ended[k].index), width: 1 }, opacity: 0.6, layer: "above" });
    });
  }
  return { labelled, stars: stars.length > 0, traces, layout: { height, annotations, shapes, margin: { t: top, r: labelled ? room : stars.length ? 22 : 10, b: bottom, l: 52 },
    xaxis: axis(plain(spec.x), spec.logX, xRange), yaxis: axis(plain(spec.y), spec.logY, yRange) } };
}

const whisker = (curve) => (curve.low && curve.low.length === 1
  ? { type: "data", symmetric: false, array: [curve.high[0] - curve.y[0]], arrayminus: [curve.y[0] - curve.low[0]] } : undefined);

function dots(target, spec, height, yRange) {
  const labelled = spec.curves.every((curve) => widthOf(curve.name) < (0.8 * target.clientWidth) / spec.curves.length - 8);
  const traces = spec.curves.map((curve) => ({ name: plain(curve.name), x: [plain(curve.name)], y: curve.y, mode: "markers", line: { color: color(curve.index) },
    marker: { color: color(curve.index), size: 8 }, meta: "curve", error_y: whisker(curve), hovertemplate: `%{x}<br>${plain(spec.y)} %{y}<extra></extra>` }));
  const title = `${plain(spec.x)}: ${spec.curves[0].x[0].toLocaleString("en", { maximumFractionDigits: 2 })}${labelled ? "" : " (order as below)"}`;
  return { labelled, stars: false, traces, layout: { height, xaxis: { ...axis(title), type: "category", showticklabels: labelled }, yaxis: axis(plain(spec.y), spec.logY, yRange) } };
}

function swatch(index) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "swatch"); svg.setAttribute("viewBox", "0 0 22 8"); svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [key, value] of Object.entries({ x1: 0, x2: 22, y1: 4, y2: 4, stroke: color(index), "stroke-width": 3, "stroke-dasharray": pattern(index).join(" ") })) line.setAttribute(key, value);
  svg.append(line);
  return svg;
}

// The colour of a method wherever its name stands.
function marks() {
  for (const mark of document.querySelectorAll(".mark")) mark.replaceChildren(swatch(Number(mark.dataset.color)));
}

function legend(curves, stars) {
  const list = element("ul", undefined, { class: "legend" });
  const named = new Map(curves.map((curve) => [curve.name, curve.index]));
  for (const [name, index] of named) {
    const item = element("li");
    const mark = element("span", undefined, { class: "mark", "data-color": index });
    item.append(mark, " ", name);
    list.append(item);
  }
  if (stars) list.append(element("li", `${STAR} published end point, at the paper's own length`));
  return list;
}

// A figure's panels, each with its title as text above it; a legend below where labels have no room.
function panels(holder, figure) {
  const single = figure.panels.length === 1;
  holder.classList.toggle("single", single);
  const specs = figure.panels.map((panel) => ({ curves: panel.curves, x: panel.x, y: panel.y, logX: panel.log_x, logY: figure.log_y, height: 340 }));
  const stars = specs.some((spec) => spec.curves.some((curve) => curve.published !== null && curve.published !== undefined));
  figure.panels.forEach((panel, at) => {
    const frame = element("figure", undefined, { class: "panel" });
    const caption = element("figcaption");
    caption.append(element("span", panel.title, { class: "title" }));
    const plot = element("div", undefined, { class: "plot", role: "img", "aria-label": `${figure.title}, ${panel.title}` });
    frame.append(caption, plot);
    holder.append(frame);
    takeAlong(caption, `${figure.name}-${at + 1}`, plot);
    drawLater(plot, () => {
      const made = chart(plot, specs[at]);
      // Anew each time: a window that was narrow for a moment would leave a legend beside the labels.
      plot.dataset.labelled = made.labelled;
      holder.classList.toggle("needs-legend", holder.querySelector('[data-labelled="false"]') !== null);
      return made;
    });
  });
  const below = legend(specs.flatMap((spec) => spec.curves), stars);
  holder.append(below);
  if (stars) holder.classList.add("has-stars");
}

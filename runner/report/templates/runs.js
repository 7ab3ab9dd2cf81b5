// The table of runs, their curves, and one run in detail.
"use strict";
const RUNS = DATA.runs;
const FIRST = 12;
const byId = (id) => document.getElementById(id);
const state = { sort: null, falling: false, filter: "", status: "", shown: new Set(), one: 0 };
let visible = RUNS.map((run, at) => at);

function element(tag, text, attributes) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  return made;
}

function options(select, values, name) {
  for (const value of values) select.append(element("option", name(value), { value }));
}

function digits(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5)));
}

// Epochs (or seconds, as the curves' axis says) until the chosen metric is at the target.
function timeTo(run) {
  const target = parseFloat(byId("target").value);
  const values = run.curve[byId("target-metric").value];
  const places = run.curve[byId("axis").value];
  if (Number.isNaN(target) || !values || !places) return null;
  const higher = byId("target-metric").value.includes("accuracy");
  const at = values.findIndex((value) => value !== null && (higher ? value >= target : value <= target));
  return at < 0 ? null : places[at];
}

const cell = (run, column) => (column === "time_to" ? timeTo(run) : run.fields[column]);

function compared(a, b, column) {
  const x = cell(RUNS[a], column), y = cell(RUNS[b], column);
  const lackX = x === null || x === undefined, lackY = y === null || y === undefined;
  if (lackX || lackY) return lackX - lackY || a - b;  // what has no value stays at the end
  const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
  return (state.falling ? -order : order) || a - b;
}

function header() {
  const row = byId("table").tHead.rows[0];
  row.replaceChildren(element("th", "Show", { scope: "col" }));
  for (const column of [...DATA.columns, "time_to"]) {
    const title = column === "time_to" ? `${word(byId("axis").value)} to target` : word(column);
    const head = element("th", undefined, { scope: "col", "data-column": column });
    const button = element("button", title + (state.sort === column ? (state.falling ? " ▼" : " ▲") : ""), { type: "button" });
    head.setAttribute("aria-sort", state.sort === column ? (state.falling ? "descending" : "ascending") : "none");
    button.addEventListener("click", () => {
      state.falling = state.sort === column && !state.falling;
      state.sort = column;
      update();
      byId("table").querySelector(`th[data-column="${CSS.escape(column)}"] button`).focus();
    });
    head.append(button);
    row.append(head);
  }
}

function body() {
  const lines = document.createDocumentFragment();
  for (const at of visible) {
    const run = RUNS[at];
    const row = element("tr", undefined, { "data-run": at });
    const show = element("td");
    const box = element("input", undefined, { type: "checkbox", "aria-label": `show the curve of ${run.label}` });
    box.checked = state.shown.has(at);
    box.addEventListener("change", () => { box.checked ? state.shown.add(at) : state.shown.delete(at); swatches(); curves(); });
    show.append(box, " ", element("span", undefined, { class: "swatch" }));
    row.append(show);
    for (const column of [...DATA.columns, "time_to"]) {
      const value = cell(run, column);
      const entry = element("td", digits(value), { class: typeof value === "number" ? "number" : column });
      if (column === "name") entry.title = run.fields.name;
      row.append(entry);
    }
    lines.append(row);
  }
  byId("table").tBodies[0].replaceChildren(lines);
  swatches();
}

function swatches() {
  for (const row of byId("table").tBodies[0].rows) {
    const at = Number(row.dataset.run);
    row.querySelector(".swatch").style.background = state.shown.has(at) ? color(at) : "transparent";
  }
}

function update() {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  visible = RUNS.map((run, at) => at).filter((at) => {
    const run = RUNS[at];
    return (!state.status || run.fields.status === state.status) && words.every((wanted) => run.search.includes(wanted));
  });
  if (state.sort !== null) visible.sort((a, b) => compared(a, b, state.sort));
  byId("count").textContent = `${visible.length} of ${RUNS.length} runs`;
  header();
  body();
  curves();
}

// The runs that a mean over seeds is taken of: those that ended, where any have; of each seed the one that went furthest.
function averaged(members) {
  const ended = members.filter((at) => RUNS[at].ended);
  const best = new Map();
  for (const at of ended.length ? ended : members) {
    const other = best.get(RUNS[at].fields.seed);
    if (other === undefined || RUNS[at].samples >= RUNS[other].samples) best.set(RUNS[at].fields.seed, at);
  }
  return [...best.values()];
}

// Mean over the runs that differ in the seed alone, at the evaluations that all of them have.
function overSeeds(shown, metric, along) {
  const groups = new Map();
  for (const at of shown) {
    const members = groups.get(RUNS[at].group) || [];
    groups.set(RUNS[at].group, [...members, at]);
  }
  return [...groups.values()].map(averaged).map((members) => {
    const rows = members.map((at) => new Map(RUNS[at].evaluations.map((number, place) => [number, place])));
    const column = (key, number) => members.map((at, which) => RUNS[at].curve[key][rows[which].get(number)]);
    const places = RUNS[members[0]].evaluations.filter((number) => rows.every((own) => own.has(number))
      && ![...column(along, number), ...column(metric, number)].includes(null));
    const mean = (key, number) => column(key, number).reduce((sum, value) => sum + value, 0) / members.length;
    return { at: members[0], name: `${RUNS[members[0]].short} (${members.length} ${members.length === 1 ? "seed" : "seeds"})`,
      x: places.map((place) => mean(along, place)), y: places.map((place) => mean(metric, place)) };
  });
}

function curves() {
  draw("plot", () => {
    const metric = byId("metric").value, along = byId("axis").value;
    const shown = visible.filter((at) => state.shown.has(at) && RUNS[at].curve[metric] && RUNS[at].curve[along]);
    const lacking = visible.length - visible.filter((at) => state.shown.has(at)).length;
    byId("curves-note").textContent = shown.length === 0 ? "No curve is shown: tick runs in the table." : lacking > 0 ? `${shown.length} shown; ${lacking} more in the table.` : "";
    if (shown.length === 0) return null;
    const lines = byId("seeds").checked ? overSeeds(shown, metric, along)
      : shown.map((at) => ({ at, name: RUNS[at].label, x: RUNS[at].curve[along], y: RUNS[at].curve[metric] }));
    const traces = lines.map((line) => ({ name: plain(line.name), x: line.x, y: line.y, mode: line.x.length > 1 ? "lines" : "markers",
      line: { color: color(line.at), dash: dash(line.at) }, marker: { color: color(line.at) },
      hovertemplate: `${plain(word(along))} %{x}<br>${plain(word(metric))} %{y}<extra>${plain(line.name)}</extra>` }));
    return { traces, layout: { xaxis: axis(word(along), byId("log-x").checked), yaxis: axis(word(metric), byId("log-y").checked) } };
  });
}

const WHAT = { compute: 0, transfer: 1, wait: 7 };

function timeline(run) {
  if (!run.timeline) return null;
  const traces = Object.keys(WHAT).map((what) => {
    const spans = run.timeline.filter((span) => span[1] === what);
    return { type: "bar", orientation: "h", name: what, base: spans.map((span) => span[2]), x: spans.map((span) => span[3] - span[2]),
      y: spans.map((span) => `worker ${span[0]}`), marker: { color: color(WHAT[what]), line: { color: style("--page"), width: 1 } },
      hovertemplate: `%{y}: ${what} from %{base} for %{x} s<extra></extra>` };
  });
  const workers = new Set(run.timeline.map((span) => span[0])).size;
  return { traces, layout: { barmode: "overlay", height: 140 + 28 * workers, title: { text: "What each worker did at the beginning", font: { size: 15 } }, margin: { t: 50, r: 10, b: 50, l: 80 },
    xaxis: axis(run.fields.clock === "virtual" ? "virtual seconds" : "seconds"), yaxis: { ...axis(""), autorange: "reversed" } } };
}

function histogram(run) {
  if (!run.staleness || !run.staleness.length) return null;
  const total = run.staleness.reduce((sum, [, count]) => sum + count, 0);
  const traces = [{ type: "bar", x: run.staleness.map(([value]) => value), y: run.staleness.map(([, count]) => (100 * count) / total), marker: { color: color(0) },
    hovertemplate: "staleness %{x}: %{y:.2f} %<extra></extra>" }];
  return { traces, layout: { height: 300, showlegend: false, title: { text: "Staleness: updates between a pull and its push", font: { size: 15 } }, margin: { t: 50, r: 10, b: 50, l: 55 },
    xaxis: axis("staleness"), yaxis: axis("gradients, %") } };
}

function one() {
  const run = RUNS[state.one];
  if (!run) return;
  draw("timeline", () => timeline(run));
  draw("staleness", () => histogram(run));
  byId("problems").replaceChildren(...run.problems.map((problem) => element("p", problem, { class: "notice" })));
  byId("facts").replaceChildren(...run.facts.map(([key, value]) => {
    const row = element("tr");
    row.append(element("th", key, { scope: "row" }), element("td", typeof value === "number" ? digits(value) : value));
    return row;
  }));
}

function begin() {
  options(byId("status"), [...new Set(RUNS.map((run) => run.fields.status))].sort(), (value) => value);
  options(byId("metric"), DATA.metrics, word);
  options(byId("axis"), DATA.axes, word);
  options(byId("target-metric"), DATA.metrics.filter((metric) => /error|loss|accuracy|gap|suboptimality/.test(metric)), word);
  for (const id of ["metric", "target-metric"]) if (DATA.metrics.includes("test_error")) byId(id).value = "test_error";
  options(byId("run"), RUNS.map((run, at) => at), (at) => `${RUNS[at].label} (${RUNS[at].fields.name})`);
  byId("target").value = DATA.target ?? "";
  RUNS.forEach((run, at) => { if (state.shown.size < FIRST && run.curve[byId("metric").value]) state.shown.add(at); });
  byId("filter").addEventListener("input", (event) => { state.filter = event.target.value; update(); });
  byId("status").addEventListener("change", (event) => { state.status = event.target.value; update(); });
  for (const id of ["target", "target-metric", "axis"]) byId(id).addEventListener("change", update);
  for (const id of ["metric", "log-x", "log-y", "seeds"]) byId(id).addEventListener("change", curves);
  byId("all").addEventListener("click", () => { for (const at of visible) state.shown.add(at); update(); });
  byId("none").addEventListener("click", () => { state.shown.clear(); update(); });
  byId("run").addEventListener("change", (event) => { state.one = Number(event.target.value); one(); });
  update();
  one();
}

begin();

// The table of runs and their curves.
"use strict";
const RUNS = DATA.runs;
// Columns that runs have in common, as their passes, stand in the page once.
RUNS.forEach((run, at) => {
  run.at = at;
  run.evaluations = DATA.pool[run.evaluations];
  for (const key of Object.keys(run.curve)) run.curve[key] = DATA.pool[run.curve[key]];
});
// What one run is looked at for is read when it is: of a thousand runs it is most of the page.
let detailLines = null;
function detailsOf(run) {
  detailLines ??= byId("details").textContent.split("\n");
  run.details ??= JSON.parse(detailLines[run.at]);
  return run.details;
}
const FIRST = 12, LONG = 100;
const state = { sort: null, falling: false, shown: new Set() };
let visible = RUNS.map((run, at) => at);

// A group's colour is its method's; groups of one method differ in their dash. Neither sorting nor filtering changes it.
const GROUPS = new Map();
{
  const used = new Map();
  // Those that are shown first have whole lines.
  for (const run of [...DATA.first.map((at) => RUNS[at]), ...RUNS]) {
    if (GROUPS.has(run.group)) continue;
    const before = used.get(run.color) || 0;
    GROUPS.set(run.group, run.color + COLORS * before);
    used.set(run.color, before + 1);
  }
}
// What all names begin with says nothing in a table of them; the place itself stays in the title and in the CSV.
const SHARED = (() => {
  const parts = RUNS.map((run) => run.fields.name.split("/").slice(0, -1));
  const count = parts.length ? parts[0].findIndex((part, at) => parts.some((other) => other[at] !== part)) : 0;
  return parts.length ? parts[0].slice(0, count < 0 ? undefined : count).join("/") : "";
})();
// Of a folder that is named by its date the end is enough, which no other one has.
const nameOf = (run) => (SHARED ? run.fields.name.slice(SHARED.length + 1) : run.fields.name).replaceAll(/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_(?=[0-9a-f]{4})/g, "…");
const indexOf = (at) => GROUPS.get(RUNS[at].group);

function options(select, values, name) {
  for (const value of values) select.append(element("option", name(value), { value }));
}

// Made once: a formatter takes longer to make than a number to format.
const formatters = new Map();
function withDecimals(value, places) {
  if (!formatters.has(places)) formatters.set(places, new Intl.NumberFormat("en", { minimumFractionDigits: places, maximumFractionDigits: places }));
  return formatters.get(places).format(value);
}

// As many decimals as the column has, so that numbers below each other can be compared.
function digits(value, column) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const places = DATA.decimals[column];
  if (Math.abs(value) >= 1e10) return value.toExponential();
  if (places === undefined) return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
  if (value !== 0 && Math.abs(value) < 10 ** -places) return value.toExponential(1);
  return withDecimals(value, places);
}

// Passes (or seconds, as the curves' axis says) until the chosen metric is at the target.
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

const kinds = new Map([["time_to", true]]);
function isNumeric(column) {
  if (!kinds.has(column)) kinds.set(column, RUNS.some((run) => typeof run.fields[column] === "number"));
  return kinds.get(column);
}

// A key of the configuration may break after its dots, so that results need not leave the screen for long ones; words
// of a metric stay on a line.
function titleOf(title) {
  const parts = title.replaceAll(" ", "\u00a0").split(/(?<=\.(?=\w))/);
  return parts.flatMap((part, at) => (at ? [element("wbr"), part] : [part]));
}

function header() {
  const row = byId("table").tHead.rows[0];
  row.replaceChildren(element("th", "Show", { scope: "col" }));
  for (const column of [...DATA.columns, "time_to"]) {
    const title = column === "time_to" ? `${word(byId("axis").value)} to target` : word(column);
    const numeric = isNumeric(column);
    const head = element("th", undefined, { scope: "col", "data-column": column, class: numeric ? "number" : "" });
    if (column === "name" && SHARED) head.title = `below ${SHARED}`;
    const button = element("button", undefined, { type: "button" });
    button.append(...titleOf(title), state.sort === column ? (state.falling ? " ▼" : " ▲") : "");
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
    show.append(box, " ", element("span", undefined, { class: "dot" }));
    row.append(show);
    for (const column of [...DATA.columns, "time_to"]) {
      const value = cell(run, column);
      const entry = element("td", column === "name" ? null : digits(value, column), { class: isNumeric(column) ? "number" : column.replaceAll(".", "-") });
      if (typeof value === "number") entry.dataset.value = value;
      if (column === "name") { entry.append(element("span", nameOf(run))); entry.title = entry.dataset.value = run.fields.name; }
      row.append(entry);
    }
    lines.append(row);
  }
  byId("table").tBodies[0].replaceChildren(lines);
  // A long table has its height anyway, and need not be measured before it is near.
  byId("table").parentNode.classList.toggle("long", visible.length > LONG);
  swatches();
}

function swatches() {
  for (const row of byId("table").tBodies[0].rows) {
    const at = Number(row.dataset.run);
    row.querySelector(".dot").style.background = state.shown.has(at) ? color(indexOf(at)) : "transparent";
  }
}

function filtered() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean), status = byId("status").value;
  return RUNS.map((run, at) => at).filter((at) => {
    const run = RUNS[at];
    return (!status || run.fields.status === status) && words.every((wanted) => run.search.includes(wanted));
  });
}

function update() {
  visible = filtered();
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

// Mean over the runs that differ in the seed alone, at the evaluations that all of them have; a band where there are several.
function overSeeds(shown, metric, along, log) {
  const groups = new Map();
  for (const at of shown) groups.set(RUNS[at].group, [...(groups.get(RUNS[at].group) || []), at]);
  return [...groups.values()].map(averaged).map((members) => {
    const rows = members.map((at) => new Map(RUNS[at].evaluations.map((number, place) => [number, place])));
    const column = (key, number) => members.map((at, which) => RUNS[at].curve[key][rows[which].get(number)]);
    const places = RUNS[members[0]].evaluations.filter((number) => rows.every((own) => own.has(number))
      && ![...column(along, number), ...column(metric, number)].includes(null));
    const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const deviation = (values) => Math.sqrt(values.reduce((sum, value) => sum + (value - mean(values)) ** 2, 0) / (values.length - 1));
    const values = places.map((place) => column(metric, place));
    const several = members.length > 1;
    return { index: indexOf(members[0]), name: `${RUNS[members[0]].short} (${members.length} ${members.length === 1 ? "seed" : "seeds"})`,
      x: places.map((place) => mean(column(along, place))), y: values.map(mean),
      low: several ? values.map((own) => (log ? Math.max(mean(own) - deviation(own), Math.min(...own)) : mean(own) - deviation(own))) : [],
      high: several ? values.map((own) => mean(own) + deviation(own)) : [] };
  });
}

// Names without the words that all of them have, which are said once above the curves.
function shortened(lines) {
  if (lines.length < 2) return "";
  const words = lines.map((line) => line.name.split(" "));
  const shared = words[0].filter((part, at) => at > 0 && words.every((own) => own.includes(part)));
  for (const line of lines) line.name = line.name.split(" ").filter((part) => !shared.includes(part)).join(" ");
  return shared.length ? `All with ${shared.join(", ")}.` : "";
}

function titled(id, lines, title) {
  const frame = byId(id).closest("figure");
  frame.hidden = lines.length === 0;
  frame.querySelector(".title").textContent = title;
}

function curves() {
  remember();
  const metric = byId("metric").value, along = byId("axis").value;
  const ticked = visible.filter((at) => state.shown.has(at));
  const shown = ticked.filter((at) => RUNS[at].curve[metric] && RUNS[at].curve[along]);
  const lacking = visible.length - ticked.length, without = ticked.length - shown.length;
  const problems = new Set(shown.map((at) => `${RUNS[at].fields.model} on ${RUNS[at].fields.dataset}`));
  const log = byId("log-y").checked;
  const lines = byId("seeds").checked ? overSeeds(shown, metric, along, log)
    : shown.map((at) => ({ index: indexOf(at), name: RUNS[at].label, x: RUNS[at].curve[along], y: RUNS[at].curve[metric] }));
  const shared = shortened(lines);
  byId("curves-note").textContent = shown.length === 0 ? "No curve is shown: tick runs in the table." : [lacking > 0 && `${shown.length} shown; ${lacking} more in the table.`,
    without > 0 && `${without} of those ticked have no ${word(metric)} against ${word(along)}.`, shared,
    problems.size > 1 && `They are of unlike problems (${[...problems].join(", ")}), whose values are not comparable.`].filter(Boolean).join(" ");
  titled("plot", lines, `${word(metric)} against ${word(along)}`);
  const below = legend(lines, false);
  draw("plot", () => {
    if (shown.length === 0) return null;
    const made = chart(byId("plot"), { curves: lines, x: word(along), y: word(metric), logX: byId("log-x").checked, logY: log, height: 420 });
    below.hidden = made.labelled || lines.length > 40;
    return made;
  });
  byId("plot").parentNode.querySelector(".legend")?.remove();
  byId("plot").after(below);
  marks();
}

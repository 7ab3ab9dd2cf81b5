// What the reader chose stands in the address, so that a link shows the same; and the beginning of it all.
"use strict";
const CHOSEN = ["filter", "status", "target-metric", "target", "metric", "axis", "log-y", "log-x", "seeds", "first", "second", "run"];
const initial = new Map();
let begun = false;

const valueOf = (id) => (byId(id).type === "checkbox" ? String(byId(id).checked) : byId(id).value);

function remember() {
  if (!begun) return;
  const chosen = new URLSearchParams();
  for (const id of CHOSEN) if (valueOf(id) !== initial.get(id)) chosen.set(id, valueOf(id));
  if (state.sort !== null) chosen.set("sort", (state.falling ? "-" : "") + state.sort);
  const shown = [...state.shown].sort((a, b) => a - b).join("_");
  if (shown !== initial.get("shown")) chosen.set("shown", shown);
  const query = chosen.toString();
  history.replaceState(null, "", location.pathname + (query ? `?${query}` : "") + location.hash);
}

function recall() {
  const chosen = new URLSearchParams(location.search);
  for (const id of CHOSEN) {
    if (!chosen.has(id)) continue;
    if (byId(id).type === "checkbox") byId(id).checked = chosen.get(id) === "true";
    else if (byId(id).tagName !== "SELECT" || [...byId(id).options].some((option) => option.value === chosen.get(id))) byId(id).value = chosen.get(id);
  }
  const sort = chosen.get("sort");
  const column = sort?.replace(/^-/, "");
  if (DATA.columns.includes(column) || column === "time_to") { state.sort = column; state.falling = sort.startsWith("-"); }
  if (chosen.has("shown")) state.shown = new Set(chosen.get("shown").split("_").filter(Boolean).map(Number).filter((at) => at in RUNS));
}

function begin() {
  options(byId("status"), [...new Set(RUNS.map((run) => run.fields.status))].sort(), (value) => value);
  options(byId("metric"), DATA.metrics, word);
  options(byId("axis"), DATA.axes, word);
  options(byId("target-metric"), DATA.metrics.filter((metric) => /error|loss|accuracy|gap|suboptimality/.test(metric)), word);
  for (const id of ["metric", "target-metric"]) if (DATA.metrics.includes("test_error")) byId(id).value = "test_error";
  if (DATA.metrics.includes(DATA.metric)) { byId("metric").value = DATA.metric; byId("log-y").checked = DATA.log_y; }
  for (const id of ["run", "first", "second"]) options(byId(id), RUNS.map((run, at) => at), (at) => `${RUNS[at].label} (${RUNS[at].fields.name})`);
  if (RUNS.length > 1) byId("second").value = "1";
  byId("target").value = DATA.target ?? "";
  for (const at of DATA.first) if (state.shown.size < FIRST && RUNS[at].curve[byId("metric").value]) state.shown.add(at);
  for (const id of CHOSEN) initial.set(id, valueOf(id));
  initial.set("shown", [...state.shown].sort((a, b) => a - b).join("_"));
  recall();
  begun = true;
  byId("filter").addEventListener("input", update);
  for (const id of ["status", "target", "target-metric", "axis"]) byId(id).addEventListener("change", update);
  for (const id of ["metric", "log-x", "log-y", "seeds"]) byId(id).addEventListener("change", curves);
  for (const id of ["metric", "axis", "log-x", "log-y", "first", "second"]) byId(id).addEventListener("change", compareTwo);
  byId("all").addEventListener("click", () => { for (const at of visible) state.shown.add(at); update(); });
  byId("none").addEventListener("click", () => { state.shown.clear(); update(); });
  byId("run").addEventListener("change", one);
  update();
  one();
  compareTwo();
  // The browser went to the heading before the plots and the tables had their sizes.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

begin();

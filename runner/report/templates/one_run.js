// One run in detail.
"use strict";
// None of them a method's colour.
const WHAT = { compute: "--accent", transfer: "--open", wait: "--line" };

function timeline(run) {
  if (!run.timeline || run.timeline.length === 0) return null;
  const traces = Object.keys(WHAT).map((what) => {
    const spans = run.timeline.filter((span) => span[1] === what);
    return { type: "bar", orientation: "h", name: what, base: spans.map((span) => span[2]), x: spans.map((span) => span[3] - span[2]),
      y: spans.map((span) => `worker ${span[0]}`), marker: { color: style(WHAT[what]), line: { color: style("--page"), width: 1 } },
      hovertemplate: `%{y}: ${what} from %{base} for %{x} s<extra></extra>` };
  });
  const workers = new Set(run.timeline.map((span) => span[0])).size;
  // Not by its curve: a run that diverged before its first evaluation has none.
  const clock = run.facts.find(([key]) => key === "clock")?.[1];
  return { traces, layout: { barmode: "overlay", height: 114 + 28 * workers, margin: { t: 34, r: 10, b: 50, l: 80 },
    showlegend: true, legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 }, xaxis: axis(word(clock ? `${clock}_seconds` : "seconds")), yaxis: { ...axis(""), type: "category", dtick: 1, autorange: "reversed" } } };
}

function histogram(run, index) {
  if (!run.staleness || !run.staleness.length) return null;
  const total = run.staleness.reduce((sum, [, count]) => sum + count, 0);
  const traces = [{ type: "bar", x: run.staleness.map(([value]) => value), y: run.staleness.map(([, count]) => (100 * count) / total), marker: { color: color(index) },
    hovertemplate: "staleness %{x}: %{y:.2f} %<extra></extra>" }];
  return { traces, layout: { height: 260, margin: { t: 8, r: 10, b: 50, l: 55 },
    xaxis: axis("staleness"), yaxis: axis("gradients, %") } };
}

function one() {
  const chosen = RUNS[Number(byId("run").value)];
  if (!chosen) return;
  remember();
  const run = detailsOf(chosen);
  for (const [id, make] of [["timeline", () => timeline(run)], ["staleness", () => histogram(run, chosen.color)]]) {
    byId(id).closest("figure").hidden = make() === null;
    draw(id, make);
  }
  byId("problems").replaceChildren(...run.problems.map((problem) => element("p", problem, { class: "notice" })));
  byId("facts").replaceChildren(...run.facts.map(([key, value]) => {
    const row = element("tr");
    row.append(element("th", key, { scope: "row" }), element("td", typeof value === "number" ? digits(value) : value));
    return row;
  }));
}

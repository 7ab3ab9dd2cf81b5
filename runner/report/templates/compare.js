// Two runs side by side: where their configurations differ, their curves, and the first row at which they part.
"use strict";

// Checksums of all rows up to each: equal as long as the runs are, to the last bit.
function parting(a, b) {
  const places = new Map(b.curve.epoch ? b.curve.epoch.map((passes, at) => [passes, at]) : []);
  const shared = (a.curve.epoch || []).map((passes, at) => [at, places.get(passes)]).filter(([, other]) => other !== undefined);
  if (shared.length === 0) return "They have no evaluation at the same effective passes.";
  const [ours, theirs] = [a, b].map((run) => detailsOf(run).prints);
  const found = shared.find(([own, other]) => ours[own] !== theirs[other]);
  if (!found) return `Their rows are the same to the bit, ${shared.length === 1 ? "at the one evaluation" : `at all ${shared.length} evaluations`} that both have.`;
  const [own, other] = found;
  const keys = Object.keys(a.curve).filter((key) => key in b.curve && a.curve[key][own] !== b.curve[key][other]);
  const told = keys.map((key) => {
    const pair = [a.curve[key][own], b.curve[key][other]], short = pair.map((value) => digits(value, key));
    // All digits that the page has, if those of a column leave no difference to see.
    return `${word(key)} ${(short[0] === short[1] ? pair.map(String) : short).join(" and ")}`;
  });
  const { rows } = detailsOf(a);
  const row = (at) => (rows ? rows[at] : at) + 1;
  const thinned = own > 0 && row(own) - row(own - 1) > 1 ? " (or at one of the rows before it that the page leaves out)" : "";
  return `They part at row ${row(own)}, after ${digits(a.curve.epoch[own], "epochs")} effective passes${thinned}: ${told.join("; ") || "in digits beyond those shown"}.`;
}

// What one label has and the other has not; the folder where they are the same. A label has a few of its run's keys, so
// that one of the two may lack a key in which they do not differ.
function namesApart(a, b, keys) {
  const differing = new Set([...keys.map((key) => key.replace(/\.kind$/, "").split(".").pop()), "M", "seed"]);
  return [[a, b], [b, a]].map(([own, other]) => {
    const shared = new Set(other.label.split(" "));
    const apart = own.label.split(" ").filter((part) => !shared.has(part) && (!part.includes("=") || differing.has(part.split("=")[0])));
    return apart.join(" ") || (a.label === b.label ? own.fields.name : own.label);
  });
}

function compareTwo() {
  remember();
  const [a, b] = ["first", "second"].map((id) => RUNS[Number(byId(id).value)]);
  if (!a || !b) return;
  const told = (run) => [["algorithm", run.fields.algorithm], ["workers", run.fields.workers], ["status", run.fields.status],
    ...detailsOf(run).facts.slice(detailsOf(run).configured).filter(([key]) => !key.endsWith("_target_"))];
  const [left, right] = [a, b].map((run) => new Map(told(run)));
  const keys = [...new Set([...left.keys(), ...right.keys()])].filter((key) => left.get(key) !== right.get(key));
  const head = element("tr");
  const names = namesApart(a, b, keys);
  head.append(...["key", ...names].map((text) => element("th", text, { scope: "col" })));
  byId("differences").tHead.replaceChildren(head);
  byId("differences").tBodies[0].replaceChildren(...keys.map((key) => {
    const row = element("tr");
    row.append(element("th", key, { scope: "row" }), ...[left, right].map((own) => element("td", own.has(key) ? own.get(key) : "–")));
    return row;
  }));
  const configured = keys.length === 0 ? "Their configurations are the same." : `${keys.length} ${keys.length === 1 ? "key differs" : "keys differ"}.`;
  byId("part").textContent = a === b ? "Choose two runs." : `${configured} ${parting(a, b)}`;
  const metric = byId("metric").value, along = byId("axis").value;
  const lines = [a, b].map((run, at) => ({ index: run.color + (at && a.color === b.color ? COLORS : 0), name: names[at], x: run.curve[along], y: run.curve[metric] }))
    .filter((line) => line.x && line.y);
  const below = legend(lines, false);
  titled("both", lines, `${word(metric)} against ${word(along)}`);
  draw("both", () => {
    if (lines.length === 0) return null;
    const made = chart(byId("both"), { curves: lines, x: word(along), y: word(metric), logX: byId("log-x").checked, logY: byId("log-y").checked });
    below.hidden = made.labelled;
    return made;
  });
  byId("both").parentNode.querySelector(".legend")?.remove();
  byId("both").after(below);
  marks();
}

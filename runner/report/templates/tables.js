// What can be taken along: every table as CSV, every plot as PNG, SVG and CSV.
"use strict";

function save(name, url) {
  const link = element("a", undefined, { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const csv = (rows) => rows.map((row) => row.map((cell) => quoted(String(cell ?? ""))).join(",")).join("\n") + "\n";
const saveCsv = (name, rows) => save(`${name}.csv`, URL.createObjectURL(new Blob([csv(rows)], { type: "text/csv" })));

function tableRows(table) {
  const text = (cell) => cell.dataset.value ?? cell.innerText.replace(/\s*\n\s*/g, "; ").replace(/\s+/g, " ").trim();
  return [...table.rows].map((row) => [...row.cells].map(text));
}

// One line for each point; the band is one standard deviation.
function plotRows(plot) {
  const data = (plot.data || []).filter((trace) => trace.meta !== "leader");
  const bands = new Map(data.filter((trace) => trace.meta === "band").map((trace) => [trace.name, trace]));
  const rows = [["curve", plot.layout.xaxis.title.text, plot.layout.yaxis.title.text, "mean - deviation", "mean + deviation"]];
  const name = (trace) => (trace.name || "").replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
  for (const trace of data.filter((other) => other.meta !== "band")) {
    const band = bands.get(`band of ${trace.name}`);
    trace.x.forEach((x, at) => rows.push([name(trace), x, trace.y[at], band ? band.y[band.y.length - 1 - at] : "", band ? band.y[at] : ""]));
  }
  return rows;
}

function savePicture(plot, name, format) {
  const layout = { ...plot.layout, paper_bgcolor: style("--page"), plot_bgcolor: style("--page"), font: { ...plot.layout.font, family: "sans-serif" } };
  return Plotly.downloadImage({ data: plot.data, layout }, { format, filename: name, width: plot.clientWidth, height: plot.clientHeight, scale: format === "png" ? 2 : 1 });
}

function takeAlong(place, name, plot) {
  const row = element("span", undefined, { class: "take" });
  const button = (label, act) => {
    const made = element("button", label, { type: "button", "aria-label": `${label} of ${name}` });
    made.addEventListener("click", act);
    row.append(made);
  };
  const painted = (act) => () => { if (!plot.dataset.painted) paint(plot); if (!plot.hidden && window.Plotly) act(); };
  if (plot.tagName === "TABLE") button("CSV", () => saveCsv(name, tableRows(plot)));
  else {
    button("PNG", painted(() => savePicture(plot, name, "png")));
    button("SVG", painted(() => savePicture(plot, name, "svg")));
    button("CSV", painted(() => saveCsv(name, plotRows(plot))));
  }
  place.append(row);
}

for (const table of document.querySelectorAll("table[data-csv]")) {
  const name = table.dataset.csv.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  const below = element("div", undefined, { class: "below" });
  (table.closest(".wide") || table).after(below);
  takeAlong(below, name, table);
}
for (const plot of document.querySelectorAll(".figure")) {
  takeAlong(plot.closest("figure").querySelector("figcaption"), plot.id, plot);
}
for (const holder of document.querySelectorAll("[data-figure]")) panels(holder, DATA.figures[Number(holder.dataset.figure)]);
marks();

// The contents say where the reader is.
const places = [...document.querySelectorAll("nav a")].map((link) => [link, byId(link.hash.slice(1))]);
let here = null;
function locate() {
  const above = places.filter(([link, place]) => link.offsetParent && place.getBoundingClientRect().top < window.innerHeight / 3);
  const found = above.length ? above[above.length - 1][0] : null;
  if (found === here) return;
  here?.removeAttribute("aria-current");
  here = found;
  here?.setAttribute("aria-current", "true");
  const list = here?.parentNode;
  if (list && list.scrollWidth > list.clientWidth) list.scrollTo({ left: here.offsetLeft - 16 });
}
let waiting = false;
window.addEventListener("scroll", () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; locate(); }); } }, { passive: true });
// After the first layout, which asking for places now would make twice.
requestAnimationFrame(locate);
if (!window.Plotly) byId("no-plots").hidden = false;

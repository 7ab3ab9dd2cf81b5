// What all figures share: colours of the page, text that stays text, one way to draw.
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9", "#7b4fd0", "#6b6b6b"];
const DARK = ["#5ab4f0", "#ff9a57", "#35cfa0", "#f0a6cf", "#e0c04a", "#a8dcff", "#b79bff", "#b8b8b8"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const darkMode = window.matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map();

const color = (index) => (darkMode.matches ? DARK : LIGHT)[index % LIGHT.length];
const dash = (index) => DASHES[Math.floor(index / LIGHT.length) % DASHES.length];
// Plotly reads a little HTML in names; a run's name is text.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const word = (key) => DATA.words[key] || key.replaceAll("_", " ");

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axis(title, log) {
  return { title: { text: title }, type: log ? "log" : undefined, gridcolor: style("--grid"), zerolinecolor: style("--grid"), automargin: true };
}

// Draws, and draws again when the page turns dark or light. `make` returns {traces, layout}.
function draw(id, make) {
  const element = typeof id === "string" ? document.getElementById(id) : id;
  drawn.set(element, make);
  const made = make();
  element.hidden = made === null;
  if (made === null) { Plotly.purge(element); return; }
  const narrow = element.clientWidth < 600;
  const layout = {
    height: 420, margin: { t: 30, r: 10, b: 50, l: 55 }, hovermode: "closest", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: style("--ink"), family: "system-ui, sans-serif" },
    legend: { orientation: "h", y: narrow ? -0.25 : -0.18 },
    hoverlabel: { namelength: -1, bgcolor: style("--panel"), font: { color: style("--ink") } },
    showlegend: made.traces.length <= 24, ...made.layout,
  };
  Plotly.react(element, made.traces, layout, { responsive: true, displaylogo: false });
}

darkMode.addEventListener("change", () => { for (const [element, make] of [...drawn]) draw(element, make); });

// Figures of papers: panels side by side, mean over the seeds, the published end point as a star.
function figurePanels(figure) {
  return () => {
    const traces = [];
    const panels = figure.panels;
    const narrow = window.innerWidth < 700;
    const layout = { height: narrow ? 330 * panels.length : 430, annotations: [],
      grid: { rows: narrow ? panels.length : 1, columns: narrow ? 1 : panels.length, pattern: "independent", xgap: 0.12, ygap: 0.3 } };
    // At the figure's lower edge: Plotly makes room for as many lines as the legend needs, below the axis' title.
    layout.legend = { orientation: "h", yref: "container", y: 0, yanchor: "bottom" };
    panels.forEach((panel, at) => {
      const end = at === 0 ? "" : String(at + 1);
      layout["xaxis" + end] = axis(plain(figure.x), figure.log_x);
      layout["yaxis" + end] = axis(plain(panel.y), figure.log_y);
      // Above the axes by pixels: the margin that has to hold the title is in pixels too, whatever the axes' height.
      layout.annotations.push({ text: plain(panel.title), showarrow: false, xref: `x${end} domain`, yref: `y${end} domain`, x: 0.5, y: 1, yanchor: "bottom", yshift: 2 });
      panel.curves.forEach((curve) => {
        const shared = { name: plain(curve.name), legendgroup: curve.name, xaxis: "x" + end, yaxis: "y" + end };
        const line = { color: color(curve.index), dash: dash(curve.index), width: 2 };
        traces.push({ ...shared, x: curve.x, y: curve.y, mode: curve.x.length > 1 ? "lines" : "markers", line, marker: { color: line.color },
          showlegend: at === 0 || !traces.some((trace) => trace.legendgroup === curve.name),
          error_y: curve.spread ? { type: "data", array: curve.spread, thickness: 0.6, width: 0, color: line.color } : undefined });
        if (curve.published !== null && curve.published !== undefined) {
          traces.push({ ...shared, x: [curve.x[curve.x.length - 1]], y: [curve.published], mode: "markers", showlegend: false,
            marker: { symbol: "star", size: 11, color: line.color, line: { color: style("--ink"), width: 1 } },
            hovertemplate: plain(`${curve.name}: ${curve.published} in the paper`) + "<extra></extra>" });
        }
      });
    });
    return { traces, layout: { ...layout, showlegend: true } };
  };
}

for (const element of document.querySelectorAll("[data-figure]")) draw(element, figurePanels(DATA.figures[Number(element.dataset.figure)]));

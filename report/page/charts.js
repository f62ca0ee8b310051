"use strict";
delete document.createElement; // restores the browser's own function (see before_plotly.js)

const figures = JSON.parse(document.getElementById("figures").textContent);
const charts = [...document.querySelectorAll(".chart")];
const options = { displayModeBar: false, responsive: true };
/** Charts that are drawn in the present colours. */
const drawn = new Set();

/** A figure with its colours (`var(--kept)`) replaced by the theme's values. `size` in pixels; without it, the size of its place. */
function themed(figure, size) {
  const known = new Map();
  const color = (name) => known.get(name) || known.set(name, theme.color(name)).get(name);
  const { data, layout } = JSON.parse(JSON.stringify(figure), (key, value) => {
    const name = typeof value === "string" && value.match(/^var\(--([a-z0-9-]+)\)$/);
    return name ? color(name[1]) : value;
  });
  const axis = { gridcolor: color("grid"), zerolinecolor: color("rule"), linecolor: color("rule") };
  for (const name of Object.keys(layout)) {
    if (/^[xy]axis\d*$/.test(name)) Object.assign(layout[name], axis);
  }
  Object.assign(layout, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("ink") },
    hoverlabel: { bgcolor: color("panel"), font: { color: color("ink") } },
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  });
  return [data, { ...layout, ...size }];
}

function figureOf(chart) {
  return figures[Number(chart.dataset.figure)];
}

function draw(chart, size) {
  drawn.add(chart);
  Plotly.react(chart, ...themed(figureOf(chart), size), options);
  document.body.dataset.drawn = String(drawn.size);
}

// ---- charts are drawn when they come into view, one at a time, so that the page stays responsive ----

const queue = [];
let drawing = false;

function drawNext() {
  const chart = queue.shift();
  drawing = chart !== undefined;
  if (!drawing) return;
  if (!drawn.has(chart) && chart.offsetParent) draw(chart);
  setTimeout(drawNext, 0);
}

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const place = queue.indexOf(target);
    if (isIntersecting && place < 0 && !drawn.has(target)) queue.push(target);
    if (!isIntersecting && place >= 0) queue.splice(place, 1); // scrolled out of view again
  }
  if (!drawing) drawNext();
}, { rootMargin: "300px 0px" });

/** Marks all charts as outdated: those in view are drawn again now, the others when they come into view. */
function drawAnew() {
  drawn.clear();
  for (const chart of charts) {
    observer.unobserve(chart);
    observer.observe(chart);
  }
}

// ---- in words and as a table --------------------------------------------------------------------

function fillTable(details, chart) {
  const { head, rows } = figureData.table(figureOf(chart));
  const region = details.appendChild(document.createElement("div"));
  region.className = "scroll";
  const table = region.appendChild(document.createElement("table"));
  const header = table.createTHead().insertRow();
  const body = table.createTBody();
  head.forEach((name, place) => {
    const cell = header.appendChild(document.createElement("th"));
    cell.textContent = name;
    cell.classList.toggle("number", place > 0);
  });
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((value, place) => {
      const cell = line.insertCell();
      cell.textContent = value;
      cell.classList.toggle("number", place > 0);
    });
  }
  tables.improve(table);
}

/** Adds a chart's place, description and table to the page. */
function describe(chart) {
  const figure = figureOf(chart);
  chart.style.height = `${figure.layout.height}px`;
  const about = chart.getAttribute("aria-label");
  const words = figureData.summary(figure);
  chart.setAttribute("aria-label", about ? `${about.replace(/[.\s]+$/, "")}. ${words}` : words);
  const details = document.createElement("details");
  details.className = "as-table";
  const summary = details.appendChild(document.createElement("summary"));
  summary.textContent = "Show as table";
  const whose = summary.appendChild(document.createElement("span"));
  whose.className = "unseen";
  whose.textContent = `: ${about || "chart"}`;
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector("table")) fillTable(details, chart);
  });
  chart.after(details);
}

// ---- on paper -----------------------------------------------------------------------------------

/**
 * Width in pixels of a chart on A4 paper, alone in a row and as one of two; and the greatest height of one that shares a page with text.
 */
const PAPER = { one: 668, two: 318, high: 520 };

addEventListener("beforeprint", () => {
  document.documentElement.dataset.screen = theme.chosen();
  document.documentElement.dataset.theme = "light";
  for (const chart of charts) {
    const height = Math.min(figureOf(chart).layout.height, PAPER.high);
    chart.style.height = `${height}px`;
    if (chart.offsetParent) draw(chart, { width: chart.closest(".charts") ? PAPER.two : PAPER.one, height });
  }
});
addEventListener("afterprint", () => {
  for (const chart of charts) {
    chart.style.height = `${figureOf(chart).layout.height}px`;
    Plotly.purge(chart); // plotly keeps a width that was set once
  }
  theme.choose(document.documentElement.dataset.screen); // makes all charts be drawn again
  delete document.documentElement.dataset.screen;
});

charts.forEach(describe);
document.addEventListener("theme", drawAnew);
drawAnew();

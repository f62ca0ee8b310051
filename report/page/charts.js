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

// ---- in words, for readers who do not see a chart ------------------------------------------------

function shown(value) {
  if (typeof value !== "number") return String(value ?? "");
  const size = Math.abs(value);
  if (Number.isInteger(value)) return size < 1e15 ? value.toLocaleString("en") : String(value);
  return size >= 1000 ? value.toLocaleString("en", { maximumFractionDigits: 1 }) : String(Number(value.toPrecision(4)));
}

/** Turns a label back into text: plotly's labels come with HTML escaped. */
function text(label) {
  return String(label).replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
}

/** Whether a trace is a histogram's outline: n + 1 edges, the last value twice. */
function isOutline(trace) {
  return trace.line?.shape === "hv" && trace.stackgroup !== undefined;
}

/** [label, value, place] of each point of a trace. */
function points(trace) {
  const [along, values] = trace.orientation === "h" ? [trace.y, trace.x] : [trace.x, trace.y];
  if (!isOutline(trace)) return along.map((at, place) => [typeof at === "number" ? shown(at) : text(at), values[place], at]);
  return along.slice(0, -1).map((edge, place) => {
    const [from, to] = [place ? edge : trace.meta?.from ?? edge, along[place + 1]];
    const whole = to - from === 1 && Number.isInteger(from + 0.5); // a bar of width 1 around a whole number is that number
    return [whole ? shown(from + 0.5) : `${shown(from)} to ${shown(to)}`, values[place], from];
  });
}

function sentence(trace, name) {
  const known = points(trace).filter(([, value]) => typeof value === "number");
  if (!known.length) return `${name}: no values`;
  if (known.length <= 6) {
    return `${name}: ${known.map(([label, value, at]) => (typeof at === "number" ? `${shown(value)} at ${label}` : `${label} ${shown(value)}`)).join(", ")}`;
  }
  const [most, least] = [1, -1].map((sign) => known.reduce((best, point) => (sign * (point[1] - best[1]) > 0 ? point : best)));
  if (isOutline(trace)) {
    const all = known.reduce((sum, [, value]) => sum + value, 0);
    return all ? `${name}: ${shown(all)} in all, most (${shown(most[1])}) at ${most[0]}` : `${name}: none`;
  }
  const [first, last] = [known[0], known[known.length - 1]];
  return `${name}: ${shown(first[1])} at ${first[0]}, ${shown(last[1])} at ${last[0]}; ` +
    `least ${shown(least[1])} at ${least[0]}, most ${shown(most[1])} at ${most[0]}`;
}

/** Describes a chart: each series, and the marks in it. */
function describe(chart) {
  const { data, layout } = figureOf(chart);
  chart.style.height = `${layout.height}px`;
  const sentences = data.slice(0, 8).map((trace) => sentence(trace, text(trace.name || layout.yaxis.title?.text || "value")));
  if (data.length > 8) sentences.push(`and ${data.length - 8} more`);
  const marks = (layout.annotations || []).map((note) => text(note.text)).filter(Boolean);
  if (marks.length) sentences.push(`marked: ${marks.join(", ")}`);
  chart.setAttribute("aria-label", `${chart.getAttribute("aria-label").replace(/[.\s]+$/, "")}. ${sentences.join(". ")}.`);
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
    if (chart.offsetParent) draw(chart, { width: chart.closest(".charts, .metric") ? PAPER.two : PAPER.one, height });
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

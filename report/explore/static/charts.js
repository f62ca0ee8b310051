/**
 * Histograms, drawn by plotly.js. No crawl text reaches plotly, since it reads some HTML in labels: names are shown beside a chart, and the
 * chart holds only numbers.
 */
import { count, value } from "./format.js";
import { Axis, drawnEdges } from "./scale.js";
import { color, onTheme } from "./theme.js";

const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false };
const drawn = new Map();
let library = null;

/** Loads plotly.js for the first chart. `before_plotly.js` keeps it from adding a style element to the page. */
function plotly() {
  library ??= script("before_plotly.js")
    .then(() => script("plotly.js"))
    .then(() => {
      delete document.createElement; // restores the browser's own function
      return globalThis.Plotly;
    });
  return library;
}

function script(name) {
  return new Promise((loaded, failed) => {
    const node = document.createElement("script");
    node.src = `/static/${name}`;
    node.onload = loaded;
    node.onerror = () => failed(new Error(`The charts can't be drawn: ${name} was not loaded.`));
    document.head.append(node);
  });
}

/**
 * Draws a histogram from `/api/histogram` into `node`. `marks`: lines at values, {at, kind: "old" or "new"}. `range`: the chosen [low,
 * high]. `over`: instead of kept and dropped documents, these [name, colour], each from the axis on. `onRange(low, high)` is called when the mouse selects a range, `onMove(value)` when the new line was dragged.
 */
export async function drawHistogram(node, histogram, options = {}) {
  const library = await plotly();
  const first = !drawn.has(node);
  drawn.set(node, [histogram, options]);
  await library.react(node, traces(histogram, options), layout(histogram, options), {
    ...CONFIG,
    edits: { shapePosition: Boolean(options.onMove) },
  });
  node.dataset.drawn = String(Number(node.dataset.drawn ?? 0) + 1);
  if (!first) return;
  node.on("plotly_selected", (event) => event?.range && drawn.get(node)[1].onRange?.(...event.range.x));
  node.on("plotly_relayout", (event) => moved(node, event));
}

function moved(node, event) {
  const [histogram, { onMove }] = drawn.get(node);
  const key = Object.keys(event).find((name) => /^shapes\[\d+\]\.x0$/.test(name));
  if (key && onMove) onMove(Math.max(event[key], histogram.logarithmic ? 0 : -Infinity));
}

/** Forgets a chart, so that its node can be removed. */
export function forget(node) {
  if (drawn.delete(node)) globalThis.Plotly?.purge(node);
}

onTheme(() =>
  [...drawn].forEach(([node, [histogram, options]]) => (node.isConnected ? drawHistogram(node, histogram, options) : forget(node))),
);

function traces(histogram, { over = null }) {
  const x = drawnEdges(histogram);
  return (over ?? Object.entries({ kept: "kept", dropped: "dropped" })).map(([name, tone]) => ({
    x,
    y: [...histogram[name], histogram[name].at(-1) ?? 0],
    name: over ? name.toUpperCase() : name,
    mode: "lines",
    ...(over ? { fill: "tozeroy" } : { stackgroup: "all" }),
    hovertemplate: "%{y:,}",
    line: { shape: "hv", width: over ? 1.5 : 1, color: color(tone) },
    fillcolor: color(`${tone}-fill`),
  }));
}

function layout(histogram, { marks = [], range = null, onRange = null }) {
  const axis = new Axis(
    histogram,
    marks.map(({ at }) => at),
  );
  const lines = { gridcolor: color("grid"), zerolinecolor: color("rule"), linecolor: color("rule"), fixedrange: true };
  return {
    height: 170,
    margin: { l: 44, r: 12, t: 8, b: 24 },
    showlegend: false,
    hovermode: "x unified",
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: color("ink") },
    hoverlabel: { bgcolor: color("panel"), font: { color: color("ink") } },
    dragmode: onRange ? "select" : false,
    selectdirection: "h",
    selections: [],
    xaxis: { ...lines, type: axis.logarithmic ? "log" : "linear", range: axis.range, tickformat: axis.high >= 1000 ? "~s" : "~g" },
    yaxis: { ...lines, rangemode: "tozero", tickformat: "~s" },
    shapes: [...(range ? [chosen(range, axis)] : []), ...marks.map((mark) => upright(mark, axis))],
  };
}

const across = { yref: "paper", y0: 0, y1: 1 };
const chosen = ([low, high], axis) => ({
  ...across,
  type: "rect",
  x0: axis.drawn(low ?? axis.low),
  x1: axis.drawn(high ?? axis.high),
  fillcolor: color("chosen"),
  line: { width: 0 },
  layer: "below",
});
const upright = ({ at, kind }, axis) => ({
  ...across,
  type: "line",
  x0: axis.drawn(at),
  x1: axis.drawn(at),
  line: { color: color("ink"), width: kind === "new" ? 2.5 : 1.5, dash: kind === "new" ? "solid" : "dot" },
});

/** Describes a histogram in a sentence. */
export function described(histogram) {
  const all = (name) => histogram[name].reduce((sum, number) => sum + number, 0);
  const outside = [
    ["below", "below"],
    ["above", "above"],
    ["missing", "without a value"],
  ].filter(([name]) => histogram[name]);
  const rest = outside.map(([name, words]) => `${count(histogram[name])} ${words}`).join(", ");
  const span = `between ${value(histogram.edges[0])} and ${value(histogram.edges.at(-1))}`;
  return `${count(all("kept"))} kept and ${count(all("dropped"))} dropped ${span}${rest && `; ${rest}`}`;
}

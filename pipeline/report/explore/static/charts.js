/**
 * Histograms, drawn by plotly.js. No crawl text ever reaches it: plotly reads some HTML in its labels, so names stand beside a
 * chart and numbers in it.
 */
import { count, value } from "./format.js";
import { color, onTheme } from "./theme.js";

const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false };
const drawn = new Map();
let library = null;

/** plotly.js, fetched when the first chart is drawn. `before_plotly.js` keeps it from putting a style element into the page. */
function plotly() {
  library ??= script("before_plotly.js")
    .then(() => script("plotly.js"))
    .then(() => {
      delete document.createElement; // back to the browser's own
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
 * Draws a histogram as `/api/histogram` gives it into `node`. `marks`: values at which lines stand, {at, kind: "old" or "new"}.
 * `range`: [low, high] that is chosen. `onRange(low, high)` is called when one is drawn with the mouse, `onMove(value)` when the
 * new line was dragged.
 */
export async function drawHistogram(node, histogram, options = {}) {
  const library = await plotly();
  const first = !drawn.has(node);
  drawn.set(node, [histogram, options]);
  await library.react(node, traces(histogram), layout(histogram, options), { ...CONFIG, edits: { shapePosition: Boolean(options.onMove) } });
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

/** Forgets a chart, so that its node can go. */
export function forget(node) {
  if (drawn.delete(node)) globalThis.Plotly?.purge(node);
}

onTheme(() => [...drawn].forEach(([node, [histogram, options]]) => (node.isConnected ? drawHistogram(node, histogram, options) : forget(node))));

/** The edges as they are drawn: a bar stands over its whole number, and zero has a place on a logarithmic axis. */
function edgesOf({ edges, logarithmic, whole }) {
  if (whole && !logarithmic && edges.length > 1 && edges[1] - edges[0] === 1) return edges.map((edge) => edge - 0.5);
  if (logarithmic && edges[0] === 0) return [edges[1] / 2, ...edges.slice(1)];
  return edges;
}

function traces(histogram) {
  const x = edgesOf(histogram);
  return ["kept", "dropped"].map((name) => ({
    x, y: [...histogram[name], histogram[name].at(-1) ?? 0], name, mode: "lines", stackgroup: "all", hovertemplate: "%{y:,}",
    line: { shape: "hv", width: 1, color: color(name) }, fillcolor: color(`${name}-fill`),
  }));
}

function layout(histogram, { marks = [], range = null, onRange = null }) {
  const edges = edgesOf(histogram);
  const axis = { gridcolor: color("grid"), zerolinecolor: color("rule"), linecolor: color("rule"), fixedrange: true };
  const least = edges[0];
  const all = [...edges, ...marks.map(({ at }) => (histogram.logarithmic ? Math.max(at, least) : at))];
  const span = [Math.min(...all), Math.max(...all)];
  const line = ({ at, kind }) => ({
    type: "line", yref: "paper", y0: 0, y1: 1, x0: histogram.logarithmic ? Math.max(at, least) : at, x1: histogram.logarithmic ? Math.max(at, least) : at,
    line: { color: color("ink"), width: kind === "new" ? 2.5 : 1.5, dash: kind === "new" ? "solid" : "dot" },
  });
  const chosen = range && {
    type: "rect", yref: "paper", y0: 0, y1: 1, x0: range[0] ?? least, x1: range[1] ?? edges.at(-1), fillcolor: color("chosen"), line: { width: 0 }, layer: "below",
  };
  return {
    height: 170, margin: { l: 44, r: 12, t: 8, b: 24 }, showlegend: false, hovermode: "x unified", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: color("ink") },
    hoverlabel: { bgcolor: color("panel"), font: { color: color("ink") } },
    dragmode: onRange ? "select" : false, selectdirection: "h", selections: [],
    xaxis: { ...axis, type: histogram.logarithmic ? "log" : "linear", range: span.map((edge) => (histogram.logarithmic ? Math.log10(edge) : edge)) }, yaxis: { ...axis, rangemode: "tozero", tickformat: "~s" },
    shapes: [...(chosen ? [chosen] : []), ...marks.map(line)],
  };
}

/** A histogram in a sentence. */
export function described(histogram) {
  const all = (name) => histogram[name].reduce((sum, number) => sum + number, 0);
  const outside = [["below", "below"], ["above", "above"], ["missing", "without a value"]].filter(([name]) => histogram[name]);
  const rest = outside.map(([name, words]) => `${count(histogram[name])} ${words}`).join(", ");
  const span = `between ${value(histogram.edges[0])} and ${value(histogram.edges.at(-1))}`;
  return `${count(all("kept"))} kept and ${count(all("dropped"))} dropped ${span}${rest && `; ${rest}`}`;
}

/**
 * Histograms, drawn by plotly.js, and their axis. No crawl text reaches plotly, since it reads some HTML in labels: names are shown beside a
 * chart, and the chart holds only numbers.
 */
import { color, onTheme } from "./choices.js";
import { count, value } from "./format.js";

/** Positions of the slider below a chart, which shares the chart's axis, so that it is right under the line. */
export const STEPS = 1000;

/** The edges as drawn: a bar is centred on its whole number, and zero gets a place on a logarithmic axis. */
function drawnEdges({ edges, logarithmic, whole }) {
  if (whole && !logarithmic && edges.length > 1 && edges[1] - edges[0] === 1) return edges.map((edge) => edge - 0.5);
  if (logarithmic && edges[0] === 0) return [edges[1] / 2, ...edges.slice(1)];
  return edges;
}

/** An axis that holds a histogram and some values: its ends `low` and `high` as drawn, and whether its low end stands for zero. */
export class Axis {
  constructor(histogram, values = []) {
    const drawn = drawnEdges(histogram);
    this.logarithmic = histogram.logarithmic;
    this.zero = this.logarithmic && histogram.edges[0] === 0;
    this.low = this.logarithmic ? drawn[0] : Math.min(drawn[0], ...values);
    this.high = Math.max(drawn.at(-1), ...values);
    if (this.low === this.high) this.high += 1;
  }

  /** Where a value is drawn: one too small for a logarithmic axis is at its low end. */
  drawn(value) {
    return this.logarithmic ? Math.max(value, this.low) : value;
  }

  /** The ends of the axis as plotly takes them. */
  get range() {
    return [this.low, this.high].map((end) => (this.logarithmic ? Math.log10(end) : end));
  }

  /** The position of a value on a slider; for a value outside, the nearest end. */
  place(value) {
    const [low, high] = this.range;
    const at = this.logarithmic ? Math.log10(this.drawn(value)) : value;
    return Math.round(STEPS * Math.max(0, Math.min(1, (at - low) / (high - low))));
  }

  /** The value at a position of a slider. */
  value(place, whole) {
    const [low, high] = this.range;
    const at = low + (place / STEPS) * (high - low);
    if (this.zero && Number(place) === 0) return 0;
    const exact = this.logarithmic ? 10 ** at : at;
    return whole ? Math.round(exact) : Number(exact.toPrecision(4));
  }
}

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
 * high]. `over`: instead of kept and dropped documents, these [name, colour], each from the axis on. `onRange(low, high)` is called when
 * the mouse selects a range, `onMove(value)` when the new line was dragged.
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

/**
 * Histograms of the explorer, drawn by the report's plot.js, and their axis; a threshold can be dragged, and a range be selected.
 */
import { count, value } from "./format.js";
import "./plot.js";

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

  /** The ends of the axis, logarithms where it is logarithmic. */
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

/** Margins in pixels, those of the slider below. */
const SIDES = { left: 44, right: 12 };
/** The distance in pixels at which the mouse takes a line. */
const NEAR = 8;

/**
 * Draws a histogram from `/api/histogram` into `node`, and again when its width changes. `marks`: lines at values, {at, kind: "old" or
 * "new"}. `range`: the chosen [low, high]. `over`: instead of kept and dropped documents, these [name, colour], each from the axis on.
 * `onRange(low, high)` is called when the mouse selects a range, `onMove(value)` when the new line was dragged.
 */
export function drawHistogram(node, histogram, options = {}) {
  if (!drawn.has(node)) watcher.observe(node);
  drawn.set(node, [histogram, options]);
  draw(node);
}

const drawn = new Map();
const watcher = new ResizeObserver((entries) => entries.forEach(({ target }) => drawn.has(target) && draw(target)));

/** Forgets a chart, so that its node can be removed. */
export function forget(node) {
  watcher.unobserve(node);
  drawn.delete(node);
}

function draw(node) {
  if (!node.clientWidth) return;
  const [histogram, options] = drawn.get(node);
  const { marks = [], range = null, over = null, onRange, onMove } = options;
  const axis = new Axis(
    histogram,
    marks.map(({ at }) => at),
  );
  const x = drawnEdges(histogram);
  const series = (over ?? Object.entries({ kept: "kept", dropped: "dropped" })).map(([name, color]) => ({
    kind: "steps",
    name: over ? name.toUpperCase() : name,
    color,
    x,
    y: histogram[name],
    fill: true,
    stack: !over,
  }));
  const figure = {
    height: 170,
    ...SIDES,
    series,
    x: { log: axis.logarithmic, range: [axis.low, axis.high], ...(axis.zero && { from: 0 }) },
    y: { zero: true },
    marks: marks.map(({ at, kind }) => ({ x: at, style: kind === "new" ? "solid" : "dot" })),
    chosen: range && [axis.drawn(range[0] ?? axis.low), axis.drawn(range[1] ?? axis.high)],
  };
  const { svg, scale } = plot.draw(node, figure);
  node.dataset.drawn = String(Number(node.dataset.drawn ?? 0) + 1);
  const line = onMove && svg.querySelector(".mark.solid");
  if (line) {
    drag(svg, scale, {
      near: (at) => Math.abs(at - line.x1.baseVal.value) < NEAR,
      move: (_, to) => place(line, to),
      done: (_, to) => onMove(lowest(scale.from(to), histogram)),
    });
  }
  if (onRange) {
    drag(svg, scale, {
      near: () => true,
      move: (from, to) => plot.shade(svg, from, to),
      done: (from, to) => Math.abs(to - from) > 4 && onRange(...[from, to].sort((a, b) => a - b).map(scale.from)),
    });
  }
}

const lowest = (value, { logarithmic }) => Math.max(value, logarithmic ? 0 : -Infinity);

/** Moves an upright line to a pixel. */
function place(line, at) {
  line.setAttribute("x1", at);
  line.setAttribute("x2", at);
}

/** Follows the mouse from where it takes something to where it lets go: `move(from, to)` and `done(from, to)` get pixels in the axis. */
function drag(svg, { low, high, to }, { near, move, done }) {
  const inside = (event) => Math.min(to(high), Math.max(to(low), event.clientX - svg.getBoundingClientRect().left));
  svg.addEventListener("pointerdown", (event) => {
    const from = inside(event);
    if (event.button !== 0 || !near(from)) return;
    event.preventDefault();
    svg.setPointerCapture(event.pointerId);
    const follow = (next) => move(from, inside(next));
    svg.addEventListener("pointermove", follow);
    svg.addEventListener(
      "pointerup",
      (last) => {
        svg.removeEventListener("pointermove", follow);
        done(from, inside(last));
      },
      { once: true },
    );
  });
}

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

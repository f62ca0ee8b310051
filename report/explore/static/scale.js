/** The axis of a histogram. The chart and the slider below it share one, so that the slider is right under the line. */

/** Positions of a slider. */
export const STEPS = 1000;

/** The edges as drawn: a bar is centred on its whole number, and zero gets a place on a logarithmic axis. */
export function drawnEdges({ edges, logarithmic, whole }) {
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

/** The axis of a histogram: its chart and the slider below it use the same, so that the slider stands right under the line. */

/** Places of a slider. */
export const STEPS = 1000;

/** The edges as they are drawn: a bar stands over its whole number, and zero has a place on a logarithmic axis. */
export function drawnEdges({ edges, logarithmic, whole }) {
  if (whole && !logarithmic && edges.length > 1 && edges[1] - edges[0] === 1) return edges.map((edge) => edge - 0.5);
  if (logarithmic && edges[0] === 0) return [edges[1] / 2, ...edges.slice(1)];
  return edges;
}

/** An axis that holds a histogram and some values: its `low` and `high` end as they are drawn, and whether zero is its low end. */
export class Axis {
  constructor(histogram, values = []) {
    const drawn = drawnEdges(histogram);
    this.logarithmic = histogram.logarithmic;
    this.zero = this.logarithmic && histogram.edges[0] === 0;
    this.low = this.logarithmic ? drawn[0] : Math.min(drawn[0], ...values);
    this.high = Math.max(drawn.at(-1), ...values);
    if (this.low === this.high) this.high += 1;
  }

  /** Where a value is drawn: what is too small for a logarithmic axis stands at its low end. */
  drawn(value) {
    return this.logarithmic ? Math.max(value, this.low) : value;
  }

  /** The ends in plotly's terms. */
  get range() {
    return [this.low, this.high].map((end) => (this.logarithmic ? Math.log10(end) : end));
  }

  /** The place of a value on a slider, the nearest end for one that lies outside. */
  place(value) {
    const [low, high] = this.range;
    const at = this.logarithmic ? Math.log10(this.drawn(value)) : value;
    return Math.round(STEPS * Math.max(0, Math.min(1, (at - low) / (high - low))));
  }

  /** The value at a place of a slider. */
  value(place, whole) {
    const [low, high] = this.range;
    const at = low + (place / STEPS) * (high - low);
    if (this.zero && Number(place) === 0) return 0;
    const exact = this.logarithmic ? 10 ** at : at;
    return whole ? Math.round(exact) : Number(exact.toPrecision(4));
  }
}

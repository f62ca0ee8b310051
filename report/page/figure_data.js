"use strict";
// The content of a figure in numbers and words, for readers who do not see it.
const figureData = (() => {
  function shown(value) {
    if (typeof value !== "number") return value === null || value === undefined ? "" : String(value);
    const size = Math.abs(value);
    if (Number.isInteger(value)) return size < 1e15 ? value.toLocaleString("en") : String(value);
    return size >= 1000 ? value.toLocaleString("en", { maximumFractionDigits: 1 }) : String(Number(value.toPrecision(4)));
  }

  /** Turns a label back into text: plotly's labels come with HTML escaped. */
  function text(label) {
    return String(label).replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  }

  function axisTitle(axis) {
    return text(axis?.title?.text || axis?.title || "");
  }

  /** Whether a trace is a histogram's outline: n + 1 edges, the last value twice. */
  function isOutline(trace) {
    return trace.line?.shape === "hv" && trace.stackgroup !== undefined;
  }

  /** The interval of a bar; a bar of width 1 around a whole number is that number. */
  function interval(from, to) {
    return to - from === 1 && Number.isInteger(from + 0.5) ? shown(from + 0.5) : `${shown(from)} to ${shown(to)}`;
  }

  /** [label, value, place] of each point. */
  function points(trace) {
    const [along, values] = trace.orientation === "h" ? [trace.y, trace.x] : [trace.x, trace.y];
    if (isOutline(trace)) {
      return along.slice(0, -1).map((from, place) => [interval(place ? from : trace.meta?.from ?? from, along[place + 1]), values[place], from]);
    }
    return along.map((at, place) => [typeof at === "number" ? shown(at) : text(at), values[place], at]);
  }

  /** The series of a figure, as names with points; `along` and `measure` are the names of the axes. */
  function read(figure) {
    const { data, layout } = figure;
    const sideways = data.some((trace) => trace.orientation === "h");
    const [along, measure] = [axisTitle(layout.xaxis), axisTitle(layout.yaxis)];
    const series = data.filter((trace) => Array.isArray(trace.x) && Array.isArray(trace.y)).map((trace) => ({
      name: text(trace.name || (sideways ? along : measure) || "value"), points: points(trace), counts: isOutline(trace),
    }));
    const marks = (layout.annotations || []).map((note) => text(note.text)).filter(Boolean);
    return { series, marks, along: (sideways ? measure : along) || "value" };
  }

  /** Header and rows of a table: a row for each place, a column for each series. A place that a series has twice gets two rows. */
  function table(figure) {
    const { series, along } = read(figure);
    const rows = new Map();
    series.forEach(({ points }, column) => {
      const times = new Map();
      for (const [label, value, at] of points) {
        const time = (times.get(at) || 0) + 1;
        times.set(at, time);
        const key = `${time} ${at}`;
        if (!rows.has(key)) rows.set(key, [label, ...Array(series.length).fill("")]);
        rows.get(key)[column + 1] = shown(value);
      }
    });
    return { head: [along, ...series.map(({ name }) => name)], rows: [...rows.values()] };
  }

  function sentence({ name, points, counts }) {
    const known = points.filter(([, value]) => typeof value === "number");
    if (!known.length) return `${name}: no values`;
    if (known.length <= 6) {
      const values = known.map(([label, value, at]) => (typeof at === "number" ? `${shown(value)} at ${label}` : `${label} ${shown(value)}`));
      return `${name}: ${values.join(", ")}`;
    }
    const [most, least] = [1, -1].map((sign) => known.reduce((best, point) => (sign * (point[1] - best[1]) > 0 ? point : best)));
    if (counts) {
      const all = known.reduce((sum, [, value]) => sum + value, 0);
      return all ? `${name}: ${shown(all)} in all, most (${shown(most[1])}) at ${most[0]}` : `${name}: none`;
    }
    const [first, last] = [known[0], known[known.length - 1]];
    return `${name}: ${shown(first[1])} at ${first[0]}, ${shown(last[1])} at ${last[0]}; ` +
      `least ${shown(least[1])} at ${least[0]}, most ${shown(most[1])} at ${most[0]}`;
  }

  /** Describes the figure in words: each series, and the marks in it. */
  function summary(figure) {
    const { series, marks } = read(figure);
    const sentences = series.slice(0, 8).map(sentence);
    if (series.length > 8) sentences.push(`and ${series.length - 8} more`);
    if (marks.length) sentences.push(`marked: ${marks.join(", ")}`);
    return `${sentences.join(". ")}.`;
  }

  return { table, summary };
})();

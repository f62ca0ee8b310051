"use strict";
/**
 * Draws charts as SVG, for the report and for the explorer: histograms, bars, curves. Colours are variables of the style sheet, so that a
 * chart follows the theme; names are text, never HTML.
 *
 * A figure is {height, x, y, series, marks, legend, left, right, chosen}.
 *   x, y: an axis, {title, log, range: [low, high], zero: whether it begins at 0, names: those of the bars, from: what the first edge is}
 *   series: {name, kind, x, y, color, fill, stack, dash, low, high, notes}
 *     kind: "steps" (x has one edge more than y has counts), "bars", "points" or "line" (low and high: ends of intervals)
 *   marks: upright lines, {x, text, style: "dash", "dot" or "solid"}
 *   left, right: margins in pixels, where the caller puts something below the axis; chosen: a range of x that is shaded; diagonal:
 *     whether x = y is drawn
 */
globalThis.plot = (() => {
  const LETTER = 6.6; // pixels of a letter, at most, in the axes' size of 11 pixels
  const SPACE = { gap: 8, row: 15, bottom: 36, right: 14 };

  const COMPARED = { stroke: "var(--soft)", "stroke-dasharray": "5 4" };

  /** An SVG element. */
  function make(name, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== undefined) made.setAttribute(key, typeof value === "number" ? Math.round(value * 100) / 100 : value);
    }
    made.append(...children);
    return made;
  }

  const text = (words, attributes) => make("text", attributes, words);
  const paint = (name, ending = "") => `var(--${name}${ending})`;

  /** A number in words: 1,234, 0.1235. */
  function say(value) {
    if (typeof value !== "number") return String(value ?? "");
    const size = Math.abs(value);
    if (Number.isInteger(value)) return size < 1e15 ? value.toLocaleString("en") : String(value);
    return size >= 1000 ? value.toLocaleString("en", { maximumFractionDigits: 1 }) : String(Number(value.toPrecision(4)));
  }

  /** A number as an axis has it: 500, 1.5k, 3M. */
  function short(value) {
    const units = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [0, ""]];
    const [unit, letter] = units.find(([one]) => Math.abs(value) >= one);
    return `${Number((value / (unit || 1)).toPrecision(6))}${letter}`;
  }

  /** [label, value, place] of each point of a series; the place of a step is the middle between its edges, as drawn. */
  function points(series, axis) {
    if (axis.names) return series.y.map((value, at) => [axis.names[at], value, at]);
    if (series.kind !== "steps") return series.y.map((value, at) => [say(series.x[at]), value, series.x[at]]);
    return series.y.map((value, at) => {
      const [low, high] = [series.x[at], series.x[at + 1]];
      const from = at === 0 ? axis.from ?? low : low;
      const whole = high - low === 1 && Number.isInteger(from + 0.5); // a bar of width 1 around a whole number is that number
      return [whole ? say(from + 0.5) : `${say(from)} to ${say(high)}`, value, axis.log ? Math.sqrt(low * high) : (low + high) / 2];
    });
  }

  /** [tops, feet] of each series: one that is stacked stands on the ones before it. */
  function stacked(series) {
    let below = null;
    return series.map((one) => {
      if (!one.stack) return [one.y, one.y.map(() => 0)];
      const feet = below ?? one.y.map(() => 0);
      below = one.y.map((value, at) => value + feet[at]);
      return [below, feet];
    });
  }

  /** Marks of an axis: at most about `count`. */
  function ticks(axis, low, high, count) {
    if (axis.names) return axis.names.map((_, at) => at);
    const inside = (values) => values.filter((value) => value >= low - 1e-9 * (high - low) && value <= high + 1e-9 * (high - low));
    if (axis.log) {
      const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
      const powers = Array.from({ length: last - first + 1 }, (_, at) => 10 ** (first + at));
      const parts = [[1], [1, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9]];
      const every = parts.map((some) => inside(powers.flatMap((power) => some.map((part) => part * power))));
      const found = every.find((some) => some.length > 1) ?? every[2];
      return found.filter((_, at) => at % Math.max(1, Math.ceil(found.length / count)) === 0);
    }
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((part) => part * power).find((one) => one >= rough) ?? rough;
    const first = Math.ceil(low / step - 1e-9);
    const number = Math.floor(high / step + 1e-9) - first + 1;
    return inside(Array.from({ length: number }, (_, at) => Number(((first + at) * step).toPrecision(12))));
  }

  /** A scale from values to pixels: `to(value)`, and `from(pixel)`. */
  function scale(axis, low, high, begin, end) {
    const on = (value) => (axis.log ? Math.log10(Math.max(value, low)) : value);
    const [first, last] = [on(low), on(high)];
    const to = (value) => begin + ((on(value) - first) / (last - first || 1)) * (end - begin);
    const from = (pixel) => {
      const at = first + ((pixel - begin) / (end - begin)) * (last - first);
      return axis.log ? 10 ** at : at;
    };
    return { low, high, to, from };
  }

  /** The ends of an axis: its own, or those of its values with some room. */
  function ends(axis, values, room) {
    if (axis.range) return axis.range;
    const known = values.filter((value) => Number.isFinite(value) && (!axis.log || value > 0));
    let [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [axis.log ? 1 : 0, axis.log ? 10 : 1];
    if (low === high && !axis.zero) [low, high] = axis.log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
    if (axis.log) return room ? [low / 1.1, high * 1.1] : [low, high];
    const more = room * (high - (axis.zero ? 0 : low));
    return axis.zero ? [0, high + more || 1] : [low - more, high + more];
  }

  function extent(figure, tops) {
    const { x, y, series } = figure;
    const bars = series.some(({ kind }) => kind === "bars");
    const along = x.names ? [-0.5, x.names.length - 0.5] : ends(x, series.flatMap((one) => one.x), 0);
    if (bars && !x.names && !x.range) [along[0], along[1]] = [along[0] - 0.6, along[1] + 0.6];
    return [along, ends(y, [...tops.flat(), ...series.flatMap(({ low = [], high = [] }) => [...low, ...high])], 0.06)];
  }

  // ---- the parts of a chart ------------------------------------------------------------------------------

  function steps({ x, color, fill, dash, stack }, tops, feet, h, v) {
    const path = (levels, back) => {
      const corners = levels.flatMap((level, at) => [[h.to(x[at]), v.to(level)], [h.to(x[at + 1]), v.to(level)]]);
      return (back ? corners.reverse() : corners).map(([across, up]) => `${across.toFixed(2)},${up.toFixed(2)}`).join("L");
    };
    const style = { stroke: paint(color), "stroke-width": stack ? 1 : 1.8, "stroke-dasharray": dash };
    const line = make("path", { d: `M${path(tops)}`, fill: "none", ...style });
    return fill ? [make("path", { d: `M${path(tops)}L${path(feet, true)}Z`, fill: paint(color, "-fill") }), line] : [line];
  }

  function bars({ x, color, stack }, tops, feet, h, v, [place, count], names) {
    const width = (0.7 * (h.to(1) - h.to(0))) / (stack ? 1 : count);
    return tops.map((top, at) => {
      const middle = h.to(names ? at : x[at]) + (stack ? 0 : (place - (count - 1) / 2) * width);
      return make("rect", { x: middle - width / 2, y: v.to(top), width, height: Math.max(0, v.to(feet[at]) - v.to(top)), fill: paint(color) });
    });
  }

  function line({ kind, x, y, color, dash, low, high, fill }, h, v) {
    const at = (level, place) => `${h.to(x[place]).toFixed(2)},${v.to(level).toFixed(2)}`;
    const parts = [];
    if (low && fill) {
      const band = [...high.map(at), ...low.map(at).reverse()];
      parts.push(make("polygon", { points: band.join(" "), fill: paint(color, "-fill") }));
    } else if (low) {
      low.forEach((level, place) => {
        const across = h.to(x[place]);
        parts.push(make("line", { x1: across, x2: across, y1: v.to(level), y2: v.to(high[place]), stroke: paint("soft") }));
      });
    }
    if (kind === "line") {
      const style = { stroke: paint(color), "stroke-width": 1.6, "stroke-dasharray": dash, "stroke-linejoin": "round" };
      parts.push(make("polyline", { points: y.map(at).join(" "), fill: "none", ...style }));
    }
    if (kind === "points" || (x.length <= 60 && !dash)) {
      const style = { r: kind === "points" ? 4 : 2.6, fill: paint(color) };
      y.forEach((level, place) => parts.push(make("circle", { cx: h.to(x[place]), cy: v.to(level), ...style })));
    }
    return parts;
  }

  /** Where the words of upright lines stand: {left: whether left of the line, row}. Words that would meet get several rows. */
  function heads(marks, h, right) {
    const taken = [];
    return marks.map(({ x, text: words = "" }) => {
      const [at, wide] = [h.to(x), words.length * LETTER + 8];
      const left = at + wide > right;
      const [from, to] = left ? [at - wide, at] : [at, at + wide];
      const rows = taken.filter((other) => words && from < other.to && to > other.from).map((other) => other.row);
      const row = [0, 1, 2].find((one) => !rows.includes(one)) ?? 2;
      if (words) taken.push({ from, to, row });
      return { left, row };
    });
  }

  function upright(marks, places, h, top, bottom) {
    return marks.flatMap(({ x, text: words = "", style = "dash" }, at) => {
      const { left, row } = places[at];
      const dashes = { dash: "5 4", dot: "2 3" }[style];
      const drawn = {
        x1: h.to(x), x2: h.to(x), y1: words ? top - 11 - row * SPACE.row : top, y2: bottom,
        stroke: paint("ink"), "stroke-width": style === "solid" ? 2.5 : 1.5, "stroke-dasharray": dashes,
      };
      const beside = { x: h.to(x) + (left ? -4 : 4), y: top - 4 - row * SPACE.row, "text-anchor": left ? "end" : "start", class: "mark" };
      return [make("line", { ...drawn, class: `mark ${style}` }), text(words, beside)];
    });
  }

  function legend(series) {
    const list = document.createElement("div");
    list.className = "legend";
    for (const { name, color, dash, kind } of series.filter((one) => one.name)) {
      const solid = kind === "bars" || kind === "points" || undefined;
      const key = make("svg", { width: 22, height: 10, "aria-hidden": "true" }, solid
        ? make("rect", { x: 6, width: 10, height: 10, fill: paint(color) })
        : make("line", { x1: 1, x2: 21, y1: 5, y2: 5, stroke: paint(color), "stroke-width": 2.5, "stroke-dasharray": dash }));
      const entry = list.appendChild(document.createElement("span"));
      entry.append(key, ` ${name}`);
    }
    return list;
  }

  /** Shows the values under the mouse: those of each series at the place that is nearest. */
  function hover(svg, figure, h, top, bottom) {
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    const hair = make("line", { y1: top, y2: bottom, stroke: paint("soft"), "stroke-width": 1, visibility: "hidden" });
    svg.append(hair);
    const every = figure.series.map((series) => points(series, figure.x));
    svg.addEventListener("pointermove", (event) => {
      const pixel = event.clientX - svg.getBoundingClientRect().left;
      const gap = (point) => Math.abs(h.to(point[2]) - pixel);
      const nearest = every.flat().reduce((best, point) => (best && gap(best) <= gap(point) ? best : point), null);
      if (!nearest) return;
      const lines = figure.series.flatMap(({ name, notes }, number) => {
        const at = every[number].findIndex((point) => point[2] === nearest[2]);
        return at < 0 ? [] : [notes ? notes[at] : `${name}: ${say(every[number][at][1])}`];
      });
      tip.replaceChildren(...[nearest[0], ...lines].map((words, number) => {
        const part = document.createElement(number ? "div" : "b");
        part.textContent = words;
        return part;
      }));
      const at = h.to(nearest[2]);
      hair.setAttribute("x1", at);
      hair.setAttribute("x2", at);
      hair.setAttribute("visibility", "visible");
      tip.hidden = false;
      tip.style.top = `${top}px`;
      tip.style.left = `${Math.max(0, at + 10 + tip.offsetWidth > svg.clientWidth ? at - 10 - tip.offsetWidth : at + 10)}px`;
    });
    svg.addEventListener("pointerleave", () => {
      tip.hidden = true;
      hair.setAttribute("visibility", "hidden");
    });
    return tip;
  }

  /** Shades a range of the axis between two pixels. */
  function shade(svg, from, to) {
    const box = svg.querySelector(".chosen");
    box.setAttribute("x", Math.min(from, to));
    box.setAttribute("width", Math.max(1, Math.abs(to - from)));
  }

  /** Draws a figure into an element, in place of what is there. Returns its SVG element and the scale of x. */
  function draw(place, figure, width = place.clientWidth) {
    const { x, y, series, marks = [], height = 240 } = figure;
    const sums = stacked(series);
    const [along, up] = extent(figure, sums.map(([tops]) => tops));
    const bottom = height - (x.title ? SPACE.bottom : SPACE.bottom - SPACE.row);
    const levels = ticks(y, ...up, Math.max(2, Math.floor(bottom / 45)));
    const left = figure.left ?? Math.max(...levels.map((level) => short(level).length), 2) * LETTER + SPACE.gap + 2;
    const right = width - (figure.right ?? SPACE.right);
    const h = scale(x, ...along, left, right);
    const places = heads(marks, h, right);
    const rows = marks.some((mark) => mark.text) ? 1 + Math.max(...places.map(({ row }) => row)) : 0;
    const top = SPACE.gap + (y.title ? SPACE.row - 4 : 0) + rows * SPACE.row;
    const v = scale(y, ...up, bottom, top);
    const wide = x.names ? Math.max(...x.names.map((name) => name.length)) * LETTER : 46;
    const room = Math.max(2, Math.floor((right - left) / (x.names ? wide + 6 : 64)));
    const below = ticks(x, ...along, room).filter((_, at) => !x.names || at % Math.ceil(x.names.length / room) === 0);
    const zero = x.from === 0 && series[0].x.length > 1 ? Math.sqrt(series[0].x[0] * series[0].x[1]) : null; // the bar of zeros, if any
    const labels = below.filter((value) => zero === null || h.to(value) - h.to(zero) > 24)
      .map((value) => [value, x.names ? x.names[value] : short(value)]).concat(zero === null ? [] : [[zero, "0"]]);
    const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    svg.append(
      ...levels.flatMap((level) => [
        make("line", { x1: left, x2: right, y1: v.to(level), y2: v.to(level), stroke: paint("grid") }),
        text(short(level), { x: left - 6, y: v.to(level) + 4, "text-anchor": "end" }),
      ]),
      ...labels.map(([value, words]) => text(words, { x: h.to(value), y: bottom + 16, "text-anchor": "middle" })),
      make("rect", { y: top, height: bottom - top, fill: paint("chosen"), class: "chosen" }),
      ...(figure.diagonal ? [make("line", { x1: h.to(0), x2: h.to(1), y1: v.to(0), y2: v.to(1), ...COMPARED })] : []),
      ...series.flatMap((one, at) => {
        const [tops, feet] = sums[at];
        if (one.kind === "steps") return steps(one, tops, feet, h, v);
        return one.kind === "bars" ? bars(one, tops, feet, h, v, [at, series.length], Boolean(x.names)) : line(one, h, v);
      }),
      make("line", { x1: left, x2: right, y1: bottom, y2: bottom, stroke: paint("edge") }),
      ...upright(marks, places, h, top, bottom),
      ...(y.title ? [text(y.title, { x: 0, y: 11, class: "title" })] : []),
      ...(x.title ? [text(x.title, { x: right, y: height - 4, "text-anchor": "end", class: "title" })] : []),
    );
    if (figure.chosen) shade(svg, ...figure.chosen.map(h.to));
    const tip = hover(svg, figure, h, top, bottom);
    place.replaceChildren(...(figure.legend ? [legend(series)] : []), svg, tip);
    return { svg, scale: h };
  }

  return { draw, shade, points, say };
})();

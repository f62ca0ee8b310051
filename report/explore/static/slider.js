/** A slider for a rule's threshold, with its column's histogram and the number of documents that it drops, before and now. */
import { ask, attempt } from "./api.js";
import { Axis, STEPS, described, drawHistogram } from "./charts.js";
import { checkBox, h } from "./dom.js";
import { comparison, count, value } from "./format.js";
import { line, plain } from "./text.js";

/**
 * A card for `rule` of `stage`. Calls `moved(rule, given, done)` with a number, "off" or null (the run's threshold); `done` when released.
 */
export class Slider {
  constructor(stage, rule, moved) {
    Object.assign(this, { stage, rule, moved, given: null, asked: false, loaded: false });
    this.whole = stage.columns.find((column) => column.name === rule.column)?.whole ?? false;
    this.parts();
    // a placeholder until the histogram is loaded
    this.histogram = { edges: [rule.low ?? 0, rule.high ?? 1], logarithmic: false, whole: false, kept: [], dropped: [] };
    this.show(null);
  }

  parts() {
    const name = plain(this.rule.rule);
    const on = (read) => ({ input: (event) => this.take(read(event), false), change: (event) => this.take(read(event), true) });
    const number = (event) => (event.target.value === "" ? null : Number(event.target.value));
    const slide = { ...on((event) => this.axis().value(event.target.value, this.whole)), keydown: (event) => this.step(event) };
    this.range = h.input({ type: "range", min: 0, max: STEPS, "aria-label": `Threshold of ${name}`, on: slide });
    this.box = h.input({ type: "number", step: "any", "aria-label": `Threshold of ${name} as a number`, on: on(number) });
    this.active = checkBox((on) => this.take(on ? null : "off", true), {
      "aria-label": `Rule ${name} is on`,
      title: "Switches the rule off and on",
    });
    this.counts = h.p({ class: "counts" });
    this.chart = h.div({ class: "chart", role: "img", "aria-label": `Histogram of ${plain(this.rule.column)}` });
    this.node = h.article(
      { class: "slider", id: `slider-${this.stage.rules.indexOf(this.rule)}`, data: { rule: this.rule.rule } },
      h.h3(h.label(this.active, " ", line(this.rule.rule))),
      h.p(
        { class: "row" },
        h.span("drops when ", h.b(line(this.rule.column)), ` ${comparison(this.rule)} `),
        this.box,
        h.span({ class: "was" }, ` (was ${value(this.rule.threshold)})`),
      ),
      this.chart,
      this.range,
      this.counts,
    );
  }

  take(given, done) {
    const same = given === this.rule.threshold || (typeof given === "number" && !Number.isFinite(given));
    this.show(same ? null : given);
    this.moved(this.rule, this.given, done);
  }

  /** Sets the step of an arrow key: one for whole values, else a change of the third digit of the scale. */
  step(event) {
    const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    const { low, high } = this.axis();
    const step = this.whole ? 1 : 10 ** (Math.floor(Math.log10(high - low)) - 2);
    const next = Number((this.now() + way * step).toPrecision(10));
    if (next >= Math.min(low, 0) && next <= high) this.take(next, true);
  }

  /** The present threshold. */
  now() {
    return this.given === null || this.given === "off" ? this.rule.threshold : Number(this.given);
  }

  axis() {
    return new Axis(this.histogram, [this.rule.threshold, this.now()]);
  }

  /** Shows a threshold: a number, "off", or null for that of the run. The box does not change while the user types in it. */
  show(given) {
    this.given = given;
    const off = given === "off";
    const at = this.now();
    this.active.checked = !off;
    this.range.disabled = this.box.disabled = off;
    this.range.value = this.axis().place(at);
    this.range.setAttribute("aria-valuetext", value(at));
    if (document.activeElement !== this.box) this.box.value = at;
    this.node.classList.toggle("moved", given !== null);
    this.draw();
  }

  /**
   * Shows how many documents the rule dropped in the run, and how many it drops now. `found`: the new threshold of a rule that keeps a
   * share of the documents; it changes when other rules drop other documents.
   */
  update(now, found) {
    const { fired, alone } = this.rule;
    const part = (label, before, after) => [`${label} ${count(before)}`, after !== before && [" → ", h.b(count(after))]];
    this.counts.replaceChildren(
      ...h.span(
        part("drops", fired, now?.fired ?? fired),
        part(", alone", alone, now?.alone ?? alone),
        found !== undefined && this.given === null && [", its threshold becomes ", h.b(value(found))],
      ).childNodes,
    );
  }

  /** Asks for the histogram once the card is in view. */
  load() {
    if (this.asked) return;
    this.asked = true;
    attempt(this.node, async () => {
      this.histogram = await ask(this.node.id, "histogram", new URLSearchParams({ stage: this.stage.name, column: this.rule.column }));
      this.loaded = true;
      this.chart.setAttribute("aria-label", plain(`Histogram of ${this.rule.column}: ${described(this.histogram)}`));
      this.show(this.given);
    });
  }

  draw() {
    if (!this.loaded) return;
    const marks = [
      this.given !== null && { at: this.rule.threshold, kind: "old" },
      this.given !== "off" && { at: this.now(), kind: "new" },
    ].filter(Boolean);
    const onMove = (at) => this.take(this.whole ? Math.round(at) : Number(at.toPrecision(4)), true);
    drawHistogram(this.chart, this.histogram, { marks, onMove });
  }
}

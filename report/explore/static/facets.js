/** Languages, page types, sources and hosts of the filtered documents, the most frequent first; one of each can be chosen. */
import { bar, button, byId, h, refill } from "./dom.js";
import { count, language } from "./format.js";
import { stageOf } from "./run.js";
import { current, go, NONE, ORIGINS, watch } from "./state.js";
import { line } from "./text.js";

/** Values that are shown at first. */
const FIRST = 8;
const all = new Set();
let summary = null;

export function startFacets() {
  watch((state, changed) => {
    if (changed("stage")) {
      summary = null;
      all.clear();
    }
    if (changed("stage", ...ORIGINS)) draw();
  });
}

/** Draws the values with the counts of the documents that pass the filters. */
export function drawFacets(counts) {
  summary = counts;
  draw();
}

function draw() {
  for (const name of ORIGINS) drawOne(name, (summary ?? stageOf(current()) ?? {})[`${name}s`] ?? []);
}

function drawOne(name, counted) {
  const chosen = current()[name];
  const rows = counted.map((row) => ({ ...row, value: row.value || NONE }));
  const values = chosen && !rows.some((row) => row.value === chosen) ? [{ value: chosen, rows: 0 }, ...rows] : rows;
  const shown = all.has(name) ? values : values.filter((row, place) => place < FIRST || row.value === chosen);
  const most = Math.max(1, ...values.map((row) => row.rows));
  byId(`facet-${name}`).hidden = values.length === 0;
  refill(
    byId(`${name}-list`),
    shown.map((row) => item(name, row, most, row.value === chosen)),
    shown.length < values.length && h.li(showAll(name, values.length)),
  );
}

/** The server returns at most 200. */
const showAll = (name, number) =>
  button(
    `Show ${number >= 200 ? "the first " : "all "}${number}`,
    () => {
      all.add(name);
      draw();
    },
    { class: "plain", "aria-label": `Show all of ${name}` },
  );

function item(name, row, most, pressed) {
  const label = row.value === NONE ? h.i("none") : line(name === "language" ? language(row.value) : row.value, "", { class: "name" });
  const choose = () => go({ [name]: pressed ? "" : row.value });
  const words = [label, h.span({ class: "number" }, count(row.rows)), bar(row.rows / most)];
  const properties = { class: "facet-value", "aria-pressed": String(pressed), key: `${name} ${row.value}` };
  return h.li(button(words, choose, properties));
}

/** A row in a list of documents: decision, address, failed rules, and values. */
import { button, firstOf, h } from "./dom.js";
import { count, member, value } from "./format.js";
import { current, go, link } from "./state.js";
import { label, line } from "./text.js";

/** Rules that are named in a row. */
const FEW = 2;
/** Characters of a column's name that needs a wide column. */
const LONG = 40;

/** Kept or dropped, as a sign and a word. */
export const verdict = (kept) =>
  h.span(
    { class: `verdict ${kept ? "kept" : "dropped"}` },
    h.span({ "aria-hidden": "true" }, kept ? "✓ " : "✗ "),
    h.span({ class: "word" }, kept ? "kept" : "dropped"),
  );

/** The decision under the thresholds on the sliders, where it differs. */
export const now = (row) =>
  typeof row.now === "boolean" &&
  row.now !== row.kept &&
  h.span({ class: `verdict ${row.now ? "kept" : "dropped"}` }, row.now ? ", would be kept now" : ", would be dropped");

/** The decision of a later stage about a document that this stage kept. */
const after = ({ stage, failed, copy_of: original }) =>
  h.div(
    { class: "later" },
    `kept here, dropped by ${stage}: `,
    original
      ? [copyOf(original), opener(original, { class: "copied" })]
      : failed.slice(0, FEW).map((rule) => h.span({ class: "rule" }, label(rule))),
  );

/** "copy (0.783) of ", the text before the document that is kept. */
export const copyOf = ({ similarity }) => (typeof similarity === "number" ? `copy (${value(similarity)}) of ` : "copy of ");

/** The address of a row, or its id where it has none. */
const named = (row) => (row.url ? line(row.url, current().url) : ["document ", line(row.id)]);

/** The link that opens a document beside the list. A crawled address is shown but never a link. */
export const opener = (row, properties = {}) =>
  row.key
    ? h.a(
        {
          href: link({ doc: row.key }),
          class: "opener",
          data: { key: `open ${row.key}`, doc: row.key },
          on: { click: open },
          ...properties,
        },
        named(row),
      )
    : named(row);

/** Opens the document in the page's present state. With a key that opens a new tab, the browser follows the link. */
function open(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go({ doc: event.currentTarget.dataset.doc });
}

/** The listener that makes a whole row act like its link. A text that was selected in the row, and the row's own buttons, do not act. */
export const wholeRow = (act) => ({
  click: (event) => {
    const own = event.target.closest("a, button, input, label, summary");
    if (!own && getSelection().isCollapsed && !event.ctrlKey && !event.metaKey && !event.shiftKey) act();
  },
});

/**
 * A header that sorts the list: first ascending, then descending, then in the order of the server. `extra`: other content of the header.
 */
export function sortable(name, text, state, kind = "number", extra = "") {
  const on = state.order === name;
  const next = !on ? { order: name, descending: false } : state.descending ? { order: "", descending: false } : { descending: true };
  const sign = on ? (state.descending ? " ▼" : " ▲") : "\u00a0⇅";
  const order = on ? (state.descending ? "descending" : "ascending") : "none";
  return h.th(
    { scope: "col", class: text.length > LONG ? `${kind} long` : kind, "aria-sort": order },
    button([label(text), h.span({ "aria-hidden": "true" }, sign)], () => go(next), {
      class: "sort",
      title: "Order the list by it",
      key: `sort ${name}`,
    }),
    extra,
  );
}

/** A row of the table; `columns`: values that the user has chosen, shown beside the address. */
export function tableRow(row, columns) {
  return h.tr(
    {
      class: `${row.kept ? "kept" : "dropped"} opens`,
      data: { doc: row.key },
      "aria-current": current().doc === row.key ? "true" : null,
      on: wholeRow(() => go({ doc: row.key })),
    },
    h.td({ class: "decision" }, verdict(row.kept)),
    h.td({ class: "address" }, opener(row), row.failed.length > 0 && rules(row.failed), row.later && after(row.later)),
    columns.map((column) => cell(column, member(row.values, column.name))),
    h.td({ class: "language" }, row.language ? line(row.language) : "–"),
    h.td({ class: "number" }, count(row.chars_in)),
  );
}

/** The failed rules are below the address, so that the values beside it have room. */
const rules = (failed) =>
  h.div(
    { class: "rules" },
    h.span({ class: "hidden" }, "failed "),
    firstOf(failed, FEW, (rule) => h.span({ class: "rule" }, label(rule))),
  );

const cell = (column, given) =>
  h.td({ class: column.kind === "text" ? "some" : "number" }, typeof given === "string" ? line(given.slice(0, 200)) : value(given));

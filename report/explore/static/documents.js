/** The list of documents that pass the filters. */
import { address, ask, stop } from "./api.js";
import { drawChips } from "./chips.js";
import { columnChoice, drawColumnChoice, shownColumns } from "./columns.js";
import { button, byId, h, refill } from "./dom.js";
import { attempt } from "./errors.js";
import { count, many, roughly, share } from "./format.js";
import { stageOf } from "./run.js";
import { sortable, tableRow } from "./rows.js";
import { current, filters, go, NO_FILTERS, watch } from "./state.js";
import { countAgain } from "./summary.js";

const PAGE = 50;
let found = { rows: [], total: 0, kept: 0, characters: 0, search: null };

export function startDocuments() {
  byId("documents").append(
    h.div(
      { class: "list-head" },
      h.h2("Documents"),
      h.p({ id: "count", role: "status" }),
      h.div({ id: "chips", class: "chips" }),
      columnChoice(),
      h.p({ class: "row", id: "export" }),
    ),
    h.div(
      { class: "scroll", tabIndex: 0, role: "region", "aria-label": "List of documents", id: "list-scroll" },
      h.table(h.thead(h.tr({ id: "list-header" })), h.tbody({ id: "list" })),
    ),
    h.p({ id: "searched", role: "status" }),
    h.p({ id: "more" }),
  );
  watch((state, changed) => {
    if (!state.stage) return;
    if (changed.filters() || changed("order", "descending")) load(state);
    else if (changed("col", "doc")) draw();
    if (changed.filters() || changed("col", "order")) drawColumnChoice(state);
    if (changed.filters()) drawChips(byId("chips"), state);
    if (changed.filters()) drawExport(state);
  });
}

/** The forms in which the list can be saved, and what each has. */
const FORMS = [
  ["csv", "CSV"],
  ["parquet", "Parquet"],
  ["jsonl", "JSONL with texts"],
];

/** Links that save all documents of the filter, not only those that are listed. */
function drawExport(state) {
  const file = (format) => {
    const asked = filters(state);
    asked.append("format", format);
    return address("export", asked);
  };
  const links = FORMS.map(([format, name]) => h.a({ href: file(format), download: "", data: { key: `export ${format}` } }, name));
  refill(byId("export"), h.span({ class: "soft" }, "Save these documents:"), links);
}

/** The documents in the list, in order. */
export const listed = () => found.rows;

function load(state) {
  return attempt(byId("documents"), async () => {
    found = await ask("documents", "documents", asked(state));
    draw();
    await searchOn(PAGE);
  });
}

function asked(state, further = {}) {
  const parameters = filters(state);
  if (state.order) parameters.append("order", state.order);
  if (state.order && state.descending) parameters.append("descending", "true");
  parameters.append("limit", PAGE);
  Object.entries(further).forEach(([name, value]) => parameters.append(name, value));
  return parameters;
}

/** Loads the next page, or the next hits of a search. */
export function more() {
  if (found.search) return attempt(byId("documents"), () => searchOn(found.rows.length + PAGE));
  if (found.rows.length >= found.total) return Promise.resolve(false);
  return attempt(byId("documents"), async () => add(await ask("documents", "documents", asked(current(), { offset: found.rows.length }))));
}

/** Continues a search, request by request, until there are `enough` hits or all texts are searched. */
async function searchOn(enough) {
  if (found.search) countAgain();
  while (found.search?.cursor && found.rows.length < enough) {
    add(await ask("documents", "documents", asked(current(), { cursor: found.search.cursor })));
    countAgain();
  }
}

function add(next) {
  const rows = [...found.rows, ...next.rows];
  found = found.search ? { ...next, rows } : { ...found, rows };
  draw();
}

function draw() {
  const state = current();
  const columns = shownColumns(state);
  refill(byId("list-header"), headers(columns, state));
  refill(
    byId("list"),
    found.rows.map((row) => tableRow(row, columns)),
  );
  byId("count").textContent = counted();
  refill(byId("searched"), searched());
  refill(byId("more"), rest());
}

function headers(columns, state) {
  const fixed = (label, kind) => h.th({ scope: "col", class: kind }, h.span(label));
  const chosen = columns.map((column) => sortable(column.name, column.name, state));
  return [
    fixed("Decision", "decision"),
    sortable("url", "Address", state, "", " and rules that fired"),
    chosen,
    fixed("Language", "language"),
    sortable("chars_in", "Characters", state),
  ];
}

function counted() {
  const stage = stageOf(current());
  if (found.search?.cursor) return `${many(found.total, "document")} found so far`;
  const all = stage?.rows ?? 0;
  const kept = found.total && !current().decision ? `, ${share(found.kept, found.total)} of them kept` : "";
  return `${many(found.total, "document")} (${share(found.total, all)} of ${count(all)})${kept}, ${roughly(found.characters)} characters`;
}

function searched() {
  if (!found.search) return null;
  const { searched: done, of, cursor } = found.search;
  const words = `${count(done)} of ${many(of, "text")} searched${current().order ? ", in the order of the crawl" : ""}`;
  if (!cursor) return `${words}: that is all.`;
  const busy = found.rows.length < PAGE;
  return [
    words,
    " ",
    h.progress({ max: of, value: done, "aria-label": "Searched" }),
    " ",
    busy
      ? button(
          "Stop",
          () => {
            stop("documents");
            byId("documents").removeAttribute("aria-busy");
          },
          { data: { key: "stop" } },
        )
      : button("Search on", more, { data: { key: "search on" } }),
  ];
}

function rest() {
  if (found.total === 0 && !found.search?.cursor) {
    return [
      h.span({ class: "empty" }, "No document is like this. "),
      button("Clear all filters", () => go(NO_FILTERS), { data: { key: "none" } }),
    ];
  }
  if (found.search || found.rows.length >= found.total) return null;
  return [
    `${count(found.rows.length)} of ${count(found.total)} are listed. `,
    button(`Show ${Math.min(PAGE, found.total - found.rows.length)} more`, more, { data: { key: "more" } }),
  ];
}

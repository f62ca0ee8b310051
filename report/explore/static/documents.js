/** The list of documents that pass the filters: the filters in words, the choice of columns, the rows. */
import { address, ask, attempt, stop } from "./api.js";
import { button, byId, checkBox, h, refill } from "./dom.js";
import { count, language, many, roughly, share, value } from "./format.js";
import { sortable, tableRow } from "./rows.js";
import { ruleNamed, stageOf } from "./run.js";
import { NONE, NO_FILTERS, ORIGINS, current, filters, go, watch } from "./state.js";
import { countAgain } from "./filters.js";
import { line, plain } from "./text.js";

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
  const file = (format) => address("export", filters(state, { format }));
  const links = FORMS.map(([format, name]) => h.a({ href: file(format), download: "", key: `export ${format}` }, name));
  refill(byId("export"), h.span({ class: "soft" }, "Save these documents:"), links);
}

function load(state) {
  return attempt(byId("documents"), async () => {
    found = await ask("documents", "documents", asked(state));
    draw();
    await searchOn(PAGE);
  });
}

function asked(state, further) {
  const order = state.order && { order: state.order, descending: state.descending };
  return filters(state, { ...order, limit: PAGE, ...further });
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
  const others = all - found.total;
  const beside = others && stage ? `, ${share(stage.kept - found.kept, others)} of all others` : "";
  const kept = found.total && !current().decision ? `, ${share(found.kept, found.total)} of them kept${beside}` : "";
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
          { key: "stop" },
        )
      : button("Search on", more, { key: "search on" }),
  ];
}

function rest() {
  if (found.total === 0 && !found.search?.cursor) {
    return [h.span({ class: "empty" }, "No document is like this. "), button("Clear all filters", () => go(NO_FILTERS), { key: "none" })];
  }
  if (found.search || found.rows.length >= found.total) return null;
  return [
    `${count(found.rows.length)} of ${count(found.total)} are listed. `,
    button(`Show ${Math.min(PAGE, found.total - found.rows.length)} more`, more, { key: "more" }),
  ];
}

/** Columns that the list always shows. */
const ALWAYS = ["chars_in", "language"];

/** The columns of the list: the chosen ones, those of the chosen rules, and the one that sorts it. */
function shownColumns(state) {
  const stage = stageOf(state);
  const rules = state.rule.map((name) => ruleNamed(stage, name)?.column);
  const names = new Set([...state.col, ...rules, state.order, ...state.low.keys(), ...state.high.keys()]);
  return (stage?.columns ?? []).filter((column) => names.has(column.name) && !ALWAYS.includes(column.name));
}

/** The choice of columns, closed at first. */
function columnChoice() {
  return h.details(
    { id: "columns", on: { toggle: () => drawColumnChoice(current()) } },
    h.summary("Columns"),
    h.div({ class: "columns", id: "column-list", role: "group", "aria-label": "Columns" }),
  );
}

function drawColumnChoice(state) {
  if (!byId("columns").open) return;
  const shown = new Set(shownColumns(state).map((column) => column.name));
  const columns = (stageOf(state)?.columns ?? []).filter((column) => !ALWAYS.includes(column.name));
  refill(
    byId("column-list"),
    columns.map((column) => choice(column.name, state, shown)),
  );
}

function choice(name, state, shown) {
  const chosen = state.col.includes(name);
  const toggle = () => go({ col: chosen ? current().col.filter((one) => one !== name) : [...current().col, name] });
  const box = checkBox(toggle, { checked: shown.has(name), disabled: shown.has(name) && !chosen, key: `col ${name}` });
  return h.label({ class: "choice" }, box, " ", line(name));
}

/** Fills `part` with the state's filters. */
function drawChips(part, state) {
  const chips = [
    state.decision && chip(state.decision, { decision: "" }),
    ...state.rule.map((rule) =>
      chip(`rule ${rule}`, { rule: state.rule.filter((name) => name !== rule), alone: state.alone && state.rule.length > 1 }),
    ),
    state.alone && chip(state.rule.length ? "no other rule" : "exactly one rule", { alone: false }),
    ...ORIGINS.filter((name) => state[name]).map((name) => chip(origin(name, state[name]), { [name]: "" })),
    state.url && chip(`address has “${state.url}”`, { url: "" }),
    state.text && chip(`text has “${state.text}”`, { text: "" }),
    ...[...new Set([...state.low.keys(), ...state.high.keys()])].map((name) => range(state, name)),
  ].filter(Boolean);
  refill(part, chips, chips.length > 1 && button("Clear all", () => go(NO_FILTERS), { class: "plain", key: "clear" }));
}

function origin(name, of) {
  const kind = name.replace("_", " ");
  return of === NONE ? `no ${kind}` : `${kind} ${name === "language" ? language(of) : of}`;
}

const chip = (words, changes) =>
  button([line(words), h.span({ "aria-hidden": "true" }, " ×")], () => go(changes), {
    class: "chip",
    "aria-label": `Take away: ${plain(words)}`,
    key: `chip ${words}`,
  });

function range(state, name) {
  const [low, high] = [state.low.get(name), state.high.get(name)].map((end) => (end === undefined ? null : value(Number(end))));
  const words = low === null ? `${name} at most ${high}` : high === null ? `${name} at least ${low}` : `${name} from ${low} to ${high}`;
  const without = (map) => new Map([...map].filter(([key]) => key !== name));
  return chip(words, { low: without(state.low), high: without(state.high) });
}

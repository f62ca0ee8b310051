/** The choice of values that the list shows beside the addresses. */
import { byId, h, refill } from "./dom.js";
import { ruleNamed, stageOf } from "./run.js";
import { current, go } from "./state.js";
import { line } from "./text.js";

/** Columns that the list always shows. */
const ALWAYS = ["chars_in", "language"];

/** The columns of the list: the chosen ones, those of the chosen rules, and the one that sorts it. */
export function shownColumns(state) {
  const stage = stageOf(state);
  const rules = state.rule.map((name) => ruleNamed(stage, name)?.column);
  const names = new Set([...state.col, ...rules, state.order, ...state.low.keys(), ...state.high.keys()]);
  return (stage?.columns ?? []).filter((column) => names.has(column.name) && !ALWAYS.includes(column.name));
}

/** The choice of columns, closed at first. */
export function columnChoice() {
  return h.details(
    { id: "columns", on: { toggle: () => drawColumnChoice(current()) } },
    h.summary("Columns"),
    h.div({ class: "columns", id: "column-list", role: "group", "aria-label": "Columns" }),
  );
}

export function drawColumnChoice(state) {
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
  const box = h.input({
    type: "checkbox",
    checked: shown.has(name),
    disabled: shown.has(name) && !chosen,
    data: { key: `col ${name}` },
    on: { change: toggle },
  });
  return h.label({ class: "choice" }, box, " ", line(name));
}

/** The filters on the left, with the counts of the documents that pass them. */
import { ask, attempt } from "./api.js";
import { byId, debounced, h } from "./dom.js";
import { drawFacets, startFacets } from "./facets.js";
import { count } from "./format.js";
import { startRanges } from "./ranges.js";
import { drawRules, startRules } from "./rules.js";
import { current, filters, go, watch } from "./state.js";

const DECISIONS = [
  ["", "all"],
  ["kept", "kept"],
  ["dropped", "dropped"],
];

export function startFilters() {
  const parts = { rules: h.fieldset({ id: "rules" }), ranges: h.details({ id: "ranges" }), facets: h.div({ id: "facets" }) };
  const body = h.div({ class: "filters-body" }, decision(), parts.rules, words(), parts.ranges, parts.facets);
  const fold = h.details({ id: "filters-fold", open: matchMedia("(min-width: 761px)").matches }, h.summary("Filters"), body);
  byId("filters").append(fold);
  startRules(parts.rules);
  startRanges(parts.ranges);
  startFacets(parts.facets);
  watch(follow);
}

function decision() {
  const choices = DECISIONS.map(([name, label]) => {
    const input = h.input({
      type: "radio",
      name: "decision",
      value: name,
      id: `decision-${name}`,
      on: { change: () => go({ decision: name }) },
    });
    return h.label({ class: `choice ${name}` }, input, `${label} `, h.span({ class: "soft", id: `decision-${name}-count` }));
  });
  return h.fieldset(h.legend("Decision"), h.div({ class: "row" }, choices));
}

function words() {
  return h.fieldset(
    h.legend("Words"),
    searchBox("url", "in the address, as written", 250),
    searchBox("text", "in the text, as written", 400),
  );
}

/** A box whose words filter while the user types. The key `/` moves to the box for texts. */
function searchBox(name, label, wait) {
  const later = debounced((value) => go({ [name]: value }, { replace: true }), wait);
  const on = { input: (event) => later(event.target.value), change: (event) => go({ [name]: event.target.value }) };
  return h.label(
    { class: "field" },
    label,
    h.input({ type: "search", id: name, autocomplete: "off", spellcheck: false, dir: "auto", maxLength: 200, on }),
  );
}

function follow(state, changed) {
  if (changed("decision"))
    document.querySelectorAll("input[name=decision]").forEach((input) => (input.checked = input.value === state.decision));
  for (const name of ["url", "text"]) {
    const box = byId(name);
    if (changed(name) && box !== document.activeElement) box.value = current()[name];
  }
  if (changed.filters() && state.stage) countAgain();
}

/** Counts the documents that pass the filters; again after a search in the texts has advanced. */
export const countAgain = () =>
  attempt(byId("filters"), async () => {
    const summary = await ask("summary", "summary", filters(current()));
    byId("decision-kept-count").textContent = count(summary.kept);
    byId("decision-dropped-count").textContent = count(summary.total - summary.kept);
    drawRules(summary);
    drawFacets(summary);
  });

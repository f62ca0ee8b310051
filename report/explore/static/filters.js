/** The filters on the left: decision, rules, languages, sources, hosts, words in the address or the text. */
import { byId, debounced, h } from "./dom.js";
import { startFacets } from "./facets.js";
import { count } from "./format.js";
import { startRanges } from "./ranges.js";
import { startRules } from "./rules.js";
import { current, go, watch } from "./state.js";
import { onSummary } from "./summary.js";

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
  onSummary((summary) => {
    const counts = { "": null, kept: summary.kept, dropped: summary.total - summary.kept };
    for (const [name] of DECISIONS) byId(`decision-${name}-count`).textContent = counts[name] === null ? "" : count(counts[name]);
  });
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
}

/** The filters on the left, with the counts of the documents that pass them. */
import { ask, attempt, debounced } from "./api.js";
import { byId } from "./dom.js";
import { drawFacets, startFacets } from "./facets.js";
import { count } from "./format.js";
import { startRanges } from "./ranges.js";
import { drawRules, startRules } from "./rules.js";
import { current, filters, go, watch } from "./state.js";

const DECISIONS = document.querySelectorAll("input[name=decision]");

export function startFilters() {
  byId("filters-fold").open = matchMedia("(min-width: 761px)").matches;
  for (const box of DECISIONS) box.addEventListener("change", () => go({ decision: box.value }));
  filterWhileTyping("url", 250);
  filterWhileTyping("text", 400);
  startRules();
  startRanges();
  startFacets();
  watch(follow);
}

function filterWhileTyping(name, wait) {
  const box = byId(name);
  const later = debounced((value) => go({ [name]: value }, { replace: true }), wait);
  box.addEventListener("input", () => later(box.value));
  box.addEventListener("change", () => go({ [name]: box.value }));
}

function follow(state, changed) {
  if (changed("decision")) DECISIONS.forEach((box) => (box.checked = box.value === state.decision));
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

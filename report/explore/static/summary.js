/** Counts of the filtered documents: documents, rules, languages, sources and hosts. */
import { ask } from "./api.js";
import { byId } from "./dom.js";
import { attempt } from "./errors.js";
import { current, filters, watch } from "./state.js";

const listeners = [];

/** Calls `listener(summary)` when new counts have arrived. */
export const onSummary = (listener) => listeners.push(listener);

export function startSummary() {
  watch((state, changed) => {
    if (changed.filters() && state.stage) load(state);
  });
}

/** Counts again after a search in the texts has advanced. */
export const countAgain = () => load(current());

function load(state) {
  return attempt(byId("filters"), async () => {
    const summary = await ask("summary", "summary", filters(state));
    listeners.forEach((listener) => listener(summary));
  });
}

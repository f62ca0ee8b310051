/** A range of a measured value: the column's histogram of the filtered documents, and two numbers. */
import { ask, attempt, debounced } from "./api.js";
import { described, drawHistogram } from "./charts.js";
import { byId, h } from "./dom.js";
import { numbers, rulesOn, stageOf } from "./run.js";
import { current, filters, go, watch } from "./state.js";
import { plain } from "./text.js";

let histogram = null;

export function startRanges() {
  byId("range-column").addEventListener("change", (event) => go({ range: event.target.value }, { replace: true }));
  for (const end of ["low", "high"]) {
    const box = byId(`range-${end}`);
    const later = debounced((text) => set({ [end]: text }, true), 250);
    box.addEventListener("input", () => later(box.value));
    box.addEventListener("change", () => set({ [end]: box.value }));
  }
  byId("ranges").addEventListener("toggle", load);
  watch(follow);
}

/** The column whose range is shown: the chosen one, else one with a threshold. */
function column(state = current()) {
  const all = numbers(stageOf(state));
  return all.find((one) => one.name === state.range) ?? all.find((one) => rulesOn(stageOf(state), one.name).length) ?? all[0] ?? null;
}

function follow(state, changed) {
  if (changed("stage")) {
    const options = numbers(stageOf(state)).map((one) => h.option({ value: one.name }, plain(one.name)));
    byId("range-column").replaceChildren(...options);
    byId("ranges").hidden = options.length === 0;
  }
  if (!column(state)) return;
  byId("range-column").value = column(state).name;
  for (const end of ["low", "high"]) {
    const box = byId(`range-${end}`);
    if (box !== document.activeElement) box.value = state[end].get(column(state).name) ?? "";
  }
  if (state.low.size || state.high.size) byId("ranges").open = true;
  if (changed.filters() || changed("range")) load();
}

/** Loads and draws the histogram of the documents that pass the other filters; does nothing while the part is closed. */
function load() {
  if (!byId("ranges").open || !column()) return;
  const { name } = column();
  attempt(byId("ranges"), async () => {
    const others = { ...current(), low: without(current().low, name), high: without(current().high, name) };
    const asked = filters(others, { column: name });
    histogram = await ask("histogram", "histogram", asked);
    byId("range-summary").textContent = described(histogram);
    byId("range-chart").setAttribute("aria-label", plain(`Histogram of ${name}: ${described(histogram)}`));
    await drawHistogram(byId("range-chart"), histogram, { marks: marks(name), range: chosen(name), onRange: drawnRange });
  });
}

const without = (map, name) => new Map([...map].filter(([key]) => key !== name));
const marks = (name) =>
  rulesOn(stageOf(current()), name)
    .filter(({ threshold }) => threshold >= histogram.edges[0] && threshold <= histogram.edges.at(-1))
    .map((rule) => ({ at: rule.threshold, kind: "old" }));

function chosen(name) {
  const { low, high } = current();
  return low.has(name) || high.has(name) ? [low, high].map((map) => (map.has(name) ? Number(map.get(name)) : null)) : null;
}

/** The mouse has selected a range: it replaces typed numbers. */
function drawnRange(low, high) {
  if (byId("ranges").contains(document.activeElement)) document.activeElement.blur();
  set(rounded(low, high));
}

/** The range's ends: whole numbers for whole values, else four significant digits. */
function rounded(low, high) {
  if (histogram.whole) return { low: String(Math.ceil(low)), high: String(Math.floor(high)) };
  return { low: String(Number(low.toPrecision(4))), high: String(Number(high.toPrecision(4))) };
}

function set(ends, replace = false) {
  const { name } = column();
  const changes = {};
  for (const [end, text] of Object.entries(ends)) {
    changes[end] = without(current()[end], name);
    if (text !== "" && Number.isFinite(Number(text))) changes[end].set(name, String(Number(text)));
  }
  go({ ...changes, range: name }, { replace });
}

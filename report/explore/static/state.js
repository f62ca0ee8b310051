/**
 * The state of the page, kept in the address after `#`, so that each view has a link, and back and forward work. The server never sees it.
 */

const OF_RUNS = ["run", "find", "after", "with", "side", "by"];
/** The properties by which documents are grouped; one value of each can be chosen. */
export const ORIGINS = ["language", "page_type", "source", "host"];
const SINGLE = [...OF_RUNS, "view", "stage", "decision", ...ORIGINS, "url", "text", "order", "range", "changed", "doc"];
const FLAGS = ["alone", "descending"];
const LISTS = ["rule", "col", "compare"];
const MAPS = ["low", "high", "set"];
/** The parts of the state that choose documents; a change of one needs a new request. */
const FILTERS = ["stage", "decision", "rule", "alone", ...ORIGINS, "url", "text", "low", "high"];

/** The value of an origin for documents that have none. */
export const NONE = "\u0000";

const listeners = [];
let state = parse(location.hash);

/** Reads the state from an address's fragment; unknown parts are left out. */
function parse(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const found = {};
  for (const name of SINGLE) found[name] = given.get(name) ?? "";
  for (const name of FLAGS) found[name] = given.get(name) === "true";
  for (const name of LISTS) found[name] = given.getAll(name);
  for (const name of MAPS) found[name] = new Map();
  for (const [key, value] of given) {
    const place = key.indexOf(".");
    if (place > 0 && MAPS.includes(key.slice(0, place)) && isNumber(value)) found[key.slice(0, place)].set(key.slice(place + 1), value);
  }
  return found;
}

function isNumber(value) {
  return value === "off" || (value.trim() !== "" && Number.isFinite(Number(value)));
}

/** The parameters for `names` of a state, where empty ones are left out, and `further` ones. */
export function parameters(of, names, further = {}) {
  const result = new URLSearchParams(further);
  for (const name of names) {
    const value = of[name];
    if (value instanceof Map) [...value].forEach(([key, number]) => result.append(`${name}.${key}`, number));
    else if (Array.isArray(value)) value.forEach((item) => result.append(name, item));
    else if (value) result.append(name, value === true ? "true" : value);
  }
  return result;
}

/** The filters as parameters of a request, with `further` ones. */
export function filters(of, further) {
  const asked = parameters(of, FILTERS, further);
  for (const name of ORIGINS) if (of[name] === NONE) asked.set(name, "");
  return asked;
}

/** The fragment of the state with some changes: the address of a link. */
export const link = (changes = {}, of = state) => `#${parameters({ ...of, ...changes }, [...SINGLE, ...FLAGS, ...LISTS, ...MAPS])}`;

export const current = () => state;

/** Changes that leave these parts of the state empty. */
function cleared(names) {
  const empty = parse("");
  return Object.fromEntries(names.map((name) => [name, empty[name]]));
}

/** Removes all filters but the stage. */
export const NO_FILTERS = cleared(FILTERS.filter((name) => name !== "stage"));

/** Removes the parts of the state that end when another stage is selected. */
const OF_STAGE = cleared(["rule", "alone", "low", "high", "set", "order", "descending", "col", "range", "changed"]);

/** The changes, together with those that follow from them. */
const whole = (changes) => (changes.stage && changes.stage !== state.stage ? { ...OF_STAGE, ...changes } : changes);

/** Changes the state. `replace`: without a new step in the browser's history, as for each typed letter. */
export function go(changes, { replace = false } = {}) {
  const fragment = link(whole(changes));
  if (fragment === link()) return;
  history[replace ? "replaceState" : "pushState"](null, "", fragment);
  follow();
}

/** Calls `listener(state, changed)` at each change. `changed(...names)`: whether one of these parts has changed. */
export const watch = (listener) => listeners.push(listener);

/**
 * Takes the state from the address. Another run is another page, so that no part keeps what it knows of the run before. An address
 * without a stage, such as the first one, is loaded anew, too: then the page chooses a stage.
 */
function follow() {
  const before = state;
  state = parse(location.hash);
  if (state.run !== before.run || (before.stage && !state.stage) || state.doc.startsWith("id/")) location.reload();
  else notify(before);
}

function notify(before) {
  const changed = (...names) => String(parameters(before, names)) !== String(parameters(state, names));
  changed.filters = () => changed(...FILTERS);
  for (const listener of listeners) listener(state, changed);
}

/** Starts the page: every part counts as changed. */
export function start() {
  addEventListener("popstate", follow);
  const changed = () => true;
  changed.filters = () => true;
  for (const listener of listeners) listener(state, changed);
}

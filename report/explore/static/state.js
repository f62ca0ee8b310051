/**
 * What is looked at, kept in the address behind `#`: so each view has a link of its own, and back and forward work. The
 * server never sees it.
 */

const SINGLE = ["view", "stage", "decision", "language", "source", "host", "url", "text", "order", "range", "changed", "doc"];
const FLAGS = ["alone", "descending"];
const LISTS = ["rule", "col"];
const MAPS = ["low", "high", "set"];
/** What decides which documents are meant; each change of it is another question to the server. */
const FILTERS = ["stage", "decision", "rule", "alone", "language", "source", "host", "url", "text", "low", "high"];

/** Where a document comes from, and the value that stands for those of which it is not known. */
const ORIGINS = ["language", "source", "host"];
export const NONE = "\u0000";

const listeners = [];
let state = parse(location.hash);

/** The state that an address's fragment says; what is not understood is left out. */
export function parse(fragment) {
  const said = new URLSearchParams(fragment.replace(/^#/, ""));
  const found = {};
  for (const name of SINGLE) found[name] = said.get(name) ?? "";
  for (const name of FLAGS) found[name] = said.get(name) === "true";
  for (const name of LISTS) found[name] = said.getAll(name);
  for (const name of MAPS) found[name] = new Map();
  for (const [key, value] of said) {
    const place = key.indexOf(".");
    if (place > 0 && MAPS.includes(key.slice(0, place)) && isNumber(value)) found[key.slice(0, place)].set(key.slice(place + 1), value);
  }
  return found;
}

function isNumber(value) {
  return value === "off" || (value.trim() !== "" && Number.isFinite(Number(value)));
}

/** The parameters that stand for `names` of a state; what is empty is left out. */
export function parameters(of, names) {
  const result = new URLSearchParams();
  for (const name of names) {
    const value = of[name];
    if (value instanceof Map) [...value].forEach(([key, number]) => result.append(`${name}.${key}`, number));
    else if (Array.isArray(value)) value.forEach((item) => result.append(name, item));
    else if (value) result.append(name, value === true ? "true" : value);
  }
  return result;
}

/** The filters as the server takes them. */
export function filters(of = state) {
  const asked = parameters(of, FILTERS);
  for (const name of ORIGINS) if (of[name] === NONE) asked.set(name, "");
  return asked;
}

/** The sliders as the server takes them. */
export const settings = (of = state) => parameters(of, ["stage", "set"]);

/** The fragment of the state with some changes: the address of a link. */
export const link = (changes = {}, of = state) => `#${parameters({ ...of, ...changes }, [...SINGLE, ...FLAGS, ...LISTS, ...MAPS])}`;

export const current = () => state;

/** What means nothing at another stage, and so ends with it. */
const ofStage = () => ({
  rule: [],
  alone: false,
  low: new Map(),
  high: new Map(),
  set: new Map(),
  order: "",
  descending: false,
  col: [],
  range: "",
  changed: "",
});

/** The changes with what follows from them. */
const whole = (changes) => (changes.stage && changes.stage !== state.stage ? { ...ofStage(), ...changes } : changes);

/** Goes to the state with `changes`. `replace`: without a step of its own in the browser's history, as for each letter that is typed. */
export function go(changes, { replace = false } = {}) {
  const before = state;
  const fragment = link(whole(changes));
  if (fragment === link()) return;
  state = parse(fragment);
  history[replace ? "replaceState" : "pushState"](null, "", fragment);
  tell(before);
}

/** No filter but the stage. */
export const NO_FILTERS = {
  decision: "",
  rule: [],
  alone: false,
  language: "",
  source: "",
  host: "",
  url: "",
  text: "",
  low: new Map(),
  high: new Map(),
};

/** Calls `listener(state, changed)` at each change; `changed(...names)` says whether one of these differs from before. */
export const watch = (listener) => listeners.push(listener);

function tell(before) {
  const changed = (...names) => String(parameters(before, names)) !== String(parameters(state, names));
  changed.filters = () => changed(...FILTERS);
  for (const listener of listeners) listener(state, changed);
}

/** The page begins: everything is new. */
export function start() {
  addEventListener("popstate", () => {
    const before = state;
    state = parse(location.hash);
    tell(before);
  });
  const changed = () => true;
  changed.filters = () => true;
  for (const listener of listeners) listener(state, changed);
}

/** The server's description of the run and of its loaded stages. */
import { ask } from "./api.js";

let place = { path: "", one: true, write: false };
let known = { name: "", warnings: [], loading: null, present: [], stages: [] };

export async function loadConsole() {
  place = await ask("console", "console");
}

/** What is explored: `path`, whether it is `one` run, and whether the page may `write`: act on runs. */
export const explored = () => place;

export async function loadRun() {
  known = await ask("run", "run");
  return known;
}

export const run = () => known;

/** The stage of a state, or null where the run has none of its name. */
export const stageOf = (state) => known.stages.find((stage) => stage.name === state.stage) ?? null;

/** A stage's columns of numbers. */
export const numbers = (stage) => (stage?.columns ?? []).filter((column) => column.kind === "number");

/** The rules of a stage, those that fired most first. */
export const rulesByFired = (stage) => [...(stage?.rules ?? [])].sort((a, b) => b.fired - a.fired || (a.rule < b.rule ? -1 : 1));

const named = new WeakMap();

export function ruleNamed(stage, name) {
  if (!stage) return null;
  if (!named.has(stage)) named.set(stage, new Map(stage.rules.map((rule) => [rule.rule, rule])));
  return named.get(stage).get(name) ?? null;
}

/** Whether a rule has a threshold on the column. */
export const rulesOn = (stage, column) => (stage?.rules ?? []).filter((rule) => rule.column === column && rule.slider);

/** The view of documents that only this rule dropped, those nearest to its threshold first: there, wrong decisions are most likely. */
export function nearMisses(stage, rule) {
  const order = rule.slider ? { order: rule.column, descending: rule.comparison.startsWith("<") } : { order: "", descending: false };
  return { view: "", stage: stage.name, decision: "dropped", rule: [rule.rule], alone: true, ...order };
}

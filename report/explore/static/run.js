/** What the server says about the run as a whole, its stages as far as they are read. */
import { ask } from "./api.js";

let known = { name: "", warnings: [], loading: null, present: [], stages: [] };

export async function loadRun() {
  known = await ask("run", "run");
  return known;
}

export const run = () => known;

/** The stage that a state looks at, or null where the run has none of its name. */
export const stageOf = (state) => known.stages.find((stage) => stage.name === state.stage) ?? null;

/** A stage's columns of numbers. */
export const numbers = (stage) => (stage?.columns ?? []).filter((column) => column.kind === "number");

/** The rules of a stage, those first that fired most. */
export const rulesByFired = (stage) => [...(stage?.rules ?? [])].sort((a, b) => b.fired - a.fired || (a.rule < b.rule ? -1 : 1));

const named = new WeakMap();

export function ruleNamed(stage, name) {
  if (!stage) return null;
  if (!named.has(stage)) named.set(stage, new Map(stage.rules.map((rule) => [rule.rule, rule])));
  return named.get(stage).get(name) ?? null;
}

/** Whether a column has a threshold of a rule on it. */
export const rulesOn = (stage, column) => (stage?.rules ?? []).filter((rule) => rule.column === column && rule.slider);

/** The view of what a rule dropped and no other, those nearest to its threshold first: where wrong decisions are found. */
export function nearMisses(stage, rule) {
  const order = rule.slider ? { order: rule.column, descending: rule.comparison.startsWith("<") } : { order: "", descending: false };
  return { view: "", stage: stage.name, decision: "dropped", rule: [rule.rule], alone: true, ...order };
}

/** Where to begin: the rule that removed most, what it may have dropped wrongly, and what to change. Stands where a document will. */
import { ask } from "./api.js";
import { button, el, refill } from "./dom.js";
import { isStale } from "./api.js";
import { condition, count, many, share } from "./format.js";
import { nearMisses, rulesByFired, run, stageOf } from "./run.js";
import { opener } from "./rows.js";
import { current, filters, go } from "./state.js";
import { line } from "./text.js";

export function drawGuide(part) {
  const stage = stageOf(current());
  const most = rulesByFired(stage).find((rule) => rule.fired > 0);
  refill(part, el("div", { class: "guide" },
    el("h2", {}, "Where to begin"),
    !stage ? el("p", {}, "This run has no report of a stage yet.") : most ? steps(stage, most) : el("p", {}, `No rule of ${stage.name} dropped a document.`),
    el("p", { class: "soft" }, "Choose a document in the list to read it with all its values. ", el("kbd", {}, "?"), " shows the keys."),
  ));
}

function steps(stage, rule) {
  const examples = el("div", { class: "examples" });
  if (rule.alone > 0) nearest(stage, rule, examples);
  return el("ol", {},
    el("li", {}, `Of ${stage.name}’s rules, `, el("b", {}, line(rule.rule)), ` removed most: ${many(rule.fired, "document")} (${share(rule.fired, stage.rows)}), `,
      `${count(rule.alone)} of them alone. `, rule.column && ["It drops when ", line(condition(rule)), "."], elsewhere(stage, rule)),
    el("li", {}, rule.alone > 0 ? "Was it right? What it alone dropped, nearest to its threshold first: " : "Each of these was dropped by another rule, too. ",
      rule.alone > 0 && button("all of them", () => go(nearMisses(stage, rule)), { class: "plain" }), examples),
    rule.slider && el("li", {}, button("Move its threshold", () => go({ view: "thresholds", range: rule.rule }), { class: "strong" }), " and see what comes back; then take the line for the recipe."),
  );
}

/** Another stage may have a rule that removed more. */
function elsewhere(stage, rule) {
  const others = run().stages.filter((other) => other !== stage).map((other) => [other, rulesByFired(other)[0]]);
  const [most, its] = others.filter(([, one]) => one && one.fired > rule.fired).sort((a, b) => b[1].fired - a[1].fired)[0] ?? [];
  return most && [" In the whole run ", el("b", {}, line(its.rule)), ` of ${most.name} removed more: `, button(`${count(its.fired)} at ${most.name}`, () => go({ stage: most.name }), { class: "plain" }), "."];
}

/** Three documents that only this rule dropped. */
async function nearest(stage, rule, part) {
  const { order, descending, ...rest } = nearMisses(stage, rule);
  const asked = filters({ ...current(), ...rest, language: "", source: "", host: "", url: "", text: "", low: new Map(), high: new Map() });
  if (order) asked.append("order", order);
  if (descending) asked.append("descending", "true");
  asked.append("limit", "3");
  try {
    const { rows } = await ask("guide", "documents", asked);
    refill(part, el("ul", {}, rows.map((row) => el("li", {}, opener(row), rule.column && row.values[rule.column] !== undefined && [" ", line(`${rule.column} ${row.values[rule.column]}`, "", { class: "soft" })]))));
  } catch (error) {
    if (!isStale(error)) part.textContent = error.message;
  }
}

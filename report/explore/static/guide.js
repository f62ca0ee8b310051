/**
 * The first advice: the rule that removed most, documents that it may have dropped wrongly, and its slider. It fills the place of the
 * document until one is opened.
 */
import { ask, isStale } from "./api.js";
import { button, h, refill } from "./dom.js";
import { comparison, condition, count, many, member, share, value } from "./format.js";
import { recall, remember } from "./choices.js";
import { nearMisses, rulesByFired, stageOf } from "./run.js";
import { now, opener } from "./rows.js";
import { current, filters, go, NO_FILTERS, parameters } from "./state.js";
import { label, line } from "./text.js";

/** Documents that are offered, and the number of nearest documents from which they are chosen. */
const [EXAMPLES, LOOKED_AT] = [3, 50];

/** Offers the examples again after thresholds have moved. */
export let offerAgain = () => {};

export function drawGuide(part) {
  offerAgain = () => {};
  const stage = stageOf(current());
  const rules = rulesByFired(stage).filter((rule) => rule.fired > 0);
  refill(
    part,
    h.details(
      {
        class: "guide",
        open: recall("guide") !== "closed",
        on: { toggle: (event) => remember("guide", event.target.open ? "open" : "closed") },
      },
      h.summary(h.h2("Where to begin")),
      rules.length > 0 ? h.ol(most(stage, rules[0]), suspect(stage, rules)) : h.p(`No rule of ${stage.name} dropped a document.`),
      h.p({ class: "soft" }, "Choose a document in the list to read it with all its values. ", h.kbd("?"), " shows the keys."),
    ),
  );
}

const most = (stage, rule) =>
  h.li(
    h.b(label(rule.rule)),
    ` removed most of ${stage.name}: ${many(rule.fired, "document")} (${share(rule.fired, stage.rows)}), `,
    `${count(rule.alone)} of them alone. `,
    rule.column && ["It drops when ", line(condition(rule)), rule.meaning ? [": ", line(rule.meaning), ". "] : ". "],
    button("Show them", () => go({ ...NO_FILTERS, decision: "dropped", rule: [rule.rule] }), { class: "plain" }),
  );

/** The rule that alone dropped most documents, preferably one with a threshold: its nearest dropped documents, and its slider. */
function suspect(stage, rules) {
  const byAlone = [...rules].sort((a, b) => b.alone - a.alone);
  const rule = byAlone.find((one) => one.slider && one.alone > 0) ?? byAlone[0];
  if (!rule.alone) return h.li("Each document was dropped by more than one rule, so no threshold alone brings one back.");
  const examples = h.div({ class: "examples" });
  offerAgain = () => nearest(stage, rule, examples);
  offerAgain();
  return [
    h.li(
      rule === rules[0] ? "Was it right? " : "A threshold that may be wrong: ",
      h.b(label(rule.rule)),
      ` alone dropped ${count(rule.alone)}`,
      rule.slider ? ", these only just: " : ": ",
      examples,
      button(`All ${count(rule.alone)}`, () => go({ ...NO_FILTERS, ...nearMisses(stage, rule) }), { class: "plain" }),
    ),
    rule.slider &&
      h.li(
        button(["Move the threshold of ", label(rule.rule)], () => go({ view: "thresholds", range: rule.rule }), { class: "strong" }),
        " or switch it off by its check box, and see what comes back; then take the line for the recipe.",
      ),
  ];
}

/** Three documents that only this rule dropped, with the value that decided. Those without an address or with little text come last. */
async function nearest(stage, rule, part) {
  const { order, descending, ...rest } = { ...NO_FILTERS, ...nearMisses(stage, rule) };
  const asked = filters({ ...current(), ...rest }, { ...(order && { order, descending }), limit: LOOKED_AT });
  parameters(current(), ["set"]).forEach((value, name) => asked.append(name, value));
  try {
    const { rows } = await ask("guide", "documents", asked);
    const reason = (row) =>
      rule.column && [
        " ",
        h.span(
          { class: "soft" },
          label(rule.column),
          ` ${value(member(row.values, rule.column))}, ${comparison(rule)} `,
          line(value(rule.threshold)),
        ),
      ];
    refill(
      part,
      h.ul(
        [...rows.filter((row) => row.url), ...rows.filter((row) => !row.url)]
          .slice(0, EXAMPLES)
          .map((row) => h.li(opener(row), reason(row), now(row))),
      ),
    );
  } catch (error) {
    if (!isStale(error)) part.textContent = error.message;
  }
}

/** The values that each stage measured of a document, and its decision. */
import { button, el, firstOf } from "./dom.js";
import { comparison, value } from "./format.js";
import { ruleNamed, run } from "./run.js";
import { copyOf, opener, verdict } from "./rows.js";
import { go } from "./state.js";
import { label, line } from "./text.js";

/** Rules that are shown at first. */
const MANY = 20;

/** The failed rules of all stages; for a copy, the document of its `cluster` that is kept. Readers want this first. */
export function failures(stages, cluster) {
  const found = stages.flatMap((stage) => {
    const known = run().stages.find((one) => one.name === stage.name);
    const values = new Map(stage.values.flatMap((entry) => entry.rules.map((rule) => [rule.rule, { entry, rule }])));
    const original = stage.name === "dedup" && !stage.kept ? cluster?.rows.find((row) => row.id === cluster.kept_id) : null;
    const similarity = stage.values.find((entry) => entry.name === "similarity")?.value;
    return stage.failed.map((name) => ({
      stage,
      name,
      known: ruleNamed(known, name),
      original: original && { ...original, similarity },
      ...values.get(name),
    }));
  });
  return found.length > 0 && el("ul", { class: "failed" }, firstOf(found, MANY, failure, "li"));
}

/** "✗ filter: short failed: words is 12; it drops when that is below 50." */
function failure({ stage, name, known, original, entry, rule }) {
  const move = () => go({ view: "thresholds", stage: stage.name, range: name });
  return el(
    "li",
    {},
    el("span", { "aria-hidden": "true" }, "✗ "),
    `${stage.name}: `,
    el("b", {}, label(name)),
    " failed",
    rule
      ? [
          ": ",
          label(entry.name),
          " is ",
          el("b", {}, line(value(entry.value))),
          `; it drops when that ${comparison(rule)} `,
          line(value(rule.threshold)),
          ". ",
        ]
      : original
        ? [": ", copyOf(original), opener(original, { class: "copied" }), ". "]
        : stage.reason
          ? [": ", line(stage.reason), " "]
          : ". ",
    known?.meaning && el("span", { class: "soft" }, "(", line(known.meaning), ") "),
    known?.slider && button("Move the threshold", move, { class: "plain", data: { key: `move ${stage.name} ${name}` } }),
  );
}

/** Every stage with all its measured values, closed at first. */
export const decisions = (stages) => [el("h3", {}, "Decisions and values"), stages.map(stagePart)];

const stagePart = (stage) =>
  el(
    "details",
    { class: "stage" },
    el("summary", {}, el("b", {}, stage.name), " ", verdict(stage.kept), " ", stage.reason && line(stage.reason, "", { class: "soft" })),
    stage.values.length > 0 ? table(stage) : el("p", { class: "soft" }, "It measured nothing."),
  );

/** The values, those that failed a rule first. */
function table(stage) {
  const fails = (entry) => entry.rules.some((rule) => rule.failed);
  const entries = [...stage.values.filter(fails), ...stage.values.filter((entry) => !fails(entry))];
  return el(
    "table",
    { class: "values" },
    el("caption", { class: "hidden" }, `Values of ${stage.name}`),
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        ["value", "measured", "rules on it"].map((name) => el("th", { scope: "col" }, name)),
      ),
    ),
    el(
      "tbody",
      {},
      entries.map((entry) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, label(entry.name)),
          el("td", { class: typeof entry.value === "number" ? "number" : "" }, line(value(entry.value))),
          el("td", {}, firstOf(entry.rules, MANY, judged)),
        ),
      ),
    ),
  );
}

const judged = (rule) =>
  el(
    "div",
    { class: rule.failed ? "bad" : "soft" },
    el("span", { "aria-hidden": "true" }, rule.failed ? "✗ " : "✓ "),
    label(rule.rule),
    ` ${rule.failed ? "failed" : "passed"}: drops when it ${comparison(rule)} `,
    line(value(rule.threshold)),
  );

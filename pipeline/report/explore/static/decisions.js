/** What each stage measured of a document and decided: rules that failed first, then all other values. */
import { button, el } from "./dom.js";
import { value } from "./format.js";
import { ruleNamed, run } from "./run.js";
import { verdict } from "./rows.js";
import { go } from "./state.js";
import { line } from "./text.js";

export const decisions = (stages) => [el("h3", {}, "Decisions"), stages.map(stagePart)];

function stagePart(stage) {
  const fails = (entry) => entry.rules.some((rule) => rule.failed);
  const failed = stage.values.filter(fails);
  const bare = stage.failed.filter((name) => !failed.some((entry) => entry.rules.some((rule) => rule.rule === name)));
  const rest = stage.values.filter((entry) => !fails(entry));
  return el("details", { class: "stage", open: !stage.kept || failed.length > 0 },
    el("summary", {}, el("b", {}, stage.name), " ", verdict(stage.kept), " ", stage.reason && line(stage.reason, "", { class: "soft" })),
    el("ul", { class: "failed" }, failed.flatMap((entry) => entry.rules.filter((rule) => rule.failed).map((rule) => failure(stage, entry, rule))),
      bare.map((name) => el("li", {}, el("span", { "aria-hidden": "true" }, "✗ "), el("b", {}, line(name)), " failed"))),
    rest.length > 0 && table(stage, rest));
}

/** "✗ short failed: words is 12, below 50." */
function failure(stage, entry, rule) {
  const known = ruleNamed(run().stages.find((one) => one.name === stage.name), rule.rule);
  return el("li", {}, el("span", { "aria-hidden": "true" }, "✗ "), el("b", {}, line(rule.rule)), " failed: ", line(entry.name), " is ", el("b", {}, line(value(entry.value))),
    ", it must not be ", line(`${rule.comparison} ${value(rule.threshold)}`), ". ",
    known?.slider && button("Move the threshold", () => go({ view: "thresholds", stage: stage.name, range: rule.rule }), { class: "plain", data: { key: `move ${stage.name} ${rule.rule}` } }));
}

function table(stage, entries) {
  const rows = entries.map((entry) =>
    el("tr", {}, el("th", { scope: "row" }, line(entry.name)), el("td", { class: typeof entry.value === "number" ? "number" : "" }, line(value(entry.value))),
      el("td", { class: "soft" }, entry.rules.map((rule) => el("div", {}, el("span", { class: "ok" }, "✓ "), line(rule.rule), " passed: not ", line(`${rule.comparison} ${value(rule.threshold)}`))))));
  return el("table", { class: "values" }, el("caption", { class: "hidden" }, `Values of ${stage.name}`),
    el("thead", {}, el("tr", {}, ["value", "measured", "rules on it"].map((label) => el("th", { scope: "col" }, label)))),
    el("tbody", {}, rows));
}

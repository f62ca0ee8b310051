/** The rules of a stage as check boxes, with the documents that each rule dropped, and those that it dropped alone. */
import { bar, button, byId, checkBox, h, refill } from "./dom.js";
import { condition, count, many, share } from "./format.js";
import { nearMisses, ruleNamed, rulesByFired, stageOf } from "./run.js";
import { current, go, ORIGINS, watch } from "./state.js";
import { label, line, plain } from "./text.js";

/** Rules that are shown at first. */
const FIRST = 25;
let counts = new Map();
/** Documents that pass the filters; null before they are counted. */
let total = null;
let wanted = "";
let all = false;

export function startRules() {
  byId("rule-search").addEventListener("input", (event) => {
    wanted = event.target.value.toLowerCase();
    draw();
  });
  byId("alone").addEventListener("change", (event) => go({ alone: event.target.checked }));
  watch((state, changed) => {
    if (changed("stage")) [counts, total] = [new Map(), null];
    if (changed("stage", "rule", "alone")) draw();
  });
}

/** Draws the rules with the counts of the documents that pass the filters. */
export function drawRules(summary) {
  counts = new Map(summary.rules.map((rule) => [rule.rule, rule]));
  total = summary.total;
  draw();
}

function draw() {
  const state = current();
  const stage = stageOf(state);
  const rules = rulesByFired(stage);
  const found = rules.filter((rule) => rule.rule.toLowerCase().includes(wanted));
  const shown = all ? found : found.filter((rule, place) => place < FIRST || state.rule.includes(rule.rule));
  const most = rules[0]?.fired ?? 0;
  byId("rule-search").hidden = rules.length <= 12;
  refill(
    byId("rule-list"),
    shown.map((rule) => row(rule, most, state)),
    shown.length < found.length &&
      h.li(
        button(
          `Show all ${many(found.length, "rule")}`,
          () => {
            all = true;
            draw();
          },
          { class: "plain" },
        ),
      ),
    rules.length === 0 && h.li({ class: "soft" }, "This stage has no rule that fired."),
  );
  byId("alone").checked = state.alone;
  byId("alone-words").textContent = state.rule.length ? " only the chosen ones fired" : " exactly one fired";
  refill(
    byId("rule-help"),
    state.rule.map((name) => help(stage, ruleNamed(stage, name))),
  );
}

function row(rule, most, state) {
  const now = counts.get(rule.rule) ?? { fired: counts.size ? 0 : rule.fired, alone: counts.size ? 0 : rule.alone };
  const checked = state.rule.includes(rule.rule);
  const toggle = () => go({ rule: checked ? state.rule.filter((name) => name !== rule.rule) : [...state.rule, rule.rule] });
  const box = checkBox(toggle, { checked, key: `rule ${rule.rule}` });
  const numbers = h.span({ class: "number" }, `${count(now.fired)} (${count(now.alone)})`);
  return h.li(
    {
      title:
        [rule.meaning, rule.column && condition(rule)]
          .filter(Boolean)
          .map((text) => plain(text))
          .join("\n") || null,
    },
    h.label(box, label(rule.rule), numbers, bar(now.fired / most, "dropped"), unlike(rule, now, state)),
  );
}

/** The share of the chosen language, page type, source or host that the rule drops, beside the share of all others. */
function unlike(rule, now, state) {
  const others = stageOf(state).rows - total;
  if (!total || !others || !ORIGINS.some((name) => state[name])) return null;
  return h.small(`${share(now.fired, total)} of these, ${share(rule.fired - now.fired, others)} of all others`);
}

/** The meaning of a chosen rule, and two links to its documents and its threshold. */
function help(stage, rule) {
  if (!rule) return null;
  const key = { key: `near ${rule.rule}` };
  return h.p(
    { class: "hint" },
    h.b(line(rule.rule)),
    rule.column ? [" drops when ", line(condition(rule))] : "",
    rule.meaning ? [": ", line(rule.meaning), ". "] : ". ",
    button(rule.slider ? "Its nearest misses" : "What it alone dropped", () => go(nearMisses(stage, rule)), { class: "plain", ...key }),
    rule.slider && [
      " · ",
      button("Move its threshold", () => go({ view: "thresholds", range: rule.rule }), {
        class: "plain",
        key: `move ${rule.rule}`,
      }),
    ],
  );
}

/** The rules whose threshold is not a number (a list of languages): they can only be switched off. */
import { byId, firstOf, h, refill } from "./dom.js";
import { condition, count } from "./format.js";
import { rulesByFired } from "./run.js";
import { label, line } from "./text.js";

/** Fills `part`; a switch calls `moved(rule, "off" or null, true)`. Empty for a stage whose thresholds can't be changed. */
export function drawFixed(part, stage, moved) {
  const rules = rulesByFired(stage).filter((rule) => !rule.slider && rule.column && rule.comparison);
  const there = stage.rules.some((rule) => rule.slider) && rules.length > 0;
  refill(
    part,
    there && [
      h.h3("Rules without a number"),
      h.ul(
        { class: "changed" },
        firstOf(rules, 40, (rule) => item(rule, moved), "li"),
      ),
    ],
  );
}

function item(rule, moved) {
  const box = h.input({
    type: "checkbox",
    checked: true,
    data: { fixed: rule.rule },
    on: { change: (event) => moved(rule, event.target.checked ? null : "off", true) },
  });
  return h.li(
    h.label(
      { class: "choice" },
      box,
      h.span(
        h.b(label(rule.rule)),
        " drops when ",
        line(condition(rule)),
        h.span({ class: "soft" }, ` · drops ${count(rule.fired)}, alone ${count(rule.alone)}`),
      ),
    ),
  );
}

/** Shows which of the rules are on. */
export function showFixed(live) {
  for (const box of byId("fixed").querySelectorAll("input")) box.checked = live.get(box.dataset.fixed) !== "off";
}

/** Documents that other thresholds would bring back, or drop. */
import { ask } from "./api.js";
import { byId, el, refill } from "./dom.js";
import { attempt } from "./errors.js";
import { many, member, value } from "./format.js";
import { ruleNamed, stageOf } from "./run.js";
import { opener, verdict } from "./rows.js";
import { settings } from "./state.js";
import { line } from "./text.js";

const TITLES = { gained: "come back", lost: "would go" };

export function drawChanged(state) {
  const part = byId("changed");
  if (!TITLES[state.changed]) return refill(part);
  return attempt(part, async () => {
    const asked = settings(state);
    asked.append("which", state.changed);
    const { rows } = await ask("changed", "changed", asked);
    refill(
      part,
      el("h3", {}, `${many(rows.length, "document")} of those that ${TITLES[state.changed]}`),
      el(
        "ul",
        { class: "changed" },
        rows.map((row) => item(row, state)),
      ),
    );
  });
}

/** A document with the values that the moved thresholds are about. */
function item(row, state) {
  const columns = new Set([...state.set.keys()].map((rule) => ruleNamed(stageOf(state), rule)?.column).filter(Boolean));
  return el(
    "li",
    {},
    verdict(row.kept),
    " ",
    opener(row),
    [...columns].map((column) => el("span", { class: "soft" }, " · ", line(column), ` ${value(member(row.values, column))}`)),
    row.failed.length > 0 && el("span", { class: "soft" }, " · failed ", line(row.failed.slice(0, 20).join(", "))),
  );
}

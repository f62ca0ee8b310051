/** Documents that other thresholds would bring back, or drop. */
import { ask, attempt } from "./api.js";
import { button, byId, h, refill } from "./dom.js";
import { count, member, value } from "./format.js";
import { ruleNamed, stageOf } from "./run.js";
import { now, opener, verdict } from "./rows.js";
import { current, parameters } from "./state.js";
import { line } from "./text.js";

const TITLES = { gained: "come back", lost: "would go" };
const PAGE = 20;
let found = { rows: [], total: 0 };

export function drawChanged(state) {
  if (!TITLES[state.changed]) return refill(byId("changed"));
  found = { rows: [], total: 0 };
  return more(state);
}

/** Loads the next documents and draws all. */
function more(state) {
  return attempt(byId("changed"), async () => {
    const asked = parameters(state, ["stage", "set"], { which: state.changed, limit: PAGE, offset: found.rows.length });
    const { rows, total } = await ask("changed", "changed", asked);
    found = { rows: [...found.rows, ...rows], total };
    draw(state);
  });
}

function draw(state) {
  const list = h.ul(
    { class: "changed", tabIndex: 0, "aria-label": `Documents that ${TITLES[state.changed]}` },
    found.rows.map((row) => item(row, state)),
  );
  const top = byId("changed").querySelector("ul")?.scrollTop ?? 0;
  const left = found.total - found.rows.length;
  refill(
    byId("changed"),
    h.h3(`${count(found.rows.length)} of ${count(found.total)} documents that ${TITLES[state.changed]}`),
    list,
    left > 0 && button(`Show ${Math.min(PAGE, left)} more`, () => more(current()), { key: "changed more" }),
  );
  list.scrollTop = found.rows.length > PAGE ? top : 0;
}

/** A document with its values in the columns of the moved thresholds. */
function item(row, state) {
  const columns = new Set([...state.set.keys()].map((rule) => ruleNamed(stageOf(state), rule)?.column).filter(Boolean));
  return h.li(
    verdict(row.kept),
    now(row),
    " ",
    opener(row),
    [...columns].map((column) => h.span({ class: "soft" }, " · ", line(column), ` ${value(member(row.values, column))}`)),
    row.failed.length > 0 && h.span({ class: "soft" }, " · failed in the run: ", line(row.failed.slice(0, 20).join(", "))),
  );
}

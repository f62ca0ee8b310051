/** The active filters in words; each can be removed. */
import { button, h, refill } from "./dom.js";
import { value } from "./format.js";
import { go, NO_FILTERS, NONE } from "./state.js";
import { line, plain } from "./text.js";

/** Fills `part` with the state's filters. */
export function drawChips(part, state) {
  const chips = [
    state.decision && chip(state.decision, { decision: "" }),
    ...state.rule.map((rule) =>
      chip(`rule ${rule}`, { rule: state.rule.filter((name) => name !== rule), alone: state.alone && state.rule.length > 1 }),
    ),
    state.alone && chip(state.rule.length ? "no other rule" : "exactly one rule", { alone: false }),
    ...["language", "source", "host"]
      .filter((name) => state[name])
      .map((name) => chip(state[name] === NONE ? `no ${name}` : `${name} ${state[name]}`, { [name]: "" })),
    state.url && chip(`address has “${state.url}”`, { url: "" }),
    state.text && chip(`text has “${state.text}”`, { text: "" }),
    ...[...new Set([...state.low.keys(), ...state.high.keys()])].map((name) => range(state, name)),
  ].filter(Boolean);
  refill(part, chips, chips.length > 1 && button("Clear all", () => go(NO_FILTERS), { class: "plain", data: { key: "clear" } }));
}

const chip = (words, changes) =>
  h.button(
    {
      type: "button",
      class: "chip",
      "aria-label": `Take away: ${plain(words)}`,
      data: { key: `chip ${words}` },
      on: { click: () => go(changes) },
    },
    line(words),
    h.span({ "aria-hidden": "true" }, " ×"),
  );

function range(state, name) {
  const [low, high] = [state.low.get(name), state.high.get(name)].map((end) => (end === undefined ? null : value(Number(end))));
  const words = low === null ? `${name} at most ${high}` : high === null ? `${name} at least ${low}` : `${name} from ${low} to ${high}`;
  const without = (map) => new Map([...map].filter(([key]) => key !== name));
  return chip(words, { low: without(state.low), high: without(state.high) });
}

/** The keyboard: moving in the list, searching, help. The letters can be turned off for users whose tools need them. */
import { closeDocument } from "./document.js";
import { button, byId, checkBox, h } from "./dom.js";
import { labelKey } from "./labels.js";
import { recall, remember } from "./choices.js";
import { current, go } from "./state.js";
import { more } from "./documents.js";

const KEYS = [
  ["j or ↓", "the next document of the list; beside an open document it opens at once"],
  ["k or ↑", "the one before"],
  ["Enter", "open it"],
  ["r", "read: into the document that is open"],
  ["Esc", "close the document"],
  ["/", "search in the texts"],
  ["t", "thresholds, and back"],
  ["1 … 9, y, n", "label the open document, with --write; the same key takes the label away"],
  ["?", "this help"],
];
const ACTS = {
  j: () => move(+1),
  ArrowDown: () => move(+1),
  k: () => move(-1),
  ArrowUp: () => move(-1),
  r: () => byId("document-title")?.focus(),
  "/": search,
  "?": () => byId("help").showModal(),
  t: () => go({ view: current().view === "thresholds" ? "" : "thresholds" }),
  Escape: close,
};

export function startKeys() {
  byId("help").append(help());
  byId("help-open").addEventListener("click", () => byId("help").showModal());
  byId("skip").addEventListener("click", skip);
  document.addEventListener("keydown", pressed);
}

function help() {
  const letters = checkBox((on) => remember("keys", on ? "on" : "off"), { checked: recall("keys") !== "off" });
  return h.div(
    h.h2({ id: "help-title" }, "Keys"),
    h.dl(KEYS.flatMap(([key, what]) => [h.dt(h.kbd(key)), h.dd(what)])),
    h.label({ class: "choice" }, letters, " Letters and signs (j, k, /, ?) act as keys; turn it off if a tool of yours uses them"),
    h.p(button("Close", () => byId("help").close())),
  );
}

/** Ignores keys while the user types or chooses, in a dialog, and with a modifier. */
function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const inList = event.target.closest?.("#list, #queue") || event.target === document.body;
  if (event.key.startsWith("Arrow") ? !inList : typing(event.target) && event.key !== "Escape") return;
  if (event.key.length === 1 && recall("keys") === "off") return;
  const act = ACTS[event.key];
  if (!act && !labelKey(event.key)) return;
  event.preventDefault();
  act?.(event);
}

const typing = (node) => node.matches?.("input:not([type=checkbox], [type=radio]), select, textarea");

async function move(step) {
  const links = () => [...document.querySelectorAll("#list .opener, #queue .opener")].filter((node) => node.checkVisibility());
  const all = links();
  const at = all.indexOf(document.activeElement);
  const here = at >= 0 ? at : all.findIndex((node) => node.dataset.doc === current().doc);
  if (here + step >= all.length && all.length) await more();
  const target = links()[Math.max(0, here + step)];
  target?.focus();
  target?.scrollIntoView({ block: "nearest" });
  if (target && current().doc) go({ doc: target.dataset.doc }, { replace: true });
}

function search() {
  if (byId("find")) return byId("find").focus();
  if (current().view) go({ view: "" });
  byId("filters-fold").open = true;
  byId("text").focus();
}

/** Leaves a search box first, then the document. */
function close(event) {
  if (typing(event.target)) return event.target.blur();
  closeDocument();
}

function skip(event) {
  event.preventDefault();
  const first = document.querySelector("#list .opener");
  (first?.checkVisibility() ? first : byId("main")).focus();
}

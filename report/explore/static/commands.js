/** Commands and recipes with a copy button: what puts the thresholds on the sliders into a recipe, this run, or a new run. */
import { button, byId, h, refill } from "./dom.js";
import { startJob } from "./jobs.js";
import { explored } from "./run.js";
import { line, nodes } from "./text.js";

/** `text` in a box with a button that copies it. */
export function copyable(text, label) {
  const status = h.span({ class: "copy-status", role: "status" });
  const copy = async () => {
    status.textContent = (await copied(text)) ? "copied" : "not copied: select the text";
    setTimeout(() => status.replaceChildren(), 3000);
  };
  const box = h.pre({ class: "command", tabIndex: 0, "aria-label": label, role: "group" }, h.code(...nodes(text)));
  return h.div({ class: "copyable" }, box, button("Copy", copy, { "aria-label": `Copy ${label}` }), status);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

export function openRecipe({ recipe, command, note, stale, next }) {
  const dialog = byId("recipe");
  refill(
    dialog,
    h.h2({ id: "recipe-title" }, "These thresholds in a recipe"),
    h.p("For the next run, these lines go into its recipe, the YAML file that it is made by:"),
    copyable(recipe, "the recipe’s lines"),
    h.p(note ? "Or change this run:" : "Or decide this run again, from the values that it has measured:"),
    copyable(command, "the command"),
    note && h.p(line(note)),
    h.p(
      "This changes the run itself: its thresholds, the filter stage’s report, and the documents that go on. ",
      !note && "With --dry-run it only says what would change. ",
      stale.length > 0 &&
        `What comes later (${stale.join(", ")}) has then worked on the documents of before; its own commands redo it, first:`,
    ),
    stale.length > 0 && copyable(next, "the command that goes on"),
    h.p(button("Close", () => dialog.close())),
  );
  dialog.showModal();
}

/** Names that a new run may have. */
const NEW = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$/;
let shown = "";

/**
 * Shows the command that makes a new run with these thresholds (`moves`: by rule a number as text, or "off"; `fork` is null without any), and
 * the stages that are then left to do.
 */
export function drawFork({ fork, stale }, moves) {
  if (JSON.stringify(fork) === shown) return; // a name that is being typed stays while the thresholds do
  shown = JSON.stringify(fork);
  if (!fork) return refill(byId("fork"));
  const set_ = Object.fromEntries([...moves].map(([rule, given]) => [rule, given === "off" ? given : Number(given)]));
  const box = h.input({ type: "text", value: fork.name, spellcheck: false, autocomplete: "off", key: "fork name" });
  const command = h.div();
  const make = button("Make the new run", () => startJob("fork", { set_, name: box.value === fork.name ? "" : box.value }), {
    key: "fork",
  });
  const name = () => {
    const own = box.value !== fork.name;
    make.disabled = own && !NEW.test(box.value);
    const text = own && !make.disabled ? `${fork.before}${box.value}${fork.after}` : fork.command;
    refill(command, make.disabled ? h.p({ class: "bad" }, WRONG) : copyable(text, "the command that makes a new run"));
  };
  box.addEventListener("input", name);
  name();
  refill(
    byId("fork"),
    h.p("As a new run, which shares this one’s files; this run stays as it is. ", stale.length > 0 && `Left to do is then: ${stale.join(", ")}.`),
    h.p({ class: "row" }, h.label("Its name ", box), explored().write ? make : h.span({ class: "soft" }, READ_ONLY)),
    command,
  );
}

const WRONG = "A name has letters, digits, _, . and -, at most 80, and begins with none of the last two.";
/** What the page says in place of a button that would change something. */
export const READ_ONLY = "Started with --write, corpusmill explore does it here.";

/** Commands and recipes with a copy button: what puts the thresholds on the sliders into a recipe, this run, or a new run. */
import { act, ask, attempt } from "./api.js";
import { button, byId, h, refill } from "./dom.js";
import { duration } from "./format.js";
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

/** Milliseconds between two questions about a fork that is being made. */
const EVERY = 1000;
let shown = "";

/** Shows the command for these thresholds (`moves`: by rule a number as text, or "off"); empty: none. */
export function drawFork(command, moves) {
  if (command === shown) return; // what a fork says stays while the thresholds do
  shown = command;
  const set = Object.fromEntries([...moves].map(([rule, given]) => [rule, given === "off" ? given : Number(given)]));
  refill(
    byId("fork"),
    command && [
      h.p("As a new run, which shares this one’s files; this run stays as it is:"),
      copyable(command, "the command that makes a new run"),
      explored().write &&
        h.p(
          { class: "row" },
          button("Make the new run", () => make(set), { key: "fork" }),
        ),
      h.div({ id: "fork-state", role: "status" }),
    ],
  );
}

const make = (set) =>
  attempt(byId("fork"), async () => {
    let job = await act("fork", { set_: set });
    while (job.state === "working") {
      say(`Making ${job.folder}: ${duration(job.seconds)}`);
      await new Promise((done) => setTimeout(done, EVERY));
      job = await ask("job", "job");
    }
    if (job.state === "failed") return say(job.message);
    say(`Made in ${duration(job.seconds)}: `, [
      job.run
        ? h.a({ href: `#${new URLSearchParams({ run: job.run })}`, id: "fork-link" }, line(job.run))
        : copyable(job.command, "the command that shows it"),
    ]);
  });

function say(text, more = []) {
  const part = byId("fork-state");
  if (part) refill(part, h.p(line(text), " ", more));
}

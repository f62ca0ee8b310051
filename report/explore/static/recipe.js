/** The lines of a recipe for the thresholds on the sliders, and the command that applies them without measuring again. */
import { copyable } from "./copy.js";
import { button, byId, h, refill } from "./dom.js";
import { line } from "./text.js";

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

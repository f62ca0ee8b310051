/** The lines of a recipe for the thresholds on the sliders, and the command that applies them without measuring again. */
import { copyable } from "./copy.js";
import { button, byId, el, refill } from "./dom.js";
import { line } from "./text.js";

export function openRecipe({ recipe, command, note }) {
  const dialog = byId("recipe");
  refill(
    dialog,
    el("h2", { id: "recipe-title" }, "These thresholds in a recipe"),
    copyable(recipe, "the recipe’s lines"),
    el("p", {}, "Or decide this run again, from the values that it has measured:"),
    copyable(command, "the command"),
    note && el("p", {}, line(note)),
    el(
      "p",
      {},
      button("Close", () => dialog.close()),
    ),
  );
  dialog.showModal();
}

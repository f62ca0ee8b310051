/** Waiting and errors: a part of the page that waits is marked, and a refused request becomes a sentence above all parts. */
import { isStale } from "./api.js";
import { button, byId, h } from "./dom.js";
import { plain } from "./text.js";

const sentences = new Map();

/** Does `work` while `part` is marked as busy. Returns true where it finished, false where it failed or a newer call replaced it. */
export async function attempt(part, work) {
  part.setAttribute("aria-busy", "true");
  try {
    await work();
    showError(part.id, null);
    part.removeAttribute("aria-busy");
    return true;
  } catch (error) {
    if (isStale(error)) return false;
    part.removeAttribute("aria-busy");
    showError(part.id, error.message, () => attempt(part, work));
    return false;
  }
}

/** Shows a sentence for a part, or removes it. */
export function showError(part, sentence, again = null) {
  if (sentence) sentences.set(part, { sentence, again });
  else sentences.delete(part);
  const shown = [...sentences.values()].map(({ sentence: text, again: act }) =>
    h.span({ class: "sentence" }, plain(text), act && button("Try again", act)),
  );
  byId("error").replaceChildren(...shown);
  byId("error").hidden = shown.length === 0;
}

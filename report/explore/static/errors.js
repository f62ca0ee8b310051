/** Waiting and failing: a part of the page that waits says so, and what the server refuses becomes a sentence above all parts. */
import { isStale } from "./api.js";
import { byId, el, button } from "./dom.js";
import { plain } from "./text.js";

const sentences = new Map();

/** Does `work`; meanwhile `part` is marked as busy. True where it came to its end, not where a newer call took its place or it failed. */
export async function attempt(part, work) {
  part.setAttribute("aria-busy", "true");
  try {
    await work();
    say(part.id, null);
    part.removeAttribute("aria-busy");
    return true;
  } catch (error) {
    if (isStale(error)) return false;
    part.removeAttribute("aria-busy");
    say(part.id, error.message, () => attempt(part, work));
    return false;
  }
}

/** Shows a sentence for a part, or takes it away. */
export function say(part, sentence, again = null) {
  if (sentence) sentences.set(part, { sentence, again });
  else sentences.delete(part);
  const shown = [...sentences.values()].map(({ sentence: text, again: act }) =>
    el("span", { class: "sentence" }, plain(text), act && button("Try again", act)),
  );
  byId("error").replaceChildren(...shown);
  byId("error").hidden = shown.length === 0;
}

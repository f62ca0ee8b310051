/** Shows first what is stale, damaged, missing or unfinished. */
import { byId, h, refill } from "./dom.js";
import { many } from "./format.js";
import { run } from "./run.js";
import { line, plain } from "./text.js";

/** Warnings that are shown at first. */
const FIRST = 5;

/** Names at the top of the page the stale stages; null: none. */
export function drawStale(sentence) {
  const text = plain(sentence ?? "");
  byId("stale").hidden = !text;
  if (byId("stale").textContent !== text) byId("stale").textContent = text;
}

export function drawWarnings() {
  const sentences = run().warnings;
  const rest = sentences.slice(FIRST);
  refill(
    byId("warnings"),
    sentences.length > 0 &&
      h.section(
        { class: "warnings", "aria-label": "Warnings" },
        h.b(many(sentences.length, "warning")),
        items(sentences.slice(0, FIRST)),
        rest.length > 0 && h.details(h.summary(many(rest.length, "other")), items(rest)),
      ),
  );
}

const items = (some) => h.ul(some.map((sentence) => h.li(line(sentence))));

/** One document: why it failed, its text with marks, the values and decisions of each stage, its copies, its tokens. */
import { ask, attempt } from "./api.js";
import { copyable } from "./commands.js";
import { blocks, cluster, decisions, difference, failures, tokens } from "./decisions.js";
import { button, byId, h, refill } from "./dom.js";
import { drawGuide, offerAgain } from "./guide.js";
import { labelBar } from "./labels.js";
import { drawMarks, toFirstHit, why } from "./marks.js";
import { now, verdict } from "./rows.js";
import { current, go, parameters, watch } from "./state.js";
import { line, plain } from "./text.js";

let shown = null;

export function startDocument() {
  watch((state, changed) => {
    if (changed("doc")) load(state);
    else if (changed("text") && shown && state.doc) draw();
    else if (!state.doc && changed("stage")) drawGuide(byId("document"));
    else if (changed("set")) decideAgain(state);
  });
}

async function load(state) {
  const part = byId("document");
  document.body.classList.toggle("reading", Boolean(state.doc));
  if (!state.doc) {
    shown = null;
    return drawGuide(part);
  }
  const opened = await attempt(part, async () => {
    const story = await fetched(state);
    if (current().doc !== state.doc) return; // it was closed, or another one opened, before it came
    shown = story;
    draw();
    byId("announcement").textContent = plain(`Opened ${shown.url || shown.id}`);
    if (matchMedia("(max-width: 760px)").matches) part.scrollIntoView();
  });
  if (opened && shown?.key === state.doc) await attempt(byId("why"), () => loadMarks(state));
}

async function loadMarks(state) {
  const found = await fetched(state, "marks");
  if (shown?.key !== state.doc) return; // another document has been opened
  shown.found = found;
  mark();
}

function fetched(state, part = "story") {
  const asked = parameters(state, ["set"], { key: state.doc, part });
  return ask(`document ${part}`, "document", asked);
}

/** Adds what takes the server longer than the text: the places of the failed rules, and the word diff of a copy. */
function mark() {
  drawMarks(shown.found.marks, failures(shown.stages, shown.cluster));
  refill(byId("difference"), difference(shown.found.diff));
}

/** The blocks of the page; null where they can't be read. */
async function page() {
  let found = null;
  await attempt(byId("document"), async () => {
    found = await fetched(current(), "page");
  });
  return found;
}

/** After thresholds have moved: updates only the decision under them, so that opened parts stay open. */
function decideAgain(state) {
  if (!state.doc) return offerAgain();
  return attempt(byId("document"), async () => {
    shown = { ...(await fetched(state)), found: shown?.found };
    const part = byId("document-now");
    if (part) refill(part, decidedNow());
  });
}

/** The decision under the sliders, where it differs from the filter stage's. */
function decidedNow() {
  const filter = shown.stages.find((stage) => stage.name === "filter");
  const words = filter && now({ kept: filter.kept, now: shown.now });
  return words && [words, !current().doc.startsWith("filter/") && " by filter"];
}

/** Closes the document; the focus returns to its row in the list. */
export function closeDocument() {
  const { doc } = current();
  go({ doc: "" });
  const row = [...document.querySelectorAll("#list .opener")].find((node) => node.dataset.doc === doc);
  row?.focus();
  row?.scrollIntoView({ block: "nearest" });
}

function draw() {
  const place = shown.stages.findIndex((stage) => stage.name === current().doc.split("/")[0]);
  const here = shown.stages[place];
  const later = shown.stages.slice(place + 1).find((stage) => !stage.kept);
  refill(
    byId("document"),
    h.div(
      { class: "document-head" },
      h.h2({ id: "document-title", tabIndex: -1 }, line(shown.url || shown.id, current().url)),
      h.p(
        here && [verdict(here.kept), ` by ${here.name}`],
        h.span({ id: "document-now" }, decidedNow()),
        here?.kept && later && [" · ", verdict(false), ` by ${later.name}`],
        " · ",
        h.code(line(shown.id)),
        " ",
        button("Close", closeDocument, { key: "close", "aria-label": "Close the document" }),
      ),
      labelBar(),
    ),
    why(shown, current().text, failures(shown.stages, shown.cluster)),
    h.div({ id: "difference" }),
    shown.stages[0]?.name === "ingest" && blocks(page),
    decisions(shown.stages),
    cluster(shown.cluster),
    tokens(shown.tokens),
    h.h3("On the command line"),
    shown.commands.map((command) => copyable(command, "the command")),
  );
  if (shown.found) mark();
  toFirstHit();
}

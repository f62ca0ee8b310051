/** One document: its text, the values and decisions of each stage, its copies, its tokens. */
import { ask } from "./api.js";
import { cluster } from "./cluster.js";
import { copyable } from "./copy.js";
import { decisions, failures } from "./decisions.js";
import { button, byId, el, refill } from "./dom.js";
import { attempt } from "./errors.js";
import { count, many } from "./format.js";
import { drawGuide, offerAgain } from "./guide.js";
import { labelBar } from "./labels.js";
import { now, verdict } from "./rows.js";
import { current, go, parameters, watch } from "./state.js";
import { line, nodes, plain } from "./text.js";
import { tokens } from "./tokens.js";

let shown = null;

export function startDocument() {
  watch((state, changed) => {
    if (changed("doc")) load(state);
    else if (changed("text") && shown && state.doc) draw();
    else if (!state.doc && changed("stage")) drawGuide(byId("document"));
    else if (changed("set")) decideAgain(state);
  });
}

function load(state) {
  const part = byId("document");
  document.body.classList.toggle("reading", Boolean(state.doc));
  if (!state.doc) {
    shown = null;
    return drawGuide(part);
  }
  return attempt(part, async () => {
    shown = await fetched(state);
    draw();
    byId("announcement").textContent = plain(`Opened ${shown.url || shown.id}`);
    if (matchMedia("(max-width: 760px)").matches) part.scrollIntoView();
  });
}

function fetched(state) {
  const asked = parameters(state, ["set"]);
  asked.append("key", state.doc);
  return ask("document", "document", asked);
}

/** After thresholds have moved: updates only the decision under them, so that opened parts stay open. */
function decideAgain(state) {
  if (!state.doc) return offerAgain();
  return attempt(byId("document"), async () => {
    shown = await fetched(state);
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
    el(
      "div",
      { class: "document-head" },
      el("h2", { id: "document-title", tabIndex: -1 }, line(shown.url || shown.id, current().url)),
      el(
        "p",
        {},
        here && [verdict(here.kept), ` by ${here.name}`],
        el("span", { id: "document-now" }, decidedNow()),
        here?.kept && later && [" · ", verdict(false), ` by ${later.name}`],
        " · ",
        el("code", {}, line(shown.id)),
        " ",
        button("Close", closeDocument, { data: { key: "close" }, "aria-label": "Close the document" }),
      ),
      labelBar(),
    ),
    failures(shown.stages, shown.cluster),
    text(),
    decisions(shown.stages),
    cluster(shown.cluster),
    tokens(shown.tokens),
    el("h3", {}, "On the command line"),
    shown.commands.map((command) => copyable(command, "the command")),
  );
  toFirstHit();
}

/** Scrolls the text's box to the first hit of a search; the page stays in place. */
function toFirstHit() {
  const box = document.querySelector("#document .text");
  const mark = box?.querySelector("mark");
  if (mark) box.scrollTop += mark.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 3;
}

/** The text, isolated from the page's text direction; markup in it has no effect. */
function text() {
  if (shown.text === null) return el("p", { class: "soft" }, "The text of this document is not in the run any more.");
  const words = current().text;
  const body = nodes(shown.text, words);
  const marks = body.filter((node) => node.nodeName === "MARK");
  return [
    el(
      "h3",
      {},
      "Text ",
      el("span", { class: "soft" }, [
        many([...shown.text].length, "character"),
        shown.cut && " of its beginning; the rest is left out here",
        `, as ${shown.text_of} wrote it`,
      ]),
    ),
    words && hits(marks),
    el("div", { class: "text", dir: "auto", tabIndex: 0, role: "region", "aria-label": "Text of the document" }, body),
  ];
}

/** The number of hits of the search in the text, and a button that goes to the next one. */
function hits(marks) {
  let place = -1;
  const next = () => {
    marks[place]?.classList.remove("here");
    place = (place + 1) % marks.length;
    marks[place].classList.add("here");
    marks[place].scrollIntoView({ block: "nearest" });
    position.textContent = ` ${count(place + 1)} of ${count(marks.length)}`;
  };
  const position = el("span", { role: "status" }, ` ${many(marks.length, "place")}`);
  return el(
    "p",
    { class: "hits" },
    marks.length ? button("Next hit", next, { data: { key: "next hit" } }) : "No hit in what is shown.",
    marks.length > 0 && position,
  );
}

/** Why a document failed, in its text: the failed rules with a colour each, their places, and what a stage took out. */
import { button, byId, h, refill } from "./dom.js";
import { count, many } from "./format.js";
import { failure } from "./decisions.js";
import { hits, line, marked, plain } from "./text.js";

/** Failed rules that are listed at first; rules whose places are shown at first; colours, after which they begin anew. */
const FIRST = 6;
const SHOWN = 3;
const COLOURS = 6;

let groups = [];
let text = "";
let starts = [];
let all = false;

/** The list of failed rules, and the text with the hits of `search`. Their places follow by `drawMarks`. */
export function why(shown, search, failed) {
  text = shown.text;
  all = false;
  groups = [{ name: "hit", class: "hit", spans: hits(text ?? "", search), on: true, place: -1, search }];
  return [
    h.div({ id: "why" }, list(failed)),
    text === null
      ? h.p({ class: "soft" }, "The text of this document is not in the run any more.")
      : [
          h.h3("Text ", h.span({ class: "soft" }, size(shown))),
          h.div({ id: "hits" }, searched()),
          h.div({ class: "text", dir: "auto", tabIndex: 0, role: "region", "aria-label": "Text of the document" }, body()),
        ],
  ];
}

const size = (shown) => [
  many([...text].length, "character"),
  shown.cut && " of its beginning; the rest is left out here",
  `, as ${shown.text_of} wrote it`,
];

/**
 * Adds the server's `marks`. Those of the first rules are shown at once, unless an earlier rule has the same places; those of changes only
 * where no failed rule has a place.
 */
export function drawMarks(marks, failed) {
  const rules = marks.filter((mark) => mark.rule && mark.spans.length > 0);
  const places = [...new Set((rules.length ? rules : marks).map((mark) => String(mark.spans)))].slice(0, SHOWN);
  const on = (mark) => places.includes(String(mark.spans)) && (mark.rule || !rules.length);
  const added = marks.map((mark, number) => ({
    ...mark,
    name: `${mark.stage} ${mark.rule || mark.what}`,
    class: `mark m${number % COLOURS}`,
    title: plain(mark.rule ? `${mark.rule}: ${mark.what}` : mark.what),
    on: on(mark) && marks.findIndex((other) => on(other) && String(other.spans) === String(mark.spans)) === number,
    place: -1,
  }));
  groups = [groups[0], ...added];
  draw(failed);
}

function draw(failed) {
  refill(byId("why"), list(failed));
  if (text === null) return;
  refill(document.querySelector("#document .text"), body());
  refill(byId("hits"), searched());
}

function body() {
  const shown = groups.map((group) => (group.on ? group : { ...group, spans: [] }));
  const drawn = marked(text, shown);
  starts = drawn.starts;
  const left = shown.reduce((sum, group) => sum + (group.on && group.count ? group.count - group.spans.length : 0), drawn.left);
  return [drawn.nodes, left > 0 && h.p({ class: "soft" }, `${many(left, "later place")} of rules and hits are not marked.`)];
}

/** The failed rules, then what stages took out of the text. */
function list(failed) {
  const of = (item) => groups.find((group) => group.rule && group.stage === item.stage.name && group.rule === item.name);
  const changes = groups.filter((group) => group.rule === "");
  const more = () => {
    all = true;
    draw(failed);
  };
  return [
    failed.length > 0 &&
      h.ul(
        { class: "failed" },
        (all ? failed : failed.slice(0, FIRST)).map((item) => h.li(failure(item), marker(of(item), failed))),
        !all && failed.length > FIRST && h.li(button(`and ${count(failed.length - FIRST)} more`, more, { class: "plain" })),
      ),
    changes.length > 0 &&
      h.ul(
        { class: "failed changes" },
        changes.map((group) => h.li(`${group.stage}: `, line(group.what), " ", marker(group, failed))),
      ),
  ];
}

/** The number of places of a rule as a switch in its colour, and a button that goes to the next one; or why there are none. */
function marker(group, failed) {
  if (!group) return null;
  if (group.count === null || !group.spans.length)
    return h.span({ class: "soft" }, "[", group.count === 0 ? "no place in this text" : line(group.what), "]");
  const turn = () => {
    group.on = !group.on;
    draw(failed);
  };
  const go = () => {
    if (!group.on) turn();
    next(group);
  };
  const number = group.rule ? [many(group.count, "place"), ": ", line(group.what)] : many(group.count, "place");
  const colour = group.on ? h.mark({ class: group.class }, number) : number;
  const position = h.span({ class: "soft", role: "status", data: { of: group.name } }, where(group));
  return [
    button(colour, turn, { class: "switch", "aria-pressed": String(group.on), key: `marks ${group.name}` }),
    " ",
    button("Next", go, { "aria-label": `Next place: ${plain(group.rule || group.what)}`, key: `next ${group.name}` }),
    position,
  ];
}

const where = (group) => (group.place < 0 ? "" : ` ${count(group.place + 1)} of ${count(starts[groups.indexOf(group)].length)}`);

function next(group) {
  const elements = starts[groups.indexOf(group)];
  if (!elements.length) return;
  document.querySelectorAll("#document mark.here").forEach((node) => node.classList.remove("here"));
  group.place = (group.place + 1) % elements.length;
  elements[group.place].classList.add("here");
  elements[group.place].scrollIntoView({ block: "nearest" });
  for (const node of document.querySelectorAll("#document [data-of]")) if (node.dataset.of === group.name) node.textContent = where(group);
}

/** The number of hits of the search in the text, and a button that goes to the next one. */
function searched() {
  const [group] = groups;
  if (!group.search) return null;
  if (!group.spans.length) return h.p({ class: "hits" }, "No hit in what is shown.");
  const position = h.span({ role: "status", data: { of: group.name } }, where(group) || ` ${many(group.spans.length, "place")}`);
  return h.p(
    { class: "hits" },
    button("Next hit", () => next(group), { key: "next hit" }),
    position,
  );
}

/** Scrolls the text's box to the first hit of a search; the page stays in place. */
export function toFirstHit() {
  const box = document.querySelector("#document .text");
  const mark = starts[0]?.[0];
  if (mark) box.scrollTop += mark.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 3;
}

/**
 * Makes nodes from crawl text. Characters that a browser would obey or hide (controls, bidirectional overrides, soft joiners) are shown by
 * name and have no effect. Hits of a search and the places of rules are marked.
 */
import { h } from "./dom.js";

/** The characters that `safe.py` removes; here they are shown. */
const CONTROLS = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff" +
    "\\ufff9-\\ufffb\\ud800-\\udfff\\u{e0000}-\\u{e007f}]",
  "gu",
);
const NAMES = {
  0x1b: "ESC",
  0x07: "BEL",
  0x00: "NUL",
  0x0d: "CR",
  0x7f: "DEL",
  0xad: "SHY",
  0x61c: "ALM",
  0x200b: "ZWSP",
  0x200e: "LRM",
  0x200f: "RLM",
  0x2028: "LS",
  0x2029: "PS",
  0x202a: "LRE",
  0x202b: "RLE",
  0x202c: "PDF",
  0x202d: "LRO",
  0x202e: "RLO",
  0x2060: "WJ",
  0x2066: "LRI",
  0x2067: "RLI",
  0x2068: "FSI",
  0x2069: "PDI",
  0xfeff: "BOM",
};
/** Marks in one text, at most: more would make the page slow. The text after them is plain. */
const MOST_MARKS = 3000;

const hex = (code) => `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
const nameOf = (code) => NAMES[code] ?? hex(code);

/** A text on one line without control characters, for titles, labels and attributes, which can't hold elements. */
export const plain = (text) =>
  String(text)
    .replace(/\r\n|[\n\t]/g, " ")
    .replace(CONTROLS, (control) => `[${nameOf(control.codePointAt(0))}]`);

/** The nodes that show `text`; each occurrence of `search` is in a `mark`. */
export const nodes = (text, search = "") => marked(text, [{ class: "hit", spans: hits(text, search) }]).nodes;

/**
 * The nodes that show `text` with the places of some groups in `mark` elements: `{class, title, spans}`, spans rising. Where places overlap,
 * marks are nested. `starts`: for each group, the first element of each place. `left`: places beyond MOST_MARKS, which are not drawn.
 */
export function marked(text, groups) {
  const all = groups.flatMap((group, number) => group.spans.map(([from, to]) => ({ from, to, number }))).sort((a, b) => a.from - b.from);
  const places = all.slice(0, MOST_MARKS);
  const cuts = [...new Set([0, ...places.flatMap(({ from, to }) => [from, to]), text.length])].sort((a, b) => a - b);
  const budget = { left: MOST_MARKS };
  const starts = groups.map(() => []);
  let [open, next] = [[], 0];
  const shown = cuts.slice(0, -1).flatMap((from, piece) => {
    open = open.filter((place) => place.to > from);
    const begin = [];
    for (; places[next]?.from === from; next++) begin.push(places[next]);
    open = [...open, ...begin];
    let inside = controls(text.slice(from, cuts[piece + 1]), budget);
    const elements = new Map();
    for (const number of new Set(open.map((place) => place.number))) {
      inside = [h.mark({ class: groups[number].class, title: groups[number].title }, inside)];
      elements.set(number, inside[0]);
    }
    for (const { number } of begin) starts[number].push(elements.get(number));
    return inside;
  });
  return { nodes: shown, starts, left: all.length - places.length };
}

/** The places of `search` in `text`, as pairs of offsets, at most MOST_MARKS. */
export function hits(text, search) {
  if (!search) return [];
  const found = [];
  for (let at = text.indexOf(search); at >= 0 && found.length < MOST_MARKS; at = text.indexOf(search, at + search.length)) {
    found.push([at, at + search.length]);
  }
  return found;
}

/** `text` as text nodes and, for runs of a control character, a `span` with its name. */
function controls(text, budget) {
  const shown = [];
  const clean = text.replaceAll("\r\n", "\n");
  let place = 0;
  for (const run of clean.matchAll(RUNS)) {
    if (budget.left-- <= 0) break;
    if (run.index > place) shown.push(document.createTextNode(clean.slice(place, run.index)));
    shown.push(named(run[0]));
    place = run.index + run[0].length;
  }
  if (place < clean.length)
    shown.push(document.createTextNode(budget.left > 0 ? clean.slice(place) : clean.slice(place).replace(CONTROLS, "�")));
  return shown;
}

const RUNS = new RegExp(`(${CONTROLS.source})\\1*`, "gu");

function named(run) {
  const code = run.codePointAt(0);
  const times = [...run].length;
  const name = nameOf(code) + (times > 1 ? `×${times}` : "");
  return h.span({ class: "control", title: hex(code) }, name);
}

/** The name of a rule or column; lines may break after `_`, `.`, `/` and `-`. */
export const label = (name, properties = {}) =>
  h.bdi(
    properties,
    String(name)
      .split(/(?<=[_./-])/)
      .flatMap((part, place) => [place > 0 && h.wbr(), nodes(part)]),
  );

/** A line of crawl text, isolated from the text direction around it. */
export const line = (text, search = "", properties = {}) => h.bdi(properties, ...nodes(String(text).replace(/\s+/g, " ").trim(), search));

/** A document's tokens: their texts side by side, their place, and each one's number. */
import { el } from "./dom.js";
import { count, many } from "./format.js";
import { nodes, plain } from "./text.js";

/** Shows spaces and line ends as signs, since a token may begin or end with one. */
const visible = (text) => (text ?? "�").replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "⇥");

export function tokens(found) {
  if (!found) return null;
  const pieces = found.pieces.map((piece, place) =>
    el(
      "span",
      { class: `token t${place % 2}`, title: `token ${count(found.first + place)}: number ${piece.id}, ${plain(visible(piece.text))}` },
      nodes(visible(piece.text)),
    ),
  );
  return [
    el("h3", {}, "Tokens ", el("span", { class: "soft" }, many(found.count, "token"))),
    el(
      "p",
      { class: "soft" },
      `${found.split}, shard ${found.shard}, from place ${count(found.first)}`,
      found.count > pieces.length && `; the first ${count(pieces.length)} are shown`,
    ),
    el("div", { class: "tokens", dir: "ltr", tabIndex: 0, role: "region", "aria-label": "Tokens" }, pieces),
  ];
}

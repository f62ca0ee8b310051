/** The exact and near copies of a document, and the one that is kept. */
import { el } from "./dom.js";
import { count, many, value } from "./format.js";
import { opener, verdict } from "./rows.js";

export function cluster(found) {
  if (!found) return null;
  const rows = found.rows.map((row) =>
    el(
      "li",
      {},
      verdict(row.kept),
      " ",
      opener(row),
      row.similarity !== null && ` similarity ${value(row.similarity)}`,
      row.id === found.kept_id && el("b", {}, " (this one stays)"),
    ),
  );
  const rest = found.size - found.rows.length;
  return [
    el("h3", {}, `Cluster of ${many(found.size, "document")}`),
    el("ul", { class: "cluster" }, rows),
    rest > 0 && el("p", { class: "soft" }, `${count(rest)} more are not shown.`),
  ];
}

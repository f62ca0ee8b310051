/** What a run has about a document: failed rules, decisions and values of each stage, copies, tokens, the blocks of its page. */
import { button, firstOf, h, table } from "./dom.js";
import { comparison, count, many, value } from "./format.js";
import { ruleNamed, run } from "./run.js";
import { copyOf, opener, verdict } from "./rows.js";
import { go } from "./state.js";
import { label, line, nodes, plain } from "./text.js";

/** Rules that are shown at first. */
const MANY = 20;

/** The failed rules of all stages; for a copy, the document of its `cluster` that is kept. Readers want this first. */
export function failures(stages, cluster) {
  return stages.flatMap((stage) => {
    const known = run().stages.find((one) => one.name === stage.name);
    const values = new Map(stage.values.flatMap((entry) => entry.rules.map((rule) => [rule.rule, { entry, rule }])));
    const original = stage.name === "dedup" && !stage.kept ? cluster?.rows.find((row) => row.id === cluster.kept_id) : null;
    const similarity = stage.values.find((entry) => entry.name === "similarity")?.value;
    return stage.failed.map((name) => ({
      stage,
      name,
      known: ruleNamed(known, name),
      original: original && { ...original, similarity },
      ...values.get(name),
    }));
  });
}

/** "✗ filter: short failed: words is 12; it drops when that is below 50." */
export function failure({ stage, name, known, original, entry, rule }) {
  const move = () => go({ view: "thresholds", stage: stage.name, range: name });
  return [
    h.span({ "aria-hidden": "true" }, "✗ "),
    `${stage.name}: `,
    h.b(label(name)),
    " failed",
    rule
      ? [
          ": ",
          label(entry.name),
          " is ",
          h.b(line(value(entry.value))),
          `; it drops when that ${comparison(rule)} `,
          line(value(rule.threshold)),
          ". ",
        ]
      : original
        ? [": ", copyOf(original), opener(original, { class: "copied" }), ". "]
        : stage.reason
          ? [": ", line(stage.reason), " "]
          : ". ",
    known?.meaning && h.span({ class: "soft" }, "(", line(known.meaning), ") "),
    known?.slider && [button("Move the threshold", move, { class: "plain", key: `move ${stage.name} ${name}` }), " "],
  ];
}

/** Every stage with all its measured values, closed at first. */
export const decisions = (stages) => [h.h3("Decisions and values"), stages.map(stagePart)];

const stagePart = (stage) =>
  h.details(
    { class: "stage" },
    h.summary(h.b(line(stage.name)), " ", verdict(stage.kept), " ", stage.reason && line(stage.reason, "", { class: "soft" })),
    stage.values.length > 0 ? values(stage) : h.p({ class: "soft" }, "It measured nothing."),
  );

/** The values, those that failed a rule first. */
function values(stage) {
  const fails = (entry) => entry.rules.some((rule) => rule.failed);
  const entries = [...stage.values.filter(fails), ...stage.values.filter((entry) => !fails(entry))];
  const row = (entry) => [label(entry.name), line(value(entry.value)), firstOf(entry.rules, MANY, judged)];
  return table(`Values of ${stage.name}`, [["value"], ["measured"], ["rules on it"]], entries.map(row));
}

const judged = (rule) =>
  h.div(
    { class: rule.failed ? "bad" : "soft" },
    h.span({ "aria-hidden": "true" }, rule.failed ? "✗ " : "✓ "),
    label(rule.rule),
    ` ${rule.failed ? "failed" : "passed"}: drops when it ${comparison(rule)} `,
    line(value(rule.threshold)),
  );

/** The exact and near copies of a document, and the one that is kept. */
export function cluster(found) {
  if (!found) return null;
  const rows = found.rows.map((row) =>
    h.li(
      verdict(row.kept),
      " ",
      opener(row),
      row.similarity !== null && ` similarity ${value(row.similarity)}`,
      row.id === found.kept_id && h.b(" (this one stays)"),
    ),
  );
  const rest = found.size - found.rows.length;
  return [
    h.h3(`Cluster of ${many(found.size, "document")}`),
    h.ul({ class: "cluster" }, rows),
    rest > 0 && h.p({ class: "soft" }, `${count(rest)} more are not shown.`),
  ];
}

/** The words that only a dropped copy or only the kept document has, with some equal words around them. */
export function difference(found) {
  if (!found) return null;
  const tags = { removed: "del", added: "ins", equal: "span", "left out": "i" };
  const counts = `${many(found.equal, "equal word")}, ${count(found.removed)} only in this copy, ${count(found.added)} only in the kept one`;
  return [
    h.h3("Beside the document that stays ", h.span({ class: "soft" }, counts, found.cut && "; too long, so only the beginnings")),
    h.div(
      { class: "difference", dir: "auto", tabIndex: 0, role: "region", "aria-label": "Words that differ" },
      found.passages.flatMap(({ kind, text }) => [h[tags[kind]](kind === "left out" ? `… ${text} …` : nodes(text)), " "]),
    ),
  ];
}

/** A part, closed at first, that asks for the blocks of the page and shows what the extraction kept. */
export function blocks(load) {
  const part = h.div({ class: "blocks", dir: "auto", tabIndex: 0, role: "region", "aria-label": "Blocks of the page" });
  const fill = async () => {
    if (!details.open || part.childNodes.length) return;
    const found = await load();
    if (!found) return;
    const row = ({ text, kept }) =>
      h.li({ class: kept ? "kept" : "left" }, h.span({ class: "hidden" }, kept ? "kept: " : "left out: "), nodes(text));
    const kept = found.blocks.filter((block) => block.kept).length;
    part.append(
      h.p(
        { class: "soft" },
        `${count(kept)} of ${many(found.blocks.length, "block")} are text, those with a bar; the others were left out.`,
      ),
      h.ul(found.blocks.map(row)),
      ...(found.left ? [h.p({ class: "soft" }, `${count(found.left)} more are not shown.`)] : []),
    );
  };
  const details = h.details({ on: { toggle: fill } }, h.summary("The page, with what ingest took from it"), part);
  return details;
}

/** Shows spaces and line ends as signs, since a token may begin or end with one. */
const visible = (text) => (text ?? "�").replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "⇥");

/** A document's tokens: their texts side by side, their place, and each one's number. */
export function tokens(found) {
  if (!found) return null;
  const pieces = found.pieces.map((piece, place) =>
    h.span(
      { class: `token t${place % 2}`, title: `token ${count(found.first + place)}: number ${piece.id}, ${plain(visible(piece.text))}` },
      nodes(visible(piece.text)),
    ),
  );
  return [
    h.h3("Tokens ", h.span({ class: "soft" }, many(found.count, "token"))),
    h.p(
      { class: "soft" },
      `${found.split}, shard ${found.shard}, from place ${count(found.first)}`,
      found.count > pieces.length && `; the first ${count(pieces.length)} are shown`,
    ),
    h.div({ class: "tokens", dir: "ltr", tabIndex: 0, role: "region", "aria-label": "Tokens" }, pieces),
  ];
}

/**
 * Labels: documents that are worth a look, the label of the open document (by a key, too), and how well each rule agrees with the labels.
 * Names of labels and people are text and never markup.
 */
import { act, ask, attempt } from "./api.js";
import { button, byId, h, refill, table } from "./dom.js";
import { count, many, value } from "./format.js";
import { explored, rulesByFired, ruleNamed, stageOf } from "./run.js";
import { opener } from "./rows.js";
import { current, go, watch } from "./state.js";
import { label, line, plain } from "./text.js";

const KINDS = [
  ["random", "at random, for calibration"],
  ["near", "nearest to a threshold"],
  ["uncertain", "a score is least certain"],
  ["disagree", "two rules disagree"],
];
let known = null; // what the server says of the labels, and of the document `known.key`
let kind = "random";
let chosen = {}; // the queue's rules and score, by the name of their box
let waiting = []; // the queue's next documents
let compared = { label: "", sample: "random" };

export function startLabels() {
  watch((state, changed) => {
    if (changed("stage")) [chosen, waiting] = [{}, []];
    if (state.view === "labels" && changed("view", "stage")) draw();
  });
}

const draw = () =>
  attempt(byId("labels"), async () => {
    await look("labels");
    drawNames();
    drawChoice();
    await Promise.all([drawQueue(), drawAgreement()]);
  });

async function look(slot) {
  const { stage, doc } = current();
  const asked = new URLSearchParams({ stage });
  if (doc) asked.set("key", doc);
  known = { ...(await ask(slot, "labels", asked)), key: doc };
}

// ---- the label of the open document

/** The buttons that label the open document. Nothing where nothing may be written and it has no label. */
export function labelBar() {
  const part = h.div({ id: "document-labels" });
  look("document-labels").then(
    () => refill(part, bar()),
    () => part.remove(), // the document itself says what is wrong
  );
  return part;
}

function bar() {
  const mine = known.document.find((one) => one.who === known.who)?.label;
  const others = known.document.filter((one) => one.who !== known.who || !explored().write);
  const choice = (name, place) =>
    button([h.kbd(String(place + 1)), " ", line(name)], () => give(mine === name ? null : name), {
      "aria-pressed": String(mine === name),
      key: `label ${name}`,
    });
  return [
    explored().write && h.p({ class: "row" }, "Label: ", known.names.map(choice)),
    explored().write && mine && !known.names.includes(mine) && h.p("Your label: ", line(mine)),
    others.length > 0 &&
      h.p(
        { class: "soft" },
        others.map((one) => [line(one.who), ": ", line(one.label), " "]),
      ),
  ];
}

/** Gives the open document a label, or takes it away (null), and opens the queue's next document. */
async function give(name) {
  const key = current().doc;
  await attempt(byId("document"), async () => {
    const { document: labels } = await act("label", { key, label: name });
    if (known.key === key) known.document = labels;
    const part = byId("document-labels");
    if (part && current().doc === key) refill(part, bar());
    byId("announcement").textContent = plain(name === null ? "Label taken away" : `Labelled ${name}`);
    const place = waiting.findIndex((row) => row.key === key);
    const next = waiting[place + 1];
    if (current().view !== "labels") return;
    if (name !== null && place >= 0 && next) go({ doc: next.key });
    await draw();
  });
}

/** Labels the open document where `key` is 1 to 9, y or n and means a label. Returns whether it does. */
export function labelKey(key) {
  if (!explored().write || !current().doc || known?.key !== current().doc) return false;
  const name = known.names["123456789".indexOf({ y: "1", n: "2" }[key] ?? key)];
  if (name === undefined) return false;
  give(known.document.some((one) => one.who === known.who && one.label === name) ? null : name);
  return true;
}

// ---- names, and the queue

function drawNames() {
  const box = h.textarea({ rows: known.names.length + 1, value: known.names.join("\n"), "aria-label": "Names of labels, one a line" });
  const save = () =>
    attempt(byId("label-names"), async () => {
      const names = box.value.split("\n").map((name) => name.trim());
      await act("names", { names: names.filter(Boolean) });
      await draw();
    });
  refill(
    byId("label-names"),
    h.p(
      { id: "label-counts", role: "status" },
      known.counts.length === 0 && "No document has a label yet. ",
      known.counts.map((one) => [line(one.label), ` ${count(one.documents)} · `]),
      known.people > 1 && `${many(known.people, "person", "people")} · `,
      explored().write
        ? ["You label as ", h.b(line(known.who)), ": open a document, then press 1 to 9, or y and n for the first two names."]
        : "To label, start corpusmill explore with --write.",
    ),
    explored().write && h.details(h.summary("Names of labels, one a line"), box, button("Save the names", save, { key: "save names" })),
  );
}

/** A box with `options` (pairs of value and words). */
const select = (words, options, now, take) =>
  h.label(
    `${words} `,
    h.select(
      { on: { change: (event) => take(event.target.value) }, key: `choose ${words}` },
      options.map(([name, shown]) => h.option({ value: name, selected: name === now }, plain(shown))),
    ),
  );

function drawChoice() {
  const rules = rulesByFired(stageOf(current()));
  const names = (some) => some.map((rule) => [rule.rule, rule.rule]);
  const boxes = {
    random: [],
    near: [["rule", names(rules.filter((rule) => rule.slider))]],
    uncertain: [["score", known.scores.map((name) => [name, name])]],
    disagree: [
      ["first rule", names(rules)],
      ["second rule", names(rules.slice(1).concat(rules.slice(0, 1)))],
    ],
  }[kind];
  for (const [name, options] of boxes) chosen[name] ??= options[0]?.[0];
  const again = () => (drawChoice(), drawQueue());
  refill(
    byId("queue-choice"),
    select("Documents", KINDS, kind, (given) => ((kind = given), again())),
    boxes.map(([name, options]) => select(name, options, chosen[name], (given) => ((chosen[name] = given), again()))),
  );
}

function drawQueue() {
  const asked = new URLSearchParams({ stage: current().stage, kind });
  const rules = { near: ["rule"], disagree: ["first rule", "second rule"] }[kind] ?? [];
  for (const name of rules) asked.append("rule", chosen[name] ?? "");
  if (kind === "uncertain") asked.set("column", chosen.score ?? "");
  return attempt(byId("queue"), async () => {
    const { rows, total } = await ask("queue", "queue", asked);
    waiting = rows;
    refill(
      byId("queue"),
      h.p(total ? `${many(total, "document")} that you have not labelled; these first:` : "You have labelled all of them."),
      h.ol(rows.slice(0, 10).map((row) => h.li(opener(row)))),
    );
  });
}

// ---- agreement

function drawAgreement() {
  const names = [...new Set([...known.names, ...known.counts.map((one) => one.label)])];
  if (!names.includes(compared.label)) compared.label = names[1] ?? names[0];
  return attempt(byId("agreement"), async () => {
    const asked = new URLSearchParams({ stage: current().stage, ...compared });
    const found = await ask("agreement", "agreement", asked);
    const take = (name) => (given) => ((compared[name] = given), drawAgreement());
    const labels = names.map((name) => [name, name]);
    const samples = [
      ["random", `labels of the random sample (${count(found.random)})`],
      ["all", `all labels (${count(found.labelled)})`],
    ];
    refill(
      byId("agreement-choice"),
      select("A rule should drop", labels, compared.label, take("label")),
      select("by", samples, compared.sample, take("sample")),
    );
    refill(byId("agreement"), found.documents ? agreements(found) : h.p("No label of this kind yet: label documents at random first."));
  });
}

const COLUMNS = [["Rule"], ...["drops", "precision", "recall", "agrees"].map((name) => [name, "number"]), ["best threshold: agrees"]];
const shown = (share) => (share ? `${percent(share.value)} (${percent(share.low)}–${percent(share.high)})` : "–");
const percent = (given) => `${Math.round(100 * given)}%`;

function agreements(found) {
  const stage = stageOf(current());
  const rules = found.rules.filter((rule) => rule.drops > 0).sort((a, b) => b.drops - a.drops);
  const figures = (one) => [count(one.drops), shown(one.precision), shown(one.recall), shown(one.agreed)];
  const best = ({ rule, best: one }) =>
    one &&
    one.threshold !== ruleNamed(stage, rule)?.threshold && [
      `${value(one.threshold)}: ${shown(one.agreed)} `,
      button("Try it", () => go({ view: "thresholds", range: rule, set: new Map(current().set).set(rule, String(one.threshold)) }), {
        "aria-label": plain(`Try the threshold of ${rule}`),
        key: `try ${rule}`,
      }),
    ];
  return [
    h.p(
      { class: "hint" },
      `${many(found.documents, "document")}, ${count(found.with_label)} of them `,
      line(found.label),
      ". ",
      compared.sample === "random"
        ? "They are the first of a random order, so they stand for all documents. "
        : "Somebody has chosen them, so the figures do not stand for all documents. ",
      found.tied > 0 && `${many(found.tied, "document")} with as many votes for two labels are left out. `,
      "In brackets: intervals of 95%. The best threshold is chosen on these very labels, so on others it will agree less.",
    ),
    table("Agreement of rules with labels", COLUMNS, [
      ["all rules together", ...figures(found.together), null],
      ...rules.map((one) => [label(one.rule), ...figures(one), best(one)]),
    ]),
  ];
}

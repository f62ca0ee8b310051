/** Two runs side by side, as `corpusmill diff` compares them: what one keeps and the other drops, by rule, with the documents. */
import { ask, attempt } from "./api.js";
import { drawHistogram } from "./charts.js";
import { button, byId, firstOf, h, refill, table } from "./dom.js";
import { comparison, count, many, share, value } from "./format.js";
import { verdict } from "./rows.js";
import { current, go, link, watch } from "./state.js";
import { label, line, nodes, plain } from "./text.js";

/** Documents that are listed at a time. */
const PAGE = 10;
let found = null; // the comparison, with the names of its runs
let documents = { total: 0, rows: [] };

export function startCompare() {
  watch((state, changed) => {
    if (state.view !== "compare" || state.compare.length < 2) return;
    if (changed("view", "compare", "with") || !found) load(state);
    else if (found.rules && changed("side", "by")) show(state);
  });
}

/** The runs that are compared: the first chosen one, and another. */
const pair = (state) => ({ a: state.compare[0], b: state.compare.includes(state.with, 1) ? state.with : state.compare[1] });
const asked = (further = {}) => new URLSearchParams({ ...found.names, ...further });

async function load(state) {
  found = { names: pair(state) };
  for (const part of byId("compare").children) part.replaceChildren();
  refill(byId("compare-head"), head(state), h.p({ class: "soft" }, "The documents of both runs are matched …"));
  await attempt(byId("compare"), async () => {
    found = { ...(await ask("compare", "compare", asked())), names: pair(state) };
    refill(byId("compare-head"), head(state), said());
    refill(byId("compare-rules"), h.h3("Rules"), rules());
    refill(byId("compare-keys"), h.h3("Changed keys of the recipe"), keys());
    await show(current());
    await columns();
  });
}

const name = (side) => h.b({ class: `side ${side}` }, side.toUpperCase());

function head(state) {
  const { a, b } = found.names;
  const choice = (other) =>
    button(line(other), () => go({ with: other, side: "", by: "" }), {
      "aria-pressed": String(other === b),
      key: `with ${other}`,
    });
  const others = state.compare.slice(1);
  return [
    !state.run && h.p(h.a({ href: link({ view: "" }) }, "All runs")),
    h.h2(name("a"), " ", line(a), " and ", name("b"), " ", line(b)),
    others.length > 1 && h.p({ class: "row" }, "Each run is compared with the first one: ", others.map(choice)),
  ];
}

function said() {
  const { notes, sentence, outcomes, ablations } = found;
  const all = outcomes.reduce((sum, one) => sum + one.documents, 0);
  const warnings = notes.map((note) => h.li(line(note)));
  const rows = outcomes.map((one) => [one.title, count(one.documents), share(one.documents, all), count(one.characters)]);
  return [
    notes.length > 0 && h.ul({ class: "warnings" }, warnings),
    h.p({ id: "compare-verdict" }, line(sentence)),
    ablations.map((ablation) => h.p(line(ablation.sentence), " ", h.code(line(ablation.page)))),
    tableOf(["outcome", "documents", "share", "characters"], rows),
  ];
}

/** A table whose cells but the first have the class `kind`. */
function tableOf(heads, rows, kind = "number") {
  const named = heads.map((head, place) => [head, place ? kind : "some"]);
  return table(heads[0], named, rows);
}

/** The rules by which one run drops documents that the other keeps. */
function rules() {
  const some = found.rules.filter((rule) => rule.other_keeps.a + rule.other_keeps.b > 0);
  const drops = (rule, dropped, kept) => {
    const by = `${rule.stage}/${rule.rule}`;
    const properties = { title: "Show these documents", key: `rule ${kept} ${by}` };
    return rule.other_keeps[dropped] ? button(count(rule.other_keeps[dropped]), () => go({ side: kept, by }), properties) : "0";
  };
  const row = (rule) => [
    [label(rule.rule), h.div({ class: "rules" }, rule.stage, rule.threshold.a && [": ", label(rule.threshold.a.column)])],
    drops(rule, "b", "a"),
    drops(rule, "a", "b"),
    condition(rule.threshold.a),
    condition(rule.threshold.b),
  ];
  if (some.length === 0) return h.p("No rule of one run drops a document that the other keeps.");
  return tableOf(["rule", "B drops, A keeps", "A drops, B keeps", "A drops when it", "B drops when it"], some.map(row));
}

const condition = (rule) => (rule ? [comparison(rule), " ", line(value(rule.threshold))] : "–");

/** The keys of the recipes, inputs and versions that differ. */
function keys() {
  const setting = (given) => line(typeof given === "string" ? given : JSON.stringify(given));
  const rows = found.settings.map(({ key, a, b }) => [label(key), setting(a), setting(b)]);
  return rows.length > 0 ? tableOf(["key", "A", "B"], rows, "some") : h.p("Recipes, inputs and versions are equal.");
}

// ---- documents -----------------------------------------------------------------------------------------

const alone = (side) => found.documents[`only_${side}`]?.documents ?? 0;

/** The side whose documents are listed: those that it keeps and the other drops. */
const listed = (state) => state.side || (alone("a") > 0 ? "a" : "b");

function show(state) {
  documents = { total: 0, rows: [] };
  return more(state);
}

function more(state) {
  const [stage, ...rule] = state.by.split("/");
  const chosen = state.by ? { stage, dropped_by: rule.join("/") } : {};
  const wanted = asked({ kept_by: listed(state), ...chosen, limit: PAGE, offset: documents.rows.length });
  return attempt(byId("compare-documents"), async () => {
    const next = await ask("compared", "compare_documents", wanted);
    documents = { total: next.total, rows: [...documents.rows, ...next.rows] };
    drawDocuments(state);
  });
}

function drawDocuments(state) {
  const choice = (side) =>
    button(["kept by ", name(side), ` alone: ${count(alone(side))}`], () => go({ side, by: "" }), {
      "aria-pressed": String(listed(state) === side),
      key: `side ${side}`,
    });
  const rule = ["dropped by ", label(state.by.replace(/^[^/]*\//, "")), " ×"];
  const left = documents.total - documents.rows.length;
  refill(
    byId("compare-documents"),
    h.h3("Documents"),
    h.p({ class: "row" }, choice("a"), choice("b"), state.by && button(rule, () => go({ by: "" }), { class: "chip", key: "by" })),
    h.p({ id: "compared", role: "status" }, documents.total ? `${many(documents.total, "document")}, in random order` : "None."),
    h.ol({ class: "compared" }, documents.rows.map(card)),
    left > 0 && h.p(button(`Show more (${count(left)} left)`, () => more(current()), { key: "more compared" })),
  );
}

/** A document: what each run decides, side by side, and the text below. */
function card(row) {
  const text = h.div();
  const halves = ["a", "b"].map((side) => half(row, side));
  const opener = button("Show the text", () => read(row, text, opener), { class: "plain", "aria-expanded": "false" });
  return h.li(h.b({ class: "copied" }, line(row.url ?? row.id)), h.div({ class: "two" }, halves), opener, text);
}

function half(row, side) {
  const dropped = side !== row.kept_by;
  const limit = (rule) => [`, and ${dropped ? "fails" : "would fail only"} where it `, condition(rule)];
  const measured = (fail) => fail.column && [": ", label(fail.column), ` is ${value(fail.value)}`];
  const reason = (fail) =>
    h.li(label(fail.rule), measured(fail), fail[side] ? limit(fail[side]) : !dropped && ": this run has no such rule");
  const page = new URLSearchParams({ run: found.names[side], stage: row.stage, doc: `id/${row.id}` });
  return h.div(
    h.p(name(side), " ", verdict(!dropped), dropped && ` by ${row.stage}`),
    h.ul({ class: dropped ? "failed" : "" }, firstOf(row.failed, 5, reason, "li")),
    h.a({ href: `#${page}` }, "Open it in ", line(found.names[side])),
  );
}

async function read({ id, stage, kept_by }, part, opener) {
  const open = opener.getAttribute("aria-expanded") === "true";
  opener.setAttribute("aria-expanded", String(!open));
  if (open) return part.replaceChildren();
  await attempt(byId("compare-documents"), async () => {
    const { text, cut } = await ask(`text ${id}`, "compare_text", asked({ id, stage, kept_by }));
    const shown = text ? h.div({ class: "text", tabIndex: 0, dir: "auto" }, nodes(text)) : "Its text can’t be read.";
    refill(part, shown, cut && h.p({ class: "soft" }, "The text is longer."));
  });
}

// ---- values --------------------------------------------------------------------------------------------

async function columns() {
  const of = found;
  const { columns: all } = await ask("columns", "compare_columns", asked());
  if (found !== of) return;
  const moved = all.filter((column) => column.distance > 0).map(chart);
  const shown = moved.length > 0 ? h.div({ class: "sliders" }, moved) : h.p("Every value is distributed alike.");
  refill(byId("compare-columns"), h.h3("Values of the kept documents"), shown);
}

/** Both runs' histograms over each other, drawn once they are in view. */
function chart({ stage, column, distance, runs }) {
  const node = h.div({ class: "chart", role: "img", "aria-label": plain(`Histograms of ${column} in both runs`) });
  const median = (side) => [name(side), ` ${value(runs[side].quantiles[2] ?? null)}`];
  const article = h.article(
    { class: "slider" },
    h.h3(label(column), " ", h.span({ class: "soft" }, stage)),
    h.p({ class: "counts" }, "median ", median("a"), ", ", median("b"), `; Kolmogorov–Smirnov distance ${value(distance)}`),
    node,
  );
  const draw = async () => {
    const histogram = await ask(`histogram ${stage} ${column}`, "compare_histogram", asked({ stage, column }));
    const mark = (side, kind) => histogram.thresholds[side].filter(Number.isFinite).map((at) => ({ at, kind }));
    const over = Object.entries({ a: "kept", b: "dropped" });
    await drawHistogram(node, histogram, { marks: [...mark("a", "old"), ...mark("b", "new")], over });
  };
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    attempt(article, draw);
  }).observe(article);
  return article;
}

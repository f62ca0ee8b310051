/** Two runs side by side, as `corpusmill diff` compares them: what one keeps and the other drops, by rule, with the documents. */
import { ask } from "./api.js";
import { drawHistogram } from "./charts.js";
import { button, byId, el, firstOf, refill } from "./dom.js";
import { attempt } from "./errors.js";
import { comparison, count, many, share, value } from "./format.js";
import { verdict } from "./rows.js";
import { current, go, link, watch } from "./state.js";
import { label, line, nodes, plain } from "./text.js";

/** Documents that are listed at a time; keys and charts that are shown at first. */
const [PAGE, KEYS, CHARTS] = [10, 12, 6];
/** The outcomes in words: of A and B. */
const OUTCOMES = [
  ["both", "kept by both"],
  ["only_a", "kept by A alone"],
  ["only_b", "kept by B alone"],
  ["neither", "kept by neither"],
  ["kept_unseen_b", "kept by A, never seen by B"],
  ["dropped_unseen_b", "dropped by A, never seen by B"],
  ["kept_unseen_a", "kept by B, never seen by A"],
  ["dropped_unseen_a", "dropped by B, never seen by A"],
];
let found = null; // the comparison, with the `asked` names of its runs
let documents = { total: 0, rows: [] };

export function startCompare() {
  const parts = ["compare-head", "compare-rules", "compare-documents", "compare-columns", "compare-keys"];
  byId("compare").append(...parts.map((id) => el("div", { id })));
  watch((state, changed) => {
    if (state.view !== "compare" || state.compare.length < 2) return;
    if (changed("view", "compare", "with") || !found) load(state);
    else if (changed("side", "by")) show(state);
  });
}

/** The runs that are compared: the first chosen one, and another. */
const pair = (state) => ({ a: state.compare[0], b: state.compare.includes(state.with, 1) ? state.with : state.compare[1] });
const asked = (further = {}) => new URLSearchParams({ ...pair(current()), ...further });

function load(state) {
  found = null;
  byId("compare").querySelectorAll(":scope > div").forEach((part) => part.replaceChildren());
  refill(byId("compare-head"), head(state), el("p", { class: "soft" }, "The documents of both runs are matched …"));
  return attempt(byId("compare"), async () => {
    found = { ...(await ask("compare", "compare", asked())), names: pair(state) };
    refill(byId("compare-head"), head(state), said());
    refill(byId("compare-rules"), rules());
    refill(byId("compare-keys"), keys());
    await show(current());
    await columns();
  });
}

function head(state) {
  const { a, b } = pair(state);
  const others = state.compare.slice(1);
  return [
    el("p", {}, el("a", { href: link({ view: "" }) }, "All runs")),
    el("h2", {}, name("a"), " ", line(a), " and ", name("b"), " ", line(b)),
    others.length > 1 &&
      el(
        "p",
        { class: "row" },
        "Each run is compared with the first one: ",
        others.map((other) =>
          button(line(other), () => go({ with: other, side: "", by: "" }), {
            "aria-pressed": String(other === b),
            data: { key: `with ${other}` },
          }),
        ),
      ),
  ];
}

const name = (side) => el("b", { class: `side ${side}` }, side.toUpperCase());

function said() {
  const { documents: counts, kept, stages, notes } = found;
  const all = Object.values(counts).reduce((sum, one) => sum + one.documents, 0);
  const moved = (counts.only_a?.documents ?? 0) + (counts.only_b?.documents ?? 0);
  const rows = OUTCOMES.filter(([outcome], place) => place < 4 || counts[outcome]);
  return [
    notes.length > 0 && el("ul", { class: "warnings" }, notes.map((note) => el("li", {}, line(note)))),
    el(
      "p",
      { id: "compare-verdict" },
      name("a"),
      ` keeps ${many(kept.a, "document")}, `,
      name("b"),
      ` ${count(kept.b)}, from ${stages[0]} to ${stages.at(-1)}. They decide differently about `,
      el("b", {}, count(moved)),
      " of the documents that both have seen.",
    ),
    table(
      ["outcome", "documents", "share", "characters"],
      rows.map(([outcome, words]) => {
        const one = counts[outcome] ?? { documents: 0, characters: 0 };
        return [words, count(one.documents), share(one.documents, all), count(one.characters)];
      }),
    ),
  ];
}

/** A table; all cells but the first are numbers unless `texts`. */
const table = (heads, rows, texts = false) =>
  el(
    "div",
    { class: "scroll", tabIndex: 0, role: "region", "aria-label": plain(heads[0]) },
    el(
      "table",
      { class: "values" },
      el("thead", {}, el("tr", {}, heads.map((text, place) => el("th", { scope: "col", class: place && !texts ? "number" : "" }, text)))),
      el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, place) => el("td", { class: place && !texts ? "number" : "some" }, cell))))),
    ),
  );

/** The rules by which one run drops documents that the other keeps. */
function rules() {
  const some = found.rules.filter((rule) => rule.other_keeps.a + rule.other_keeps.b > 0);
  const drops = (rule, dropped, kept) =>
    rule.other_keeps[dropped] === 0
      ? "0"
      : button(count(rule.other_keeps[dropped]), () => go({ side: kept, by: `${rule.stage}/${rule.rule}` }), {
          title: "Show these documents",
          data: { key: `rule ${kept} ${rule.stage}/${rule.rule}` },
        });
  const condition = ({ threshold }, side) => threshold[side] ? [`${comparison(threshold[side])} `, line(value(threshold[side].threshold))] : "–";
  return [
    el("h3", {}, "Rules"),
    some.length === 0
      ? el("p", {}, "No rule of one run drops a document that the other keeps.")
      : table(
          ["rule", "B drops, A keeps", "A drops, B keeps", "A drops when it", "B drops when it"],
          some.map((rule) => [
            [label(rule.rule), el("div", { class: "rules" }, rule.stage, rule.threshold.a && [": ", label(rule.threshold.a.column)])],
            drops(rule, "b", "a"),
            drops(rule, "a", "b"),
            condition(rule, "a"),
            condition(rule, "b"),
          ]),
        ),
  ];
}

/** The keys of the recipes, inputs and versions that differ. */
function keys() {
  const rows = found.settings.map(({ key, a, b }) => [label(key), setting(a), setting(b)]);
  const shown = table(["key", "A", "B"], rows.slice(0, KEYS), true);
  const all = () => shown.replaceWith(table(["key", "A", "B"], rows, true));
  return [
    el("h3", {}, "Changed keys of the recipe"),
    rows.length === 0 ? el("p", {}, "Recipes, inputs and versions are equal.") : shown,
    rows.length > KEYS && el("p", {}, button(`Show all ${count(rows.length)}`, (event) => (all(), event.target.remove()))),
  ];
}

const setting = (given) => line(typeof given === "string" ? given : JSON.stringify(given));

// ---- documents -----------------------------------------------------------------------------------------

/** The side whose documents are listed: those that it keeps and the other drops. */
const side = (state) => state.side || ((found.documents.only_a?.documents ?? 0) > 0 ? "a" : "b");

function show(state) {
  documents = { total: 0, rows: [] };
  return more(state);
}

function more(state) {
  const [stage, ...rule] = state.by.split("/");
  const chosen = state.by ? { stage, dropped_by: rule.join("/") } : {};
  return attempt(byId("compare-documents"), async () => {
    const next = await ask("compared", "compare_documents", asked({ kept_by: side(state), ...chosen, limit: PAGE, offset: documents.rows.length }));
    documents = { total: next.total, rows: [...documents.rows, ...next.rows] };
    drawDocuments(state);
  });
}

function drawDocuments(state) {
  const choice = (one) =>
    button(["kept by ", name(one), ` alone: ${count(found.documents[`only_${one}`]?.documents ?? 0)}`], () => go({ side: one, by: "" }), {
      "aria-pressed": String(side(state) === one),
      data: { key: `side ${one}` },
    });
  const left = documents.total - documents.rows.length;
  refill(
    byId("compare-documents"),
    el("h3", {}, "Documents"),
    el(
      "p",
      { class: "row" },
      choice("a"),
      choice("b"),
      state.by &&
        button(["dropped by ", label(state.by.replace(/^[^/]*\//, "")), " ×"], () => go({ by: "" }), { class: "chip", data: { key: "by" } }),
    ),
    el("p", { id: "compared", role: "status" }, documents.total ? `${many(documents.total, "document")}, in random order` : "None."),
    el("ol", { class: "compared" }, documents.rows.map(card)),
    left > 0 && el("p", {}, button(`Show more of ${count(left)}`, () => more(current()), { data: { key: "more compared" } })),
  );
}

/** A document: what each run decides, side by side, and the text below. */
function card(row) {
  const text = el("div", {});
  const other = row.kept_by === "a" ? "b" : "a";
  return el(
    "li",
    {},
    el("b", { class: "copied" }, row.url ? line(row.url) : line(row.id)),
    el(
      "div",
      { class: "two" },
      ["a", "b"].map((one) => half(row, one, one === other)),
    ),
    button("Show the text", (event) => read(row, text, event.target), { "aria-expanded": "false", class: "plain" }),
    text,
  );
}

function half(row, one, dropped) {
  const reason = (fail) =>
    el(
      "li",
      {},
      label(fail.rule),
      fail.column && [": ", label(fail.column), ` is ${value(fail.value)}`],
      fail[one]
        ? [`, and ${dropped ? "fails" : "would fail only"} where it `, comparison(fail[one]), " ", line(value(fail[one].threshold))]
        : !dropped && ": no such rule here",
    );
  return el(
    "div",
    {},
    el("p", {}, name(one), " ", verdict(!dropped), dropped && ` by ${row.stage}`),
    el("ul", { class: dropped ? "failed" : "" }, firstOf(row.failed, 5, reason, "li")),
    el("a", { href: `#${new URLSearchParams({ run: found.names[one], stage: row.stage, doc: `id/${row.id}` })}` }, "Open it in ", line(found.names[one])),
  );
}

async function read(row, part, opener) {
  const open = opener.getAttribute("aria-expanded") === "true";
  opener.setAttribute("aria-expanded", String(!open));
  if (open) return part.replaceChildren();
  await attempt(byId("compare-documents"), async () => {
    const { text, cut } = await ask(`text ${row.id}`, "compare_text", asked({ kept_by: row.kept_by, stage: row.stage, id: row.id }));
    refill(part, text ? el("div", { class: "text", tabIndex: 0, dir: "auto" }, nodes(text)) : el("p", {}, "Its text can’t be read."), cut && el("p", { class: "soft" }, "The text is longer."));
  });
}

// ---- values --------------------------------------------------------------------------------------------

async function columns() {
  const names = found.names;
  const { columns: all } = await ask("columns", "compare_columns", asked());
  if (found?.names !== names) return;
  const moved = all.filter((column) => column.distance > 0);
  const charts = el("div", { class: "sliders" });
  const add = () => {
    charts.append(...moved.slice(charts.children.length, charts.children.length + CHARTS).map(chart));
    if (charts.children.length >= moved.length) rest.replaceChildren();
  };
  const rest = el("p", {}, button("Show more values", add));
  refill(
    byId("compare-columns"),
    el("h3", {}, "Values of the kept documents"),
    moved.length === 0 ? el("p", {}, "Every value is distributed alike.") : charts,
    rest,
  );
  add();
}

/** Both runs' histograms over each other, drawn once they are in view. */
function chart(column) {
  const node = el("div", { class: "chart", role: "img", "aria-label": plain(`Histograms of ${column.column} in both runs`) });
  const median = (one) => value(column.runs[one].quantiles[2] ?? null);
  const article = el(
    "article",
    { class: "slider" },
    el("h3", {}, label(column.column), " ", el("span", { class: "soft" }, column.stage)),
    el("p", { class: "counts" }, "median ", name("a"), ` ${median("a")}, `, name("b"), ` ${median("b")}; Kolmogorov–Smirnov distance ${value(column.distance)}`),
    node,
  );
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    attempt(article, async () => {
      const histogram = await ask(`histogram ${column.stage} ${column.column}`, "compare_histogram", asked({ stage: column.stage, column: column.column }));
      const marks = [
        ["a", "old"],
        ["b", "new"],
      ].flatMap(([one, kind]) => histogram.thresholds[one].filter(Number.isFinite).map((at) => ({ at, kind })));
      await drawHistogram(node, histogram, { marks, over: [["a", "kept", "A"], ["b", "dropped", "B"]] });
    });
  }).observe(article);
  return article;
}

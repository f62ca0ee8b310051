/** The list of all runs below the path: sorted and filtered as one types, asked again every few seconds. A row opens the run. */
import { ask, attempt, debounced } from "./api.js";
import { startCompare } from "./compare.js";
import { button, byId, checkBox, h, refill } from "./dom.js";
import { count, duration, many, roughly, share } from "./format.js";
import { sortable, wholeRow } from "./rows.js";
import { explored } from "./run.js";
import { current, go, start, watch } from "./state.js";
import { label, line, plain } from "./text.js";

/** Milliseconds between two requests: while runs are not read yet, and afterwards. */
const [SOON, EVERY] = [50, 3000];
/** The columns: by what each sorts, its name, its kind. */
const COLUMNS = [
  ["name", "Run", "", (run) => run.name],
  ["recipe", "Recipe", "recipe", (run) => run.recipe],
  ["pages", "Pages", "number", (run) => run.pages],
  ["kept", "Kept", "number", (run) => keptShare(run)],
  ["tokens", "Tokens", "number", (run) => run.tokens],
  ["state", "State", "", (run) => run.state],
  ["began", "Begun", "when", (run) => run.began],
  ["seconds", "Work", "number", (run) => run.seconds],
];
let rows = [];
let left = 0;

export function startRuns() {
  byId("run").textContent = plain(explored().path);
  const filter = debounced((find) => go({ find }, { replace: true }), 100);
  const box = h.input({ type: "search", id: "find", autocomplete: "off", spellcheck: false, value: current().find });
  box.addEventListener("input", () => filter(box.value));
  byId("runs").append(
    h.h2("Runs"),
    h.label({ class: "field" }, "with these words in name, recipe, inputs or state", box),
    h.p({ class: "row" }, h.span({ id: "count", role: "status" }), h.span({ id: "after" }), h.span({ id: "chosen" })),
    h.div(
      { class: "scroll", tabIndex: 0, role: "region", "aria-label": "List of runs" },
      h.table(h.thead(h.tr({ id: "list-header" })), h.tbody({ id: "list" })),
    ),
  );
  startCompare();
  watch(draw);
  start();
  look();
}

async function look() {
  if (!document.hidden && !comparing(current())) {
    const before = JSON.stringify(rows);
    await attempt(byId("runs"), async () => ({ rows, left } = await ask("runs", "runs")));
    if (JSON.stringify(rows) !== before) draw(current());
    else tell();
  }
  setTimeout(look, left ? SOON : EVERY);
}

const comparing = (state) => state.view === "compare" && state.compare.length > 1;

function draw(state) {
  const view = comparing(state) ? "compare" : "runs";
  document.body.dataset.view = view;
  document.title = `${view} · corpusmill explore`;
  for (const part of ["runs", "compare"]) byId(part).hidden = part !== view;
  if (view !== "runs") return;
  refill(
    byId("list-header"),
    h.th({ scope: "col" }, h.span({ class: "hidden" }, "Compare")),
    COLUMNS.map(([name, text, kind]) => sortable(name, text, state, kind)),
  );
  refill(byId("list"), listed(state).map(row));
  refill(byId("after"), afterChoice(state));
  refill(byId("chosen"), chosen(state));
  tell();
}

function tell() {
  const shown = listed(current()).length;
  byId("count").textContent =
    `${shown < rows.length ? `${count(shown)} of ` : ""}${many(rows.length, "run")}${left ? `, ${count(left)} are still to be read` : ""}`;
}

/** The runs that have all the typed words, in the chosen order; runs without a value come last. */
function listed(state) {
  const words = state.find.toLowerCase().split(/\s+/);
  const said = (run) => [run.name, run.recipe, run.recipe_digest, run.state, ...run.inputs].join(" ").toLowerCase();
  const found = rows.filter((run) => words.every((word) => said(run).includes(word)));
  const by = COLUMNS.find(([name]) => name === state.order)?.[3];
  if (!by) return found.sort((a, b) => (a.began === b.began ? 0 : (a.began ?? "") < (b.began ?? "") ? 1 : -1)); // the latest first
  const missing = (value) => value === null || value === undefined || value === "" || Number.isNaN(value);
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * (state.descending ? -1 : 1);
  return found.sort((a, b) => missing(by(a)) - missing(by(b)) || compare(by(a), by(b)));
}

/** The stages after which runs have counted what is kept, in their order. */
const stages = () => ["ingest", "filter", "dedup"].filter((stage) => rows.some((run) => run.kept[stage] !== undefined));

/** The stage after which the runs are compared: the chosen one, else the last one that all runs with counts have finished. */
function after(state) {
  const counted = rows.filter((run) => Object.keys(run.kept).length > 0);
  return state.after || stages().findLast((stage) => 2 * counted.filter((run) => run.kept[stage] !== undefined).length >= counted.length) || "";
}

const keptShare = (run) => run.pages && run.kept[after(current())] / run.pages;

function afterChoice(state) {
  const option = (stage) => h.option({ value: stage, selected: stage === after(state) }, stage);
  const take = (event) => go({ after: event.target.value }, { replace: true });
  return stages().length > 1 && h.label("kept after ", h.select({ on: { change: take }, key: "after" }, stages().map(option)));
}

function chosen({ compare }) {
  if (compare.length === 0) return "Choose two runs or more to compare them.";
  const others = compare.slice(1);
  return [
    button(`Compare ${many(compare.length, "run")}`, () => go({ view: "compare" }), {
      class: "strong",
      disabled: others.length === 0,
      key: "compare",
    }),
    " ",
    others.length > 0 ? [others.length > 1 ? "each with " : "with ", line(compare[0])] : ["choose another beside ", line(compare[0])],
    " ",
    button("Choose none", () => go({ compare: [] }), { class: "plain", key: "choose none" }),
  ];
}

function row(run) {
  const open = { run: run.name };
  const box = checkBox((on) => choose(run.name, on), {
    checked: current().compare.includes(run.name),
    "aria-label": `Compare ${plain(run.name)}`,
    key: `choose ${run.name}`,
  });
  const kept = run.kept[after(current())];
  const inputs = [...run.inputs, run.more_inputs > 0 && `${count(run.more_inputs)} more`].filter(Boolean).join(", ");
  return h.tr(
    { class: "opens", on: wholeRow(() => location.assign(page(open))) },
    h.td(box),
    h.td(
      { class: "address" },
      h.a({ href: page(open), class: "opener", key: `run ${run.name}` }, line(run.name)),
      h.div({ class: "rules" }, line(inputs)),
      BAD.includes(run.state) && h.div({ class: "bad" }, line(run.sentence)),
    ),
    h.td({ class: "some recipe" }, label(run.recipe), h.div({ class: "rules" }, run.recipe_digest)),
    h.td({ class: "number" }, count(run.pages)),
    h.td(
      { class: "number" },
      kept === undefined ? "–" : share(kept, run.pages),
      h.div({ class: "rules" }, kept !== undefined && `${count(kept)} after ${after(current())}`),
    ),
    h.td({ class: "number" }, roughly(run.tokens)),
    h.td({ class: "some" }, state(run)),
    h.td({ class: "when" }, run.began ? run.began.slice(0, 16).replace("T", " ") : "–"),
    h.td({ class: "number" }, duration(run.seconds)),
  );
}

/** The address of a run's page; it keeps nothing of the list's own state. */
const page = (of) => `#${new URLSearchParams(of)}`;

/** Chosen runs are in the order of their choice: the first is the one that the others are compared with. */
function choose(name, on) {
  const others = current().compare.filter((one) => one !== name);
  go({ compare: on ? [...others, name] : others }, { replace: true });
}

const BAD = ["damaged", "interrupted", "failed", "abandoned", "stale"];

const state = (run) => [
  h.span({ class: BAD.includes(run.state) ? "bad" : "" }, run.state),
  run.share !== null && [
    h.div({ class: "rules" }, `${run.stage} ${share(run.share, 1)}`),
    h.progress({ class: "wide", max: 1, value: run.share, "aria-label": `${run.stage}: ${share(run.share, 1)}` }),
  ],
];

/** The head of the page: what is stale or damaged, the stages, the views, and how far the server has read the reports. */
import { bar, button, byId, h, refill } from "./dom.js";
import { attempt } from "./api.js";
import { count, many, share } from "./format.js";
import { explored, loadRun, run, stageOf } from "./run.js";
import { current, go, link, watch } from "./state.js";
import { line, plain } from "./text.js";

/** Warnings that are shown at first. */
const FIRST = 5;

/** Names at the top of the page the stale stages; null: none. */
export function drawStale(sentence) {
  const text = plain(sentence ?? "");
  byId("stale").hidden = !text;
  if (byId("stale").textContent !== text) byId("stale").textContent = text;
}

export function drawWarnings() {
  const sentences = run().warnings;
  const rest = sentences.slice(FIRST);
  refill(
    byId("warnings"),
    sentences.length > 0 &&
      h.section(
        { class: "warnings", "aria-label": "Warnings" },
        h.b(many(sentences.length, "warning")),
        items(sentences.slice(0, FIRST)),
        rest.length > 0 && h.details(h.summary(many(rest.length, "other")), items(rest)),
      ),
  );
}

const items = (some) => h.ul(some.map((sentence) => h.li(line(sentence))));

export function startHead() {
  watch((state, changed) => {
    drawViews(state);
    if (changed("stage")) drawStages();
  });
}

/** The stage that is selected first: the one whose rules dropped most documents, else the first. */
export function firstStage() {
  const dropped = (stage) => (stage.rules.some((rule) => rule.slider) ? stage.rows - stage.kept : -1);
  return [...run().stages].sort((a, b) => dropped(b) - dropped(a))[0]?.name ?? "";
}

function drawStages() {
  const { stages, present, loading } = run();
  const missing = present.filter((name) => !stages.some((stage) => stage.name === name));
  refill(
    byId("stages"),
    stages.map((stage) => card(stage, pagesOf(stages[0]))),
    missing.map((name) => absent(name, Boolean(loading))),
  );
}

/** A stage that is not loaded yet, or can't be read. */
const absent = (name, waiting) =>
  h.div(
    { class: "stage-card absent" },
    h.b(line(name)),
    h.span({ class: "soft" }, waiting ? "is being read …" : "can’t be read: see the warnings"),
  );

/** The rows of a stage that are pages or documents. Ingest also has rows for requests and the crawler's own records. */
const pagesOf = (stage) => stage.rows - (stage.rules.find(({ rule }) => rule === "record_type")?.fired ?? 0);

function card(stage, first) {
  const pages = pagesOf(stage);
  const lost = pages - stage.kept;
  const others = stage.rows - pages;
  const words = [
    h.b(line(stage.name)),
    stage.status !== "complete" && h.span({ class: "unfinished" }, ` ${stage.status}`),
    h.span({ class: "soft" }, `${many(pages, others ? "page" : stage.name === "ingest" ? "record" : "document")} in, ${count(stage.kept)} kept`),
    others > 0 && h.span({ class: "soft" }, `and ${many(others, "record")} without a page`),
    h.span({ class: lost ? "lost" : "soft" }, lost ? `${count(lost)} dropped (${share(lost, pages)})` : "nothing dropped"),
    bar(first ? stage.kept / first : 0, "kept"),
  ];
  const here = current().stage === stage.name ? "true" : null;
  const properties = { class: "stage-card", "aria-current": here, key: `stage ${stage.name}` };
  return button(words, () => go({ stage: stage.name }), properties);
}

const VIEWS = [
  ["", "documents", "Documents"],
  ["thresholds", "thresholds", "Thresholds"],
  ["labels", "labels", "Labels"],
  ["progress", "progress", "Progress"],
  ["compare", "compare", "Compare with parent"],
];

function drawViews(state) {
  const view = VIEWS.some(([name]) => name === state.view) ? state.view : "";
  const { parent, own } = run();
  const other = { compare: { compare: [parent, own] } };
  refill(
    byId("views"),
    (!explored().one || state.run) && h.a({ href: "#", key: "all runs" }, explored().one ? "The first run" : "All runs"),
    VIEWS.filter(([name]) => name !== "compare" || parent).map(([name, , label]) =>
      h.a({ href: link({ view: name, ...other[name] }), "aria-current": name === view ? "page" : null, key: `view ${name}` }, label),
    ),
  );
  for (const [name, part] of VIEWS) byId(part).hidden = name !== view;
  byId("filters").hidden = view !== "";
  document.body.dataset.view = view || "documents";
  document.title = `${view || "documents"} · ${stageOf(state)?.name ?? ""} · corpusmill explore`;
}

/** Milliseconds between two requests. */
const EVERY = 400;
const pause = () => new Promise((over) => setTimeout(over, EVERY));

/** Waits until `stage` (without a name: any stage) is loaded, or the loading has ended without it. */
export async function whenReady(stage) {
  for (;;) {
    await loadRun();
    const there = stage ? run().stages.some((one) => one.name === stage) : run().stages.length > 0;
    if (there || !run().loading) return showLoading();
    showLoading();
    await pause();
  }
}

/** Follows the loading of the other stages. */
export async function loading() {
  while (run().loading) {
    await pause();
    const before = run().stages.length;
    if (!(await attempt(byId("stages"), loadRun))) return;
    showLoading();
    if (run().stages.length !== before || !run().loading) {
      drawStages();
      drawWarnings();
    }
  }
}

function showLoading() {
  const now = run().loading;
  byId("reading").textContent = now ? `Reading the report of ${now.stage}: ${count(now.rows)} of ${count(now.of)} rows` : "";
}

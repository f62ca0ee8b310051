/** The list of all runs below the path. */
import { ask } from "./api.js";
import { byId, el, refill } from "./dom.js";
import { attempt } from "./errors.js";
import { count, share } from "./format.js";
import { explored } from "./run.js";
import { start } from "./state.js";
import { line, plain } from "./text.js";

/** Milliseconds between two requests: while runs are not read yet, and afterwards. */
const [SOON, EVERY] = [50, 3000];
let rows = [];

export function startRuns() {
  document.body.dataset.view = "runs";
  byId("runs").hidden = false;
  byId("run").textContent = plain(explored().path);
  document.title = "runs · corpusmill explore";
  start();
  look();
}

async function look() {
  let left = 0;
  if (!document.hidden) await attempt(byId("runs"), async () => ({ rows, left } = await ask("runs", "runs")));
  draw();
  setTimeout(look, left ? SOON : EVERY);
}

function draw() {
  refill(byId("runs"), el("table", {}, el("tbody", {}, rows.map(row))));
}

const row = (run) =>
  el(
    "tr",
    {},
    el("td", {}, el("a", { href: `#${new URLSearchParams({ run: run.name })}`, data: { key: `run ${run.name}` } }, line(run.name))),
    el("td", {}, line(run.recipe)),
    el("td", {}, run.documents_in ? share(run.documents_out, run.documents_in) : ""),
    el("td", {}, count(run.tokens)),
    el("td", {}, run.state),
  );

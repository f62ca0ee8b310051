/** The server answers before it has read all reports: the page waits for the stage that it shows, and adds the others later. */
import { byId } from "./dom.js";
import { attempt } from "./errors.js";
import { count } from "./format.js";
import { loadRun, run } from "./run.js";
import { drawStages } from "./stages.js";
import { drawWarnings } from "./warnings.js";

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

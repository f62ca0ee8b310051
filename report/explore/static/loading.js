/** The server reads a run's reports after it has begun to answer: the page waits for the stage that it shows, and adds the others. */
import { byId } from "./dom.js";
import { attempt } from "./errors.js";
import { count } from "./format.js";
import { loadRun, run } from "./run.js";
import { drawStages } from "./stages.js";
import { drawWarnings } from "./warnings.js";

/** Milliseconds between two looks. */
const EVERY = 400;
const pause = () => new Promise((over) => setTimeout(over, EVERY));

/** Waits until `stage` can be asked for (without a name: any), or all has been read without it. */
export async function whenReady(stage) {
  for (;;) {
    await loadRun();
    const there = stage ? run().stages.some((one) => one.name === stage) : run().stages.length > 0;
    if (there || !run().loading) return tell();
    tell();
    await pause();
  }
}

/** Follows the reading of the stages that are left. */
export async function loading() {
  while (run().loading) {
    await pause();
    const before = run().stages.length;
    if (!(await attempt(byId("stages"), loadRun))) return;
    tell();
    if (run().stages.length !== before || !run().loading) {
      drawStages();
      drawWarnings();
    }
  }
}

function tell() {
  const now = run().loading;
  byId("reading").textContent = now ? `Reading the report of ${now.stage}: ${count(now.rows)} of ${count(now.of)} rows` : "";
}

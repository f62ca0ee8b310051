/** The page of `corpusmill explore`: starts its parts, each of which follows the state in the address. */
import { ask, attempt, showError, takeToken } from "./api.js";
import { startCompare } from "./compare.js";
import { startDocument } from "./document.js";
import { startDocuments } from "./documents.js";
import { byId } from "./dom.js";
import { startFilters } from "./filters.js";
import { startKeys } from "./keys.js";
import { startJobs } from "./jobs.js";
import { startLabels } from "./labels.js";
import { drawStale, drawWarnings, firstStage, loading, startHead, whenReady } from "./head.js";
import { startProgress } from "./progress.js";
import { explored, loadConsole, run, stageOf } from "./run.js";
import { startRuns } from "./runs.js";
import { current, go, start } from "./state.js";
import { plain } from "./text.js";
import { startTheme } from "./choices.js";
import { startThresholds } from "./thresholds.js";

async function begin() {
  takeToken();
  startTheme();
  startKeys();
  if (!(await attempt(byId("main"), loadConsole))) return;
  startJobs();
  if (!explored().one && !current().run) return startRuns();
  if (!(await attempt(byId("main"), () => whenReady(current().stage)))) return;
  byId("run").textContent = plain(run().name);
  drawStale(run().stale);
  drawWarnings();
  const { stage } = current();
  if (!stageOf(current())) go({ stage: firstStage() }, { replace: true });
  await attempt(byId("document"), findDocument);
  const parts = [startHead, startFilters, startDocuments, startThresholds, startLabels, startDocument, startProgress, startCompare];
  for (const part of parts) part();
  start();
  if (stage && current().stage !== stage)
    showError("stage", `There is no report of a stage ${plain(stage)} here: this is ${current().stage}.`);
  loading();
}

/** A link from a comparison names a document by its id. */
async function findDocument() {
  const { stage, doc } = current();
  if (!doc.startsWith("id/")) return;
  const { key } = await ask("place", "place", new URLSearchParams({ stage, id: doc.slice(3) }));
  go({ doc: key }, { replace: true });
}

begin();

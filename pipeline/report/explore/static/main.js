/** The page of `corpusmill explore`: starts its parts, each of which follows the state in the address. */
import { startDocument } from "./document.js";
import { startDocuments } from "./documents.js";
import { byId } from "./dom.js";
import { attempt } from "./errors.js";
import { startFilters } from "./filters.js";
import { startKeys } from "./keys.js";
import { startProgress } from "./progress.js";
import { loadRun, run, stageOf } from "./run.js";
import { firstStage, startStages } from "./stages.js";
import { current, go, start } from "./state.js";
import { startSummary } from "./summary.js";
import { plain } from "./text.js";
import { startTheme } from "./theme.js";
import { startThresholds } from "./thresholds.js";
import { startViews } from "./views.js";
import { drawWarnings } from "./warnings.js";

async function begin() {
  startTheme();
  startKeys();
  const known = await attempt(byId("main"), loadRun);
  if (!known) return;
  byId("run").textContent = plain(run().name);
  drawWarnings();
  if (!stageOf(current())) go({ stage: firstStage() }, { replace: true });
  for (const part of [startViews, startStages, startFilters, startSummary, startDocuments, startThresholds, startDocument, startProgress]) part();
  start();
}

begin();

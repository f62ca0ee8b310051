/** The stages of the run, with the documents that each kept; one of them is selected. */
import { bar, byId, h, refill } from "./dom.js";
import { count, many, share } from "./format.js";
import { run } from "./run.js";
import { current, go, watch } from "./state.js";
import { line } from "./text.js";

export function startStages() {
  watch((state, changed) => {
    if (changed("stage")) drawStages();
  });
}

/** The stage that is selected first: the one whose rules dropped most documents, else the first. */
export function firstStage() {
  const dropped = (stage) => (stage.rules.some((rule) => rule.slider) ? stage.rows - stage.kept : -1);
  return [...run().stages].sort((a, b) => dropped(b) - dropped(a))[0]?.name ?? "";
}

export function drawStages() {
  const first = run().stages[0]?.rows ?? 0;
  const { stages, present, loading } = run();
  const missing = present.filter((name) => !stages.some((stage) => stage.name === name));
  refill(
    byId("stages"),
    stages.map((stage) => card(stage, first)),
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

function card(stage, first) {
  const lost = stage.rows - stage.kept;
  const here = current().stage === stage.name;
  return h.button(
    {
      type: "button",
      class: "stage-card",
      "aria-current": here ? "true" : null,
      data: { key: `stage ${stage.name}` },
      on: { click: () => go({ stage: stage.name }) },
    },
    h.b(line(stage.name)),
    stage.status !== "complete" && h.span({ class: "unfinished" }, ` ${stage.status}`),
    h.span({ class: "soft" }, `${many(stage.rows, stage.name === "ingest" ? "record" : "document")} in, ${count(stage.kept)} kept`),
    h.span({ class: lost ? "lost" : "soft" }, lost ? `${count(lost)} dropped (${share(lost, stage.rows)})` : "nothing dropped"),
    bar(first ? stage.kept / first : 0, "kept"),
  );
}

/** The progress of a run that still works: stages, throughput, time left, failures. */
import { ask, attempt } from "./api.js";
import { READ_ONLY, copyable } from "./commands.js";
import { button, byId, checkBox, firstOf, h, refill, table } from "./dom.js";
import { count, duration, many, share, value } from "./format.js";
import { onJob, startJob } from "./jobs.js";
import { explored, run } from "./run.js";
import { current, watch } from "./state.js";
import { line, plain } from "./text.js";
import { drawStale } from "./head.js";

/** Milliseconds between two requests, by the run's state. */
const EVERY = { running: 2000, unknown: 2000 };
const SELDOM = 15000;
/** Stages with a report of documents. */
const REPORTED = ["ingest", "filter", "dedup", "tokens"];
/** Warnings that are shown at first. */
const MANY = 10;
let status = null;
let chosen = { to: "", alarm: false }; // how far the run is to go on
let job = null; // the command that the page has started in this run

export function startProgress() {
  watch((state, changed) => {
    if (changed("view") && state.view === "progress") draw();
  });
  onJob((one) => {
    job = one.run === current().run ? one : null;
    if (job) refresh();
  });
  look();
}

const refresh = () =>
  attempt(byId("progress"), async () => {
    status = await ask("status", "status");
    drawStale(status.stale?.sentence);
    const told = ["complete", "stale"].includes(status.state) || job?.state === "failed";
    byId("state").textContent = told ? "" : plain(status.sentence);
    draw();
  });

async function look() {
  if (!document.hidden) await refresh();
  setTimeout(look, EVERY[status?.state] ?? SELDOM);
}

/** Whether a stage is now complete whose report was incomplete or missing when the server read it. */
function stale() {
  const done = status.stages.filter((stage) => stage.status === "complete" && REPORTED.includes(stage.name));
  return done.some(
    ({ name }) => !run().present.includes(name) || run().stages.some((stage) => stage.name === name && stage.status !== "complete"),
  );
}

function draw() {
  if (!status) return;
  const { phase, training, failures } = status;
  refill(
    byId("progress"),
    h.h2("Progress"),
    h.p(line(status.sentence), took(status)),
    job?.state !== "done" &&
      stale() &&
      h.p({ class: "warnings" }, "The run has gone on since its reports were read: start corpusmill explore again to see what is new."),
    status.left.length > 0 && leftPart(status),
    phase && phasePart(phase),
    training && trainingPart(training),
    stages(phase),
    failures?.last.length > 0 && failed(failures),
    status.warnings > 0 && warnings(),
  );
}

/** What is left to do: the command for it, and with --write the button. */
function leftPart({ left, to, command, alarm }) {
  if (!left.includes(chosen.to)) chosen.to = to;
  const take = (change) => (Object.assign(chosen, change), draw());
  const option = (name) => h.option({ value: name, selected: name === chosen.to }, name);
  const last = h.select({ on: { change: (event) => take({ to: event.target.value }) }, key: "go on to" }, left.map(option));
  const anyway = checkBox((on) => take({ alarm: on }), { checked: chosen.alarm, key: "go on alarm" });
  const go = button("Run them", () => startJob("go_on", chosen), { class: "strong", key: "go on" });
  const text = `${command} ${chosen.to}${alarm && chosen.alarm ? " --set dedup.alarm=warn" : ""}`;
  return h.div(
    h.h3("Left to do"),
    h.p({ class: "row" }, h.label(`${left.join(", ")}: up to `, last), explored().write ? go : h.span({ class: "soft" }, READ_ONLY)),
    alarm && h.p(h.label({ class: "choice" }, anyway, " also where a source loses more copies than alarm_share allows (dedup.alarm: warn)")),
    copyable(text, "the command that goes on"),
  );
}

/** The working time: that of all commands together where the run has ended, else that of the present command. */
const took = ({ ended, seconds, work_seconds: work }) =>
  ended ? ` ${duration(work)} of work in all.` : seconds !== null && ` ${duration(seconds)} since it began.`;

function stages(phase) {
  const rows = status.stages.map((stage) => {
    const report = stage.status === "complete" ? run().stages.find((one) => one.name === stage.name) : null;
    const now = phase?.stage === stage.name ? phase.share : stage.status === "complete" ? 1 : 0;
    const done = h.progress({ max: 1, value: now, "aria-label": `${stage.name}: ${share(now, 1)}` });
    const counts = [stage.tasks, stage.documents_in ?? report?.rows, stage.documents_out ?? report?.kept].map(count);
    return [stage.name, stage.status, done, ...counts];
  });
  const numbers = ["tasks", "documents in", "documents out"].map((name) => [name, "number"]);
  return table("Stages", [["stage"], ["state"], ["done"], ...numbers], rows);
}

function phasePart({ stage, phase, tasks, share: done, rows_per_second: speed, mb_per_second: size, seconds_left: left, workers }) {
  return h.div(
    h.h3(`${stage}${phase ? `: ${phase}` : ""}`),
    h.progress({ class: "wide", max: 1, value: done, "aria-label": `${stage}: ${share(done, 1)}` }),
    h.p(
      `${share(done, 1)}: ${count(tasks.before + tasks.done)} of ${many(tasks.planned, "task")} by ${many(workers, "worker")}`,
      speed && `, ${value(speed)} rows/s`,
      size && `, ${value(size)} MB/s`,
      left !== null && `, ${duration(left)} left`,
    ),
  );
}

const trainingPart = (training) =>
  h.p(
    `Step ${count(training.steps_done)} of ${count(training.steps)}, loss ${value(training.loss)}`,
    training.tokens_per_second && `, ${count(training.tokens_per_second)} tokens/s`,
    training.seconds_left !== null && `, ${duration(training.seconds_left)} left`,
  );

/** The warnings of tasks, in their own words. */
function warnings() {
  const sentences = status.first_warnings ?? [];
  const rest = status.warnings - sentences.length;
  return [
    h.h3(`${many(status.warnings, "warning")} of its tasks`),
    h.ul(firstOf(sentences, MANY, (sentence) => h.li(line(sentence)), "li")),
    rest > 0 && h.p({ class: "soft" }, `${count(rest)} more are in the report.`),
  ];
}

const failed = (failures) => [
  h.h3(many(failures.count, "failure")),
  h.ul(
    { class: "failed" },
    failures.last.map((one) => h.li("✗ ", h.b(line(one.stage)), " ", line(one.task), ": ", line(one.message))),
  ),
];

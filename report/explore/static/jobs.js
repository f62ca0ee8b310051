/** The command that the explorer has started: a fork that is made, or a run that goes on. It outlives a reload of the page. */
import { act, ask, attempt } from "./api.js";
import { button, byId, h, refill } from "./dom.js";
import { duration, share } from "./format.js";
import { current } from "./state.js";
import { line } from "./text.js";

/** Milliseconds between two questions. */
const EVERY = 1000;
const listeners = [];
let last = 0; // the number of the newest question: older ones end
let seen = false; // whether this page has seen it work, so that what the page knows is older than its end

/** Calls `listener(job)` with each state of the command. */
export const onJob = (listener) => listeners.push(listener);

export const startJobs = () => follow(() => ask("job", "job"));

/** Starts a command (`fork` or `go_on`) and shows how far it is, until it has ended. */
export const startJob = (name, body) => follow(() => act(name, body));

const follow = (first) =>
  attempt(byId("job"), async () => {
    const mine = ++last;
    let job = await first();
    draw(job);
    byId("job").removeAttribute("aria-busy");
    while (job.state === "working") {
      await new Promise((over) => setTimeout(over, EVERY));
      if (mine !== last) return;
      job = await ask("job", "job");
      draw(job);
    }
  });

const page = (run, more = {}) => `#${new URLSearchParams({ ...(run && { run }), ...more })}`;

function draw(job) {
  seen ||= job.state === "working";
  listeners.forEach((listener) => listener(job));
  byId("job").hidden = job.state === "none";
  if (job.state === "none") return;
  const { what, of, run, stage, message } = job;
  const took = duration(job.seconds);
  const said = {
    working: [what === "fork" ? `is being made (${took})` : `is at work (${took})`, stage && `: ${stage} ${share(job.share ?? 0, 1)}`],
    done: `${what === "fork" ? "is made" : "has gone on"}, in ${took}.`,
    stopped: `was stopped after ${took}; what is finished stays.`,
    failed: ["has stopped: ", line(message)],
  }[job.state];
  const name = job.state === "done" || what === "run" ? h.a({ href: page(run, { view: "progress" }), key: "job run" }, line(job.folder)) : line(job.folder);
  refill(
    byId("job"),
    h.b({ class: job.state === "failed" ? "bad" : "" }, name, " "),
    said,
    " ",
    job.state === "working" && button("Stop", () => follow(() => act("stop", { run: of })), { key: "job stop" }),
    job.state === "done" && what === "fork" && run !== current().run && "Open it to see what is left to do.",
    job.state === "done" && seen && run === current().run && button("Show what is new", () => location.reload(), { key: "job new" }),
  );
}

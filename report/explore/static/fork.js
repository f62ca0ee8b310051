/** A new run with the thresholds on the sliders: the command, and with --write a button that runs it. */
import { act, ask } from "./api.js";
import { copyable } from "./copy.js";
import { button, byId, h, refill } from "./dom.js";
import { attempt } from "./errors.js";
import { duration } from "./format.js";
import { explored } from "./run.js";
import { line } from "./text.js";

/** Milliseconds between two questions about a fork that is being made. */
const EVERY = 1000;
let shown = "";

/** Shows the command for these thresholds (`moves`: by rule a number as text, or "off"); empty: none. */
export function drawFork(command, moves) {
  if (command === shown) return; // what a fork says stays while the thresholds do
  shown = command;
  const set = Object.fromEntries([...moves].map(([rule, given]) => [rule, given === "off" ? given : Number(given)]));
  refill(
    byId("fork"),
    command && [
      h.p("As a new run, which shares this one’s files; this run stays as it is:"),
      copyable(command, "the command that makes a new run"),
      explored().write &&
        h.p(
          { class: "row" },
          button("Make the new run", () => make(set), { data: { key: "fork" } }),
        ),
      h.div({ id: "fork-state", role: "status" }),
    ],
  );
}

const make = (set) =>
  attempt(byId("fork"), async () => {
    let job = await act("fork", { set_: set });
    while (job.state === "working") {
      say(`Making ${job.folder}: ${duration(job.seconds)}`);
      await new Promise((done) => setTimeout(done, EVERY));
      job = await ask("job", "job");
    }
    if (job.state === "failed") return say(job.message);
    say(`Made in ${duration(job.seconds)}: `, [
      job.run
        ? h.a({ href: `#${new URLSearchParams({ run: job.run })}`, id: "fork-link" }, line(job.run))
        : copyable(job.command, "the command that shows it"),
    ]);
  });

function say(text, more = []) {
  const part = byId("fork-state");
  if (part) refill(part, h.p(line(text), " ", more));
}

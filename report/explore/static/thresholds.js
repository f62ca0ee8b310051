/** Sliders for thresholds: show at once how much other thresholds would keep, which documents they bring back, and the recipe's lines. */
import { ask, attempt } from "./api.js";
import { drawChanged } from "./changed.js";
import { forget } from "./charts.js";
import { drawFork, openRecipe } from "./commands.js";
import { bar, button, byId, checkBox, firstOf, h, refill } from "./dom.js";
import { condition, count, member, roughly, share } from "./format.js";
import { ruleNamed, rulesByFired, stageOf } from "./run.js";
import { Slider } from "./slider.js";
import { current, go, parameters, watch } from "./state.js";
import { label, line } from "./text.js";

/** Sliders that are shown at first. */
const MANY = 40;
let sliders = [];
let live = new Map(); // the present thresholds; the address gets them once a slider is released
let last = null; // the rule that was moved last: moving it again adds no step to the history
let asking = false;
let again = false;
let answer = null;

const inView = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) if (entry.isIntersecting) sliders.find((slider) => slider.node === entry.target)?.load();
  },
  { rootMargin: "200px" },
);

export function startThresholds() {
  watch((state, changed) => {
    if (changed("stage")) build(state);
    if (changed("set", "stage", "range")) follow(state);
    if (state.view === "thresholds" && changed("view", "stage", "set")) update();
    if (state.view === "thresholds" && changed("view", "range")) reveal(state.range);
    if (state.view === "thresholds" && changed("view", "changed", "set", "stage")) drawChanged(state);
  });
}

function build(state) {
  const stage = stageOf(state);
  sliders.forEach((slider) => forget(slider.chart));
  inView.disconnect();
  answer = null;
  sliders = [];
  byId("sliders").replaceChildren();
  add(MANY);
  refill(
    byId("effect"),
    sliders.length === 0 &&
      h.p("Nothing can be tried here: no rule of this stage has a threshold that can be moved without running it again."),
  );
  drawFixed(byId("fixed"), stage, moved);
}

/** Adds sliders for the next `number` rules, and for those in the address. */
function add(number) {
  const stage = stageOf(current());
  const there = new Set(sliders.map((slider) => slider.rule));
  const rest = rulesByFired(stage).filter((rule) => rule.slider && !there.has(rule));
  const wanted = rest.filter((rule, place) => place < number || current().set.has(rule.rule) || current().range === rule.rule);
  const more = wanted.map((rule) => new Slider(stage, rule, moved));
  more.forEach((slider) => inView.observe(slider.node));
  sliders.push(...more);
  byId("sliders").append(...more.map((slider) => slider.node));
  const left = rest.length - more.length;
  refill(byId("sliders-more"), left > 0 && button(`Show more of ${count(left)} other rules`, () => add(MANY), { key: "sliders more" }));
}

function follow(state) {
  if ([...state.set.keys(), state.range].some((name) => ruleNamed(stageOf(state), name)?.slider && !sliderOf(name))) add(0);
  live = new Map(state.set);
  sliders.forEach((slider) => slider.show(live.get(slider.rule.rule) ?? null));
  showFixed(live);
}

function moved(rule, given, done) {
  if (given === null) live.delete(rule.rule);
  else live.set(rule.rule, String(given));
  if (done) {
    go({ set: new Map(live), range: rule.rule }, { replace: last === rule.rule });
    last = rule.rule;
  }
  update();
}

/** Asks how much the thresholds keep. While an answer is pending, only the newest thresholds wait to be asked next. */
async function update() {
  if (sliders.length === 0) return;
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  const state = { ...current(), set: new Map(live) };
  const asked = parameters(state, ["stage", "set"]);
  await attempt(byId("effect"), async () => {
    if (answer?.asked === String(asked)) return; // drawing again would replace a button while it is pressed
    answer = { ...(await ask("thresholds", "thresholds", asked)), asked: String(asked) };
    if (state.stage === current().stage) draw();
  });
  asking = false;
  if (again) {
    again = false;
    update();
  }
}

function draw() {
  const rules = new Map(answer.rules.map((rule) => [rule.rule, rule]));
  sliders.forEach((slider) => slider.update(rules.get(slider.rule.rule), member(answer.found, slider.rule.rule)));
  drawFork(answer, live);
  const { rows } = stageOf(current());
  const { before, after, gained, lost } = answer;
  refill(
    byId("effect"),
    h.p(
      { id: "kept-share", role: "status" },
      "Kept ",
      h.b(share(after.kept, rows)),
      ` of ${count(rows)} documents`,
      live.size > 0 && [
        ` (was ${share(before.kept, rows)}): ${count(before.kept)} → ${count(after.kept)}, `,
        `${roughly(before.characters)} → ${roughly(after.characters)} characters`,
      ],
    ),
    bar(after.kept / rows, "kept"),
    h.p(
      { class: "row" },
      toggle("gained", `${count(gained)} come back`, gained),
      toggle("lost", `${count(lost)} would go`, lost),
      button("Recipe line", () => openRecipe(answer), {
        class: "strong",
        id: "recipe-open",
        disabled: live.size === 0,
        key: "recipe",
      }),
      button(
        "Reset",
        () => {
          last = null;
          go({ set: new Map(), changed: "" });
        },
        { disabled: live.size === 0, key: "reset" },
      ),
    ),
  );
}

function toggle(which, label, number) {
  const pressed = current().changed === which;
  const press = () => {
    go({ set: new Map(live), changed: pressed ? "" : which });
    draw();
  };
  return button(label, press, { "aria-pressed": String(pressed), disabled: number === 0 && !pressed, data: { key: which } });
}

const sliderOf = (rule) => sliders.find((one) => one.rule.rule === rule);

/** Brings the slider of a rule into view. */
function reveal(rule) {
  const slider = sliderOf(rule);
  if (!slider || slider.node.contains(document.activeElement)) return;
  slider.node.scrollIntoView({ block: "center" });
  slider.range.focus({ preventScroll: true });
}

/** Fills `part`; a switch calls `moved(rule, "off" or null, true)`. Empty for a stage whose thresholds can't be changed. */
function drawFixed(part, stage, moved) {
  const rules = rulesByFired(stage).filter((rule) => !rule.slider && rule.column && rule.comparison);
  const there = stage.rules.some((rule) => rule.slider) && rules.length > 0;
  refill(
    part,
    there && [
      h.h3("Rules without a number"),
      h.ul(
        { class: "changed" },
        firstOf(rules, 40, (rule) => item(rule, moved), "li"),
      ),
    ],
  );
}

function item(rule, moved) {
  const box = checkBox((on) => moved(rule, on ? null : "off", true), { checked: true, data: { fixed: rule.rule } });
  return h.li(
    h.label(
      { class: "choice" },
      box,
      h.span(
        h.b(label(rule.rule)),
        " drops when ",
        line(condition(rule)),
        h.span({ class: "soft" }, ` · drops ${count(rule.fired)}, alone ${count(rule.alone)}`),
      ),
    ),
  );
}

/** Shows which of the rules are on. */
function showFixed(live) {
  for (const box of byId("fixed").querySelectorAll("input")) box.checked = live.get(box.dataset.fixed) !== "off";
}

"use strict";
// Draws the page's charts (plot.js), each when it is first seen and when its width changes, and says them in words.
const figures = JSON.parse(document.getElementById("figures").textContent);
const charts = [...document.querySelectorAll(".chart")];
const figureOf = (chart) => figures[Number(chart.dataset.figure)];

/** One series in words, for readers who do not see the chart. */
function sentence(series, figure) {
  const name = series.name || figure.y.title || "value";
  const known = plot.points(series, figure.x).filter(([, value]) => typeof value === "number");
  if (!known.length) return `${name}: no values`;
  if (known.length <= 6) {
    const each = known.map(([label, value]) => (figure.x.names ? `${label} ${plot.say(value)}` : `${plot.say(value)} at ${label}`));
    return `${name}: ${each.join(", ")}`;
  }
  const [most, least] = [1, -1].map((sign) => known.reduce((best, point) => (sign * (point[1] - best[1]) > 0 ? point : best)));
  if (series.kind === "steps") {
    const all = known.reduce((sum, [, value]) => sum + value, 0);
    return all ? `${name}: ${plot.say(all)} in all, most (${plot.say(most[1])}) at ${most[0]}` : `${name}: none`;
  }
  const [first, last] = [known[0], known[known.length - 1]];
  return `${name}: ${plot.say(first[1])} at ${first[0]}, ${plot.say(last[1])} at ${last[0]}; ` +
    `least ${plot.say(least[1])} at ${least[0]}, most ${plot.say(most[1])} at ${most[0]}`;
}

/** Describes a chart: each series, and the marks in it. */
function describe(chart) {
  const figure = figureOf(chart);
  const sentences = figure.series.slice(0, 8).map((series) => sentence(series, figure));
  if (figure.series.length > 8) sentences.push(`and ${figure.series.length - 8} more`);
  const marks = (figure.marks || []).map((mark) => mark.text).filter(Boolean);
  if (marks.length) sentences.push(`marked: ${marks.join(", ")}`);
  chart.style.minHeight = `${figure.height ?? 240}px`;
  chart.setAttribute("aria-label", `${chart.getAttribute("aria-label").replace(/[.\s]+$/, "")}. ${sentences.join(". ")}.`);
}

/** A chart in a closed element has no width, and is drawn once it is opened. */
const observer = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.clientWidth && Number(target.dataset.drawn) !== target.clientWidth) {
      target.dataset.drawn = String(target.clientWidth);
      plot.draw(target, figureOf(target));
    }
  }
});

/** Width in pixels of a chart on A4 paper, alone in a row and as one of two. */
const PAPER = { one: 668, two: 318 };
addEventListener("beforeprint", () => {
  for (const chart of charts) {
    if (chart.checkVisibility()) plot.draw(chart, figureOf(chart), chart.closest(".charts, .metric") ? PAPER.two : PAPER.one);
  }
});
addEventListener("afterprint", () => {
  for (const chart of charts.filter((one) => one.checkVisibility())) plot.draw(chart, figureOf(chart));
});

charts.forEach(describe);
charts.forEach((chart) => observer.observe(chart));

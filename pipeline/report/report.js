"use strict";
delete document.createElement; // back to the browser's own (see before_plotly.js)

const figures = JSON.parse(document.getElementById("figures").textContent);
const charts = [...document.querySelectorAll(".chart")];
const options = { displayModeBar: false, responsive: true };
const drawn = new Set();

/** A figure with its colours (`var(--kept)`) replaced by the theme's values. */
function themed(figure) {
  const color = (name) => theme.color(name);
  const { data, layout } = JSON.parse(JSON.stringify(figure), (key, value) => {
    const name = typeof value === "string" && value.match(/^var\(--([a-z0-9-]+)\)$/);
    return name ? color(name[1]) : value;
  });
  const axis = { gridcolor: color("grid"), zerolinecolor: color("rule"), linecolor: color("rule") };
  Object.assign(layout, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("ink") },
    hoverlabel: { bgcolor: color("panel"), font: { color: color("ink") } },
    xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis },
  });
  return [data, layout];
}

function draw(chart) {
  drawn.add(chart);
  Plotly.react(chart, ...themed(figures[Number(chart.dataset.figure)]), options);
}

/** Draws what is in view first, then one chart after the other, so that the page answers while it fills. */
function drawAll() {
  const height = window.innerHeight;
  const visible = (chart) => chart.getBoundingClientRect().top < height;
  const queue = [...charts.filter(visible), ...charts.filter((chart) => !visible(chart))];
  const next = () => {
    const chart = queue.shift();
    if (!chart) {
      document.body.dataset.drawn = String(drawn.size);
      return;
    }
    draw(chart);
    setTimeout(next, 0);
  };
  next();
}

drawAll();
document.addEventListener("theme", () => charts.forEach(draw));
addEventListener("beforeprint", () => charts.filter((chart) => !drawn.has(chart)).forEach(draw));

"use strict";
// Sliders for thresholds: show how much each threshold would keep, from counts in the page. Without scripts the tables below say the same.
const sliders = (() => {
  const plain = (value) => value.toLocaleString("en");
  const change = (value) => (value > 0 ? `+${plain(value)}` : value < 0 ? `−${plain(-value)}` : "±0");

  function show(slider, data) {
    const input = slider.querySelector("input");
    const place = Number(input.value);
    const kept = data.documents[place];
    const threshold = data.thresholds[place];
    const share = data.of ? `${((100 * kept) / data.of).toFixed(1)}%` : "–";
    const more = place === data.now ? "now" : change(kept - data.documents[data.now]);
    const words = `fails if ${data.fails} ${threshold}: ${plain(kept)} documents (${share}) kept, ${more}; ${plain(data.characters[place])} characters`;
    slider.querySelector("output").textContent = words;
    input.setAttribute("aria-valuetext", words);
    slider.querySelector("code").textContent = place === data.now ? "" : `filter.thresholds.${data.rule}=${threshold}`;
  }

  /** Moves the threshold's line in the histogram above, or sets it for a histogram that is drawn later. */
  function moveLine(slider, data) {
    const chart = slider.closest("figure")?.querySelector(".chart");
    const figure = chart && figures[Number(chart.dataset.figure)];
    const shape = figure?.layout.shapes?.[data.line];
    if (!shape) return;
    const threshold = data.thresholds[Number(slider.querySelector("input").value)];
    const logarithmic = figure.layout.xaxis.type === "log";
    const x = logarithmic ? Math.max(threshold, figure.data[0].x[0]) : threshold; // a logarithmic axis has no zero
    const note = figure.layout.annotations[data.line];
    Object.assign(shape, { x0: x, x1: x });
    Object.assign(note, { x: logarithmic ? Math.log10(x) : x, text: note.text.replace(/\S+$/, String(threshold)) });
    const [line, text] = [`shapes[${data.line}]`, `annotations[${data.line}]`];
    const changes = { [`${line}.x0`]: x, [`${line}.x1`]: x, [`${text}.x`]: note.x, [`${text}.text`]: note.text };
    if (chart.layout) Plotly.relayout(chart, changes);
  }

  for (const slider of document.querySelectorAll(".slider")) {
    const data = JSON.parse(slider.dataset.changes);
    const input = slider.querySelector("input");
    input.disabled = false;
    input.value = data.now; // browsers keep the value from before a reload
    input.addEventListener("input", () => {
      show(slider, data);
      moveLine(slider, data);
    });
    show(slider, data);
  }
  return { show };
})();

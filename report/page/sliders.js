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

  /** Moves the threshold's line in the histogram beside the slider. */
  function moveLine(slider, data) {
    const chart = slider.closest("figure")?.querySelector(".chart");
    const mark = chart && figureOf(chart).marks[data.line];
    if (!mark) return;
    const threshold = data.thresholds[Number(slider.querySelector("input").value)];
    Object.assign(mark, { x: threshold, text: mark.text.replace(/\S+$/, String(threshold)) });
    if (chart.clientWidth) plot.draw(chart, figureOf(chart));
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

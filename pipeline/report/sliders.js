"use strict";
// Sliders over thresholds: what each would keep, from counts that the page holds. Without scripts the tables below them say the same.
const sliders = (() => {
  const plain = (value) => value.toLocaleString("en");
  const change = (value) => (value > 0 ? `+${plain(value)}` : value < 0 ? `−${plain(-value)}` : "±0");

  function show(slider, told) {
    const input = slider.querySelector("input");
    const place = Number(input.value);
    const kept = told.documents[place];
    const threshold = told.thresholds[place];
    const share = told.of ? `${((100 * kept) / told.of).toFixed(1)}%` : "–";
    const more = place === told.now ? "now" : change(kept - told.documents[told.now]);
    const words = `fails if ${told.fails} ${threshold}: ${plain(kept)} documents (${share}) kept, ${more}; ${plain(told.characters[place])} characters`;
    slider.querySelector("output").textContent = words;
    input.setAttribute("aria-valuetext", words);
    slider.querySelector("code").textContent = place === told.now ? "" : `filter.thresholds.${told.rule}=${threshold}`;
  }

  for (const slider of document.querySelectorAll(".slider")) {
    const told = JSON.parse(slider.dataset.changes);
    const input = slider.querySelector("input");
    input.disabled = false;
    input.value = told.now; // browsers keep what was there before a reload
    input.addEventListener("input", () => show(slider, told));
    show(slider, told);
  }
  return { show };
})();

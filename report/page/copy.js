"use strict";
// Adds a copy button to each query that is opened.
(() => {
  async function copy(button, code) {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch { // copying is not allowed here: the selected text can be copied by keyboard
      getSelection().selectAllChildren(code);
      button.textContent = "Marked";
    }
  }

  for (const query of document.querySelectorAll(".query")) {
    query.addEventListener("toggle", () => {
      if (!query.open || query.querySelector("button")) return;
      const button = query.insertBefore(document.createElement("button"), query.querySelector("pre"));
      button.type = "button";
      button.className = "all";
      button.textContent = "Copy";
      button.addEventListener("click", () => copy(button, query.querySelector("code")));
    });
  }
})();

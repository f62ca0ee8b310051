/** Commands and recipes with a copy button. */
import { button, el } from "./dom.js";
import { nodes } from "./text.js";

/** `text` in a box with a button that copies it. */
export function copyable(text, label) {
  const status = el("span", { class: "copy-status", role: "status" });
  const copy = async () => {
    status.textContent = (await copied(text)) ? "copied" : "not copied: select the text";
    setTimeout(() => status.replaceChildren(), 3000);
  };
  const box = el("pre", { class: "command", tabIndex: 0, "aria-label": label, role: "group" }, el("code", {}, ...nodes(text)));
  return el("div", { class: "copyable" }, box, button("Copy", copy, { "aria-label": `Copy ${label}` }), status);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Commands and recipes with a copy button. */
import { button, h } from "./dom.js";
import { nodes } from "./text.js";

/** `text` in a box with a button that copies it. */
export function copyable(text, label) {
  const status = h.span({ class: "copy-status", role: "status" });
  const copy = async () => {
    status.textContent = (await copied(text)) ? "copied" : "not copied: select the text";
    setTimeout(() => status.replaceChildren(), 3000);
  };
  const box = h.pre({ class: "command", tabIndex: 0, "aria-label": label, role: "group" }, h.code(...nodes(text)));
  return h.div({ class: "copyable" }, box, button("Copy", copy, { "aria-label": `Copy ${label}` }), status);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Light, dark, or the system's theme; stored in this browser. */
import { byId } from "./dom.js";
import { recall, remember } from "./memory.js";

const listeners = [];

/** Calls `listener` when colours have changed. */
export const onTheme = (listener) => listeners.push(listener);

export function startTheme() {
  const choice = byId("theme");
  choice.value = recall("theme");
  apply(choice.value);
  choice.addEventListener("change", () => {
    remember("theme", choice.value);
    apply(choice.value);
    listeners.forEach((listener) => listener());
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => listeners.forEach((listener) => listener()));
}

const apply = (theme) => (document.documentElement.dataset.theme = theme);

/** A colour of the style sheet (`--kept`) in the present theme. */
export function color(name) {
  const probe = byId("probe");
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** Choices that this browser stores (theme, keys). Where it stores nothing, they last until the page is closed. */
import { byId } from "./dom.js";

const here = new Map();

export function recall(name) {
  try {
    return localStorage.getItem(`corpusmill-${name}`) ?? here.get(name) ?? "";
  } catch {
    return here.get(name) ?? "";
  }
}

export function remember(name, value) {
  here.set(name, value);
  try {
    localStorage.setItem(`corpusmill-${name}`, value);
  } catch {
    // a browser that stores nothing
  }
}

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

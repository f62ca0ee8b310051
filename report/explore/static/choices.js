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

export function startTheme() {
  const choice = byId("theme");
  choice.value = recall("theme");
  apply(choice.value);
  choice.addEventListener("change", () => {
    remember("theme", choice.value);
    apply(choice.value);
  });
}

const apply = (theme) => (document.documentElement.dataset.theme = theme);

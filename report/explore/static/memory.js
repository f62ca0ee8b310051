/** Choices that this browser stores (theme, keys). Where it stores nothing, they last until the page is closed. */

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

"use strict";
// Applies the theme that the reader chose on this machine, before the first paint. A page from disk may have no storage; then the system's
// theme holds.
const theme = {
  key: "corpusmill-theme",

  /** "light", "dark", or "" for the system's. */
  chosen() {
    return document.documentElement.dataset.theme || "";
  },

  choose(name) {
    if (name === "light" || name === "dark") document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
  },

  remember(name) {
    try {
      localStorage.setItem(this.key, name);
    } catch { /* no storage here: the choice holds until the page is closed */ }
  },

  remembered() {
    try {
      return localStorage.getItem(this.key);
    } catch {
      return null;
    }
  },
};
theme.choose(theme.remembered());

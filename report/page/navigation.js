"use strict";
// The list of sections: marks the section that is read, becomes a menu on narrow screens, and holds the choice of theme and of queries.
(() => {
  const nav = document.getElementById("sections");
  const list = nav.querySelector("ul");
  const links = [...nav.querySelectorAll("a")];
  const headings = links.map((link) => document.getElementById(link.hash.slice(1)));

  const menu = nav.insertBefore(document.createElement("button"), list);
  menu.type = "button";
  menu.className = "menu";
  list.id = "section-list";
  menu.setAttribute("aria-controls", list.id);
  const open = (yes) => {
    menu.setAttribute("aria-expanded", String(yes));
    nav.classList.toggle("open", yes);
  };
  menu.addEventListener("click", () => open(!nav.classList.contains("open")));
  nav.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && nav.classList.contains("open")) {
      open(false);
      menu.focus();
    }
  });
  list.addEventListener("click", () => open(false));

  let current;
  /** The section that is read: the last one whose heading has reached the upper part of the window. */
  function mark() {
    const bound = window.innerHeight * 0.3;
    const passed = headings.filter((heading) => heading.getBoundingClientRect().top <= bound).length;
    const link = links[passed - 1];
    if (link === current && menu.textContent) return;
    current?.removeAttribute("aria-current");
    current = link;
    current?.setAttribute("aria-current", "true");
    menu.textContent = current ? current.textContent : "Sections";
  }

  const select = nav.querySelector(".theme select");
  select.value = theme.chosen();
  select.addEventListener("change", () => {
    theme.remember(select.value);
    theme.choose(select.value);
  });

  /** Copies the query of a button; where that is not allowed, selects it, so that it can be copied by keyboard. */
  async function copy(button) {
    const code = button.closest(".query").querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Marked";
    }
  }

  for (const query of document.querySelectorAll("div.query")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "all";
    button.textContent = "Copy";
    button.addEventListener("click", () => copy(button));
    query.firstElementChild.after(" ", button);
  }

  /** Opens the closed elements around what a link leads to. */
  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    let closed = target?.closest("details:not([open])");
    if (!closed) return;
    for (; closed; closed = closed.parentElement.closest("details:not([open])")) closed.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", reveal);

  open(false);
  mark();
  reveal();
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      mark();
    });
  }, { passive: true });
  document.documentElement.classList.add("scripted");
})();

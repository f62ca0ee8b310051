/** Makes elements from data. Every string becomes a text node or an attribute's value, never markup, so crawl text can't act as code. */

/** What is set as an attribute, like all names with a dash, and what as a property. Nothing that reads markup is among them. */
const ATTRIBUTES = ["role", "type", "scope"];
const BOXES = ["value", "checked", "selected", "disabled", "rows", "min", "max", "step", "autocomplete", "spellcheck"];
const PROPERTIES = ["id", "title", "href", "download", "dir", "tabIndex", "open", ...BOXES];

/**
 * Makes elements by their tags: `h.p({ class: "soft" }, "words", node)`; the properties may be left out. Besides the names above they are
 * `class`, `on` (listeners by event), `data` (dataset), and `key` (names the element in its list, see `refill`); others throw. Children
 * that are null or false are left out; strings and numbers become text.
 */
export const h = new Proxy({}, { get: (_, tag) => made.bind(null, tag) });

function made(tag, ...given) {
  const properties = given[0]?.constructor === Object ? given.shift() : {};
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name === "class") node.className = value;
    else if (name === "on") Object.entries(value).forEach(([event, listener]) => node.addEventListener(event, listener));
    else if (name === "key") node.dataset.key = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name.includes("-") || ATTRIBUTES.includes(name)) node.setAttribute(name, value);
    else if (PROPERTIES.includes(name)) node[name] = value;
    else throw new Error(`${name} is not a property that an element gets`);
  }
  node.append(...nodes(given));
  return node;
}

const nodes = (children) =>
  children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));

export const byId = (id) => document.getElementById(id);

/** Replaces the content of `parent` by `children`. The focus stays on the element with the same `data-key`. */
export function refill(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  parent.replaceChildren(...nodes(children));
  if (focused === undefined) return;
  for (const node of parent.querySelectorAll("[data-key]")) {
    if (node.dataset.key === focused) return node.focus({ preventScroll: true });
  }
}

/**
 * A named table that scrolls in its own box. `heads`: the name and the class of each column. `rows`: lists of cells; the first cell is the
 * header of its row.
 */
export function table(name, heads, rows) {
  const cells = (row) => row.map((cell, place) => h[place ? "td" : "th"]({ scope: place ? null : "row", class: heads[place][1] }, cell));
  const head = h.thead(h.tr(heads.map(([words, kind]) => h.th({ scope: "col", class: kind }, words))));
  const body = h.tbody(rows.map((row) => h.tr(cells(row))));
  return h.div({ class: "scroll", tabIndex: 0, role: "region", "aria-label": name }, h.table({ class: "values" }, head, body));
}

/** A bar that shows a share (0 to 1) beside a number; screen readers read only the number. */
export function bar(share, kind = "") {
  const inner = h.span({ class: "bar-inner" });
  inner.style.width = `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  return h.span({ class: `bar ${kind}`, "aria-hidden": "true" }, inner);
}

/** A button that calls `act`. */
export function button(label, act, properties = {}) {
  return h.button({ type: "button", ...properties, on: { click: act, ...properties.on } }, label);
}

/** A check box that calls `take(checked)`. */
export const checkBox = (take, properties) =>
  h.input({ type: "checkbox", ...properties, on: { change: (event) => take(event.target.checked) } });

/**
 * The nodes of the first `most` items, and a button that replaces itself by the nodes of the others: a document may have failed ten
 * thousand rules. `around` is the tag of the element around the button.
 */
export function firstOf(items, most, node, around = "span") {
  const shown = items.slice(0, most).map(node);
  if (items.length <= most) return shown;
  const others = () => {
    const fragment = document.createDocumentFragment();
    for (const item of items.slice(most)) fragment.append(node(item));
    rest.replaceWith(fragment);
  };
  const more = `and ${(items.length - most).toLocaleString("en")} more`;
  const rest = h[around](button(more, others, { class: "plain" }));
  return [...shown, rest];
}

"use strict";
// Completes every table of the page: a name, headers of rows and columns, sorting by column. Without scripts the same tables are readable.
const tables = (() => {
  let regions = 0;

  /** The title of an element: its caption, the summary around it, or the last heading before it. */
  function title(element) {
    const caption = element.querySelector("caption");
    const around = element.closest("details");
    const summary = around && around.querySelector("summary");
    if (caption || summary) return (caption || summary).textContent.trim();
    const before = [...document.querySelectorAll("h1, h2, h3, h4")].filter(
      (heading) => heading.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING);
    return before.length ? before[before.length - 1].textContent.trim() : "Table";
  }

  /** The number that a cell begins with ("1,234", "12.5%", "< 20"), or NaN. */
  function numberOf(cell) {
    return parseFloat(cell.textContent.trim().replace(/^[<>=≤≥~]+\s*/, "").replace(/,(?=\d{3})/g, ""));
  }

  function compare(numeric, down) {
    const sign = down ? -1 : 1;
    return ([a], [b]) => {
      if (!numeric) return sign * a.textContent.trim().localeCompare(b.textContent.trim(), "en", { numeric: true });
      const [x, y] = [numberOf(a), numberOf(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y)); // text without a number comes last
      return sign * (x - y);
    };
  }

  function sort(table, column, header) {
    const body = table.tBodies[0];
    const pairs = [...body.rows].map((row) => [row.cells[column], row]);
    const numeric = pairs.filter(([cell]) => !Number.isNaN(numberOf(cell))).length > pairs.length / 2;
    const order = header.getAttribute("aria-sort");
    const down = order ? order === "ascending" : numeric; // numbers: the largest first
    body.append(...pairs.sort(compare(numeric, down)).map(([, row]) => row));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  /**
   * Whether the rows can be sorted: each has as many cells as there are headers, and its first cell has text (an empty one continues the
   * row above).
   */
  function sortable(table) {
    const head = table.tHead?.rows.length === 1 && table.tHead.rows[0].cells;
    const rows = table.tBodies.length === 1 ? [...table.tBodies[0].rows] : [];
    return head && rows.length > 2 && rows.every((row) => row.cells.length === head.length && row.cells[0].textContent.trim() !== "");
  }

  function addOrder(table) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      if (!header.textContent.trim() || header.querySelector("button, input")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "order";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, column, header));
      header.append(button);
    });
  }

  /** Makes elements that are larger than their box scrollable by keyboard; other elements are no stop of the Tab key. */
  function watch(box, role, name) {
    const fit = () => {
      const larger = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
      for (const [key, value] of [["tabindex", "0"], ["role", role], ["aria-label", name]]) {
        if (larger) box.setAttribute(key, value);
        else box.removeAttribute(key);
      }
    };
    new ResizeObserver(fit).observe(box);
  }

  function improve(table) {
    const name = title(table);
    if (!table.caption) table.setAttribute("aria-label", name);
    for (const header of table.tHead?.querySelectorAll("th") || []) header.scope ||= "col";
    for (const row of table.tBodies[0]?.rows || []) {
      const first = row.cells[0];
      if (first?.tagName === "TD" && !first.classList.contains("number")) first.setAttribute("role", "rowheader");
    }
    if (sortable(table)) addOrder(table);
    const region = table.closest(".scroll");
    regions += 1;
    if (region) watch(region, "region", `${name}, table ${regions}`);
  }

  document.querySelectorAll("table").forEach(improve);
  document.querySelectorAll(".text, .warnings ul, pre").forEach((box) => watch(box, "group", "text that scrolls"));
  return { improve };
})();

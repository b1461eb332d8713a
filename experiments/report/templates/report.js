
// Tables with `data-sortable` are sorted by the buttons that this puts into their heads. Without scripts they are tables.
"use strict";
(() => {
  const NONE = "–";
  const number = (text) => {
    const plain = text.replace(/−/g, "-").replace(/[,×%$+]/g, "").trim();
    return /^-?\d/.test(plain) ? parseFloat(plain) : NaN;
  };
  const order = (a, b) => {
    const [x, y] = [number(a), number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };
  const sort = (table, column, head) => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const text = (row) => row.cells[column].textContent.trim();
    const rows = [...table.tBodies[0].rows].sort((r, s) => {
      const [a, b] = [text(r), text(s)];
      if ((a === NONE) !== (b === NONE)) return a === NONE ? 1 : -1; // what is not known comes last
      return up ? order(a, b) : order(b, a);
    });
    table.tBodies[0].append(...rows);
  };
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, column, head));
      head.append(button);
    });
  }
})();

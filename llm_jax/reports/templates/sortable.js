// A table whose columns sort: a column's name once for the smallest first, again for the largest. Cells without a value stay last.
(() => {
  "use strict";
  const order = new Intl.Collator(document.documentElement.lang, { numeric: true });
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.value;
        const compare = (one, other) => (isNaN(one) || isNaN(other) ? order.compare(one, other) : one - other);
        body.append(...[...body.rows].sort((one, other) =>
          Number(value(one) === "") - Number(value(other) === "") || direction * compare(value(one), value(other))));
      });
    });
  }
})();

// Tables sort when a head is pressed; pictures open large.
for (const t of document.querySelectorAll("table.sorts")) {
  const heads = [...t.tHead.rows[0].cells], body = t.tBodies[0];
  heads.forEach((th, i) => th.firstChild.addEventListener("click", () => {
    const was = th.getAttribute("aria-sort"), down = was ? was === "ascending" : i > 0;
    heads.forEach(h => h.removeAttribute("aria-sort"));
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = r => { const v = r.cells[i].dataset.v; return v !== undefined ? +v : null; };
    const text = r => r.cells[i].textContent, numbers = [...body.rows].some(r => value(r) !== null);
    [...body.rows].sort((a, b) => {
      if (!numbers) return (down ? -1 : 1) * text(a).localeCompare(text(b), "en", {numeric: true});
      const x = value(a), y = value(b);
      if (x === null) return y === null ? 0 : 1;
      if (y === null) return -1;
      return down ? y - x : x - y;
    }).forEach(r => body.append(r));
  }));
}
const large = document.querySelector("dialog");
for (const shot of document.querySelectorAll(".shot")) shot.addEventListener("click", () => {
  const text = document.createElement("p");
  text.textContent = shot.parentElement.querySelector("figcaption").textContent;
  large.replaceChildren(shot.firstElementChild.cloneNode(true), text);
  large.showModal();
});
large.addEventListener("click", () => large.close());

"use strict";

// Charts: plotly draws them; text and grid take the page's colours, and change with the system's scheme.
(() => {
  const charts = [...document.querySelectorAll(".chart")];
  if (!charts.length) return;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function themed(layout) {
    const soft = colour("--soft"), rule = colour("--rule");
    layout.font.color = soft;
    layout.font.family = getComputedStyle(document.body).fontFamily;
    layout.hoverlabel = {
      bgcolor: colour("--card"), bordercolor: rule, align: "left",
      font: { color: colour("--ink"), family: layout.font.family },
    };
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      Object.assign(layout[name], { gridcolor: rule, linecolor: rule, automargin: true });
    }
    return layout;
  }

  const touch = matchMedia("(pointer: coarse)").matches;
  const config = { responsive: true, displayModeBar: false };
  function draw() {
    for (const chart of charts) {
      const { data, layout } = JSON.parse(document.getElementById(chart.dataset.figure).textContent);
      const narrow = chart.clientWidth < 500;
      for (const trace of data) if (narrow && trace.marker) trace.marker.size *= 0.7;
      if (touch) layout.dragmode = false; // else a finger on the chart could not scroll the page
      Plotly.react(chart, data, themed(layout), config);
      chart.dispatchEvent(new Event("drawn"));
    }
  }
  for (const chart of charts) chart.addEventListener("redraw", draw);
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();

// Tables: a click on a header sorts by it, a second click turns the order round.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const headers = [...(table.tHead?.rows[0].cells ?? [])].filter((header) => header.querySelector("button"));
  const value = (row, column) => {
    const cell = row.cells[column], key = cell.dataset.key ?? cell.textContent.trim();
    return key !== "" && !Number.isNaN(Number(key)) ? Number(key) : key;
  };
  const compare = (a, b) =>
    typeof a === typeof b && typeof a === "number" ? a - b : String(a).localeCompare(String(b));

  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...body.rows];
      rows.sort((a, b) => sign * compare(value(a, column), value(b, column)));
      body.append(...rows);
    });
  });
}

// The table of all trials: only those of one kind.
(() => {
  const filters = [...document.querySelectorAll(".filters button")];
  filters.forEach((button) => {
    button.addEventListener("click", () => {
      filters.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      const wanted = button.dataset.show;
      for (const row of document.querySelectorAll(".trials tbody tr")) row.hidden = wanted !== "" && !row.dataset.is.split(" ").includes(wanted);
    });
  });
})();

// Commands: copied by their button; where the browser forbids that, selected.
for (const command of document.querySelectorAll(".command")) {
  const button = command.querySelector(".copy"), code = command.querySelector("code");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

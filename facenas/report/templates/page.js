"use strict";

// Charts: plotly draws them; text and grid take the page's colors, and change with the system's scheme.
(() => {
  const charts = [...document.querySelectorAll(".chart")];
  if (!charts.length) return;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const touch = matchMedia("(pointer: coarse)").matches; // a finger on the chart should scroll the page

  function template() {
    const soft = color("--soft"), rule = color("--rule"), clear = "rgba(0,0,0,0)";
    const family = getComputedStyle(document.body).fontFamily, font = { color: color("--ink"), family };
    const axis = { gridcolor: rule, linecolor: rule, zeroline: false, automargin: true };
    return { layout: {
      paper_bgcolor: clear, plot_bgcolor: clear, hovermode: "closest", dragmode: touch ? false : "zoom",
      font: { size: 12, color: soft, family }, xaxis: axis, yaxis: axis, margin: { l: 8, r: 20, t: 16, b: 40 },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 },
      hoverlabel: { bgcolor: color("--card"), bordercolor: rule, align: "left", font },
    } };
  }

  function draw() {
    for (const chart of charts) {
      const { data, layout } = JSON.parse(document.getElementById(chart.dataset.figure).textContent);
      const narrow = chart.clientWidth < 500;
      for (const trace of data) if (narrow && trace.marker) trace.marker.size *= 0.7;
      layout.template = template();
      Plotly.react(chart, data, layout, { responsive: true, displayModeBar: false });
      chart.dispatchEvent(new Event("drawn"));
    }
  }
  document.getElementById("front-chart")?.addEventListener("redraw", draw);
  addEventListener("DOMContentLoaded", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();

// The front: a point or a line that is picked shows its network; the drop-down changes the chart's cost.
(() => {
  const chart = document.getElementById("front-chart"), axis = document.getElementById("front-axis");
  if (!chart) return;
  const panels = [...document.querySelectorAll(".member")];
  const lines = [...document.querySelectorAll("[data-member]")];
  let picked = Number(lines.find((line) => line.getAttribute("aria-current"))?.dataset.member);

  function ring() { // moves with the member picked
    const number = chart.data.findIndex((trace) => trace.meta === "ring");
    for (const trace of chart.data) {
      const at = trace.meta === "ring" ? -1 : (trace.customdata ?? []).indexOf(picked);
      if (at >= 0 && number >= 0) Plotly.restyle(chart, { x: [[trace.x[at]]], y: [[trace.y[at]]] }, [number]);
    }
  }

  function pick(id) {
    picked = id;
    for (const panel of panels) panel.hidden = panel.id !== `member-${id}`;
    for (const line of lines) {
      if (Number(line.dataset.member) === id) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    }
    ring();
  }

  function tell(id) { // the line of a candidate that is not on the front
    const line = document.querySelector(`tr[data-trial="${id}"]`);
    document.querySelector("tr.told")?.classList.remove("told");
    line.hidden = false;
    line.classList.add("told");
    line.scrollIntoView({ block: "center" });
  }

  function member(point) { // the one under the pointer, though another candidate may lie there too
    const front = chart.data.find((trace) => trace.name === "the front"), { xaxis, yaxis } = point;
    const away = (i) => Math.hypot(
      xaxis.d2p(front.x[i]) - xaxis.d2p(point.x), yaxis.d2p(front.y[i]) - yaxis.d2p(point.y));
    const near = (front?.customdata ?? []).map((id, i) => ({ id, away: away(i) }));
    return near.sort((a, b) => a.away - b.away).find((one) => one.away < 6)?.id;
  }

  function clicked({ points: [point] }) {
    const id = member(point);
    if (id === undefined) return tell(point.customdata);
    pick(id);
    const line = lines.find((one) => Number(one.dataset.member) === id), box = line.closest(".scroll");
    box.scrollTop = line.offsetTop - box.clientHeight / 2;
  }

  for (const line of lines) {
    for (const event of ["focus", "click"]) line.addEventListener(event, () => pick(Number(line.dataset.member)));
  }
  chart.addEventListener("drawn", () => { chart.on("plotly_click", clicked); }, { once: true });
  chart.addEventListener("drawn", ring);
  axis?.addEventListener("change", () => {
    chart.dataset.figure = axis.value;
    chart.dispatchEvent(new Event("redraw"));
  });
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
  headers.forEach((header) => {
    header.querySelector("button").addEventListener("click", () => {
      const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1, column = header.cellIndex;
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => sign * compare(value(a, column), value(b, column))));
    });
  });
}

// The table of all trials: only those chosen.
document.getElementById("trials-shown")?.addEventListener("change", ({ target: { value } }) => {
  for (const row of document.querySelectorAll(".trials tbody tr")) {
    row.hidden = value !== "" && !row.dataset.is.split(" ").includes(value);
  }
});

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

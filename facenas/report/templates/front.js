"use strict";

// The front: a point or a line that is picked shows its network; the drop-down changes the chart's cost.
(() => {
  const chart = document.getElementById("front-chart"), axis = document.getElementById("front-axis");
  if (!chart) return;
  const panels = [...document.querySelectorAll(".member")];
  const lines = [...document.querySelectorAll("[data-member]")];
  const started = panels.find((panel) => !panel.hidden);
  let picked = started ? Number(started.id.replace("member-", "")) : null;

  function ring() { // moves with the member picked
    const number = chart.data.findIndex((trace) => trace.meta === "ring");
    for (const trace of chart.data) {
      const at = (trace.customdata ?? []).indexOf(picked);
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
    const front = chart.data.find((trace) => trace.name === "the front");
    const { xaxis, yaxis } = point;
    const away = (i) => Math.hypot(
      xaxis.d2p(front.x[i]) - xaxis.d2p(point.x), yaxis.d2p(front.y[i]) - yaxis.d2p(point.y));
    const near = (front?.customdata ?? []).map((id, i) => ({ id, away: away(i) }));
    return near.sort((a, b) => a.away - b.away).find((one) => one.away < 6)?.id;
  }

  function clicked(event) {
    const [point] = event.points, id = member(point);
    if (id === undefined) return tell(point.customdata);
    pick(id);
    const line = lines.find((one) => Number(one.dataset.member) === id), box = line.closest(".scroll");
    box.scrollTop = line.offsetTop - box.clientHeight / 2;
  }

  for (const line of lines) {
    const id = Number(line.dataset.member);
    line.addEventListener("focus", () => pick(id));
    line.addEventListener("click", () => pick(id));
  }
  let listens = false;
  chart.addEventListener("drawn", () => {
    if (!listens) chart.on("plotly_click", clicked);
    listens = true;
    ring();
  });
  axis?.addEventListener("change", () => {
    chart.dataset.figure = axis.value;
    chart.dispatchEvent(new Event("redraw"));
  });
})();

// The table of all trials: only those chosen.
(() => {
  const shown = document.getElementById("trials-shown");
  shown?.addEventListener("change", () => {
    for (const row of document.querySelectorAll(".trials tbody tr")) {
      row.hidden = shown.value !== "" && !row.dataset.is.split(" ").includes(shown.value);
    }
  });
})();

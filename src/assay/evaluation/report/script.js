
"use strict";
// Reads the curve under the pointer, or step by step with the arrow keys; without script the page loses only this.
for (const figure of document.querySelectorAll("figure.curve")) {
  const readout = figure.querySelector(".readout");
  const part = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
  for (const svg of figure.querySelectorAll("svg")) {
    const points = [...svg.querySelectorAll(".point")];
    if (!points.length) continue; // a chart with nothing to read off
    const places = points.map((point) => Number(point.getAttribute("cx")));
    const cross = svg.querySelector(".cross");
    const dot = svg.querySelector(".dot");
    let at = points.length - 1;
    const show = (next) => {
      at = Math.min(Math.max(next, 0), points.length - 1);
      const { eps, value, interval } = points[at].dataset;
      for (const name of ["x1", "x2"]) cross.setAttribute(name, places[at]);
      dot.setAttribute("cx", places[at]);
      dot.setAttribute("cy", points[at].getAttribute("cy"));
      for (const mark of [cross, dot]) mark.setAttribute("visibility", "visible");
      readout.replaceChildren(`At eps ${eps}: `, part("b", value), ` (${interval})`);
    };
    const follow = (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      show(places.reduce((best, place, k) => (Math.abs(place - x) < Math.abs(places[best] - x) ? k : best), 0));
    };
    for (const point of points) point.querySelector("title").remove(); // the read-out replaces the native tooltips
    svg.tabIndex = 0;
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      show(at + step);
    });
  }
}

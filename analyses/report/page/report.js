"use strict";
(() => {
  // Plotly draws; this file says what and when: choices, the layer slider, light and dark, print.
  const config = {responsive: true, displaylogo: false, modeBarButtons: [["toImage"]]};
  const charts = [];
  const narrow = matchMedia("(max-width: 600px)");
  let printing = false;

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    return printing
      ? {text: "#000000", grid: "#d5dae0", empty: "#ececec"}
      : {text: colour("--text"), grid: colour("--line"), empty: colour("--empty")};
  }

  // The last layer that is not beyond the wanted one; the first where all are.
  function reachable(layers, wanted) {
    const below = layers.filter((layer) => layer <= wanted);
    return below.length ? below[below.length - 1] : layers[0];
  }

  function layoutOf(chart, view, layer) {
    const colours = theme();
    const layout = Object.assign(
      {font: {color: colours.text, size: 12}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
        modebar: {bgcolor: "rgba(0,0,0,0)", color: colours.grid, activecolor: colours.text}},
      structuredClone(chart.document.layout), structuredClone(view.layout));
    for (const axis of ["xaxis", "yaxis"]) {
      layout[axis] = Object.assign({gridcolor: colours.grid, zerolinecolor: colours.grid, automargin: true}, layout[axis]);
    }
    if (narrow.matches) {
      layout.font.size = 10;
      layout.margin.l = 5; // the labels, which are smaller here, make their own room
      for (const axis of ["xaxis", "yaxis"]) if (layout[axis].tickfont) layout[axis].tickfont.size = 9;
    }
    // Paper is narrower than the window, and nothing is drawn again once its size is known.
    if (printing) Object.assign(layout, {autosize: false, width: chart.plot.parentElement.clientWidth});
    if (view.data.some((trace) => trace.type === "heatmap")) layout.plot_bgcolor = colours.empty;
    if (chart.document.marksLayer && layer !== null) {
      layout.shapes = [{type: "line", x0: layer, x1: layer, yref: "paper", y0: 0, y1: 1,
        line: {color: colours.text, width: 1, dash: "dot"}}];
    }
    return layout;
  }

  function draw(chart) {
    const {layers, marksLayer, views} = chart.document;
    const layer = layers.length && chart.wanted !== null ? reachable(layers, chart.wanted) : layers.at(-1) ?? null;
    const key = chart.choices.slice();
    if (layers.length && !marksLayer) key.push(layers.indexOf(layer));
    const view = views[key.join(",")] ?? {data: [], layout: {
      annotations: [{text: "not measured", showarrow: false, xref: "paper", yref: "paper", x: .5, y: .5}]}};
    for (const output of chart.element.querySelectorAll(".at-layer")) output.textContent = `layer ${layer}`;
    chart.drawn = true;
    // Beside numbers in the cells a scale of colours says little, and a narrow screen has no room for both.
    const data = view.data.map((trace) => trace.texttemplate && narrow.matches ? {...trace, showscale: false} : trace);
    Plotly.react(chart.plot, data, layoutOf(chart, view, layer), config);
  }

  function redraw(test) {
    for (const chart of charts) if (chart.drawn && test(chart)) draw(chart);
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const chart = charts.find((one) => one.element === entry.target);
      if (entry.isIntersecting && !chart.drawn) draw(chart);
    }
  }, {rootMargin: "600px"});

  for (const element of document.querySelectorAll("figure.chart")) {
    const section = element.closest("section.cache");
    const chart = {
      element, section, plot: element.querySelector(".plot"), drawn: false, wanted: null,
      document: JSON.parse(element.querySelector('script[type="application/json"]').textContent),
      choices: [...element.querySelectorAll("[data-control]")].map(() => 0),
    };
    for (const control of element.querySelectorAll("[data-control]")) {
      control.addEventListener("change", (event) => {
        chart.choices[Number(control.dataset.control)] = Number(event.target.value);
        draw(chart);
      });
    }
    charts.push(chart);
  }

  function showLayer(section, layer) {
    for (const chart of charts) if (chart.section === section) chart.wanted = layer;
    redraw((chart) => chart.section === section && chart.document.layers.length > 0);
    const rows = [...section.querySelectorAll("tr[data-layer]")];
    if (rows.length) {
      const layers = [...new Set(rows.map((row) => Number(row.dataset.layer)))].sort((a, b) => a - b);
      const near = reachable(layers, layer);
      for (const row of rows) row.hidden = Number(row.dataset.layer) !== near;
      rows[0].closest("section.group").querySelector(".at-layer").textContent = `layer ${near}`;
    }
  }

  for (const section of document.querySelectorAll("section.cache")) {
    const slider = section.querySelector(".layer-slider");
    if (!slider) continue;
    const layers = slider.dataset.layers.split(",").map(Number);
    const output = section.querySelector(".layerbar output");
    const update = () => {
      const layer = layers[Number(slider.value)];
      output.textContent = layer;
      slider.setAttribute("aria-valuetext", `layer ${layer}`);
      showLayer(section, layer);
    };
    slider.addEventListener("input", update);
    update();
  }

  for (const chart of charts) seen.observe(chart.element);
  for (const media of [matchMedia("(prefers-color-scheme: dark)"), narrow]) {
    media.addEventListener("change", () => redraw(() => true));
  }
  addEventListener("beforeprint", () => {
    printing = true;
    document.body.classList.add("printing");
    for (const one of document.querySelectorAll("details:not(.listing)")) one.open = true;
    for (const chart of charts) draw(chart);
  });
  addEventListener("afterprint", () => {
    printing = false;
    document.body.classList.remove("printing");
    redraw(() => true);
  });
})();

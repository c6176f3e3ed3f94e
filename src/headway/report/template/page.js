(() => {
  const options = { mode: "vega-lite", renderer: "svg", actions: false, tooltip: { theme: "page", disableDefaultStyle: true } };
  for (const source of document.querySelectorAll("script[data-chart]")) {
    const place = document.getElementById(source.dataset.chart);
    vegaEmbed(place, JSON.parse(source.textContent), options).catch((error) => {
      place.textContent = `This chart could not be drawn: ${error.message}`;
    });
  }
  // A chart in a closed <details> has no width; it takes its own when it is opened, and for print.
  const fit = () => window.dispatchEvent(new Event("resize"));
  for (const part of document.querySelectorAll("details")) part.addEventListener("toggle", fit);
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
    fit();
  });
})();

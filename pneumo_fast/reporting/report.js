"use strict";
// Moves the threshold and chooses among the heat maps. All numbers stand in the page; nothing is fetched.
(() => {
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const byId = (id) => document.getElementById(id);
  for (const part of all("[data-script]")) part.hidden = false;
  setUpThreshold();
  setUpGallery();
  setUpEnlarging();

  function setUpThreshold() {
    const store = byId("counts");
    if (!store) return;
    const counts = JSON.parse(store.textContent);
    const slider = byId("threshold");
    let saying;
    const show = () => {
      const step = Number(slider.value);
      const figures = figuresAt(counts, step);
      slider.setAttribute("aria-valuetext", sentence(figures.text));
      for (const place of all("[data-figure]")) place.textContent = figures.text[place.dataset.figure];
      for (const button of all("button[data-step]"))
        button.setAttribute("aria-pressed", String(Number(button.dataset.step) === step));
      move(byId("roc-mark"), counts.plot, 1 - figures.value.specificity, figures.value.sensitivity);
      move(byId("pr-mark"), counts.plot, figures.value.sensitivity, figures.value.precision);
      clearTimeout(saying);
      saying = setTimeout(() => { byId("said").textContent = sentence(figures.text); }, 400);
    };
    slider.addEventListener("input", show);
    for (const button of all("button[data-step]"))
      button.addEventListener("click", () => { slider.value = button.dataset.step; show(); });
    const find = () => {
      const wanted = Number(byId("wanted").value) * counts.positives - 1e-9;
      slider.value = String(counts.tp.findLastIndex((tp) => tp >= wanted));
      show();
    };
    byId("want").addEventListener("click", find);
    byId("wanted").addEventListener("keydown", (event) => { if (event.key === "Enter") find(); });
    show();
  }

  function figuresAt(counts, step) {
    const tp = counts.tp[step], fp = counts.fp[step];
    const fn = counts.positives - tp, tn = counts.negatives - fp;
    const share = (part, whole) => (whole ? part / whole : NaN);
    const value = {
      sensitivity: share(tp, counts.positives),
      specificity: share(tn, counts.negatives),
      precision: share(tp, tp + fp),
      npv: share(tn, tn + fn),
      accuracy: share(tp + tn, counts.positives + counts.negatives),
      f1: share(2 * tp, 2 * tp + fp + fn),
    };
    const text = { threshold: counts.at[step] };
    for (const [name, number] of Object.entries(value)) text[name] = Number.isNaN(number) ? "–" : number.toFixed(3);
    for (const [name, number] of Object.entries({ tp, fp, fn, tn })) text[name] = number.toLocaleString("en-US");
    return { value, text };
  }

  function sentence(text) {
    return `Threshold ${text.threshold}: sensitivity ${text.sensitivity}, specificity ${text.specificity}, ` +
      `precision ${text.precision}. True positives ${text.tp}, false negatives ${text.fn}, false positives ${text.fp}, ` +
      `true negatives ${text.tn}.`;
  }

  function move(mark, plot, x, y) {
    if (!mark) return;
    const [left, top, width, height] = plot;
    const known = !Number.isNaN(x) && !Number.isNaN(y);
    mark.classList.toggle("nowhere", !known);
    if (!known) return;
    mark.setAttribute("cx", (left + x * width).toFixed(2));
    mark.setAttribute("cy", (top + (1 - y) * height).toFixed(2));
  }

  function setUpEnlarging() {
    const dialog = byId("enlarged");
    for (const button of all("button.enlarge"))
      button.addEventListener("click", () => {
        dialog.querySelector("div").replaceChildren(button.querySelector("img").cloneNode());
        dialog.showModal();
      });
    if (dialog) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }

  function setUpGallery() {
    const buttons = all("button[data-filter]"), figures = all("figure[data-kind]");
    for (const button of buttons)
      button.addEventListener("click", () => {
        const kind = button.dataset.filter;
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        for (const figure of figures) figure.hidden = kind !== "all" && figure.dataset.kind !== kind;
        byId("shown").textContent = `${figures.filter((figure) => !figure.hidden).length} of ${figures.length} shown`;
      });
  }
})();

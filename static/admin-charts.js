// Small charts of the last hour and day, drawn by uPlot where npm installed it; the same as tables for everybody.

import { bytes, table } from "./admin-parts.js";
import { element, setText } from "./dom.js";

const HEIGHT = 120;
const WHOLE_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
const ROWS_OF_A_TABLE = 24;
const rate = (value) => `${value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : 0 })}/s`;
const count = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
const share = (value) => `${(value * 100).toLocaleString("en", { maximumFractionDigits: 0 })} %`;
const milliseconds = (value) => `${(value * 1000).toLocaleString("en", { maximumFractionDigits: value < 0.01 ? 1 : 0 })} ms`;

/** Title, series by name with their words, how a value is written, and whether the axis begins at 0. */
const CHARTS = [
  ["Requests", { requests: "requests", pushes: "pushes (dashed)" }, rate],
  ["Refusals and failures", { refusals: "refused", failures: "failed with 5xx (dashed)" }, rate],
  ["Sockets", { sockets: "sockets" }, count],
  ["Event loop: worst lag", { lag: "lag" }, milliseconds],
  ["Processor", { processor: "of one core" }, share],
  ["Memory", { memory: "memory" }, bytes],
  ["Disk: free", { disk: "free" }, bytes],
];

export class Charts {
  constructor() {
    this.span = "hour";
    this.cards = CHARTS.map(([title, series, written]) => new Chart(title, series, written));
    this.element = element("section", { className: "charts-section" },
      element("div", { className: "heading" }, element("h2", {}, "Over time"), this.#spans()),
      element("div", { className: "charts" }, ...this.cards.map((card) => card.element)),
    );
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#drawAnew());
    addEventListener("resize", () => this.cards.forEach((card) => card.fit()));
  }

  #spans() {
    const buttons = { hour: "Last hour", day: "Last day" };
    const made = Object.entries(buttons).map(([span, words]) => {
      const button = element("button", { type: "button", className: "small", ariaPressed: String(span === this.span) }, words);
      button.addEventListener("click", () => {
        this.span = span;
        made.forEach((other) => { other.ariaPressed = String(other === button); });
        this.#drawAnew();
      });
      return button;
    });
    return element("div", { className: "row-buttons", role: "group", ariaLabel: "Time span" }, ...made);
  }

  show(found) {
    this.found = found;
    for (const card of this.cards) card.show(found[this.span]);
  }

  #drawAnew() {
    for (const card of this.cards) card.forget();
    if (this.found) this.show(this.found);
  }
}

class Chart {
  constructor(title, series, written) {
    Object.assign(this, { title, series, written });
    this.summary = element("p", { className: "muted", role: "status" });
    this.place = element("div", { className: "plot", ariaHidden: "true" });
    this.values = element("details", { open: !window.uPlot }, element("summary", {}, "As a table"));
    this.element = element("article", { className: "card chart" }, element("h3", {}, title), this.summary, this.place, this.values);
  }

  show(columns) {
    const names = Object.keys(this.series);
    const data = [columns.at, ...names.map((name) => columns[name])];
    this.element.hidden = columns.at.length > 0 && data.slice(1).every((column) => column.every((value) => value === null));
    setText(this.summary, columns.at.length ? names.map((name) => this.#told(name, columns[name])).join("; ") : "No sample yet.");
    this.values.replaceChildren(this.values.firstChild, this.#table(data));
    if (!window.uPlot || columns.at.length < 2 || this.element.hidden) return;
    if (this.plot) this.plot.setData(data);
    else this.plot = this.#draw(data);
  }

  #told(name, column) {
    const known = column.filter((value) => value !== null);
    if (!known.length) return `${this.series[name]} –`;
    return `${this.series[name]} ${this.written(known.at(-1))}, most ${this.written(Math.max(...known))}`;
  }

  #table([at, ...columns]) {
    const step = Math.max(1, Math.ceil(at.length / ROWS_OF_A_TABLE));
    const rows = [];
    for (let index = at.length - 1; index >= 0; index -= step) {
      const values = columns.map((column) => (column[index] === null ? "–" : this.written(column[index])));
      rows.push([new Date(at[index] * 1000).toLocaleTimeString("sv"), ...values]);
    }
    return table(this.title, ["Time", ...Object.values(this.series)], rows, "No sample yet.");
  }

  #draw(data) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const lines = [colour("--accent"), colour("--warn")];
    const options = {
      width: this.#width(), height: HEIGHT, legend: { show: false }, cursor: { show: false },
      scales: { y: { range: (_, low, high) => [this.written === bytes ? low * 0.98 : 0, high > 0 ? high * 1.05 : 1] } },
      axes: [
        { ...axis, size: 28, space: 60, values: (_, moments) => moments.map((moment) => new Date(moment * 1000).toLocaleTimeString("sv", { timeStyle: "short" })) },
        { ...axis, size: 72, space: 30, ...(this.written === count ? { incrs: WHOLE_STEPS } : {}), values: (_, values) => values.map((value) => this.written(value)) },
      ],
      series: [{}, ...Object.values(this.series).map((label, index) => ({ label, stroke: lines[index], width: 2, points: { show: false }, dash: index ? [4, 3] : undefined }))],
    };
    return new window.uPlot(options, data, this.place);
  }

  #width() {
    return Math.max(200, this.place.clientWidth);
  }

  fit() {
    this.plot?.setSize({ width: this.#width(), height: HEIGHT });
  }

  forget() {
    this.plot?.destroy();
    this.plot = undefined;
  }
}

/** Where the line is drawn: results are ticks on a scale of similarity, and a cut says which are shown. */

import { debounced, el } from "./dom.js";

export const two = (value) => value.toFixed(2);

export class Scale {
  /**
   * @param {{auto: number|null, onchange: (threshold: string) => void, onpreview: (cut: number) => void}} options
   */
  constructor({ auto, onchange, onpreview }) {
    Object.assign(this, { auto, onchange, onpreview });
    this.similarities = [];
    this.changed = debounced((threshold) => onchange(threshold), 250);
    const choice = (value, label) => {
      const input = el("input", {
        type: "radio",
        name: "threshold",
        value,
        onchange: () => this.choose(value),
      });
      return [input, el("label.choice", {}, input, el("span", {}, label))];
    };
    const [automatic, automaticLabel] = choice("auto", `Automatic${auto === null ? "" : ` (${two(auto)})`}`);
    const [none, noneLabel] = choice("none", "No limit");
    const [own, ownLabel] = choice("own", "From …");
    this.radios = { auto: automatic, none, own };
    this.range = el("input", {
      type: "range",
      min: 0,
      max: 1,
      step: 0.01,
      "aria-label": "Least similarity",
      oninput: () => this.slide(),
    });
    this.output = el("output", { "aria-hidden": "true" });
    this.ticks = el("canvas.ticks", { "aria-hidden": "true" });
    this.element = el(
      "fieldset.scale",
      {},
      el("legend", {}, "Least similarity"),
      el("div.choices", {}, auto === null ? null : automaticLabel, noneLabel, ownLabel),
      el("div.ruler", {}, this.ticks, this.range, this.output),
    );
    new ResizeObserver(() => this.draw()).observe(this.ticks);
    // The ticks are painted, so a change of theme has to paint them anew.
    new MutationObserver(() => this.draw()).observe(document.documentElement, { attributes: true });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** @param {string} threshold "auto", "none" or a number @param {number|null} inForce */
  show(threshold, inForce) {
    const kind = threshold === "auto" || threshold === "none" ? threshold : "own";
    this.radios[kind].checked = true;
    this.cut = inForce;
    this.range.value = inForce ?? (kind === "none" ? 0 : Number(threshold) || 0);
    this.label();
  }

  /** @param {number[]} similarities of the nearest pictures, whatever the cut */
  plot(similarities) {
    this.similarities = similarities;
    this.draw();
  }

  choose(kind) {
    if (kind === "own") {
      this.range.focus();
      this.slide();
    } else this.onchange(kind);
  }

  slide() {
    this.radios.own.checked = true;
    this.cut = Number(this.range.value);
    this.label();
    this.onpreview(this.cut);
    this.changed(two(this.cut));
  }

  label() {
    const said = this.cut === null ? "none" : two(Number(this.range.value));
    this.output.value = said;
    this.range.setAttribute("aria-valuetext", this.cut === null ? "no limit" : said);
    this.range.style.setProperty("--at", this.range.value);
    this.draw();
  }

  draw() {
    const { ticks, similarities, cut } = this;
    const { clientWidth: width, clientHeight: height } = ticks;
    if (!width) return;
    const dense = devicePixelRatio || 1;
    ticks.width = width * dense;
    ticks.height = height * dense;
    const paint = ticks.getContext("2d");
    const colours = getComputedStyle(ticks);
    paint.scale(dense, dense);
    // Where many lie close together, it shows as density.
    paint.globalAlpha = 0.7;
    for (const value of similarities) {
      const line = cut ?? this.auto;
      const shown = line === null || value >= line;
      paint.fillStyle = colours.getPropertyValue(shown ? "--tick-in" : "--tick-out");
      const x = Math.round(Math.min(Math.max(value, 0), 1) * (width - 2));
      paint.fillRect(x, shown ? 0 : height * 0.4, 1.5, height);
    }
  }
}

/** The pairs of cells that match best: numbers on both pictures, lines between them, and a list in words. */

import { digits, el, svg } from "./dom.js";
import { cellAt } from "./overlay.js";

const PLACES = [
  ["top left", "top", "top right"],
  ["left", "middle", "right"],
  ["bottom left", "bottom", "bottom right"],
];

/** Where a cell lies, in words. */
function where(map, [row, column]) {
  const third = (at, of) => Math.min(2, Math.floor((3 * (at + 0.5)) / of));
  return PLACES[third(row, map.rows)][third(column, map.columns)];
}

export class Matches {
  /** @param {HTMLElement} table holds both frames @param {HTMLElement[]} frames the query's and the result's */
  constructor(table, frames) {
    Object.assign(this, { table, frames });
    this.drawing = svg("svg", { class: "lines", "aria-hidden": "true", focusable: "false" });
    this.list = el("ol.matches", { role: "list", "aria-label": "Best matches" });
    table.append(this.drawing);
    this.clear();
  }

  clear() {
    this.pairs = [];
    this.pinned = -1;
    this.drawing.replaceChildren();
    this.list.replaceChildren();
  }

  /** @param {any} explanation as the server gives it */
  show({ query, result, matches, similarity }) {
    this.maps = [query, result];
    this.pairs = matches;
    this.pinned = -1;
    this.list.replaceChildren(
      ...matches.map((match, i) => {
        const share = similarity > 0 ? ` · ${digits((100 * match.contribution) / similarity, 2)} %` : "";
        const button = el(
          "button.match",
          {
            type: "button",
            "aria-pressed": "false",
            onclick: () => this.pin(i),
            onpointerenter: () => this.highlight(i),
            onpointerleave: () => this.highlight(this.pinned),
            onfocus: () => this.highlight(i),
            onblur: () => this.highlight(this.pinned),
          },
          el("span.number", { "aria-hidden": "true" }, i + 1),
          el("span.unseen", {}, `Match ${i + 1}: `),
          el("span.where", {}, `${where(query, match.query)} to ${where(result, match.result)}`),
          el("span.amount", {}, `${digits(match.contribution, 2)}${share}`),
        );
        return el("li", {}, button);
      }),
    );
    this.draw();
  }

  pin(i) {
    this.pinned = this.pinned === i ? -1 : i;
    [...this.list.querySelectorAll("button")].forEach((button, n) =>
      button.setAttribute("aria-pressed", String(n === this.pinned)),
    );
    this.highlight(this.pinned);
  }

  /** Brings one pair forward; -1 shows all alike. */
  highlight(i) {
    this.drawing.classList.toggle("one", i >= 0);
    const count = this.pairs.length;
    [...this.drawing.children].forEach((group, n) => group.classList.toggle("on", n % count === i));
    [...this.list.children].forEach((item, n) => item.classList.toggle("on", n === i));
  }

  /** Draws anew: to be called when the pictures change their places. */
  draw() {
    if (!this.pairs.length) return this.drawing.replaceChildren();
    const table = this.table.getBoundingClientRect();
    this.drawing.setAttribute("viewBox", `0 0 ${table.width} ${table.height}`);
    const ends = this.pairs.map((match) =>
      [match.query, match.result].map((cell, side) => {
        const frame = this.frames[side].getBoundingClientRect();
        const [x, y, w, h] = cellAt(this.maps[side], cell, frame.width, frame.height);
        return { x: x + frame.left - table.left, y: y + frame.top - table.top, w, h };
      }),
    );
    // All numbers lie over all lines.
    this.drawing.replaceChildren(
      ...ends.map((pair) => this.line(pair)),
      ...ends.map((pair, i) => this.numbers(pair, i)),
    );
    this.highlight(this.pinned);
  }

  line([a, b]) {
    const ends = { x1: a.x + a.w / 2, y1: a.y + a.h / 2, x2: b.x + b.w / 2, y2: b.y + b.h / 2 };
    return svg("g", {}, svg("line", { class: "under", ...ends }), svg("line", { class: "over", ...ends }));
  }

  numbers(pair, i) {
    const group = svg("g", {
      onpointerenter: () => this.highlight(i),
      onpointerleave: () => this.highlight(this.pinned),
      onclick: () => this.pin(i),
    });
    for (const { x, y, w, h } of pair) {
      const [cx, cy] = [x + w / 2, y + h / 2];
      group.append(
        svg("rect", { class: "cell", x, y, width: w, height: h }),
        svg("circle", { cx, cy, r: 11 }),
        svg("text", { x: cx, y: cy, dy: "0.36em" }, i + 1),
      );
    }
    return group;
  }
}

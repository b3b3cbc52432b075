/** One of the two pictures that are compared, with what is painted over it; and the legend of both. */

import { digits, el } from "./dom.js";
import { cellBelow, paintBar, paintMap, paintPart } from "./overlay.js";

export class Pane {
  /**
   * @param {string} name what the picture is in the comparison
   * @param {{name: string, width: number|null, height: number|null}} picture
   * @param {string[]} sources for ordinary and for dense screens
   * @param {{loaded: () => void, read: (words: string) => void}} options
   */
  constructor(name, picture, sources, { loaded, read }) {
    this.picture = picture;
    this.map = null;
    this.hasSign = false;
    this.canvas = el("canvas.overlay", { "aria-hidden": "true" });
    const image = el("img", {
      src: sources[0],
      srcset: `${sources[0]} 1x, ${sources[1]} 2x`,
      alt: `${name}: ${picture.name}`,
      width: picture.width ?? 4,
      height: picture.height ?? 3,
      decoding: "async",
      draggable: "false",
    });
    const aspect = (picture.width ?? 4) / (picture.height ?? 3);
    this.frame = el("div.frame", { style: { "--aspect": aspect } }, image, this.canvas);
    image.addEventListener("load", () => {
      if (!picture.width) this.frame.style.setProperty("--aspect", image.naturalWidth / image.naturalHeight);
      loaded();
    });
    this.frame.addEventListener("pointermove", (event) => read(this.cellWords(event)));
    this.frame.addEventListener("pointerleave", () => read(""));
    const caption = el("span.name", { title: picture.name }, picture.name);
    this.element = el(
      "figure.pane",
      {},
      this.frame,
      el("figcaption", {}, el("strong", {}, name), " ", caption),
    );
  }

  /** Where the pointer is, and the value there. */
  cellWords(event) {
    if (!this.map) return "";
    const { left, top, width, height } = this.frame.getBoundingClientRect();
    const cell = cellBelow(this.map, event.clientX - left, event.clientY - top, width, height);
    if (!cell) return "";
    const value = this.map.values[cell[0] * this.map.columns + cell[1]];
    const sign = value < 0 ? "−" : this.hasSign ? "+" : "";
    return `Row ${cell[0] + 1}, column ${cell[1] + 1}: ${sign}${digits(Math.abs(value), 3)}`;
  }

  /** @param {{scale: number, colour: (share: number) => number[]}} options @param {number[]|null} box */
  paint(options, box) {
    const { width, height } = this.picture;
    if (this.map) paintMap(this.canvas, this.map, options);
    else paintPart(this.canvas, { box, width, height });
  }
}

/**
 * One scale for both pictures, in colours and numbers.
 * @param {string} words @param {(share: number) => number[]} colour
 * @param {{from: number, scale: number}} options from: -1 where values have a sign, else 0
 */
export function legend(words, colour, { from, scale }) {
  const bar = el("canvas.scale-bar", { "aria-hidden": "true" });
  paintBar(bar, colour, from);
  const sign = (value) => (value < 0 ? "−" : from ? "+" : "");
  const number = (value) => (value === 0 ? "0" : `${sign(value)}${digits(Math.abs(value), 2)}`);
  const shares = from ? [-1, 0, 1] : [0, 0.5, 1];
  const ends = shares.map((share) => el("span", {}, number(share * scale)));
  return [el("p", {}, words, "."), bar, el("p.ends", {}, ...ends)];
}

/** A part of a picture: drawn with mouse, pen or finger, or moved with the keys; in pixels of the whole picture. */

import { debounced, el } from "./dom.js";
import { announce } from "./say.js";

const LEAST_PX = 8;
const STEP = 1 / 50;
const CORNERS = ["nw", "ne", "sw", "se"];

export class BoxPicker {
  /**
   * @param {HTMLElement} stage holds the picture and nothing around it
   * @param {{width: number, height: number, onchange: (box: number[]|null) => void, onsubmit: () => void}} options
   */
  constructor(stage, { width, height, onchange, onsubmit }) {
    Object.assign(this, { stage, width, height, onchange, onsubmit });
    this.box = null;
    this.area = el(
      "div.selection",
      { tabindex: "0", role: "application", "aria-roledescription": "selected part", hidden: true },
      ...CORNERS.map((corner) => el(`span.handle.${corner}`, { "data-corner": corner })),
    );
    this.say = debounced(() => this.box && announce(this.words()), 400);
    stage.append(this.area);
    stage.addEventListener("pointerdown", (event) => this.grab(event));
    this.area.addEventListener("keydown", (event) => this.key(event));
  }

  /** Shows `box` (null: the whole picture) without telling anybody. */
  show(box) {
    this.box = box && this.within(box);
    this.area.hidden = !this.box;
    this.stage.classList.toggle("has-part", Boolean(this.box));
    if (!this.box) return;
    const [x1, y1, x2, y2] = this.box;
    const percent = (value, of) => `${(100 * value) / of}%`;
    Object.assign(this.area.style, {
      left: percent(x1, this.width),
      top: percent(y1, this.height),
      width: percent(x2 - x1, this.width),
      height: percent(y2 - y1, this.height),
    });
    this.area.setAttribute(
      "aria-label",
      `${this.words()}. Arrow keys move it, with Shift they resize it, Enter searches, Escape removes it.`,
    );
  }

  set(box) {
    this.show(box);
    this.onchange(this.box);
    if (this.box) this.say();
  }

  /** A box in the middle, ready for the keys, and for a finger to draw over. */
  begin() {
    if (!this.box) this.set([0.25, 0.25, 0.75, 0.75].map((v, i) => v * (i % 2 ? this.height : this.width)));
    this.stage.classList.add("selecting");
    this.area.focus({ preventScroll: true });
  }

  words() {
    const [x1, y1, x2, y2] = this.box;
    return `Part from ${x1}, ${y1} to ${x2}, ${y2} of ${this.width} × ${this.height} pixels`;
  }

  within([x1, y1, x2, y2]) {
    const clamp = (value, most) => Math.round(Math.min(Math.max(value, 0), most));
    const ordered = (a, b, most) => {
      const low = clamp(Math.min(a, b), most);
      const high = clamp(Math.max(a, b), most);
      return high - low >= LEAST_PX
        ? [low, high]
        : [Math.max(0, Math.min(low, most - LEAST_PX)), Math.min(most, low + LEAST_PX)];
    };
    const [left, right] = ordered(x1, x2, this.width);
    const [top, bottom] = ordered(y1, y2, this.height);
    return [left, top, right, bottom];
  }

  moved([x1, y1, x2, y2], dx, dy) {
    const x = Math.min(Math.max(x1 + dx, 0), this.width - (x2 - x1));
    const y = Math.min(Math.max(y1 + dy, 0), this.height - (y2 - y1));
    return [x, y, x + (x2 - x1), y + (y2 - y1)];
  }

  at(event) {
    const frame = this.stage.getBoundingClientRect();
    return [
      ((event.clientX - frame.left) / frame.width) * this.width,
      ((event.clientY - frame.top) / frame.height) * this.height,
    ];
  }

  grab(event) {
    if (event.button || !event.isPrimary) return;
    const inside = this.area.contains(event.target);
    // A finger scrolls the page until the user has asked for a part.
    if (event.pointerType === "touch" && !inside && !this.stage.classList.contains("selecting")) return;
    event.preventDefault();
    const [x, y] = this.at(event);
    const before = this.box;
    const corner = event.target.dataset?.corner;
    const fixed = corner && [before[corner.includes("w") ? 2 : 0], before[corner.includes("n") ? 3 : 1]];
    let drawn = false;
    const move = (moving) => {
      const [toX, toY] = this.at(moving);
      if (!drawn && Math.hypot(moving.clientX - event.clientX, moving.clientY - event.clientY) < 4) return;
      drawn = true;
      if (fixed) this.set([fixed[0], fixed[1], toX, toY]);
      else if (inside) this.set(this.moved(before, toX - x, toY - y));
      else this.set([x, y, toX, toY]);
    };
    const ended = new AbortController();
    const over = (keep) => {
      ended.abort();
      if (!keep) this.set(before);
      if (this.box && drawn) this.area.focus({ preventScroll: true });
    };
    this.stage.setPointerCapture(event.pointerId);
    this.stage.addEventListener("pointermove", move, { signal: ended.signal });
    this.stage.addEventListener("pointerup", () => over(true), { signal: ended.signal });
    this.stage.addEventListener("pointercancel", () => over(false), { signal: ended.signal });
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) {
      const [dx, dy] = [step[0] * this.width * STEP, step[1] * this.height * STEP];
      const [x1, y1, x2, y2] = this.box;
      if (!event.shiftKey) this.set(this.moved(this.box, dx, dy));
      else this.set([x1, y1, Math.max(x2 + dx, x1 + LEAST_PX), Math.max(y2 + dy, y1 + LEAST_PX)]);
    } else if (event.key === "Enter") this.onsubmit();
    else if (event.key === "Escape") {
      this.stage.classList.remove("selecting");
      this.set(null);
      announce("The whole picture is selected.");
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

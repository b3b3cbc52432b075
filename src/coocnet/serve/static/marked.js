/** The results that the user says are right, to search with them as well. */

import { el } from "./dom.js";
import { announce } from "./say.js";
import { go, keep, note, read } from "./state.js";

export class Marked {
  /** @param {() => Iterable<HTMLElement>} tiles what is shown now @param {() => void} cleared */
  constructor(tiles, cleared) {
    Object.assign(this, { tiles, cleared });
    this.ids = new Set();
    this.bar = el("div.marked-bar", { role: "region", "aria-label": "Marked as right", hidden: true });
  }

  has(id) {
    return this.ids.has(id);
  }

  /** Takes up what this entry of the history remembers, or what was searched with. */
  restore() {
    this.ids = new Set(note("marked") ?? read().relevant);
    this.show();
  }

  set(id, right) {
    if (right) this.ids.add(id);
    else this.ids.delete(id);
    this.changed();
    announce(`${this.ids.size} marked as right`);
  }

  clear() {
    this.ids.clear();
    this.changed();
    this.cleared();
  }

  changed() {
    this.keep();
    for (const tile of this.tiles()) this.paint(tile);
    this.show();
  }

  /** Going back to an entry of the history brings it the marks that were set since. */
  keep() {
    keep("marked", [...this.ids]);
  }

  paint(tile) {
    const right = this.has(tile.dataset.id);
    tile.classList.toggle("right", right);
    tile.querySelector("input").checked = right;
  }

  show() {
    const ids = [...this.ids];
    this.bar.hidden = !ids.length;
    this.bar.replaceChildren(
      el("p", {}, `${ids.length} marked as right`),
      el(
        "button.primary",
        {
          type: "button",
          disabled: String(ids) === String(read().relevant),
          onclick: () => {
            go({ relevant: ids, view: "" });
            this.cleared(); // the button can no longer be pressed
          },
        },
        "Search again with these",
      ),
      el("button", { type: "button", onclick: () => this.clear() }, "Clear"),
    );
  }
}

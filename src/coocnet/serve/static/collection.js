/** The start: a place to drop a photograph, and the collection's own pictures to search with. */

import { request } from "./api.js";
import { debounced, el, some } from "./dom.js";
import { Pages, photograph, tile } from "./grid.js";
import { choose } from "./incoming.js";
import { address, follow, go, read, search } from "./state.js";

const PAGE = 60;

export class Collection {
  /** @param {HTMLElement} section @param {any} info */
  constructor(section, info) {
    Object.assign(this, { section, info });
    this.shownFor = null;
    this.filter = el("input", {
      type: "search",
      id: "filter",
      placeholder: "Part of a name",
      autocomplete: "off",
      spellcheck: "false",
      oninput: debounced(() => go({ contains: this.filter.value.trim() }, { replace: true }), 200),
    });
    this.count = el("p.muted.count", { role: "status", "aria-live": "polite" });
    this.space = el("div.space");
    section.replaceChildren(
      el(
        "div.drop",
        {},
        el("div.corners", { "aria-hidden": "true" }),
        el("h1", { id: "start-title", tabindex: "-1" }, "Find the same place, building or object"),
        el("p", {}, "Drop a photograph, paste one, or choose a file."),
        el("button.primary", { type: "button", onclick: choose }, "Choose a file"),
      ),
      el(
        "div.shelf",
        {},
        el("h2", {}, "Or start from a picture of the collection"),
        el("div.filter", {}, el("label", { for: "filter" }, "Filter by name"), this.filter),
        this.count,
      ),
      this.space,
    );
  }

  /** @param {import("./state.js").State} state */
  async show({ contains }) {
    if (document.activeElement !== this.filter) this.filter.value = contains;
    if (this.shownFor === contains) return;
    this.shownFor = contains;
    this.pages?.stop();
    this.pages = new Pages({
      label: "Pictures of the collection",
      load: async (offset, signal) => {
        const { total, pictures } = await request("pictures", {
          query: { offset, limit: PAGE, contains },
          signal,
        });
        this.total = total;
        return { items: pictures, more: offset + pictures.length < total };
      },
      draw: (picture) => this.tile(picture),
      loaded: (shown) => this.tell(shown, contains),
    });
    await this.pages.next();
    if (this.shownFor === contains)
      this.space.replaceChildren(this.total || contains ? this.pages.element : this.empty());
  }

  /** Pictures came or went: what is shown is asked for anew. */
  refresh(info) {
    this.info = info;
    this.shownFor = null;
    if (!this.section.hidden) this.show(read());
  }

  tell(shown, contains) {
    const { total } = this;
    const words = contains ? `${total} of ${this.info.pictures} names contain “${contains}”` : some(total);
    this.count.textContent = total > shown ? `${words}, ${shown} shown` : words;
  }

  empty() {
    return el(
      "div.empty",
      {},
      el("p.big", {}, "There is no picture in this collection yet."),
      el("p", {}, "“This collection” above can bring it up to date with its folder."),
    );
  }

  tile(picture) {
    const link = el(
      "a.photo",
      {
        href: address({ picture: picture.id }),
        onclick: (event) => follow(event, () => search({ picture: picture.id })),
      },
      photograph(picture),
    );
    return tile(
      picture,
      link,
      el("p.name", { title: picture.name, "aria-hidden": "true" }, picture.name.split("/").pop()),
    );
  }
}

/** Pictures in justified rows, in order, more of them as the user gets near the end. */

import { thumbnail } from "./api.js";
import { el } from "./dom.js";
import { complain } from "./say.js";

const NARROWEST = 0.62;
const WIDEST = 2.6;

/** The sides' ratio, within what a row can bear; what is beyond is cropped at its edges. */
function aspect(width, height) {
  return width && height ? Math.min(Math.max(width / height, NARROWEST), WIDEST) : 4 / 3;
}

/**
 * A picture of the collection as an <img>. Its name is its alternative text.
 * @param {{id: string, name: string, width: number|null, height: number|null}} picture
 */
export function photograph({ id, name, width, height }, { eager = false } = {}) {
  const image = el("img", {
    src: thumbnail(id, 320),
    srcset: `${thumbnail(id, 320)} 1x, ${thumbnail(id, 640)} 2x`,
    alt: name,
    width: width ?? 4,
    height: height ?? 3,
    loading: eager ? "eager" : "lazy",
    decoding: "async",
    draggable: "false",
  });
  let again = 2;
  image.addEventListener("error", () => {
    if (again-- <= 0) return;
    setTimeout(() => {
      image.srcset = "";
      image.src = thumbnail(id, 320);
    }, 1500);
  });
  return image;
}

/** One place in the grid; `parts` come below the picture. */
export function tile(picture, link, ...parts) {
  const item = el(
    "li.tile",
    { style: { "--aspect": aspect(picture.width, picture.height) } },
    link,
    ...parts,
  );
  if (!picture.width) {
    const image = link.querySelector("img");
    image.addEventListener("load", () =>
      item.style.setProperty("--aspect", aspect(image.naturalWidth, image.naturalHeight)),
    );
  }
  item.dataset.id = picture.id;
  return item;
}

/**
 * A list that fills itself page by page.
 * @template T
 */
export class Pages {
  /**
   * @param {{label: string, load: (offset: number, signal: AbortSignal) => Promise<{items: T[], more: boolean}>,
   *   draw: (item: T) => HTMLElement|HTMLElement[], loaded?: (shown: number, more: boolean) => void}} options
   */
  constructor({ label, load, draw, loaded = () => {} }) {
    Object.assign(this, { load, draw, loaded });
    this.items = [];
    this.more = true;
    this.list = el("ol.grid", { role: "list", "aria-label": label });
    this.button = el(
      "button.more",
      { type: "button", hidden: true, onclick: () => this.next({ focus: true }) },
      "Load more",
    );
    this.stopped = new AbortController();
    this.sentinel = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && this.next(),
      { rootMargin: "600px" },
    );
    this.element = el("div.pages", {}, this.list, this.button);
  }

  /** Loads the next page; one at a time. */
  next({ focus = false } = {}) {
    if (!this.more || this.stopped.signal.aborted) return Promise.resolve();
    this.loading ??= this.fetchPage(focus).finally(() => {
      this.loading = null;
    });
    return this.loading;
  }

  async fetchPage(focus) {
    this.list.setAttribute("aria-busy", "true");
    this.sentinel.unobserve(this.button);
    try {
      const { items, more } = await this.load(this.items.length, this.stopped.signal);
      if (this.stopped.signal.aborted) return;
      this.items.push(...items);
      this.more = more && items.length > 0;
      const drawn = items.flatMap(this.draw);
      this.list.append(...drawn);
      if (focus)
        drawn
          .find((item) => item.matches(".tile"))
          ?.querySelector("a")
          .focus();
      this.loaded(this.items.length, this.more);
      // Observing anew reports at once, so a page that does not fill the window is followed by another.
      if (this.more) this.sentinel.observe(this.button);
    } catch (error) {
      if (!this.stopped.signal.aborted) this.failed(error);
    } finally {
      this.list.removeAttribute("aria-busy");
      this.button.hidden = !this.more;
    }
  }

  failed(error) {
    this.error = error;
    complain(error);
  }

  remove(id) {
    this.items = this.items.filter((item) => item.id !== id);
    this.list.querySelector(`[data-id="${CSS.escape(id)}"]`)?.remove();
  }

  stop() {
    this.stopped.abort();
    this.sentinel.disconnect();
  }
}

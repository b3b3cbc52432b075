/** The picture that is searched with: whole or a part of it. */

import { original, Problem, request, thumbnail, uploadImage } from "./api.js";
import { BoxPicker } from "./box.js";
import { el, icon, ICONS } from "./dom.js";
import { keepFile, keptFile } from "./files.js";
import { sendAgain } from "./incoming.js";
import { complain, notify } from "./say.js";
import { go, read } from "./state.js";

/**
 * @typedef {{kind: "picture"|"upload", id: string, name: string, width: number, height: number, picture: boolean,
 *   file?: Blob}} Query
 */

/** Repeats a request after a forgotten upload was sent again. */
export async function withUpload(state, work) {
  try {
    return await work();
  } catch (error) {
    if (error.status !== 404 || !state.upload || !(await sendAgain(state.upload))) throw error;
    return work();
  }
}

/** @returns {Promise<Query>} what the address says is searched with */
export async function findQuery(state, signal) {
  if (state.picture) {
    const found = await request(`pictures/${state.picture}`, { signal });
    return {
      ...found,
      ...(found.width ? {} : await sizeOf({ picture: found.id }, signal)),
      kind: "picture",
      picture: true,
    };
  }
  const kept = await keptFile(state.upload);
  if (kept) return { ...kept, kind: "upload" };
  // A bookmark of another browser: the server may still have it.
  const size = await sizeOf({ upload: state.upload }, signal);
  return { kind: "upload", id: state.upload, name: "uploaded picture", ...size, picture: false };
}

/** A picture's size where only the server can tell it, by looking. */
async function sizeOf(source, signal) {
  const { width, height } = await request("heatmap", {
    query: { ...source, kind: "activation", format: "json" },
    signal,
  });
  return { width, height };
}

/** What explains a query that cannot be had, with a way on. */
export function lost(state) {
  return new Problem({
    detail: state.upload
      ? "That photograph is no longer kept, by the server or in this browser. Drop it again to search with it."
      : "That picture is not in this collection (any more).",
  });
}

export function imageOf(query, size) {
  return query.kind === "picture" ? thumbnail(query.id, size) : uploadImage(query.id, size);
}

export class QueryPanel {
  /** @param {Query} query @param {any} info @param {...Node} extras what else can be set for a search */
  constructor(query, info, ...extras) {
    this.query = query;
    this.searched = null;
    this.added = () => {};
    const image = el("img", {
      src: imageOf(query, 640),
      srcset: `${imageOf(query, 640)} 1x, ${imageOf(query, 1280)} 2x`,
      alt: `Searched with: ${query.name}`,
      width: query.width ?? 4,
      height: query.height ?? 3,
      draggable: "false",
    });
    image.addEventListener("error", () => this.restoreImage(image), { once: true });
    this.stage = el("div.stage", { style: { "--aspect": (query.width ?? 4) / (query.height ?? 3) } }, image);
    this.picker = new BoxPicker(this.stage, {
      width: query.width,
      height: query.height,
      onchange: () => this.update(),
      onsubmit: () => this.submit(),
    });
    this.select = el(
      "button",
      { type: "button", onclick: () => this.picker.begin() },
      icon(ICONS.part),
      "Select a part",
    );
    this.part = el("button.primary", { type: "button", onclick: () => this.submit() }, "Search this part");
    this.whole = el("button", { type: "button", onclick: () => this.submitWhole() }, "Whole picture");
    const upright = query.height > query.width;
    this.element = el(
      upright ? "div.query.upright" : "div.query",
      {},
      this.stage,
      el(
        "p.query-name",
        {},
        el("span.name", { title: query.name }, query.name.split("/").pop()),
        el("span.muted", {}, `${query.width} × ${query.height}`),
      ),
      el("div.row", {}, this.part, this.select, this.whole),
      this.more(info),
      el("div.extras", {}, this.numbers(), this.originalLink(), ...extras),
    );
  }

  numbers() {
    const labels = ["Left", "Top", "Right", "Bottom"];
    this.fields = labels.map((label, i) =>
      el("input", {
        type: "number",
        min: 0,
        max: i % 2 ? this.query.height : this.query.width,
        step: 1,
        inputmode: "numeric",
        "aria-label": `${label}, in pixels`,
        onchange: () => this.picker.set(this.fields.map((f) => Number(f.value))),
      }),
    );
    return el(
      "details.numbers",
      {},
      el("summary", {}, "The part in pixels"),
      el(
        "div.fields",
        {},
        ...labels.map((label, i) => el("label", {}, el("span", {}, label), this.fields[i])),
      ),
    );
  }

  more(info) {
    const { query } = this;
    if (query.kind === "picture") return null;
    if (query.picture) return el("p.muted", {}, "This very picture is in the collection.");
    if (!info.can_add || !query.file) return null;
    const button = el("button", { type: "button" }, icon(ICONS.add), "Add this picture to the collection");
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        const added = await request("pictures", {
          method: "POST",
          query: { name: query.name },
          body: query.file,
          raw: true,
        });
        const said = el("p.muted", { tabindex: "-1" }, `Added as ${added.name}.`);
        button.replaceWith(said);
        if (document.activeElement === document.body) said.focus({ preventScroll: true });
        notify(`Added to the collection as ${added.name}.`);
        query.picture = true;
        const { kind: _, ...kept } = query;
        await keepFile(kept);
        this.added();
      } catch (error) {
        button.disabled = false;
        complain(error);
      }
    });
    return el("div.row", {}, button);
  }

  originalLink() {
    if (this.query.kind !== "picture") return null;
    return el(
      "a",
      { href: original(this.query.id), target: "_blank", rel: "noopener" },
      "Open the original",
      el("span.unseen", {}, " (in a new tab)"),
    );
  }

  async restoreImage(image) {
    if (this.query.kind !== "upload" || !(await sendAgain(this.query.id).catch(() => false))) return;
    image.srcset = "";
    image.src = imageOf(this.query, 1280);
  }

  /** Shows the part that is searched with now. */
  show(box) {
    this.searched = box;
    this.picker.show(box);
    this.stage.classList.remove("selecting");
    this.update();
  }

  update() {
    const { box } = this.picker;
    const same = String(box ?? "") === String(this.searched ?? "");
    this.part.hidden = !box || same;
    this.whole.hidden = !box;
    this.select.hidden = Boolean(box);
    this.fields.forEach((field, i) => {
      field.value = box ? box[i] : [0, 0, this.query.width, this.query.height][i];
    });
  }

  submit() {
    if (this.picker.box) go({ box: this.picker.box, view: "" });
  }

  submitWhole() {
    if (read().box) go({ box: null, view: "" });
    else this.show(null);
    this.select.focus();
  }
}

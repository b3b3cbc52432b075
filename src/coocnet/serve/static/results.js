/** What was found: the results of the query in the address, their cut, and the ones marked as right. */

import { request } from "./api.js";
import { el, some } from "./dom.js";
import { Pages } from "./grid.js";
import { didNotWork, hitDrawer, nothingFound, remarks } from "./hit.js";
import { Marked } from "./marked.js";
import { findQuery, lost, QueryPanel, withUpload } from "./query.js";
import { ranking } from "./ranking.js";
import { Scale, two } from "./scale.js";
import { complain } from "./say.js";
import { go, read, searchKey } from "./state.js";

const PAGE = 50;
const PLOTTED = 100;

export class Results {
  /** @param {HTMLElement} section @param {any} info */
  constructor(section, info) {
    Object.assign(this, { section, info });
    this.key = "";
    this.query = null;
    this.marked = new Marked(
      () => this.pages.list.querySelectorAll(".tile"),
      () => this.title.focus(),
    );
  }

  /** Unasked nothing is left out; where the learned limit lies is shown between the results. */
  threshold({ threshold }) {
    return threshold === "auto" && this.info.auto_threshold === null ? "none" : threshold || "none";
  }

  /** @param {import("./state.js").State} state */
  async show(state) {
    const key = searchKey(state);
    if (key === this.key) {
      if (this.query) this.marked.keep();
      return;
    }
    this.key = key;
    this.pages?.stop();
    this.stopped?.abort();
    this.stopped = new AbortController();
    const source = state.picture || state.upload;
    if (this.query?.id !== source) {
      this.section.replaceChildren(el("p.empty", { role: "status" }, "Looking at the picture …"));
      this.query = null;
      try {
        const query = await findQuery(state, this.stopped.signal);
        if (this.key !== key) return;
        this.query = query;
      } catch (error) {
        if (error.name !== "AbortError") this.fail(error.status === 404 ? lost(state) : error);
        return;
      }
      this.build();
    }
    this.panel.show(state.box);
    this.marked.restore();
    await this.search(state);
  }

  build() {
    const { query } = this;
    this.panel = new QueryPanel(query, this.info, ranking(this.info));
    this.panel.added = () => this.changed();
    this.title = el("h1", { id: "found-title", tabindex: "-1" });
    this.count = el("p.count", { role: "status", "aria-live": "polite" });
    this.shown = el("p.muted.shown", { role: "status", "aria-live": "polite" });
    this.scale ??= new Scale({
      auto: this.info.auto_threshold,
      onchange: (threshold) => go({ threshold }, { replace: true }),
      onpreview: (cut) => this.preview(cut),
    });
    this.remark = el("div.remark");
    this.space = el("div.space");
    this.section.replaceChildren(
      el("aside.side", { "aria-label": "What is searched with" }, this.panel.element),
      el(
        "div.results",
        {},
        el("div.head", {}, this.title, this.count, this.remark, this.scale.element),
        this.space,
        this.marked.bar,
      ),
    );
  }

  fail(error) {
    this.key = "";
    this.query = null;
    this.section.replaceChildren(didNotWork(error));
    document.title = "That did not work · coocnet";
  }

  ask(state, more, signal) {
    const { picture, upload, box, relevant, expansion, reranking } = state;
    const query = {
      picture,
      upload,
      box: box?.join(","),
      relevant: relevant.join(","),
      expansion,
      reranking,
      ...more,
    };
    return withUpload(state, () => request("search", { query, signal }));
  }

  search(state) {
    const { signal } = this.stopped;
    const threshold = this.threshold(state);
    const isRanked = threshold === "none" && !state.reranking;
    let first = true;
    this.pages = new Pages({
      label: "Results",
      load: async (offset) => {
        const limit = Math.min(PAGE, this.info.limits.hits - offset);
        if (limit <= 0) return { items: [], more: false };
        const answer = await this.ask(state, { limit, offset, threshold }, signal);
        if (first) this.answered(state, threshold, answer);
        first = false;
        return { items: answer.hits, more: answer.more };
      },
      draw: hitDrawer(this.marked, isRanked ? this.info.auto_threshold : null),
      loaded: () => this.tell(),
    });
    this.pages.failed = (error) => {
      if (this.pages.items.length) complain(error);
      else this.fail(error.status === 404 && state.upload && !this.query.file ? lost(state) : error);
    };
    this.space.classList.add("waiting");
    this.title.textContent = state.box ? "Like this part" : "Like this picture";
    return this.pages.next();
  }

  answered(state, threshold, answer) {
    this.answer = answer;
    this.scale.show(threshold, answer.threshold);
    this.space.classList.remove("waiting");
    this.space.replaceChildren(answer.hits.length ? this.pages.element : nothingFound(answer));
    this.remark.replaceChildren(...remarks(state, answer, this.info));
    this.plot(state);
  }

  /** The nearest pictures whatever the cut, for the ticks of the scale and the count. */
  async plot(state) {
    const key = searchKey({ ...state, threshold: "" });
    if (this.plotted !== key) {
      const { signal } = this.stopped;
      this.plotted = "";
      this.all = null;
      this.scale.plot([]);
      try {
        const limit = Math.min(PLOTTED, this.info.limits.hits);
        const answer = await this.ask(state, { limit, threshold: "none" }, signal);
        if (signal.aborted) return;
        this.plotted = key;
        this.all = { similarities: answer.hits.map((hit) => hit.similarity), complete: !answer.more };
      } catch (error) {
        if (error.name !== "AbortError") this.all = { similarities: [], complete: false };
        return;
      }
    }
    this.scale.plot(this.all.similarities);
    this.tell();
  }

  /** How many there are: exactly where all are known, else at least; "" as long as that is being asked. */
  counted(cut) {
    if (!this.pages.more && cut === this.answer.threshold) return some(this.pages.items.length);
    if (!this.all) return "";
    const { similarities, complete } = this.all;
    const count = similarities.filter((value) => cut === null || value >= cut).length;
    if (complete || count < similarities.length) return some(count);
    return `More than ${some(Math.max(count, this.pages.items.length))}`;
  }

  tell() {
    if (!this.answer) return;
    const cut = this.answer.threshold;
    const count = this.counted(cut);
    if (!count) return;
    this.say(this.count, this.summary(cut, count));
    const shown = this.pages.items.length;
    this.say(this.shown, this.pages.more ? `${shown} of ${count.toLowerCase()} shown` : "");
    if (!this.shown.isConnected) this.pages.button.before(this.shown);
    if (!read().view) this.retitle();
  }

  /** The line in force in plain words. */
  summary(cut, count) {
    if (cut !== null) return this.pages.items.length ? `${count} above ${two(cut)}` : "Nothing found";
    const limit = this.info.auto_threshold;
    const alike = limit === null || read().reranking ? "" : this.counted(limit);
    if (!alike) return `${count}, nearest first`;
    if (alike.startsWith("0 ")) return `No picture above ${two(limit)}; the nearest first`;
    return `${alike} above ${two(limit)}, then less similar ones`;
  }

  retitle() {
    document.title = `${this.count.textContent || this.title.textContent} · ${this.query.name} · coocnet`;
  }

  say(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  preview(cut) {
    this.say(this.count, `${this.counted(cut)} above ${two(cut)}`);
    for (const item of this.pages.list.querySelectorAll(".tile"))
      item.classList.toggle("below", Number(item.dataset.similarity) < cut);
  }

  /** Asks again for what is in the address, where the collection has changed. */
  again() {
    this.key = "";
    this.plotted = "";
    if (!this.section.hidden) this.show(read());
  }

  /** A picture was taken out of the collection. */
  taken(id) {
    this.pages.remove(id);
    if (this.marked.has(id)) this.marked.set(id, false);
    this.plotted = "";
    this.changed();
    if (!this.section.hidden) this.plot(read());
  }

  /** The hits so far, for stepping through them. */
  get hits() {
    return this.pages?.items ?? [];
  }

  /** The hit before (-1) or after (1) one, loading more where needed; null at the ends. */
  async beside(id, step) {
    const place = () => this.hits.findIndex((hit) => hit.id === id);
    while (place() < 0 && this.pages.more) await this.pages.next();
    const at = place();
    if (at < 0) return null;
    if (at + step >= this.hits.length) await this.pages.next();
    return this.hits[at + step] ?? null;
  }
}

/** Two pictures side by side: what of the one matched what of the other, exactly. */

import { request, thumbnail } from "./api.js";
import { controls } from "./comparecontrols.js";
import { el, sentence } from "./dom.js";
import { Matches } from "./matches.js";
import { ramp, scaleOf, signed } from "./overlay.js";
import { legend, Pane } from "./pane.js";
import { imageOf, withUpload } from "./query.js";
import { two } from "./scale.js";
import { announce, closeDialog, complain, openDialog } from "./say.js";
import { go, leaveView, read } from "./state.js";

const HEATS = ["activation", "cooccurrence"];
const LEGENDS = {
  activation: "How strongly the network fires in each cell",
  cooccurrence: "How strongly other channels fire around each cell",
};
const ALONE = "Shown for the query alone: what it was expanded with, and re-ranking, are left out.";

export class Compare {
  /** @param {HTMLDialogElement} dialog @param {import("./results.js").Results} results @param {any} info */
  constructor(dialog, results, info) {
    Object.assign(this, { dialog, results, info });
    this.answers = new Map();
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.leave();
    });
    // A browser may close a dialog without asking.
    dialog.addEventListener("close", () => this.key && this.leave());
    dialog.addEventListener("keydown", (event) => this.keyed(event));
    new ResizeObserver(() => this.open && this.repaint()).observe(dialog);
  }

  get open() {
    return this.dialog.open;
  }

  get mode() {
    const modes = [...(this.info.explains ? ["matched"] : []), ...HEATS, "photographs"];
    const mode = read().mode || this.lastMode;
    return modes.includes(mode) ? mode : modes[0];
  }

  /** @param {import("./state.js").State} state */
  async show(state) {
    const key = [state.picture, state.upload, state.box, state.view].join();
    if (this.key === key && this.open) return this.paint();
    this.key = key;
    this.stopped?.abort();
    this.stopped = new AbortController();
    const { signal } = this.stopped;
    const known = this.results.hits.find((hit) => hit.id === state.view);
    try {
      const result = known?.width
        ? known
        : { ...known, ...(await request(`pictures/${state.view}`, { signal })) };
      if (this.key !== key) return;
      this.build(state, result);
      openDialog(this.dialog);
      this.title.focus({ preventScroll: true });
      this.dialog.scrollTop = 0;
      this.paint();
    } catch (error) {
      complain(error);
      if (error.name !== "AbortError") this.leave();
    }
  }

  hide() {
    this.key = "";
    this.stopped?.abort();
    if (!this.open) return;
    closeDialog(this.dialog);
    document.querySelector(`[data-hit="${CSS.escape(this.result?.id ?? "")}"]`)?.focus();
  }

  leave() {
    leaveView();
  }

  build(state, result) {
    const { query } = this.results;
    this.result = result;
    this.answers.clear();
    this.readout = el("p.readout", { "aria-hidden": "true" });
    const options = {
      loaded: () => this.repaint(),
      read: (words) => {
        this.readout.textContent = words;
      },
    };
    const dense = (image) => [image(1280), image(2048)];
    this.panes = [
      new Pane(
        "Query",
        query,
        dense((size) => imageOf(query, size)),
        options,
      ),
      new Pane(
        "Result",
        result,
        dense((size) => thumbnail(result.id, size)),
        options,
      ),
    ];
    this.box = state.box;
    this.table = el("div.panes", {}, ...this.panes.map((pane) => pane.element));
    const frames = this.panes.map((pane) => pane.frame);
    this.matches = new Matches(this.table, frames);
    this.title = el("h2", { id: "compare-title", tabindex: "-1" });
    this.title.textContent = result.rank
      ? `Number ${result.rank}, similarity ${two(result.similarity)}`
      : "Comparison";
    this.sentence = el("p.sentence", { role: "status", "aria-live": "polite" });
    this.notes = el("ul.notes");
    this.legend = el("div.legend");
    this.controls = controls(this);
    this.dialog.replaceChildren(
      el("header.compare-head", {}, this.title, this.controls.steps, this.controls.close),
      el(
        "div.compare-body",
        {},
        el("div", {}, this.table, this.readout),
        el(
          "div.compare-side",
          {},
          this.controls.modes,
          this.controls.opacity,
          this.legend,
          this.sentence,
          this.matches.list,
          this.notes,
          this.controls.actions,
        ),
      ),
    );
    document.title = `${result.name} compared · coocnet`;
  }

  /** What the server says of this pair in a mode; asked once. */
  ask(mode) {
    if (!this.answers.has(mode)) {
      const { picture, upload } = read();
      const source = { picture, upload, box: this.box?.join(",") };
      const { signal } = this.stopped;
      const heat = (query) => request("heatmap", { query: { ...query, kind: mode, format: "json" }, signal });
      const asked = withUpload({ upload }, () =>
        mode === "matched"
          ? request("explanation", { query: { ...source, result: this.result.id }, signal })
          : Promise.all([heat(source), heat({ picture: this.result.id })]),
      );
      asked.catch(() => this.answers.delete(mode));
      this.answers.set(mode, asked);
    }
    return this.answers.get(mode);
  }

  async paint() {
    const { mode } = this;
    this.lastMode = mode;
    this.controls.mark(mode);
    for (const pane of this.panes) pane.map = null;
    this.matches.clear();
    this.notes.replaceChildren();
    this.legend.replaceChildren();
    this.readout.textContent = "";
    this.sentence.textContent = "";
    this.repaint();
    if (mode === "photographs") return;
    this.sentence.textContent = "Computing …";
    this.table.setAttribute("aria-busy", "true");
    try {
      const key = this.key;
      const answer = await this.ask(mode);
      if (this.key !== key || this.mode !== mode) return;
      if (mode === "matched") this.explained(answer);
      else this.heated(answer, mode);
      this.repaint();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.sentence.textContent = error.message;
      announce(error.message);
    } finally {
      this.table.removeAttribute("aria-busy");
    }
  }

  /** Lays the two maps over the pictures, on one scale. */
  lay(maps, words, colour, from) {
    const scale = scaleOf(...maps);
    this.panes.forEach((pane, i) => {
      pane.map = maps[i];
      pane.hasSign = from < 0;
    });
    this.colours = { scale, colour };
    this.legend.replaceChildren(...legend(words, colour, { from, scale }));
  }

  explained(answer) {
    const { similarity, constant, notes } = answer;
    this.lay([answer.query, answer.result], "Orange raises the similarity, blue lowers it", signed, -1);
    this.sentence.textContent = [
      `Similarity ${similarity.toFixed(3)}.`,
      constant &&
        `Of it, ${constant.toFixed(3)} comes from what all pictures of the collection have in common,`,
      constant && `and ${(similarity - constant).toFixed(3)} from what the colours show.`,
    ]
      .filter(Boolean)
      .join(" ");
    const { relevant, expansion, reranking } = read();
    const alone = relevant.length || expansion || reranking ? [ALONE] : [];
    this.notes.replaceChildren(...[...notes, ...alone].map((note) => el("li", {}, sentence(note))));
    this.matches.show(answer);
  }

  heated(maps, mode) {
    this.sentence.textContent = "";
    this.lay(maps, LEGENDS[mode], ramp, 0);
  }

  repaint() {
    this.panes?.forEach((pane, i) => pane.paint(this.colours, i ? null : this.box));
    this.matches?.draw();
  }

  async step(by) {
    const hit = await this.results.beside(this.result.id, by);
    if (hit) go({ view: hit.id }, { replace: true });
    else announce(by > 0 ? "That was the last result." : "That was the first result.");
  }

  keyed(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const modified = event.altKey || event.ctrlKey || event.metaKey;
    // Arrow keys belong to the radio buttons and the slider where these have the focus.
    if (!by || modified || event.target.matches("input:not([type=checkbox])")) return;
    event.preventDefault();
    this.step(by);
  }
}

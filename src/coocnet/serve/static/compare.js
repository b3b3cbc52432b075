/** Two pictures side by side: what of the one matched what of the other, exactly. */

import { request, thumbnail } from "./api.js";
import { controls } from "./comparecontrols.js";
import { el } from "./dom.js";
import { Matches } from "./matches.js";
import { cellBelow, paintBar, paintMap, paintPart, ramp, scaleOf, signed } from "./overlay.js";
import { imageOf, withUpload } from "./query.js";
import { two } from "./scale.js";
import { announce, closeDialog, complain, openDialog } from "./say.js";
import { go, leaveView, read } from "./state.js";

const HEATS = ["activation", "cooccurrence"];
const LEGENDS = {
  activation: "How strongly the network fires in each cell",
  cooccurrence: "How strongly other channels fire around each cell",
};

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
      const result = known?.width ? known : { ...known, ...(await request(`pictures/${state.view}`, { signal })) };
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
    const side = (name, picture, sources) => {
      const canvas = el("canvas.overlay", { "aria-hidden": "true" });
      const image = el("img", {
        src: sources[0],
        srcset: `${sources[0]} 1x, ${sources[1]} 2x`,
        alt: `${name}: ${picture.name}`,
        width: picture.width ?? 4,
        height: picture.height ?? 3,
        decoding: "async",
      });
      const frame = el("div.frame", { style: { "--aspect": (picture.width ?? 4) / (picture.height ?? 3) } }, image, canvas);
      image.addEventListener("load", () => {
        if (!picture.width) frame.style.setProperty("--aspect", image.naturalWidth / image.naturalHeight);
        this.repaint();
      });
      return { frame, canvas, picture, element: el("figure.pane", {}, frame, el("figcaption", {}, el("strong", {}, name), " ", el("span.name", { title: picture.name }, picture.name))) };
    };
    this.sides = [
      side("Query", query, [imageOf(query, 1280), imageOf(query, 2048)]),
      side("Result", result, [thumbnail(result.id, 1280), thumbnail(result.id, 2048)]),
    ];
    this.box = state.box;
    this.table = el("div.panes", {}, ...this.sides.map((s) => s.element));
    this.matches = new Matches(this.table, this.sides.map((s) => s.frame));
    this.title = el("h2", { id: "compare-title", tabindex: "-1" });
    this.title.textContent = result.rank ? `Number ${result.rank}, similarity ${two(result.similarity)}` : "Comparison";
    this.sentence = el("p.sentence", { role: "status", "aria-live": "polite" });
    this.notes = el("ul.notes");
    this.legend = el("div.legend");
    this.readout = el("p.readout", { "aria-hidden": "true" });
    this.controls = controls(this);
    this.dialog.replaceChildren(
      el("header.compare-head", {}, this.title, this.controls.steps, this.controls.close),
      el("div.compare-body", {},
        el("div", {}, this.table, this.readout),
        el("div.compare-side", {}, this.controls.modes, this.controls.opacity, this.legend, this.sentence, this.matches.list, this.notes, this.controls.actions)),
    );
    this.sides.forEach((s, i) => this.readCells(s, i));
    document.title = `${result.name} compared · coocnet`;
  }

  readCells({ frame }, i) {
    frame.addEventListener("pointermove", (event) => {
      const map = this.maps?.[i];
      const { left, top, width, height } = frame.getBoundingClientRect();
      const cell = map && cellBelow(map, event.clientX - left, event.clientY - top, width, height);
      const value = cell && map.values[cell[0] * map.columns + cell[1]];
      this.readout.textContent = cell ? `Row ${cell[0] + 1}, column ${cell[1] + 1}: ${value >= 0 ? "+" : "−"}${Math.abs(value).toPrecision(3)}` : "";
    });
    frame.addEventListener("pointerleave", () => {
      this.readout.textContent = "";
    });
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
          : Promise.all([heat(source), heat({ picture: this.result.id })]));
      asked.catch(() => this.answers.delete(mode));
      this.answers.set(mode, asked);
    }
    return this.answers.get(mode);
  }

  async paint() {
    const { mode } = this;
    this.lastMode = mode;
    this.controls.mark(mode);
    this.maps = null;
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
      this.answer = answer;
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

  explained(answer) {
    this.maps = [answer.query, answer.result];
    this.scale = scaleOf(...this.maps);
    const { similarity, constant } = answer;
    const shared = constant
      ? ` Of it, ${constant.toFixed(3)} comes from what all pictures of the collection have in common, and ${(similarity - constant).toFixed(3)} from what the colours show.`
      : "";
    this.sentence.textContent = `Similarity ${similarity.toFixed(3)}.${shared}`;
    this.explainColours("Orange raises the similarity, blue lowers it", signed, -1);
    const { relevant, expansion, reranking } = read();
    const notes = [...answer.notes];
    if (relevant.length || expansion || reranking) notes.push("Shown for the query alone: what it was expanded with, and re-ranking, are left out.");
    this.notes.replaceChildren(...notes.map((note) => el("li", {}, note)));
    this.matches.show(answer);
  }

  heated(maps, mode) {
    this.maps = maps;
    this.scale = scaleOf(...maps);
    this.sentence.textContent = "";
    this.explainColours(LEGENDS[mode], ramp, 0);
  }

  /** The legend: one scale for both pictures, with its numbers. */
  explainColours(words, colour, from) {
    const bar = el("canvas.scale-bar", { "aria-hidden": "true" });
    paintBar(bar, colour, from);
    const number = (value) => (value === 0 ? "0" : `${value < 0 ? "−" : from ? "+" : ""}${Math.abs(value).toPrecision(2)}`);
    this.legend.replaceChildren(
      el("p", {}, words, "."),
      bar,
      el("p.ends", {}, ...(from ? [-1, 0, 1] : [0, 0.5, 1]).map((share) => el("span", {}, number(share * this.scale)))),
    );
  }

  repaint() {
    const { mode } = this;
    this.sides?.forEach(({ canvas, picture }, i) => {
      const map = this.maps?.[i];
      if (map && mode !== "photographs") paintMap(canvas, map, { scale: this.scale, colour: mode === "matched" ? signed : ramp });
      else paintPart(canvas, { box: i ? null : this.box, width: picture.width, height: picture.height });
    });
    this.matches?.draw();
  }

  async step(by) {
    const hit = await this.results.beside(this.result.id, by);
    if (hit) go({ view: hit.id }, { replace: true });
    else announce(by > 0 ? "That was the last result." : "That was the first result.");
  }

  keyed(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input:not([type=checkbox])")) return;
    event.preventDefault();
    this.step(by);
  }
}

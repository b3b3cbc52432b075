/** The controls of the comparison. */

import { original, request } from "./api.js";
import { el, icon, ICONS } from "./dom.js";
import { complain, notify } from "./say.js";
import { go, home, search } from "./state.js";

const MODES = [
  ["matched", "What matched"],
  ["activation", "Activations"],
  ["cooccurrence", "Co-occurrence"],
  ["photographs", "Photographs"],
];
let strength = 0.8;

/** @param {import("./compare.js").Compare} compare */
export function controls(compare) {
  const { result, results, info } = compare;
  const step = (by, label, path) =>
    el(
      "button.quiet",
      {
        type: "button",
        "aria-label": label,
        "aria-keyshortcuts": by < 0 ? "ArrowLeft" : "ArrowRight",
        onclick: () => compare.step(by),
      },
      icon(path),
    );
  const { modes, mark } = modesOf(compare);
  return {
    steps: el(
      "div.steps",
      {},
      step(-1, "Previous result", ICONS.previous),
      step(1, "Next result", ICONS.next),
    ),
    close: el(
      "button.quiet",
      {
        type: "button",
        "aria-label": "Close",
        "aria-keyshortcuts": "Escape",
        onclick: () => compare.leave(),
      },
      icon(ICONS.close),
    ),
    modes,
    mark,
    opacity: opacity(compare),
    actions: el(
      "div.actions",
      {},
      right(result, results),
      el(
        "button",
        { type: "button", onclick: () => search({ picture: result.id }) },
        icon(ICONS.similar),
        "Find similar from here",
      ),
      el(
        "a.button",
        { href: original(result.id), target: "_blank", rel: "noopener" },
        icon(ICONS.open),
        "Open the original",
        el("span.unseen", {}, " (in a new tab)"),
      ),
      info.can_write && takeOut(compare),
    ),
  };
}

function modesOf(compare) {
  const radios = {};
  const labels = MODES.filter(([mode]) => mode !== "matched" || compare.info.explains).map(
    ([mode, label]) => {
      radios[mode] = el("input", {
        type: "radio",
        name: "mode",
        value: mode,
        onchange: () => go({ mode }, { replace: true }),
      });
      return el("label.choice", {}, radios[mode], el("span", {}, label));
    },
  );
  return {
    modes: el(
      "fieldset.modes",
      {},
      el("legend.unseen", {}, "Shown over the pictures"),
      el("div.choices", {}, ...labels),
    ),
    mark: (mode) => {
      radios[mode].checked = true;
      compare.dialog.dataset.mode = mode;
    },
  };
}

function opacity({ table }) {
  const range = el("input", {
    type: "range",
    min: 0,
    max: 1,
    step: 0.05,
    value: strength,
    "aria-label": "Opacity of the colours",
  });
  const apply = () => {
    strength = Number(range.value);
    table.style.setProperty("--strength", strength);
    range.style.setProperty("--at", strength);
    range.setAttribute("aria-valuetext", `${Math.round(100 * strength)} %`);
  };
  range.addEventListener("input", apply);
  apply();
  return el("label.opacity", {}, el("span", { "aria-hidden": "true" }, "Opacity"), range);
}

function right(result, results) {
  const box = el("input", { type: "checkbox", onchange: () => results.marked.set(result.id, box.checked) });
  box.checked = results.marked.has(result.id);
  return el("label.check", {}, box, "Mark as right");
}

/** Asked for once more before it is done, and undone by a press afterwards. */
function takeOut(compare) {
  const { result, results } = compare;
  const start = el("button", { type: "button" }, icon(ICONS.bin), "Take out of the collection");
  const keepIt = el("button", { type: "button" }, "Keep it");
  const sure = el("button.danger", { type: "button" }, "Take it out");
  const asked = el(
    "div.confirm",
    { role: "group", "aria-label": "Take this picture out?", hidden: true },
    el("p", {}, "The index forgets this picture and later updates leave it out. The file stays where it is."),
    sure,
    keepIt,
  );
  start.addEventListener("click", () => {
    start.hidden = true;
    asked.hidden = false;
    sure.focus();
  });
  keepIt.addEventListener("click", () => {
    asked.hidden = true;
    start.hidden = false;
    start.focus();
  });
  sure.addEventListener("click", async () => {
    sure.disabled = true;
    try {
      await request(`pictures/${result.id}`, { method: "DELETE" });
      // Nothing is like a picture that is gone.
      if (result.id === results.query.id) home();
      else compare.leave();
      results.taken(result.id);
      notify(`${result.name} is out of the collection.`, {
        action: "Undo",
        act: () => putBack(result, results),
      });
    } catch (error) {
      sure.disabled = false;
      complain(error);
    }
  });
  return el("div.take-out", {}, start, asked);
}

async function putBack(result, results) {
  try {
    await request(`pictures/${result.id}/restore`, { method: "POST" });
    notify(`${result.name} is back in the collection.`);
    results.again();
    results.changed();
  } catch (error) {
    complain(error);
  }
}

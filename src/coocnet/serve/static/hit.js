/** A picture that was found, and what is said where none was. */

import { el, some } from "./dom.js";
import { photograph, tile } from "./grid.js";
import { choose } from "./incoming.js";
import { two } from "./scale.js";
import { address, follow, go, read } from "./state.js";

/** These come at once, the others when they are scrolled to. */
const AT_ONCE = 12;

/**
 * @param {any} hit as the server gives it
 * @param {import("./marked.js").Marked} marked
 */
function hitTile(hit, marked) {
  const link = el(
    "a.photo",
    {
      href: address({ ...read(), view: hit.id }),
      "data-hit": hit.id,
      onclick: (event) => follow(event, () => go({ view: hit.id })),
    },
    photograph(hit, { eager: hit.rank <= AT_ONCE }),
    el("span.unseen", {}, `, similarity ${two(hit.similarity)}, number ${hit.rank}`),
    el(
      "span.badges",
      {},
      hit.identical && el("span.badge", {}, "this very picture"),
      hit.names_total > 1 && el("span.badge", {}, `${hit.names_total} copies`),
    ),
  );
  const tick = el("input", {
    type: "checkbox",
    "aria-label": `Mark ${hit.name} as right`,
    onchange: () => marked.set(hit.id, tick.checked),
  });
  const item = tile(
    hit,
    link,
    el(
      "div.caption",
      {},
      el("span.score", {}, two(hit.similarity)),
      el("label.tick", { title: "Mark as right" }, tick),
    ),
    el("p.name", { title: hit.name, "aria-hidden": "true" }, hit.name.split("/").pop()),
  );
  item.dataset.similarity = hit.similarity;
  marked.paint(item);
  return item;
}

/**
 * Draws hit after hit, and where they pass below a limit that was learned, says so once.
 * @param {import("./marked.js").Marked} marked
 * @param {number|null} limit null where there is none, or hits do not come in order of similarity
 */
export function hitDrawer(marked, limit) {
  let isAbove = limit !== null;
  return (hit) => {
    const tile = hitTile(hit, marked);
    if (!isAbove || hit.similarity >= limit) return tile;
    isAbove = false;
    return [...limitPassed(limit, hit.rank - 1), tile];
  };
}

/** What stands in the results where they pass below what the collection has learned to be alike. */
function limitPassed(limit, above) {
  const words = above
    ? `From here on below ${two(limit)}, the limit learned from this collection: less sure`
    : `Nothing reaches ${two(limit)}, the limit learned from this collection; these are the nearest`;
  return [el("li.rest", { "aria-hidden": "true" }), el("li.limit", {}, el("p", {}, words))];
}

/** What has to be said of how the results came about. */
export function remarks({ relevant }, { approximate, gone }, { recall }) {
  const without = () => go({ relevant: [], view: "" });
  return [
    relevant.length &&
      el(
        "p",
        {},
        gone.length < relevant.length &&
          `Searched with ${some(relevant.length - gone.length)} marked as right as well. `,
        gone.length > 0 && `Of those marked as right, ${gone.length} left the collection. `,
        el("button.link", { type: "button", onclick: without }, "Without them"),
      ),
    approximate &&
      el(
        "p.muted",
        {},
        "Found by approximate search",
        recall ? `, which finds ${Math.round(recall * 100)} of 100.` : ".",
      ),
  ].filter(Boolean);
}

/** @param {{threshold: number|null, nearest: number|null}} answer */
export function nothingFound({ threshold, nearest }) {
  if (nearest === null) return el("div.empty", {}, el("p.big", {}, "The collection holds no other picture."));
  const words = `Nothing in this collection reaches ${two(threshold ?? 0)}; the nearest has ${two(nearest)}.`;
  const anyway = () => go({ threshold: "none" }, { replace: true });
  return el(
    "div.empty",
    {},
    el("p.big", {}, words),
    el("button.primary", { type: "button", onclick: anyway }, "Show the nearest anyway"),
  );
}

/** @param {Error} error */
export function didNotWork(error) {
  return el(
    "div.empty",
    {},
    el("h1", { id: "found-title", tabindex: "-1" }, "That did not work"),
    el("p", { role: "alert" }, error.message),
    el(
      "div.row",
      {},
      el("button.primary", { type: "button", onclick: choose }, "Choose a file"),
      el("a.button", { href: "/" }, "To the collection"),
    ),
  );
}

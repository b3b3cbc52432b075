/** How results are ranked beyond plain similarity, where the collection allows it. */

import { el } from "./dom.js";
import { go, read } from "./state.js";

const WORDS = {
  aqe: "by the average of the nearest",
  "alpha-qe": "by the nearest, weighted by similarity",
  reciprocal: "by reciprocal neighbours",
  diffusion: "by diffusion over the collection",
};

/** @param {{expansions: string[], rerankings: string[]}} info */
export function ranking({ expansions, rerankings }) {
  const choice = (label, key, values, plain) => {
    if (!values?.length) return null;
    const select = el(
      "select",
      { onchange: () => go({ [key]: select.value, view: "" }) },
      el("option", { value: "" }, plain),
      ...values.map((value) => el("option", { value }, WORDS[value] ?? value)),
    );
    select.value = read()[key];
    return el("label.field", {}, el("span", {}, label), select);
  };
  const fields = [
    choice("Expand the query", "expansion", expansions, "no"),
    choice("Rank anew", "reranking", rerankings, "no"),
  ].filter(Boolean);
  return fields.length ? el("details.ranking", {}, el("summary", {}, "Ranking"), ...fields) : null;
}

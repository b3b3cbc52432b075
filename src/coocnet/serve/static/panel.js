/** What the index holds and how it was made; bringing it up to date; what was taken out of it. */

import { request } from "./api.js";
import { el, icon, ICONS } from "./dom.js";
import { closeDialog, complain, notify, openDialog } from "./say.js";
import { isSyncing, startSync } from "./sync.js";

const dialog = document.getElementById("panel");
const number = new Intl.NumberFormat("en");
const when = (moment) => {
  const date = new Date(typeof moment === "number" ? moment * 1000 : moment);
  return moment && !Number.isNaN(date.getTime())
    ? el(
        "time",
        { datetime: date.toISOString() },
        date.toLocaleString("en", { dateStyle: "medium", timeStyle: "short" }),
      )
    : "never";
};
const size = (bytes) => {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes > 0 ? Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1) : 0;
  return `${(bytes / 1024 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
};

const row = (label, ...value) => el("div", {}, el("dt", {}, label), el("dd", {}, ...value));

/** Opens the panel. @param {() => Promise<any>} load the index as it is now @param {() => void} changed */
export async function openPanel(load, changed) {
  const close = el(
    "button.quiet",
    { type: "button", "aria-label": "Close", onclick: () => closeDialog(dialog) },
    icon(ICONS.close),
  );
  const space = el("div.panel-body", {}, el("p.muted", {}, "Loading …"));
  dialog.replaceChildren(
    el("header", {}, el("h2", { id: "panel-title", tabindex: "-1" }, "This collection"), close),
    space,
  );
  openDialog(dialog);
  try {
    const info = await load();
    const taken = info.can_write ? (await request("removed")).pictures : [];
    space.replaceChildren(...contents(info), ...skipped(info), ...removed(taken, changed));
  } catch (error) {
    space.replaceChildren(el("p.problem-text", { role: "alert" }, error.message));
  }
}

dialog.addEventListener("click", (event) => {
  if (event.target === dialog) closeDialog(dialog);
});

function contents(info) {
  const { recipe } = info;
  const update = el(
    "button.primary",
    { type: "button", disabled: isSyncing() },
    isSyncing() ? "Being updated …" : "Update",
  );
  update.addEventListener("click", async () => {
    update.disabled = true;
    if (await startSync()) closeDialog(dialog);
    else update.disabled = false;
  });
  const made = [recipe.backbone, recipe.pooling, `${recipe.size_px} px`, `${recipe.dim} numbers`];
  const different = info.contents === info.pictures ? "" : ` (${number.format(info.contents)} different)`;
  const recall = info.recall === null ? "" : `; finds ${(info.recall * 100).toFixed(1)} % of the ten nearest`;
  return [
    el(
      "dl.facts",
      {},
      row("Name", info.name),
      row("Pictures", number.format(info.pictures), different),
      row("Recipe", recipe.name, el("span.muted", {}, ` ${made.join(" · ")}`)),
      row("Fingerprint", el("code", {}, recipe.fingerprint)),
      row("Whitening", whitening(info.whitening)),
      row("Search", info.search, recall),
      row("Learned limit", info.auto_threshold === null ? "none yet" : info.auto_threshold.toFixed(2)),
      row("Size of the index", size(info.size_bytes)),
      row("Made", when(info.made)),
      row("coocnet", info.version),
    ),
    el("h3", {}, info.folders.length === 1 ? "Its folder" : "Its folders"),
    el(
      "div.scroll",
      { tabindex: "0", role: "region", "aria-label": "Folders" },
      el(
        "table",
        {},
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            ...["Folder", "Pictures", "Brought up to date"].map((t) => el("th", { scope: "col" }, t)),
          ),
        ),
        el(
          "tbody",
          {},
          ...info.folders.map((folder) =>
            el(
              "tr",
              {},
              el("th", { scope: "row" }, folder.name),
              el("td.number", {}, number.format(folder.pictures)),
              el("td", {}, when(folder.synchronised)),
            ),
          ),
        ),
      ),
    ),
    info.can_write &&
      el(
        "p.row",
        {},
        update,
        el("span.muted", {}, "Finds what is new, changed or gone. Your photographs are only read."),
      ),
  ].filter(Boolean);
}

function whitening(given) {
  if (!given) return "none";
  const { kind, pictures, rank, shipped } = given;
  const parts = [
    kind ?? "in force",
    rank && `rank ${rank}`,
    pictures && `from ${number.format(pictures)} pictures`,
    shipped && "comes with the package",
  ];
  return parts.filter(Boolean).join(" · ");
}

function skipped({ skipped: files, skipped_total: total }) {
  if (!total) return [];
  return [
    el("h3", {}, `Skipped: ${number.format(total)} file${total === 1 ? "" : "s"}`),
    el(
      "ul.skipped",
      {},
      ...files.map(({ name, reason }) =>
        el("li", {}, el("span.name", {}, name), el("span.muted", {}, reason)),
      ),
    ),
    total > files.length && el("p.muted", {}, `The first ${number.format(files.length)} are shown.`),
  ].filter(Boolean);
}

function removed(pictures, changed) {
  if (!pictures.length) return [];
  const item = ({ id, names }) => {
    const back = el("button", { type: "button", "aria-label": `Put back ${names[0] ?? id}` }, "Put back");
    back.addEventListener("click", async () => {
      try {
        await request(`pictures/${id}/restore`, { method: "POST" });
        if (list.children.length > 1) back.closest("li").remove();
        else part.forEach((node) => node.remove());
        notify(`${names[0] ?? "The picture"} is back in the collection.`);
        changed();
      } catch (error) {
        complain(error);
      }
    });
    return el("li", {}, el("span.name", {}, names.join(", ") || id), back);
  };
  const list = el("ul.skipped", {}, ...pictures.map(item));
  const part = [el("h3", {}, "Taken out"), list];
  return part;
}

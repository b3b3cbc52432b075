/** A photograph from outside: dropped anywhere, pasted, or chosen; and sent again where the server forgot it. */

import { Problem, request } from "./api.js";
import { keepFile, keptFile } from "./files.js";
import { complain, notify } from "./say.js";
import { search } from "./state.js";

const chooser = document.getElementById("file");
const catcher = document.getElementById("catch");
let sending = null;

/** @param {Blob} file */
async function send(file, signal) {
  return request("uploads", { method: "POST", body: file, raw: true, signal });
}

/** Sends a file and searches with it. @param {File} file @param {{upload_bytes: number}} limits */
async function take(file, limits) {
  if (limits?.upload_bytes && file.size > limits.upload_bytes) {
    const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
    complain(
      new Problem({
        detail:
          `${file.name || "The picture"} has ${mib(file.size)}; this server takes ` +
          `${mib(limits.upload_bytes)} at most. A smaller copy finds the same.`,
      }),
    );
    return;
  }
  sending?.abort();
  sending = new AbortController();
  const { signal } = sending;
  const said = notify(`Sending ${file.name || "the picture"} …`, { lasting: true });
  try {
    const { id, width, height, picture } = await send(file, signal);
    await keepFile({
      id,
      width,
      height,
      picture,
      name: file.name || `photograph.${file.type.split("/").pop() || "jpg"}`,
      file,
      at: Date.now(),
    });
    if (!signal.aborted) search({ upload: id });
  } catch (error) {
    complain(error);
  } finally {
    said();
  }
}

/** Sends a forgotten upload again. Resolves to false where this browser does not have it either. */
export async function sendAgain(id) {
  const kept = await keptFile(id);
  if (!kept) return false;
  const { id: now } = await send(kept.file);
  return now === id;
}

export const choose = () => chooser.click();

/** @param {() => {upload_bytes: number}|undefined} limits */
export function acceptFiles(limits) {
  const first = (files) => {
    const file = [...files].find((f) => f.type.startsWith("image/") || !f.type);
    if (file) take(file, limits());
    else if (files.length)
      complain(
        new Problem({ detail: `${files[0].name} is no picture. A photograph is needed to search with.` }),
      );
  };
  chooser.addEventListener("change", () => {
    first(chooser.files);
    chooser.value = "";
  });
  document.getElementById("choose").addEventListener("click", choose);
  window.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) {
      event.preventDefault();
      first(event.clipboardData.files);
    }
  });
  // A picture of this page that is dragged counts as a file too.
  let ours = false;
  window.addEventListener("dragstart", () => {
    ours = true;
  });
  window.addEventListener("dragend", () => {
    ours = false;
  });
  const holds = (event, type) => !ours && event.dataTransfer?.types.includes(type);
  window.addEventListener("dragover", (event) => {
    if (!holds(event, "Files") && !holds(event, "text/uri-list")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    catcher.hidden = false;
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) catcher.hidden = true;
  });
  window.addEventListener("drop", (event) => {
    catcher.hidden = true;
    if (!holds(event, "Files")) {
      if (!holds(event, "text/uri-list")) return;
      event.preventDefault();
      complain(
        new Problem({
          detail: "Only an address came, no picture. Copy the picture there and paste it here.",
        }),
      );
      return;
    }
    event.preventDefault();
    first(event.dataTransfer.files);
  });
}

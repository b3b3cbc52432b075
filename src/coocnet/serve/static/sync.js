/** Bringing the collection up to date with its folders: followed as the server tells it, from any view. */

import { request, url } from "./api.js";
import { el } from "./dom.js";
import { announce, complain, notify } from "./say.js";

const place = document.getElementById("sync");
const RUNNING = ["waiting", "running"];
let following = null;
let ended = () => {};

/** @param {() => void} act what is done when the collection has changed */
export function onSynchronised(act) {
  ended = act;
}

/** Seconds as people say them. */
export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** Follows a sync that somebody started already. */
export async function followRunning() {
  const { jobs } = await request("jobs");
  const job = jobs.find(({ state }) => RUNNING.includes(state));
  if (job) follow(job);
}

export async function startSync() {
  try {
    follow(await request("sync", { method: "POST", body: { folder: null } }));
    return true;
  } catch (error) {
    complain(error);
    // Somebody else's sync: what is wanted is happening already.
    if (error.status === 409) followRunning().catch(() => {});
    return false;
  }
}

export const isSyncing = () => Boolean(following);

function follow(job) {
  if (following?.id === job.id) return;
  following?.events.close();
  const bar = el("progress", { "aria-label": "Update of the collection" });
  const words = el("span.progress-words");
  const stop = el("button.quiet", { type: "button", "aria-label": "Stop the update" }, "Stop");
  stop.addEventListener("click", async () => {
    stop.disabled = true;
    words.textContent = "Stopping …";
    await request(`jobs/${job.id}`, { method: "DELETE" }).catch(complain);
  });
  place.replaceChildren(words, bar, stop);
  place.hidden = false;
  const began = { at: performance.now(), done: job.done };
  const show = (now) => {
    if (stop.disabled) return;
    if (!now.total) {
      bar.removeAttribute("value");
      words.textContent = now.state === "waiting" ? "Waiting …" : `Looking at ${now.done} files`;
      return;
    }
    bar.max = now.total;
    bar.value = now.done;
    const per = (performance.now() - began.at) / 1000 / (now.done - began.done);
    const left = now.done - began.done > 2 ? ` · ${duration(per * (now.total - now.done))} left` : "";
    words.textContent = `${now.done} of ${now.total}${left}`;
  };
  show(job);
  announce("The collection is being brought up to date.");
  const events = new EventSource(url(`jobs/${job.id}/events`));
  following = { id: job.id, events };
  events.addEventListener("progress", (event) => show(JSON.parse(event.data)));
  events.addEventListener("end", (event) => end(JSON.parse(event.data)));
  events.addEventListener("error", async () => {
    // While it is connecting anew the browser retries; a closed source will not, so it is asked how the job ended.
    if (events.readyState !== EventSource.CLOSED || following?.id !== job.id) return;
    try {
      const now = await request(`jobs/${job.id}`);
      if (!RUNNING.includes(now.state)) return end(now);
      following = null;
      setTimeout(() => follow(now), 2000);
    } catch (error) {
      end({ ...job, state: "failed", problem: error.message });
    }
  });
}

function end(job) {
  following?.events.close();
  following = null;
  place.hidden = true;
  place.replaceChildren();
  if (job.state === "failed") {
    const why = job.problem?.detail ?? job.problem?.title ?? job.problem ?? "no reason was given";
    notify(`The update failed: ${why}`, { kind: "problem", lasting: true });
  } else if (job.state === "stopped") {
    notify(`The update was stopped; what was described is stored. ${summary(job.report)}`);
  } else notify(`The collection is up to date. ${summary(job.report)}`);
  // One that did not come to its end tells no counts, and has stored what it did.
  const { added = 0, updated = 0, dropped = 0 } = job.report ?? {};
  if (job.state !== "done" || added + updated + dropped) ended();
}

/** @param {Record<string, any>|null} report */
function summary(report) {
  if (!report) return "";
  const parts = [
    [report.added, "new"],
    [report.updated, "changed"],
    [report.recognised, "recognised"],
    [report.dropped, "gone"],
    [report.skipped?.length ?? report.skipped, "skipped"],
  ].filter(([count]) => count);
  return parts.length
    ? `${parts.map(([count, what]) => `${count} ${what}`).join(", ")}.`
    : "Nothing had changed.";
}

/** The server: every request goes through here, waits where it is told to, and fails with words that can be shown. */

import { notify } from "./say.js";

const PATIENCE_S = [1, 2, 4, 8, 15];

/** An answer that was no success; `message` is the server's own detail. */
export class Problem extends Error {
  constructor({ status, title, detail, type }) {
    super(detail || title || `The server answered with ${status}.`);
    this.name = "Problem";
    this.status = status;
    this.type = type ?? "";
  }
}

/** Set by session.js: resolves when there is a new session, rejects when the user gives up. */
let signIn = null;
export const onUnauthorised = (ask) => {
  signIn = ask;
};

let away = null;

function serverIsBack() {
  if (!away) return;
  away();
  away = null;
  notify("The server answers again.");
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("aborted", "AbortError"));
    });
  });
}

async function problem(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // A proxy in between may answer with a page.
  }
  return new Problem({ ...body, status: response.status });
}

/**
 * @param {string} path below /api/
 * @param {{method?: string, body?: any, query?: Record<string, any>, signal?: AbortSignal, raw?: boolean}} [options]
 *   `query` leaves out what is null, undefined or ""; `raw` sends the body as it is (a picture's bytes)
 * @returns {Promise<any>} the JSON of the answer, or null where it has none
 */
export async function request(path, { method = "GET", body, query = {}, signal, raw = false } = {}) {
  const address = url(path, query);
  const options = { method, signal, headers: {} };
  if (body !== undefined) {
    options.body = raw ? body : JSON.stringify(body);
    options.headers["Content-Type"] = raw ? body.type || "application/octet-stream" : "application/json";
  }
  for (let failures = 0; ;) {
    let response;
    try {
      response = await fetch(address, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      away ??= notify("The server does not answer. Is it still running? Trying again until it does.", {
        kind: "problem",
        lasting: true,
      });
      await pause(PATIENCE_S[Math.min(failures++, PATIENCE_S.length - 1)], signal);
      continue;
    }
    serverIsBack();
    if (response.ok) return response.status === 204 ? null : response.json();
    if (response.status === 401 && signIn && path !== "session") {
      await signIn();
      continue;
    }
    if ((response.status === 429 || response.status === 503) && failures++ < PATIENCE_S.length) {
      const seconds = Number(response.headers.get("Retry-After")) || PATIENCE_S[failures - 1];
      const said = notify(
        `The server is busy. Trying again in ${seconds} ${seconds === 1 ? "second" : "seconds"}.`,
        {
          lasting: true,
        },
      );
      try {
        await pause(seconds, signal);
      } finally {
        said();
      }
      continue;
    }
    throw await problem(response);
  }
}

/** The address of something of the API, with its query. */
export function url(path, query = {}) {
  const given = Object.entries(query).filter(([, v]) => v !== null && v !== undefined && v !== "");
  const text = new URLSearchParams(given.map(([k, v]) => [k, String(v)])).toString();
  return `/api/${path}${text ? `?${text}` : ""}`;
}

export const thumbnail = (id, size) => url(`pictures/${id}/thumbnail`, { size });
export const original = (id) => url(`pictures/${id}/original`);
export const uploadImage = (id, size) => url(`uploads/${id}/image`, { size });

/** The token: asked for when the server wants one, or taken out of the address (`#token=…`). */

import { onUnauthorised, request } from "./api.js";
import { el, sentence } from "./dom.js";
import { closeDialog, openDialog } from "./say.js";

const dialog = document.getElementById("token");
let asking = null;

function ask() {
  asking ??= new Promise((resolve) => {
    const field = el("input", {
      type: "password",
      id: "token-field",
      name: "token",
      autocomplete: "current-password",
      required: true,
      "aria-describedby": "token-problem",
    });
    const wrong = el("p.problem-text", { id: "token-problem", role: "alert" });
    const form = el(
      "form",
      {
        onsubmit: async (event) => {
          event.preventDefault();
          try {
            await request("session", { method: "POST", body: { token: field.value.trim() } });
          } catch (error) {
            wrong.textContent = sentence(error.message);
            field.setAttribute("aria-invalid", "true");
            field.select();
            return;
          }
          asking = null;
          closeDialog(dialog);
          resolve();
        },
      },
      el("h2", { id: "token-title" }, "This collection is not open to everybody"),
      el("p", {}, "Give the token that ", el("code", {}, "coocnet serve"), " printed when it was started."),
      el("label", { for: "token-field" }, "Token"),
      field,
      wrong,
      el("button.primary", { type: "submit" }, "Open"),
    );
    dialog.replaceChildren(form);
    openDialog(dialog);
  });
  return asking;
}

dialog.addEventListener("cancel", (event) => event.preventDefault());
dialog.addEventListener("close", () => asking && openDialog(dialog));
onUnauthorised(ask);

/** Exchanges a token in the address for a session, and takes it out of the address before anything else is done. */
export async function takeTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(history.state, "", location.pathname + location.search);
  try {
    await request("session", { method: "POST", body: { token } });
  } catch {
    // A wrong token is asked for again by the first request that needs one.
  }
}

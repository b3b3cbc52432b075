/** What is said to the user: short notices that can be acted on, and changes for screen readers. */

import { el, icon, ICONS } from "./dom.js";

const notices = document.getElementById("notices");
const toasts = document.getElementById("toasts");
const announcer = document.getElementById("announcer");
const SHOWN_MS = 9000;

/** Says a change that is plain to see to those who do not see it. */
export function announce(text) {
  announcer.textContent = "";
  requestAnimationFrame(() => {
    announcer.textContent = text;
  });
}

/**
 * Shows a notice.
 * @param {string} text
 * @param {{kind?: "note"|"problem", lasting?: boolean, action?: string, act?: () => void}} [options]
 * @returns {() => void} takes it away
 */
export function notify(text, { kind = "note", lasting = false, action = "", act } = {}) {
  const remove = () => {
    clearTimeout(timer);
    toast.remove();
  };
  const toast = el(
    `div.toast.${kind}${lasting || kind === "problem" ? "" : ".passing"}`,
    {},
    el("p", {}, text),
    action &&
      el(
        "button",
        {
          type: "button",
          onclick: () => {
            remove();
            act();
          },
        },
        action,
      ),
    el(
      "button.plain",
      { type: "button", "aria-label": "Dismiss this message", onclick: remove },
      icon(ICONS.close),
    ),
  );
  let timer = 0;
  const arm = () => {
    if (!lasting) timer = setTimeout(remove, action ? 3 * SHOWN_MS : SHOWN_MS);
  };
  // Who reads or is about to act is not hurried.
  for (const event of ["pointerenter", "focusin"]) toast.addEventListener(event, () => clearTimeout(timer));
  for (const event of ["pointerleave", "focusout"]) toast.addEventListener(event, arm);
  toasts.append(toast);
  while (toasts.children.length > 3) toasts.firstElementChild.remove();
  arm();
  return remove;
}

/** Shows what went wrong; an aborted request is nobody's problem. */
export function complain(error) {
  if (error?.name === "AbortError") return;
  notify(error?.message || String(error), { kind: "problem" });
}

/** Opens a dialog; notices move into it, for what lies behind a dialog can neither be read nor pressed. */
export function openDialog(dialog) {
  for (const old of toasts.querySelectorAll(".passing")) old.remove();
  if (!dialog.open) dialog.showModal();
  dialog.append(notices);
}

export function closeDialog(dialog) {
  if (dialog.open) dialog.close();
}

document.addEventListener(
  "close",
  () => {
    const open = [...document.querySelectorAll("dialog[open]")].pop();
    (open ?? document.body).append(notices);
  },
  true,
);

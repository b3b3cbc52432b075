/** Puts the page together: reads the address, shows the view it asks for, and listens to what comes in. */

import { request } from "./api.js";
import { Collection } from "./collection.js";
import { Compare } from "./compare.js";
import { acceptFiles } from "./incoming.js";
import { openPanel } from "./panel.js";
import { Results } from "./results.js";
import { announce, complain, notify } from "./say.js";
import { takeTokenFromAddress } from "./session.js";
import { follow, home, onChange, read } from "./state.js";
import { followRunning, onSynchronised } from "./sync.js";

const start = document.getElementById("start");
const found = document.getElementById("found");
let info = null;
let shown = "";
let startScroll = 0;

let refresh = async () => {};
let again = () => {};

const loadInfo = async () => (info = await request("info"));

async function main() {
  acceptFiles(() => info?.limits);
  document
    .getElementById("about")
    .addEventListener("click", () => openPanel(loadInfo, () => refresh().then(() => again(), complain)));
  await takeTokenFromAddress();
  await loadInfo();
  document.getElementById("collection-name").textContent = info.name;
  const collection = new Collection(start, info);
  const results = new Results(found, info);
  const compare = new Compare(document.getElementById("compare"), results, info);

  again = () => results.again();
  refresh = async () => {
    const now = await loadInfo();
    results.info = compare.info = now;
    collection.refresh(now);
  };
  results.changed = () => loadInfo().then((now) => collection.refresh(now), complain);
  onSynchronised(() => refresh().catch(complain));
  onChange((state) => show(state, { collection, results, compare }));
  document.querySelector(".brand").addEventListener("click", (event) => follow(event, home));
  await show(read(), { collection, results, compare }, true);
  if (shown === "start" && /[?&](picture|upload)=./.test(location.search))
    notify("This address names no picture.", { kind: "problem" });
  followRunning().catch(complain);
}

async function show(state, { collection, results, compare }, first = false) {
  const view = state.picture || state.upload ? "found" : "start";
  const changed = view !== shown;
  if (shown === "start" && changed) startScroll = scrollY;
  shown = view;
  start.hidden = view !== "start";
  found.hidden = view !== "found";
  document.body.dataset.view = view;
  if (!state.view || view === "start") compare.hide();
  if (view === "start") {
    document.title = `${info.name} · coocnet`;
    results.key = "";
    if (changed && !first) {
      scrollTo(0, startScroll);
      document.getElementById("start-title").focus({ preventScroll: true });
    }
    await collection.show(state);
    return;
  }
  const source = state.picture || state.upload;
  const fresh = results.query?.id !== source;
  if (fresh) scrollTo(0, 0);
  await results.show(state);
  // Who has gone on to something there already is not called back.
  if (fresh && !first && !compare.open && !found.contains(document.activeElement))
    document.getElementById("found-title")?.focus({ preventScroll: true });
  if (state.view && results.query) await compare.show(state);
  else if (!state.view && results.query) results.retitle();
}

history.scrollRestoration = "manual";
main().catch((error) => {
  start.hidden = false;
  const words = document.createElement("p");
  words.className = "empty";
  words.setAttribute("role", "alert");
  words.textContent = error.message;
  start.replaceChildren(words);
  announce(error.message);
});

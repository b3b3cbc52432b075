/** Where the user is: the address holds it, so that reloading, bookmarks, back and forward all work. */

/**
 * @typedef {object} State
 * @property {string} picture id of the collection's picture that is searched with, or ""
 * @property {string} upload id of an uploaded picture that is searched with, or ""
 * @property {number[]|null} box x1, y1, x2, y2 in pixels of the whole upright picture
 * @property {string} threshold "auto", "none" or a number; "" leaves it to the collection
 * @property {string[]} relevant ids of results that are searched with as well
 * @property {string} expansion
 * @property {string} reranking
 * @property {string} view id of the result that is compared, or ""
 * @property {string} mode what the comparison shows
 * @property {string} contains what names are filtered by at the start
 */

const TEXTS = ["picture", "upload", "threshold", "expansion", "reranking", "view", "mode", "contains"];

const ID = /^[0-9a-f]{32}$/;

/** A box whatever corner it begins at; none where nothing is within. */
function boxOf(text) {
  const given = text.split(",").map((edge) => (edge.trim() ? Number(edge) : NaN));
  if (given.length !== 4 || !given.every(Number.isFinite)) return null;
  const [x1, x2] = [given[0], given[2]].sort((a, b) => a - b);
  const [y1, y2] = [given[1], given[3]].sort((a, b) => a - b);
  return x1 < x2 && y1 < y2 ? [x1, y1, x2, y2] : null;
}

/** @returns {State} what of the address makes sense */
export function read() {
  const given = new URLSearchParams(location.search);
  const state = Object.fromEntries(TEXTS.map((key) => [key, given.get(key) ?? ""]));
  for (const key of ["picture", "upload", "view"]) if (!ID.test(state[key])) state[key] = "";
  if (state.picture) state.upload = "";
  state.box = boxOf(given.get("box") ?? "");
  state.relevant = (given.get("relevant") ?? "").split(",").filter((id) => ID.test(id));
  return state;
}

/** @param {Partial<State>} state */
export function address(state) {
  const query = new URLSearchParams();
  for (const key of TEXTS) if (state[key]) query.set(key, state[key]);
  if (state.box) query.set("box", state.box.join(","));
  if (state.relevant?.length) query.set("relevant", state.relevant.join(","));
  // Commas are allowed in a query, and an address is read by people too.
  const text = query.toString().replaceAll("%2C", ",");
  return text ? `?${text}` : location.pathname;
}

/** What decides which pictures are found; the threshold only says how many of them are shown. */
export function searchKey(state) {
  return address({ ...state, view: "", mode: "", contains: "" });
}

let listener = () => {};
/** @param {(state: State) => void} listen */
export function onChange(listen) {
  listener = listen;
}

/** @param {Partial<State>} change @param {{replace?: boolean}} [options] */
export function go(change, { replace = false } = {}) {
  const before = read();
  const after = { ...before, ...change };
  // What is noted belongs to the search, so opening a comparison takes it along.
  const noted =
    searchKey(before) === searchKey(after) ? { ...history.state, opened: Boolean(after.view) } : null;
  if (replace) history.replaceState(history.state, "", address(after));
  else history.pushState(noted, "", address(after));
  listener(read());
}

/** To the start, with nothing left over. */
export function home() {
  history.pushState(null, "", location.pathname);
  listener(read());
}

/** Closes the comparison: back to where it was opened, so that "back" does not open it again. */
export function leaveView() {
  if (note("opened")) history.back();
  else go({ view: "", mode: "" }, { replace: true });
}

/** A new search: all that belonged to the one before goes. @param {Partial<State>} source */
export function search(source) {
  const { threshold, expansion, reranking } = read();
  history.pushState(null, "", address({ threshold, expansion, reranking, ...source }));
  listener(read());
}

/** Small things that belong to this entry of the history but not into an address that is passed on. */
export const note = (key) => history.state?.[key];
export function keep(key, value) {
  history.replaceState({ ...history.state, [key]: value }, "");
}

window.addEventListener("popstate", () => listener(read()));

/** Lets an ordinary click on a link of this page change the state; with a modifier it opens a tab as always. */
export function follow(event, act) {
  if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  act();
}

/** Elements from script. Text is always set as text: what a name contains is data, never markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} tag an HTML tag, optionally with classes: "p.muted"
 * @param {Record<string, any>} [attributes] `on…` are listeners, `style` an object of properties; true, false and
 *   null set or leave out an attribute
 * @param {...(Node|string|number|null|undefined|false)} children
 */
export function el(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  return furnish(node, attributes, children);
}

/** The same for a drawing inside an <svg>. */
export function svg(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(key, value === true ? "" : String(value));
    }
  }
  node.append(
    ...children
      .filter((child) => child !== null && child !== undefined && child !== false)
      .map((c) => (c instanceof Node ? c : String(c))),
  );
  return node;
}

/** A line icon of 24 × 24; what it means is said by the button that holds it. */
export function icon(path) {
  return svg(
    "svg",
    { viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: path }),
  );
}

export const ICONS = {
  close: "M6 6l12 12M18 6L6 18",
  previous: "M14.5 5l-7 7 7 7",
  next: "M9.5 5l7 7-7 7",
  open: "M14 4h6v6M20 4l-9 9M18 14v6H4V6h6",
  similar: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M15.5 15.5L20.5 20.5",
  part: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  add: "M12 5v14M5 12h14",
  tick: "M5 12.5l4.5 4.5L19 7.5",
};

/** A number with at most so many significant digits. */
export const digits = (value, count) =>
  new Intl.NumberFormat("en", { maximumSignificantDigits: count }).format(value);

/** Words with a capital at their beginning and a full stop. */
export const sentence = (words) =>
  `${words[0].toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;

/** So many pictures. */
export const some = (count) => `${count} picture${count === 1 ? "" : "s"}`;

/** Runs `work` once things have been quiet for `ms`. */
export function debounced(work, ms) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), ms);
  };
}

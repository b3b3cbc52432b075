/** Maps painted over photographs: exact contributions with a sign, or how strongly a network fires. */

/**
 * @typedef {{rows: number, columns: number, values: number[], box: number[], width: number, height: number}} CellMap
 *   values row by row; box is what was described, in pixels of the whole picture of width × height
 */

const RAISES = [255, 138, 0];
const LOWERS = [20, 90, 220];
// Brightness rises along the ramp, so that it can be read without seeing colours.
const RAMP = [
  [12, 8, 38],
  [86, 15, 109],
  [187, 55, 84],
  [249, 142, 9],
  [252, 255, 164],
];

/** @param {number} share −1 … 1 of the scale @returns {number[]} red, green, blue, alpha (0 … 255) */
export function signed(share) {
  return [...(share < 0 ? LOWERS : RAISES), Math.round(235 * Math.min(Math.abs(share), 1) ** 0.6)];
}

/** @param {number} share 0 … 1 of the scale */
export function ramp(share) {
  const at = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2);
  return [
    ...RAMP[low].map((value, i) => Math.round(value + (RAMP[low + 1][i] - value) * (at - low))),
    Math.round(150 + 20 * at),
  ];
}

/** The largest magnitude of several maps: the one scale that makes them comparable. */
export const scaleOf = (...maps) =>
  maps.reduce((top, { values }) => values.reduce((m, v) => Math.max(m, Math.abs(v)), top), 0) || 1;

/**
 * @param {HTMLCanvasElement} canvas lies over the whole picture
 * @param {CellMap} map
 * @param {{scale: number, colour: (share: number) => number[]}} options
 */
export function paintMap(canvas, map, { scale, colour }) {
  const { paint, width, height } = fresh(canvas);
  const small = document.createElement("canvas");
  small.width = map.columns;
  small.height = map.rows;
  const pixels = new ImageData(map.columns, map.rows);
  map.values.forEach((value, i) => pixels.data.set(colour(value / scale), 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const [x, y, w, h] = place(map, width, height);
  paint.imageSmoothingQuality = "high";
  paint.save();
  paint.beginPath();
  paint.rect(x, y, w, h);
  paint.clip();
  paint.drawImage(small, x, y, w, h);
  paint.restore();
  shade(paint, [x, y, w, h], width, height);
}

/** Nothing but the part that was searched for. */
export function paintPart(canvas, { box, width: pictureWidth, height: pictureHeight }) {
  const { paint, width, height } = fresh(canvas);
  if (box)
    shade(paint, place({ box, width: pictureWidth, height: pictureHeight }, width, height), width, height);
}

function fresh(canvas) {
  const dense = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.max(1, width * dense);
  canvas.height = Math.max(1, height * dense);
  const paint = canvas.getContext("2d");
  paint.scale(dense, dense);
  return { paint, width, height };
}

/** What was not described is darkened. */
function shade(paint, [x, y, w, h], width, height) {
  if (w > width - 1 && h > height - 1) return;
  paint.fillStyle = "rgb(8 10 12 / 0.55)";
  paint.beginPath();
  paint.rect(0, 0, width, height);
  paint.rect(x, y, w, h);
  paint.fill("evenodd");
  paint.strokeStyle = "#fff";
  paint.lineWidth = 1.5;
  paint.strokeRect(x, y, w, h);
}

/** Where a map's box lies on a picture shown at width × height. */
export function place({ box, width: pictureWidth, height: pictureHeight }, width, height) {
  const [x1, y1, x2, y2] = box ?? [0, 0, pictureWidth, pictureHeight];
  const across = width / pictureWidth;
  const down = height / pictureHeight;
  return [x1 * across, y1 * down, (x2 - x1) * across, (y2 - y1) * down];
}

/** The rectangle of a cell on a picture shown at width × height. */
export function cellAt(map, [row, column], width, height) {
  const [x, y, w, h] = place(map, width, height);
  return [x + (column / map.columns) * w, y + (row / map.rows) * h, w / map.columns, h / map.rows];
}

/** The cell below a point, or null. */
export function cellBelow(map, px, py, width, height) {
  const [x, y, w, h] = place(map, width, height);
  const column = Math.floor(((px - x) / w) * map.columns);
  const row = Math.floor(((py - y) / h) * map.rows);
  return row >= 0 && column >= 0 && row < map.rows && column < map.columns ? [row, column] : null;
}

/** A bar of all colours of a scale. */
export function paintBar(canvas, colour, from) {
  const width = (canvas.width = 240);
  canvas.height = 1;
  const pixels = new ImageData(width, 1);
  for (let i = 0; i < width; i++) {
    pixels.data.set(colour(from + ((1 - from) * i) / (width - 1)), 4 * i);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

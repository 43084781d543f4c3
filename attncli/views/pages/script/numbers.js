"use strict";
/*
 * Draw a page of attn from the record in #data: a step of the computation as a table of numbers or as a map of colours, the
 * arithmetic of a cell, where a query looks, all heads beside each other.
 *
 * Numbers are shown as they were computed. Two things are computed here: means of blocks, where a map has more cells than the
 * screen has pixels, and, under "Change a number", the plain chain of a small problem (projection, dot, scale, mask, softmax).
 */

const MAX_TABLE = 16; // rows and columns that are a table of numbers; more are a map
const MAX_SPACIOUS = 8; // columns of a table with room around its numbers; of more, all of the room is for numbers
const MAX_MAP = 512; // rows and columns of a map; more are blocks
const ZOOM = 48; // rows and columns of a part of a map
const MAX_LISTED = 24; // tokens in a list beside the lines
const MIN_SHARE = 0.01; // of a row's largest weight: what is under it has no line in a long list
const PLAIN = 0,
  HIDDEN = 1,
  DROPPED = 2,
  NAN = 3,
  MINUS_INFINITY = 4,
  INFINITE = 5; // what a cell is
const MARK_TEXTS = ["", "·", "–", "NaN", "−∞", "∞"];
const MARK_NAMES = ["", "hidden key", "dropped", "not a number", "minus infinity", "infinity"];
const ARRAYS = { f8: Float64Array, f4: Float32Array, i4: Int32Array, u1: Uint8Array };
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%,()*+-;.=:?@^_`{|}~"; // of base 85
const DIGIT_VALUES = Object.fromEntries([...DIGITS].map((digit, value) => [digit, value]));
const CIVIDIS = "00224e 1a386f 434e6c 61656f 7d7c78 9b9476 bcae6c dec958 fee838"; // small to large
const RED_BLUE = "053061 2a71b2 6bacd1 c2ddec f7f6f6 fbccb4 e48066 ba2832 67001f"; // negative, 0, positive

// ── numbers as text: as Python prints them ───────────────────────────────────────────────────────
/* The digits of |x| · 10^digits where it lies exactly between two integers: the even one, as a BigInt. Else null. */
function tieDigits(x, digits) {
  const size = Math.abs(x);
  let doubled; // 2 · |x| · 10^digits
  if (digits >= 0) {
    const odd = size * 2 ** (digits + 1); // a double is a tie only as an odd multiple of 2^-(digits + 1)
    if (!Number.isInteger(odd) || odd % 2 !== 1) return null;
    doubled = BigInt(odd) * 5n ** BigInt(digits);
  } else {
    const unit = 10n ** BigInt(-digits);
    if (!Number.isInteger(size) || (2n * BigInt(size)) % unit !== 0n) return null;
    doubled = (2n * BigInt(size)) / unit;
    if (doubled % 2n === 0n) return null;
  }
  const below = (doubled - 1n) / 2n;
  return below % 2n === 0n ? below : below + 1n;
}

function withPoint(digits, count) {
  if (count === 0) return digits;
  const padded = digits.padStart(count + 1, "0");
  return `${padded.slice(0, -count)}.${padded.slice(-count)}`;
}

function fixedText(x, digits) {
  const tie = tieDigits(x, digits);
  const text = tie === null ? x.toFixed(digits) : (x < 0 ? "-" : "") + withPoint(String(tie), digits);
  return /[1-9]/.test(text) ? text : text.replace("-", "");
}

function exponentText(x, digits) {
  const [head, power] = x.toExponential(digits).split("e");
  const exponent = Number(power),
    full = Number(x.toExponential(20).split("e")[1]);
  const tie = x === 0 ? null : tieDigits(x, digits - full);
  let mantissa = head,
    shown = exponent;
  if (tie !== null) {
    const text = String(tie);
    shown = full + (text.length - digits - 1);
    mantissa = (x < 0 ? "-" : "") + withPoint(text.slice(0, digits + 1), digits);
  }
  return `${mantissa}e${shown < 0 ? "-" : "+"}${String(Math.abs(shown)).padStart(2, "0")}`;
}

/* The style of a whole step, so that its numbers stand below each other. */
function numberStyle(step) {
  if (step.kind === "u1") return "boolean";
  if (step.kind === "i4") return "integer";
  const largest = extent(step).size;
  return largest >= 1e9 || (largest > 0 && largest < 10 ** -(page.precision + 1)) ? "exponent" : "fixed";
}

function numberText(x, step) {
  const style = numberStyle(step);
  if (style === "boolean") return x ? "yes" : MARK_TEXTS[HIDDEN];
  if (style === "integer") return step.name === "top_keys" ? (axisLabels(step, "key")[x] ?? String(x)) : String(x);
  if (!Number.isFinite(x)) return MARK_TEXTS[kindOf(x, 0)];
  return style === "fixed" ? fixedText(x, page.precision) : exponentText(x, page.precision);
}

/* Every digit that is known: the shortest text that is this number and no other. */
function exactText(x, kind) {
  if (!Number.isFinite(x)) return MARK_TEXTS[kindOf(x, 0)];
  if (kind !== "f4") return String(x);
  for (let digits = 1; digits < 9; digits++) {
    const text = x.toPrecision(digits);
    if (Math.fround(Number(text)) === x) return String(Number(text));
  }
  return String(Number(x.toPrecision(9)));
}

// ── data ─────────────────────────────────────────────────────────────────────────────────────────
const page = JSON.parse(document.getElementById("data").textContent);
const state = {
  layer: 0,
  batch: 0,
  head: 0,
  step: 0,
  scale: "",
  row: 0,
  column: 0,
  query: 0,
  window: null,
  block: "mean",
};
const layer = () => page.layers[state.layer];
const currentStep = () => layer().steps[state.step];
const findStep = (name, from = layer()) => from.steps.find((step) => step.name === name);

/* The bytes of a text in base 85: five digits are four bytes, and the last digits are one byte fewer than they are. */
function bytesOf(text) {
  const bytes = new DataView(new ArrayBuffer(4 * Math.ceil(text.length / 5)));
  for (let start = 0; start < text.length; start += 5) {
    let value = 0;
    for (const digit of text.slice(start, start + 5).padEnd(5, "~")) value = value * 85 + DIGIT_VALUES[digit];
    bytes.setUint32((start / 5) * 4, value);
  }
  return new Uint8Array(bytes.buffer, 0, Math.floor((text.length * 4) / 5));
}

async function unpack(text, kind) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = ARRAYS[kind].BYTES_PER_ELEMENT,
    count = bytes.length / size;
  const plain = new Uint8Array(bytes.length); // all first bytes stand together, then all second ones
  for (let byte = 0; byte < size; byte++) {
    for (let i = 0; i < count; i++) plain[i * size + byte] = bytes[byte * count + i];
  }
  return new ARRAYS[kind](plain.buffer);
}

async function unpackAll() {
  for (const one of page.layers) {
    if (one.explanations) one.explanations = JSON.parse(new TextDecoder().decode(await unpack(one.explanations, "u1")));
    for (const step of one.steps) {
      step.layer = one;
      [step.values, step.marks] = await Promise.all([
        unpack(step.values, step.kind),
        step.marks && unpack(step.marks, "u1"),
      ]);
      const axes = step.axes,
        matrixAxes = axes.at(-1) === "query" ? 1 : 2;
      step.sliceAxes = axes.slice(0, -matrixAxes);
      [step.rowAxis, step.columnAxis = ""] = axes.slice(-matrixAxes);
      step.rows = step.shape[step.sliceAxes.length];
      step.columns = step.columnAxis ? step.shape.at(-1) : 1;
    }
  }
}

function headCount(from = layer()) {
  const lengths = (name) => from.steps.map((step) => step.shape[step.axes.indexOf(name)] ?? 0);
  return Math.max(...lengths("head"), 0) || Math.max(...lengths("kv_head"), 1);
}

function batchCount(from = layer()) {
  return Math.max(...from.steps.map((step) => (step.axes[0] === "batch" ? step.shape[0] : 1)));
}

/* Where a head stands on an axis of a step: kv heads are shared, and mixed heads may be fewer. */
function headIndex(step, axis, head) {
  const length = step.shape[step.axes.indexOf(axis)],
    from = step.layer;
  if (axis === "kv_head" && from.kv_of_head) return from.kv_of_head[head];
  return Math.min(length - 1, Math.floor((head * length) / headCount(from)));
}

/* One matrix of a step: its numbers and marks, row by row. */
function slice(step, batch = state.batch, head = state.head) {
  let index = 0;
  step.sliceAxes.forEach((axis, i) => {
    index =
      index * step.shape[i] + (axis === "batch" ? Math.min(batch, step.shape[i] - 1) : headIndex(step, axis, head));
  });
  const size = step.rows * step.columns;
  const part = (array) => array && array.subarray(index * size, (index + 1) * size);
  return { rows: step.rows, columns: step.columns, values: part(step.values), marks: part(step.marks) };
}

function kindOf(x, mark) {
  if (mark) return mark;
  if (Number.isFinite(x)) return PLAIN;
  return Number.isNaN(x) ? NAN : x < 0 ? MINUS_INFINITY : INFINITE;
}

const cellKind = (part, i) => kindOf(part.values[i], part.marks ? part.marks[i] : 0);

/* The least finite number of a step, and the largest size of one; found once. */
function extent(step) {
  if (!step.extent) {
    let least = 0,
      size = 0;
    for (const x of step.values) {
      if (!Number.isFinite(x)) continue;
      if (x < least) least = x;
      if (Math.abs(x) > size) size = Math.abs(x);
    }
    step.extent = { least, size };
  }
  return step.extent;
}

const originalIndex = (axis, i) => layer().at[axis]?.[i] ?? i;

function axisLabels(step, axis, batch = state.batch) {
  const labels = step.layer.labels[axis];
  if (labels && labels.length) return labels[Math.min(batch, labels.length - 1)];
  if (!axis) return [step.name];
  const length = step.shape[step.axes.indexOf(axis)];
  return Array.from({ length }, (_, i) => String(axis === "rank" ? i + 1 : (step.layer.at[axis]?.[i] ?? i)));
}

// ── colours ──────────────────────────────────────────────────────────────────────────────────────
function makeColors(anchors) {
  const points = anchors.split(" ").map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (points.length - 1),
      low = Math.min(Math.floor(at), points.length - 2);
    return points[low].map((x, channel) => Math.round(x + (points[low + 1][channel] - x) * (at - low)));
  });
}

const SHARE_COLORS = makeColors(CIVIDIS),
  SIGNED_COLORS = makeColors(RED_BLUE);
const cssColor = (rgb) => `rgb(${rgb.join(" ")})`;

/* Black or white, whichever is easier to read on a colour: relative luminance, as WCAG defines it. */
function inkOn(rgb) {
  const [r, g, b] = rgb.map((x) => (x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}

const isShare = (step) => step.name.endsWith("weights") && extent(step).least >= 0;
const isSigned = (step) => step.kind[0] === "f" && !isShare(step) && (extent(step).least < 0 || step.columnAxis !== "");

function scalesOf(step) {
  return isShare(step)
    ? { whole: "0 … 1", row: "each row’s largest", root: "√ of 0 … 1" }
    : { whole: "the step’s largest", row: "each row’s largest" };
}

function scaleOf(step) {
  if (state.scale in scalesOf(step)) return state.scale;
  return isShare(step) && step.columns > MAX_TABLE ? "row" : "whole";
}

const colorsOf = (step) => (isSigned(step) ? SIGNED_COLORS : SHARE_COLORS);

/* What colours a row: a number → an index of the step's colours. */
function levelOfRow(step, part, row) {
  const scale = scaleOf(step),
    signed = isSigned(step);
  let top = isShare(step) ? 1 : extent(step).size;
  if (scale === "row") {
    top = 0;
    for (let i = row * part.columns; i < (row + 1) * part.columns; i++) {
      if (cellKind(part, i) === PLAIN) top = Math.max(top, Math.abs(part.values[i]));
    }
  }
  return (x) => {
    let share = top ? Math.min(Math.max(x / top, -1), 1) : 0;
    if (scale === "root") share = Math.sqrt(Math.max(share, 0));
    if (signed) share = (share + 1) / 2;
    return Math.round(Math.max(share, 0) * 255);
  };
}

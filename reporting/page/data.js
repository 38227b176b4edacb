// The report's data, how numbers are shown, and how elements are made: all text goes in as text, never as markup.

const report = JSON.parse(document.getElementById("report").textContent);

const METRICS = {
  top1: { name: "top-1", digits: 2, percent: true, up: true },
  balanced_accuracy: { name: "balanced accuracy", digits: 2, percent: true, up: true },
  macro_f1: { name: "macro-F1", digits: 4, percent: false, up: true },
  auroc: { name: "AUROC", digits: 4, percent: false, up: true },
  nll: { name: "NLL", digits: 3, percent: false, up: false },
  ece: { name: "ECE", digits: 2, percent: true, up: false },
};

const COSTS = {
  parameters: { name: "parameters", unit: "million", up: false, hardware: false },
  macs: { name: "multiply-accumulates", unit: "billion an image", up: false, hardware: false },
  seconds: { name: "training time", unit: "hours a run", up: false, hardware: true },
  images_per_second: { name: "training speed", unit: "images/s", up: true, hardware: true },
  test_images_per_second: { name: "test speed", unit: "images/s", up: true, hardware: true },
  memory_mib: { name: "peak memory", unit: "GiB", up: false, hardware: true },
  epochs: { name: "epochs trained", unit: "", up: false, hardware: false },
};

const SCALE = { parameters: 1e-6, macs: 1e-9, seconds: 1 / 3600, memory_mib: 1 / 1024 };

function byId(id) {
  return document.getElementById(id);
}

/** An element; children are nodes or text, and null is left out. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

function list(items, className = "") {
  return items.length
    ? element(
        "ul",
        { class: className || null },
        items.map((item) => element("li", {}, item)),
      )
    : null;
}

function present(value) {
  return value !== null && value !== undefined;
}

function shown(metric, value, sign = "") {
  if (!present(value)) return "–";
  const { digits, percent } = METRICS[metric];
  return `${value > 0 ? sign : ""}${fixed(percent ? 100 * value : value, digits)}`.replace("-", "−");
}

/** As toFixed, but a value exactly between two is rounded to the even one, as the sentences of the report have it. */
function fixed(value, digits) {
  const text = value.toFixed(digits);
  const between = Math.abs(value * 2 ** (digits + 1)) % 2 === 1;
  return between && Number(text.slice(-1)) % 2 ? (value - (Math.sign(value) * 10 ** -digits) / 4).toFixed(digits) : text;
}

/** Half the 95 % interval: the longer side, where it was cut at 0 or 1. */
function half(cell, metric) {
  const mean = cell.mean[metric];
  if (!cell.low || !cell.high || !present(mean) || !present(cell.low[metric])) return null;
  return Math.max(mean - cell.low[metric], cell.high[metric] - mean);
}

function unit(metric) {
  return METRICS[metric].percent ? " %" : "";
}

function count(number, one, several = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : several}`;
}

function round(value, digits = 3) {
  if (!present(value)) return "–";
  const text =
    Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : Number(value.toPrecision(digits)).toString();
  return text.replace("-", "−");
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Names as a sentence has them: a, b and c. */
function sentence(names) {
  return names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}` : names.join("");
}

const indexed = new Map();

/** The cells of a league by "budget/dataset/backbone". */
function cellsOf(league) {
  if (!indexed.has(league)) {
    indexed.set(league, new Map(league.cells.map((cell) => [`${cell.budget}/${cell.d}/${cell.b}`, cell])));
  }
  return indexed.get(league);
}

let packs = null;
const UNPACKED = 64; // the last so many are kept: printing can't wait for them
const unpacked = new Map();

/** What only a look at one cell needs: its curves, or its details. */
function unpack(index) {
  const kept = unpacked.get(index) || inflate(index);
  unpacked.delete(index);
  unpacked.set(index, kept);
  if (unpacked.size > UNPACKED) unpacked.delete(unpacked.keys().next().value);
  return kept;
}

async function inflate(index) {
  packs ??= JSON.parse(byId("packs").textContent);
  const bytes = Uint8Array.from(atob(packs[index]), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** The confusion matrix's cells [true, predicted, images], which are kept as gaps along its rows. */
function confusions(detail, classes) {
  let place = -1;
  return detail.gaps.map((gap, index) => {
    place += gap;
    return [Math.floor(place / classes), place % classes, detail.counts[index]];
  });
}

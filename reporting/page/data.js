// The report's data, how numbers are shown, and how elements are made: all text goes in as text, never as markup.

const report = JSON.parse(document.getElementById("report").textContent);

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

/** A text of the report as the number that it says, to sort and to plot by; null where there is none. */
function numeric(text) {
  return present(text) ? Number(text) : null;
}

/** A metric's name on a plot's axis. */
function axisName(metric) {
  const { label, percent } = report.metrics[metric];
  return `${label}${percent ? ", %" : ""}`;
}

function count(number, one, several = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : several}`;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const indexed = new Map();

/** The cells of a group by "budget/dataset/backbone". */
function cellsOf(group) {
  if (!indexed.has(group)) {
    indexed.set(group, new Map(group.cells.map((cell) => [`${cell.budget}/${cell.d}/${cell.b}`, cell])));
  }
  return indexed.get(group);
}

let packs = null;
const UNPACKED = 64; // the last so many are kept: printing can't wait for them
const unpacked = new Map();

/** What only a look at one cell needs, its curves or its details: as it is, or promised while it is unpacked. */
function unpack(index) {
  packs ??= JSON.parse(byId("packs").textContent);
  if (typeof packs[index] === "object") return packs[index]; // what the page shows first
  const kept = unpacked.get(index) || inflate(index);
  unpacked.delete(index);
  unpacked.set(index, kept);
  if (unpacked.size > UNPACKED) unpacked.delete(unpacked.keys().next().value);
  return kept;
}

async function inflate(index) {
  const bytes = Uint8Array.from(atob(packs[index]), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const content = await new Response(stream).json();
  if (unpacked.has(index)) unpacked.set(index, content);
  return content;
}

/** The confusion matrix's cells [true, predicted, images], which are kept as gaps along its rows. */
function confusions(detail, classes) {
  let place = -1;
  return detail.gaps.map((gap, index) => {
    place += gap;
    return [Math.floor(place / classes), place % classes, detail.counts[index]];
  });
}

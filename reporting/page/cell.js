// One cell: its numbers, what it takes for what, and how much of each class it finds.

const LISTED = 20; // confusions in the list beside the matrix
const MOST_DRAWN = 200; // classes of a matrix that can still be seen, and drawn at once
const OF_TEST = "[95 % interval of the test part]";
const NAMED_CLASSES = 30; // more than that many names don't fit beside a matrix
let cellTurn = 0;

function renderCell() {
  const { group, dataset: d, backbone: b } = state;
  const cell = cellAt(d, b);
  const turn = (cellTurn += 1);
  for (const part of ["cell-confusion", "cell-recall", "cell-coverage", "cell-errors"]) byId(part).hidden = !cell;
  if (!cell) {
    const where =
      group.datasets[d] && group.backbones[b]
        ? ` of ${group.backbones[b].name} on ${group.datasets[d].name}, ${group.budgets[state.budget].name}`
        : "";
    byId("cell-summary").replaceChildren(element("p", { class: "note" }, `There is no finished run${where} here.`));
    return;
  }
  const classes = group.datasets[d].classes;
  const show = (detail) => (turn === cellTurn ? fillCell(cell, detail, classes) : null);
  const detail = unpack(cell.detail);
  if (!(detail instanceof Promise)) return show(detail);
  detail.then(show).catch((problem) => {
    byId("cell-summary").replaceChildren(
      element("p", { class: "note" }, `This browser can't show the details: ${problem.message}`),
    );
  });
}

function fillCell(cell, detail, classes) {
  byId("cell-summary").replaceChildren(cellSummary(cell, detail));
  const images = confusions(detail, classes.length);
  const totals = classTotals(images, detail, classes.length);
  const drawn = mostConfused(images, classes.length);
  plot("plot-confusion", (box) => confusionPlot(box, images, totals, classes, drawn));
  const part = drawn.length < classes.length ? ` of the ${drawn.length} classes with most confusions` : "";
  byId("confusion-caption").textContent =
    `Confusion matrix${part}: the share of each true class (a row) that is taken for each class (a column), ${count(cell.seeds.length, "seed")} together.${restWords(detail.confusion_rest)}`;
  byId("cell-confusions").replaceChildren(confusionList(images, totals, classes, detail.confusion_rest?.pairs || 0));
  byId("cell-recall").replaceChildren(recallTable(detail.recall, totals, classes, cell.seeds.length));
  renderCoverage(detail.coverage);
  byId("cell-errors").replaceChildren(...mistakes(detail.errors, classes));
}

/** The classes that the matrix shows: all, or of very many those that are in most confusions, in their order. */
function mostConfused(images, classes) {
  const all = Array.from({ length: classes }, (_, index) => index);
  if (classes <= MOST_DRAWN) return all;
  const wrong = new Array(classes).fill(0);
  for (const [i, j, n] of images) {
    if (i === j) continue;
    wrong[i] += n;
    wrong[j] += n;
  }
  return all
    .sort((a, b) => wrong[b] - wrong[a] || a - b)
    .slice(0, MOST_DRAWN)
    .sort((a, b) => a - b);
}

/** The test images of each class, all seeds together; a record with very many confusions keeps only the largest of them. */
function classTotals(images, detail, classes) {
  const totals = new Array(classes).fill(0);
  for (const [i, , n] of images) totals[i] += n;
  if (!detail.confusion_rest) return totals;
  for (const [i, j, n] of images) {
    if (i === j && detail.recall?.[i] > 0) totals[i] = Math.max(totals[i], Math.round(n / detail.recall[i]));
  }
  return totals;
}

function restWords(rest) {
  return rest ? ` Without ${rest.pairs.toLocaleString("en")} rarer confusions, of ${count(rest.images, "image")}.` : "";
}

function cellSummary(cell, detail) {
  return element(
    "div",
    { class: "pair" },
    element("div", { class: "scroll" }, metricTable(cell, detail.metrics)),
    element(
      "div",
      {},
      element(
        "dl",
        {},
        cellFacts(cell, detail.facts).map(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]),
      ),
      element(
        "details",
        {},
        element("summary", {}, count(detail.runs.length, "run")),
        list(
          detail.runs.map((run) => element("code", {}, run)),
          "paths",
        ),
      ),
    ),
  );
}

/** Every metric of a cell: the mean, and each seed. */
function metricTable(cell, rows) {
  const { group, budget } = state;
  const spread = cell.seeds.length > 1 ? "± half the 95 % interval over seeds" : "one seed: no interval over seeds";
  const where = `${group.backbones[cell.b].name} on ${group.datasets[cell.d].name}`;
  return element(
    "table",
    {},
    element("caption", {}, `${where}, ${group.budgets[budget].words}`),
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        element("th", { scope: "col" }, "Metric"),
        element("th", { scope: "col" }, "Mean", element("small", {}, spread), element("small", {}, OF_TEST)),
        element("th", { scope: "col" }, `Seeds ${cell.seeds.join(", ")}`),
      ),
    ),
    element(
      "tbody",
      {},
      rows.map(([label, mean, each]) =>
        element(
          "tr",
          {},
          element("th", { scope: "row", class: "name" }, label),
          element("td", { class: "number" }, mean),
          element("td", { class: "number each" }, each),
        ),
      ),
    ),
  );
}

/** What a cell cost, how many images it had, and by what it was made: [term, text]. */
function cellFacts(cell, facts) {
  const { recipe, weights, hardware } = state.group.provenances[cell.provenance];
  return [...facts, ["Made by", [recipe, weights, hardware].filter(Boolean).join("; ")]];
}

function confusionPlot(box, images, totals, classes, drawn) {
  if (!images.length) return "These records hold no confusion matrix.";
  const few = drawn.length <= NAMED_CLASSES;
  const names = drawn.map((index) => classes[index]);
  const place = drawn.map((_, index) => index);
  const ticks = few
    ? { tickvals: place, ticktext: names.map((name) => plain(name.length > 16 ? `${name.slice(0, 15)}…` : name)) }
    : { showticklabels: false, ticks: "" };
  const axis = { ...ticks, showgrid: false, zeroline: false, constrain: "domain" };
  const room = (0.6 * Math.min(widthOf(box), 620)) / drawn.length; // pixels below a column, of 7 for a letter
  const upright = drawn.length > 6 || names.some((name) => 7 * Math.min(name.length, 16) > room);
  const steps = palette().heat;
  return {
    data: [
      {
        type: "heatmap",
        ...confusionShares(images, totals, names.map(plain), drawn),
        x: place,
        y: place,
        zmin: 0,
        zmax: 1,
        xgap: few ? 1 : 0,
        ygap: few ? 1 : 0,
        colorscale: steps.map((colour, index) => [index / (steps.length - 1), colour]),
        colorbar: {
          tickvals: [0, 0.05, 0.25, 0.5, 1].map(Math.sqrt),
          ticktext: ["0", "5 %", "25 %", "50 %", "100 %"],
          thickness: 10,
          outlinewidth: 0,
          len: 0.8,
        },
        hovertemplate: "%{customdata}<extra></extra>",
      },
    ],
    layout: {
      height: Math.round(0.88 * Math.min(widthOf(box), 620)),
      margin: { l: 48, r: 8, t: 8, b: 48 },
      xaxis: { ...axis, title: { text: "taken for" }, tickangle: upright ? -60 : 0 },
      yaxis: { ...axis, title: { text: "true class" }, autorange: "reversed", scaleanchor: "x" },
    },
  };
}

/** The share of each true class (a row) that is taken for each class (a column), and in words. */
function confusionShares(images, totals, names, drawn) {
  const at = new Map(drawn.map((index, place) => [index, place]));
  const z = names.map(() => new Array(names.length).fill(0));
  const customdata = names.map((row) => names.map((column) => `true ${row}<br>taken for ${column}<br>0`));
  for (const [i, j, n] of images) {
    const [row, column] = [at.get(i), at.get(j)];
    if (!present(row) || !present(column)) continue;
    // the square root shows rare confusions beside a full diagonal
    z[row][column] = Math.sqrt(n / totals[i]);
    const share = ((100 * n) / totals[i]).toFixed(1);
    customdata[row][column] = `true ${names[row]}<br>taken for ${names[column]}<br>${n} of ${totals[i]} (${share} %)`;
  }
  return { z, customdata };
}

function confusionList(images, totals, classes, left) {
  const wrong = images
    .filter(([i, j]) => i !== j)
    .sort((a, b) => b[2] - a[2] || b[2] / totals[b[0]] - a[2] / totals[a[0]]);
  if (!wrong.length) return element("p", { class: "note" }, "No test image was taken for another class.");
  return sortable("confusions-table", {
    caption:
      wrong.length + left > LISTED
        ? `The ${LISTED} largest of ${(wrong.length + left).toLocaleString("en")} confusions`
        : "All confusions, the largest first",
    tall: true,
    columns: [
      { name: "True class", head: true, up: true, value: ([i]) => classes[i] },
      { name: "Taken for", kind: "name", up: true, value: ([, j]) => classes[j] },
      { name: "Images", value: ([, , n]) => n },
      {
        name: "Of class",
        value: ([i, , n]) => n / totals[i],
        show: ([i, , n]) => `${((100 * n) / totals[i]).toFixed(1)} %`,
      },
    ],
    rows: wrong.slice(0, LISTED),
  });
}

function recallTable(recall, totals, classes, seeds) {
  if (!recall?.length) return element("p", { class: "note" }, "These records hold no recall by class.");
  const rows = classes
    .map((name, index) => ({ name, recall: recall[index], images: totals[index] / seeds }))
    .sort((a, b) => (a.recall ?? 2) - (b.recall ?? 2));
  return sortable("recall-table", {
    caption: `Recall of the ${count(classes.length, "class", "classes")}, the lowest first, mean over ${count(seeds, "seed")}`,
    tall: true,
    columns: [
      { name: "Class", head: true, up: true, value: ({ name }) => name },
      { name: "Recall", up: true, kind: "bars", value: (row) => row.recall, show: (row) => bar(row.recall) },
      {
        name: "Test images",
        value: ({ images }) => images,
        show: ({ images }) => Math.round(images).toLocaleString("en"),
      },
    ],
    rows,
  });
}

function bar(share) {
  if (!present(share)) return "no test images";
  const made = element(
    "span",
    { class: "bar" },
    element("span", { class: "bar-value" }, `${(100 * share).toFixed(1)} %`),
    element("span", { class: "bar-track" }, element("span", {})),
  );
  made.querySelector(".bar-track > span").style.width = `${100 * share}%`;
  return made;
}

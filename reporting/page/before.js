// Scores before training: what rank.py said of backbones, beside what fine-tuning then gave.

function renderBefore() {
  const { results, axes } = report.before;
  byId("before").hidden = !results.length;
  if (!results.length) return;
  if (!results[state.beforeResult]) state.beforeResult = 0;
  const result = results[state.beforeResult];
  if (!result.kinds.includes(state.beforeBy)) state.beforeBy = "order";
  const several = results.map(({ name }) => name);
  const twice = (name) => several.indexOf(name) !== several.lastIndexOf(name);
  fillSelect(
    "before-result",
    results.map(({ name, path }, index) => [index, twice(name) ? `${name} (${path})` : name]),
    state.beforeResult,
  );
  fillSelect(
    "before-by",
    result.kinds.map((kind) => [kind, capital(axes[kind])]),
    state.beforeBy,
  );
  byId("before-result").closest("label").hidden = results.length < 2;
  byId("before-said").replaceChildren(...beforeWords(result));
  byId("before-table").replaceChildren(...sideways(beforeTable(result), "The table scrolls sideways."));
  byId("before-agreement").replaceChildren(...beforeAgreement(result));
  byId("before-search").replaceChildren(...beforeSearch(result.search));
  renderBeforePlot(result);
}

function beforeWords({ name, facts, rule, sentences, notes, left_out: leftOut }) {
  return [
    element("p", { class: "note" }, `${name}: ${facts}`),
    ...sentences.map((sentence, place) => element("p", { class: place ? null : "finding" }, sentence)),
    element("p", { class: "note" }, `The order: ${rule}.`),
    list([...notes, ...leftOut.map(({ what, why }) => `Left out: ${what}, ${why}`)], "plain"),
  ].filter(Boolean);
}

function beforeTable({ name, rows, kinds, measured, seeds }) {
  const { labels, less_is_better: less } = report.before;
  const text = (kind) => (row) => row.texts[kind];
  const of = kinds.filter((kind) => kind !== "order");
  const speeds = rows.some(({ speed }) => present(speed));
  return sortable("before-numbers", {
    caption: `${name}: scores of frozen backbones, in rank.py's order${measured ? `, and test top-1 in % where they were fine-tuned (mean over ${count(seeds === "1" ? 1 : 2, "seed").replace("2", seeds)})` : ""}`,
    columns: [
      { name: "Backbone", head: true, up: true, value: (row) => row.name, show: (row) => beforeName(row.name) },
      { name: "Place", up: true, value: ({ values }) => values.order },
      ...(measured ? [{ name: "Measured", note: "test top-1, %", value: beforeMeasured, show: beforeInterval }] : []),
      ...of.map((kind) => ({
        name: capital(labels[kind]),
        up: less.includes(kind),
        value: ({ values }) => values[kind],
        show: text(kind),
      })),
      { name: "Features", note: "seconds", up: true, value: ({ pass }) => pass },
      ...(speeds ? [{ name: "Training", note: "images/s", value: ({ speed }) => speed }] : []),
    ],
    rows,
  });
}

function beforeName(name) {
  return element("span", { class: "backbone" }, glyph(name), name);
}

function beforeMeasured({ measured }) {
  return measured?.[0] ?? null;
}

function beforeInterval({ measured }) {
  if (!measured) return null;
  const [value, low, high] = measured.map((number) => number.toFixed(2));
  return [value, element("small", {}, ` [${low}, ${high}]`)];
}

function renderBeforePlot({ name, rows, measured }) {
  const { axes, less_is_better: less } = report.before;
  const { beforeBy: by } = state;
  const drawn = rows
    .filter((row) => row.measured && present(row.values[by]))
    .map((row) => ({ name: row.name, x: row.values[by], y: row.measured[0], ends: row.measured.slice(1) }));
  byId("before-caption").textContent = measured
    ? `${name}: test top-1 after fine-tuning against ${axes[by]}. Bars: 95 % intervals, as said above. ` +
      (less.includes(by) ? "Less is better, to the left." : "More is better, to the right.")
    : "";
  byId("before-figure").hidden = !measured;
  plot("plot-before", (box) => (drawn.length ? beforePlot(box, drawn) : "Of no fine-tuned backbone is this known."));
}

/** The plot of points {name, x, y, ends}. */
function beforePlot(box, points) {
  const rangeX = padded(
    points.map(({ x }) => x),
    0.14,
  );
  const rangeY = padded(
    points.flatMap(({ ends }) => ends),
    0.1,
  );
  const margin = { l: 66, r: 14, t: 14, b: 52 };
  const [wide, high] = [widthOf(box), heightOf({ data: [], layout: { showlegend: false } }, widthOf(box))];
  const [width, height] = [wide - margin.l - margin.r, high - margin.t - margin.b];
  const placed = points.map((point) => ({
    ...point,
    text: fitted(point.name, width / 3),
    left: (width * (point.x - rangeX[0])) / (rangeX[1] - rangeX[0]),
    top: height * (1 - (point.y - rangeY[0]) / (rangeY[1] - rangeY[0])),
  }));
  const whole = state.beforeBy === "order" ? { dtick: points.length > 12 ? 5 : 1 } : {};
  return {
    data: [beforeMarkers(points)],
    layout: {
      showlegend: false,
      height: high,
      margin,
      annotations: pointLabels(placed, width, height, []),
      xaxis: {
        range: rangeX,
        automargin: false,
        title: { text: report.before.axes[state.beforeBy] },
        zeroline: false,
        ...whole,
      },
      yaxis: { range: rangeY, automargin: false, title: { text: "test top-1, %" }, zeroline: false },
    },
  };
}

function beforeMarkers(points) {
  const bars = {
    symmetric: false,
    array: points.map(({ y, ends }) => ends[1] - y),
    arrayminus: points.map(({ y, ends }) => y - ends[0]),
  };
  return {
    ...pointMarkers(points, bars),
    text: points.map(({ name, ends: [low, high] }) => `${plain(name)}<br>95 % ${low.toFixed(2)} to ${high.toFixed(2)}`),
    hovertemplate: "%{text}<br>top-1 %{y:.2f}<br>%{x}<extra></extra>",
  };
}

/** How each score agrees with fine-tuning, the static prior beside the order. */
function beforeAgreement({ agreements }) {
  if (!agreements.length) return [];
  const ends = (interval, unit) =>
    interval ? [interval[0], element("small", {}, ` [${interval[1]}, ${interval[2]}]`), unit] : null;
  const lost = (place, firsts) => ({
    name: `Lost by ${firsts}`,
    note: "points of top-1",
    up: true,
    value: ({ regret }) => numeric(regret[place]?.[0]),
    show: ({ regret }) => ends(regret[place]),
  });
  const box = sortable("before-agreements", {
    caption:
      "How each agrees with fine-tuning, with 95 % intervals: weighted tau (1 is the same order, 0 none), and what the best of the first ones loses to the best of all",
    columns: [
      { name: "By", head: true, up: true, value: ({ name }) => name },
      { name: "Weighted tau", value: ({ tau }) => numeric(tau?.[0]), show: ({ tau }) => ends(tau) },
      lost(0, "its first"),
      lost(1, "its first three"),
      { name: "Backbones", value: ({ backbones }) => backbones },
    ],
    rows: agreements,
  });
  return [element("h3", {}, "Agreement with fine-tuning"), ...sideways(box, "The table scrolls sideways.")];
}

/** How successive halving went. */
function beforeSearch(search) {
  if (!search) return [];
  const rows = search.rungs.flatMap((rung) => rung.candidates.map((candidate) => ({ ...candidate, rung })));
  const box = sortable("before-rungs", {
    caption: "Successive halving: what the validation part said of those that each rung trained, best first",
    columns: [
      { name: "Rung", head: true, up: true, value: ({ rung }) => rung.name },
      { name: "Epochs", up: true, value: ({ rung }) => numeric(rung.epochs) },
      { name: "Backbone", kind: "name", up: true, value: ({ name }) => name, show: ({ name }) => beforeName(name) },
      { name: "Validation", note: "%", value: ({ score }) => numeric(score), show: ({ score }) => score },
      {
        name: "95 % interval",
        kind: "number",
        value: ({ interval }) => numeric(interval?.split(" ")[0]),
        show: ({ interval }) => interval,
      },
      { name: "Goes on", kind: "name", up: true, value: ({ kept }) => (kept ? "yes" : "no") },
      { name: "Status", kind: "name", up: true, value: ({ status }) => status || null },
    ],
    rows,
  });
  return [
    element("h3", {}, "The search by little fine-tuning"),
    ...search.sentences.map((sentence, place) => element("p", { class: place ? null : "finding" }, sentence)),
    ...(rows.length ? sideways(box, "The table scrolls sideways.") : []),
    search.command
      ? element("div", { class: "next" }, element("p", {}, "To train it in full:"), element("pre", {}, search.command))
      : null,
  ].filter(Boolean);
}

function listenBefore() {
  const on = (id, changes) =>
    byId(id).addEventListener("change", ({ target }) => {
      Object.assign(state, changes(target.value));
      renderBefore();
      keep();
    });
  on("before-result", (value) => ({ beforeResult: Number(value) }));
  on("before-by", (value) => ({ beforeBy: value }));
}

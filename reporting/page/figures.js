// The plots over many cells: paired differences, less data, learning curves.

const NO_LINE = "No backbone shown was run at more than one size on all of the same datasets.";

function renderPairs() {
  const { group, pair } = state;
  const all = group.backbones.map(({ name }) => name);
  byId("pair-answer").textContent =
    all.length > 1 ? pairSentence(pair[0], pair[1]) : "Only one backbone: there is nothing to compare.";
  byId("pairs-caption").textContent =
    `How many points of top-1 ${pair[0]} is above each other backbone: mean over the datasets both have, all domains, ` +
    "with the 95 % interval of a paired bootstrap over datasets and seeds, not corrected for the number of pairs. Filled: the " +
    `interval excludes 0, and the signed-rank test agrees, with ${report.fewest.seeds} shared seeds on ${report.fewest.pair} datasets at least.`;
  plot("plot-pairs", (box) => {
    const rows = shownBackbones()
      .map((b) => all[b])
      .filter((name) => name !== pair[0])
      .map((name) => pairOf(pair[0], name))
      .filter((row) => row && present(row.difference))
      .sort((a, b) => b.difference - a.difference);
    return rows.length ? pairsPlot(rows, 0.4 * widthOf(box)) : "No other backbone shares a dataset with it.";
  });
}

/** The plot of pairs; names are `wide` pixels at most. */
function pairsPlot(rows, wide) {
  const { ink, accent, paper } = palette();
  return {
    data: [
      {
        type: "scatter",
        mode: "markers",
        x: rows.map(({ difference }) => difference),
        y: rows.map((_, index) => index),
        error_x: {
          type: "data",
          symmetric: false,
          color: accent,
          thickness: 1.5,
          width: 4,
          array: rows.map(({ high, difference }) => (present(high) ? high - difference : 0)),
          arrayminus: rows.map(({ low, difference }) => (present(low) ? difference - low : 0)),
        },
        marker: {
          size: 10,
          color: rows.map(({ differs }) => (differs ? accent : paper)),
          line: { width: 2, color: accent },
        },
        text: rows.map(
          ({ b, low, high, datasets }) =>
            `${plain(b)}: ${present(low) ? `${signed(low)} to ${signed(high)}` : "no interval"}, ${count(datasets, "dataset")}`,
        ),
        hovertemplate: "%{x:+.2f} points<br>%{text}<extra></extra>",
      },
    ],
    layout: {
      height: 90 + 28 * rows.length,
      showlegend: false,
      shapes: [{ type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: ink, width: 1 } }],
      xaxis: { title: { text: "points of top-1" }, zeroline: false },
      yaxis: {
        tickvals: rows.map((_, index) => index),
        ticktext: rows.map(({ b }) => plain(fitted(b, wide))),
        range: [rows.length - 0.5, -0.5],
        zeroline: false,
        showgrid: false,
      },
    },
  };
}

function renderLowData() {
  const { group, metric, hidden, lowDataDataset: d } = state;
  byId("low-data").hidden = group.budgets.length < 2;
  if (group.budgets.length < 2) return;
  const of = present(d) ? group.low_data.datasets[d] : group.low_data.scopes[scope()];
  const over = `, mean over the ${count(of.datasets, "dataset")} that can be compared at every size`;
  byId("low-data-caption").textContent =
    `Test ${report.metrics[metric].label} by training images${present(d) ? "" : over}. Bands: 95 % intervals over seeds.`;
  plot("plot-low-data", () => {
    const lines = of.lines[metric].filter(([b]) => !hidden.has(group.backbones[b].name));
    if (!lines.length) return present(d) ? NO_LINE : `${NO_LINE} Choose one dataset.`;
    const sizes = [...new Set(lines.flatMap(([, points]) => points.map(([x]) => x)))].sort((a, b) => a - b);
    const ticks =
      sizes.length < 9
        ? { tickvals: sizes, ticktext: sizes.map((x) => x.toLocaleString("en")) }
        : logTicks(sizes[0], sizes[sizes.length - 1]);
    return {
      data: lines.flatMap(lowDataTraces),
      layout: {
        xaxis: { type: "log", title: { text: `images ${group.use}` }, ...ticks },
        yaxis: { title: { text: axisName(metric) } },
      },
    };
  });
}

/** A backbone's line, and its band where there is one; points are [images, mean] or [images, mean, low, high]. */
function lowDataTraces([b, points]) {
  const { name } = state.group.backbones[b];
  const { colour, dash, symbol } = style(name);
  const banded = points.filter(([, , low]) => present(low));
  const back = [...banded].reverse();
  const band = {
    type: "scatter",
    mode: "lines",
    fill: "toself",
    hoverinfo: "skip",
    showlegend: false,
    legendgroup: name,
    x: [...banded, ...back].map(([x]) => x),
    y: [...banded.map(([, , , high]) => high), ...back.map(([, , low]) => low)],
    line: { width: 0 },
    fillcolor: faint(colour, 0.14),
  };
  const line = {
    type: "scatter",
    mode: "lines+markers",
    name: plain(fitted(name, 200)),
    legendgroup: name,
    x: points.map(([x]) => x),
    y: points.map(([, mean]) => mean),
    line: { color: colour, dash, width: 2 },
    marker: { symbol, size: 8, color: colour, line: { width: 2, color: colour } },
    hovertemplate: `${plain(name)}<br>%{x:,.0f} images: %{y:.${report.metrics[state.metric].digits}f}<extra></extra>`,
  };
  return banded.length > 1 ? [band, line] : [line];
}

function renderLearning() {
  const { group, learningDataset: d, learningCurve: kind, learningSeeds: each, budget } = state;
  const cells = present(d)
    ? shownBackbones()
        .map((b) => cellAt(d, b))
        .filter((cell) => present(cell?.curves))
    : [];
  byId("learning-caption").textContent =
    `${kind === "loss" ? "Training loss" : `Top-1 on ${group.selection}, which chooses the epoch`}, by epoch, ` +
    (each ? "a line a run." : "mean over runs, as far as all of them ran.") +
    (cells.some((cell) => cell.seeds.length * (cell.folds ?? 1) > report.most_curves)
      ? ` The first ${report.most_curves} runs.`
      : "");
  const lines = (curves) => {
    const data = cells.flatMap((cell, index) => learningTraces(cell, curves[index][kind], kind === "curve", each));
    if (!data.length) return "These runs kept no history.";
    return {
      data,
      layout: {
        xaxis: { title: { text: "epoch" }, rangemode: "tozero" },
        yaxis: { title: { text: kind === "curve" ? "top-1, %" : "training loss" } },
      },
    };
  };
  plot("plot-learning", () => {
    if (!cells.length)
      return `No learning curves are kept for ${present(d) ? group.datasets[d].name : "these filters"}, ${group.budgets[budget].name}.`;
    const curves = cells.map((cell) => unpack(cell.curves));
    return curves.some((each) => each instanceof Promise) ? Promise.all(curves).then(lines) : lines(curves);
  });
}

/** The curves of a cell's seeds, or their mean. */
function learningTraces(cell, curves, percent, each) {
  const { name } = state.group.backbones[cell.b];
  const { colour, dash, symbol } = style(name);
  const folds = cell.folds ?? 1;
  const runs = curves
    .map((run, index) => ({
      run,
      which: `seed ${cell.seeds[Math.floor(index / folds)]}${cell.folds ? `, fold ${(index % folds) + 1}` : ""}`,
    }))
    .filter(({ run }) => run.length);
  if (!runs.length) return [];
  const common = Math.min(...runs.map(({ run }) => run.length));
  const mean = Array.from(
    { length: common },
    (_, epoch) => runs.reduce((sum, { run }) => sum + run[epoch], 0) / runs.length,
  );
  return (each ? runs : [{ run: mean }]).map(({ run, which }, index) => ({
    type: "scatter",
    mode: run.length > 1 ? "lines+markers" : "markers",
    name: plain(fitted(name, 200)),
    legendgroup: name,
    showlegend: index === 0,
    opacity: each ? 0.75 : 1,
    x: run.map((_, epoch) => epoch + 1),
    y: run.map((value) => (percent ? 100 : 1) * value),
    line: { color: colour, dash, width: each ? 1.2 : 2 },
    // a marker now and then: enough to tell lines apart without their colours
    marker: { symbol, size: 7, color: colour, line: { width: 1.5, color: colour }, maxdisplayed: 8 },
    hovertemplate: `${plain(name)}${each ? `, ${which}` : ""}<br>epoch %{x}: %{y:.${percent ? 2 : 4}f}<extra></extra>`,
  }));
}

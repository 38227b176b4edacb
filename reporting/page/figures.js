// The plots over many cells: paired differences, less data, learning curves.

function renderPairs() {
  const { league, pair } = state;
  const all = league.backbones.map((backbone) => backbone.name);
  byId("pair-answer").textContent =
    all.length > 1 ? pairSentence(pair[0], pair[1]) : "Only one backbone: there is nothing to compare.";
  byId("pairs-caption").textContent =
    `How many points of top-1 ${pair[0]} is above each other backbone: mean over the datasets both have, all domains, ` +
    "with the 95 % interval of a paired bootstrap, not corrected for the number of pairs. Filled: the interval excludes 0, " +
    "with three shared seeds on five datasets at least.";
  plot("plot-pairs", () => {
    const rows = shownBackbones()
      .map((b) => all[b])
      .filter((name) => name !== pair[0])
      .map((name) => pairOf(pair[0], name))
      .filter((found) => found && present(found.difference))
      .sort((a, b) => b.difference - a.difference);
    if (!rows.length) return "No other backbone shares a dataset with it.";
    const { ink, accent, paper } = palette();
    const clear = rows.map(({ low, high, enough }) => enough && (low > 0 || high < 0));
    const x = rows.map(({ difference }) => 100 * difference);
    return {
      data: [
        {
          type: "scatter",
          mode: "markers",
          x,
          y: rows.map((_, index) => index),
          error_x: {
            type: "data",
            symmetric: false,
            color: accent,
            thickness: 1.5,
            width: 4,
            array: rows.map(({ high, difference }) => (present(high) ? 100 * (high - difference) : 0)),
            arrayminus: rows.map(({ low, difference }) => (present(low) ? 100 * (difference - low) : 0)),
          },
          marker: { size: 10, color: clear.map((is) => (is ? accent : paper)), line: { width: 2, color: accent } },
          text: rows.map(
            ({ b, low, high, datasets }) =>
              `${plain(b)}: ${shown("top1", low, "+")} to ${shown("top1", high, "+")}, ${count(datasets, "dataset")}`,
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
          ticktext: rows.map(({ b }) => plain(b)),
          range: [rows.length - 0.5, -0.5],
          zeroline: false,
          showgrid: false,
        },
      },
    };
  });
}

function renderLowData() {
  const { league, metric, lowDataDataset: d } = state;
  byId("low-data").hidden = league.budgets.length < 2;
  if (league.budgets.length < 2) return;
  const single = present(d);
  byId("low-data-caption").textContent =
    `Test ${METRICS[metric].name} by training images` +
    (single
      ? ""
      : `, mean over those of the ${count(shownDatasets().length, "dataset")} shown that every backbone drawn has at every size`) +
    ". Bands: 95 % intervals over seeds.";
  plot("plot-low-data", () => {
    const backbones = shownBackbones();
    const factor = METRICS[metric].percent ? 100 : 1;
    const at = (dataset, b, budget) => cellsOf(league).get(`${budget}/${dataset}/${b}`);
    const budgets = league.budgets
      .map((_, budget) => budget)
      .filter((budget) => shownDatasets().some((dataset) => backbones.some((b) => at(dataset, b, budget))));
    const usable = single
      ? [d]
      : shownDatasets().filter((dataset) => budgets.every((budget) => backbones.every((b) => at(dataset, b, budget))));
    if (!usable.length)
      return "No dataset has cells of every backbone shown at every size. Choose one dataset, or fewer backbones.";
    const lines = backbones
      .map((b) => {
        const points = budgets
          .map((budget) => usable.map((dataset) => at(dataset, b, budget)))
          .filter((cells) => cells.every((cell) => present(cell?.mean[metric])));
        const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
        return {
          name: league.backbones[b].name,
          points: points
            .map((cells) => {
              const around = cells.map((cell) => half(cell, metric));
              const known = around.every(present);
              const mean = factor * average(cells.map((cell) => cell.mean[metric]));
              const low = single && known ? factor * cells[0].low[metric] : null;
              const high = single && known ? factor * cells[0].high[metric] : null;
              // the intervals of independent means add up by their squares
              const joint = known
                ? (factor * Math.sqrt(around.reduce((sum, value) => sum + value * value, 0))) / cells.length
                : null;
              return {
                x: average(cells.map((cell) => cell.images)),
                mean,
                low: low ?? (known ? mean - joint : null),
                high: high ?? (known ? mean + joint : null),
              };
            })
            .sort((one, other) => one.x - other.x),
        };
      })
      .filter(({ points }) => points.length > 1);
    if (!lines.length) return "No backbone shown has cells at more than one size.";
    const tickvals = [...new Set(lines.flatMap(({ points }) => points.map(({ x }) => Math.round(x))))].sort(
      (a, b) => a - b,
    );
    const ticks =
      tickvals.length < 9
        ? { tickvals, ticktext: tickvals.map((x) => x.toLocaleString("en")) }
        : logTicks(tickvals[0], tickvals[tickvals.length - 1]);
    const data = lines.flatMap(({ name, points }) => {
      const { colour, dash, symbol } = style(name);
      const banded = points.filter(({ low }) => present(low));
      const band = {
        type: "scatter",
        mode: "lines",
        fill: "toself",
        hoverinfo: "skip",
        showlegend: false,
        legendgroup: name,
        x: [...banded, ...[...banded].reverse()].map(({ x }) => x),
        y: [...banded.map(({ high }) => high), ...[...banded].reverse().map(({ low }) => low)],
        line: { width: 0 },
        fillcolor: faint(colour, 0.14),
      };
      const line = {
        type: "scatter",
        mode: "lines+markers",
        name: plain(name),
        legendgroup: name,
        x: points.map(({ x }) => x),
        y: points.map(({ mean }) => mean),
        line: { color: colour, dash, width: 2 },
        marker: { symbol, size: 8, color: colour, line: { width: 2, color: colour } },
        hovertemplate: `${plain(name)}<br>%{x:,.0f} images: %{y:.${METRICS[metric].digits}f}<extra></extra>`,
      };
      return banded.length > 1 ? [band, line] : [line];
    });
    return {
      data,
      layout: {
        xaxis: { type: "log", title: { text: "training images (to fit and to select)" }, ...ticks },
        yaxis: { title: { text: METRICS[metric].name + (METRICS[metric].percent ? ", %" : "") } },
      },
    };
  });
}

function renderLearning() {
  const { league, learningDataset: d, learningCurve: kind, learningSeeds: each, budget } = state;
  const cells = present(d)
    ? shownBackbones()
        .map((b) => cellAt(d, b))
        .filter((cell) => present(cell?.curves))
    : [];
  byId("learning-caption").textContent =
    `${kind === "loss" ? "Training loss" : league.protocol === "paper" ? "Top-1 on the test images, which choose the epoch here" : "Top-1 on the held-out training images that choose the epoch"}, by epoch, ` +
    (each ? "a line a seed." : "mean over seeds, as far as all of them ran.") +
    (cells.some((cell) => cell.seeds.length > 5) ? " The first five seeds." : "");
  cells.forEach((cell) => unpack(cell.curves).catch(() => null)); // ready before the plot is scrolled to, or printed
  plot("plot-learning", async () => {
    if (!cells.length)
      return `No learning curves are kept for ${present(d) ? league.datasets[d].name : "these filters"}, ${league.budgets[budget]}.`;
    const curves = await Promise.all(cells.map((cell) => unpack(cell.curves)));
    const factor = kind === "curve" ? 100 : 1;
    const data = cells.flatMap((cell, index) => {
      const { name } = league.backbones[cell.b];
      const { colour, dash, symbol } = style(name);
      const runs = (curves[index][kind] || []).filter((run) => run.length);
      if (!runs.length) return [];
      const common = Math.min(...runs.map((run) => run.length));
      const mean = Array.from(
        { length: common },
        (_, epoch) => runs.reduce((sum, run) => sum + run[epoch], 0) / runs.length,
      );
      return (each ? runs : [mean]).map((run, seed) => ({
        type: "scatter",
        mode: run.length > 1 ? "lines+markers" : "markers",
        name: plain(name),
        legendgroup: name,
        showlegend: seed === 0,
        opacity: each ? 0.75 : 1,
        x: run.map((_, epoch) => epoch + 1),
        y: run.map((value) => (present(value) ? factor * value : null)),
        line: { color: colour, dash, width: each ? 1.2 : 2 },
        // a marker now and then: enough to tell lines apart without their colours
        marker: { symbol, size: 7, color: colour, line: { width: 1.5, color: colour }, maxdisplayed: 8 },
        hovertemplate: `${plain(name)}${each ? `, seed ${cell.seeds[seed]}` : ""}<br>epoch %{x}: %{y:.${kind === "curve" ? 2 : 4}f}<extra></extra>`,
      }));
    });
    if (!data.length) return "These runs kept no history.";
    return {
      data,
      layout: {
        xaxis: { title: { text: "epoch" }, rangemode: "tozero" },
        yaxis: { title: { text: kind === "curve" ? "top-1, %" : "training loss" } },
      },
    };
  });
}

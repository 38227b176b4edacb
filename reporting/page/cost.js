// Accuracy against cost, with the Pareto front.

/** What the cost plot shows: a point a backbone, over datasets that all of them have. */
function costPoints() {
  const { league, metric } = state;
  const one = state.costDataset;
  const { datasets, backbones, gone } = present(one)
    ? { datasets: [one], backbones: shownBackbones().filter((b) => cellAt(one, b)), gone: [] }
    : completeBlock(shownDatasets(), shownBackbones());
  const points = backbones
    .map((b) => {
      const cells = datasets.map((d) => cellAt(d, b));
      const around = present(one) ? half(cells[0], metric) : null;
      return {
        b,
        name: league.backbones[b].name,
        accuracy: averageOver(datasets, b, metric),
        around,
        cells,
        cost: (key) => costOf(key, league.backbones[b], cells),
      };
    })
    .filter((point) => present(point.accuracy));
  const machines = new Set(
    points.flatMap(({ cells }) =>
      cells.flatMap((cell) => (league.makings[cell.made]?.hardware || "unknown").split(" and ")),
    ),
  );
  return { points, datasets, gone, machines: [...machines].sort() };
}

/** A cost in the unit it is shown in; over several datasets the geometric mean; null where one of them has none. */
function costOf(key, backbone, cells) {
  const values = key in backbone ? [backbone[key]] : cells.map((cell) => cell.costs[key]);
  if (!values.length || values.some((value) => !present(value) || value <= 0)) return null;
  return (SCALE[key] || 1) * Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

/** Which points no other one beats in both. */
function front(points, upX, upY) {
  const better = (a, b, up) => (up ? a - b : b - a);
  return points.filter(
    (point) =>
      !points.some(
        (other) =>
          better(other.x, point.x, upX) >= 0 &&
          better(other.y, point.y, upY) >= 0 &&
          (better(other.x, point.x, upX) > 0 || better(other.y, point.y, upY) > 0),
      ),
  );
}

function renderCost() {
  const { metric, costAxis, costLog } = state;
  const { points, datasets, gone, machines } = costPoints();
  const cost = COSTS[costAxis];
  const { percent, up } = METRICS[metric];
  const mixed = cost.hardware && machines.length > 1;
  byId("cost-caption").replaceChildren(
    `${capital(METRICS[metric].name)}${datasets.length > 1 ? `, mean over ${datasets.length} datasets,` : ""} against ${cost.name}` +
      `${datasets.length > 1 && !["parameters", "macs"].includes(costAxis) ? " (geometric mean)" : ""}. ` +
      "The line is the Pareto front: no backbone is both better and cheaper than those on it. ",
    mixed
      ? element(
          "strong",
          {},
          `Measured on ${machines.length} kinds of hardware (${machines.join("; ")}): these costs can't be compared. `,
        )
      : "",
    cost.hardware && machines.length === 1 ? `Measured on ${machines[0]}. ` : "",
    gone.length ? `Left out, so that all are measured on the same: ${gone.join(", ")}.` : "",
  );
  byId("cost-table").replaceChildren(points.length ? costTable(points, datasets) : "");

  plot("plot-cost", (box) => {
    const ready = points
      .map((point) => ({ ...point, x: point.cost(costAxis), y: (percent ? 100 : 1) * point.accuracy }))
      .filter(({ x }) => present(x));
    if (!ready.length)
      return points.length ? `No record of these cells says its ${cost.name}.` : "No backbone has cells to show here.";
    const best = front(ready, cost.up, up).sort((a, b) => a.x - b.x);
    const scale = costLog ? Math.log10 : (x) => x;
    const xs = ready.map(({ x }) => scale(x));
    const spans = ready.flatMap(({ y, around }) => [
      y - (percent ? 100 : 1) * (around || 0),
      y + (percent ? 100 : 1) * (around || 0),
    ]);
    const range = (values, share) => {
      const [least, most] = [Math.min(...values), Math.max(...values)];
      const pad = (most - least) * share || Math.abs(most) * 0.05 || 1;
      return [least - pad, most + pad];
    };
    const [rangeX, rangeY] = [range(xs, 0.14), range(spans, 0.1)];
    const width = widthOf(box) - 80;
    const height = heightOf({ data: [], layout: {} }, width + 80) - 60;
    const spots = labelPlaces(
      ready.map(({ name, y }, index) => ({
        text: name,
        x: (width * (xs[index] - rangeX[0])) / (rangeX[1] - rangeX[0]),
        y: height * (1 - (y - rangeY[0]) / (rangeY[1] - rangeY[0])),
      })),
      width,
      height,
      cost.up,
    );
    const styles = ready.map(({ name }) => style(name));
    const { ink, muted } = palette();
    return {
      data: [
        {
          type: "scatter",
          mode: "lines",
          x: best.map(({ x }) => x),
          y: best.map(({ y }) => y),
          hoverinfo: "skip",
          name: "Pareto front",
          line: { shape: cost.up ? "vh" : "hv", color: muted, width: 1.5, dash: "dot" },
        },
        {
          type: "scatter",
          mode: "markers+text",
          x: ready.map(({ x }) => x),
          y: ready.map(({ y }) => y),
          text: ready.map((point) => (best.includes(point) ? `<b>${plain(point.name)}</b>` : plain(point.name))),
          textposition: spots,
          textfont: { color: ink, size: 12 },
          cliponaxis: false,
          marker: {
            size: 11,
            symbol: styles.map(({ symbol }) => symbol),
            color: styles.map(({ colour }) => colour),
            line: { width: 2, color: styles.map(({ colour }) => colour) },
          },
          error_y: {
            type: "data",
            array: ready.map(({ around }) => (percent ? 100 : 1) * (around || 0)),
            color: muted,
            thickness: 1,
            width: 3,
            visible: ready.some(({ around }) => around),
          },
          hovertemplate: `%{text}<br>${METRICS[metric].name} %{y:.${METRICS[metric].digits}f}<br>${cost.name} %{x:.3s} ${cost.unit}<extra></extra>`,
        },
      ],
      layout: {
        showlegend: false,
        xaxis: {
          type: costLog ? "log" : "linear",
          range: rangeX,
          title: { text: `${cost.name}${cost.unit ? `, ${cost.unit}` : ""}${cost.up ? " (more is better)" : ""}` },
          zeroline: false,
          ...(costLog ? logTicks(10 ** rangeX[0], 10 ** rangeX[1]) : {}),
        },
        yaxis: { range: rangeY, title: { text: `${METRICS[metric].name}${percent ? ", %" : ""}` }, zeroline: false },
      },
    };
  });
}

function costTable(points, datasets) {
  const { metric } = state;
  return sortable("cost-numbers", {
    caption:
      datasets.length > 1
        ? `Means over ${datasets.length} datasets; of costs, geometric ones.`
        : `On ${state.league.datasets[datasets[0]].name}.`,
    columns: [
      { name: "Backbone", head: true, up: true, value: ({ b }) => b, show: ({ b }) => named(b) },
      {
        name: capital(METRICS[metric].name),
        up: !METRICS[metric].up,
        value: ({ accuracy }) => accuracy,
        show: ({ accuracy }) => shown(metric, accuracy),
      },
      ...Object.entries(COSTS).map(([key, { name, unit: of, up }]) => ({
        name: capital(name),
        note: of,
        up: !up,
        value: (point) => point.cost(key),
        show: (point) => round(point.cost(key)),
      })),
    ],
    rows: points,
  });
}

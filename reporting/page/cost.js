// Accuracy against cost, with the Pareto front.

/** What the report compares: the backbones on one dataset, or on all that they have in common. */
function compared() {
  const { group, budget, costDataset: d } = state;
  const { scopes, datasets } = group.budgets[budget].costs;
  return present(d) ? datasets[d] : scopes[scope()];
}

/** A point a backbone shown: its accuracy as a text, and its costs. */
function costPoints(of) {
  const { group, metric, costAxis, hidden } = state;
  return of.backbones
    .map((b, place) => ({
      b,
      name: group.backbones[b].name,
      accuracy: of.accuracy[metric][place],
      half: of.half[metric][place],
      best: Boolean(of.front[costAxis]?.[metric].includes(b)),
      cost: (key) => of.costs[key][place],
    }))
    .filter(({ name, accuracy }) => present(accuracy) && !hidden.has(name));
}

function renderCost() {
  const of = compared();
  const points = costPoints(of);
  byId("cost-caption").replaceChildren(...costCaption(of));
  byId("cost-table").replaceChildren(points.length ? costTable(points, of.datasets) : "");
  plot("plot-cost", (box) => {
    const { costAxis: axis } = state;
    const drawn = points
      .map((point) => ({ ...point, x: point.cost(axis), y: numeric(point.accuracy) }))
      .filter(({ x }) => present(x));
    if (drawn.length) return costPlot(box, drawn);
    return points.length
      ? `No record of these runs says its ${report.costs[axis].label}.`
      : "No backbone has results to show here.";
  });
}

function costCaption({ datasets, machines, left_out: leftOut = [] }) {
  const { metric, costAxis, hidden } = state;
  const { label, better, of_machine: ofMachine, of_model: ofModel } = report.costs[costAxis];
  const several = datasets.length > 1;
  return [
    `${capital(report.metrics[metric].label)}${several ? `, mean over ${datasets.length} datasets,` : ""} against ${label}` +
      `${several && !ofModel ? " (geometric mean)" : ""}. `,
    !several ? "Bars: 95 % intervals over seeds. " : "",
    better
      ? "The line is the Pareto front by these means, however small the differences: none is both better and cheaper. "
      : "",
    better && hidden.size ? "It is that of all backbones; those hidden above are only not drawn. " : "",
    ofMachine && machines.length > 1
      ? element(
          "strong",
          {},
          `Measured on ${machines.length} kinds of hardware (${machines.join("; ")}): these costs can't be compared. `,
        )
      : "",
    ofMachine && machines.length === 1 ? `Measured on ${machines[0]}. ` : "",
    leftOut.length ? `Left out, so that all are measured on the same: ${leftOut.join(", ")}.` : "",
  ];
}

/** The plot of points {name, x, y, half, best}. */
function costPlot(box, points) {
  const { metric, costAxis, costLog } = state;
  const { label, unit, better } = report.costs[costAxis];
  const scale = costLog ? Math.log10 : (x) => x;
  const rangeX = padded(
    points.map(({ x }) => scale(x)),
    0.14,
  );
  const rangeY = padded(
    points.flatMap(({ y, half }) => [y - half, y + half]),
    0.1,
  );
  const margin = { l: 66, r: 14, t: 14, b: 52 };
  const [wide, high] = [widthOf(box), heightOf({ data: [], layout: { showlegend: false } }, widthOf(box))];
  const [width, height] = [wide - margin.l - margin.r, high - margin.t - margin.b];
  const placed = points.map((point) => ({
    ...point,
    text: fitted(point.name, width / 3),
    left: (width * (scale(point.x) - rangeX[0])) / (rangeX[1] - rangeX[0]),
    top: height * (1 - (point.y - rangeY[0]) / (rangeY[1] - rangeY[0])),
  }));
  return {
    data: [frontLine(points), costMarkers(points)],
    layout: {
      showlegend: false,
      height: high,
      margin,
      annotations: pointLabels(placed, width, height, frontBoxes(placed), scale),
      xaxis: {
        type: costLog ? "log" : "linear",
        range: rangeX,
        automargin: false,
        title: { text: `${label}${unit ? `, ${unit}` : ""}${better === "more" ? " (more is better)" : ""}` },
        zeroline: false,
        ...(costLog ? logTicks(10 ** rangeX[0], 10 ** rangeX[1]) : {}),
      },
      yaxis: { range: rangeY, automargin: false, title: { text: axisName(metric) }, zeroline: false },
    },
  };
}

/**
 * The name of each point {name, text, left, top, x, y, best}, with a line to it where there is no room beside it.
 * `lines` as labelPlaces() takes them; `scale` is the axis's.
 */
function pointLabels(points, width, height, lines, scale = (x) => x) {
  const { ink, muted } = palette();
  const spots = labelPlaces(
    points.map(({ text, left, top }) => ({ text, x: left, y: top })),
    width,
    height,
    lines,
  );
  return points.map(({ name, text, x, y, best }, index) => ({
    x: scale(x),
    y,
    ax: spots[index].right,
    ay: spots[index].down,
    text: best ? `<b>${plain(text)}</b>` : plain(text),
    hovertext: text === name ? undefined : plain(name),
    font: { size: LABEL.size, color: ink },
    xanchor: "center",
    yanchor: "middle",
    borderpad: 0,
    showarrow: true, // without it, Plotly takes no distance in pixels
    arrowhead: 0,
    arrowwidth: 1,
    arrowcolor: spots[index].far ? muted : "rgba(0,0,0,0)",
    standoff: LABEL.room,
  }));
}

/** Where the line of the front goes: boxes around its steps. */
function frontBoxes(points) {
  const front = points.filter(({ best }) => best).sort((a, b) => a.left - b.left);
  const falling = report.costs[state.costAxis].better === "more";
  return front.slice(1).flatMap(({ left, top }, index) => {
    const before = front[index];
    const [corner, level] = falling ? [before.left, top] : [left, before.top];
    const [highest, lowest] = [Math.min(before.top, top), Math.max(before.top, top)];
    return [
      [before.left, level - 2, left, level + 2],
      [corner - 2, highest, corner + 2, lowest],
    ];
  });
}

/** An axis from the least of the values to the most, with some room at both ends. */
function padded(values, share) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const pad = (most - least) * share || Math.abs(most) * 0.05 || 1;
  return [least - pad, most + pad];
}

function frontLine(points) {
  const front = points.filter(({ best }) => best).sort((a, b) => a.x - b.x);
  const shape = report.costs[state.costAxis].better === "more" ? "vh" : "hv";
  return {
    type: "scatter",
    mode: "lines",
    x: front.map(({ x }) => x),
    y: front.map(({ y }) => y),
    hoverinfo: "skip",
    name: "Pareto front",
    line: { shape, color: palette().muted, width: 1.5, dash: "dot" },
  };
}

/** The marks of points {name, x, y}, each in its backbone's style, with error bars up and down as Plotly takes them. */
function pointMarkers(points, bars) {
  const styles = points.map(({ name }) => style(name));
  const colours = styles.map(({ colour }) => colour);
  return {
    type: "scatter",
    mode: "markers",
    x: points.map(({ x }) => x),
    y: points.map(({ y }) => y),
    cliponaxis: false,
    marker: {
      size: 11,
      symbol: styles.map(({ symbol }) => symbol),
      color: colours,
      line: { width: 2, color: colours },
    },
    error_y: { type: "data", color: palette().muted, thickness: 1, width: 3, ...bars },
  };
}

function costMarkers(points) {
  const { metric, costAxis } = state;
  const { label, unit } = report.costs[costAxis];
  const bars = { array: points.map(({ half }) => half), visible: points.some(({ half }) => half) };
  return {
    ...pointMarkers(points, bars),
    text: points.map(({ name, best }) => (best ? `<b>${plain(name)}</b>` : plain(name))),
    hovertemplate:
      `%{text}<br>${report.metrics[metric].label} %{y:.${report.metrics[metric].digits}f}` +
      `<br>${label} %{x:.3s} ${unit}<extra></extra>`,
  };
}

function costTable(points, datasets) {
  const { group, metric } = state;
  const { label, higher_is_better: higher } = report.metrics[metric];
  return sortable("cost-numbers", {
    caption:
      datasets.length > 1
        ? `Means over ${datasets.length} datasets; of costs, geometric ones.`
        : `On ${group.datasets[datasets[0]].name}.`,
    columns: [
      { name: "Backbone", head: true, up: true, value: ({ b }) => b, show: ({ b }) => named(b) },
      {
        name: capital(label),
        up: !higher,
        value: ({ accuracy }) => numeric(accuracy),
        show: ({ accuracy }) => accuracy,
      },
      ...Object.entries(report.costs).map(([key, cost]) => ({
        name: capital(cost.label),
        note: cost.unit,
        up: cost.better !== "more",
        value: (point) => point.cost(key),
        show: (point) => point.cost(key)?.toLocaleString("en", { maximumFractionDigits: 20 }),
      })),
    ],
    rows: points,
  });
}

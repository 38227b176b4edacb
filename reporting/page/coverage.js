// How many test images are kept, and how many of these are right, where less sure predictions are rejected.

function renderCoverage(coverage) {
  byId("cell-coverage").hidden = !coverage;
  if (!coverage) return;
  byId("coverage-caption").textContent =
    "Accuracy of the test images that are kept, where predictions of a lower probability than P are rejected. " +
    `${coverage.seeds.length > 1 ? `${coverage.seeds.length} seeds together. ` : ""}${calibrationWords(coverage)} It holds for images like these, ` +
    "and says nothing of unlike ones.";
  plot("plot-coverage", () => coveragePlot(coverage));
  byId("cell-coverage-table").replaceChildren(
    sortable("coverage-table", {
      caption: "What is kept, by the least probability P",
      columns: [
        { name: "P", head: true, up: true, value: ([least]) => least, show: ([least]) => String(least || "any") },
        { name: "Kept", value: ([, share]) => share, show: ([, share]) => percent(share) },
        { name: "Accuracy", note: OF_TEST, value: ([, , accuracy]) => accuracy, show: accuracyKept },
      ],
      rows: coverage.table,
    }),
  );
}

function calibrationWords({ temperatures, ece }) {
  if (!temperatures.length) return "Probabilities are those of the model as it is: no temperature was fitted.";
  const [low, high] = [Math.min(...temperatures), Math.max(...temperatures)].map((value) => value.toPrecision(3));
  return (
    "Probabilities are calibrated by the temperature of each run, fitted on val " +
    `(${low === high ? low : `${low} to ${high}`}); ECE of test by it ${percent(ece[1])}, without ${percent(ece[0])}.`
  );
}

function accuracyKept([, , accuracy, low, high]) {
  if (!present(accuracy)) return null;
  const interval = present(low) ? ` [${(100 * low).toFixed(1)}, ${(100 * high).toFixed(1)}]` : "";
  return `${percent(accuracy)}${interval}`;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function coveragePlot({ curve, table }) {
  const { accent, paper } = palette();
  const marked = table.filter(([, , accuracy]) => present(accuracy));
  const apart = (row, place) => !place || marked[place - 1][1] - row[1] > 0.03; // names would lie on each other
  const trace = (rows, more) => ({
    type: "scatter",
    x: rows.map(([, share]) => 100 * share),
    y: rows.map(([, , accuracy]) => 100 * accuracy),
    text: rows.map(([least]) => String(least || "any")),
    hovertemplate: "P %{text}: %{x:.1f} % kept, %{y:.1f} % of them right<extra></extra>",
    showlegend: false,
    ...more,
  });
  return {
    data: [
      // between two thresholds nobody looked: the line leads the eye alone
      trace(curve, {
        mode: "lines+markers",
        line: { color: accent, width: 1, dash: "dot" },
        marker: { size: 4, color: accent },
      }),
      trace(marked, {
        mode: "markers+text",
        texttemplate: marked.map((row, place) => (apart(row, place) ? "%{text}" : "")),
        textposition: "top center",
        cliponaxis: false,
        marker: { size: 9, color: paper, line: { width: 2, color: accent } },
      }),
    ],
    layout: {
      height: 330,
      margin: { l: 56, r: 24, t: 24, b: 48 },
      xaxis: { title: { text: "test images kept, %" } },
      yaxis: { title: { text: "accuracy of those kept, %" } },
    },
  };
}

// Beside the published ranking; how each number came about; what is in no ranking.

function renderPublished() {
  const { published } = state.group;
  byId("published").hidden = !published;
  if (!published) return;
  const name = (title, key) => ({
    name: title,
    kind: "name",
    up: true,
    value: (row) => row[key],
    show: (row) => row[key] ?? "not read",
  });
  byId("published-body").replaceChildren(
    element("p", { class: "note" }, published.note),
    sortable("published-table", {
      caption: "The published ranking and ours, from these records under the paper protocol",
      columns: [
        { name: "Domain", head: true, up: true, value: ({ domain }) => capital(domain) },
        name("Published best", "best"),
        name("Published second", "better"),
        {
          name: "Ours, best first",
          kind: "name",
          up: true,
          value: ({ ours }) => ours?.[0] ?? null,
          show: ({ ours, why }) => ours?.slice(0, 3).join(", ") ?? element("span", { class: "note" }, why ?? "–"),
        },
      ],
      rows: published.rows,
    }),
  );
}

function renderProvenance() {
  const { group } = state;
  const rows = group.provenances.map((provenance) => ({ ...provenance, cells: [] }));
  for (const cell of group.cells) rows[cell.provenance].cells.push(cell);
  const facts = [
    ["Protocol", group.protocol],
    ["Recipe", [group.recipe, ...group.settings].join("; ")],
    ["Weights", group.weights],
    ["Notes", group.notes.join("; ")],
  ].filter(([, value]) => value);
  byId("provenance-body").replaceChildren(
    element(
      "dl",
      {},
      facts.map(([term, value]) => [element("dt", {}, term), element("dd", {}, value)]),
    ),
    element(
      "details",
      {},
      element(
        "summary",
        {},
        `${count(rows.length, "way")} in which these ${count(group.cells.length, "result")} were made`,
      ),
      sortable("provenance-table", {
        caption: "Weights, versions, hashes and hardware; a row where they differ",
        tall: true,
        columns: provenanceColumns(),
        rows,
      }),
    ),
  );
}

function provenanceColumns() {
  const { datasets, backbones } = state.group;
  const span = (values) => [...new Set(values)].join(", ");
  const text = (name, value, kind = "name") => ({ name, kind, up: true, value });
  const start = (hash) => hash.slice(0, 12);
  return [
    { name: "Datasets", head: true, up: true, value: ({ cells }) => span(cells.map(({ d }) => datasets[d].name)) },
    text("Backbones", ({ cells }) => span(cells.map(({ b }) => backbones[b].name))),
    { name: "Results", value: ({ cells }) => cells.length },
    text("Recipe", ({ recipe }) => recipe),
    text("Weights", ({ weights, weights_sha256: sha }) =>
      sha ? `${weights} (sha256 ${sha.split(" and ").map(start).join(" and ")})` : weights,
    ),
    text("Hardware", ({ hardware }) => hardware),
    text("Precision", ({ precision }) => precision.join(", ")),
    text("Dataset version", ({ dataset_version: version }) => version),
    text("Split", ({ split }) => split.join(" ")),
    text("Commit", ({ commit }) => commit.join(" ")),
    text(
      "Versions",
      ({ versions }) =>
        Object.entries(versions)
          .map(([name, version]) => `${name} ${version}`)
          .join(", "),
      "name long",
    ),
  ];
}

function renderApart() {
  const { apart, skipped, failed, no_curve: withoutCurve } = report;
  byId("apart").hidden = ![apart, skipped, failed, withoutCurve].some((lines) => lines.length);
  const parts = [
    grouped(
      "Listed apart",
      "records that can't be compared",
      apart.map(({ run, reason }) => [run, reason]),
    ),
    grouped(
      "Skipped",
      "files that can't be read, or are none of ours",
      skipped.map(({ path, reason }) => [path, reason]),
    ),
    grouped(
      "No learning curve",
      "runs whose records are used all the same",
      withoutCurve.map(({ run, reason }) => [run, reason]),
    ),
    failed.length
      ? element(
          "details",
          {},
          element("summary", {}, `Failed: ${count(failed.length, "run")}`),
          failed.map(({ cell, reason, tail }) =>
            element(
              "div",
              { class: "failed" },
              element("p", {}, element("code", {}, cell), `: ${reason}`),
              tail ? element("pre", { tabindex: "0" }, tail) : null,
            ),
          ),
        )
      : null,
  ];
  byId("apart-body").replaceChildren(...parts.filter(Boolean));
}

/** Many lines with few reasons: by reason, the most frequent first. */
function grouped(name, what, rows) {
  if (!rows.length) return null;
  const reasons = new Map();
  for (const [path, reason] of rows) {
    if (!reasons.has(reason)) reasons.set(reason, []);
    reasons.get(reason).push(path);
  }
  const ordered = [...reasons].sort((a, b) => b[1].length - a[1].length);
  return element(
    "details",
    {},
    element("summary", {}, `${name}: ${rows.length.toLocaleString("en")} (${what})`),
    ordered.map(([reason, paths]) =>
      element(
        "div",
        { class: "apart" },
        element("p", {}, element("b", {}, reason), paths.length > 1 ? ` (${paths.length.toLocaleString("en")})` : ""),
        list(
          paths.map((path) => element("code", {}, path)),
          "paths",
        ),
      ),
    ),
  );
}

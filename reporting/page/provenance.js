// Beside the published ranking; how each number was made; what is in no ranking.

function renderPublished() {
  const { published } = state.league;
  byId("published").hidden = !published;
  if (!published) return;
  byId("published-body").replaceChildren(
    element("p", { class: "note" }, published.note),
    sortable("published-table", {
      caption: "The published ranking and ours, from these records under the paper protocol",
      columns: [
        { name: "Domain", head: true, up: true, value: ({ domain }) => capital(domain) },
        {
          name: "Published best",
          kind: "name",
          up: true,
          value: ({ best }) => best,
          show: ({ best }) => best ?? "not read",
        },
        {
          name: "Published second",
          kind: "name",
          up: true,
          value: ({ better }) => better,
          show: ({ better }) => better ?? "not read",
        },
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

function renderMade() {
  const { league } = state;
  const used = new Map();
  for (const cell of league.cells) {
    if (!used.has(cell.made)) used.set(cell.made, []);
    used.get(cell.made).push(cell);
  }
  const span = (values) => [...new Set(values)].join(", ");
  const rows = league.makings
    .map((making, index) => ({ ...making, cells: used.get(index) || [] }))
    .filter(({ cells }) => cells.length);
  const text = (name, value, kind = "name") => ({ name, kind, up: true, value });
  const versions = ({ versions: of }) =>
    Object.entries(of || {})
      .filter(([, version]) => present(version))
      .map(([name, version]) => `${name} ${version}`)
      .join(", ");
  byId("made-body").replaceChildren(
    element(
      "dl",
      {},
      [
        ["Protocol", league.protocol],
        ["Recipe", [league.recipe, ...league.settings].join("; ")],
        ["Weights", league.weights],
        ["Notes", league.notes.join("; ")],
      ]
        .filter(([, value]) => value)
        .map(([term, value]) => [element("dt", {}, term), element("dd", {}, value)]),
    ),
    element(
      "details",
      {},
      element(
        "summary",
        {},
        `${count(rows.length, "way", "ways")} in which the ${count(league.cells.length, "cell")} of this league were made`,
      ),
      sortable("made-table", {
        caption: "Weights, versions, hashes and hardware; a row where they differ",
        tall: true,
        columns: [
          {
            name: "Datasets",
            head: true,
            up: true,
            value: ({ cells }) => span(cells.map(({ d }) => league.datasets[d].name)),
          },
          text("Backbones", ({ cells }) => span(cells.map(({ b }) => league.backbones[b].name))),
          { name: "Cells", value: ({ cells }) => cells.length },
          text("Recipe", ({ recipe }) => recipe),
          text(
            "Weights",
            ({ weights, weights_sha256: sha }) =>
              `${weights}${
                sha
                  ? ` (sha256 ${sha
                      .split(" and ")
                      .map((hash) => hash.slice(0, 12))
                      .join(" and ")})`
                  : ""
              }`,
          ),
          text("Hardware", ({ hardware }) => hardware),
          text("Precision", ({ precision }) => [precision].flat().filter(Boolean).join(", ")),
          text("Dataset version", ({ dataset_version: version }) => version),
          text("Split", ({ split }) =>
            [split]
              .flat()
              .filter(Boolean)
              .map((hash) => hash.slice(0, 8))
              .join(" "),
          ),
          text("Commit", ({ commit }) =>
            [commit]
              .flat()
              .filter(Boolean)
              .map((hash) => hash.slice(0, 8))
              .join(" "),
          ),
          text("Versions", versions, "name long"),
        ],
        rows,
      }),
    ),
  );
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
          element("summary", {}, `Failed: ${count(failed.length, "cell")}`),
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

// Tables: sortable by any column, with a mouse or the keyboard.

const sorted = {}; // by the table's id: the column's name, and whether upwards

/**
 * A table in a box that scrolls by itself.
 * columns: {name, value(row), show(row)?, note?, up?, head?, kind?}: `value` sorts, `show` gives text or a node,
 * `up` is whether the first click sorts upwards, `head` makes the row's header.
 */
function sortable(id, { caption, columns, rows, groups = [], tall = false, many = false }) {
  const body = element("tbody");
  const heads = columns.map((column) => {
    const button = element("button", { type: "button", title: `Sort by ${column.name}` }, column.name);
    const note = column.note ? element("small", {}, column.note) : null;
    button.addEventListener("click", () => {
      const last = sorted[id];
      sorted[id] = { name: column.name, up: last?.name === column.name ? !last.up : Boolean(column.up) };
      fill();
    });
    return element("th", { scope: "col", class: column.kind || (column.head ? "name" : "number") }, button, note);
  });

  function fill() {
    const order = sorted[id];
    const chosen = columns.find((column) => column.name === order?.name);
    heads.forEach((head, index) => {
      head.removeAttribute("aria-sort");
      if (columns[index] === chosen) head.setAttribute("aria-sort", order.up ? "ascending" : "descending");
    });
    const ordered = chosen ? sortedRows(rows, chosen.value, order.up) : rows;
    body.replaceChildren(
      ...ordered.map((row) =>
        element(
          "tr",
          {},
          columns.map((column) => tableCell(column, row)),
        ),
      ),
    );
  }

  fill();
  const above = groups.map(({ name, span }) =>
    span ? element("th", { scope: "colgroup", colspan: span }, name) : element("td"),
  );
  const table = element(
    "table",
    { id, class: many ? "many" : null },
    element("caption", {}, caption),
    element("thead", {}, above.length ? element("tr", { class: "groups" }, above) : null, element("tr", {}, heads)),
    body,
  );
  const attributes = { class: tall ? "scroll tall" : "scroll", role: "region", tabindex: "0", "aria-label": caption };
  return element("div", attributes, table);
}

/** The rows by their values; those without one last, whichever way. */
function sortedRows(rows, value, up) {
  return [...rows].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (!present(a) || !present(b)) return present(b) - present(a);
    return (up ? 1 : -1) * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  });
}

function tableCell(column, row) {
  const content = column.show ? column.show(row) : column.value(row);
  const className = column.kind || (column.head ? "name" : "number");
  return column.head
    ? element("th", { scope: "row", class: className }, content)
    : element("td", { class: className }, present(content) ? content : "–");
}

/** A box that scrolls, and above it, while it is too narrow for what is in it, the words that say so. */
function sideways(box, words) {
  const arrow = element("span", { "aria-hidden": "true" }, "⟷");
  const hint = element("p", { class: "note sideways on-screen", hidden: true }, `${words} `, arrow);
  new ResizeObserver(() => (hint.hidden = box.scrollWidth <= box.clientWidth)).observe(box);
  return [hint, box];
}

/** Arrow keys move between the buttons of a table's body, of which one is reached by the tab key. */
function arrows(table) {
  const body = table.querySelector("tbody");
  const first = () => body.querySelector("button");
  const settle = () => {
    body.querySelectorAll("button").forEach((button) => (button.tabIndex = -1));
    if (first()) first().tabIndex = 0;
  };
  settle();
  new MutationObserver(settle).observe(body, { childList: true });
  body.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const here = event.target.closest("td");
    if (!step || !here) return;
    let [column, row] = [here.cellIndex + step[0], here.parentNode.sectionRowIndex + step[1]];
    while (body.rows[row]?.cells[column]) {
      const next = body.rows[row].cells[column].querySelector("button");
      if (next) {
        event.target.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
        event.preventDefault();
        return;
      }
      column += step[0];
      row += step[1];
    }
  });
}

/** The accuracy table: backbones by datasets, in the chosen metric. */
function renderAccuracy() {
  const { group, metric, budget } = state;
  const [datasets, backbones] = [shownDatasets(), shownBackbones()];
  const { averages, captions } = group.budgets[budget];
  const means = averages[scope()]?.[metric];
  legend(means && backbones.some((b) => !present(means[b])));
  if (!datasets.length || !backbones.length) {
    byId("accuracy-body").replaceChildren(element("p", { class: "note" }, "Nothing is left by these filters."));
    return;
  }
  const columns = [
    { name: "Backbone", head: true, up: true, value: (b) => group.backbones[b].name, show: (b) => named(b) },
    ...datasets.map((d) => ({
      name: group.datasets[d].name,
      up: !report.metrics[metric].higher_is_better,
      value: (b) => numeric(cellAt(d, b)?.parts[metric]?.[0][1]),
      show: (b) => accuracyCell(cellAt(d, b)),
    })),
    {
      name: "Average",
      up: !report.metrics[metric].higher_is_better,
      kind: "number average",
      value: (b) => numeric(means[b]),
      show: (b) => means[b],
    },
  ];
  const box = sortable("accuracy-table", {
    caption: captions[metric],
    columns: means ? columns : columns.slice(0, -1),
    rows: backbones,
    groups: domainGroups(datasets),
    many: datasets.length > 10,
  });
  arrows(box.querySelector("table"));
  byId("accuracy-body").replaceChildren(...sideways(box, "The table scrolls sideways."));
}

/** Show of the legend what holds; `gone`: whether some backbone has no average. */
function legend(gone) {
  const { group, metric, budget, hidden } = state;
  const tests = metric === "top1";
  const { ties, short, unpaired } = group.budgets[budget];
  byId("legend-tied").hidden = !tests || !ties;
  byId("legend-few").hidden = !tests || !short;
  byId("legend-unpaired").hidden = !tests || !unpaired;
  byId("legend-unpaired").textContent = unpaired;
  byId("legend-no-ties").hidden = tests;
  byId("legend-average").hidden = !gone;
  byId("legend-hidden").hidden = !hidden.size;
}

function accuracyCell(cell) {
  const { group, metric, budget } = state;
  if (!cell?.parts[metric]) return element("span", { class: "absent" }, "–");
  const title = `${group.backbones[cell.b].name} on ${group.datasets[cell.d].name}, ${group.budgets[budget].name}`;
  const button = element(
    "button",
    { type: "button", class: "cell", title },
    cell.parts[metric].map(([tag, text]) => element(tag, {}, text)),
  );
  button.addEventListener("click", () => choose({ dataset: cell.d, backbone: cell.b }, "cell"));
  return button;
}

/** The domains above their datasets, of several; nothing above the backbones and the average. */
function domainGroups(datasets) {
  if (datasets.length < 2) return [];
  const groups = [{}];
  for (const d of datasets) {
    const name = capital(state.group.datasets[d].domain);
    const last = groups[groups.length - 1];
    if (last.name === name) last.span += 1;
    else groups.push({ name, span: 1 });
  }
  return [...groups, {}];
}

/** A backbone's name with the mark that it has in plots. */
function named(b) {
  const name = state.group.backbones[b].name;
  return element("span", { class: "backbone" }, glyph(name), name);
}

// Tables: sortable by any column, with a mouse or the keyboard.

const sorted = {}; // by the table's id: the column's name, and whether upwards

/**
 * A table in a box that scrolls by itself.
 * columns: {name, value(row), show(row)?, note?, up?, head?, kind?}: `value` sorts, `show` gives text or a node,
 * `up` is whether the first click sorts upwards, `head` makes the row's header.
 */
function sortable(id, { caption, columns, rows, groups = null, tall = false, many = false }) {
  const body = element("tbody");
  const heads = columns.map((column) => {
    const button = element("button", { type: "button", title: `Sort by ${column.name}` }, column.name);
    const note = column.note ? element("small", {}, column.note) : null;
    const head = element("th", { scope: "col", class: column.kind || (column.head ? "name" : "number") }, button, note);
    button.addEventListener("click", () => {
      const last = sorted[id];
      sorted[id] = { name: column.name, up: last?.name === column.name ? !last.up : Boolean(column.up) };
      fill();
    });
    return head;
  });

  function fill() {
    const order = sorted[id];
    const chosen = columns.find((column) => column.name === order?.name);
    let ordered = rows;
    if (chosen) {
      const sign = order.up ? 1 : -1;
      ordered = [...rows].sort((one, other) => {
        const [a, b] = [chosen.value(one), chosen.value(other)];
        if (!present(a) || !present(b)) return present(b) - present(a);
        return sign * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
      });
    }
    heads.forEach((head, index) => {
      head.removeAttribute("aria-sort");
      if (columns[index] === chosen) head.setAttribute("aria-sort", order.up ? "ascending" : "descending");
    });
    body.replaceChildren(
      ...ordered.map((row) =>
        element(
          "tr",
          {},
          columns.map((column) => box(column, row)),
        ),
      ),
    );
  }

  function box(column, row) {
    const content = column.show ? column.show(row) : column.value(row);
    const className = column.kind || (column.head ? "name" : "number");
    return column.head
      ? element("th", { scope: "row", class: className }, content)
      : element("td", { class: className }, present(content) ? content : "–");
  }

  fill();
  const above = groups
    ? element(
        "tr",
        { class: "groups" },
        groups.map(({ name, span, first }) =>
          first ? element("td", {}) : element("th", { scope: "colgroup", colspan: span }, name),
        ),
      )
    : null;
  const table = element(
    "table",
    { id, class: many ? "many" : null },
    element("caption", {}, caption),
    element("thead", {}, above, element("tr", {}, heads)),
    body,
  );
  const attributes = { class: tall ? "scroll tall" : "scroll", role: "region", tabindex: "0", "aria-label": caption };
  return element("div", attributes, table);
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
function accuracyTable() {
  const { league, metric, budget } = state;
  const { up } = METRICS[metric];
  const [datasets, backbones] = [shownDatasets(), shownBackbones()];
  const cells = datasets.flatMap((d) => backbones.map((b) => cellAt(d, b))).filter(Boolean);
  const seeds = mostCommon(cells.map((cell) => cell.seeds.length));
  const best = new Map(datasets.map((d) => [d, bestOf(d)])); // all that share the best value

  const columns = [
    { name: "Backbone", head: true, up: true, value: (b) => league.backbones[b].name, show: (b) => named(b) },
    ...datasets.map((d) => ({
      name: league.datasets[d].name,
      up: !up,
      value: (b) => cellAt(d, b)?.mean[metric] ?? null,
      show: (b) => accuracyCell(cellAt(d, b), best.get(d), seeds),
    })),
  ];
  if (datasets.length > 1) {
    const average = (b) => averageOver(datasets, b, metric);
    columns.push({
      name: "Average",
      up: !up,
      kind: "number average",
      value: average,
      show: (b) => shown(metric, average(b)),
    });
  }
  const box = sortable("accuracy-table", {
    caption: accuracyCaption(cells, seeds),
    columns,
    rows: backbones,
    groups: domainGroups(datasets),
    many: datasets.length > 10,
  });
  arrows(box.querySelector("table"));
  const gone = datasets.length > 1 && backbones.some((b) => averageOver(datasets, b, metric) === null);
  const hint = `Average: over the ${count(datasets.length, "dataset")} shown, only where all are there.`;
  return [
    ...(cells.length
      ? sideways(box, "The table scrolls sideways.")
      : [element("p", { class: "note" }, "No cell is left by these filters.")]),
    element(
      "p",
      { class: "legend" },
      element("span", {}, element("b", {}, "Bold"), ": best of the dataset"),
      metric === "top1" && seeds > 2
        ? element(
            "span",
            {},
            element("u", {}, "underlined"),
            ": not significantly below it (Holm-corrected t tests over seeds, paired where five are shared)",
          )
        : element(
            "span",
            {},
            metric === "top1" ? "No tie is claimed under three seeds." : "Ties are told for top-1 only.",
          ),
      element("span", { class: "on-screen" }, "Choose a cell to see it in detail."),
      gone ? element("span", {}, hint) : null,
      state.hidden.size ? element("span", {}, "Marks are among all backbones of the league, hidden ones too.") : null,
    ),
  ];

  function bestOf(d) {
    const all = league.backbones.map((_, b) => cellAt(d, b)).filter((cell) => present(cell?.mean[metric]));
    if (metric === "top1") return all.filter((cell) => cell.mark === "best");
    if (all.length < 2) return [];
    const value = Math[up ? "max" : "min"](...all.map((cell) => cell.mean[metric]));
    return all.filter((cell) => cell.mean[metric] === value);
  }

  function accuracyCell(cell, bestCells, usual) {
    if (!present(cell?.mean[metric])) return element("span", { class: "absent" }, "–");
    const around = half(cell, metric);
    const mark = bestCells.includes(cell) ? "b" : metric === "top1" && cell.mark === "tied" ? "u" : "span";
    const button = element(
      "button",
      { type: "button", class: "cell" },
      element(mark, { class: "value" }, shown(metric, cell.mean[metric])),
      present(around) ? element("small", {}, ` ± ${shown(metric, around)}`) : null,
      cell.seeds.length !== usual ? element("small", { class: "seeds" }, ` n = ${cell.seeds.length}`) : null,
    );
    button.title = `${league.backbones[cell.b].name} on ${league.datasets[cell.d].name}, ${league.budgets[budget]}`;
    button.addEventListener("click", () => choose({ dataset: cell.d, backbone: cell.b }, "cell"));
    return button;
  }

  function accuracyCaption(all, usual) {
    const what = `Test ${METRICS[metric].name}${METRICS[metric].percent ? " in %" : ""}${up ? "" : " (lower is better)"}`;
    const single =
      usual === 1 ? "one seed: no interval" : `mean over ${count(usual || 0, "seed")} ± half the 95 % interval`;
    const differ = all.some((cell) => cell.seeds.length !== usual) ? ", other numbers of seeds as n" : "";
    return `${what}, ${single}${differ}. ${capital(budgetName())}.`;
  }
}

function domainGroups(datasets) {
  const groups = [{ first: true }];
  for (const d of datasets) {
    const name = capital(state.league.datasets[d].domain);
    const last = groups[groups.length - 1];
    if (last.name === name) last.span += 1;
    else groups.push({ name, span: 1 });
  }
  if (datasets.length > 1) groups.push({ first: true });
  return groups;
}

function mostCommon(numbers) {
  const times = new Map();
  for (const number of numbers) times.set(number, (times.get(number) || 0) + 1);
  return [...times].sort((a, b) => b[1] - a[1] || b[0] - a[0])[0]?.[0] ?? 0;
}

/** A backbone's name with the mark that it has in plots. */
function named(b) {
  const name = state.league.backbones[b].name;
  return element("span", { class: "backbone" }, glyph(name), name);
}

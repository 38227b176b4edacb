// The answer and what is said of ranks, as the report wrote them; the ranks as a table; any two backbones.

const firstAnswer = [...byId("answer-body").childNodes];

/** What the report wrote of the group and the budget that are chosen, "answer" or "ranks"; null for the first answer. */
function written(name) {
  const template = byId(`${name}-${report.groups.indexOf(state.group)}-${state.budget}`);
  return template && template.content.cloneNode(true);
}

function renderAnswer() {
  const other = written("answer");
  byId("answer-body").replaceChildren(...(other ? other.childNodes : firstAnswer));
}

function renderRanks() {
  const { group, budget, hidden } = state;
  const datasets = new Set(group.cells.filter((cell) => cell.budget === budget).map(({ d }) => d));
  byId("ranks").hidden = datasets.size < 2; // a rank on one dataset says no more than its accuracy
  const ranking = group.budgets[budget].rankings[scope()];
  const words = [...written("ranks").children].find((part) => part.dataset.scope === scope());
  const diagram = words.querySelector(".diagram");
  if (diagram) diagram.prepend(...sideways(diagram.firstElementChild, "The diagram scrolls sideways."));
  const names = ranking.backbones.filter((name) => name in ranking.ranks && !hidden.has(name));
  byId("ranks-body").replaceChildren(
    ...(names.length ? [element("div", { class: "pair" }, rankTable(ranking, names), diagram)] : []),
    ...words.childNodes,
    ...(names.length && hidden.size
      ? [
          element(
            "p",
            { class: "note" },
            "Ranks, tests and diagram are among all backbones of the ranking; those hidden above are only not listed.",
          ),
        ]
      : []),
  );
}

function rankTable({ caption, ranks, mean }, names) {
  const place = new Map(state.group.backbones.map(({ name }, b) => [name, b]));
  return sortable("ranks-table", {
    caption,
    columns: [
      { name: "Backbone", head: true, up: true, value: (name) => name, show: (name) => named(place.get(name)) },
      { name: "Average rank", up: true, value: (name) => numeric(ranks[name]), show: (name) => ranks[name] },
      { name: "Mean top-1", value: (name) => numeric(mean[name]), show: (name) => mean[name] },
    ],
    rows: names,
  });
}

/** The pair {difference, low, high, better...} seen from `a`; null where the report has none. */
function pairOf(a, b) {
  const { pairs } = state.group.budgets[state.budget];
  const straight = pairs.find((pair) => pair.a === a && pair.b === b);
  if (straight) return straight;
  const turned = pairs.find((pair) => pair.a === b && pair.b === a);
  if (!turned) return null;
  const minus = (value) => (present(value) ? -value : null);
  return {
    ...turned,
    a,
    b,
    difference: minus(turned.difference),
    low: minus(turned.high),
    high: minus(turned.low),
    better: present(turned.better) ? 1 - turned.better : null,
  };
}

/** A difference in percentage points, with its sign. */
function signed(points) {
  return `${points > 0 ? "+" : ""}${points.toFixed(2)}`.replace("-", "−");
}

function pairSentence(a, b) {
  if (a === b) return "Choose two different backbones.";
  const pair = pairOf(a, b);
  if (!pair || !present(pair.difference))
    return `Not enough evidence: ${pair?.why || `${a} and ${b} share no dataset`}.`;
  const points = Math.abs(pair.difference).toFixed(2);
  const side = pair.difference < 0 ? "below" : "above";
  const interval = present(pair.low)
    ? ` (95 % interval of the difference ${signed(pair.low)} to ${signed(pair.high)})`
    : "";
  const measured = `on average, ${a} is ${points} points of top-1 ${side} ${b} over ${count(pair.datasets, "shared dataset")}${interval}`;
  if (!pair.enough) return `Not enough evidence for a claim: ${pair.why}. ${capital(measured)}.`;
  const better =
    pair.better > 0.999 ? "more than 99.9" : pair.better < 0.001 ? "less than 0.1" : (100 * pair.better).toFixed(1);
  return (
    `${pair.said}: ${measured}; ` +
    `${a} is ahead in ${better} % of the samples. Intervals of many pairs are not corrected for their number; ` +
    "the rank tests above are stricter."
  );
}

// The answer, for all data and for each domain, of the league and the budget that are chosen; page.py writes the same.

const MISSING = "What is missing:";
const SURER = "What would make it surer:";

function renderAnswer() {
  const { league, budget } = state;
  const scopes = league.rankings[budget] || {};
  const overall = scopes.overall;
  const domains = league.domains.filter((domain) => scopes[domain]);
  byId("answer-body").replaceChildren(
    element("p", { class: "league" }, `${capital(league.title)}. ${capital(budgetName())}.`),
    ...league.warnings.map((warning) => element("p", { class: "warning" }, `${capital(warning)}.`)),
    ...(overall ? finding(overall, "answer") : [element("p", { class: "answer" }, "Not enough evidence: no records.")]),
    element(
      "div",
      { class: "domains" },
      domains.map((domain) =>
        element(
          "section",
          { class: scopes[domain].enough ? "domain" : "domain open" },
          element("h2", {}, capital(domain)),
          ...finding(scopes[domain], "domain-answer"),
        ),
      ),
    ),
  );
}

function finding(ranking, className) {
  const [, lead, rest] = ranking.answer.match(/^(.+?\.) (.+)$/s) || [null, ranking.answer, ""];
  const evidence = list(ranking.evidence, "evidence");
  const missing = ranking.missing.length
    ? element("div", { class: "missing" }, element("p", {}, ranking.enough ? SURER : MISSING), list(ranking.missing))
    : null;
  // of a domain with an answer, what it rests on comes on request
  const folded = className === "answer" ? [] : [evidence, ranking.enough ? missing : null].filter(Boolean);
  return [
    element(
      "p",
      { class: ranking.enough ? className : `${className} open` },
      lead,
      rest ? element("span", { class: "rest" }, ` ${rest}`) : null,
    ),
    ...[evidence, missing].filter((part) => part && !folded.includes(part)),
    folded.length ? element("details", {}, element("summary", {}, "Evidence"), folded) : null,
  ].filter(Boolean);
}

function renderRanks() {
  const { league, budget, domain } = state;
  const ranking = (league.rankings[budget] || {})[domain || "overall"];
  const where = domain === "own" ? "your own data" : domain ? `${domain} data` : "all domains";
  if (!ranking) {
    byId("ranks-body").replaceChildren(element("p", { class: "note" }, `No ranks for ${where}, ${budgetName()}.`));
    return;
  }
  const hidden = new Set([...state.hidden]);
  const names = ranking.backbones.filter((name) => present(ranking.ranks[name]) && !hidden.has(name));
  const several = ranking.backbones.length > 1 && names.length;
  byId("ranks-body").replaceChildren(
    ...[
      several ? element("div", { class: "pair" }, rankTable(ranking, names), diagram(ranking)) : null,
      several ? friedman(ranking) : null,
      ranking.groups.length
        ? element("p", {}, `Not distinguishable from each other: ${ranking.groups.map(sentence).join("; ")}.`)
        : null,
      ranking.missing.length
        ? element(
            "div",
            { class: "missing" },
            element("p", {}, ranking.enough ? SURER : ranking.answer),
            list(ranking.missing),
          )
        : null,
      ranking.left_out.length
        ? element(
            "details",
            {},
            element("summary", {}, `Left out of these ranks: ${ranking.left_out.length}`),
            list(ranking.left_out.map(({ what, why }) => `${what}: ${why}`)),
          )
        : null,
      hidden.size && several
        ? element(
            "p",
            { class: "note" },
            "Ranks, tests and diagram are among all backbones of the ranking; those hidden above are only not listed.",
          )
        : null,
    ].filter(Boolean),
  );

  function rankTable(of, rows) {
    const place = new Map(league.backbones.map((backbone, b) => [backbone.name, b]));
    return sortable("ranks-table", {
      caption: `Average ranks by top-1 over ${count(of.independent, "dataset")} (${where}); 1 is best.`,
      columns: [
        {
          name: "Backbone",
          head: true,
          up: true,
          value: (name) => name,
          show: (name) => (place.has(name) ? named(place.get(name)) : name),
        },
        { name: "Average rank", up: true, value: (name) => of.ranks[name], show: (name) => fixed(of.ranks[name], 2) },
        { name: "Mean top-1", value: (name) => of.mean[name] ?? null, show: (name) => shown("top1", of.mean[name]) },
      ],
      rows,
    });
  }

  function friedman(of) {
    if (!of.friedman)
      return element(
        "p",
        { class: "note" },
        "No test of significance: it takes three seeds in every cell and five datasets.",
      );
    const { chi2, p, f, p_f } = of.friedman;
    const name = (letter) => element("i", {}, letter);
    return element(
      "p",
      {},
      "Friedman ",
      name("χ"),
      `² = ${round(chi2)}, `,
      name("p"),
      ` ${probability(p)}`,
      ...(present(f) ? ["; Iman–Davenport ", name("F"), ` = ${round(f)}, `, name("p"), ` ${probability(p_f)}`] : []),
      present(of.cd)
        ? `. Nemenyi: average ranks that differ by less than ${fixed(of.cd, 2)} are not distinguishable at 0.05.`
        : ".",
    );
  }

  function diagram(of) {
    const drawing = of.svg && drawingFrom(of.svg);
    if (!drawing) return null;
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", `Critical-difference diagram: ${rankText(of)}`);
    return element(
      "figure",
      { class: "diagram" },
      ...sideways(
        element(
          "div",
          { class: "scroll", role: "region", tabindex: "0", "aria-label": "Critical-difference diagram" },
          drawing,
        ),
        "The diagram scrolls sideways.",
      ),
      element(
        "figcaption",
        {},
        "Critical-difference diagram: average ranks, joined where the Nemenyi test finds no difference.",
      ),
    );
  }
}

function rankText(ranking) {
  return ranking.backbones
    .filter((name) => present(ranking.ranks[name]))
    .map((name) => `${name} ${fixed(ranking.ranks[name], 2)}`)
    .join(", ");
}

function probability(p) {
  return p < 0.001 ? "< 0.001" : `= ${p.toFixed(3)}`;
}

/** An SVG of the report as an element, without anything in it that could run or fetch; null where it is none. */
function drawingFrom(text) {
  const root = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  if (root.nodeName !== "svg") return null;
  for (const node of [root, ...root.querySelectorAll("*")]) {
    if (/^(script|foreignobject|iframe|image|a|animate.*|set|metadata)$/i.test(node.localName)) {
      node.remove();
      continue;
    }
    for (const { name, value } of [...node.attributes]) {
      if (/^on/i.test(name) || (/href$/i.test(name) && !value.startsWith("#"))) node.removeAttribute(name);
    }
  }
  if (!root.hasAttribute("viewBox")) {
    root.setAttribute(
      "viewBox",
      `0 0 ${parseFloat(root.getAttribute("width"))} ${parseFloat(root.getAttribute("height"))}`,
    );
  }
  return document.importNode(root, true);
}

/** The pair {difference, low, high, better...} seen from `a`; null where the report has none. */
function pairOf(a, b) {
  const pairs = state.league.pairs[state.budget] || [];
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

function pairSentence(a, b) {
  if (a === b) return "Choose two different backbones.";
  const pair = pairOf(a, b);
  if (!pair || !present(pair.difference))
    return `Not enough evidence: ${pair?.why || `${a} and ${b} share no dataset`}.`;
  const points = shown("top1", Math.abs(pair.difference));
  const side = pair.difference < 0 ? "below" : "above";
  const interval = present(pair.low)
    ? ` (95 % interval of the difference ${shown("top1", pair.low, "+")} to ${shown("top1", pair.high, "+")})`
    : "";
  const measured = `on average, ${a} is ${points} points of top-1 ${side} ${b} over ${count(pair.datasets, "shared dataset")}${interval}`;
  if (!pair.enough) return `Not enough evidence for a claim: ${pair.why}. ${capital(measured)}.`;
  const better =
    pair.better > 0.999 ? "more than 99.9" : pair.better < 0.001 ? "less than 0.1" : (100 * pair.better).toFixed(1);
  const excluded = pair.low > 0 || pair.high < 0;
  return (
    `The 95 % interval of the bootstrap ${excluded ? "excludes" : "includes"} 0: ${measured}; ` +
    `${a} is ahead in ${better} % of the samples. Intervals of many pairs are not corrected for their number; ` +
    "the rank tests above are stricter."
  );
}

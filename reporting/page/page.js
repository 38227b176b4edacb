// What is chosen, and what follows from it: every choice ends in update().

const KEPT = "which-backbone-choices";
const state = {
  league: report.leagues[0],
  budget: 0,
  metric: "top1",
  domain: "",
  hidden: new Set(),
  dataset: 0,
  backbone: 0,
  pair: ["", ""],
  costAxis: "parameters",
  costDataset: null,
  costLog: true,
  lowDataDataset: null,
  learningDataset: null,
  learningCurve: "curve",
  learningSeeds: false,
};

function cellAt(d, b) {
  return cellsOf(state.league).get(`${state.budget}/${d}/${b}`);
}

function shownDatasets() {
  const { league, domain } = state;
  const all = league.datasets.map((_, d) => d).filter((d) => !domain || league.datasets[d].domain === domain);
  return all.filter((d) => league.backbones.some((_, b) => cellAt(d, b)));
}

function shownBackbones() {
  return state.league.backbones.map((_, b) => b).filter((b) => !state.hidden.has(state.league.backbones[b].name));
}

function budgetName() {
  const name = state.league.budgets[state.budget];
  return name === "all" ? "all training images" : /shots$/.test(name) ? `${name} a class` : `${name} images`;
}

/** The mean over datasets, or null where one of them is not there. */
function averageOver(datasets, b, metric) {
  const values = datasets.map((d) => cellAt(d, b)?.mean[metric]);
  if (!values.length || !values.every(present)) return null;
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Datasets and backbones without a hole: as with the ranks, who lacks more than half goes, then what somebody lacks. */
function completeBlock(datasets, backbones) {
  const { league } = state;
  const kept = backbones.filter((b) => 2 * datasets.filter((d) => cellAt(d, b)).length >= datasets.length);
  const whole = datasets.filter((d) => kept.every((b) => cellAt(d, b)));
  const gone = [
    ...backbones.filter((b) => !kept.includes(b)).map((b) => league.backbones[b].name),
    ...datasets.filter((d) => !whole.includes(d)).map((d) => league.datasets[d].name),
  ];
  return { datasets: whole, backbones: whole.length ? kept : [], gone };
}

function fillSelect(id, options, value) {
  const select = byId(id);
  select.replaceChildren(...options.map(([of, name]) => element("option", { value: String(of) }, name)));
  select.value = String(value ?? "");
}

/** Let `changes` be chosen and the page show it; `target` names the section to go to. */
function choose(changes, target = null) {
  Object.assign(state, changes);
  update();
  if (target) byId(target).scrollIntoView({ block: "start" });
}

/** Choices that the filters or another league rule out give way to the nearest that there is. */
function settle() {
  const { league } = state;
  if (state.budget >= league.budgets.length) state.budget = 0;
  if (state.domain && !league.domains.includes(state.domain)) state.domain = "";
  const [datasets, backbones] = [shownDatasets(), shownBackbones()];
  if (!datasets.includes(state.dataset)) state.dataset = datasets[0] ?? 0;
  if (!backbones.includes(state.backbone)) state.backbone = backbones[0] ?? 0;
  if (!datasets.includes(state.costDataset)) state.costDataset = null;
  if (!datasets.includes(state.lowDataDataset)) state.lowDataDataset = null;
  if (!datasets.includes(state.learningDataset)) state.learningDataset = datasets[0] ?? null;
  const all = league.backbones.map((backbone) => backbone.name);
  const ranked = (league.rankings[state.budget] || {})[state.domain || "overall"]?.backbones || [];
  const order = [...ranked, ...all.filter((name) => !ranked.includes(name))];
  state.pair = state.pair.map((name, place) => (all.includes(name) ? name : order[Math.min(place, order.length - 1)]));
}

function update() {
  settle();
  const { league } = state;
  const datasets = shownDatasets().map((d) => [d, league.datasets[d].name]);
  const backbones = shownBackbones().map((b) => [b, league.backbones[b].name]);
  const averaged = [
    ["", datasets.length === 1 ? "the dataset shown" : `mean of the ${datasets.length} datasets shown`],
    ...datasets,
  ];
  const all = league.backbones.map(({ name }) => [name, name]);
  fillSelect(
    "league",
    report.leagues.map((other, index) => [index, `${capital(other.title)} (${count(other.cells.length, "cell")})`]),
    report.leagues.indexOf(league),
  );
  fillSelect(
    "budget",
    league.budgets.map((name, index) => [index, name]),
    state.budget,
  );
  fillSelect(
    "metric",
    Object.entries(METRICS).map(([key, { name }]) => [key, name]),
    state.metric,
  );
  fillSelect("domain", [["", "all domains"], ...league.domains.map((domain) => [domain, domain])], state.domain);
  fillSelect("pair-a", all, state.pair[0]);
  fillSelect("pair-b", all, state.pair[1]);
  fillSelect(
    "cost-axis",
    Object.entries(COSTS).map(([key, { name }]) => [key, name]),
    state.costAxis,
  );
  fillSelect("cost-dataset", averaged, state.costDataset);
  fillSelect("low-data-dataset", averaged, state.lowDataDataset);
  fillSelect("learning-dataset", datasets, state.learningDataset);
  fillSelect(
    "learning-curve",
    [
      ["curve", "top-1 that selects"],
      ["loss", "training loss"],
    ],
    state.learningCurve,
  );
  fillSelect("cell-dataset", datasets, state.dataset);
  fillSelect("cell-backbone", backbones, state.backbone);
  byId("cost-log").checked = state.costLog;
  byId("learning-seeds").checked = state.learningSeeds;
  backboneBoxes();
  byId("league-note").replaceChildren(
    ...[league.settings.join(", "), ...league.notes].filter(Boolean).map((text) => element("span", {}, capital(text))),
  );
  byId("accuracy-body").replaceChildren(...accuracyTable());
  renderAnswer();
  renderRanks();
  renderPairs();
  renderCost();
  renderLowData();
  renderLearning();
  renderCell();
  renderPublished();
  renderMade();
  keep();
}

function backboneBoxes() {
  const { league, hidden } = state;
  const shownNow = shownBackbones().length;
  byId("backbones-shown").textContent = `${shownNow} of ${league.backbones.length}`;
  if (byId("backbones-list").contains(document.activeElement)) return; // a rebuilt list would lose the focus
  byId("backbones-list").replaceChildren(
    ...league.backbones.map(({ name }, b) => {
      const box = element("input", { type: "checkbox", value: name });
      box.checked = !hidden.has(name);
      return element("label", { class: "check" }, box, named(b));
    }),
  );
}

/** What is chosen outlives a reload of the page, which the live view does by itself. */
function keep() {
  const { league, hidden, ...rest } = state;
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ ...rest, league: league.id, hidden: [...hidden], sorted }));
  } catch {
    // nothing is kept then
  }
}

function recall() {
  try {
    const { league, hidden, sorted: order, ...rest } = JSON.parse(sessionStorage.getItem(KEPT)) || {};
    const of = report.leagues.find(({ id }) => id === league);
    if (!of) return;
    const known = Object.entries(rest).filter(([key, value]) => key in state && typeof value === typeof state[key]);
    Object.assign(state, Object.fromEntries(known), { league: of, hidden: new Set(hidden) });
    Object.assign(sorted, order);
    if (!(state.metric in METRICS)) state.metric = "top1";
    if (!(state.costAxis in COSTS)) state.costAxis = "parameters";
  } catch {
    // the defaults then
  }
}

function listen() {
  const on = (id, changes) => byId(id).addEventListener("change", (event) => choose(changes(event.target)));
  const number = (text) => (text === "" ? null : Number(text));
  on("league", ({ value }) => ({ league: report.leagues[Number(value)] }));
  on("budget", ({ value }) => ({ budget: Number(value) }));
  on("metric", ({ value }) => ({ metric: value }));
  on("domain", ({ value }) => ({ domain: value }));
  on("pair-a", ({ value }) => ({ pair: [value, state.pair[1]] }));
  on("pair-b", ({ value }) => ({ pair: [state.pair[0], value] }));
  on("cost-axis", ({ value }) => ({ costAxis: value }));
  on("cost-dataset", ({ value }) => ({ costDataset: number(value) }));
  on("cost-log", ({ checked }) => ({ costLog: checked }));
  on("low-data-dataset", ({ value }) => ({ lowDataDataset: number(value) }));
  on("learning-dataset", ({ value }) => ({ learningDataset: number(value) }));
  on("learning-curve", ({ value }) => ({ learningCurve: value }));
  on("learning-seeds", ({ checked }) => ({ learningSeeds: checked }));
  on("cell-dataset", ({ value }) => ({ dataset: Number(value) }));
  on("cell-backbone", ({ value }) => ({ backbone: Number(value) }));
  on("backbones-list", ({ value, checked }) => {
    const hidden = new Set(state.hidden);
    if (checked) hidden.delete(value);
    else hidden.add(value);
    return { hidden };
  });
  byId("backbones-all").addEventListener("click", () => choose({ hidden: new Set() }));
  byId("backbones-none").addEventListener("click", () =>
    choose({ hidden: new Set(state.league.backbones.map(({ name }) => name)) }),
  );
  document
    .querySelectorAll("form")
    .forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
  const menu = byId("backbones");
  document.addEventListener(
    "click",
    ({ target }) => menu.contains(target) || !target.isConnected || (menu.open = false),
  );
  menu.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
}

function themes() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => {
    const other = dark() ? "light" : "dark";
    byId("theme").textContent = capital(other);
    byId("theme").title = `Use the ${other} theme`;
    redraw();
  };
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("which-backbone-theme", root.dataset.theme);
    } catch {
      // until the page is closed then
    }
    tell();
  });
  system.addEventListener("change", tell);
  tell();
}

/** Paper is white and has nothing to open: the light theme, every plot, every detail, for as long as it prints. */
function printing() {
  let opened = [];
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("printing");
    opened = [...document.querySelectorAll("main details:not([open]):not(.menu)")];
    opened.forEach((details) => (details.open = true));
    redraw(true);
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printing");
    opened.forEach((details) => (details.open = false));
    redraw();
  });
}

if (report.leagues.length) {
  recall();
  listen();
  update();
} else {
  for (const id of ["choose", "accuracy", "ranks", "cost", "low-data", "learning", "cell", "published", "made"])
    byId(id).hidden = true;
}
renderApart();
themes();
printing();
live();

// What is chosen, and what follows from it: every choice ends in update().

const KEPT = "which-backbone-choices";
const state = {
  group: report.groups[0],
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
  beforeResult: 0,
  beforeBy: "order",
};

function cellAt(d, b, budget = state.budget) {
  return cellsOf(state.group).get(`${budget}/${d}/${b}`);
}

/** What the report calls all datasets, or those of the domain that is chosen. */
function scope() {
  return state.domain || "overall";
}

function shownDatasets() {
  const { group, domain } = state;
  const all = group.datasets.map((_, d) => d).filter((d) => !domain || group.datasets[d].domain === domain);
  return all.filter((d) => group.backbones.some((_, b) => cellAt(d, b)));
}

function shownBackbones() {
  return state.group.backbones.map((_, b) => b).filter((b) => !state.hidden.has(state.group.backbones[b].name));
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

/** Choices that the filters or another group rule out give way to the nearest that there is. */
function settle() {
  const { group } = state;
  if (state.budget >= group.budgets.length) state.budget = 0;
  if (state.domain && !group.domains.includes(state.domain)) state.domain = "";
  const [datasets, backbones] = [shownDatasets(), shownBackbones()];
  if (!datasets.includes(state.dataset)) state.dataset = datasets[0] ?? 0;
  if (!backbones.includes(state.backbone)) state.backbone = backbones[0] ?? 0;
  if (!datasets.includes(state.costDataset)) state.costDataset = null;
  if (!datasets.includes(state.lowDataDataset)) state.lowDataDataset = null;
  if (!datasets.includes(state.learningDataset)) state.learningDataset = datasets[0] ?? null;
  const all = group.backbones.map(({ name }) => name);
  const ranked = group.budgets[state.budget].rankings[scope()].backbones;
  const order = [...ranked, ...all.filter((name) => !ranked.includes(name))];
  state.pair = state.pair.map((name, place) => (all.includes(name) ? name : order[Math.min(place, order.length - 1)]));
}

function update() {
  settle();
  fillSelects();
  backboneBoxes();
  const { settings, notes } = state.group;
  byId("group-note").replaceChildren(
    ...[capital(settings.join(", ")), ...notes].filter(Boolean).map((text) => element("span", {}, text)),
  );
  renderAccuracy();
  renderAnswer();
  renderRanks();
  renderPairs();
  renderCost();
  renderBefore();
  renderLowData();
  renderLearning();
  renderCell();
  renderPublished();
  renderProvenance();
  keep();
}

function fillSelects() {
  const { group } = state;
  const numbered = (items, text) => items.map((item, index) => [index, text(item)]);
  const labelled = (items) => Object.entries(items).map(([key, { label }]) => [key, label]);
  const datasets = shownDatasets().map((d) => [d, group.datasets[d].name]);
  const backbones = shownBackbones().map((b) => [b, group.backbones[b].name]);
  const averaged = [
    ["", datasets.length === 1 ? "the dataset shown" : `mean of the ${datasets.length} datasets shown`],
    ...datasets,
  ];
  const all = group.backbones.map(({ name }) => [name, name]);
  fillSelect(
    "group",
    numbered(report.groups, ({ title, cells }) => `${capital(title)} (${count(cells.length, "result")})`),
    report.groups.indexOf(group),
  );
  fillSelect(
    "budget",
    numbered(group.budgets, ({ name }) => name),
    state.budget,
  );
  fillSelect("metric", labelled(report.metrics), state.metric);
  fillSelect("domain", [["", "all domains"], ...group.domains.map((domain) => [domain, domain])], state.domain);
  fillSelect("pair-a", all, state.pair[0]);
  fillSelect("pair-b", all, state.pair[1]);
  fillSelect("cost-axis", labelled(report.costs), state.costAxis);
  fillSelect("cost-dataset", averaged, state.costDataset);
  fillSelect("low-data-dataset", averaged, state.lowDataDataset);
  fillSelect("learning-dataset", datasets, state.learningDataset);
  fillSelect("cell-dataset", datasets, state.dataset);
  fillSelect("cell-backbone", backbones, state.backbone);
  const curves = { curve: `top-1 on ${group.selection}`, loss: "training loss" };
  fillSelect("learning-curve", Object.entries(curves), state.learningCurve);
  const alone = { domain: 3, "cost-dataset": 3, "low-data-dataset": 3 }; // "all", and a single one, leave no choice
  for (const id of [
    "group",
    "budget",
    "domain",
    "cost-dataset",
    "low-data-dataset",
    "learning-dataset",
    "cell-dataset",
  ])
    byId(id).closest("label").hidden = byId(id).options.length < (alone[id] ?? 2);
  byId("cost-log").checked = state.costLog;
  byId("learning-seeds").checked = state.learningSeeds;
}

function backboneBoxes() {
  const { group, hidden } = state;
  const shownNow = shownBackbones().length;
  byId("backbones-shown").textContent = `${shownNow} of ${group.backbones.length}`;
  if (byId("backbones-list").contains(document.activeElement)) return; // a rebuilt list would lose the focus
  byId("backbones-list").replaceChildren(
    ...group.backbones.map(({ name }, b) => {
      const box = element("input", { type: "checkbox", value: name });
      box.checked = !hidden.has(name);
      return element("label", { class: "check" }, box, named(b));
    }),
  );
}

/** What is chosen outlives a reload of the page, which the live view does by itself. */
function keep() {
  const { group, hidden, ...rest } = state;
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ ...rest, group: group.id, hidden: [...hidden], sorted }));
  } catch {
    // nothing is kept then
  }
}

function recall() {
  try {
    const { group, hidden, sorted: order, ...rest } = JSON.parse(sessionStorage.getItem(KEPT)) || {};
    const of = report.groups.find(({ id }) => id === group);
    if (!of) return;
    // of datasets that plots are of, null stands for all of them; settle() sees to a number that is none
    const kind = (value) => (value === null ? "number" : typeof value);
    const known = Object.entries(rest).filter(([key, value]) => key in state && kind(value) === kind(state[key]));
    Object.assign(state, Object.fromEntries(known), { group: of, hidden: new Set(hidden) });
    Object.assign(sorted, order);
    if (!(state.metric in report.metrics)) state.metric = "top1";
    if (!(state.costAxis in report.costs)) state.costAxis = "parameters";
  } catch {
    // the defaults then
  }
}

function listen() {
  const on = (id, changes) => byId(id).addEventListener("change", (event) => choose(changes(event.target)));
  const number = (text) => (text === "" ? null : Number(text));
  on("group", ({ value }) => ({ group: report.groups[Number(value)] }));
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
    choose({ hidden: new Set(state.group.backbones.map(({ name }) => name)) }),
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

if (report.groups.length) {
  recall();
  listen();
  update();
} else {
  for (const id of ["choose", "accuracy", "ranks", "cost", "low-data", "learning", "cell", "published", "provenance"])
    byId(id).hidden = true;
  renderBefore();
}
listenBefore();
renderApart();
themes();
printing();
follow();
live();
// all of it in one go once the words can be read, so that a picture that is taken then has them
requestAnimationFrame(() => setTimeout(() => plots.forEach((_, id) => draw(id))));

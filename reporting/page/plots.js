// Plots: drawn when the page is there, redrawn where the theme or what they show has changed.

const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const SHAPES = {
  circle: "M5 1a4 4 0 1 0 .01 0z",
  square: "M1.5 1.5h7v7h-7z",
  diamond: "M5 .5 9.5 5 5 9.5.5 5z",
  "triangle-up": "M5 1 9.3 8.6H.7z",
  "triangle-down": "M5 9 .7 1.4h8.6z",
  cross: "M3.5 1h3v2.5H9v3H6.5V9h-3V6.5H1v-3h2.5z",
};
const PAPER_PX = { width: 680, square: 400, height: 320 }; // of an A4 page within its margins
const plots = new Map(); // by the box's id: what builds it, and whether it shows that
const ranked = [...report.groups.map(({ backbones }) => backbones), ...report.before.results.map(({ rows }) => rows)];
const names = [...new Set(ranked.flatMap((several) => several.map(({ name }) => name)))];
const idle = window.requestIdleCallback || ((work) => setTimeout(work, 50));
let colours = null;
let resting = false; // whether drawRest() is waiting

const seen = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      plots.get(target.id).near = isIntersecting;
      if (isIntersecting) draw(target.id);
    }
  },
  { rootMargin: "300px" },
);

/** What sets a backbone apart in every plot: colour, marker, dashes; the second six share hues with the first. */
function style(name) {
  const index = Math.max(0, names.indexOf(name)) % 12;
  const second = index > 5;
  return {
    colour: palette().series[index],
    symbol: SYMBOLS[index % 6] + (second ? "-open" : ""),
    dash: DASHES[(index + (second ? 3 : 0)) % 6],
    index,
    second,
    shape: SHAPES[SYMBOLS[index % 6]],
  };
}

function glyph(name) {
  const { index, second, shape } = style(name);
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawing.setAttribute("viewBox", "0 0 10 10");
  drawing.setAttribute("class", second ? "glyph open" : "glyph");
  drawing.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", shape);
  drawing.append(path);
  drawing.style.color = `var(--series-${index + 1})`;
  return drawing;
}

/** The page's colours as they are in the theme of now. */
function palette() {
  if (colours) return colours;
  const probe = document.body.appendChild(element("i", { hidden: true }));
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  colours = {
    ink: colour("ink"),
    muted: colour("muted"),
    rule: colour("rule"),
    paper: colour("paper"),
    accent: colour("accent"),
    heat: [1, 2, 3, 4, 5].map((step) => colour(`heat-${step}`)),
    series: Array.from({ length: 12 }, (_, index) => colour(`series-${index + 1}`)),
  };
  probe.remove();
  return colours;
}

function faint(colour, opacity) {
  return colour.replace(/^rgb\((.*)\)$/, `rgba($1, ${opacity})`);
}

/** Text of records in a plot, where Plotly would take tags and entities for markup. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** Let the box show what `build` gives: {data, layout}, or a sentence why there is nothing to draw; maybe later. */
function plot(id, build) {
  if (!plots.has(id)) {
    plots.set(id, { build, outdated: true, near: false, turn: 0 });
    seen.observe(byId(id));
    return;
  }
  Object.assign(plots.get(id), { build, outdated: true });
  if (plots.get(id).near) draw(id);
  else drawRest();
}

/** Draw what is out of sight whenever the browser has nothing else to do: it may be printed, or be in a picture. */
function drawRest() {
  if (resting) return;
  resting = true;
  idle(() => {
    resting = false;
    const next = [...plots].find(([id, { outdated }]) => outdated && !byId(id).closest("[hidden]"));
    if (!next) return;
    draw(next[0]);
    drawRest();
  });
}

/** Draw a plot: at once, so that it is on the paper that is being printed, unless what it shows is still unpacked. */
function draw(id) {
  const entry = plots.get(id);
  const box = byId(id);
  if (!entry.outdated || box.closest("[hidden]")) return;
  entry.outdated = false;
  entry.turn += 1;
  const { turn } = entry;
  const show = (made) => (turn === entry.turn ? fill(box, made) : null);
  const excuse = (problem) => show(`This plot can't be drawn here: ${problem.message}`);
  try {
    const made = entry.build(box);
    if (made instanceof Promise) made.then(show).catch(excuse);
    else show(made);
  } catch (problem) {
    excuse(problem);
  }
}

function fill(box, made) {
  if (typeof made === "string") {
    if (box.classList.contains("js-plotly-plot")) Plotly.purge(box);
    box.style.height = "";
    box.replaceChildren(element("p", { class: "note" }, made));
    return;
  }
  if (!box.classList.contains("js-plotly-plot")) box.replaceChildren();
  const width = widthOf(box);
  const height = made.layout.height || heightOf(made, width);
  box.style.height = `${height}px`;
  plotly().react(box, made.data, layout({ ...made.layout, height }, width), {
    displaylogo: false,
    displayModeBar: coarse() ? false : "hover",
    showSendToCloud: false,
    showEditInChartStudio: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  });
}

/** Plotly, which takes a second to start: its script lies in the page as text until the first plot is drawn. */
function plotly() {
  if (!window.Plotly) document.head.append(element("script", {}, byId("plotly").textContent));
  return window.Plotly;
}

/** How wide a plot is to be: as its box, or as the paper that it is printed on. */
function widthOf(box) {
  if (!onPaper()) return box.clientWidth || 600;
  return box.classList.contains("square") ? PAPER_PX.square : PAPER_PX.width;
}

/** How high a plot is to be, with the lines of its legend under it. */
function heightOf({ data, layout: { showlegend } }, width) {
  const own = onPaper() ? PAPER_PX.height : width < 500 ? 330 : 430;
  const named = showlegend === false ? [] : data.filter((trace) => trace.showlegend !== false);
  const longest = Math.max(50, ...named.map(({ name }) => textWidth(name || "")));
  return own + 20 * Math.ceil(named.length / Math.max(1, Math.floor(width / (longest + 70))));
}

function onPaper() {
  return document.documentElement.classList.contains("printing");
}

function coarse() {
  return matchMedia("(pointer: coarse)").matches;
}

function layout(own, width) {
  const { ink, muted, rule, paper } = palette();
  const axis = {
    gridcolor: rule,
    linecolor: muted,
    tickcolor: muted,
    zerolinecolor: rule,
    automargin: true,
    ticks: "outside",
    ticklen: 4,
    title: { font: { size: 13, color: ink }, standoff: 10 },
  };
  const joined = (name) => ({ ...axis, ...own[name], title: { ...axis.title, ...own[name]?.title } });
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 16, t: 12, b: 48 },
    hoverlabel: { bgcolor: paper, bordercolor: muted, font: { color: ink, size: 12 }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: ink },
    // a finger on a plot scrolls the page
    dragmode: coarse() ? false : "zoom",
    width,
    autosize: true,
    legend: { orientation: "h", x: 0, y: 0, yref: "container", yanchor: "bottom", font: { size: 12 }, itemwidth: 40 },
    ...own,
    xaxis: joined("xaxis"),
    yaxis: joined("yaxis"),
  };
}

function redraw(all = false) {
  colours = null;
  for (const [id, entry] of plots) {
    entry.outdated = true;
    if (all || entry.near) draw(id);
  }
  drawRest();
}

/** A window of another width: names and legends have other places. */
function follow() {
  let [wide, later] = [innerWidth, 0];
  addEventListener("resize", () => {
    if (innerWidth === wide || onPaper()) return;
    wide = innerWidth;
    clearTimeout(later);
    later = setTimeout(redraw, 150);
  });
}

/** Round numbers on a logarithmic axis from `low` to `high`, and how to write them. */
function logTicks(low, high) {
  const within = (steps) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      found.push(...steps.map((step) => step * 10 ** power).filter((value) => value >= low && value <= high));
    }
    return found;
  };
  const tickvals =
    [[1], [1, 3], [1, 2, 5], [1, 2, 3, 5, 7], [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9]]
      .map(within)
      .find((values) => values.length > 3) ||
    within([1, 1.2, 1.4, 1.6, 1.8, 2, 2.2, 2.4, 2.6, 2.8, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9]);
  return {
    tickvals,
    ticktext: tickvals.map((value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 20 })),
  };
}

// Draws the figures of a report from the JSON block of its page. Words and tables are there without it.
"use strict";

const report = JSON.parse(document.getElementById("smoothout-data").textContent);

// Okabe and Ito's palette, which colour-blind readers can tell apart; the second is its lighter twin for dark paper.
const COLOURS = {
  light: ["#000000", "#b87700", "#2f8fd0", "#007a5a", "#2a2ab8", "#c24e00", "#a8548a", "#6f6f00"],
  dark: ["#f0f0f0", "#e69f00", "#56b4e9", "#2fc79a", "#6aa9ff", "#ff8a4a", "#e39ac5", "#c9c94a"],
};
const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star"];
const SMOOTHING = 0.8;
const HEIGHT = 280;
const PRINTED = 680; // pixels of a printed page's width: A4 without its margins

const dark = () =>
  document.documentElement.dataset.theme === "dark" ||
  (document.documentElement.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
let printing = false;
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (index) => COLOURS[dark() && !printing ? "dark" : "light"][index % 8];
const dash = (index) => DASHES[index % 4];
const finite = (value) => value !== null && value !== undefined;
const short = (value) => (finite(value) ? Number(value.toPrecision(4)).toString() : "none");

// -- elements ----------------------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function save(name, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

// A cell that a spreadsheet would run as a formula is kept text.
function cell(value) {
  let text = finite(value) ? String(value) : "";
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
  return /[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

const csv = (rows) => rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";

// -- figures -----------------------------------------------------------------------------------------------

const figures = [];
const waiting = [];

// A figure is drawn again whenever something it depends on changes: build() gives data and layout for now.
function figure(parent, { title, note, name, describe, build, rows, shared, extra }) {
  const plot = make("div", { class: "plot", role: "img" });
  const caption = make("figcaption", { text: title });
  if (note) caption.append(make("span", { class: "small", text: " " + note }));
  const buttons = make("div", { class: "controls" });
  const element = make("figure", { "data-figure": name }, caption, ...(extra ? [extra] : []), plot, buttons);
  const own = { element, plot, build, shared, drawn: false };
  for (const format of ["png", "svg"]) {
    const save = () => Plotly.downloadImage(plot, { format, scale: format === "png" ? 2 : 1, filename: name, width: 800, height: 500 });
    buttons.append(make("button", { type: "button", text: format.toUpperCase(), "aria-label": `${title} as ${format.toUpperCase()}`, onclick: save }));
  }
  buttons.append(make("button", { type: "button", text: "CSV", "aria-label": `Numbers of ${title} as CSV`, onclick: () => save(name + ".csv", csv(rows())) }));
  plot.setAttribute("aria-label", describe());
  parent.append(element);
  figures.push(own);
  waiting.push(own);
  return own;
}

function layout(more) {
  const axis = { gridcolor: style("--line"), zerolinecolor: style("--line"), automargin: true, exponentformat: "power", title: { standoff: 8 } };
  const merge = (mine = {}) => ({ ...axis, ...mine, title: { ...axis.title, ...(mine.title || {}) } });
  return {
    height: HEIGHT, margin: { l: 50, r: 12, t: 8, b: 40 }, showlegend: false, hovermode: "closest",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: style("--ink"), family: "system-ui, sans-serif", size: 12 },
    hoverlabel: { bgcolor: style("--panel"), font: { color: style("--ink") } },
    ...more, xaxis: merge(more.xaxis), yaxis: merge(more.yaxis),
  };
}

function draw(own) {
  const { data, layout } = own.build();
  if (printing) layout.width = own.element.parentElement.matches(".figures") ? PRINTED / 2 - 24 : PRINTED - 16;
  const settings = { displayModeBar: false, responsive: true };
  const done = own.drawn ? Plotly.react(own.plot, data, layout, settings) : Plotly.newPlot(own.plot, data, layout, settings);
  if (!own.drawn && own.shared) share(own);
  own.drawn = true;
  return done;
}

const redraw = () => figures.filter((own) => own.drawn).forEach(draw);

// Hovering over one curve shows the same epoch in all others.
let pointing = false;
function share(own) {
  const others = () => figures.filter((each) => each !== own && each.drawn && each.shared === own.shared);
  own.plot.on("plotly_hover", (event) => {
    if (pointing) return;
    pointing = true;
    for (const each of others()) Plotly.Fx.hover(each.plot, { xval: event.points[0].x }, "xy");
    pointing = false;
  });
  own.plot.on("plotly_unhover", () => {
    if (pointing) return;
    pointing = true;
    others().forEach((each) => Plotly.Fx.unhover(each.plot));
    pointing = false;
  });
}

// One figure after another, so that the page can be read and scrolled meanwhile.
function drawWaiting() {
  const own = waiting.shift();
  if (!own) {
    document.documentElement.dataset.drawn = "all";
    return;
  }
  if (!own.drawn) draw(own);
  setTimeout(drawWaiting, 0);
}

// -- curves ------------------------------------------------------------------------------------------------

const CURVES = [
  ["train_loss", "training loss (nats)", (row) => row, true],
  ["test_loss", "test loss (nats)", (row) => row, true],
  ["holdout_error1", "hold-out accuracy (%)", (row) => 100 - row, false],
  ["test_error1", "test accuracy (%)", (row) => 100 - row, false],
];
const OVER_TIME = [
  ["lr", "learning rate", (row) => row, true],
  ["strength", "strength a, times its schedule", (row) => row, true],
  ["r", "relative noise r = |noise| / |weights|", (row) => row, true],
  ["distance", "distance of the weights from their start (L2)", (row) => row, true],
];

// Runs that a curve is the mean of: the finished ones, or all that have begun where none is.
function averaged(arm) {
  const finished = arm.runs.filter((run) => run.state === "finished" && run.epochs);
  return finished.length ? finished : arm.runs.filter((run) => run.epochs);
}

// Mean, lowest and highest over runs, at the epochs that all of them evaluated.
function band(arm, column, convert) {
  const runs = averaged(arm).map((run) => run.columns[column]);
  const count = runs.length ? Math.min(...runs.map((values) => values.length)) : 0;
  const found = { epochs: [], mean: [], low: [], high: [], seeds: runs.length };
  for (let epoch = 0; epoch < count; epoch++) {
    const values = runs.map((run) => run[epoch]);
    if (!values.every(finite)) continue;
    const shown = values.map(convert);
    found.epochs.push(epoch + 1);
    found.mean.push(shown.reduce((a, b) => a + b, 0) / shown.length);
    found.low.push(Math.min(...shown));
    found.high.push(Math.max(...shown));
  }
  return found;
}

// Exponential mean, without the pull towards its start.
function smooth(values) {
  let sum = 0, weight = 0;
  return values.map((value) => {
    sum = SMOOTHING * sum + (1 - SMOOTHING) * value;
    weight = SMOOTHING * weight + (1 - SMOOTHING);
    return sum / weight;
  });
}

function faint(hex) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},0.16)`;
}

function curveFigure(parent, group, state, index, [column, title, convert, loggable]) {
  const name = `${column}-${index}`;
  const bands = group.arms.map((arm) => band(arm, column, convert));
  if (!bands.some((each) => each.epochs.length)) return;
  const build = () => {
    const data = [];
    bands.forEach((found, at) => {
      if (state.hidden.has(at) || !found.epochs.length) return;
      const [mean, low, high] = [found.mean, found.low, found.high].map((each) => (state.smooth ? smooth(each) : each));
      const marks = found.epochs.length < 3 ? "lines+markers" : "lines";
      if (found.seeds > 1) {
        data.push({ x: found.epochs, y: low, mode: "lines", line: { width: 0 }, hoverinfo: "skip" });
        data.push({ x: found.epochs, y: high, mode: "lines", line: { width: 0 }, fill: "tonexty", fillcolor: faint(colour(at)), hoverinfo: "skip" });
      }
      data.push({ x: found.epochs, y: mean, mode: marks, name: group.arms[at].name, line: { color: colour(at), dash: dash(at), width: 2 }, hovertemplate: "%{y:.4g}" });
    });
    return { data, layout: layout({ hovermode: "x unified", xaxis: { title: { text: "epoch" } }, yaxis: { type: state.log && loggable ? "log" : "linear" } }) };
  };
  const rows = () => {
    const found = [["arm", "epoch", "mean", "lowest", "highest", "seeds"]];
    bands.forEach((each, at) => each.epochs.forEach((epoch, i) => found.push([group.arms[at].name, epoch, each.mean[i], each.low[i], each.high[i], each.seeds])));
    return found;
  };
  const describe = () => `${title} by epoch. At the end: ` + bands.map((each, at) => `${group.arms[at].name} ${short(each.mean.at(-1))}`).join(", ") + ".";
  figure(parent, { title, name, describe, build, rows, shared: `epochs-${index}` });
}

// -- sharpness ---------------------------------------------------------------------------------------------

const reach = (value) => (finite(value.low) && finite(value.value) ? value.value - value.low : null);

function noiseFigure(parent, group, state, index, curve) {
  const points = group.measures.filter((measure) => measure.curve === curve);
  const strengths = points.map((measure) => measure.strength);
  const positive = points.every((measure) => measure.values.every((value) => !finite(value.value) || value.value > 0));
  const of = (arm) => points.map((measure) => [measure.strength, measure.values.find((value) => value.arm === arm)]).filter(([, value]) => value && finite(value.value));
  const build = () => {
    const data = group.arms.flatMap((arm, at) => {
      const found = of(arm.name);
      if (state.hidden.has(at) || !found.length) return [];
      return [{
        x: found.map(([strength]) => strength), y: found.map(([, value]) => value.value), name: arm.name, mode: "lines+markers",
        marker: { symbol: SYMBOLS[at % 8], size: 7, color: colour(at) }, line: { color: colour(at), dash: dash(at) },
        error_y: { type: "data", array: found.map(([, value]) => reach(value) ?? 0), color: colour(at) }, hovertemplate: "%{y:.4g}",
      }];
    });
    return { data, layout: layout({ hovermode: "x unified", xaxis: { type: "log", title: { text: "strength a" }, tickvals: strengths, ticktext: strengths.map(short) }, yaxis: { title: { text: "rise of the loss (nats)" }, type: positive ? "log" : "linear" } }) };
  };
  const rows = () => [["arm", "strength", "rise (nats)", "low", "high", "seeds"], ...group.arms.flatMap((arm) => of(arm.name).map(([a, v]) => [arm.name, a, v.value, v.low, v.high, v.seeds.join(" ")]))];
  const last = points.at(-1);
  const describe = () => `Rise of the loss against strength, ${curve}. At ${last.strength}: ` + last.values.map((value) => `${value.arm} ${short(value.value)}`).join(", ") + ".";
  figure(parent, { title: curve, note: points[0].split, name: `${curve}-${index}`.replaceAll(/[^a-z0-9]+/gi, "-"), describe, build, rows });
}

function measureFigure(parent, group, state, index, measure) {
  const build = () => {
    const shown = measure.values.map((value) => [value, group.arms.findIndex((arm) => arm.name === value.arm)]).filter(([value, at]) => finite(value.value) && !state.hidden.has(at)).reverse();
    const data = shown.map(([value, at]) => ({
      x: [value.value], y: [value.arm + (value.doubts.length ? " (!)" : "")], name: value.arm, mode: "markers",
      cliponaxis: false, marker: { symbol: SYMBOLS[at % 8], size: 10, color: colour(at) },
      error_x: { type: "data", array: [reach(value) ?? 0], color: colour(at) }, hovertemplate: "%{x:.4g}<extra></extra>",
    }));
    return { data, layout: layout({ height: 90 + 28 * shown.length, xaxis: { type: state.log ? "log" : "linear", rangemode: "tozero" }, yaxis: { type: "category" } }) };
  };
  const rows = () => [["arm", "value", "low", "high", "seeds", "doubts"], ...measure.values.map((v) => [v.arm, v.value, v.low, v.high, v.seeds.join(" "), v.doubts.join("; ")])];
  const describe = () => `${measure.name}: ` + measure.values.map((value) => `${value.arm} ${short(value.value)}`).join(", ") + ".";
  figure(parent, { title: measure.name, note: measure.split, name: `${measure.name}-${index}`.replaceAll(/[^a-z0-9]+/gi, "-"), describe, build, rows });
}

// -- landscapes --------------------------------------------------------------------------------------------

// One colour scale for all planes of a split: by the logarithm where every loss is above 0.
function scaleOf(planes) {
  const losses = planes.flatMap((plane) => plane.losses.flat()).filter(finite);
  const log = losses.every((loss) => loss > 0);
  const height = (loss) => (finite(loss) ? (log ? Math.log10(loss) : loss) : null);
  let low = Infinity, high = -Infinity;
  for (const loss of losses) { low = Math.min(low, height(loss)); high = Math.max(high, height(loss)); }
  if (!(high - low > 1e-9)) { low -= 0.5; high += 0.5; }
  const ticks = ticksOf(low, high, log);
  const text = ticks.map((tick) => short(log ? 10 ** tick : tick));
  const bar = { tickvals: ticks, ticktext: text, title: { text: log ? "loss (log)" : "loss" }, thickness: 12, outlinewidth: 0 };
  const reach = (axis) => [Math.min(...planes.flatMap(axis)), Math.max(...planes.flatMap(axis))];
  return { height, low, high, bar, across: reach((plane) => plane.xs), up: reach((plane) => plane.ys) };
}

// Of a logarithmic scale whole decades, or 1, 2 and 5 of each where those are few.
function ticksOf(low, high, log) {
  if (!log) return Array.from({ length: 6 }, (_, i) => low + ((high - low) * i) / 5);
  const decades = Array.from({ length: Math.floor(high) - Math.floor(low) + 2 }, (_, i) => Math.floor(low) + i);
  const within = (steps) => decades.flatMap((decade) => steps.map((step) => decade + Math.log10(step))).filter((tick) => tick >= low - 1e-9 && tick <= high + 1e-9);
  return within([1]).length >= 3 ? within([1]) : within([1, 2, 5]).length >= 2 ? within([1, 2, 5]) : [low, high];
}

const planeRows = (plane) => [["x", "y", "loss"], ...plane.losses.flatMap((row, iy) => row.map((loss, ix) => [plane.xs[ix], plane.ys[iy], loss]))];

function lowest(plane) {
  const losses = plane.losses.flat().filter(finite);
  return losses.length ? `Loss from ${short(Math.min(...losses))} to ${short(Math.max(...losses))}` : "No finite loss";
}

function planeFigure(parent, plane, scale, name) {
  const build = () => ({
    data: [
      {
        type: "contour", x: plane.xs, y: plane.ys, z: plane.losses.map((row) => row.map(scale.height)), customdata: plane.losses,
        zmin: scale.low, zmax: scale.high, autocontour: false, contours: { start: scale.low, end: scale.high, size: (scale.high - scale.low) / 20 },
        colorscale: "Viridis", colorbar: scale.bar, line: { width: 0.5 }, hovertemplate: "(%{x:.3g}, %{y:.3g}): %{customdata:.4g}<extra></extra>",
      },
      {
        x: plane.marks.map((mark) => mark.coordinates[0]), y: plane.marks.map((mark) => mark.coordinates[1]), text: plane.marks.map((mark) => mark.name),
        mode: "markers+text", textposition: "top center", textfont: { color: "#ffffff" }, marker: { color: "#ffffff", size: 8, line: { color: "#000000", width: 1 } },
        hovertemplate: "%{text}<extra></extra>",
      },
    ],
    layout: layout({ height: 340, xaxis: { title: { text: "distance along axis 1" }, range: scale.across, constrain: "domain" }, yaxis: { title: { text: "distance along axis 2" }, range: scale.up, scaleanchor: "x", constrain: "domain" } }),
  });
  figure(parent, { title: plane.title, note: plane.split, name, describe: () => `Contours of the loss over a plane, ${plane.title}, ${plane.split}. ${lowest(plane)}.`, build, rows: () => planeRows(plane) });
}

function webgl() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
}

function turned(eye, around, up, nearer) {
  const radius = Math.hypot(eye.x, eye.y, eye.z) * nearer;
  const azimuth = Math.atan2(eye.y, eye.x) + around;
  const height = Math.max(-1.5, Math.min(1.5, Math.asin(eye.z / Math.hypot(eye.x, eye.y, eye.z)) + up));
  return { x: radius * Math.cos(height) * Math.cos(azimuth), y: radius * Math.cos(height) * Math.sin(azimuth), z: radius * Math.sin(height) };
}

function surfaceFigure(parent, planes, scale, index) {
  if (!webgl()) {
    parent.append(make("p", { class: "note", text: "The surface needs WebGL, which this browser does not offer here; the contours above show the same numbers." }));
    return;
  }
  let chosen = 0;
  let eye = innerWidth < 600 ? { x: 1.8, y: -1.8, z: 1.2 } : { x: 1.3, y: -1.3, z: 0.9 };
  let own;
  const build = () => {
    const plane = planes[chosen];
    const axis = (text) => ({ title: { text }, color: style("--ink"), gridcolor: style("--line") });
    return {
      data: [{
        type: "surface", x: plane.xs, y: plane.ys, z: plane.losses.map((row) => row.map(scale.height)), customdata: plane.losses, cmin: scale.low, cmax: scale.high,
        colorscale: "Viridis", colorbar: scale.bar, hovertemplate: "(%{x:.3g}, %{y:.3g}): %{customdata:.4g}<extra></extra>",
      }],
      layout: layout({ height: 460, margin: { l: 0, r: 0, t: 0, b: 0 }, scene: {
        camera: { eye }, xaxis: { ...axis("axis 1"), range: scale.across }, yaxis: { ...axis("axis 2"), range: scale.up },
        zaxis: { ...axis("loss"), range: [scale.low, scale.high], tickvals: scale.bar.tickvals, ticktext: scale.bar.ticktext },
      } }),
    };
  };
  const controls = make("div", { class: "controls", role: "group", "aria-label": "Which surface, and from where" });
  const choice = make("select", { "aria-label": "Plane that the surface shows", "data-surface": "choice" }, ...planes.map((plane, i) => make("option", { value: i, text: `${plane.title}, ${plane.split}` })));
  controls.append(choice);
  const turn = (...how) => {
    const camera = own.plot._fullLayout?.scene?._scene?.getCamera?.();
    eye = turned(camera ? camera.eye : eye, ...how);
    draw(own);
  };
  for (const [text, label, ...how] of [["\u2190", "left", 0.3, 0, 1], ["\u2192", "right", -0.3, 0, 1], ["\u2191", "up", 0, 0.2, 1], ["\u2193", "down", 0, -0.2, 1], ["+", "nearer", 0, 0, 0.85], ["\u2212", "farther", 0, 0, 1.18]]) {
    controls.append(make("button", { type: "button", text, "aria-label": `Turn the surface: ${label}`, "data-turn": label, onclick: () => turn(...how) }));
  }
  const describe = () => `Surface of the loss, ${planes[chosen].title}, ${planes[chosen].split}. ${lowest(planes[chosen])}.`;
  own = figure(parent, { title: "The same as a surface to turn; all planes on one colour scale", name: `surface-${index}`, describe, build, rows: () => planeRows(planes[chosen]), extra: controls });
  choice.addEventListener("change", () => {
    chosen = Number(choice.value);
    own.plot.setAttribute("aria-label", describe());
    draw(own);
  });
}

function lineFigure(parent, lines, name) {
  const first = lines[0];
  const build = () => {
    const accuracy = lines.some((line) => line.accuracies.some(finite));
    const data = lines.flatMap((line, at) => [
      { x: line.positions, y: line.losses, name: `${line.split} loss`, mode: "lines", line: { color: colour([4, 5, 3][at % 3]) }, hovertemplate: "%{y:.4g}" },
      { x: line.marks.map((mark) => mark.coordinates[0]), y: line.marks.map((mark) => mark.loss), text: line.marks.map((mark) => mark.name), name: `${line.split}, known points`, mode: "markers", marker: { color: colour([4, 5, 3][at % 3]), size: 8 }, hovertemplate: "%{text}: %{y:.4g}" },
      { x: line.positions, y: line.accuracies, name: `${line.split} accuracy`, mode: "lines", yaxis: "y2", line: { color: colour([4, 5, 3][at % 3]), dash: "dash", width: 1.2 }, hovertemplate: "%{y:.2f} %" },
    ]);
    const positive = lines.every((line) => line.losses.every((loss) => !finite(loss) || loss > 0));
    const more = accuracy ? { yaxis2: { overlaying: "y", side: "right", range: [0, 100], title: { text: "accuracy (%), dashed" }, showgrid: false } } : {};
    return { data, layout: layout({ height: 320, margin: { l: 50, r: 50, t: 8, b: 40 }, hovermode: "x unified", xaxis: { title: { text: "position" } }, yaxis: { title: { text: "loss" }, type: positive ? "log" : "linear" }, ...more }) };
  };
  const rows = () => [["split", "position", "loss", "accuracy"], ...lines.flatMap((line) => line.positions.map((at, i) => [line.split, at, line.losses[i], line.accuracies[i]]))];
  const ends = lines.map((line) => `${line.split} loss at the known points: ${line.marks.map((mark) => `${mark.name} ${short(mark.loss)}`).join(", ")}`);
  figure(parent, { title: first.title, note: [first.axis, ...first.notes].join("; "), name, describe: () => `Loss along a line, ${first.title}. ${ends.join(". ")}.`, build, rows });
}

// -- the page ----------------------------------------------------------------------------------------------

const distinct = (values) => [...new Set(values)];

function landscapes(article, group, index) {
  const planes = article.querySelector('[data-figures="planes"]');
  if (!planes) return;
  for (const split of distinct(group.planes.map((plane) => plane.split))) {
    const some = group.planes.filter((plane) => plane.split === split);
    const scale = scaleOf(some);
    some.forEach((plane, at) => planeFigure(planes, plane, scale, `plane-${index}-${split}-${at}`));
    surfaceFigure(article.querySelector('[data-figures="surface"]'), some, scale, `${index}-${split}`);
  }
  const lines = article.querySelector('[data-figures="lines"]');
  distinct(group.lines.map((line) => line.title)).forEach((title, at) => lineFigure(lines, group.lines.filter((line) => line.title === title), `line-${index}-${at}`));
}

function legend(article, group, state) {
  const swatches = [];
  group.arms.forEach((arm, at) => {
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatches.push(swatch);
    const button = make("button", { type: "button", "aria-pressed": "true", "data-arm": at }, swatch, arm.name);
    button.addEventListener("click", () => {
      if (!state.hidden.delete(at)) state.hidden.add(at);
      button.setAttribute("aria-pressed", String(!state.hidden.has(at)));
      redraw();
    });
    article.querySelector("[data-legend]").append(button);
  });
  return () => swatches.forEach((swatch, at) => {
    swatch.style.borderTop = `4px ${dash(at) === "solid" ? "solid" : "dashed"} ${colour(at)}`;
  });
}

const paints = [];

function start(article) {
  const index = Number(article.dataset.group);
  const group = report.groups[index];
  const state = { hidden: new Set(), log: false, smooth: false };
  paints.push(legend(article, group, state));
  for (const box of article.querySelectorAll("[data-switch]")) {
    box.checked = false;
    box.addEventListener("change", () => { state[box.dataset.switch] = box.checked; redraw(); });
  }
  const at = (name) => article.querySelector(`[data-figures="${name}"]`);
  for (const each of CURVES) curveFigure(at("curves"), group, state, index, each);
  for (const each of OVER_TIME) curveFigure(at("over-time"), group, state, index, each);
  for (const curve of distinct(group.measures.map((measure) => measure.curve)).filter(Boolean)) noiseFigure(at("noise"), group, state, index, curve);
  for (const measure of group.measures.filter((each) => !each.curve)) measureFigure(at("measures"), group, state, index, measure);
  landscapes(article, group, index);
  article.querySelector('[data-csv="arms"]').addEventListener("click", () => save("arms.csv", csv(armRows(group))));
  article.querySelector('[data-csv="sharpness"]')?.addEventListener("click", () => save("sharpness.csv", csv(measureRows(group))));
}

function armRows(group) {
  const names = Object.keys(group.arms[0].settings);
  const parts = (value) => (value ? [value.mean, value.low, value.high] : ["", "", ""]);
  const columns = ["test", "test_best", "holdout", "train", "difference", "difference_best", "seconds", "times"];
  const head = ["arm", "against", "seeds", ...columns.flatMap((name) => [name, `${name} low`, `${name} high`]), "updates", "passes", ...names];
  return [head, ...group.arms.map((arm) => [arm.name, arm.against, arm.test.count, ...columns.flatMap((name) => parts(arm[name])), arm.updates, arm.passes, ...names.map((name) => arm.settings[name])])];
}

const measureRows = (group) => [
  ["measure", "samples", "arm", "value", "low", "high", "standard error", "seeds", "doubts"],
  ...group.measures.flatMap((measure) => measure.values.map((v) => [measure.name, measure.split, v.arm, v.value, v.low, v.high, v.error, v.seeds.join(" "), v.doubts.join("; ")])),
];

function repaint() {
  paints.forEach((paint) => paint());
  redraw();
}

function tellAge() {
  const seconds = Math.max(0, (Date.now() - Date.parse(report.made)) / 1000);
  const [length, unit] = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]].find(([each]) => seconds >= each) || [1, "second"];
  const count = Math.floor(seconds / length);
  document.getElementById("age").textContent = `, ${count} ${unit}${count === 1 ? "" : "s"} ago,`;
}

const THEMES = { system: "as the system", light: "light", dark: "dark" };
const theme = document.getElementById("theme");
theme.addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme || "system") + 1) % 3];
  document.documentElement.dataset.theme = next;
  theme.textContent = `Colours: ${THEMES[next]}`;
  repaint();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
addEventListener("beforeprint", () => {
  printing = true;
  while (waiting.length) draw(waiting.shift());
  repaint();
});
addEventListener("afterprint", () => { printing = false; repaint(); });

function begin() {
  document.body.append(make("script", { text: document.getElementById("plotly").textContent }));
  document.querySelectorAll("[data-group]").forEach(start);
  repaint();
  drawWaiting();
}

tellAge();
setInterval(tellAge, 10000);
// Plotly is as long as a book and takes a second to read: words and tables are painted before.
requestAnimationFrame(() => setTimeout(begin, 0));

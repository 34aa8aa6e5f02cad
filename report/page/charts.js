// Precision-recall curves, the histogram of timing errors, the confusion table: plain SVG and HTML.

const PLOT = { width: 200, height: 150, left: 26, right: 6, top: 6, bottom: 22 };
const plotX = (share) => PLOT.left + share * (PLOT.width - PLOT.left - PLOT.right);
const plotY = (share) => PLOT.height - PLOT.bottom - share * (PLOT.height - PLOT.top - PLOT.bottom);

/** Points (recall, precision, bin) from the surest threshold down, without repetitions. */
function curvePoints(curve) {
  const points = [];
  for (let bin = TOP_BIN; bin >= 0; bin--) {
    if (!curve.kept[bin] || (bin < TOP_BIN && curve.kept[bin] === curve.kept[bin + 1])) continue;
    points.push([curve.events ? curve.hits[bin] / curve.events : 0, curve.hits[bin] / curve.kept[bin], bin]);
  }
  return points;
}

const path = (points) =>
  points.map(([x, y], index) => `${index ? "L" : "M"}${plotX(x).toFixed(1)} ${plotY(y).toFixed(1)}`).join("");

function drawCurves(current) {
  const plots = CLASSES.map((label, c) => {
    const curve = DATA.runs[current].curves[c];
    const { best, events } = curve;
    const [precision, recall] = [curve.hits[best] / Math.max(curve.kept[best], 1), curve.hits[best] / Math.max(events, 1)];
    const f1 = 2 * curve.hits[best] / Math.max(curve.kept[best] + events, 1);
    const others = DATA.runs.filter((_, index) => index !== current)
      .map((run) => svg("path", { class: "other-line", d: path(curvePoints(run.curves[c])) }));
    const points = curvePoints(curve);
    const hits = points.map(([x, y, bin]) => svg("circle", { class: "touch", cx: plotX(x), cy: plotY(y), r: 4 },
      svg("title", {}, `threshold ${thresholdOf(bin).toFixed(2)}: precision ${percent(y)}, recall ${percent(x)}`)));
    const isRare = events < DATA.rare_events;
    const told = events ? `${isRare ? "few events, threshold of all classes: F1" : "best F1"} ${percent(f1)}: precision ${percent(precision)}, recall ${percent(recall)} ` +
      `from ${thresholdOf(best).toFixed(2)} on` : "no events";
    const plot = svg("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, role: "img", "aria-label": `${label}: ${told}` },
      axes(), others, svg("path", { class: "line", d: path(points), style: { stroke: classColour(c) } }),
      events && curve.hits[best] ? svg("circle", { class: "best", cx: plotX(recall), cy: plotY(precision), r: 3.5,
        style: { fill: classColour(c) } }) : null, hits);
    const score = DATA.runs[current].report.classes[c].score;
    return el("figure", { class: "plot" },
      el("figcaption", {}, el("span", {}, label), el("span", { class: "quiet" }, `AP ${percent(score.value)}`)), plot,
      el("p", { class: "plot-note" }, told));
  });
  show("curves-body",
    el("p", { class: "hint" }, "Precision (up) against recall (right) at the metric's 200 thresholds; the dot is where F1 is best; of a class with few events, " +
      "where that of all classes is.",
      DATA.runs.length > 1 ? " Thin lines: the other runs." : ""),
    el("div", { class: "plots" }, plots));
}

function axes() {
  const marks = [0, 0.5, 1];
  return [
    ...marks.map((share) => svg("line", { class: "grid", x1: plotX(share), x2: plotX(share), y1: plotY(0), y2: plotY(1) })),
    ...marks.map((share) => svg("line", { class: "grid", x1: plotX(0), x2: plotX(1), y1: plotY(share), y2: plotY(share) })),
    ...marks.map((share) => svg("text", { x: plotX(share), y: PLOT.height - 8,
      "text-anchor": share === 1 ? "end" : share ? "middle" : "start" }, String(100 * share))),
    ...marks.map((share) => svg("text", { x: PLOT.left - 4, y: plotY(share) + 3, "text-anchor": "end" }, String(100 * share))),
  ];
}

const HISTOGRAM = { width: 720, height: 210, left: 40, right: 10, top: 12, bottom: 34 };
let timedClass = -1;

function drawTiming(current) {
  const { late, report } = DATA.runs[current];
  const add = (rows) => rows[0].map((_, index) => rows.reduce((sum, row) => sum + row[index], 0));
  const of = (rows) => (timedClass < 0 ? add(rows) : rows[timedClass]);
  const [sure, other] = [of(late.sure), of(late.other)];
  const timing = timedClass < 0 ? report.timing : report.classes[timedClass].timing;
  const choice = el("select", { on: { change: (event) => { timedClass = Number(event.target.value); drawTiming(current); } } },
    el("option", { value: -1 }, "All classes"),
    CLASSES.map((label, c) => el("option", { value: c }, label)));
  choice.value = String(timedClass);
  const numSure = sure.reduce((sum, each) => sum + each, 0);
  const told = numSure ? spreadOf(sure) : "no hits";
  show("timing-body",
    el("div", { class: "row" }, el("label", {}, "Class ", choice), el("span", {}, told)),
    histogram(sure, other, told),
    el("p", { class: "hint" }, "Prediction minus event in ms, one bar per frame. Dark: hits from the best-F1 threshold on. ",
      "Light: pairs below it. ",
      timing.num_matched ? `All ${count(timing.num_matched)} pairs: mean ${signed(timing.mean_ms)}, deviation ` +
        `${timing.std_ms.toFixed(0)}, median distance ${timing.median_abs_ms.toFixed(0)} ms.` : ""));
}

/** Mean, deviation and median distance of a histogram over frames. */
function spreadOf(counts) {
  const half = (counts.length - 1) / 2;
  const number = counts.reduce((sum, each) => sum + each, 0);
  const mean = counts.reduce((sum, each, index) => sum + each * (index - half), 0) / number;
  const variance = counts.reduce((sum, each, index) => sum + each * (index - half - mean) ** 2, 0) / number;
  return `${plural(number, "hit")}: ${signed(mean * FRAME_MS)} ms on average, deviation ${(Math.sqrt(variance) * FRAME_MS).toFixed(0)} ms`;
}

function histogram(sure, other, told) {
  const { height, left, right, top, bottom } = HISTOGRAM;
  const width = Math.min(HISTOGRAM.width, Math.max(300, byId("timing-body").clientWidth)); // text keeps its size
  const half = (sure.length - 1) / 2;
  const most = Math.max(1, ...sure.map((each, index) => each + other[index]));
  const step = (width - left - right) / sure.length;
  const y = (value) => height - bottom - (value / most) * (height - top - bottom);
  const bars = sure.map((each, index) => {
    const ms = Math.round((index - half) * FRAME_MS);
    const x = left + index * step + 1;
    const bar = (name, from, to) => svg("rect", { class: name, x, width: Math.max(step - 2, 1), y: y(to), height: y(from) - y(to) });
    return svg("g", {}, svg("title", {}, `${signed(ms)} ms: ${count(each)} hits, ${count(other[index])} other pairs`),
      bar("sure", 0, each), bar("unsure", each, each + other[index]));
  });
  const labelled = [-1, -0.5, 0, 0.5, 1].map((share) => Math.round(share * half));
  const marks = labelled.map((frames) => {
    const x = left + (frames + half + 0.5) * step;
    return svg("text", { x, y: height - bottom + 14, "text-anchor": "middle" }, signed(frames * FRAME_MS));
  });
  return el("div", { class: "chart", style: { "max-width": `${width}px` } }, svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": told },
    svg("line", { class: "grid", x1: left, x2: width - right, y1: y(most), y2: y(most) }),
    svg("line", { class: "axis", x1: left, x2: width - right, y1: y(0), y2: y(0) }),
    svg("text", { x: left - 6, y: y(most) + 4, "text-anchor": "end" }, count(most)),
    svg("text", { x: left - 6, y: y(0) + 4, "text-anchor": "end" }, "0"),
    svg("text", { x: left, y: height - 4 }, "← early"),
    svg("text", { x: width - right, y: height - 4, "text-anchor": "end" }, "late, ms →"), bars, marks));
}

function drawConfusion(current) {
  const cells = DATA.runs[current].confusion;
  const last = CLASSES.length;
  const head = [...CLASSES, "nothing"].map((label, c) =>
    el("th", { scope: "col", class: c === last ? "edge" : null }, el("span", { class: "tilt" }, label)));
  const rows = [...CLASSES, "no event"].map((label, r) => {
    const total = cells[r].reduce((sum, each) => sum + each, 0);
    const body = cells[r].map((number, c) => {
      if (r === last && c === last) return el("td", { class: "edge" });
      const share = total ? number / total : 0;
      const kind = r === c ? "right" : "wrong";
      const title = `${label} → ${c === last ? "nothing" : CLASSES[c]}: ${count(number)} of ${count(total)} (${percent(share)} %)`;
      return el("td", { class: `${number ? kind : "none"}${c === last ? " edge" : ""}`, title,
        style: number ? { "--share": `${Math.round(100 * Math.sqrt(share))}%` } : {} }, number ? count(number) : "·");
    });
    return el("tr", { class: r === last ? "edge" : null }, el("th", { scope: "row" }, label),
      el("td", { class: "num total" }, count(total)), body);
  });
  show("confusion-body",
    el("p", { class: "hint" }, "Rows: what happened. Columns: what was predicted within ",
      `${(halfWidthMs() / 1000).toFixed(2)} s, from each class's best-F1 threshold on. Shade: share of the row. `,
      "A prediction too late or too early counts under “no event”, and its event under “nothing”."),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Confusion" },
      el("table", { class: "confusion" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "True class"), el("th", { scope: "col", class: "num" }, "All"), head)),
        el("tbody", {}, rows))));
}

// Headline, table of runs, the ablation's table, average precision by class, notes.

const classColour = (c) => `var(--class-${c % 12})`;
const headlineOf = (run) => Object.entries(run.report.means)[0];
const bestRun = () =>
  DATA.runs.reduce((best, run, index) =>
    (headlineOf(run)[1].value > headlineOf(DATA.runs[best])[1].value ? index : best), 0);

function drawHeader(current) {
  const run = DATA.runs[current];
  const rows = run.report.classes;
  const events = rows.reduce((sum, row) => sum + row.num_events, 0);
  const found = rows.reduce((sum, row) => sum + row.num_predictions, 0);
  const facts = [
    plural(DATA.matches.length, "match", "matches"), plural(events, "event"), plural(CLASSES.length, "class", "classes"),
    DATA.runs.length > 1 ? plural(DATA.runs.length, "run") : plural(found, "prediction"),
  ];
  const tiles = Object.entries(run.report.means).map(([name, score], index) =>
    tile(name, percent(score.value), interval(score), `chance ${percent(score.chance)}`, index === 0));
  const late = run.report.timing;
  if (late.num_matched) {
    tiles.push(tile("Timing", `${late.median_abs_ms.toFixed(0)} ms`, "median distance",
      `${signed(late.mean_ms)} ms on average`));
  }
  show("top",
    el("p", { class: "eyebrow" }, "Ball action spotting report"),
    el("h1", {}, DATA.title),
    !IS_LABELLED ? el("p", { class: "facts" }, `${facts.join(" · ")} · no labels, so nothing is judged`)
      : el("p", { class: "facts" }, facts.join(" · "), ` · hits within ${DATA.half_width_frames} frames (${(halfWidthMs() / 1000).toFixed(2)} s) either way`),
    DATA.runs.length > 1 ? el("p", { class: "facts" }, "Shown: ", el("strong", {}, run.name),
      IS_LABELLED && current === bestRun() ? ", the best of these runs" : "") : null,
    el("div", { class: "tiles" }, IS_LABELLED ? tiles : []),
  );
}

const halfWidthMs = () => DATA.half_width_frames * FRAME_MS;

function tile(name, value, first, second, isMain = false) {
  return el("div", { class: isMain ? "tile main" : "tile" },
    el("div", { class: "tile-name" }, name), el("div", { class: "tile-value" }, value),
    el("div", { class: "tile-note" }, first), el("div", { class: "tile-note" }, second));
}

function drawWarnings(run) {
  const warnings = run.report.warnings;
  const list = el("ul", {}, warnings.map((text) => el("li", {}, text)));
  const title = `${plural(warnings.length, "warning")} about what is judged`;
  show("warnings", warnings.length
    ? el("details", { class: "warning", open: warnings.length <= 4 }, el("summary", {}, title), list) : null);
}

function drawResults(current, choose) {
  const means = Object.keys(DATA.runs[0].report.means);
  const columns = [["Run", false], ...means.flatMap((name) => [[name, true], ["95 % interval", true]]), [`${means[0]} by chance`, true],
    ["Predictions", true], ["Late, ms", true], ["Spread, ms", true]];
  const rows = DATA.runs.map((run, index) => {
    const scores = means.map((name) => run.report.means[name]);
    const { timing, classes } = run.report;
    const name = DATA.runs.length > 1
      ? el("button", { type: "button", class: "link", "aria-pressed": String(index === current),
        on: { click: () => choose(index) } }, run.name)
      : run.name;
    return {
      class: index === current && DATA.runs.length > 1 ? "current" : null,
      cells: [name, ...scores.flatMap((score) => [el("strong", {}, percent(score.value, 2)), interval(score)]),
        percent(scores[0].chance, 2), count(classes.reduce((sum, row) => sum + row.num_predictions, 0)),
        timing.num_matched ? signed(timing.mean_ms) : "–", timing.num_matched ? timing.std_ms.toFixed(0) : "–"],
    };
  });
  const about = Object.entries(DATA.runs[current].about);
  show("results-body",
    DATA.ablation ? ablationTable(choose, current) : "",
    table(columns, rows, { "aria-label": "Runs" }),
    about.length ? el("dl", { class: "about" }, about.map(([name, text]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, text)))) : "",
    el("p", { class: "hint" }, resamplingNote()),
  );
}

function resamplingNote() {
  const { resampling, num_chance_draws: draws, fps } = DATA.runs[0].report.settings;
  return `AP in %. Interval: ${Math.round(100 * resampling.level)} % of ${resampling.num_resamples} resamples of games and of ` +
    `${resampling.block_seconds} s blocks within each. Chance: random scores at random instants, one a second and class, ` +
    `mean of ${draws} draws. Late, spread: mean and deviation of prediction minus event, over all pairs. ` +
    `SoccerNet's metric at 1 s, ${fps} frames a second.`;
}

/** The recipes of an ablation, ours beside published. */
function ablationTable(choose, current) {
  const { rows, chance } = DATA.ablation;
  const means = Object.keys(chance ?? {}).length ? Object.keys(chance) : Object.keys(DATA.runs[0].report.means);
  const published = { "mAP-10": "map_10", "mAP-12": "map_12" };
  const hasPublished = rows.some((row) => row.published);
  const columns = [["Recipe", false], ["Backbone", false],
    ...means.flatMap((name) => [[name, true], ["Interval", true],
      ...(hasPublished && published[name] ? [["Published", true]] : [])]),
    ["Seeds", true], ["Parameters", true], ["Training", true]];
  const body = rows.map((row) => {
    const name = row.name ?? row.recipe;
    const index = DATA.runs.findIndex((run) => run.name === name);
    return {
      class: index === current ? "current" : row.status === "failed" ? "failed" : null,
      cells: [
        el("span", { title: row.about ?? "" }, index >= 0
          ? el("button", { type: "button", class: "link", on: { click: () => choose(index) } }, name) : name),
        `${row.backbone ?? ""}${row.depth ? ` ${row.depth}` : ""}`,
        ...means.flatMap((mean) => [ablationMean(row, mean), ablationInterval(row, mean),
          ...(hasPublished && published[mean] ? [publishedCell(row, published[mean])] : [])]),
        count((row.runs ?? []).length), row.parameters ? count(row.parameters) : "–",
        row.seconds ? `${count(Math.round(row.seconds))} s` : "–",
      ],
      note: row.status === "failed" ? `failed: ${row.error ?? ""}` : row.status === "pending" ? "not finished yet" : "",
    };
  });
  if (Object.keys(chance ?? {}).length) {
    body.push({ class: "chance", cells: columns.map(([title], index) =>
      (index === 0 ? "chance" : means.includes(title) ? percent(chance[title], 2) : "")) });
  }
  return el("div", {}, table(columns, body, { "aria-label": "Recipes" }),
    el("p", { class: "hint" }, "Mean over seeds, ± their standard deviation, and the mean ends of their intervals. ",
      hasPublished ? "Published figures are others' own, end to end on SoccerNet's test split. " : "",
      "Below: the first seed of every recipe."));
}

function ablationMean(row, mean) {
  const value = row.mean?.[mean];
  if (value === null || value === undefined) return "–";
  const sd = row.sd?.[mean];
  return el("span", {}, el("strong", {}, percent(value, 2)), sd === null || sd === undefined ? "" : ` ± ${percent(sd, 2)}`);
}

function ablationInterval(row, mean) {
  const [low, high] = [row.low?.[mean], row.high?.[mean]];
  return low === null || low === undefined ? "" : `${percent(low)} to ${percent(high)}`;
}

function publishedCell(row, name) {
  const value = row.published?.[name];
  return value === null || value === undefined ? "–" : el("span", { title: row.published.source ?? "" }, value.toFixed(2));
}

/** One bar per class with its interval, chance, and the other runs as small marks. */
function drawClasses(current) {
  const rows = DATA.runs[current].report.classes;
  const position = (value) => `${(100 * value).toFixed(3)}%`;
  const bars = rows.map((row, c) => {
    const { score } = row;
    const value = score.value ?? 0;
    const others = DATA.runs.map((run, index) => [run, index]).filter(([, index]) => index !== current).map(([run]) =>
      el("span", { class: "other", style: { left: position(run.report.classes[c].score.value ?? 0) },
        title: `${run.name}: ${percent(run.report.classes[c].score.value)}` }));
    const track = el("div", { class: "track", role: "img",
      "aria-label": `${row.label}: ${percent(value)}, interval ${interval(score)}, chance ${percent(score.chance)}` },
    el("span", { class: "fill", style: { width: position(value), "background-color": classColour(c) } }),
    score.chance === null ? null
      : el("span", { class: "chance-mark", style: { left: position(score.chance) }, title: `chance ${percent(score.chance)}` }),
    score.low === null ? null
      : el("span", { class: "whisker", style: { left: position(score.low), width: position(score.high - score.low) } }),
    others);
    return el("li", { class: row.num_events ? null : "empty" },
      el("span", { class: "bar-name" }, row.label), track,
      el("span", { class: "bar-value" }, el("strong", {}, percent(value)), ` ${interval(score)}`),
      el("span", { class: "bar-counts" }, `${plural(row.num_events, "event")}, ${count(row.num_predictions)} predictions`));
  });
  show("classes-body",
    el("ol", { class: "bars" }, bars),
    el("p", { class: "hint" }, "Bar: average precision. Line: its 95 % interval. Dotted mark: chance.",
      DATA.runs.length > 1 ? " Circles: the other runs." : "", " Predictions are counted at any confidence."),
    DATA.runs.length > 1 ? compareTable(current) : "",
  );
}

function compareTable(current) {
  const columns = [["Class", false], ["Events", true], ...DATA.runs.map((run) => [run.name, true])];
  const rows = CLASSES.map((label, c) => {
    const values = DATA.runs.map((run) => run.report.classes[c].score.value);
    const most = Math.max(...values.map((value) => value ?? 0));
    const cells = values.map((value) => (value === most && most > 0 ? el("strong", {}, percent(value)) : percent(value)));
    return { cells: [label, count(DATA.runs[current].report.classes[c].num_events), ...cells] };
  });
  return el("details", {}, el("summary", {}, "All runs by class"), table(columns, rows, { "aria-label": "Runs by class" }));
}

/** Where each class's threshold comes from. */
const thresholdRule = () => `for each class the one with the best F1; for a class with fewer than ${DATA.rare_events} events, ` +
  "which say too little about it, the one that is best for all classes together.";

/** What the figures count, in words. */
const rulesOf = (at, wide) => [
  "Hits are the pairs of SoccerNet's metric: each event in turn takes the surest free prediction of its class within " +
    `${(halfWidthMs() / 1000).toFixed(2)} s.`,
  "Everything but the table, bars and curves counts predictions from a threshold on: for each class the one with the best F1, " +
    `found on these same matches, so it flatters a little (${at}). The timeline's slider changes it there.`,
  `Wrong class: an event without a hit, and a prediction of another class within the tolerance. Badly timed: its own class ` +
    `within ${wide} s. Double: a further prediction beside a hit. Missed and false alarm: nothing of the kind.`,
];

function drawNotes(current) {
  const run = DATA.runs[current];
  const at = run.curves.map((curve, c) => `${CLASSES[c]} ${thresholdOf(curve.best).toFixed(2)}`).join(", ");
  const wide = (DATA.wide_frames * FRAME_MS / 1000).toFixed(2);
  const lines = [
    ...DATA.notes,
    ...(IS_LABELLED ? rulesOf(at, wide) : []),
    run.num_left_out ? `${plural(run.num_left_out, "prediction")} of the lowest confidences of this run ` +
      `${run.num_left_out === 1 ? "is" : "are"} not on this page; table, bars, curves and counts have them all.` : null,
  ];
  show("notes-body", el("ul", {}, lines.filter(Boolean).map((text) => el("li", {}, text))));
}

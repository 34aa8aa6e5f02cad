// The list of worst errors; each leads into the timeline.

const SHOWN_AT_FIRST = 15;
const listState = { kind: null, cls: -1, all: false }; // no kind: the first of which there is any

/** One mistake of a run as the list and the timeline show it. */
function describe(view, outcome, { event, prediction }) {
  const { events, predictions, taken } = view;
  const kind = prediction >= 0 ? outcome.kinds[prediction] : outcome.eventKinds[event];
  const best = event >= 0 && prediction < 0 && taken[event] >= 0 ? predictions.conf[taken[event]] : null;
  return {
    kind,
    ms: event >= 0 ? events.ms[event] : predictions.ms[prediction],
    trueClass: event >= 0 ? CLASSES[events.cls[event]] : null,
    hidden: event >= 0 && !events.shown[event],
    predicted: prediction >= 0 ? CLASSES[predictions.cls[prediction]] : null,
    confidence: prediction >= 0 ? predictions.conf[prediction] : best,
    lateMs: event >= 0 && prediction >= 0 ? predictions.ms[prediction] - events.ms[event] : null,
  };
}

function storyOf(told) {
  const late = told.lateMs === null ? "" : `${Math.abs(told.lateMs)} ms ${told.lateMs < 0 ? "early" : "late"}`;
  const sure = told.confidence === null ? "nothing near" : told.confidence.toFixed(3);
  return {
    [KIND.hit]: `Hit: ${told.trueClass}, ${late}, confidence ${sure}`,
    [KIND.missed]: `Missed: ${told.trueClass}${told.confidence === null ? ", nothing of it near" : `, best confidence near it ${sure}`}`,
    [KIND.wrong_class]: `Wrong class: ${told.trueClass} taken for ${told.predicted}, confidence ${sure}, ${late}`,
    [KIND.badly_timed]: `Badly timed: ${told.trueClass} ${late}, confidence ${sure}`,
    [KIND.false_alarm]: `${IS_LABELLED ? "False alarm" : "Prediction"}: ${told.predicted}, confidence ${sure}`,
    [KIND.double]: `Double: ${told.predicted} once more, ${late}, confidence ${sure}`,
    [KIND.below]: `Below the threshold: ${told.predicted}, confidence ${sure}`,
  }[told.kind];
}

function drawMistakes(current, open) {
  const run = DATA.runs[current];
  const bins = run.curves.map((curve) => curve.best);
  const outcomes = new Map();
  const outcomeOf = (match) => {
    if (!outcomes.has(match)) outcomes.set(match, sortOut(viewOf(current, match), bins));
    return outcomes.get(match);
  };
  const again = (change) => { Object.assign(listState, change); drawMistakes(current, open); };
  listState.kind ??= MISTAKES.find((kind) => run.mistakes.some(([each]) => each === kind)) ?? MISTAKES[0];
  const all = run.mistakes.filter(([kind]) => kind === listState.kind).map(([, match, event, prediction]) =>
    ({ match, event, prediction, told: describe(viewOf(current, match), outcomeOf(match), { event, prediction }) }));
  const isOf = ({ told }) => listState.cls < 0 || [told.trueClass, told.predicted].includes(CLASSES[listState.cls]);
  const found = all.filter(isOf);
  const shown = listState.all ? found : found.slice(0, SHOWN_AT_FIRST);
  const choice = el("select", { on: { change: (event) => again({ cls: Number(event.target.value) }) } },
    el("option", { value: -1 }, "All classes"), CLASSES.map((label, c) => el("option", { value: c }, label)));
  choice.value = String(listState.cls);
  show("errors-body",
    el("div", { class: "row" }, kindButtons(run, again), el("label", {}, "Class ", choice)),
    shown.length ? mistakeTable(shown, open) : el("p", {}, "None."),
    shown.length < found.length ? el("button", { type: "button", on: { click: () => again({ all: true }) } },
      `Show all ${found.length}`) : "",
    el("p", { class: "hint" }, rankNote(listState.kind), " Up to 60 of each kind are listed; the timeline has them all."));
}

function kindButtons(run, again) {
  return el("div", { class: "chips", role: "group", "aria-label": "Kind of error" }, MISTAKES.map((kind) => {
    const name = Object.keys(KIND).find((each) => KIND[each] === kind);
    return el("button", { type: "button", class: `chip kind-${name}`, "aria-pressed": String(kind === listState.kind),
      on: { click: () => again({ kind, all: false }) } },
    KIND_NAMES[kind], el("span", { class: "chip-count" }, count(run.mistake_counts[name])));
  }));
}

const rankNote = (kind) => (kind === KIND.missed
  ? "Blindest first: where the model gave the event the lowest confidence. Events that are not shown come last."
  : "Surest first.");

function mistakeTable(shown, open) {
  const columns = [["Where", false], ["True", false], ["Predicted", false], ["Confidence", true], ["Late, ms", true],
    ...(DATA.matches.length > 1 ? [["Match", false]] : [])];
  const rows = shown.map((mistake) => {
    const { told, match } = mistake;
    const name = DATA.matches[match].name;
    const button = el("button", { type: "button", class: "link", title: "Show in the timeline", on: { click: () => open(mistake) } },
      clock(told.ms));
    return { cells: [button,
      told.trueClass ? `${told.trueClass}${told.hidden ? " (not shown)" : ""}` : "–", told.predicted ?? "–",
      told.confidence === null ? "–" : told.confidence.toFixed(3), told.lateMs === null ? "–" : signed(told.lateMs), el("span", { title: name }, shortName(name))].slice(0, columns.length) };
  });
  if (IS_LABELLED) return table(columns, rows, { "aria-label": "Worst errors" });
  const isKept = (_, index) => columns[index][0] !== "True" && columns[index][0] !== "Late, ms";
  return table(columns.filter(isKept), rows.map(({ cells }) => ({ cells: cells.filter(isKept) })), { "aria-label": "Surest predictions" });
}

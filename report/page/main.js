// Puts the page of a report together.

const KEYS = [
  ["n, p", "next, previous error (with the filters that are set)"], ["d, a", "next, previous event"],
  ["space", "play, pause"], ["j k l", "back, stand, on; again: faster"], ["← →", "one frame back, on"], ["+ −", "zoom in, out"], ["0", "the whole match"],
  ["[ ]", "pan left, right"], ["click", "play from one second before"], ["wheel, pinch", "zoom"], ["drag", "pan"], ["?", "this help"],
];
let currentRun = bestRun();

/** Take away what compares predictions with labels. */
function hideFigures() {
  for (const id of ["results", "classes", "curves", "timing", "confusion"]) {
    byId(id).hidden = true;
    document.querySelector(`nav a[href="#${id}"]`).parentElement.hidden = true;
  }
  byId("errors-title").textContent = "Surest predictions";
  document.querySelector('nav a[href="#errors"]').textContent = "Predictions";
}

function chooseRun(run) {
  currentRun = run;
  byId("run").value = String(run);
  drawHeader(run);
  drawWarnings(DATA.runs[run]);
  drawResults(run, chooseRun);
  drawClasses(run);
  drawCurves(run);
  drawTiming(run);
  drawConfusion(run);
  drawMistakes(run, openMistake);
  drawNotes(run);
  if (run === state.with) compareWith(-1);
  if (run !== state.run || !state.view) {
    const { fromMs, toMs, cursorMs, view } = state;
    openMatch(state.match, run);
    if (view) { // another run on the same match: stay where we were
      setWindow(fromMs, toMs);
      seek(cursorMs);
    }
  }
}

/** From the list of errors into the timeline, with the thresholds that the list was made at. */
function openMistake({ match, event, prediction }) {
  if (IS_LABELLED && state.oneBin !== null) setThreshold(null);
  if (match !== state.match) openMatch(match);
  const classes = [event >= 0 ? state.view.events.cls[event] : -1, prediction >= 0 ? state.view.predictions.cls[prediction] : -1];
  if (classes.some((c) => state.offClasses.has(c))) {
    setOffClasses([]);
  }
  const wide = 20_000;
  const ms = event >= 0 ? state.view.events.ms[event] : state.view.predictions.ms[prediction];
  if (state.toMs - state.fromMs > 2 * wide) setWindow(ms - wide, ms + wide);
  byId("timeline").scrollIntoView({ block: "start" });
  pick({ event, prediction });
  lanesCanvas.focus({ preventScroll: true });
}

/** One threshold for all classes, or null: each class at its best F1. */
function setThreshold(bin) {
  state.oneBin = bin;
  if (IS_LABELLED) byId("own-thresholds").checked = bin === null;
  byId("threshold").classList.toggle("off", bin === null);
  if (bin !== null) byId("threshold").value = String(bin);
  byId("threshold-value").textContent = bin === null ? "" : thresholdOf(bin).toFixed(3);
  if (state.view) {
    judge();
    light();
  }
}

function buildControls() {
  const matches = el("select", { id: "match", on: { change: (event) => openMatch(Number(event.target.value)) } },
    DATA.matches.map((match, index) => el("option", { value: index }, match.name)));
  const slider = el("input", { id: "threshold", type: "range", min: 0, max: TOP_BIN, step: 1, value: Math.round(TOP_BIN / 2),
    on: { input: () => setThreshold(Number(slider.value)) } });
  const own = el("input", { id: "own-thresholds", type: "checkbox", checked: true,
    on: { change: () => setThreshold(own.checked ? null : Number(slider.value)) } });
  show("timeline-controls",
    el("div", { class: "row" }, el("label", { class: "grow" }, "Match ", matches),
      el("button", { type: "button", on: { click: () => byId("help").showModal() } }, "Keys ?")),
    compareChoice(),
    el("div", { class: "row" },
      el("label", { class: "slider" }, "Threshold ", slider, el("output", { id: "threshold-value", for: "threshold" })),
      IS_LABELLED ? el("label", { title: thresholdRule() }, own, " each class at its best F1") : null),
    el("p", { id: "counts", role: "status" }),
    el("div", { class: "row" }, kindFilter()));
  buildLanes("Timeline: one lane per class, predictions above the line, events below it. Keys: n and p step through errors, question mark lists all.",
    "The whole match: errors above the line, hits below it; drag the window",
    "Above each line: predictions, as high as they are sure. Below it: what happened. A click plays it from a " +
      "second before; drag to pan, turn the wheel or pinch to zoom. The strip is the whole match: errors up, hits down.");
}

/** A second run in the same lanes, and whether to step through what only one of the two finds. */
function compareChoice() {
  if (DATA.runs.length < 2) return null;
  const choice = el("select", { id: "with", on: { change: () => compareWith(Number(choice.value)) } },
    el("option", { value: -1 }, "none"), DATA.runs.map((run, index) => el("option", { value: index }, run.name)));
  const differing = el("input", { id: "differing", type: "checkbox", disabled: true,
    on: { change: () => { state.onlyDiffering = differing.checked; refilter(); } } });
  return el("div", { class: "row" }, el("label", { class: "grow" }, "Compare with ", choice),
    IS_LABELLED ? el("label", {}, differing, " only where one of the two is right") : null);
}

function compareWith(run) {
  state.with = run === state.run ? -1 : run;
  byId("with").value = String(state.with);
  if (state.with < 0) state.onlyDiffering = false;
  if (IS_LABELLED) Object.assign(byId("differing"), { disabled: state.with < 0, checked: state.onlyDiffering });
  LANE.other = state.with < 0 ? 0 : OTHER_HEIGHT;
  byId("picked").classList.toggle("two", state.with >= 0); // both runs are told of
  judge();
  fitScreen();
}

function kindFilter() {
  const chips = [...(IS_LABELLED ? [KIND.hit] : []), ...MISTAKES, KIND.below].map((kind) => {
    const name = Object.keys(KIND).find((each) => KIND[each] === kind);
    const chip = el("button", { type: "button", class: `chip kind-${name}`, "aria-pressed": "true", on: { click: () => {
      if (!state.kinds.delete(kind)) state.kinds.add(kind);
      chip.setAttribute("aria-pressed", String(state.kinds.has(kind)));
      refilter();
    } } }, KIND_NAMES[kind], el("span", { class: "chip-count", id: `count-${kind}` }));
    return chip;
  });
  return el("div", { class: "chips", role: "group", "aria-label": "What is shown" }, chips);
}

/** Show all classes but these. */
function setOffClasses(classes) {
  state.offClasses = new Set(classes);
  document.querySelectorAll(".board input").forEach((box) => {
    const c = Number(box.value);
    if (c >= 0) box.checked = !state.offClasses.has(c);
    else Object.assign(box, { checked: !state.offClasses.size, indeterminate: state.offClasses.size % CLASSES.length > 0 });
  });
  refilter();
  fitScreen();
}

function toggleClass(c, isOn) {
  const off = new Set(state.offClasses);
  if (isOn) off.delete(c);
  else off.add(c);
  setOffClasses(off);
}

function click(x, y) {
  const found = spotAt(state, layout, x, y);
  if (found) return pick(found);
  if (x < layout.left) return undefined;
  state.picked = null;
  tell("");
  const ms = clamp(layout.ms(x), 0, state.lengthMs);
  noteAddress(ms);
  return seek(ms);
}

function tipOf(x, y) {
  const found = spotAt(state, layout, x, y);
  if (!found) return "";
  const told = describe(state.view, state.outcome, found);
  return `${clock(told.ms)}  ${storyOf(told)}`;
}

const COMMANDS = {
  ...COMMON_KEYS, n: () => stepMistake(1), p: () => stepMistake(-1), d: () => stepEvent(1), a: () => stepEvent(-1),
  j: () => shuttle(-1), k: () => shuttle(0), l: () => shuttle(1), 0: () => setWindow(0, state.lengthMs),
};

buildControls();
buildPlayer();
buildHelp("Keys of the timeline", KEYS);
show("run", ...DATA.runs.map((run, index) => el("option", { value: index }, run.name)));
byId("run").addEventListener("change", (event) => chooseRun(Number(event.target.value)));
byId("run-choice").hidden = DATA.runs.length < 2;
state.run = currentRun;
setThreshold(IS_LABELLED ? null : 0);
if (!IS_LABELLED) hideFigures();
chooseRun(currentRun);
listenToPointer({ click, find: tipOf });
listenToKeys((event) => (event.ctrlKey || event.metaKey || event.altKey ? null : COMMANDS[event.key]));
fitScreen();
goToAddress();
window.addEventListener("hashchange", goToAddress);
window.basReport = { state, DATA, viewOf, sortOut, tally, setThreshold, openMatch, setWindow, drawNow: drawTimeline, lanes: () => layout.lanes,
  place: (c, ms, isEvent) => [layout.x(ms), layout.base(layout.lanes.indexOf(c)) + (isEvent ? 5 : -4)] };
document.documentElement.dataset.ready = "true";

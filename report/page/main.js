// Puts the page together and listens to mouse, fingers and keys.

const KEYS = [
  ["n, p", "next, previous error (with the filters that are set)"], ["d, a", "next, previous event"],
  ["space", "play, pause"], ["← →", "one frame back, on"], ["+ −", "zoom in, out"], ["0", "the whole match"],
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
  byId("player").scrollIntoView({ block: "start" });
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
  const button = (text, title, handler) => el("button", { type: "button", title, "aria-label": title, on: { click: handler } }, text);
  show("timeline-controls",
    el("div", { class: "row" }, el("label", { class: "grow" }, "Match ", matches),
      el("label", { class: "slider" }, "Threshold ", slider, el("output", { id: "threshold-value", for: "threshold" })),
      IS_LABELLED ? el("label", {}, own, " each class at its best F1") : null,
      el("button", { type: "button", on: { click: () => byId("help").showModal() } }, "Keys ?")),
    el("p", { id: "counts", role: "status" }),
    el("div", { class: "row" }, kindFilter()));
  lanesCanvas = el("canvas", { id: "lanes-canvas", tabindex: 0, role: "application",
    "aria-label": "Timeline: one lane per class, predictions above the line, events below it. Keys: n and p step through errors, question mark lists all." });
  overviewCanvas = el("canvas", { id: "overview-canvas", "aria-label": "The whole match: errors above the line, hits below it; drag the window", role: "img" });
  show("zoom", button("−", "Zoom out (-)", () => zoom(1.6)), button("+", "Zoom in (+)", () => zoom(1 / 1.6)),
    button("whole match", "The whole match (0)", () => setWindow(0, state.view.lengthMs)));
  show("lanes",
    el("div", { class: "canvas-box" }, lanesCanvas, el("div", { id: "tip", hidden: true })),
    el("div", { class: "canvas-box overview" }, overviewCanvas),
    el("p", { class: "hint" }, "Above each line: predictions, as high as they are sure. Below it: what happened. A click plays it from a " +
      "second before; drag to pan, turn the wheel or pinch to zoom. The strip is the whole match: errors up, hits down."));
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
  document.querySelectorAll("#player .board input").forEach((box) => {
    const c = Number(box.value);
    if (c >= 0) box.checked = !state.offClasses.has(c);
    else Object.assign(box, { checked: !state.offClasses.size, indeterminate: state.offClasses.size % CLASSES.length > 0 });
  });
  refilter();
}

function toggleClass(c, isOn) {
  const off = new Set(state.offClasses);
  if (isOn) off.delete(c);
  else off.add(c);
  setOffClasses(off);
}

function buildHelp() {
  show("help",
    el("h2", { id: "help-title" }, "Keys of the timeline"),
    el("dl", {}, KEYS.map(([key, text]) => el("div", {}, el("dt", {}, key), el("dd", {}, text)))),
    el("form", { method: "dialog" }, el("button", {}, "Close")));
}

function listenToPointer() {
  const pointers = new Map();
  let moved = 0;
  const at = (event) => {
    const box = lanesCanvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  lanesCanvas.addEventListener("pointerdown", (event) => {
    lanesCanvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    moved = 0;
  });
  lanesCanvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return hover(...at(event));
    const now = at(event);
    moved += Math.abs(now[0] - before[0]);
    if (pointers.size === 2) pinch(pointers, event.pointerId, now);
    else if (moved > 4) setWindow(state.fromMs - (now[0] - before[0]) / layout.scale, state.toMs - (now[0] - before[0]) / layout.scale);
    pointers.set(event.pointerId, now);
    hideTip();
  });
  const end = (event) => {
    const was = pointers.delete(event.pointerId);
    if (was && event.type === "pointerup" && moved <= 4 && !pointers.size) click(...at(event));
  };
  lanesCanvas.addEventListener("pointerup", end);
  lanesCanvas.addEventListener("pointercancel", end);
  lanesCanvas.addEventListener("pointerleave", hideTip);
  lanesCanvas.addEventListener("wheel", turnWheel, { passive: false });
}

function pinch(pointers, moving, now) {
  const [other] = [...pointers].filter(([id]) => id !== moving).map(([, point]) => point);
  const [before, after] = [pointers.get(moving), now].map(([x, y]) => Math.hypot(x - other[0], y - other[1]));
  if (after > 10) zoom(before / after, layout.ms((now[0] + other[0]) / 2));
}

function turnWheel(event) {
  const isAll = state.toMs - state.fromMs >= state.view.lengthMs;
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    event.preventDefault();
    return pan((event.deltaX || event.deltaY) / 1000);
  }
  if (isAll && event.deltaY > 0) return undefined; // nothing left to zoom out of: the page scrolls on
  event.preventDefault();
  const x = event.clientX - lanesCanvas.getBoundingClientRect().left;
  return zoom(Math.exp(event.deltaY / 400), layout.ms(Math.max(x, layout.left)));
}

function click(x, y) {
  const found = spotAt(state, layout, x, y);
  if (found) return pick(found);
  if (x < layout.left) return undefined;
  state.picked = null;
  tell("");
  return seek(Math.min(Math.max(0, layout.ms(x)), state.view.lengthMs));
}

function hover(x, y) {
  const found = spotAt(state, layout, x, y);
  lanesCanvas.style.cursor = found ? "pointer" : "grab";
  if (!found) return hideTip();
  const told = describe(state.view, state.outcome, found);
  const tip = byId("tip");
  tip.textContent = `${clock(told.ms)}  ${storyOf(told)}`;
  tip.hidden = false;
  const room = lanesCanvas.clientWidth - tip.offsetWidth - 4;
  tip.style.left = `${Math.max(0, Math.min(x + 12, room))}px`;
  tip.style.top = `${y + 18}px`;
  return undefined;
}

const hideTip = () => { byId("tip").hidden = true; };

function listenToOverview() {
  const go = (event) => {
    const box = overviewCanvas.getBoundingClientRect();
    const ms = ((event.clientX - box.left) / box.width) * state.view.lengthMs;
    const half = (state.toMs - state.fromMs) / 2;
    setWindow(ms - half, ms + half);
  };
  overviewCanvas.addEventListener("pointerdown", (event) => { overviewCanvas.setPointerCapture(event.pointerId); go(event); });
  overviewCanvas.addEventListener("pointermove", (event) => { if (event.buttons) go(event); });
}

const COMMANDS = {
  n: () => stepMistake(1), p: () => stepMistake(-1), d: () => stepEvent(1), a: () => stepEvent(-1), " ": togglePlay,
  ArrowLeft: () => stepFrame(-1), ArrowRight: () => stepFrame(1), "+": () => zoom(1 / 1.6), "=": () => zoom(1 / 1.6), "-": () => zoom(1.6),
  0: () => setWindow(0, state.view.lengthMs), "[": () => pan(-0.25), "]": () => pan(0.25), "?": () => byId("help").showModal(),
};

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    const { target } = event;
    const isTyping = target.matches("select, textarea, input:not([type=range]):not([type=checkbox])");
    const isOwn = (event.key === " " && target.matches("button, input, summary, a, video")) ||
      (event.key.startsWith("Arrow") && target.matches("input, .scroll, .scroll *"));
    const command = COMMANDS[event.key];
    if (!command || isTyping || isOwn) return;
    event.preventDefault();
    command();
  });
}

buildControls();
buildPlayer();
buildHelp();
show("run", ...DATA.runs.map((run, index) => el("option", { value: index }, run.name)));
byId("run").addEventListener("change", (event) => chooseRun(Number(event.target.value)));
byId("run-choice").hidden = DATA.runs.length < 2;
state.run = currentRun;
setThreshold(IS_LABELLED ? null : 0);
if (!IS_LABELLED) hideFigures();
chooseRun(currentRun);
listenToPointer();
listenToOverview();
listenToKeys();
new ResizeObserver(() => { state.overviewWidth = 0; redraw(); }).observe(byId("lanes"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { palette = null; redraw(); });
window.basReport = { state, DATA, viewOf, sortOut, tally, setThreshold, openMatch, setWindow, drawNow: () => {
  layout = drawLanes(lanesCanvas, state);
  drawOverview(overviewCanvas, state);
}, place: (c, ms, isEvent) => {
  const row = layout.lanes.indexOf(c);
  return [layout.x(ms), layout.base(row) + (isEvent ? 5 : -4)];
} };
document.documentElement.dataset.ready = "true";

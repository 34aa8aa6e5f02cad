// The stretch of time that the lanes show, the instant of the cursor, and what moves them; for both pages.
// A page declares CLASSES, MARK_COLOURS, laneName() and drawTimeline(), and makes both canvases by buildLanes().

const FIRST_WINDOW_MS = 120_000;
const NARROWEST_MS = 400;
const LEAD_MS = 1000;
const LANES_SHARE = 0.4; // of the screen, for all lanes together
const SMALLEST_VIDEO = 150;

const state = {
  fromMs: 0, toMs: FIRST_WINDOW_MS, cursorMs: 0, lengthMs: FIRST_WINDOW_MS, picked: null, offClasses: new Set(), overviewWidth: 0,
};
let lanesCanvas = null;
let overviewCanvas = null;
let layout = null;
let isDue = false;

/** Draw at the next frame; many calls become one. */
function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    drawTimeline();
  });
}

/** The window [from, to] in ms, kept inside the match. */
function setWindow(fromMs, toMs) {
  const length = Math.min(Math.max(toMs - fromMs, NARROWEST_MS), state.lengthMs);
  const from = Math.min(Math.max(0, fromMs), state.lengthMs - length);
  Object.assign(state, { fromMs: from, toMs: from + length });
  redraw();
}

function zoom(factor, aroundMs = (state.fromMs + state.toMs) / 2) {
  const length = Math.min(Math.max((state.toMs - state.fromMs) * factor, NARROWEST_MS), state.lengthMs);
  const share = (aroundMs - state.fromMs) / (state.toMs - state.fromMs);
  setWindow(aroundMs - share * length, aroundMs + (1 - share) * length);
}

const pan = (shareOfWindow) => {
  const by = shareOfWindow * (state.toMs - state.fromMs);
  setWindow(state.fromMs + by, state.toMs + by);
};

/** Bring an instant into the window: centred where it is near no edge already. */
function reveal(ms) {
  const length = state.toMs - state.fromMs;
  const margin = 0.12 * length;
  if (ms < state.fromMs + margin || ms > state.toMs - margin) setWindow(ms - length / 2, ms + length / 2);
  else redraw();
}

const tell = (text) => { byId("picked").textContent = text; };

const toolButton = (text, title, handler, attributes = {}) =>
  el("button", { type: "button", title, "aria-label": title, ...attributes, on: { click: handler } }, text);

/** Canvases of lanes and of the whole match, with the buttons that zoom. */
function buildLanes(said, overviewSaid, hint) {
  lanesCanvas = el("canvas", { id: "lanes-canvas", tabindex: 0, role: "application", "aria-label": said });
  overviewCanvas = el("canvas", { id: "overview-canvas", "aria-label": overviewSaid, role: "img" });
  show("zoom", toolButton("−", "Zoom out (-)", () => zoom(1.6)), toolButton("+", "Zoom in (+)", () => zoom(1 / 1.6)),
    toolButton("all", "The whole match", () => setWindow(0, state.lengthMs)));
  show("lanes",
    el("div", { class: "canvas-box" }, lanesCanvas, el("div", { id: "tip", hidden: true })),
    el("div", { class: "canvas-box overview" }, overviewCanvas), el("p", { class: "hint" }, hint));
  new ResizeObserver(() => { state.overviewWidth = 0; fitScreen(); }).observe(byId("lanes"));
  window.addEventListener("resize", fitScreen);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { palette = null; redraw(); });
}

/** Video and lanes on one screen: lanes share a part of its height, the video takes what the rest leaves. */
function fitScreen() {
  const stage = byId("timeline");
  const bar = byId("bar").offsetHeight;
  const room = window.innerHeight - bar - 16;
  const numLanes = Math.max(1, CLASSES.length - state.offClasses.size);
  sizeLanes(Math.floor((LANES_SHARE * room - LANE.axis) / numLanes));
  document.documentElement.style.setProperty("--bar", `${bar}px`);
  if (lanesCanvas && state.toMs) drawTimeline();
  if (!matchMedia("(min-width: 900px)").matches) return;
  const screen = stage.querySelector("video:not([hidden]), #no-video:not([hidden])");
  const lanes = stage.querySelector(".canvas-box.overview").getBoundingClientRect().bottom;
  const others = lanes - stage.getBoundingClientRect().top - screen.offsetHeight;
  const height = Math.max(SMALLEST_VIDEO, Math.floor(room - others));
  const width = Math.min(Math.floor((height * 16) / 9), stage.clientWidth - 420);
  stage.style.setProperty("--screen-width", `${width}px`);
}

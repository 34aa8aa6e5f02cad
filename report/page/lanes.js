// What both timelines draw: one lane per class with its name and line, the axis, the cursor, the window of the overview.

/** In CSS pixels; `other` is room below the events, for a second run. */
const LANE = { height: 40, event: 8, axis: 22, other: 0 };
const LANE_FONT = "12px system-ui, sans-serif";
const STEPS_SECONDS = [0.04, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600];

/** Lanes of about this height. */
function sizeLanes(wanted) {
  const height = clamp(wanted - LANE.other, 19, 36);
  LANE.height = height + LANE.other;
  LANE.event = height < 26 ? 6 : 8;
  LANE.base = height - LANE.event - 3; // the line of a lane, below its top
  LANE.tall = LANE.base - 2; // a prediction of confidence 1
}

sizeLanes(LANE.height);
let palette = null;

/** Colours of the page as the canvas needs them; read again after a change of theme. */
function colours() {
  if (palette) return palette;
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  palette = {
    mark: MARK_COLOURS.map(read),
    text: read("--text"), quiet: read("--quiet"), line: read("--line"), stripe: read("--stripe"), panel: read("--panel"),
    accent: read("--accent"), pick: read("--pick"), classes: CLASSES.map((_, c) => read(`--class-${c % 12}`)),
  };
  return palette;
}

/** A canvas as wide as its box, sharp on any screen; its context in CSS pixels. */
function fit(canvas, height) {
  const width = canvas.parentElement.clientWidth;
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return { context, width, height };
}

/** Where things are: lanes of the classes that are on, time from left to right. */
function layoutOf(width) {
  const left = width < 560 ? 92 : Math.min(200, 24 + widestName());
  const lanes = CLASSES.map((_, c) => c).filter((c) => !state.offClasses.has(c));
  const scale = (width - left) / (state.toMs - state.fromMs);
  return {
    left, width, lanes, scale,
    height: LANE.axis + Math.max(lanes.length, 1) * LANE.height + 4,
    x: (ms) => left + (ms - state.fromMs) * scale,
    ms: (x) => state.fromMs + (x - left) / scale,
    base: (row) => LANE.axis + row * LANE.height + LANE.base,
  };
}

let widest = 0;

function widestName() {
  if (!widest) {
    const context = lanesCanvas.getContext("2d");
    context.font = LANE_FONT;
    widest = Math.max(60, ...CLASSES.map((label) => context.measureText(label).width));
  }
  return widest;
}

/** Pixels across a tick: half a frame where there is room, thinner over long stretches. */
const thickness = (scale) => Math.round(Math.min(5, Math.max(scale * 300_000 > 900 ? 2 : 1, 0.5 * frames.stepMs * scale)));

/** Draw rows, axis and cursor, and between them what the page draws into the lanes. */
function drawLanes(drawMarks) {
  const width = lanesCanvas.parentElement.clientWidth;
  layout = layoutOf(width);
  const { context } = fit(lanesCanvas, layout.height);
  const ink = colours();
  context.clearRect(0, 0, width, layout.height);
  drawRows(context, layout, ink);
  drawAxis(context, layout, state, ink);
  context.save();
  context.beginPath();
  context.rect(layout.left, 0, width - layout.left, layout.height);
  context.clip();
  drawMarks(context, ink);
  drawCursor(context, layout, state, ink);
  context.restore();
}

function drawRows(context, layout, ink) {
  context.font = LANE_FONT;
  context.textBaseline = "alphabetic";
  layout.lanes.forEach((c, row) => {
    const top = LANE.axis + row * LANE.height;
    if (row % 2 === 0) {
      context.fillStyle = ink.stripe;
      context.fillRect(0, top, layout.width, LANE.height);
    }
    context.fillStyle = ink.classes[c];
    context.fillRect(3, top + 4, 4, LANE.height - 8);
    context.fillStyle = ink.text;
    context.fillText(cut(context, laneName(c), layout.left - 18), 12, top + LANE.height / 2 + 4);
    context.fillStyle = ink.line;
    context.fillRect(layout.left, layout.base(row), layout.width - layout.left, 1);
  });
}

const cuts = new Map();

/** Text that fits into a width. */
function cut(context, text, width) {
  const key = `${text}\u0000${width}`;
  if (!cuts.has(key)) {
    let length = text.length;
    const short = () => (length < text.length ? `${text.slice(0, length).trimEnd()}…` : text);
    while (length > 1 && context.measureText(short()).width > width) length--;
    cuts.set(key, short());
  }
  return cuts.get(key);
}

function drawAxis(context, layout, state, ink) {
  const seconds = (state.toMs - state.fromMs) / 1000;
  const room = Math.max(2, (layout.width - layout.left) / 90);
  const step = 1000 * (STEPS_SECONDS.find((each) => seconds / each <= room) ?? STEPS_SECONDS.at(-1));
  context.fillStyle = ink.quiet;
  context.textAlign = "left";
  for (let ms = Math.ceil(state.fromMs / step) * step; ms <= state.toMs; ms += step) {
    const x = Math.round(layout.x(ms));
    context.fillStyle = ink.line;
    context.fillRect(x, LANE.axis - 5, 1, layout.height - LANE.axis + 5);
    context.fillStyle = ink.quiet;
    if (x + 50 < layout.width) context.fillText(clock(ms, step < 1000 ? 2 : 0), x + 4, 14);
  }
}

function drawCursor(context, layout, state, ink) {
  const x = layout.x(state.cursorMs);
  context.fillStyle = ink.accent;
  context.fillRect(x - 0.75, LANE.axis - 6, 1.5, layout.height);
  context.beginPath();
  context.moveTo(x - 5, LANE.axis - 8);
  context.lineTo(x + 5, LANE.axis - 8);
  context.lineTo(x, LANE.axis - 1);
  context.fill();
}

const OVERVIEW_HEIGHT = 40;

/** The whole match at a glance: columns upwards and downwards, and the window of the lanes. */
function drawOverview(up, down, [upColour, downColour]) {
  const { context, width, height } = fit(overviewCanvas, OVERVIEW_HEIGHT);
  const ink = colours();
  let most = 1;
  for (let x = 0; x < up.length; x++) most = Math.max(most, up[x], down[x]);
  const middle = 22;
  context.clearRect(0, 0, width, height);
  context.fillStyle = ink.line;
  context.fillRect(0, middle, width, 1);
  for (const [columns, colour, top, tall] of [[up, upColour, -1, 20], [down, downColour, 0, 17]]) {
    context.fillStyle = colour;
    for (let x = 0; x < columns.length; x++) {
      const size = (tall * columns[x]) / most;
      if (size) context.fillRect(x, top ? middle - size : middle + 1, 1, size);
    }
  }
  const scale = width / state.lengthMs;
  context.strokeStyle = ink.text;
  context.lineWidth = 1.5;
  context.strokeRect(state.fromMs * scale + 0.75, 0.75, Math.max(4, (state.toMs - state.fromMs) * scale - 1.5), height - 1.5);
  context.fillStyle = ink.accent;
  context.fillRect(state.cursorMs * scale - 0.75, 0, 1.5, height);
}

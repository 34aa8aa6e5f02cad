// Draws the timeline: one lane per class, predictions upwards from its line by confidence, events below it.

const LANE = { height: CLASSES.length > 6 ? 31 : 40, event: 8, axis: 22 };
LANE.base = LANE.height - LANE.event - 4; // the line of a lane, below its top
LANE.tall = LANE.base - 3; // a prediction of confidence 1
const LANE_FONT = "12px system-ui, sans-serif";
const STEPS_SECONDS = [0.04, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600];
const KIND_COLOURS = {
  [KIND.below]: "--kind-below", [KIND.hit]: "--kind-hit", [KIND.wrong_class]: "--kind-wrong_class",
  [KIND.badly_timed]: "--kind-badly_timed", [KIND.missed]: "--kind-missed", [KIND.double]: "--kind-double",
  [KIND.false_alarm]: "--kind-false_alarm",
};
/** Drawn in this order, so that what matters lies on top. */
const PREDICTION_KINDS = [KIND.below, KIND.hit, KIND.double, KIND.badly_timed, KIND.wrong_class, KIND.false_alarm];
const NUM_KINDS = 7;

let palette = null;

/** Colours of the page as the canvas needs them; read again after a change of theme. */
function colours() {
  if (palette) return palette;
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  palette = {
    kind: Object.fromEntries(Object.entries(KIND_COLOURS).map(([kind, name]) => [kind, read(name)])),
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
function layoutOf(state, width) {
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
const thickness = (scale) => Math.round(Math.min(5, Math.max(scale * 300_000 > 900 ? 2 : 1, 0.5 * FRAME_MS * scale)));

function drawLanes(canvas, state) {
  const width = canvas.parentElement.clientWidth;
  const layout = layoutOf(state, width);
  const { context } = fit(canvas, layout.height);
  const ink = colours();
  context.clearRect(0, 0, width, layout.height);
  drawRows(context, layout, ink);
  drawAxis(context, layout, state, ink);
  context.save();
  context.beginPath();
  context.rect(layout.left, 0, width - layout.left, layout.height);
  context.clip();
  drawPicked(context, layout, state, ink);
  layout.lanes.forEach((c, row) => {
    drawPredictions(context, layout, state, c, row, ink);
    drawEvents(context, layout, state, c, row, ink);
  });
  drawCursor(context, layout, state, ink);
  context.restore();
  return layout;
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
    context.fillRect(3, top + 7, 4, LANE.height - 14);
    context.fillStyle = ink.text;
    context.fillText(cut(context, CLASSES[c], layout.left - 18), 12, top + LANE.height / 2 + 4);
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

let columns = new Float32Array(0);

/** Predictions of a class: per column of pixels and kind the highest confidence, so that 200,000 cost little. */
function drawPredictions(context, layout, state, c, row, ink) {
  const { predictions } = state.view;
  const { kinds } = state.outcome;
  const lane = predictions.lanes[c];
  const laneMs = predictions.lanesMs[c];
  const width = Math.ceil(layout.width);
  if (columns.length < NUM_KINDS * width) columns = new Float32Array(NUM_KINDS * width);
  columns.fill(0);
  const stop = lowerBound(laneMs, state.toMs + 1);
  for (let place = lowerBound(laneMs, state.fromMs); place < stop; place++) {
    const p = lane[place];
    const column = kinds[p] * width + Math.min(width - 1, Math.round(layout.x(laneMs[place])));
    if (predictions.conf[p] > columns[column]) columns[column] = predictions.conf[p];
  }
  const thick = thickness(layout.scale);
  const base = layout.base(row);
  for (const kind of PREDICTION_KINDS) {
    if (!state.kinds.has(kind)) continue;
    context.fillStyle = ink.kind[kind];
    for (let x = Math.floor(layout.left); x < width; x++) {
      const value = columns[kind * width + x];
      if (value <= 0) continue;
      const tall = Math.max(1.5, Math.min(1, value) * LANE.tall);
      context.fillRect(Math.round(x - thick / 2), base - tall, thick, tall);
      if (kind !== KIND.below && kind !== KIND.hit && layout.scale > 0.01) context.fillRect(x - 2.5, base - tall - 1, 5, 2.5);
    }
  }
}

function drawEvents(context, layout, state, c, row, ink) {
  const { events } = state.view;
  const lane = events.lanes[c];
  const laneMs = events.lanesMs[c];
  const base = layout.base(row) + 1;
  const thick = thickness(layout.scale);
  const stop = lowerBound(laneMs, state.toMs + 1);
  for (let place = lowerBound(laneMs, state.fromMs); place < stop; place++) {
    const e = lane[place];
    const kind = state.outcome.eventKinds[e];
    if (!state.kinds.has(kind)) continue;
    const x = Math.round(layout.x(laneMs[place]));
    context.fillStyle = ink.kind[kind];
    context.fillRect(Math.round(x - thick / 2), base, thick, events.shown[e] ? LANE.event : LANE.event / 2);
    if (kind !== KIND.hit && layout.scale > 0.01) context.fillRect(x - 3, base + LANE.event - 3, 6, 3);
  }
}

/** A band behind what is picked, and a line from an event to its prediction in another lane. */
function drawPicked(context, layout, state, ink) {
  if (!state.picked) return;
  const { event, prediction } = state.picked;
  const { events, predictions } = state.view;
  const half = Math.max(4, halfWidthMs() * layout.scale);
  const spots = [event >= 0 ? [events, event] : null, prediction >= 0 ? [predictions, prediction] : null].filter(Boolean);
  const [first] = spots;
  const centre = layout.x(first[0].ms[first[1]]);
  context.fillStyle = ink.pick;
  context.fillRect(centre - half, LANE.axis, 2 * half, layout.height - LANE.axis);
  const rows = spots.map(([of, index]) => layout.lanes.indexOf(of.cls[index]));
  if (spots.length === 2 && rows.every((row) => row >= 0)) {
    context.strokeStyle = ink.text;
    context.lineWidth = 1;
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(layout.x(events.ms[event]), layout.base(rows[0]) + 6);
    context.lineTo(layout.x(predictions.ms[prediction]), layout.base(rows[1]) - 4);
    context.stroke();
    context.setLineDash([]);
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

/** The whole match at a glance: errors upwards, hits downwards, and the window of the lanes. */
function drawOverview(canvas, state) {
  const height = 46;
  const { context, width } = fit(canvas, height);
  const ink = colours();
  if (state.overviewWidth !== width) countColumns(state, Math.floor(width));
  const { hits, mistakes, most } = state.overview;
  context.clearRect(0, 0, width, height);
  const middle = 26;
  context.fillStyle = ink.line;
  context.fillRect(0, middle, width, 1);
  for (let x = 0; x < hits.length; x++) {
    if (mistakes[x]) {
      context.fillStyle = ink.kind[KIND.missed];
      context.fillRect(x, middle - (22 * mistakes[x]) / most, 1, (22 * mistakes[x]) / most);
    }
    if (hits[x]) {
      context.fillStyle = ink.kind[KIND.hit];
      context.fillRect(x, middle + 1, 1, (18 * hits[x]) / most);
    }
  }
  const scale = width / state.view.lengthMs;
  context.strokeStyle = ink.text;
  context.lineWidth = 1.5;
  context.strokeRect(state.fromMs * scale + 0.75, 0.75, Math.max(4, (state.toMs - state.fromMs) * scale - 1.5), height - 1.5);
  context.fillStyle = ink.accent;
  context.fillRect(state.cursorMs * scale - 0.75, 0, 1.5, height);
}

function countColumns(state, width) {
  const [hits, mistakes] = [new Int32Array(width), new Int32Array(width)];
  const scale = width / state.view.lengthMs;
  const put = (into, ms) => { into[Math.min(width - 1, Math.floor(ms * scale))]++; };
  const { events, predictions } = state.view;
  const { eventKinds, kinds } = state.outcome;
  const isOn = (c, kind) => !state.offClasses.has(c) && state.kinds.has(kind);
  eventKinds.forEach((kind, e) => {
    if (isOn(events.cls[e], kind)) put(kind === KIND.hit ? hits : mistakes, events.ms[e]);
  });
  kinds.forEach((kind, p) => {
    const isOwn = kind === KIND.false_alarm || kind === KIND.double;
    if (isOwn && isOn(predictions.cls[p], kind)) put(mistakes, predictions.ms[p]);
  });
  state.overview = { hits, mistakes, most: Math.max(1, ...hits, ...mistakes) };
  state.overviewWidth = width;
}

/** The event or prediction nearest to a point, or null. */
function spotAt(state, layout, x, y) {
  const row = Math.floor((y - LANE.axis) / LANE.height);
  const c = layout.lanes[row];
  if (c === undefined || x < layout.left) return null;
  const wantsEvent = y > layout.base(row);
  const near = (of, kindsOf, bias) => {
    const laneMs = of.lanesMs[c];
    const reach = 8 / layout.scale;
    const stop = lowerBound(laneMs, layout.ms(x) + reach);
    let best = null;
    for (let place = lowerBound(laneMs, layout.ms(x) - reach); place < stop; place++) {
      const index = of.lanes[c][place];
      if (!state.kinds.has(kindsOf[index])) continue;
      const isBelow = kindsOf[index] === KIND.below;
      const distance = Math.abs(layout.x(laneMs[place]) - x) + bias + (isBelow ? 4 : 0);
      if (!best || distance < best.distance) best = { index, distance };
    }
    return best;
  };
  const event = near(state.view.events, state.outcome.eventKinds, wantsEvent ? 0 : 6);
  const prediction = near(state.view.predictions, state.outcome.kinds, wantsEvent ? 6 : 0);
  if (!event && !prediction) return null;
  if (event && (!prediction || event.distance <= prediction.distance)) return pickEvent(state, event.index);
  return pickPrediction(state, prediction.index);
}

const pickEvent = (state, event) => ({ event, prediction: state.outcome.eventPartners[event] });
const pickPrediction = (state, prediction) => ({ event: state.outcome.partners[prediction], prediction });

// Draws the lanes of a report: predictions upwards from the line by confidence, events below it, a second run under them.

/** Colour of each kind, by its number. */
const MARK_COLOURS = Object.entries(KIND).sort(([, a], [, b]) => a - b).map(([name]) => `--kind-${name}`);
/** Drawn in this order, so that what matters lies on top. */
const PREDICTION_KINDS = [KIND.below, KIND.hit, KIND.double, KIND.badly_timed, KIND.wrong_class, KIND.false_alarm];
const NUM_KINDS = 7;

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
    context.fillStyle = ink.mark[kind];
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
    if (!state.kinds.has(kind) || (state.onlyDiffering && !differs(e))) continue;
    const x = Math.round(layout.x(laneMs[place]));
    context.fillStyle = ink.mark[kind];
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

function drawTimeline() {
  drawLanes((context, ink) => {
    drawPicked(context, layout, state, ink);
    layout.lanes.forEach((c, row) => {
      drawPredictions(context, layout, state, c, row, ink);
      drawEvents(context, layout, state, c, row, ink);
      if (!state.other) return;
      drawOther(context, layout, c, row, ink);
      drawDifferences(context, layout, c, row, ink);
    });
  });
  const width = Math.floor(overviewCanvas.parentElement.clientWidth);
  if (state.overviewWidth !== width) countColumns(state, width);
  const { mistakes, hits } = state.overview;
  drawOverview(mistakes, hits, [colours().mark[KIND.missed], colours().mark[KIND.hit]]);
}

const laneName = (c) => CLASSES[c];
const OTHER_HEIGHT = 7;

/** The second run: what it found, hanging in a thin band under the events; quiet where it is wrong. */
function drawOther(context, layout, c, row, ink) {
  const { view, outcome } = state.other;
  const { predictions } = view;
  const laneMs = predictions.lanesMs[c];
  const top = layout.base(row) + LANE.event + 2;
  const thick = thickness(layout.scale);
  const stop = lowerBound(laneMs, state.toMs + 1);
  for (let place = lowerBound(laneMs, state.fromMs); place < stop; place++) {
    const p = predictions.lanes[c][place];
    const kind = outcome.kinds[p];
    if (kind === KIND.below || !state.kinds.has(kind)) continue;
    context.fillStyle = ink.mark[kind];
    context.fillRect(Math.round(layout.x(laneMs[place]) - thick / 2), top, thick, Math.max(2, predictions.conf[p] * OTHER_HEIGHT));
  }
}

/** A dot where only one of the two runs finds the event. */
function drawDifferences(context, layout, c, row, ink) {
  const laneMs = state.view.events.lanesMs[c];
  const stop = lowerBound(laneMs, state.toMs + 1);
  context.fillStyle = ink.text;
  for (let place = lowerBound(laneMs, state.fromMs); place < stop; place++) {
    if (!differs(state.view.events.lanes[c][place])) continue;
    context.beginPath();
    context.arc(layout.x(laneMs[place]), layout.base(row) + LANE.event - 1, 2.5, 0, 2 * Math.PI);
    context.fill();
  }
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
  state.overview = { hits, mistakes };
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

// Draws the lanes of the label page: spots below the line, proposals above it, the model's confidence behind them.

const MARK_COLOURS = ["--kind-hit", "--kind-below", "--kind-missed", "--kind-badly_timed", "--kind-wrong_class"];
const [OF_SPOT, OF_ANSWERED, OF_REJECT, OF_STRETCH, OF_PROPOSAL] = MARK_COLOURS.keys();
const BAND = { top: LANE.axis - 6, height: 5 }; // of labelled stretches, on the axis
const classColour = (c) => `var(--class-${c % 12})`;
const laneName = (c) => `${keyOfClass(c)}  ${CLASSES[c]}`;

function drawTimeline() {
  if (!state.isOpen) return;
  drawLanes((context, ink) => {
    drawStretches(context, ink);
    drawPick(context, ink);
    layout.lanes.forEach((c, row) => {
      drawCurve(context, c, row, ink);
      drawProposals(context, c, row, ink);
      drawMarks(context, c, row, ink);
    });
  });
  const width = Math.floor(overviewCanvas.parentElement.clientWidth);
  if (state.overviewWidth !== width) countColumns(width);
  drawOverview(state.up, state.down, [colours().mark[OF_PROPOSAL], colours().mark[OF_SPOT]]);
}

function drawStretches(context, ink) {
  context.fillStyle = ink.mark[OF_STRETCH];
  const band = (from, to) => context.fillRect(layout.x(from), BAND.top, Math.max(2, layout.x(to) - layout.x(from)), BAND.height);
  for (const { from_ms: from, to_ms: to } of stretches) band(from, to);
  if (state.inMs !== null) band(Math.min(state.inMs, state.cursorMs), Math.max(state.inMs, state.cursorMs));
}

/** What is picked: a band from top to bottom. */
function drawPick(context, ink) {
  const ms = pickedMs();
  if (ms === null) return;
  const item = items.get(state.picked.id);
  const [from, to] = item?.kind === "stretch" ? [layout.x(item.from_ms), layout.x(item.to_ms)] : [layout.x(ms) - 7, layout.x(ms) + 7];
  context.fillStyle = ink.pick;
  context.fillRect(from, LANE.axis - 6, to - from, layout.height);
}

/** The confidence of a class: its highest value in every column of pixels. */
function drawCurve(context, c, row, ink) {
  if (!proposed.curves) return;
  const rowsPerPixel = proposed.fps / 1000 / layout.scale;
  const step = rowsPerPixel > 2 * COARSE ? COARSE : 1;
  const values = step === 1 ? proposed.curves[c].fine : proposed.curves[c].coarse;
  const rowAt = (x) => Math.floor((layout.ms(x) * proposed.fps) / 1000 / step);
  const base = layout.base(row);
  context.beginPath();
  context.moveTo(layout.left, base);
  for (let x = Math.floor(layout.left); x <= layout.width; x++) {
    let [most, stop] = [0, Math.min(values.length, Math.max(rowAt(x) + 1, rowAt(x + 1)))];
    for (let r = Math.max(0, rowAt(x)); r < stop; r++) if (values[r] > most) most = values[r];
    context.lineTo(x, base - (most / 255) * LANE.tall);
  }
  context.lineTo(layout.width, base);
  context.fillStyle = ink.classes[c];
  context.globalAlpha = 0.22;
  context.fill();
  context.globalAlpha = 1;
}

/** Call for the places of a lane that are in the window. */
function eachInView(lane, draw) {
  const stop = lowerBound(lane.ms, state.toMs + 1);
  for (let place = lowerBound(lane.ms, state.fromMs); place < stop; place++) draw(lane.ids[place], Math.round(layout.x(lane.ms[place])));
}

/** Proposals as high as they are sure; answered ones are quiet. One per column of pixels and state: thousands cost little. */
function drawProposals(context, c, row, ink) {
  if (!proposed.lanes[c]) return;
  const tallest = [new Map(), new Map()];
  eachInView(proposed.lanes[c], (p, x) => {
    const of = tallest[Number(isOpen(p))];
    if (!(of.get(x) >= proposed.conf[p])) of.set(x, proposed.conf[p]);
  });
  const [thick, base] = [thickness(layout.scale), layout.base(row)];
  tallest.forEach((of, isOpenOnes) => {
    context.fillStyle = isOpenOnes ? ink.classes[c] : ink.mark[OF_ANSWERED];
    for (const [x, conf] of of) {
      const tall = Math.max(3, conf * LANE.tall);
      context.fillRect(Math.round(x - thick / 2), base - tall, thick, tall);
      if (isOpenOnes && layout.scale > 0.01) context.fillRect(x - 2.5, base - tall - 1, 5, 2.5);
    }
  });
}

function drawMarks(context, c, row, ink) {
  const [thick, base] = [Math.max(2, thickness(layout.scale)), layout.base(row) + 1];
  let last = -1;
  context.fillStyle = ink.classes[c];
  eachInView(lanesOf.spot[c], (_, x) => {
    if (x === last) return;
    last = x;
    context.fillRect(Math.round(x - thick / 2), base, thick, LANE.event);
    if (layout.scale > 0.01) context.fillRect(x - 3, base + LANE.event - 3, 6, 3);
  });
  context.strokeStyle = ink.mark[OF_REJECT];
  context.lineWidth = 1.5;
  context.beginPath();
  eachInView(lanesOf.reject[c], (_, x) => {
    context.moveTo(x - 2.5, base + 1);
    context.lineTo(x + 2.5, base + 6);
    context.moveTo(x + 2.5, base + 1);
    context.lineTo(x - 2.5, base + 6);
  });
  context.stroke();
}

/** Columns of the overview: open proposals upwards, spots downwards. */
function countColumns(width) {
  const [up, down] = [new Int32Array(width), new Int32Array(width)];
  const put = (into, ms) => { into[clamp(Math.floor((ms * width) / state.lengthMs), 0, width - 1)]++; };
  CLASSES.forEach((_, c) => {
    if (state.offClasses.has(c)) return;
    for (const ms of lanesOf.spot[c].ms) put(down, ms);
  });
  proposed.ms.forEach((ms, p) => { if (isOpen(p)) put(up, ms); });
  Object.assign(state, { up, down, overviewWidth: width });
}

/** What is nearest to a point: `{ id }`, `{ proposal }`, or null. */
function markAt(x, y) {
  if (x < layout.left) return null;
  if (y < LANE.axis) {
    const found = y >= BAND.top - 4 ? stretches.find((each) => layout.x(each.from_ms) - 3 <= x && x <= layout.x(each.to_ms) + 3) : null;
    return found ? { id: found.id } : null;
  }
  const row = Math.floor((y - LANE.axis) / LANE.height);
  const c = layout.lanes[row];
  if (c === undefined) return null;
  const wantsMark = y > layout.base(row);
  let best = null;
  const look = (lane, bias, name) => {
    const reach = 8 / layout.scale;
    const stop = lowerBound(lane.ms, layout.ms(x) + reach);
    for (let place = lowerBound(lane.ms, layout.ms(x) - reach); place < stop; place++) {
      const distance = Math.abs(layout.x(lane.ms[place]) - x) + bias;
      if (!best || distance < best.distance) best = { distance, found: { [name]: lane.ids[place] } };
    }
  };
  look(lanesOf.spot[c], wantsMark ? 0 : 6, "id");
  look(lanesOf.reject[c], wantsMark ? 1 : 7, "id");
  if (proposed.lanes[c]) look(proposed.lanes[c], wantsMark ? 6 : 0, "proposal");
  return best?.found ?? null;
}

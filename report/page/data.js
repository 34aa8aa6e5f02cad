// The data of the page, and what became of every event and prediction at any threshold.
// `sortOut` follows eval/mistakes.py line by line; a browser test holds the two together.

const DATA = JSON.parse(byId("data").textContent);
const CLASSES = DATA.classes;
const KIND = DATA.kinds;
/** Without a single event, predictions are shown for what they are, and nothing is judged. */
const IS_LABELLED = DATA.runs.some((run) => run.curves.some((curve) => curve.events));
const KIND_NAMES = {
  [KIND.below]: "below threshold",
  [KIND.hit]: "hit",
  [KIND.wrong_class]: "wrong class",
  [KIND.badly_timed]: "badly timed",
  [KIND.missed]: "missed",
  [KIND.double]: "double",
  [KIND.false_alarm]: IS_LABELLED ? "false alarm" : "prediction",
};
const MISTAKES = IS_LABELLED
  ? [KIND.missed, KIND.wrong_class, KIND.badly_timed, KIND.false_alarm, KIND.double] : [KIND.false_alarm];
const TOP_BIN = DATA.num_thresholds - 1;
const FRAME_MS = 1000 / DATA.fps;
frames.stepMs = FRAME_MS;
const thresholdOf = (bin) => bin / TOP_BIN;
/** Cell of an instant in the official reader. */
const cellOf = (ms) => Math.trunc(DATA.fps * (ms / 1000));

/** Indices of each class, in order of time. */
function lanesOf(classes) {
  const counts = new Int32Array(CLASSES.length);
  for (const c of classes) counts[c]++;
  const lanes = Array.from(counts, (number) => new Int32Array(number));
  counts.fill(0);
  classes.forEach((c, index) => { lanes[c][counts[c]++] = index; });
  return lanes;
}

function spotsOf(record) {
  const ms = unpack(record.ms, Uint32Array);
  const cls = unpack(record.cls, Uint8Array);
  const lanes = lanesOf(cls);
  return { ms, cls, lanes, lanesMs: lanes.map((lane) => lane.map((index) => ms[index])), cells: ms.map(cellOf) };
}

const viewCache = new Map();

/** Events and predictions of a match as a run sees them; unpacked once. */
function viewOf(run, match) {
  const key = `${run} ${match}`;
  if (!viewCache.has(key)) {
    const eventRecord = DATA.matches[match].events;
    const record = DATA.runs[run].matches[match].predictions;
    const events = { ...spotsOf(eventRecord), shown: unpack(eventRecord.shown, Uint8Array) };
    const predictions = {
      ...spotsOf(record), bin: unpack(record.bin, Uint8Array), conf: unpack(record.conf, Float32Array),
    };
    const taken = record.taken ? unpack(record.taken, Int32Array) : new Int32Array(events.ms.length).fill(-1);
    const last = Math.max(events.ms.at(-1) ?? 0, predictions.ms.at(-1) ?? 0);
    const known = 1000 * DATA.matches[match].seconds;
    const lengthMs = Math.max(known, last + (known ? FRAME_MS : 2000));
    viewCache.set(key, { run, match, events, predictions, taken, lengthMs });
  }
  return viewCache.get(key);
}

/** What became of a match: kinds and partners of events and predictions, where `bins` holds each class's threshold. */
function sortOut(view, bins) {
  const { events, predictions, taken } = view;
  const eventKinds = new Uint8Array(events.ms.length).fill(KIND.missed);
  const eventPartners = new Int32Array(events.ms.length).fill(-1);
  const kinds = predictions.bin.map((bin, p) => (bin >= bins[predictions.cls[p]] ? KIND.false_alarm : KIND.below));
  const partners = new Int32Array(kinds.length).fill(-1);
  const join = (e, p, kind) => {
    eventKinds[e] = kinds[p] = kind;
    eventPartners[e] = p;
    partners[p] = e;
  };
  for (let e = 0; e < taken.length; e++) {
    if (taken[e] >= 0 && kinds[taken[e]] !== KIND.below) join(e, taken[e], KIND.hit);
  }
  const outcome = { eventKinds, eventPartners, kinds, partners };
  takeLeftOvers(view, outcome, join, KIND.wrong_class, DATA.half_width_frames);
  takeLeftOvers(view, outcome, join, KIND.badly_timed, DATA.wide_frames);
  findDoubles(view, outcome);
  return outcome;
}

/** Events without a hit take the surest left-over prediction near them: of other classes, or of their own. */
function takeLeftOvers({ events, predictions }, { eventKinds, kinds }, join, kind, reach) {
  const wantsOwn = kind === KIND.badly_timed;
  for (let e = 0; e < eventKinds.length; e++) {
    if (eventKinds[e] !== KIND.missed) continue;
    let best = -1;
    const stop = events.cells[e] + reach;
    for (let p = lowerBound(predictions.cells, events.cells[e] - reach); predictions.cells[p] <= stop; p++) {
      if (kinds[p] !== KIND.false_alarm || (predictions.cls[p] === events.cls[e]) !== wantsOwn) continue;
      if (best < 0 || predictions.conf[p] > predictions.conf[best]) best = p;
    }
    if (best >= 0) join(e, best, kind);
  }
}

/** False alarms near a found event of their class are doubles of the nearest. */
function findDoubles({ events, predictions }, { eventKinds, kinds, partners }) {
  events.lanes.forEach((lane, c) => {
    const found = lane.filter((e) => eventKinds[e] === KIND.hit);
    const cells = found.map((e) => events.cells[e]);
    for (const p of predictions.lanes[c]) {
      if (kinds[p] !== KIND.false_alarm || !found.length) continue;
      const after = lowerBound(cells, predictions.cells[p]);
      const [before, next] = [Math.max(after - 1, 0), Math.min(after, found.length - 1)];
      const [left, right] = [before, next].map((place) => Math.abs(cells[place] - predictions.cells[p]));
      if (Math.min(left, right) > DATA.half_width_frames) continue;
      kinds[p] = KIND.double;
      partners[p] = found[left <= right ? before : next];
    }
  });
}

/** How many of each kind; classes that are off do not count. */
function tally(view, outcome, isOn = () => true) {
  const counts = new Array(Object.keys(KIND).length).fill(0);
  outcome.eventKinds.forEach((kind, e) => {
    if ((kind === KIND.missed || kind === KIND.hit) && isOn(view.events.cls[e])) counts[kind]++;
  });
  outcome.kinds.forEach((kind, p) => {
    if (kind !== KIND.hit && isOn(view.predictions.cls[p])) counts[kind]++;
  });
  return counts;
}

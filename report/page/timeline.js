// The timeline's state and what changes it: matches, thresholds, filters, zoom, picking and stepping.

const FIRST_WINDOW_MS = 120_000;
const NARROWEST_MS = 400;
const LEAD_MS = 1000;

const state = {
  run: 0, match: 0, view: null, outcome: null, bins: [], oneBin: null,
  fromMs: 0, toMs: FIRST_WINDOW_MS, cursorMs: 0, picked: null, mistakes: [], hover: null,
  offClasses: new Set(), kinds: new Set(Object.values(KIND)), overview: null, overviewWidth: 0,
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
    layout = drawLanes(lanesCanvas, state);
    drawOverview(overviewCanvas, state);
  });
}

function openMatch(match, run = state.run) {
  Object.assign(state, { match, run, view: viewOf(run, match), picked: null });
  Object.assign(state, { fromMs: 0, toMs: Math.min(FIRST_WINDOW_MS, state.view.lengthMs), cursorMs: 0 });
  judge();
  loadVideo(match);
  byId("match").value = String(match);
  tell("");
}

/** Sort the match out again, after a change of match, run or threshold. */
function judge() {
  const curves = DATA.runs[state.run].curves;
  state.bins = curves.map((curve) => state.oneBin ?? curve.best);
  state.outcome = sortOut(state.view, state.bins);
  if (state.picked) {
    const { event, prediction } = state.picked;
    state.picked = prediction >= 0 ? pickPrediction(state, prediction) : pickEvent(state, event);
  }
  refilter();
}

/** After a change of what is shown: list the errors to step through, count, draw. */
function refilter() {
  const { events, predictions } = state.view;
  const isOn = (c, kind) => !state.offClasses.has(c) && state.kinds.has(kind);
  const found = [];
  state.outcome.eventKinds.forEach((kind, event) => {
    if (kind !== KIND.hit && isOn(events.cls[event], kind)) {
      found.push({ ...pickEvent(state, event), ms: events.ms[event] });
    }
  });
  state.outcome.kinds.forEach((kind, prediction) => {
    if ((kind === KIND.false_alarm || kind === KIND.double) && isOn(predictions.cls[prediction], kind)) {
      found.push({ event: -1, ...pickPrediction(state, prediction), ms: predictions.ms[prediction] });
    }
  });
  state.mistakes = found.sort((a, b) => a.ms - b.ms);
  state.overviewWidth = 0;
  drawCounts();
  redraw();
}

function drawCounts() {
  const isOn = (c) => !state.offClasses.has(c);
  const here = tally(state.view, state.outcome, isOn);
  for (const kind of Object.values(KIND)) {
    const place = byId(`count-${kind}`);
    if (place) place.textContent = count(here[kind]);
  }
  const found = here[KIND.hit];
  const made = found + here[KIND.wrong_class] + here[KIND.badly_timed] + here[KIND.double] + here[KIND.false_alarm];
  const real = state.view.events.cls.reduce((sum, c) => sum + isOn(c), 0);
  byId("counts").textContent = (DATA.matches.length > 1 ? "This match: " : "") + toldCounts(found, made, real) +
    (DATA.matches.length > 1 ? ` All matches: ${allMatches(isOn)}` : "");
}

function toldCounts(hits, made, real) {
  if (!IS_LABELLED) return `${plural(made, "prediction")}.`;
  const rates = made && real
    ? `: precision ${percent(hits / made)}, recall ${percent(hits / real)}, F1 ${percent(2 * hits / (made + real))}` : "";
  return `${count(hits)} of ${plural(real, "event")} found, ${plural(made - hits, "other prediction")}${rates}.`;
}

/** Over all matches, from the curves' counts: nothing is left out of them. */
function allMatches(isOn) {
  const sums = [0, 0, 0];
  DATA.runs[state.run].curves.forEach((curve, c) => {
    if (!isOn(c)) return;
    [curve.hits[state.bins[c]], curve.kept[state.bins[c]], curve.events].forEach((each, index) => { sums[index] += each; });
  });
  return toldCounts(...sums);
}

/** The window [from, to] in ms, kept inside the match. */
function setWindow(fromMs, toMs) {
  const length = Math.min(Math.max(toMs - fromMs, NARROWEST_MS), state.view.lengthMs);
  const from = Math.min(Math.max(0, fromMs), state.view.lengthMs - length);
  Object.assign(state, { fromMs: from, toMs: from + length });
  redraw();
}

function zoom(factor, aroundMs = (state.fromMs + state.toMs) / 2) {
  const length = Math.min(Math.max((state.toMs - state.fromMs) * factor, NARROWEST_MS), state.view.lengthMs);
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

/** Pick an event or prediction: mark it, tell of it, play from a second before. */
function pick(picked, { play = true } = {}) {
  state.picked = { event: picked.event, prediction: picked.prediction };
  const told = describe(state.view, state.outcome, state.picked);
  reveal(told.ms);
  seek(told.ms, { play, leadMs: play && hasVideo() ? LEAD_MS : 0 });
  const place = state.mistakes.findIndex((each) => each.event === picked.event && each.prediction === picked.prediction);
  const number = place >= 0 ? ` (error ${place + 1} of ${count(state.mistakes.length)} in this match)` : "";
  tell(`${clock(told.ms)}  ${storyOf(told)}${told.hidden ? ", not shown in the picture" : ""}${number}`);
}

const tell = (text) => { byId("picked").textContent = text; };

const pickedMs = () => {
  const { event, prediction } = state.picked;
  return event >= 0 ? state.view.events.ms[event] : state.view.predictions.ms[prediction];
};

/** To the next (+1) or previous (-1) error, over the border of the match where there is none left. */
function stepMistake(direction) {
  const list = state.mistakes;
  const at = state.picked ? list.findIndex((each) => each.event === state.picked.event && each.prediction === state.picked.prediction) : -1;
  const here = state.picked ? pickedMs() : state.cursorMs;
  let next = at + direction;
  if (at < 0) {
    next = direction > 0 ? list.findIndex((each) => each.ms >= here) : list.findLastIndex((each) => each.ms < here);
    if (next < 0) next = direction > 0 ? list.length : -1;
  }
  if (list[next]) pick(list[next]);
  else stepMatch(direction);
}

function stepMatch(direction) {
  const match = state.match + direction;
  if (!DATA.matches[match]) return tell(direction > 0 ? "No error after this one." : "No error before this one.");
  openMatch(match);
  const next = direction > 0 ? state.mistakes[0] : state.mistakes.at(-1);
  if (next) pick(next);
  else tell(`No error in ${DATA.matches[match].name}.`);
}

/** To the next or previous event, whatever became of it. */
function stepEvent(direction) {
  const { events } = state.view;
  const here = state.picked && state.picked.event >= 0 ? pickedMs() : state.cursorMs + (state.picked ? 0 : 1);
  const isOn = (e) => !state.offClasses.has(events.cls[e]) && state.kinds.has(state.outcome.eventKinds[e]);
  let next = state.picked && state.picked.event >= 0 ? state.picked.event + direction
    : direction > 0 ? lowerBound(events.ms, here) : lowerBound(events.ms, here) - 1;
  while (next >= 0 && next < events.ms.length && !isOn(next)) next += direction;
  if (next >= 0 && next < events.ms.length) pick(pickEvent(state, next));
  else tell(direction > 0 ? "No event after this one." : "No event before this one.");
}

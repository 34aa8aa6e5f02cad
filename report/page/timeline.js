// The timeline's matches, thresholds, filters, picking and stepping.

Object.assign(state, {
  run: 0, match: 0, view: null, outcome: null, bins: [], oneBin: null, mistakes: [], kinds: new Set(Object.values(KIND)), overview: null,
  with: -1, other: null, onlyDiffering: false, // a second run: its index, its view and outcome; whether to step through what differs
});

function openMatch(match, run = state.run) {
  Object.assign(state, { match, run, view: viewOf(run, match), picked: null });
  state.lengthMs = state.view.lengthMs;
  Object.assign(state, { fromMs: 0, toMs: Math.min(FIRST_WINDOW_MS, state.lengthMs), cursorMs: 0 });
  judge();
  openVideo();
  byId("match").value = String(match);
  tell("");
}

/** Sort the match out again, after a change of match, run or threshold. */
function judge() {
  const curves = DATA.runs[state.run].curves;
  state.bins = curves.map((curve) => state.oneBin ?? curve.best);
  state.outcome = sortOut(state.view, state.bins);
  state.other = otherRun();
  if (state.picked) {
    const { event, prediction } = state.picked;
    state.picked = prediction >= 0 ? pickPrediction(state, prediction) : pickEvent(state, event);
  }
  refilter();
}

/** The second run in this match at thresholds of its own; null where none is compared. */
function otherRun() {
  if (state.with < 0) return null;
  const view = viewOf(state.with, state.match);
  const bins = DATA.runs[state.with].curves.map((curve) => state.oneBin ?? curve.best);
  return { view, outcome: sortOut(view, bins), name: DATA.runs[state.with].name };
}

/** Whether only one of the two runs finds an event: 1 the first, 2 the second, 0 both or none. */
function differs(event) {
  const [first, second] = [state.outcome, state.other.outcome].map(({ eventKinds }) => eventKinds[event] === KIND.hit);
  return first === second ? 0 : first ? 1 : 2;
}

/** After a change of what is shown: list the errors to step through, count, draw. */
function refilter() {
  const { events, predictions } = state.view;
  const isOn = (c, kind) => !state.offClasses.has(c) && state.kinds.has(kind);
  const found = [];
  const isListed = (kind, event) => (state.onlyDiffering ? differs(event) : kind !== KIND.hit && state.kinds.has(kind));
  state.outcome.eventKinds.forEach((kind, event) => {
    if (isListed(kind, event) && !state.offClasses.has(events.cls[event])) {
      found.push({ ...pickEvent(state, event), ms: events.ms[event] });
    }
  });
  state.outcome.kinds.forEach((kind, prediction) => {
    if (!state.onlyDiffering && (kind === KIND.false_alarm || kind === KIND.double) && isOn(predictions.cls[prediction], kind)) {
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
    (DATA.matches.length > 1 ? ` All matches: ${allMatches(isOn)}` : "") + (state.other && IS_LABELLED ? ` ${toldDifference(isOn)}` : "");
}

/** How many events of this match only one of the two runs finds. */
function toldDifference(isOn) {
  const alone = [0, 0, 0];
  state.view.events.cls.forEach((c, event) => { alone[differs(event)] += isOn(c); });
  return `Here ${DATA.runs[state.run].name} alone finds ${count(alone[1])}, ${state.other.name} alone ${count(alone[2])}.`;
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

/** Pick an event or prediction: mark it, tell of it, play from a second before. */
function pick(picked, { play = true } = {}) {
  state.picked = { event: picked.event, prediction: picked.prediction };
  const told = describe(state.view, state.outcome, state.picked);
  reveal(told.ms);
  seek(told.ms, { play, leadMs: play && hasVideo() ? LEAD_MS : 0 });
  const place = state.mistakes.findIndex((each) => each.event === picked.event && each.prediction === picked.prediction);
  const number = place >= 0 ? ` (${state.onlyDiffering ? "difference" : "error"} ${place + 1} of ${count(state.mistakes.length)} in this match)` : "";
  tell(`${clock(told.ms)}  ${storyOf(told)}${told.hidden ? ", not shown in the picture" : ""}${number}${otherStory(picked.event)}`);
  noteAddress(told.ms);
}

/** What the second run makes of an event. */
function otherStory(event) {
  if (!state.other || event < 0) return "";
  const { view, outcome, name } = state.other;
  return `\n${name}: ${storyOf(describe(view, outcome, { event, prediction: outcome.eventPartners[event] }))}`;
}

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
  const what = state.onlyDiffering ? "difference" : "error";
  if (!DATA.matches[match]) return tell(direction > 0 ? `No ${what} after this one.` : `No ${what} before this one.`);
  openMatch(match);
  const next = direction > 0 ? state.mistakes[0] : state.mistakes.at(-1);
  if (next) pick(next);
  else tell(`No ${what} in ${DATA.matches[match].name}.`);
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

function noteAddress(ms) {
  const run = DATA.runs.length > 1 ? DATA.runs[state.run].name : null;
  writeAddress(DATA.matches[state.match].name, ms, { run, with: state.other ? state.other.name : null });
}

/** Go to where the address leads; addresses of sections are left to the browser. */
function goToAddress() {
  const asked = askedAddress();
  const match = DATA.matches.findIndex(({ name }) => name === asked.match);
  if (match < 0) return;
  const [run, other] = [asked.run, asked.with].map((wanted) => DATA.runs.findIndex(({ name }) => name === wanted));
  if (run >= 0 && run !== currentRun) chooseRun(run);
  if (other >= 0) compareWith(other);
  openMatch(match);
  byId("timeline").scrollIntoView({ block: "start" });
  if (Number.isNaN(asked.ms)) return;
  const [event, prediction] = [state.view.events, state.view.predictions].map((of) => {
    const place = lowerBound(of.ms, asked.ms - 1);
    return of.ms[place] <= asked.ms + 1 ? place : -1;
  });
  if (event >= 0) pick(pickEvent(state, event), { play: false });
  else if (prediction >= 0) pick(pickPrediction(state, prediction), { play: false });
  else stepTo(asked.ms);
}

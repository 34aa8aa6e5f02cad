// Opens matches on the label page and starts it.

const cures = () => [copyButton()];
const copyButton = () => el("button", { type: "button", on: { click: () => order(`/api/match/${state.match}/copy`) } },
  "Make a copy that plays");
let numCopies = 0;

async function openMatch(match, ms = NaN) {
  await settled();
  const opened = ++talk.opened;
  const found = await ask(`/api/match/${match}`);
  if (opened !== talk.opened) return;
  const { seconds, fps } = page.matches[match];
  const times = unpack(found.frame_ms, Float64Array);
  Object.assign(frames, { times: times.length ? times : null, stepMs: 1000 / fps });
  const last = Math.max(0, ...Object.values(found.items).map((item) => item.to_ms ?? item.ms));
  const lengthMs = Math.max(1000 * seconds, (times.at(-1) ?? 0) + frames.stepMs, last);
  Object.assign(state, { match, lengthMs, fromMs: 0, toMs: Math.min(FIRST_WINDOW_MS, lengthMs), cursorMs: 0, picked: null, inMs: null, isOpen: true });
  talk.seq = found.seq;
  loadItems(Object.entries(found.items));
  setProposals(found.proposals);
  byId("match").value = String(match);
  drawClasses();
  changed();
  playMatch();
  fitScreen();
  seek(0);
  if (ms >= 0) goTo(ms);
}

function goTo(ms) {
  const id = CLASSES.map((_, c) => spotOn(c, Math.round(ms))).find(Boolean);
  if (id) pickItem(id, { play: false });
  else stepTo(frameMs(frameNear(ms)));
}

/** Load the video, or say why none plays and offer a copy. */
function playMatch() {
  const { video: source, video_problem: problem, can_copy: canCopy } = page.matches[state.match];
  loadSource(source ? `${source}?copy=${numCopies}` : null, problem || "This match has no video.");
  if (!source) showNoVideo(problem || "This match has no video.", ...(canCopy ? cures() : []));
}

/** A copy is made: play it from where we are. */
async function copied() {
  page = await ask("/api/page");
  numCopies++;
  const at = state.cursorMs;
  playMatch();
  fitScreen();
  seek(at);
}

async function fetchProposals() {
  const { opened } = talk;
  const { proposals } = await ask(`/api/match/${state.match}`);
  if (opened !== talk.opened) return;
  setProposals(proposals);
  changed();
}

function goToAddress() {
  const asked = askedAddress();
  const match = page.matches.findIndex(({ id }) => id === asked.match);
  if (match >= 0 && match !== state.match) openMatch(match, asked.ms);
  else if (match >= 0 && asked.ms >= 0) goTo(asked.ms);
}

function buildLabelPage() {
  show("player", ...buildVideo());
  show("transport",
    toolButton("◂ spot", "Previous spot (a)", () => stepSpot(-1)), toolButton("spot ▸", "Next spot (d)", () => stepSpot(1)),
    toolButton("◂ frame", "One frame back (←)", () => stepFrame(-1)), toolButton("frame ▸", "One frame on (→)", () => stepFrame(1)),
    toolButton("from", "Everything is marked from here (i)", beginStretch), toolButton("to", "Everything is marked up to here (o)", endStretch),
    toolButton("loop", "Loop around what is picked, at half speed (r)", toggleLoop, { id: "loop", "aria-pressed": "false" }),
    el("label", {}, "Speed ", speedChoice()), el("output", { id: "now", "aria-label": "Time" }, clock(0, 3)));
  show("tools", toolButton("Undo", "Undo (ctrl z)", () => undo("undo")), toolButton("Redo", "Redo (ctrl shift z)", () => undo("redo")),
    exportMenu(), toolButton("Keys ?", "All keys (?)", () => byId("help").showModal()));
  buildLanes("Timeline: one lane per class, spots below the line, proposals above it. Question mark lists all keys.",
    "The whole match: open proposals above the line, spots below it; drag the window",
    "Below each line: what is marked; drag a spot to move it. Above it: what the model proposes, as high as it is sure, and its confidence. " +
      "The band on the axis: where everything is marked.");
  buildHelp("Keys", KEYS);
  buildLearn();
  show("match", ...page.matches.map(({ name }, index) => el("option", { value: index }, name)));
  byId("match").addEventListener("change", (event) => openMatch(Number(event.target.value)));
  listenToPointer({ click, find: tipOf, grab });
  listenToKeys(commandOf);
  window.addEventListener("hashchange", goToAddress);
  // after the mouse has used a control, keys are for the lanes again
  const toLanes = () => { if (!document.querySelector("dialog[open]")) lanesCanvas.focus({ preventScroll: true }); };
  document.addEventListener("click", (event) => { if (event.detail && event.target.closest("button, [type=checkbox]")) toLanes(); });
  document.addEventListener("change", (event) => { if (event.target.matches("select")) toLanes(); });
}

page = await ask("/api/page");
document.title = page.title;
CLASSES.push(...page.classes);
buildLabelPage();
const wanted = askedAddress();
await openMatch(Math.max(0, page.matches.findIndex(({ id }) => id === wanted.match)), wanted.ms);
window.basLabel = { state, items, talk, proposed, frames, drawNow: drawTimeline, setWindow, settled, isSteady,
  place: (c, ms, isSpot) => [layout.x(ms), layout.base(layout.lanes.indexOf(c)) + (isSpot ? 5 : -4)] };
keepAsking();
document.documentElement.dataset.ready = "true";

// Puts the label page together: placing, moving and deleting spots, stretches, keys.

const KEYS = [
  ["1–9, 0, b …", "mark a spot of that class in the frame shown; on a proposal: accept it as that class"],
  ["shift 1–9 …", "give the picked spot that class"],
  ["← →", "one frame back, on; with shift: a second"], ["j k l", "back, stand, on; again: faster"], ["space", "play, pause"],
  ["a, d", "previous, next spot"], ["p, n", "previous, next proposal"], ["enter", "accept the proposal"], ["x, backspace", "reject it"],
  ["alt ← →", "move what is picked by a frame; or drag a spot"], ["delete", "delete what is picked"],
  ["ctrl z", "undo; with shift: redo"], ["i, o", "from here, to here: everything is marked"], ["r", "loop around what is picked, at half speed"],
  ["+ −, wheel", "zoom"], ["[ ], drag", "pan"], ["esc", "pick nothing"], ["?", "this help"],
];
let page = null; // what the server says of itself: matches, classes, formats
Object.assign(state, { match: 0, isOpen: false, inMs: null, up: [], down: [] });

const snapped = (ms) => Math.round(frameMs(frameNear(ms)));
const findSource = () => hasVideo();

/** The instant of what is picked, or null. */
function pickedMs() {
  if (!state.picked) return null;
  if (state.picked.proposal >= 0) return state.picked.ms;
  const item = items.get(state.picked.id);
  return item ? msOf(item) : null;
}

function cursorMoved() {
  byId("now").textContent = `${clock(state.cursorMs, 3)}  frame ${count(frameNear(state.cursorMs))}`;
}

/** After any change of items: numbers, list and lanes. */
function changed() {
  if (state.picked?.id && !items.has(state.picked.id)) state.picked = null;
  state.overviewWidth = 0;
  drawNumbers();
  drawNext();
  drawStatus();
  redraw();
}

const proposalStory = (p) => `Proposal: ${CLASSES[proposed.cls[p]]}, confidence ${proposed.conf[p].toFixed(2)}`;

/** After another pick: tell of it, and put it into the address. */
function changedPick() {
  const ms = pickedMs();
  if (playing.loopMs !== null && ms !== null) playing.loopMs = ms;
  if (ms !== null) writeAddress(page.matches[state.match].id, ms);
  const { proposal: p } = state.picked ?? {};
  const item = items.get(state.picked?.id);
  const by = item?.by ? ` by ${item.by}` : "";
  tell(p >= 0 ? `${clock(ms, 3)}  ${proposalStory(p)}. Enter accepts, x rejects, a class key accepts it as that class.`
    : !item ? "" : item.kind === "stretch" ? `Everything is marked from ${clock(item.from_ms)} to ${clock(item.to_ms)}${by}. Delete takes this back.`
      : `${clock(ms, 3)}  ${item.kind === "spot" ? item.label : `No ${item.label} here`}${by}`);
  drawNext();
  redraw();
}

function unpick() {
  state.picked = null;
  changedPick();
}

function pickItem(id, { play = true } = {}) {
  state.picked = { id };
  const ms = pickedMs();
  if (play && items.get(id).kind !== "stretch") playAround(ms);
  else stepTo(ms);
  changedPick();
}

/** Play from a second before, or round and round where that is on. */
function playAround(ms) {
  reveal(ms);
  if (playing.loopMs !== null) playing.loopMs = ms;
  seek(ms, { play: true, leadMs: hasVideo() ? LEAD_MS : 0 });
}

function toggleLoop() {
  const isOn = playing.loopMs === null;
  playing.loopMs = isOn ? pickedMs() ?? state.cursorMs : null;
  byId("loop").setAttribute("aria-pressed", String(isOn));
  setSpeed(isOn ? 0.5 : 1);
  if (isOn) playAround(playing.loopMs);
}

/** A spot of class `c` in the frame shown; on a proposal, its answer. */
function classKey(c) {
  if (state.picked?.proposal >= 0) {
    accept(c);
    return;
  }
  const ms = snapped(state.cursorMs);
  const id = spotOn(c, ms) ?? newId();
  if (!items.has(id)) change([[id, { kind: "spot", ms, label: CLASSES[c] }]]);
  state.picked = { id };
  changedPick();
}

/** Another class for the spot that is picked; where there is one of that class already, the two become one. */
function relabel(c) {
  const { picked } = state;
  const item = items.get(picked?.id);
  if (item?.kind !== "spot") {
    classKey(c);
    return;
  }
  const other = spotOn(c, item.ms);
  if (other === picked.id) return;
  change([[picked.id, other ? null : { ...item, label: CLASSES[c] }]]);
  if (other) state.picked = { id: other };
  changedPick();
}

/** Move what is picked by frames; the video shows where it is then. */
function nudge(direction) {
  const { picked } = state;
  const ms = pickedMs();
  const item = items.get(picked?.id);
  if (ms === null || item?.kind === "stretch") return;
  const to = Math.round(frameMs(frameNear(ms) + direction));
  if (picked.proposal >= 0) picked.ms = to;
  else change([[picked.id, { ...item, ms: to }]]);
  if (hasVideo()) video.pause();
  stepTo(to);
  changedPick();
}

function deletePicked() {
  const id = state.picked?.id;
  if (!items.has(id)) return;
  change([[id, null]]);
  unpick();
}

/** From here on everything is marked, up to where `o` is pressed. */
function beginStretch() {
  state.inMs = snapped(state.cursorMs);
  tell(`Everything is marked from ${clock(state.inMs)} on: press o where that ends.`);
  redraw();
}

/** Up to here everything is marked: since `i`, else since the last stretch before. Stretches that touch become one. */
function endStretch() {
  const to = snapped(state.cursorMs);
  const before = stretches.filter(({ to_ms: end }) => end <= to).at(-1);
  const ends = [state.inMs ?? before?.to_ms ?? 0, to].sort((a, b) => a - b);
  state.inMs = null;
  if (ends[0] === ends[1]) return;
  const touched = stretches.filter((each) => each.from_ms <= ends[1] && each.to_ms >= ends[0]);
  const after = { kind: "stretch", from_ms: Math.min(ends[0], ...touched.map((each) => each.from_ms)),
    to_ms: Math.max(ends[1], ...touched.map((each) => each.to_ms)) };
  change([...touched.map(({ id }) => [id, null]), [newId(), after]]);
  tell(`Everything is marked from ${clock(after.from_ms)} to ${clock(after.to_ms)}.`);
}

function stepSpot(direction) {
  const id = neighbour(direction);
  if (id) pickItem(id);
  else tell(direction > 0 ? "No spot after this one." : "No spot before this one.");
}

const onProposal = (act) => () => {
  if (state.picked?.proposal >= 0) act(state.picked.proposal);
  else stepProposal(1);
};

const COMMANDS = {
  ...COMMON_KEYS, a: () => stepSpot(-1), d: () => stepSpot(1), p: () => stepProposal(-1), n: () => stepProposal(1),
  j: () => shuttle(-1), k: () => shuttle(0), l: () => shuttle(1), i: beginStretch, o: endStretch, r: toggleLoop, Escape: unpick,
  Enter: onProposal((p) => accept(proposed.cls[p])), x: onProposal(reject), Delete: deletePicked,
  0: () => setWindow(0, state.lengthMs), // with fewer than ten classes
  Backspace: () => (state.picked?.proposal >= 0 ? reject() : deletePicked()),
};

function commandOf(event) {
  const isCommand = event.ctrlKey || event.metaKey;
  if (isCommand) return event.key.toLowerCase() === "z" ? () => undo(event.shiftKey ? "redo" : "undo") : null;
  const arrow = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (arrow && event.altKey) return () => nudge(arrow);
  if (arrow && event.shiftKey) return () => stepSeconds(arrow);
  if (event.altKey) return null;
  const c = FREE_KEYS.indexOf(/^Digit\d$/.test(event.code) ? event.code.slice(5) : event.key.toLowerCase());
  const isClass = c >= 0 && c < CLASSES.length;
  if (isClass) return () => (event.shiftKey ? relabel(c) : classKey(c));
  return COMMANDS[event.key];
}

function click(x, y) {
  const found = markAt(x, y);
  if (found?.id) return pickItem(found.id);
  if (found) return pickProposal(found.proposal);
  if (x < layout.left) return undefined;
  state.picked = null;
  changedPick();
  return seek(frameMs(frameNear(clamp(layout.ms(x), 0, state.lengthMs))));
}

function tipOf(x, y) {
  const found = markAt(x, y);
  if (!found) return "";
  if (found.proposal >= 0) return `${clock(proposed.ms[found.proposal])}  ${proposalStory(found.proposal)}`;
  const item = items.get(found.id);
  if (item.kind === "stretch") return "everything is marked here";
  return `${clock(item.ms, 3)}  ${item.kind === "spot" ? item.label : `no ${item.label}`}, by ${item.by ?? page.person}`;
}

/** A spot under the pointer, to be dragged along its lane: the video shows each frame on the way. */
function grab(x, y) {
  const id = markAt(x, y)?.id;
  const before = items.get(id);
  if (before?.kind !== "spot") return null;
  return {
    move: (to) => {
      const ms = snapped(clamp(layout.ms(to), 0, state.lengthMs));
      putItem(id, { ...before, ms });
      state.picked = { id };
      if (hasVideo()) video.pause();
      seek(ms);
    },
    drop: () => {
      const after = items.get(id);
      if (after.ms !== before.ms) change([[id, after, before]]);
      changedPick();
    },
  };
}

function toggleClass(c, isOn) {
  if (isOn) state.offClasses.delete(c);
  else state.offClasses.add(c);
  changed();
  fitScreen();
}

/** The list of classes is another one: for everybody, as it comes with the news. */
function classesChanged(names) {
  setProposals(null); // they number the classes as they were
  setClasses(names);
  state.offClasses.clear();
  [palette, widest] = [null, 0];
  drawClasses();
  fetchProposals();
  changed();
  fitScreen();
}

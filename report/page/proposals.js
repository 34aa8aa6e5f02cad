// What the model proposes: which to look at next, accepting and rejecting.

const proposed = {
  version: -1, ms: [], cls: [], conf: [], teach: [], unsure: [], lanes: [], curves: null, rows: 0, fps: 25,
  order: "teach", sorted: [], // indices in the order in which to look at them
};
const LISTED = 8;

/** Take over what the server proposes; null: nothing yet. */
function setProposals(found) {
  const { ms = [], cls = [], conf = [], teach = [], unsure = [] } = found ?? {};
  const version = found?.version ?? learnNews?.train.version ?? 0;
  Object.assign(proposed, { ms, cls, conf, teach, unsure, version, curves: null, rows: found?.curve_rows ?? 0, fps: found?.curve_fps ?? 25 });
  proposed.lanes = CLASSES.map(() => ({ ms: [], ids: [] }));
  cls.forEach((c, p) => {
    proposed.lanes[c]?.ms.push(ms[p]);
    proposed.lanes[c]?.ids.push(p);
  });
  if (state.picked?.proposal >= 0) state.picked = null;
  sortProposals();
  if (found) loadCurves(found.version, talk.opened);
}

async function loadCurves(version, opened) {
  const answer = await fetch(`/api/match/${state.match}/curves?version=${version}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const isOurs = answer.ok && opened === talk.opened && version === proposed.version && bytes.length === CLASSES.length * proposed.rows;
  if (isOurs) proposed.curves = CLASSES.map((_, c) => curveOf(bytes.subarray(c * proposed.rows, (c + 1) * proposed.rows)));
  redraw();
}

const COARSE = 64; // rows to one of the coarse curve, for wide views

function curveOf(fine) {
  const coarse = new Uint8Array(Math.ceil(fine.length / COARSE));
  for (let row = 0; row < fine.length; row++) {
    const place = Math.floor(row / COARSE);
    if (fine[row] > coarse[place]) coarse[place] = fine[row];
  }
  return { fine, coarse };
}

function sortProposals() {
  const { order, teach, unsure, conf, ms } = proposed;
  const key = { teach: (p) => -teach[p], unsure: (p) => -unsure[p], confidence: (p) => -conf[p], time: (p) => ms[p] }[order];
  proposed.sorted = proposed.ms.map((_, p) => p).sort((a, b) => key(a) - key(b) || a - b);
}

const isOpen = (p) => !state.offClasses.has(proposed.cls[p]) && !isAnswered(proposed.cls[p], proposed.ms[p]);

/** Up to so many open proposals from a place of the order on, and from its start again. */
function openFrom(start, most) {
  const found = [];
  for (let step = 0; step < proposed.sorted.length && found.length < most; step++) {
    const p = proposed.sorted[(start + step) % proposed.sorted.length];
    if (isOpen(p)) found.push(p);
  }
  return found;
}

const numOpen = () => proposed.sorted.reduce((sum, p) => sum + isOpen(p), 0);

/** To the next (+1) or previous (-1) open proposal in the order. */
function stepProposal(direction) {
  const { sorted } = proposed;
  const at = state.picked?.proposal >= 0 ? sorted.indexOf(state.picked.proposal) : direction > 0 ? -1 : sorted.length;
  for (let place = at + direction; place >= 0 && place < sorted.length; place += direction) {
    if (isOpen(sorted[place])) {
      pickProposal(sorted[place]);
      return;
    }
  }
  tell(sorted.length ? `No open proposal ${direction > 0 ? "after" : "before"} this one.` : "Nothing is proposed yet: mark some spots, then train.");
}

/** After an answer: on with the next one in the order, or with the first that is left. */
function nextAfter(p) {
  const [next] = openFrom(proposed.sorted.indexOf(p) + 1, 1);
  if (next !== undefined) {
    pickProposal(next);
    return;
  }
  unpick();
  tell("All proposals are answered. Train again, or mark more.");
}

function pickProposal(p) {
  state.picked = { proposal: p, ms: snapped(proposed.ms[p]) };
  playAround(state.picked.ms);
  changedPick();
}

/** Make a spot of the picked proposal, as of class `c`; where it was of another, that one is rejected. */
function accept(c) {
  const { proposal: p, ms } = state.picked;
  const own = proposed.cls[p];
  const changes = [[newId(), { kind: "spot", ms, label: CLASSES[c] }]];
  const isElsewhere = c !== own || Math.abs(ms - proposed.ms[p]) > NEAR_MS; // nudged far: there was none where it was proposed
  if (isElsewhere) changes.push([newId(), { kind: "reject", ms: snapped(proposed.ms[p]), label: CLASSES[own] }]);
  change(changes);
  nextAfter(p);
}

function reject() {
  const { proposal: p } = state.picked;
  change([[newId(), { kind: "reject", ms: snapped(proposed.ms[p]), label: CLASSES[proposed.cls[p]] }]]);
  nextAfter(p);
}

/** The list of what to look at next. */
function drawNext() {
  const choice = el("select", { "aria-label": "Order", on: { change: () => {
    proposed.order = choice.value;
    sortProposals();
    drawNext();
  } } }, [["teach", "teaches most"], ["unsure", "least sure"], ["confidence", "surest"], ["time", "time"]].map(([value, text]) =>
    el("option", { value, selected: value === proposed.order }, text)));
  const picked = state.picked?.proposal ?? -1;
  const start = picked >= 0 ? proposed.sorted.indexOf(picked) : 0;
  const rows = openFrom(start, LISTED).map((p) => el("li", {},
    el("button", { type: "button", class: "link", "aria-pressed": String(p === picked), on: { click: () => pickProposal(p) } },
      el("span", { class: "swatch", style: { "background-color": classColour(proposed.cls[p]) } }),
      el("span", {}, clock(proposed.ms[p])), el("span", { class: "name" }, CLASSES[proposed.cls[p]]),
      el("span", { class: "num" }, proposed.conf[p].toFixed(2)))));
  show("next",
    el("div", { class: "row" }, el("h2", {}, "Look at next"), choice, el("span", { class: "quiet" }, `${count(numOpen())} open`)),
    rows.length ? el("ol", { class: "next-list" }, rows)
      : el("p", { class: "hint" }, proposed.sorted.length ? "All are answered." : "The model proposes here once it is trained."));
}

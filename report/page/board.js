// The report's video with its buttons, and the lamps of what happens at this instant.

const LAMP_MS = 480;
let lamps = [];

function buildPlayer() {
  const button = (label, title, handler) => el("button", { type: "button", title, on: { click: handler } }, label);
  show("player", ...buildVideo());
  show("transport",
    button("◂ error", "Previous error (p)", () => stepMistake(-1)), button("error ▸", "Next error (n)", () => stepMistake(1)),
    button("◂ event", "Previous event (a)", () => stepEvent(-1)), button("event ▸", "Next event (d)", () => stepEvent(1)),
    button("◂ frame", "One frame back (←)", () => stepFrame(-1)), button("frame ▸", "One frame on (→)", () => stepFrame(1)),
    el("label", {}, "Speed ", speedChoice()), el("output", { id: "now", "aria-label": "Time" }, clock(0)));
  lamps = CLASSES.map((label, c) => {
    const [event, prediction] = ["event", "prediction"].map((what) => el("span", { class: `lamp ${what}` }));
    const box = el("input", { type: "checkbox", value: c, checked: true, on: { change: (change) => toggleClass(c, change.target.checked) } });
    const swatch = el("span", { class: "swatch", style: { "background-color": classColour(c) } });
    return { event, prediction,
      row: el("li", {}, el("label", { class: "lamp-name", title: label }, box, swatch, el("span", {}, label)), event, prediction) };
  });
  const all = el("input", { type: "checkbox", value: -1, checked: true,
    on: { change: () => setOffClasses(all.checked ? [] : CLASSES.keys()) } });
  show("board",
    el("div", { class: "board-head" }, el("label", {}, all, " All classes"), el("span", {}, "Lamps: label, prediction")),
    el("ul", {}, lamps.map((lamp) => lamp.row)));
}

/** The whole video of the match, or the clip around an instant where there are only clips; whether anything plays. */
function findSource(ms) {
  const { video: whole, clips = [] } = DATA.matches[state.match];
  if (whole || !clips.length) return hasVideo();
  const isIn = ([from, to]) => ms >= from && ms < to;
  const clip = clips.filter(isIn).sort(([, a], [, b]) => b - a)[0]; // of several the one that goes on for longest
  if (clip && hasVideo() && playing.beginsMs === clip[0] && playing.endsMs === clip[1]) return true;
  if (clip) loadSource(clip[2], "", { beginsMs: clip[0], endsMs: clip[1] });
  else loadSource(null, "No clip of this moment: this folder holds clips of the worst errors and the surest hits alone.");
  return Boolean(clip);
}

function openVideo() {
  const { video: whole, clips = [] } = DATA.matches[state.match];
  loadSource(whole, clips.length ? "Pick an error or a hit to see its clip."
    : "No video of this match is linked. Make the page again with --videos DATA-SET to play it; the timeline works without.");
  light();
}

const cursorMoved = () => light();
const cures = () => [];

/** Light the lamps of what was labelled and predicted within the last moments. */
function light() {
  byId("now").textContent = clock(state.cursorMs);
  const { events, predictions } = state.view;
  lamps.forEach((lamp, c) => {
    const event = latest(events, c);
    const prediction = latest(predictions, c, (p) => state.outcome.kinds[p] !== KIND.below);
    setLamp(lamp.event, event < 0 ? null : state.outcome.eventKinds[event], "●");
    setLamp(lamp.prediction, prediction < 0 ? null : state.outcome.kinds[prediction],
      prediction < 0 ? "" : predictions.conf[prediction].toFixed(2));
  });
}

function latest(of, c, isOn = () => true) {
  const laneMs = of.lanesMs[c];
  for (let place = lowerBound(laneMs, state.cursorMs + FRAME_MS / 2) - 1; place >= 0; place--) {
    if (laneMs[place] < state.cursorMs - LAMP_MS) return -1;
    if (isOn(of.lanes[c][place])) return of.lanes[c][place];
  }
  return -1;
}

function setLamp(lamp, kind, text) {
  const name = kind === null ? null : Object.keys(KIND).find((each) => KIND[each] === kind);
  const title = kind === null ? "" : KIND_NAMES[kind];
  if (lamp.dataset.kind === (name ?? "") && lamp.textContent === (name ? text : "")) return;
  lamp.dataset.kind = name ?? "";
  lamp.title = title;
  lamp.textContent = name ? text : "";
}

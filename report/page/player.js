// The video beside the lanes, and the lamps of what happens at this instant.

const LAMP_MS = 480;
let video = null;
let isSeeking = false; // until the event of its end: `video.seeking` is false a little earlier
let waiting = null; // seconds to seek to when the seek under way has ended
let lamps = [];

function buildPlayer() {
  video = el("video", { controls: true, preload: "metadata", playsinline: true, "aria-label": "Video of the match" });
  video.addEventListener("timeupdate", followVideo);
  video.addEventListener("seeked", seekFurther);
  video.addEventListener("play", followWhilePlaying);
  video.addEventListener("error", () => {
    if (video.getAttribute("src")) showNoVideo(playError());
  });
  lamps = CLASSES.map((label, c) => {
    const [event, prediction] = ["event", "prediction"].map((what) => el("span", { class: `lamp ${what}` }));
    const box = el("input", { type: "checkbox", value: c, checked: true, on: { change: (change) => toggleClass(c, change.target.checked) } });
    const swatch = el("span", { class: "swatch", style: { "background-color": classColour(c) } });
    return { event, prediction, row: el("li", {}, el("label", { class: "lamp-name" }, box, swatch, el("span", {}, label)), event, prediction) };
  });
  const all = el("input", { type: "checkbox", value: -1, checked: true,
    on: { change: () => setOffClasses(all.checked ? [] : CLASSES.keys()) } });
  const button = (label, title, handler) => el("button", { type: "button", title, on: { click: handler } }, label);
  show("player",
    el("div", { class: "screen" }, video, el("div", { id: "no-video", role: "status", hidden: true }),
      el("div", { class: "row transport" },
        button("◂ error", "Previous error (p)", () => stepMistake(-1)), button("error ▸", "Next error (n)", () => stepMistake(1)),
        button("◂ event", "Previous event (a)", () => stepEvent(-1)), button("event ▸", "Next event (d)", () => stepEvent(1)),
        button("◂ frame", "One frame back (←)", () => stepFrame(-1)), button("frame ▸", "One frame on (→)", () => stepFrame(1)),
        el("label", {}, "Speed ", speedChoice()), el("output", { id: "now", "aria-label": "Time" }, clock(0)))),
    el("div", { class: "board" },
      el("div", { class: "board-head" }, el("label", { class: "lamp-name" }, all, "Class"), el("span", {}, "Label"), el("span", {}, "Prediction")),
      el("ul", {}, lamps.map((lamp) => lamp.row))));
}

function speedChoice() {
  const choice = el("select", { on: { change: () => { video.playbackRate = Number(choice.value); } } },
    [0.25, 0.5, 1, 2].map((rate) => el("option", { value: rate, selected: rate === 1 }, `${rate}×`)));
  return choice;
}

function loadVideo(match) {
  const source = DATA.matches[match].video;
  video.pause();
  [isSeeking, waiting] = [false, null];
  if (source) {
    byId("no-video").hidden = true;
    video.hidden = false;
    video.setAttribute("src", source);
    video.load();
  } else {
    video.removeAttribute("src");
    showNoVideo("No video of this match is linked. Make the page again with --videos DATA-SET to play it; the timeline works without.");
  }
  light();
}

function showNoVideo(text) {
  video.hidden = true;
  const place = byId("no-video");
  place.hidden = false;
  place.replaceChildren(el("p", {}, text));
}

function playError() {
  const name = decodeURIComponent(video.getAttribute("src"));
  const isMissing = video.error && video.error.code === MediaError.MEDIA_ERR_NETWORK;
  return `This browser cannot play ${name}: ${isMissing ? "the file cannot be read" : "the file is not there, or its format is not known to browsers"}. ` +
    "For another format: ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4. The timeline works without.";
}

const hasVideo = () => !video.hidden && video.getAttribute("src") !== null;

/** Go to an instant (less the lead); with `play` go on from there. Without a video only the cursor moves. */
function seek(ms, { play = false, leadMs = 0 } = {}) {
  const at = Math.max(0, ms - leadMs);
  state.cursorMs = at;
  if (hasVideo()) {
    // Half a frame on: a time on the border of two frames may show either.
    sendVideo((at + FRAME_MS / 2) / 1000);
    if (play) video.play().catch(() => tell("The browser did not start the video: press space."));
  }
  light();
  redraw();
}

/** One seek at a time, the last one wanted wins: Chromium never ends seeks that go there and back at once. */
function sendVideo(seconds) {
  if (isSeeking) {
    waiting = seconds;
    return;
  }
  isSeeking = video.readyState >= HTMLMediaElement.HAVE_METADATA; // before, it is only noted where to start
  video.currentTime = seconds;
}

function seekFurther() {
  const seconds = waiting;
  [isSeeking, waiting] = [false, null];
  if (seconds !== null) sendVideo(seconds);
  else followVideo();
}

function stepFrame(direction) {
  if (hasVideo()) video.pause();
  const frame = Math.round(state.cursorMs / FRAME_MS) + direction;
  const ms = Math.max(0, frame * FRAME_MS);
  reveal(ms);
  seek(ms);
}

function togglePlay() {
  if (!hasVideo()) return;
  if (video.paused) video.play().catch(() => {});
  else video.pause();
}

/** The frame on screen, as its instant. */
function followVideo() {
  if (!hasVideo() || isSeeking) return;
  state.cursorMs = Math.floor((video.currentTime * 1000) / FRAME_MS + 1e-6) * FRAME_MS;
  light();
  const isOut = state.cursorMs < state.fromMs || state.cursorMs > state.toMs;
  if (isOut && !video.paused) reveal(state.cursorMs);
  else redraw();
}

function followWhilePlaying() {
  followVideo();
  if (!video.paused && !video.ended) requestAnimationFrame(followWhilePlaying);
}

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

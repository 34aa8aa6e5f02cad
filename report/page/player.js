// The video: seeking to frames, playing either way, and which frame is on the screen; for both pages.
// A page declares cursorMoved(), called whenever the instant of the cursor has changed; findSource(ms), which loads the file
// that holds an instant where that is needed, and says whether anything plays; cures(), elements beside "cannot play".

/** Frames of the match: their times in ms where those are known, else one every `stepMs`. */
const frames = { times: null, stepMs: 40 };
/** What is played, and the instant of the match at which that file begins. */
const playing = { beginsMs: 0, endsMs: Infinity, loopMs: null, backTimer: 0, backRate: 0 };
/** The frame that was asked for (-1: none), how often, and the frame that the browser said it shows, and when. */
const onScreen = { wanted: -1, tries: 0, shown: -1, shownAt: 0 };
const MOST_TRIES = 3;
const LOOP_MS = 1000; // either side of the spot that is looped around
let video = null;
let isSeeking = false; // until the event of its end: `video.seeking` is false a little earlier
let waiting = null; // ms to seek to when the seek under way has ended

const frameMs = (frame) => (frames.times ? frames.times[clamp(frame, 0, frames.times.length - 1)] : Math.max(0, frame) * frames.stepMs);

/** The frame whose time is nearest. */
function frameNear(ms) {
  if (!frames.times) return Math.max(0, Math.round(ms / frames.stepMs));
  const after = clamp(lowerBound(frames.times, ms), 0, frames.times.length - 1);
  return after > 0 && ms - frames.times[after - 1] <= frames.times[after] - ms ? after - 1 : after;
}

/** The frame that is on the screen at an instant: the last one that has begun. */
function frameShown(ms) {
  if (!frames.times) return Math.max(0, Math.floor(ms / frames.stepMs + 1e-6));
  return Math.max(0, lowerBound(frames.times, ms + 0.01) - 1);
}

/** Where in a frame to seek to: in its middle, as a time on the border of two may show either; 0 and 1 are its ends. */
function withinMs(frame, share = 0.5) {
  if (!frames.times) return (frame + share) * frames.stepMs;
  const begin = frameMs(frame);
  const next = frame + 1 < frames.times.length ? frames.times[frame + 1] : begin + frames.stepMs;
  return begin + share * (next - begin);
}

function buildVideo() {
  video = el("video", { controls: true, preload: "metadata", playsinline: true, tabindex: -1, "aria-label": "Video of the match" });
  video.addEventListener("seeked", seekFurther);
  video.addEventListener("seeking", () => { if (!isSeeking) onScreen.wanted = -1; }); // by the video's own controls
  video.addEventListener("error", () => { if (video.getAttribute("src")) showNoVideo(playError(), ...cures()); });
  if (video.requestVideoFrameCallback) {
    const shown = (now, { mediaTime }) => {
      Object.assign(onScreen, { shown: frameNear(1000 * mediaTime + playing.beginsMs), shownAt: now });
      if (!isSeeking) frameIsShown();
      video.requestVideoFrameCallback(shown);
    };
    video.requestVideoFrameCallback(shown);
  }
  video.addEventListener("play", () => { onScreen.wanted = -1; });
  video.addEventListener("timeupdate", () => { if (performance.now() - onScreen.shownAt > SILENT_MS && !video.paused) followVideo(); });
  video.addEventListener("play", stopBack);
  // the picture that it stops at may be one later than the last it told of: go to that one, so that both agree
  video.addEventListener("pause", () => { if (frames.times && video.paused && !video.ended && onScreen.wanted < 0 && !playing.backRate) seek(state.cursorMs); });
  video.addEventListener("ended", () => { if (playing.loopMs !== null) seek(playing.loopMs - LOOP_MS, { play: true }); });
  return [video, el("div", { id: "no-video", role: "status", hidden: true })];
}

function speedChoice() {
  const choice = el("select", { id: "speed", on: { change: () => { video.playbackRate = Number(choice.value); } } },
    [0.25, 0.5, 1, 2, 4].map((rate) => el("option", { value: rate, selected: rate === 1 }, `${rate}×`)));
  return choice;
}

function setSpeed(rate) {
  video.playbackRate = rate;
  byId("speed").value = String(rate);
}

/** Load a file (or nothing, and say why) that begins at an instant of the match. */
function loadSource(source, why, { beginsMs = 0, endsMs = Infinity } = {}) {
  video.pause();
  stopBack();
  [isSeeking, waiting] = [false, null];
  Object.assign(playing, { beginsMs, endsMs });
  if (!source) {
    video.removeAttribute("src");
    showNoVideo(why);
    return;
  }
  byId("no-video").hidden = true;
  video.hidden = false;
  const rate = video.playbackRate;
  video.setAttribute("src", source);
  video.load();
  video.playbackRate = rate;
}

function showNoVideo(text, ...more) {
  video.hidden = true;
  const place = byId("no-video");
  place.hidden = false;
  place.replaceChildren(el("div", {}, el("p", {}, text), ...more));
}

function playError() {
  const name = decodeURIComponent(video.getAttribute("src"));
  const isMissing = video.error && video.error.code === MediaError.MEDIA_ERR_NETWORK;
  return `This browser cannot play ${name}: ${isMissing ? "the file cannot be read" : "the file is not there, or its format is not known to browsers"}. ` +
    "For another format: ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4. The timeline works without.";
}

/** Whether the frame that was asked for is on the screen, or will never be. */
const isSteady = () => !isSeeking && (!frames.times || onScreen.wanted < 0 || onScreen.shown === onScreen.wanted || onScreen.tries >= MOST_TRIES);

const hasVideo = () => !video.hidden && video.getAttribute("src") !== null;

/** Go to an instant (less the lead); with `play` go on from there. Without a video only the cursor moves. */
function seek(ms, { play = false, leadMs = 0 } = {}) {
  const at = Math.max(0, ms - leadMs);
  state.cursorMs = at;
  stopBack();
  if (findSource(at)) {
    Object.assign(onScreen, { wanted: play || !video.paused ? -1 : frameNear(at), tries: 0 });
    sendVideo(withinMs(frameNear(at)));
    if (play) video.play().catch(() => tell("The browser did not start the video: press space."));
  }
  cursorMoved();
  redraw();
}

/** One seek at a time, the last one wanted wins: Chromium never ends seeks that go there and back at once. */
function sendVideo(ms) {
  if (isSeeking) {
    waiting = ms;
    return;
  }
  isSeeking = video.readyState >= HTMLMediaElement.HAVE_METADATA; // before, it is only noted where to start
  video.currentTime = (ms - playing.beginsMs) / 1000;
}

function seekFurther() {
  const ms = waiting;
  [isSeeking, waiting] = [false, null];
  if (ms !== null) return sendVideo(ms);
  if (!video.requestVideoFrameCallback) return followVideo();
  // the frame may have come before this event, and no other comes then
  const since = performance.now();
  setTimeout(() => { if (!isSeeking && onScreen.shownAt < since && onScreen.shown >= 0) frameIsShown(); }, 100);
  return undefined;
}

const SILENT_MS = 400; // without word from the browser which frame it shows, the clock counts: it is out of sight, or an old browser

/** The browser has said which frame is on the screen. In files of variable rate it errs: then it is asked again, nearer to that
 * frame's end or beginning; what is shown at last is where we are. */
function frameIsShown() {
  const { wanted, shown, tries } = onScreen;
  if (!frames.times) return followVideo(); // a grid that is not the video's own: its clock says where we are
  if (wanted >= 0 && shown !== wanted && video.paused && tries < MOST_TRIES) {
    onScreen.tries++;
    const share = 0.5 ** (tries + 2);
    return sendVideo(withinMs(wanted, shown < wanted ? 1 - share : share));
  }
  return standAt(frameMs(shown));
}

/** The frame on screen by the video's clock, as its instant. */
function followVideo() {
  if (hasVideo() && !isSeeking) standAt(frameMs(frameShown(1000 * video.currentTime + playing.beginsMs)));
}

/** The video shows the frame of this instant. */
function standAt(ms) {
  state.cursorMs = ms;
  cursorMoved();
  const { loopMs } = playing;
  if (loopMs !== null && !video.paused && (ms > loopMs + LOOP_MS || ms < loopMs - LOOP_MS - 500)) seek(loopMs - LOOP_MS);
  const isOut = ms < state.fromMs || ms > state.toMs;
  if (isOut && !video.paused) reveal(ms);
  else redraw();
}

function stepFrame(direction) {
  if (hasVideo()) video.pause();
  const here = onScreen.wanted >= 0 && onScreen.tries >= MOST_TRIES ? onScreen.wanted : frameNear(state.cursorMs); // past a frame that is never shown
  stepTo(frameMs(here + direction));
}

/** Stand still at an instant. */
function stepTo(ms) {
  reveal(ms);
  seek(ms);
}

function stepSeconds(seconds) {
  if (hasVideo()) video.pause();
  stepTo(frameMs(frameNear(clamp(state.cursorMs + 1000 * seconds, 0, state.lengthMs))));
}

function togglePlay() {
  if (!hasVideo()) return;
  if (!video.paused || playing.backRate) standStill();
  else video.play().catch(() => {});
}

function standStill() {
  stopBack();
  video.pause();
}

function stopBack() {
  clearInterval(playing.backTimer);
  Object.assign(playing, { backTimer: 0, backRate: 0 });
}

const BACK_MS = 100; // between pictures, when playing backwards: browsers do not, so it seeks

/** J, K and L of editing programs: back, stand, on; faster each time. */
function shuttle(direction) {
  if (!hasVideo()) return;
  if (direction === 0) {
    standStill();
    setSpeed(1);
  } else if (direction > 0) {
    const isPlaying = !video.paused && !playing.backRate;
    stopBack();
    setSpeed(isPlaying ? Math.min(4, 2 * video.playbackRate) : 1);
    video.play().catch(() => {});
  } else {
    const rate = Math.min(8, 2 * playing.backRate || 1);
    standStill();
    playing.backRate = rate;
    playing.backTimer = setInterval(() => {
      const ms = Math.max(0, state.cursorMs - rate * BACK_MS);
      if (ms === 0) stopBack();
      if (isSeeking) return;
      state.cursorMs = frameMs(frameNear(ms));
      sendVideo(withinMs(frameNear(ms)));
      cursorMoved();
      reveal(ms);
    }, BACK_MS);
  }
}

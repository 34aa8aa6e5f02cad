// Mouse, fingers and keys on lanes and overview, the tip and the help; for both pages.

/** Listen to the lanes. `click(x, y)`, `find(x, y)` gives the text of a tip or "", `grab(x, y)` what a drag moves instead
 * of the window: null, or an object with `move(x)` and `drop()`. */
function listenToPointer({ click, find, grab = () => null }) {
  const pointers = new Map();
  let [moved, held] = [0, null];
  const at = (event) => {
    const box = lanesCanvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  lanesCanvas.addEventListener("pointerdown", (event) => {
    lanesCanvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    [moved, held] = [0, pointers.size === 1 && event.pointerType !== "touch" ? grab(...at(event)) : null];
  });
  lanesCanvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return hover(find, ...at(event));
    const now = at(event);
    moved += Math.abs(now[0] - before[0]);
    const byMs = (now[0] - before[0]) / layout.scale;
    if (pointers.size === 2) pinch(pointers, event.pointerId, now);
    else if (moved > 4 && held) held.move(now[0]);
    else if (moved > 4) setWindow(state.fromMs - byMs, state.toMs - byMs);
    pointers.set(event.pointerId, now);
    return hideTip();
  });
  const end = (event) => {
    const was = pointers.delete(event.pointerId);
    if (!was || pointers.size) return;
    if (held && moved > 4) held.drop();
    else if (event.type === "pointerup" && moved <= 4) click(...at(event));
    held = null;
  };
  lanesCanvas.addEventListener("pointerup", end);
  lanesCanvas.addEventListener("pointercancel", end);
  lanesCanvas.addEventListener("pointerleave", hideTip);
  lanesCanvas.addEventListener("wheel", turnWheel, { passive: false });
  listenToOverview();
}

function pinch(pointers, moving, now) {
  const [other] = [...pointers].filter(([id]) => id !== moving).map(([, point]) => point);
  const [before, after] = [pointers.get(moving), now].map(([x, y]) => Math.hypot(x - other[0], y - other[1]));
  if (after > 10) zoom(before / after, layout.ms((now[0] + other[0]) / 2));
}

function turnWheel(event) {
  const isAll = state.toMs - state.fromMs >= state.lengthMs;
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    event.preventDefault();
    return pan((event.deltaX || event.deltaY) / 1000);
  }
  if (isAll && event.deltaY > 0) return undefined; // nothing left to zoom out of: the page scrolls on
  event.preventDefault();
  const x = event.clientX - lanesCanvas.getBoundingClientRect().left;
  return zoom(Math.exp(event.deltaY / 400), layout.ms(Math.max(x, layout.left)));
}

function hover(find, x, y) {
  const text = find(x, y);
  lanesCanvas.style.cursor = text ? "pointer" : "grab";
  if (!text) return hideTip();
  const tip = byId("tip");
  tip.textContent = text;
  tip.hidden = false;
  const room = lanesCanvas.clientWidth - tip.offsetWidth - 4;
  tip.style.left = `${Math.max(0, Math.min(x + 12, room))}px`;
  tip.style.top = `${y + 18}px`;
  return undefined;
}

const hideTip = () => { byId("tip").hidden = true; };

function listenToOverview() {
  const go = (event) => {
    const box = overviewCanvas.getBoundingClientRect();
    const ms = ((event.clientX - box.left) / box.width) * state.lengthMs;
    const half = (state.toMs - state.fromMs) / 2;
    setWindow(ms - half, ms + half);
  };
  overviewCanvas.addEventListener("pointerdown", (event) => { overviewCanvas.setPointerCapture(event.pointerId); go(event); });
  overviewCanvas.addEventListener("pointermove", (event) => { if (event.buttons) go(event); });
}

/** Keys of both pages, by name. */
const COMMON_KEYS = {
  " ": togglePlay, ArrowLeft: () => stepFrame(-1), ArrowRight: () => stepFrame(1), "+": () => zoom(1 / 1.6), "=": () => zoom(1 / 1.6),
  "-": () => zoom(1.6), "[": () => pan(-0.25), "]": () => pan(0.25), "?": () => byId("help").showModal(),
};

/** Do what `commandOf` says for a key, except where it is typed or is the control's own. */
function listenToKeys(commandOf) {
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const { target } = event;
    const isTyping = target.matches("textarea, input:not([type=range]):not([type=checkbox])") ||
      (target.matches("select") && !event.ctrlKey);
    const isOwn = ([" ", "Enter"].includes(event.key) && target.matches("button, input, summary, a, video")) ||
      (event.key.startsWith("Arrow") && target.matches("input, .scroll, .scroll *"));
    const command = isTyping || isOwn ? null : commandOf(event);
    if (!command) return;
    event.preventDefault();
    command();
  });
}

function buildHelp(title, keys) {
  show("help",
    el("h2", { id: "help-title" }, title),
    el("dl", {}, keys.map(([key, text]) => el("div", {}, el("dt", {}, key), el("dd", {}, text)))),
    el("form", { method: "dialog" }, el("button", {}, "Close")));
}

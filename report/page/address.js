// Links to an instant: `#match=NAME&t=SECONDS` opens it, and the address follows what is picked.

const ADDRESS_MS = 300; // browsers refuse an address that changes hundreds of times a minute
let addressTimer = 0;

function writeAddress(ms) {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => {
    const asked = new URLSearchParams({ match: DATA.matches[state.match].name, t: (ms / 1000).toFixed(3) });
    if (DATA.runs.length > 1) asked.set("run", DATA.runs[state.run].name);
    if (state.with >= 0) asked.set("with", DATA.runs[state.with].name);
    history.replaceState(null, "", `#${asked}`);
  }, ADDRESS_MS);
}

/** Go to where the address leads; addresses of sections are left to the browser. */
function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const match = DATA.matches.findIndex(({ name }) => name === asked.get("match"));
  if (match < 0) return;
  const [run, other] = ["run", "with"].map((key) => DATA.runs.findIndex(({ name }) => name === asked.get(key)));
  if (run >= 0 && run !== currentRun) chooseRun(run);
  if (other >= 0) compareWith(other);
  openMatch(match);
  byId("timeline").scrollIntoView({ block: "start" });
  const ms = 1000 * Number(asked.get("t"));
  if (!(ms >= 0)) return;
  const { events, predictions } = state.view;
  const [event, prediction] = [events, predictions].map((of) => {
    const place = lowerBound(of.ms, ms - 1);
    return of.ms[place] <= ms + 1 ? place : -1;
  });
  if (event >= 0) pick(pickEvent(state, event), { play: false });
  else if (prediction >= 0) pick(pickPrediction(state, prediction), { play: false });
  else {
    reveal(ms);
    seek(ms);
  }
}

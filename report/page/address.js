// Links to an instant, for both pages: `#match=NAME&t=SECONDS` opens it, and the address follows what is picked.

const ADDRESS_MS = 300; // browsers refuse an address that changes hundreds of times a minute
let addressTimer = 0;

/** Put an instant of a match into the address, and what else it needs; what is null is left out. */
function writeAddress(match, ms, more = {}) {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => {
    const said = Object.entries({ match, t: (ms / 1000).toFixed(3), ...more }).filter(([, value]) => value !== null);
    history.replaceState(null, "", `#${new URLSearchParams(said)}`);
  }, ADDRESS_MS);
}

/** What the address asks for: names, and `ms`, which is NaN where it says no instant. */
function askedAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const ms = asked.get("t") ? 1000 * Number(asked.get("t")) : NaN;
  return { match: asked.get("match"), run: asked.get("run"), with: asked.get("with"), ms: ms >= 0 ? ms : NaN };
}

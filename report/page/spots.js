// What is marked in the open match, as this window believes: spots and rejections in lanes of time, stretches.

const CLASSES = [];
/** Id -> item: `kind` spot, reject or stretch, see the server. */
const items = new Map();
/** Per class, in order of time: `ms` and `ids`. */
const lanesOf = { spot: [], reject: [] };
/** `{ id, from_ms, to_ms }` in order of time. */
let stretches = [];
const NEAR_MS = 500; // a proposal this near to a mark of its class is answered

const newId = () => crypto.randomUUID();
const msOf = (item) => (item.kind === "stretch" ? item.from_ms : item.ms);
const laneOf = (item) => lanesOf[item.kind]?.[CLASSES.indexOf(item.label)];

/** Take over a list of classes, and sort all marks into its lanes. */
function setClasses(names) {
  CLASSES.splice(0, CLASSES.length, ...names);
  loadItems(new Map(items));
}

/** Take over all items of a match: [id, item] each. */
function loadItems(found) {
  const ordered = [...found].sort(([, a], [, b]) => msOf(a) - msOf(b));
  items.clear();
  for (const kind of ["spot", "reject"]) lanesOf[kind] = CLASSES.map(() => ({ ms: [], ids: [] }));
  stretches = [];
  for (const [id, item] of ordered) {
    items.set(id, item);
    if (item.kind === "stretch") stretches.push({ id, ...item });
    const lane = laneOf(item);
    if (lane) {
      lane.ms.push(item.ms);
      lane.ids.push(id);
    }
  }
}

/** Put an item in place of what has this id; null takes it away. One insertion into a sorted list, whatever there is. */
function putItem(id, after) {
  const before = items.get(id);
  if (before) takeOut(id, before);
  if (!after) return;
  items.set(id, after);
  if (after.kind === "stretch") stretches = [...stretches, { id, ...after }].sort((a, b) => a.from_ms - b.from_ms);
  const lane = laneOf(after);
  if (!lane) return;
  const place = lowerBound(lane.ms, after.ms);
  lane.ms.splice(place, 0, after.ms);
  lane.ids.splice(place, 0, id);
}

function takeOut(id, before) {
  items.delete(id);
  stretches = before.kind === "stretch" ? stretches.filter((each) => each.id !== id) : stretches;
  const lane = laneOf(before);
  if (!lane) return;
  const place = lane.ids.indexOf(id, lowerBound(lane.ms, before.ms));
  if (place < 0) return;
  lane.ms.splice(place, 1);
  lane.ids.splice(place, 1);
}

/** Whether a mark of the class lies within `NEAR_MS`. */
function isAnswered(c, ms) {
  return ["spot", "reject"].some((kind) => {
    const lane = lanesOf[kind][c].ms;
    return lane[lowerBound(lane, ms - NEAR_MS)] <= ms + NEAR_MS;
  });
}

/** The spot of a class that is on exactly at an instant, or null. */
function spotOn(c, ms) {
  const lane = lanesOf.spot[c];
  const place = lowerBound(lane.ms, ms);
  return lane.ms[place] === ms ? lane.ids[place] : null;
}

/** The next (+1) or previous (-1) spot of the classes that are on, after or before what is picked. */
function neighbour(direction) {
  const here = items.get(state.picked?.id)?.kind === "spot" ? state.picked.id : null;
  const at = [here ? items.get(here).ms : state.cursorMs, here ? CLASSES.indexOf(items.get(here).label) : direction > 0 ? -1 : CLASSES.length];
  let best = null;
  lanesOf.spot.forEach((lane, c) => {
    if (state.offClasses.has(c)) return;
    // spots of one instant are in the order of their classes
    const isPast = direction > 0 ? c > at[1] : c >= at[1];
    let place = lowerBound(lane.ms, isPast ? at[0] : at[0] + 0.5) - (direction > 0 ? 0 : 1);
    if (lane.ids[place] === here && here) place += direction;
    const ms = lane.ms[place];
    if (ms === undefined || (best && (direction > 0 ? ms >= best.ms : ms < best.ms || (ms === best.ms && c < best.c)))) return;
    best = { id: lane.ids[place], ms, c };
  });
  return best?.id ?? null;
}

const numSpots = () => lanesOf.spot.reduce((sum, lane) => sum + lane.ids.length, 0);

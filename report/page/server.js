// Speaks with `bas label`: changes one after another, each on the disk before the next; news once a second.

const NEWS_MS = 1000;
const talk = {
  seq: 0, edits: 0, queue: [], isSending: false, isLost: false, opened: 0, // `opened` counts matches: late answers of others are dropped
  told: new Set(), // notes that were shown
};

/** A JSON answer; a body makes it a POST. An error has the server's words, and `now` where items are other than believed. */
async function ask(path, body) {
  const headers = { "X-Bas": "label", "Content-Type": "application/json" };
  const answer = await fetch(path, body === undefined ? {} : { method: "POST", headers, body: JSON.stringify(body) });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(said.error ?? `The server answers ${answer.status}.`), { isAnswer: true, now: said.now });
  return said;
}

/** POST, and say what went wrong. */
const order = (path, body = {}) => ask(path, body).then(() => askNews(), (error) => tell(error.message));

/** Make changes here at once and on the server in turn: `[id, after]` each, or `[id, after, before]` after a preview. */
function change(changes) {
  const made = changes.map(([id, after, before = items.get(id) ?? null]) => ({ id, before, after }));
  for (const { id, after } of made) putItem(id, after);
  talk.edits++;
  const last = talk.queue.at(-1);
  const isSameMove = talk.queue.length > Number(talk.isSending) && made.length === 1 && last.changes?.length === 1 &&
    last.changes[0].id === made[0].id && last.changes[0].before && last.changes[0].after && made[0].after;
  if (isSameMove) last.changes[0].after = made[0].after; // a held key nudges many times: one change
  else talk.queue.push({ changes: made });
  changed();
  send();
}

/** Take back the last change, or make it again: in turn, after what is still on its way. */
function undo(what) {
  talk.queue.push({ undo: what });
  send();
}

async function send() {
  if (talk.isSending) return;
  talk.isSending = true;
  while (talk.queue.length) {
    const [work] = talk.queue;
    try {
      const base = `/api/match/${state.match}`;
      const answer = work.undo ? await ask(`${base}/${work.undo}`, {}) : await ask(`${base}/changes`, { changes: work.changes });
      if (answer.seq === talk.seq + 1) talk.seq = answer.seq; // nobody else's change lies between
      if (work.undo) undone(work.undo, answer.changes);
      isBack();
    } catch (error) {
      if (!error.isAnswer) {
        isLost();
        await new Promise((wake) => { setTimeout(wake, NEWS_MS); });
        continue; // it is tried again: nothing is lost while this window is open
      }
      refused(work, error);
    }
    talk.edits++;
    talk.queue.shift();
  }
  talk.isSending = false;
  drawStatus();
}

const essence = (item) => (item ? JSON.stringify([item.kind, item.ms, item.label, item.from_ms, item.to_ms]) : "");

/** The server has refused: show what is there, and say why. */
function refused(work, { message, now }) {
  const wanted = work.changes ?? [];
  const isThere = now && wanted.every(({ id, after }) => id in now && essence(now[id]) === essence(after));
  for (const { id, before } of wanted) putItem(id, now && id in now ? now[id] : before);
  for (const [id, item] of Object.entries(now ?? {})) putItem(id, item);
  if (!isThere) tell(message); // else it was made, and only the answer was lost
  changed();
}

function undone(what, changes) {
  if (!changes.length) {
    tell(what === "undo" ? "Nothing left to undo." : "Nothing left to redo.");
    return;
  }
  for (const { id, after } of changes) putItem(id, after);
  const { id, after } = changes.at(-1);
  changed();
  if (after) pickItem(id, { play: false });
  else unpick();
  tell(`${what === "undo" ? "Undone" : "Made again"}: ${plural(changes.length, "change")}.`);
}

function isLost() {
  if (!talk.isLost) tell("The server does not answer: changes wait here until it does. Is `bas label` still running?");
  talk.isLost = true;
  drawStatus();
}

function isBack() {
  if (talk.isLost) tell("The server answers again.");
  talk.isLost = false;
}

/** Ask for news, and take over what other windows and training have changed. */
async function askNews() {
  const { edits, opened } = talk;
  try {
    const news = await ask(`/api/news?match=${state.match}&since=${talk.seq}`);
    isBack();
    if (opened !== talk.opened) return;
    takeNews(news, edits === talk.edits && !talk.queue.length);
  } catch (error) {
    if (error.isAnswer) tell(error.message);
    else isLost();
  }
}

/** Items only where nothing was changed here since it was asked: the next news have them all. */
function takeNews(news, isCalm) {
  if (news.classes.join("\n") !== CLASSES.join("\n")) classesChanged(news.classes);
  if (isCalm) {
    const foreign = news.changes.filter(({ id, after }) => essence(items.get(id)) !== essence(after));
    for (const { id, after } of news.changes) if (after || items.has(id)) putItem(id, after);
    talk.seq = news.seq;
    if (foreign.length) changed();
  }
  for (const note of news.notes.filter((each) => !talk.told.has(each))) {
    talk.told.add(note);
    tell(note);
  }
  learnt(news);
}

/** Wait until everything is on the disk. */
async function settled() {
  while (talk.queue.length) await new Promise((wake) => { setTimeout(wake, 30); });
}

async function keepAsking() {
  await askNews();
  setTimeout(keepAsking, NEWS_MS);
}

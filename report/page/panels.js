// The panels beside the video: classes, training and what labels are worth, and the menus of the bar.

const FREE_KEYS = [..."1234567890bcefghqstuvwyzm"]; // of classes by their place: digits, then letters that do nothing else
const keyOfClass = (c) => FREE_KEYS[c] ?? " ";
let learnNews = null; // the part of the last news about training, copies and features

function drawClasses() {
  const rows = CLASSES.map((label, c) => el("li", {},
    el("label", { class: "lamp-name", title: label },
      el("input", { type: "checkbox", value: c, checked: !state.offClasses.has(c), on: { change: (event) => toggleClass(c, event.target.checked) } }),
      el("span", { class: "swatch", style: { "background-color": classColour(c) } }), el("span", {}, label)),
    el("button", { type: "button", class: "key", title: `Mark ${label} here`, on: { click: () => classKey(c) } }, keyOfClass(c)),
    el("span", { class: "num", id: `count-${c}` }, count(lanesOf.spot[c].ids.length))));
  const isEditing = byId("classes").querySelector("details")?.open;
  const editors = el("ul", {});
  show("classes",
    el("ul", {}, rows),
    el("details", { open: isEditing, on: { toggle: () => editors.replaceChildren(...CLASSES.map(classEditor)) } },
      el("summary", {}, "Edit classes"), editors, newClass()));
}

function classEditor(label, c) {
  const name = el("input", { type: "text", value: label, maxlength: 60, "aria-label": `Name of ${label}`,
    on: { change: () => order("/api/classes", { rename: [label, name.value.trim()] }) } });
  const hasSpots = lanesOf.spot[c].ids.length > 0;
  return el("li", {}, name, toolButton("remove", hasSpots ? "A class with spots cannot go" : `Remove ${label}`,
    () => order("/api/classes", { classes: CLASSES.filter((each) => each !== label) }), { disabled: hasSpots || CLASSES.length < 2 }));
}

function newClass() {
  const name = el("input", { id: "new-class", type: "text", maxlength: 60, placeholder: "new class", "aria-label": "Name of a new class" });
  const add = () => { if (name.value.trim()) order("/api/classes", { classes: [...CLASSES, name.value.trim()] }); };
  name.addEventListener("keydown", (event) => { if (event.key === "Enter") add(); });
  return el("div", { class: "row" }, name, toolButton("Add", "Add this class", add));
}

/** Numbers that a change of spots changes: no list is built anew. */
function drawNumbers() {
  lanesOf.spot.forEach((lane, c) => {
    const place = byId(`count-${c}`);
    if (place) place.textContent = count(lane.ids.length);
  });
}

function buildLearn() {
  const after = el("input", { id: "train-after", type: "number", min: 0, max: 9999, value: 0,
    on: { change: () => order("/api/settings", { train_after: Math.max(0, Math.round(Number(after.value)) || 0) }) } });
  show("learn",
    el("div", { class: "row" }, el("h2", {}, "Learn"),
      el("button", { id: "train", type: "button", on: { click: train } }, "Train"),
      el("label", {}, "after every ", after, " changes"), el("span", { class: "quiet" }, "(0: by the button)")),
    el("progress", { id: "progress", max: 1, value: 0, hidden: true, "aria-label": "Progress" }),
    el("p", { id: "learnt", class: "hint" }),
    el("button", { id: "measure", type: "button", on: { click: () => order("/api/curve") } }, "What are the next labels worth?"),
    el("div", { id: "worth" }),
    agreementPanel());
}

const train = () => order("/api/train", { match: state.match });

/** What news say of training, the learning curve, features and copies. */
function learnt(news) {
  const before = learnNews;
  learnNews = news;
  const { train: training, curve, extract, copy } = news;
  const isBusy = training.state === "running" || curve.state === "running";
  byId("train").disabled = Boolean(news.can_train) || isBusy;
  byId("train").title = news.can_train || "Train on what is marked";
  byId("measure").disabled = Boolean(news.can_train) || isBusy;
  const share = isBusy ? (training.state === "running" ? training : curve).done ?? 0 : extract ? extract.done / extract.total : copy?.done;
  byId("progress").hidden = share === undefined || share === null;
  byId("progress").value = share ?? 0;
  const { about } = training;
  byId("learnt").textContent = training.state === "failed" ? `Training failed: ${training.words}` : news.can_train ? `Not yet: ${news.can_train}.`
    : about?.spots ? `Trained in ${about.seconds.toFixed(1)} s on ${plural(about.spots, "spot")}; ${clock(1000 * about.marked_seconds, 0)} are marked.` : "";
  if (document.activeElement !== byId("train-after") && news.train_after !== undefined) byId("train-after").value = news.train_after;
  if (JSON.stringify(curve) !== JSON.stringify(before?.curve)) drawWorth(curve);
  if (training.version !== proposed.version) fetchProposals();
  if (before?.copy && !copy) copied();
  drawStatus();
}

function drawStatus() {
  const { extract, train: training, curve, copy } = learnNews ?? {};
  const waiting = talk.queue.reduce((sum, { changes }) => sum + (changes?.length ?? 1), 0);
  const parts = [
    talk.isLost ? "no answer from the server" : "", waiting ? `${plural(waiting, "change")} on the way` : `${plural(numSpots(), "spot")}, saved`,
    training?.state === "running" ? training.words || "training" : "", curve?.state === "running" ? curve.words || "measuring" : "",
    extract ? extract.words || "features are being made" : "", copy ? `copy: ${percent(copy.done, 0)} %` : "",
  ];
  byId("status").textContent = parts.filter(Boolean).join(" · ");
}

const WORTH = { width: 300, height: 120, left: 30, right: 10, top: 8, bottom: 20 };

/** mAP against the number of spots, with its interval. */
function drawWorth({ state: now, words, points }) {
  if (now === "failed") return show("worth", el("p", { class: "hint" }, words));
  if (!points.length) return show("worth");
  const { width, height, left, right, top, bottom } = WORTH;
  const most = Math.max(...points.map(({ spots }) => spots));
  const x = (spots) => left + ((width - left - right) * spots) / most;
  const y = (share) => height - bottom - share * (height - top - bottom);
  const line = (of) => of.map(([a, b], index) => `${index ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
  const band = [...points.map(({ spots, high }) => [spots, high]), ...points.map(({ spots, low }) => [spots, low]).reverse()];
  const last = points.at(-1);
  const told = `mAP ${percent(last.map)} (${percent(last.low)} to ${percent(last.high)}) from ${plural(Math.round(last.spots), "spot")}`;
  return show("worth",
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": told },
      [0, 0.5, 1].map((share) => [svg("line", { class: "grid", x1: left, x2: width - right, y1: y(share), y2: y(share) }),
        svg("text", { x: left - 4, y: y(share) + 3, "text-anchor": "end" }, String(100 * share))]).flat(),
      svg("path", { class: "band", d: `${line(band)}Z` }),
      svg("path", { class: "line worth", d: line(points.map(({ spots, map }) => [spots, map])) }),
      points.map(({ spots, map }) => svg("circle", { class: "worth-dot", cx: x(spots), cy: y(map), r: 2.5 })),
      points.map(({ spots }) => svg("text", { x: x(spots), y: height - 6, "text-anchor": "middle" }, String(Math.round(spots))))),
    el("p", { class: "hint" }, `${told}, measured on marked stretches that were left out. Where the line is flat, more labels of this kind change little.`));
}

function agreementPanel() {
  const body = el("div", {});
  const details = el("details", { id: "agreement", on: { toggle: async () => {
    if (!details.open) return;
    const { people } = await ask(`/api/agreement?match=${state.match}`).catch(({ message }) => { tell(message); return { people: [] }; });
    const columns = [["People", false], ["Both marked", true], ["Spots", true], ["Kappa", true], ["Apart, ms", true]];
    const rows = people.map(({ a, b, seconds, spots_a: spotsA, spots_b: spotsB, kappa, median_ms: apart }) => ({
      cells: [`${a}, ${b}`, clock(1000 * seconds, 0), `${spotsA}, ${spotsB}`, kappa?.toFixed(2) ?? "–", apart === null ? "–" : apart.toFixed(0)] }));
    body.replaceChildren(rows.length ? table(columns, rows, { "aria-label": "Agreement" })
      : el("p", { class: "hint" }, "Two people label the same stretch, each with --own-file; here stands how far they agree."));
  } } }, el("summary", {}, "Agreement of two people"), body);
  return details;
}

/** Links that save the spots of the classes that are on. */
function exportMenu() {
  const list = el("ul", {});
  const menu = el("details", { class: "menu", on: { toggle: () => {
    const on = CLASSES.filter((_, c) => !state.offClasses.has(c));
    list.replaceChildren(...page.export_formats.map((format) => el("li", {},
      el("a", { href: `/api/export?${new URLSearchParams({ match: state.match, format, classes: on.join(",") })}`, download: "" }, format))));
  } } }, el("summary", {}, "Export"), list);
  return menu;
}

// Elements and numbers, for both pages. Names of matches, classes and runs are untrusted: they only ever become text.

/** An element: attributes by name, `on` for handlers, children as elements or text. */
function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [type, handler] of Object.entries(value)) element.addEventListener(type, handler);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Put these into an element, in place of what it holds; what is null or empty is left out. */
function show(id, ...children) {
  byId(id).replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
}

const byId = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en-US");
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const percent = (value, digits = 1) => (value === null || value === undefined ? "–" : (100 * value).toFixed(digits));
const signed = (number) => (number > 0 ? `+${number.toFixed(0)}` : number.toFixed(0).replace("-", "−"));
const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

function interval(score) {
  return score.low === null ? "" : `${percent(score.low)} to ${percent(score.high)}`;
}

/** Milliseconds as m:ss.cc, or h:mm:ss.cc from one hour on. */
function clock(ms, digits = 2) {
  const seconds = Math.max(0, ms) / 1000;
  const whole = Math.floor(seconds);
  const rest = digits ? (seconds - whole).toFixed(3).slice(1, 2 + digits) : "";
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const start = hours ? `${hours}:${String(minutes).padStart(2, "0")}` : String(minutes);
  return `${start}:${String(whole % 60).padStart(2, "0")}${rest}`;
}

/** The last folder of an id, for narrow places. */
const shortName = (name) => {
  const parts = name.split("/");
  const last = parts[parts.length - 1];
  return /^[12]$/.test(last) && parts.length > 1 ? `${parts[parts.length - 2]}/${last}` : last;
};

/** A table whose first column heads its rows; `columns` are [title, is a number]; a `note` is put below its row. */
function table(columns, rows, attributes = {}) {
  const cell = (value, index, tag) =>
    el(tag, { class: columns[index][1] ? "num" : null, scope: tag === "th" ? "row" : null }, value);
  const head = columns.map(([title, isNumber]) => el("th", { scope: "col", class: isNumber ? "num" : null }, title));
  const body = rows.flatMap(({ cells, note, ...others }) => [
    el("tr", others, cells.map((value, index) => cell(value, index, index ? "td" : "th"))),
    note ? el("tr", { class: "note" }, el("td", { colspan: columns.length }, note)) : null,
  ]);
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": attributes["aria-label"] },
    el("table", attributes, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

/** A typed array from base64. */
function unpack(text, type) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new type(bytes.buffer);
}

/** First index at which ascending `values` reach `wanted`. */
function lowerBound(values, wanted, start = 0, stop = values.length) {
  while (start < stop) {
    const middle = (start + stop) >> 1;
    if (values[middle] < wanted) start = middle + 1;
    else stop = middle;
  }
  return start;
}

// SPDX-License-Identifier: Apache-2.0
// The ring's page: listens to /ui/events and draws what it hears. What comes from the network is only ever put in as text.
"use strict";

const SLOTS = 10000;
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

// MARK: What is known

/** The latest `ring` event, and the latest `nodes` event. */
let ring = null;
let state = null;
/** By name: number, hue, share, row, arc and what was last shown of the node. */
let members = new Map();
/** Whom the pointer or the keyboard is at, and who was chosen. */
let pointed = null;
let chosen = null;
/** What would be changed: {path, sentence, epoch, seats, gainers}. */
let plan = null;
/** The slot of the key that was looked up, and who holds it. */
let found = null;
/** In this tab's memory alone. */
let token = "";

// MARK: Words and figures

const plural = (count, one, many = one + "s") => `${whole(count)} ${count === 1 ? one : many}`;
const wholeFormat = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const whole = (number) => wholeFormat.format(number);

/** 0.123, 4.56, 78.9, 1,234, 56.7 k: about three digits. */
function short(number) {
  if (number == null) return "–";
  if (number === 0) return "0";
  if (number >= 1e9) return (number / 1e9).toFixed(1) + " G";
  if (number >= 1e6) return (number / 1e6).toFixed(1) + " M";
  if (number >= 1e4) return (number / 1e3).toFixed(1) + " k";
  if (number >= 100) return whole(number);
  return number >= 10 ? number.toFixed(1) : number.toFixed(2);
}

function count(number) {
  if (number == null) return "–";
  return number < 1e5 ? whole(number) : short(number);
}

function bytes(number) {
  if (number == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${unit === 0 || number >= 100 ? number.toFixed(0) : number.toFixed(1)} ${units[unit]}`;
}

const percent = (part) => (part * 100).toFixed(part >= 0.1 || part === 0 ? 1 : 2) + " %";

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

// MARK: The document

/** Sets a text only where it differs, so that nothing is laid out again for nothing. */
function say(element, text) {
  if (element.said === text) return;
  element.said = text;
  element.textContent = text;
}

function mark(element, name, value) {
  if (value == null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function draw(name, attributes = {}, text = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text != null) element.textContent = text;
  return element;
}

const cell = (text, properties = {}) => make("td", { role: "cell", textContent: text, ...properties });

// MARK: Asking

/** Asks this page's own origin. Resolves to {status, text, json()}; rejects where no answer came. */
async function ask(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options, headers: authorization() });
  const text = await answer.text();
  if (isTokenWanted(answer)) wantToken(answer.status, true);
  return { status: answer.status, text: text.trim(), json: () => JSON.parse(text) };
}

/** Not each 403: there are others, which no token helps with. One that another token helps with says so (RFC 6750, section 3.1). */
const isTokenWanted = (answer) => answer.status === 401
  || (answer.status === 403 && /\binsufficient_scope\b/.test(answer.headers.get("WWW-Authenticate") ?? ""));

const authorization = () => (token ? { Authorization: `Bearer ${token}` } : {});

/** Why something was not done, for people: errors are lines of text, or problem details. */
function reason(answer) {
  try {
    const problem = JSON.parse(answer.text);
    return problem.detail ?? problem.title ?? answer.text;
  } catch {
    return answer.text || `The node answered ${answer.status}.`;
  }
}

// MARK: The token

function showTokenPanel(isShown) {
  byId("token-panel").hidden = !isShown;
  byId("token-open").setAttribute("aria-expanded", String(isShown));
}

/** @param isAsked whether the user just did something, and may be led away from it. */
function wantToken(status, isAsked) {
  say(byId("token-why"), token
    ? `The node refuses this token (${status}). Give one that is valid for administration.`
    : `The node wants an admin token (${status}).`);
  showTokenPanel(true);
  if (isAsked) byId("token").focus();
}

byId("token-open").addEventListener("click", () => {
  showTokenPanel(byId("token-panel").hidden);
  if (!byId("token-panel").hidden) byId("token").focus();
});

byId("token-panel").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  if (/[^\x21-\x7e]/.test(token)) {
    token = "";
    return say(byId("token-why"), "A token has no blanks, and no letters but ASCII’s.");
  }
  byId("token").value = "";
  say(byId("token-why"), "");
  showTokenPanel(false);
  say(byId("token-open"), token ? "Admin token: in use" : "Admin token");
  listenAgain();
});

byId("token-forget").addEventListener("click", () => {
  token = "";
  byId("token").value = "";
  say(byId("token-why"), "");
  say(byId("token-open"), "Admin token");
  showTokenPanel(false);
  listenAgain();
});

// MARK: Listening

/** Without a word for so long, the connection is given up and made anew. */
const SILENCE = 6000;
const LONGEST_PAUSE = 10000;
let listener = null;
let pause = 0;

/** After so long what is shown is no longer how it is, and looks like that. (Each second there is news.) */
const STALE = 3500;
/** When the latest news came, and whether it is known that there is none until the user does something. */
let heardAt = null;
let isCut = false;
/** For so many seconds there has been no news; null while what is shown is how it is. */
let unheardFor = null;
/** Whether what came last could not be shown. */
let isBaffled = false;

function showConnection(kind, text) {
  byId("connection").dataset.state = kind;
  say(byId("connection-text"), text);
  isCut = kind === "refused" || kind === "paused";
  lookAtSilence();
}

/** Where nothing is heard any more, what was heard last may not pass for how it is. */
function lookAtSilence() {
  if (heardAt == null) return;
  const silence = performance.now() - heardAt;
  const wasUnheard = unheardFor != null;
  unheardFor = isCut || silence > STALE ? Math.max(Math.floor(silence / 1000), 0) : null;
  document.body.classList.toggle("unheard", unheardFor != null || isBaffled);
  if (unheardFor == null && !wasUnheard) return;
  if (unheardFor != null) sayUnheard();
  if (wasUnheard !== (unheardFor != null)) updateSoon();
}

setInterval(lookAtSilence, 1000);

/** Read out once: the seconds, which go on, are for the eye alone. */
function sayUnheard() {
  const verdict = byId("verdict");
  if (!verdict.contains(byId("unheard-for"))) {
    verdict.said = null;
    const seconds = make("span", { id: "unheard-for" });
    seconds.setAttribute("aria-hidden", "true");
    verdict.replaceChildren("No word from this node", seconds, "; this is how it was.");
  }
  say(byId("unheard-for"), ` for ${duration(unheardFor)}`);
}

function listenAgain() {
  listener?.abort();
  clearTimeout(listener?.timer);
  listener = new AbortController();
  listen(listener);
}

async function listen(controller) {
  let watchdog = 0;
  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => controller.abort(), SILENCE);
  };
  let why = "";
  let hasEnded = false;
  try {
    heard();
    const answer = await fetch("/ui/events", {
      cache: "no-store", credentials: "same-origin", headers: { Accept: "text/event-stream", ...authorization() }, signal: controller.signal,
    });
    if (isTokenWanted(answer)) {
      clearTimeout(watchdog);
      answer.body?.cancel();
      if (controller !== listener) return;
      showConnection("refused", "Token wanted");
      if (!state) say(byId("verdict"), "The node wants an admin token before it tells of the ring.");
      return wantToken(answer.status, false);
    }
    if (answer.status !== 200) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      hasEnded = done;
      if (done) break;
      heard();
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) take(event);
      if (events.length > 0) {
        pause = 0;
        showConnection("live", "Live");
      }
    }
  } catch (error) {
    why = controller.signal.aborted ? "" : error.message;
  }
  clearTimeout(watchdog);
  if (controller !== listener || document.hidden) return;
  // A node ends each stream after some minutes, and a worker that leaves its streams at once: that is no trouble yet.
  const isOrdinary = hasEnded && pause === 0 && unheardFor == null;
  // (Not all pages at once, where a node comes back.)
  pause = Math.min(Math.max(pause * 2, 500), LONGEST_PAUSE);
  if (!isOrdinary) showConnection("lost", "Reconnecting");
  if (!state) say(byId("verdict"), why ? `No answer yet: ${why}` : "No answer yet.");
  controller.timer = setTimeout(listenAgain, pause * (0.75 + Math.random() / 2));
}

function take(event) {
  let name = "message";
  const data = [];
  for (const line of event.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  if (data.length === 0) return;
  const message = JSON.parse(data.join("\n"));
  if (name === "ring") {
    ring = message;
    isRingNew = true;
  } else if (name === "nodes") {
    state = message;
    heardAt = performance.now();
  } else {
    return;
  }
  updateSoon();
}

// A page that nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    listener?.abort();
    clearTimeout(listener?.timer);
    listener = null;
    showConnection("paused", "Paused");
  } else {
    listenAgain();
  }
});

// MARK: Update

let isUpdateDue = false;
let isRingNew = false;
let updates = 0;

function updateSoon() {
  if (isUpdateDue) return;
  isUpdateDue = true;
  requestAnimationFrame(update);
}

function update() {
  const began = performance.now();
  isUpdateDue = false;
  const wasNew = isRingNew;
  try {
    if (isRingNew) layOut();
    isRingNew = false;
    if (ring && state) showNodes();
    showChange();
    isBaffled = false;
  } catch (error) {
    // What comes next may be as it should be; until then nothing here is certain.
    isBaffled = true;
    say(byId("verdict"), "This page does not understand what the node tells: reload it.");
    console.warn("An update can’t be shown:", error);
  }
  document.body.classList.toggle("unheard", unheardFor != null || isBaffled);
  // (For whoever measures; not kept for ever.)
  if (++updates % 256 === 0) performance.clearMeasures();
  performance.measure(wasNew ? "ring" : "nodes", { start: began });
}

// MARK: The ring's layout

/** Seats by position, each with the slots that it has. */
function seatsOf(positions) {
  const seats = [];
  for (const [node, places] of Object.entries(positions)) for (const position of places) seats.push({ position, node, length: 0 });
  seats.sort((left, right) => left.position - right.position);
  seats.forEach((seat, index) => {
    const before = seats[(index + seats.length - 1) % seats.length].position;
    seat.length = (seat.position - before + SLOTS) % SLOTS || SLOTS;
  });
  return seats;
}

const point = (radius, slot) => {
  const angle = (slot / SLOTS) * 2 * Math.PI;
  return `${(radius * Math.sin(angle)).toFixed(2)} ${(-radius * Math.cos(angle)).toFixed(2)}`;
};

/** A piece of a band around the centre; the whole of it as two halves, for an arc can't end where it begins. */
function band(inner, outer, from, length) {
  if (length >= SLOTS) return band(inner, outer, from, SLOTS / 2) + band(inner, outer, from + SLOTS / 2, SLOTS / 2);
  const to = from + length;
  const large = length > SLOTS / 2 ? 1 : 0;
  return `M${point(outer, from)}A${outer} ${outer} 0 ${large} 1 ${point(outer, to)}`
    + `L${point(inner, to)}A${inner} ${inner} 0 ${large} 0 ${point(inner, from)}Z`;
}

/** As far apart as can be, however many there are. */
const hueOf = (index) => ((255 + index * 137.508) % 360).toFixed(1);

function compareNodes(left, right) {
  return left.localeCompare(right, "en", { numeric: true });
}

/** Draws everything that only changes with the ring. */
function layOut() {
  const positions = ring.change ? { ...ring.change.to, ...ring.change.from } : ring.positions;
  // (Who tells is shown even where the ring does not have it, or there is none: it may have trouble, too.)
  const names = [...new Set([...Object.keys(positions), ...ring.standbys, ring.node])].sort(compareNodes);
  const seats = seatsOf(ring.positions);
  const owned = new Map();
  for (const seat of seats) owned.set(seat.node, (owned.get(seat.node) ?? 0) + seat.length);

  const before = members;
  members = new Map();
  names.forEach((name, index) => {
    const old = before.get(name);
    members.set(name, {
      name, number: index + 1, hue: hueOf(index), slots: owned.get(name) ?? 0, behindFor: 0,
      positions: (ring.positions[name] ?? []).length, isStandby: !(name in positions), isOutside: !(name in positions) && !ring.standbys.includes(name), seats: [],
      row: old?.row ?? makeRow(name), look: old?.look ?? null, arc: null, mark: null,
    });
  });
  for (const seat of seats) members.get(seat.node)?.seats.push(seat);

  byId("rows").replaceChildren(...names.map((name) => members.get(name).row.element));
  for (const member of members.values()) dressRow(member);
  drawArcs(seats);
  drawFuture();
  drawNeedle();
  if (chosen && !members.has(chosen)) chosen = null;
  say(byId("seen-by"), ring.node);
  say(byId("nodes-note"), `epoch ${ring.epoch} · ${plural(ring.replicas, "copy", "copies")} of each pair`);
  listNodes();
  if (plan && plan.epoch !== ring.epoch) dropPlan("The ring has changed since: preview again.");
  light();
}

function drawArcs(seats) {
  const arcs = byId("arcs");
  const hadFocus = arcs.contains(document.activeElement) ? document.activeElement.dataset.node : null;
  arcs.setAttribute("role", "listbox");
  arcs.setAttribute("aria-label", "Nodes in the ring");
  byId("ring").classList.toggle("many", seats.length > 200);
  const paths = [];
  const labels = [];
  const marks = [];
  for (const member of members.values()) {
    if (member.seats.length === 0) continue;
    const shape = member.seats.map((seat) => band(108, 150, seat.position - seat.length + 1, seat.length)).join("");
    member.arc = draw("path", { class: "arc", d: shape, role: "option", tabindex: "-1", "aria-selected": "false" });
    member.arc.style.setProperty("--hue", member.hue);
    member.arc.dataset.node = member.name;
    paths.push(member.arc);
    const widest = member.seats.reduce((best, seat) => (seat.length > best.length ? seat : best));
    const [x, y] = point(172, widest.position - widest.length / 2 + 1).split(" ");
    member.mark = draw("text", { class: "ring-sign", x, y });
    marks.push(member.mark);
    if (seats.length > 160) continue;
    for (const seat of member.seats) {
      if (seat.length < 130) continue;
      const [x, y] = point(129, seat.position - seat.length / 2 + 1).split(" ");
      labels.push(draw("text", { class: "ring-label on", x, y }, String(member.number)));
    }
  }
  arcs.replaceChildren(...paths);
  byId("labels").replaceChildren(...labels);
  byId("marks").replaceChildren(...marks);
  const entrance = paths.find((path) => path.dataset.node === (hadFocus ?? chosen)) ?? paths[0];
  entrance?.setAttribute("tabindex", "0");
  if (hadFocus) entrance?.focus();
}

function drawScale() {
  const parts = [];
  for (let slot = 0; slot < SLOTS; slot += 500) {
    const isNamed = slot % 2500 === 0;
    const [x1, y1] = point(162, slot).split(" ");
    const [x2, y2] = point(isNamed ? 168 : 166, slot).split(" ");
    parts.push(draw("line", { x1, y1, x2, y2 }));
    if (!isNamed) continue;
    const [x, y] = point(178, slot).split(" ");
    parts.push(draw("text", { x, y, "text-anchor": slot === 2500 ? "start" : slot === 7500 ? "end" : "middle", dx: slot === 2500 ? "-6" : slot === 7500 ? "6" : "0" }, String(slot)));
  }
  byId("scale").replaceChildren(...parts);
}

/** A band around the ring: as it will be, or would be. */
function drawFuture() {
  const future = ring.change ? seatsOf(ring.change.to) : plan?.seats;
  byId("future-note").hidden = !future;
  if (!future) return byId("future").replaceChildren();
  say(byId("future-text"), ring.change ? "The outer band is the ring as it will be." : "The outer band is the ring as it would be.");
  const shapes = new Map();
  for (const seat of future) shapes.set(seat.node, (shapes.get(seat.node) ?? "") + band(153, 160, seat.position - seat.length + 1, seat.length));
  byId("future").replaceChildren(...[...shapes].map(([node, d]) => {
    const path = draw("path", { class: members.has(node) && members.get(node).positions > 0 ? "next" : "next gets", d });
    path.style.setProperty("--hue", members.get(node)?.hue ?? hueOf(members.size));
    return path;
  }));
}

function drawNeedle() {
  const needle = byId("needle");
  if (!found) return needle.replaceChildren();
  const [x1, y1] = point(98, found.slot + 0.5).split(" ");
  const [x2, y2] = point(150, found.slot + 0.5).split(" ");
  const line = draw("line", { x1, y1, x2, y2 });
  needle.replaceChildren(line, draw("circle", { cx: x1, cy: y1, r: 4.5 }));
}

// MARK: Choosing a node

function light() {
  const lit = new Set(pointed ? [pointed] : chosen ? [chosen] : found ? found.holders : []);
  byId("ring").classList.toggle("choosing", lit.size > 0);
  for (const member of members.values()) {
    member.arc?.classList.toggle("lit", lit.has(member.name));
    member.row.element.classList.toggle("lit", lit.has(member.name));
    if (member.arc) mark(member.arc, "aria-selected", String(member.name === chosen));
    mark(member.row.button, "aria-pressed", String(member.name === chosen));
  }
  showCentre();
  showDetail();
}

function showCentre() {
  if (!ring) return;
  const member = members.get(pointed ?? chosen);
  const title = byId("centre-1");
  title.classList.toggle("address", Boolean(member));
  if (member) {
    say(title, member.name);
    say(byId("centre-2"), member.isOutside ? "in no ring" : member.isStandby ? "standby" : `${percent(member.slots / SLOTS)} of the slots`);
    say(byId("centre-3"), member.isStandby ? "" : plural(member.positions, "position"));
  } else if (found) {
    say(title, String(found.slot));
    say(byId("centre-2"), "the key’s slot");
    say(byId("centre-3"), plural(found.holders.length, "holder"));
  } else {
    const seated = [...members.values()].filter((one) => one.positions > 0).length;
    say(title, String(seated));
    say(byId("centre-2"), seated === 1 ? "node" : "nodes");
    say(byId("centre-3"), `epoch ${ring.epoch}`);
  }
}

function choose(name) {
  chosen = chosen === name ? null : name;
  light();
}

function pointAt(name) {
  if (pointed === name) return;
  pointed = name;
  light();
}

const nodeAt = (event) => event.target.closest?.("[data-node]")?.dataset.node ?? null;

byId("arcs").addEventListener("pointerover", (event) => pointAt(nodeAt(event)));
byId("arcs").addEventListener("pointerleave", () => pointAt(null));
byId("arcs").addEventListener("click", (event) => choose(nodeAt(event)));
// (A group of SVG that listens for the focus itself would be a stop of the Tab key, in Chromium.)
byId("ring").parentElement.addEventListener("focusin", (event) => pointAt(nodeAt(event)));
byId("ring").parentElement.addEventListener("focusout", () => pointAt(null));
byId("arcs").addEventListener("keydown", (event) => {
  const paths = [...byId("arcs").children];
  const index = paths.indexOf(document.activeElement);
  const next = {
    ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: paths.length - 1,
  }[event.key];
  if (next !== undefined) {
    const path = paths[(next + paths.length) % paths.length];
    paths[index]?.setAttribute("tabindex", "-1");
    path.setAttribute("tabindex", "0");
    path.focus();
  } else if (event.key === "Enter" || event.key === " ") {
    choose(nodeAt(event));
  } else if (event.key === "Escape") {
    chosen = null;
    light();
  } else {
    return;
  }
  event.preventDefault();
});

byId("rows").addEventListener("pointerover", (event) => pointAt(nodeAt(event)));
byId("rows").addEventListener("pointerleave", () => pointAt(null));
byId("rows").addEventListener("click", (event) => choose(nodeAt(event)));

// MARK: The nodes

const COLUMNS = ["Share", "Items", "Stored", "Memory left", "Workers", "Req/s", "Err/s", "p50 ms", "p99 ms", "Hints", "Slots differing"];

function makeRow(name) {
  const chip = make("span", { className: "chip" });
  chip.setAttribute("aria-hidden", "true");
  const button = make("button", { type: "button", textContent: name, title: name });
  const sign = make("span", { className: "sign" });
  sign.setAttribute("aria-hidden", "true");
  const word = make("span");
  const cells = COLUMNS.map((column) => make("td", { role: "cell", className: "n", "data-name": column }));
  const left = make("span");
  const bar = make("i");
  const meter = make("span", { className: "meter" }, bar);
  meter.setAttribute("aria-hidden", "true");
  cells[3].append(left, meter);
  const element = make("tr", { role: "row" },
    make("td", { role: "cell" }, make("span", { className: "who" }, chip, button)),
    make("td", { role: "cell" }, make("span", { className: "state" }, sign, word)), ...cells);
  element.dataset.node = name;
  return { element, chip, button, sign, word, cells, left, meter, bar };
}

function dressRow(member) {
  const { row } = member;
  say(row.chip, member.isStandby ? "–" : String(member.number));
  row.chip.classList.toggle("none", member.isStandby);
  row.chip.style.setProperty("--hue", member.hue);
  say(row.cells[0], member.isStandby || member.positions === 0 ? "–" : percent(member.slots / SLOTS));
}

/** A node that has not answered for so many seconds is not known to be as it was, whether or not it is known why. */
const SILENT = 5;

/** How a node is, in a word and a sign: {kind, state, sign, word, problem}; or how it was, where there is no news. */
function lookAt(member, node) {
  const look = judge(member, node);
  return unheardFor == null ? look : { kind: "", state: "unheard", sign: look.sign, word: `Was: ${look.word}`, problem: look.problem };
}

function judge(member, node) {
  if (!node || (!node.trouble && node.age == null)) return { kind: "", state: "asked", sign: "…", word: "Being asked" };
  if (node.trouble?.isUnreachable) {
    return { kind: "bad", state: "unreachable", sign: "✕", word: "Unreachable", problem: `is unreachable: ${node.trouble.reason}` };
  }
  if (node.trouble?.isUnproven) {
    return { kind: "bad", state: "silent", sign: "?", word: "Wrong token", problem: "answers, and does not prove that it knows the peers’ token" };
  }
  if (node.trouble) {
    return { kind: "bad", state: "silent", sign: "?", word: "Does not say", problem: `answers, but does not say how it is: ${node.trouble.reason}` };
  }
  if (node.age > SILENT) {
    return { kind: "bad", state: "silent", sign: "?", word: `Silent for ${duration(node.age)}`, problem: `has said nothing for ${duration(node.age)}` };
  }
  if (node.memcachedError) {
    return { kind: "bad", state: "broken", sign: "!", word: "No memcached", problem: `has no memcached that answers: ${node.memcachedError}` };
  }
  if (node.isRecovering) {
    const part = node.recoveryFound > 0 ? Math.min(node.recoveryDone / node.recoveryFound, 1) : null;
    const word = part == null ? "Recovering" : `Recovering ${Math.floor(part * 100)} %`;
    const given = part == null ? "" : `: ${count(node.recoveryDone)} of the ${count(node.recoveryFound)} pairs that were found for it so far are back`;
    return { kind: "warn", state: "recovering", sign: "↻", word, problem: `lost its memory and is recovering${given}` };
  }
  member.behindFor = node.epoch < ring.epoch ? member.behindFor + 1 : 0;
  if (member.behindFor > 3) {
    return { kind: "warn", state: "behind", sign: "↓", word: "Behind", problem: `stands on an older ring, of epoch ${node.epoch}` };
  }
  if (node.isClockAhead) return { kind: "warn", state: "ahead", sign: "!", word: "Clock ahead", problem: "has a clock too far ahead, and refuses writes" };
  if (node.troubles.length > 0) return { kind: "warn", state: "trouble", sign: "!", word: "Trouble", problem: `has trouble: ${node.troubles.join("; ")}` };
  return { kind: "good", state: "up", sign: "✓", word: member.isOutside ? "Up, in no ring" : member.isStandby ? "Up, standby" : "Up" };
}

function showNodes() {
  const told = new Map(state.nodes.map((node) => [node.node, node]));
  const sum = { requests: 0, errors: 0, p99: null, items: 0, bytes: 0, left: 0, isKnown: false };
  const problems = [];
  for (const member of members.values()) {
    const node = told.get(member.name);
    const look = lookAt(member, node);
    member.look = look;
    member.node = node;
    showRow(member, node, look);
    if (look.problem) problems.push({ name: member.name, look });
    if (!node || node.trouble || node.age == null || node.age > SILENT || unheardFor != null) continue;
    sum.isKnown = true;
    sum.requests += node.requestsPerSecond ?? 0;
    sum.errors += node.errorsPerSecond ?? 0;
    if (node.p99Milliseconds != null) sum.p99 = Math.max(sum.p99 ?? 0, node.p99Milliseconds);
    if (member.isStandby) continue;
    sum.items += node.items ?? 0;
    sum.bytes += node.bytes ?? 0;
    sum.left += Math.max((node.limitBytes ?? 0) - (node.bytes ?? 0), 0);
  }
  say(byId("sum-requests"), sum.isKnown ? short(sum.requests) : "–");
  say(byId("sum-errors"), sum.isKnown ? short(sum.errors) : "–");
  byId("sum-errors").classList.toggle("hot", sum.errors > 0);
  say(byId("sum-p99"), short(sum.p99));
  say(byId("sum-items"), sum.isKnown ? count(sum.items) : "–");
  say(byId("sum-bytes"), sum.isKnown ? bytes(sum.bytes) : "–");
  say(byId("sum-left"), sum.isKnown ? bytes(sum.left) : "–");
  showProblems(problems);
  if (sum.isKnown) remember(sum);
  showDetail();
}

/** Of all nodes together: what the last two minutes were like. One entry a second, newest last. */
const HISTORY = 120;
const history = [];

function remember(sum) {
  const second = Math.floor(Date.now() / 1000);
  if (history.length > 0 && history.at(-1).second === second) return;
  history.push({ second, requests: sum.requests, p99: sum.p99 });
  while (history[0].second <= second - HISTORY) history.shift();
  drawHistory("requests", second);
  drawHistory("p99", second);
}

function drawHistory(name, now) {
  const top = Math.max(...history.map((entry) => entry[name] ?? 0));
  say(byId(`history-${name}-top`), top > 0 ? `up to ${short(top)}` : "");
  let line = "";
  let area = "";
  let last = null;
  // (Where nothing was heard, or nothing asked, there is no line.)
  for (const entry of history) {
    const value = entry[name];
    if (value == null) {
      if (last != null) area += `V100Z`;
      last = null;
      continue;
    }
    const x = HISTORY - 1 - (now - entry.second) + 1;
    const y = (96 - (top > 0 ? value / top : 0) * 90).toFixed(1);
    const isJoined = last != null && entry.second - last < 4;
    if (!isJoined && last != null) area += "V100Z";
    line += `${isJoined ? "L" : "M"}${x} ${y}`;
    area += isJoined ? `L${x} ${y}` : `M${x} 100V${y}`;
    last = entry.second;
  }
  if (last != null) area += "V100Z";
  const svg = byId(`history-${name}`);
  if (!svg.firstChild) svg.append(draw("path", { class: "area" }), draw("path"));
  svg.firstChild.setAttribute("d", area);
  svg.lastChild.setAttribute("d", line);
}

function showRow(member, node, look) {
  const { row } = member;
  mark(row.element, "data-kind", look.kind === "good" ? null : look.kind || null);
  mark(row.word.parentElement, "data-kind", look.kind || null);
  say(row.sign, look.sign);
  say(row.word, look.word);
  row.element.classList.toggle("stale", Boolean(node?.trouble) || node?.age > SILENT || unheardFor != null);
  const left = node?.limitBytes != null && node.bytes != null ? Math.max(node.limitBytes - node.bytes, 0) : null;
  const figures = [
    null, count(node?.items), bytes(node?.bytes), null, count(node?.workers), short(node?.requestsPerSecond), short(node?.errorsPerSecond),
    short(node?.p50Milliseconds), short(node?.p99Milliseconds), count(node?.hints), count(node?.slotsDiffering),
  ];
  figures.forEach((text, index) => {
    if (text != null) say(row.cells[index], text);
  });
  say(row.left, bytes(left));
  const used = left == null ? 0 : Math.min(node.bytes / node.limitBytes, 1);
  const width = `scaleX(${used.toFixed(3)})`;
  if (row.width !== width) {
    row.width = width;
    row.bar.style.transform = width;
  }
  mark(row.meter, "data-kind", used > 0.95 ? "bad" : used > 0.85 ? "warn" : null);
  row.left.className = used > 0.95 ? "hot" : used > 0.85 ? "warm" : "";
  heat(row.cells[6], node?.errorsPerSecond > 0 ? "hot" : null);
  heat(row.cells[9], node?.hints > 0 ? "warm" : null);
  heat(row.cells[10], node?.slotsDiffering > 0 ? "warm" : null);
  if (!member.arc) return;
  mark(member.arc, "data-state", look.state);
  mark(member.arc, "aria-label", `${member.name}: ${look.word}, ${percent(member.slots / SLOTS)} of the slots`);
  say(member.mark, look.kind === "bad" || look.kind === "warn" ? look.sign : "");
  mark(member.mark, "data-kind", look.kind || null);
}

function heat(element, name) {
  if (element.heat === name) return;
  element.heat = name;
  element.classList.toggle("hot", name === "hot");
  element.classList.toggle("warm", name === "warm");
}

/** At most so many are told one by one. */
const TOLD = 6;

function showProblems(problems) {
  const seated = [...members.values()].filter((member) => member.positions > 0).length;
  const isNew = ring.epoch === 0 || seated === 0;
  if (unheardFor != null) sayUnheard();
  const waiting = [...members.values()].filter((member) => member.look.state === "asked").length;
  let verdict;
  if (isNew) verdict = "This node has no ring yet.";
  else if (problems.length === 0 && waiting > 0) verdict = "Asking the nodes…";
  else if (problems.length === 0) verdict = members.size === 1 ? "The node is up." : `All ${members.size} nodes are up.`;
  else if (problems.length === 1) verdict = `${problems[0].name} needs attention.`;
  else verdict = `${problems.length} of ${members.size} nodes need attention.`;
  // (The one thing that is read out, and only when it changes.)
  if (unheardFor == null) say(byId("verdict"), verdict);
  problems.sort((left, right) => (left.look.kind === right.look.kind ? 0 : left.look.kind === "bad" ? -1 : 1));
  const lines = problems.slice(0, TOLD).map(({ name, look }) => [look.kind, look.sign, name, ` ${look.problem}.`]);
  if (problems.length > TOLD) lines.push(["warn", "…", plural(problems.length - TOLD, "more node"), ", marked in the table."]);
  if (isNew) lines.push(["warn", "…", "No ring:", " POST one to /hash_ring, or run deploy/reconfigure.sh."]);
  const list = byId("problems");
  const text = JSON.stringify(lines);
  if (list.said === text) return;
  list.said = text;
  list.replaceChildren(...lines.map(([kind, sign, name, problem]) => {
    const icon = make("span", { className: "sign", textContent: sign });
    icon.setAttribute("aria-hidden", "true");
    const item = make("li", {}, icon, make("span", {}, make("strong", { textContent: name }), problem));
    item.dataset.kind = kind;
    return item;
  }));
}

const answeredAgo = (seconds) => (seconds < 3 ? "just now" : `${duration(seconds)} ago`);

function showDetail() {
  const member = members.get(chosen);
  byId("detail").hidden = !member;
  byId("detail-empty").hidden = Boolean(member);
  say(byId("detail-title"), member ? member.name : "The last two minutes");
  if (!member) return;
  const look = member.look ?? { kind: "", sign: "…", word: "Being asked" };
  mark(byId("detail-state"), "data-kind", look.kind || null);
  say(byId("detail-state"), `${look.sign} ${look.word}`);
  const node = member.node;
  const places = ring.positions[member.name] ?? [];
  const known = node && node.age != null;
  const lines = [
    ["Slots", member.isOutside ? "none: in no ring" : member.isStandby ? "none: a standby" : `${whole(member.slots)} of ${whole(SLOTS)}, ${percent(member.slots / SLOTS)}`],
    ["Positions", places.length === 0 ? "none" : places.slice(0, 16).join(", ") + (places.length > 16 ? ` … ${places.length} in all` : "")],
    ["Epoch", known ? String(node.epoch) : "–"],
    ["Up for", known ? duration(node.uptimeSeconds) : "–"],
    ["Connections", known ? count(node.connections) : "–"],
    ["Version", known ? node.version : "–"],
    ["Answered", !known ? "never since this page looks" : answeredAgo(node.age + (unheardFor ?? 0))],
  ];
  if (node?.trouble) lines.push(["Why", node.trouble.reason]);
  const list = byId("detail-list");
  const text = JSON.stringify(lines);
  if (list.said !== text) {
    list.said = text;
    list.replaceChildren(...lines.flatMap(([term, value]) => [make("dt", { textContent: term }), make("dd", { textContent: value })]));
  }
  byId("detail-remove").disabled = byId("detail-replace").disabled = member.positions === 0;
}

// MARK: A change that is under way

const STEPS = { copying: "Copying", crossing: "Crossing over", settling: "Settling", retreating: "Retreating", cleaning: "Cleaning up" };
let lastChange = undefined;
/** Which one the panel is about. */
let shownChange = null;

function showChange() {
  if (!ring) return;
  const change = ring.change;
  byId("change").hidden = !change;
  if (lastChange !== undefined && ring.last && ring.last.id !== lastChange) {
    const isDone = ring.last.outcome === "completed";
    answerEdit(isDone ? "good" : "bad", `${isDone ? "Made" : "Given up and undone"}: ${ring.last.sentence}.${ring.last.reason ? ` ${ring.last.reason}` : ""}`);
  }
  lastChange = ring.last?.id ?? null;
  if (!change) return;
  if (change.id !== shownChange) {
    // What was said of the one before is not about this one.
    shownChange = change.id;
    answerAbort("", "");
  }
  say(byId("change-title"), `${change.abortReason ? "Undoing" : "Under way"}: ${change.sentence}`);
  const order = change.abortReason || change.step === "retreating"
    ? ["retreating", "cleaning"] : ["copying", "crossing", "settling", "cleaning"];
  const at = order.indexOf(change.step);
  const list = byId("steps");
  if (list.said !== order.join() + change.step) {
    list.said = order.join() + change.step;
    list.replaceChildren(...order.map((step, index) => {
      const item = make("li", { textContent: STEPS[step] ?? step });
      if (index === at) item.setAttribute("aria-current", "step");
      item.dataset.phase = index < at ? "done" : index === at ? "now" : "then";
      return item;
    }));
  }
  const parts = state?.progress ?? [];
  const sum = (name) => parts.reduce((all, part) => all + part[name], 0);
  const [foundPairs, donePairs] = [sum("pairsFound"), sum("pairsDone")];
  const share = foundPairs > 0 ? Math.min(donePairs / foundPairs, 1) : 0;
  const bar = byId("progress");
  if (foundPairs > 0) bar.value = share; else bar.removeAttribute("value");
  say(byId("progress-share"), foundPairs > 0 ? `${Math.floor(share * 100)} %` : "");
  const times = parts.filter((part) => part.pairsDone < part.pairsFound)
    .map((part) => (part.pairsDone > 0 ? ((part.pairsFound - part.pairsDone) * part.seconds) / part.pairsDone : null));
  const isTimed = parts.length > 0 && times.length > 0 && !times.includes(null);
  say(byId("progress-text"), foundPairs > 0
    ? `This step: ${count(donePairs)} of ${plural(foundPairs, "pair")} looked at, ${count(sum("pairsMoved"))} moved, ${bytes(sum("bytesMoved"))}`
      + (isTimed ? `, about ${duration(Math.max(...times))} left.` : ".")
    : "The nodes are getting ready for this step.");
  const words = parts.map((part) => `${part.node}: ${count(part.pairsDone)} of ${count(part.pairsFound)}`);
  if (byId("parts").said !== words.join()) {
    byId("parts").said = words.join();
    byId("parts").replaceChildren(...words.slice(0, 12).map((textContent) => make("li", { textContent })));
  }
  byId("abort").disabled = Boolean(change.abortReason);
}

function answerAbort(kind, text) {
  byId("abort-answer").dataset.kind = kind;
  say(byId("abort-answer"), text);
}

byId("abort").addEventListener("click", async () => {
  const aborted = shownChange;
  answerAbort("", "Asking the nodes to climb down…");
  let outcome;
  try {
    const answer = await ask("/abort_change", { method: "POST" });
    outcome = answer.status === 200 ? ["good", "Undone: the ring is as it was."] : ["bad", reason(answer)];
  } catch {
    outcome = ["bad", "No answer came; it may be aborted all the same."];
  }
  if (aborted === shownChange) answerAbort(...outcome);
});

// MARK: A key

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = byId("key").value;
  const box = byId("key-answer");
  let target;
  try {
    target = `/copies?key=${encodeURIComponent(key)}`;
  } catch {
    return box.replaceChildren(make("p", { textContent: "This is no well-formed text." }));
  }
  box.replaceChildren(make("p", { className: "hint", textContent: "Asking its holders…" }));
  try {
    const answer = await ask(target);
    if (answer.status !== 200) return box.replaceChildren(make("p", { className: "hot", textContent: reason(answer) }));
    showCopies(key, answer.json());
  } catch {
    box.replaceChildren(make("p", { className: "hot", textContent: "No answer came." }));
  }
});

function showCopies(key, report) {
  found = { slot: report.slot, holders: report.copies.map((copy) => copy.node) };
  chosen = null;
  const stored = report.copies.filter((copy) => copy.state !== "unknown");
  const versions = new Set(stored.map((copy) => copy.version));
  const newest = [...versions].filter(Boolean).sort().pop();
  let verdict;
  if (stored.length === 0) verdict = "None of its holders says what it has.";
  else if (!newest) verdict = "There is no such pair.";
  else if (versions.size > 1) verdict = "Its copies differ: the newest version counts, and repair brings it to the others.";
  else if (stored.length < report.copies.length) verdict = "Those that answer agree.";
  else verdict = report.copies.length === 1 ? "It has one copy." : `All ${report.copies.length} copies are the same.`;
  const names = { stored: ["✓", "Stored"], deleted: ["–", "Deleted"], expired: ["–", "Expired"], missing: ["∅", "Nothing"], unknown: ["?", "Unknown"] };
  const rows = report.copies.map((copy, index) => {
    const [sign, word] = names[copy.state] ?? ["?", copy.state];
    const isOld = copy.state !== "unknown" && newest && copy.version !== newest;
    const kind = copy.state === "unknown" ? "bad" : isOld ? "warn" : "good";
    const icon = make("span", { className: "sign", textContent: sign });
    icon.setAttribute("aria-hidden", "true");
    const status = make("span", { className: "state" }, icon, make("span", { textContent: isOld && copy.version ? `${word}, older` : word }));
    status.dataset.kind = kind;
    const facts = copy.reason ?? [
      copy.bytes == null ? null : bytes(copy.bytes), copy.contentType,
      copy.writtenMilliseconds == null ? null : `written ${new Date(copy.writtenMilliseconds).toISOString().replace("T", " ").slice(0, 19)} UTC`,
      copy.expiresMilliseconds == null ? null : `expires ${new Date(copy.expiresMilliseconds).toISOString().replace("T", " ").slice(0, 19)} UTC`,
    ].filter(Boolean).join(", ");
    return make("tr", { role: "row" },
      make("td", { role: "cell" }, make("span", { textContent: copy.node }), ...(index === 0 ? [make("span", { className: "hint", textContent: " owner" })] : [])),
      make("td", { role: "cell" }, status),
      make("td", { role: "cell" }, make("span", { className: "mono", textContent: copy.version ?? "–" }), make("div", { className: "hint", textContent: facts })));
  });
  const heads = ["Node", "State", "Version"].map((textContent) => make("th", { role: "columnheader", scope: "col", textContent }));
  byId("key-answer").replaceChildren(
    make("p", {}, make("code", { className: "asked", textContent: key }), " is in slot ", make("strong", { textContent: String(report.slot) }), ". ", verdict),
    make("table", { role: "table", "aria-label": "What each holder has" },
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)), make("tbody", { role: "rowgroup" }, ...rows)));
  drawNeedle();
  light();
}

byId("key").addEventListener("input", () => {
  if (!found) return;
  found = null;
  byId("key-answer").replaceChildren();
  drawNeedle();
  light();
});

// MARK: Changing the ring

const verb = () => document.querySelector("input[name=verb]:checked").value;

function answerEdit(kind, text) {
  byId("edit-answer").dataset.kind = kind;
  say(byId("edit-answer"), text);
}

/** Who may leave, and who may join. */
function listNodes() {
  const seated = Object.keys(ring.positions).sort(compareNodes);
  const list = byId("leaver");
  if (list.said !== seated.join()) {
    const held = list.value;
    list.said = seated.join();
    list.replaceChildren(...seated.map((name) => make("option", { value: name, textContent: name })));
    if (seated.includes(held)) list.value = held;
  }
  byId("standbys").replaceChildren(...ring.standbys.filter((name) => !seated.includes(name)).map((value) => make("option", { value })));
}

function showFields() {
  for (const field of document.querySelectorAll("[data-verbs]")) field.hidden = !field.dataset.verbs.split(" ").includes(verb());
  const place = byId("place").value;
  byId("place-field").hidden = verb() !== "add" || place === "usual";
  say(byId("place-label"), place === "count" ? "How many positions (1–256)" : "Position (0–9999)");
  byId("newcomer").required = verb() !== "remove";
}

function editPath() {
  const [leaver, newcomer] = [byId("leaver").value, byId("newcomer").value.trim()].map(encodeAddress);
  const number = byId("place-number").value;
  const force = byId("force").checked ? "?force=1" : "";
  if (verb() === "remove") return { path: `/remove_node/${leaver}`, query: force };
  if (verb() === "replace") return { path: `/replace_node/${leaver}/${newcomer}`, query: force };
  if (byId("place").value === "exact") return { path: `/add_node/${encodeURIComponent(number)}/${newcomer}`, query: "" };
  const query = byId("place").value === "count" ? `?positions=${encodeURIComponent(number)}` : "";
  return { path: `/add_node/auto/${newcomer}`, query };
}

/** Addresses have colons and brackets, which paths may have; anything else becomes what no node is called. */
const encodeAddress = (name) => encodeURIComponent(name).replace(/%3A/gi, ":").replace(/%5B/gi, "[").replace(/%5D/gi, "]");

function dropPlan(text = "") {
  plan = null;
  byId("plan").hidden = true;
  answerEdit("", text);
  if (ring) drawFuture();
}

byId("edit-form").addEventListener("input", () => {
  showFields();
  dropPlan();
});
byId("plan-drop").addEventListener("click", () => dropPlan());

byId("edit-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!ring) return;
  dropPlan("Reckoning…");
  const { path, query } = editPath();
  const [wanted, leaver, newcomer, epoch] = [verb(), byId("leaver").value, byId("newcomer").value.trim(), ring.epoch];
  try {
    const answer = await ask(`/plan${path}${query}`);
    if (answer.status !== 200) return answerEdit("bad", reason(answer));
    const report = answer.json();
    const positions = { ...ring.positions };
    if (wanted === "add") positions[newcomer] = report.positions;
    if (wanted === "replace") positions[newcomer] = positions[leaver];
    if (wanted !== "add") delete positions[leaver];
    plan = { path: path + query, sentence: report.change, epoch, seats: seatsOf(positions) };
    showPlan(report, wanted);
  } catch {
    answerEdit("bad", "No answer came.");
  }
});

function showPlan(report, wanted) {
  answerEdit("", "");
  const moved = report.copiesOfSlots > 0 ? report.copiesOfSlotsMoved / report.copiesOfSlots : 0;
  say(byId("plan-text"), `This would ${report.change}. ${percent(report.slotsWithNewOwner / SLOTS)} of all keys get another owner; `
    + `${percent(moved)} of all copies move`
    + (report.estimatedPairsMoved == null ? "." : `, about ${plural(report.estimatedPairsMoved, "item")}.`)
    + (report.silent?.length > 0 ? ` ${report.silent.slice(0, TOLD).join(", ")}${report.silent.length > TOLD ? ", …" : ""} did not say how many items it holds.` : ""));
  byId("plan-rows").replaceChildren(...report.nodes.map((node) => {
    const change = (before, after) => cell(percent(after / SLOTS), { className: after > before ? "n up" : after < before ? "n down" : "n" });
    return make("tr", { role: "row" }, cell(node.node),
      cell(percent(node.slotsOwnedBefore / SLOTS), { className: "n" }), change(node.slotsOwnedBefore, node.slotsOwnedAfter),
      cell(percent(node.slotsHeldBefore / SLOTS), { className: "n" }), change(node.slotsHeldBefore, node.slotsHeldAfter));
  }));
  say(byId("make"), { add: "Add the node", remove: "Remove the node", replace: "Replace the node" }[wanted]);
  byId("plan").hidden = false;
  drawFuture();
}

byId("make").addEventListener("click", async () => {
  const made = plan;
  if (!made) return;
  dropPlan();
  answerEdit("", `Under way: ${made.sentence}. It goes on when this page is closed.`);
  try {
    const answer = await ask(made.path, { method: "POST" });
    if (answer.status === 200) answerEdit("good", `Made: ${made.sentence}.${answer.text === "OK" ? "" : ` ${answer.text}`}`);
    else answerEdit("bad", reason(answer));
  } catch {
    answerEdit("bad", "No answer came; the change may be under way all the same. The page shows it as soon as it is live again.");
  }
});

function prefill(wanted) {
  const name = chosen;
  if (!name) return;
  document.querySelector(`input[name=verb][value=${wanted}]`).checked = true;
  showFields();
  dropPlan();
  byId("leaver").value = name;
  byId("edit-form").scrollIntoView({ block: "center" });
  (wanted === "replace" ? byId("newcomer") : byId("leaver")).focus();
}

byId("detail-remove").addEventListener("click", () => prefill("remove"));
byId("detail-replace").addEventListener("click", () => prefill("replace"));

// MARK: Begin

drawScale();
showFields();
if (!document.hidden) listenAgain();

// The status page: asks this node once a second and shows what it says. Nothing is sent but GET to this node.
"use strict";

const EVERY_MS = 1000;
const STATES = { active: "good", gated: "warn", full: "warn", withheld: "warn", starting: "warn", joining: "warn", stopping: "warn" };
const open = new Set();
let before = null;
let spoken = "";

const $ = (id) => document.getElementById(id);

// Elements are reused, so that focus and selection stay while figures change.
function el(parent, key, tag, className) {
  let found = parent.querySelector(`:scope > [data-key="${CSS.escape(key)}"]`);
  if (!found) {
    found = document.createElement(tag);
    found.dataset.key = key;
    parent.append(found);
  }
  if (className !== undefined && found.className !== className) found.className = className;
  found.dataset.seen = "1";
  return found;
}
function begin(parent) {
  for (const child of parent.children) delete child.dataset.seen;
}
function end(parent) {
  for (const child of [...parent.children]) if (child.dataset.key && !child.dataset.seen) child.remove();
}
function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

const count = (n) => (n ?? 0).toLocaleString("en");
function rate(now, then, seconds) {
  if (then === undefined || seconds <= 0 || now < then) return "–";
  const value = (now - then) / seconds;
  return value >= 100 ? count(Math.round(value)) : value.toFixed(value < 10 && value > 0 ? 1 : 0);
}
function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
  return `${at ? n.toFixed(1) : n} ${units[at]}`;
}
function span(ms) {
  if (ms < 1000) return `${ms} ms`;
  const s = Math.floor(ms / 1000);
  if (s < 120) return `${s} s`;
  const m = Math.floor(s / 60);
  if (m < 120) return `${m} min`;
  const h = Math.floor(m / 60);
  return h < 48 ? `${h} h` : `${Math.floor(h / 24)} d`;
}

// Servers without a name of their own give their key.
function short(server) {
  return server.length > 24 ? `${server.slice(0, 8)}…` : server;
}

function path(values) {
  const most = Math.max(1, ...values);
  const step = values.length > 1 ? 100 / (values.length - 1) : 0;
  return values.map((v, i) => `${i ? "L" : "M"}${(i * step).toFixed(2)} ${(30 - (28 * v) / most).toFixed(2)}`).join("");
}
function plot(parent, key, values, className, label) {
  const ns = "http://www.w3.org/2000/svg";
  let svg = parent.querySelector(":scope > svg");
  if (!svg) {
    svg = document.createElementNS(ns, "svg");
    svg.setAttribute("viewBox", "0 0 100 30");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("class", className);
    for (const name of ["body", "edge"]) {
      const p = document.createElementNS(ns, "path");
      p.setAttribute("class", name);
      svg.append(p);
    }
    parent.append(svg);
  }
  svg.setAttribute("aria-label", label);
  const d = values.length > 1 ? path(values) : "";
  svg.children[1].setAttribute("d", d);
  svg.children[0].setAttribute("d", d && `${d}L100 30L0 30Z`);
}
// What was counted from one sample to the next, per second.
function perSecond(counters, step_ms) {
  const out = [];
  for (let i = 1; i < counters.length; i += 1) out.push(Math.max(0, ((counters[i] - counters[i - 1]) * 1000) / step_ms));
  return out;
}
const last = (values) => (values.length ? values[values.length - 1] : 0);

function facts(status) {
  const list = $("facts");
  begin(list);
  const hub = status.hub ?? {};
  const store = status.store ?? {};
  const put = (key, label, value, className = "") => {
    const item = el(list, key, "li", className);
    if (!item.firstChild) { item.append(document.createElement("span"), document.createElement("b")); }
    text(item.children[0], `${label} `);
    text(item.children[1], value);
  };
  put("hub", "hub", hub.connected ? `${short(hub.server)} (nats-server ${hub.server_version})` : "away; applications go on from the backlog",
    hub.connected ? "good state" : "bad state");
  put("store", "local log", `${bytes(store.bytes ?? 0)} of ${bytes(store.quota_bytes ?? 0)}, ${bytes(store.free_bytes ?? 0)} free on disk`,
    store.poisoned ? "bad state" : "");
  put("rss", "memory", bytes(status.resident_bytes));
  put("up", "up", span(status.uptime_ms));
  put("version", "version", status.version);
  put("uuid", "identity", status.node_uuid.slice(0, 8));
  end(list);
}

function checks(lines) {
  const list = $("check-list");
  begin(list);
  for (const line of lines) {
    const found = /^\[([+!-])\](.*)$/.exec(line);
    if (!found) continue;
    const className = { "+": "good", "!": "warn", "-": "bad" }[found[1]];
    text(el(list, found[2].split(" ")[0], "li", `${className} state`), found[2]);
  }
  end(list);
}

function flow(section, m, then, seconds) {
  const list = el(section, "flow", "ol", "flow");
  list.setAttribute("aria-label", `The way of a message of ${m.name}`);
  begin(list);
  const card = (key, title, lines) => {
    const item = el(list, key, "li");
    begin(item);
    text(el(item, "title", "b"), title);
    lines.forEach((line, i) => text(el(item, `l${i}`, "span"), line));
    end(item);
  };
  for (const s of m.sources) {
    card(`s-${s.stream}-${s.incarnation}`, `hub stream ${s.stream}`,
      [`${count(s.pending)} not handed out yet`, `${count(s.ack_pending)} handed out, not settled`, `closed through ${count(s.closed_through)}`]);
  }
  card("node", "this node",
    [`${rate(m.won_messages, then?.won_messages, seconds)} messages/s won`, `${count(m.won_messages)} won, ${count(m.lost_messages)} left to others`,
      `ledger ${count(m.ledger_position)}, ${count(m.ledger_lag)} behind; epoch ${count(m.epoch)}`]);
  card("topic", `topic ${m.topic}`, [`${count(m.head_offset)} messages published`, `${count(m.open_batches)} open batches, ${count(m.staged_batches)} staged`]);
  const instances = m.apps.reduce((n, a) => n + a.instances.length, 0);
  card("apps", `${m.apps.length} application${m.apps.length === 1 ? "" : "s"}`,
    [`${instances} instance${instances === 1 ? "" : "s"} here`, `${count(m.apps.reduce((n, a) => n + a.backlog_messages, 0))} messages wait`]);
  end(list);
}

function appRows(body, m, then, seconds, line) {
  begin(body);
  for (const a of m.apps) {
    const old = then?.apps.find((other) => other.name === a.name);
    const key = `${m.name}/${a.name}`;
    const row = el(body, `a-${a.name}`, "tr");
    const head = el(row, "name", "th");
    head.scope = "row";
    const button = el(head, "button", "button");
    button.type = "button";
    if (!button.onclick) button.onclick = () => { if (!open.delete(key)) open.add(key); tick(true); };
    button.setAttribute("aria-expanded", String(open.has(key)));
    button.setAttribute("aria-label", `Instances of ${a.name}`);
    text(button, open.has(key) ? "−" : "+");
    text(el(head, "label", "span"), a.name);
    const acked = perSecond(line?.apps?.[a.name]?.acked ?? [], line?.step_ms ?? 1);
    plot(el(row, "plot", "td"), key, acked, "line", `${a.name}: acknowledgements per second over the last minutes, now ${Math.round(last(acked))}`);
    const cells = [
      ["rate", acked.length ? count(Math.round(last(acked))) : rate(a.acked, old?.acked, seconds)], ["backlog", count(a.backlog_messages)], ["bytes", bytes(a.backlog_bytes)],
      ["oldest", a.backlog_messages ? span(a.oldest_unacked_ms) : "–"], ["flight", count(a.in_flight)], ["again", count(a.redeliveries)],
      ["dead", count(a.dead_letters)], ["instances", count(a.instances.length)],
    ];
    for (const [name, value] of cells) {
      const isBad = (name === "dead" && a.dead_letters > 0) || (name === "instances" && a.instances.length === 0);
      text(el(row, name, "td", isBad ? "bad" : ""), value);
    }
    if (!open.has(key)) continue;
    for (const i of a.instances) {
      const one = el(body, `i-${a.name}-${i.name}`, "tr", "instance");
      const name = el(one, "name", "th");
      name.scope = "row";
      text(name, i.name);
      const was = old?.instances.find((other) => other.name === i.name);
      text(el(one, "who", "td"), `pid ${i.peer_pid}, uid ${i.peer_uid}`);
      text(el(one, "rate", "td"), rate(i.acked, was?.acked, seconds));
      const rest = el(one, "rest", "td");
      rest.colSpan = 6;
      text(rest, `${count(i.in_flight)} in flight, ${count(i.acked)} acknowledged, connected for ${span(i.connected_ms)}`);
      body.insertBefore(one, row.nextSibling);
    }
  }
  end(body);
}

function mapping(root, m, then, seconds, line) {
  const section = el(root, m.name, "section");
  section.setAttribute("aria-labelledby", `m-${m.name}`);
  begin(section);
  const title = el(section, "title", "h2");
  title.id = `m-${m.name}`;
  begin(title);
  text(el(title, "name", "span"), `Mapping ${m.name} `);
  text(el(title, "state", "span", `state ${STATES[m.state] ?? "bad"}`), m.state);
  end(title);
  if (m.reason) text(el(section, "reason", "p", `reason ${STATES[m.state] ?? "bad"}`), m.reason);
  if (m.delivery) text(el(section, "delivery", "p", "reason"), `Guarantee held: ${m.delivery}`);
  flow(section, m, then, seconds);
  const plots = el(section, "plots", "div", "plots");
  begin(plots);
  const figure = (key, label, values, unit) => {
    const f = el(plots, key, "figure");
    plot(f, key, values, "wide", `${label} over the last minutes; now ${count(Math.round(last(values)))} ${unit}`);
    const caption = el(f, "caption", "figcaption");
    text(caption, `${label}: ${count(Math.round(last(values)))} ${unit}, at most ${count(Math.round(Math.max(0, ...values)))}`);
  };
  const won = perSecond(line?.won ?? [], line?.step_ms ?? 1);
  const apps = Object.values(line?.apps ?? {});
  const sum = (name) => (apps.length ? apps[0][name].map((_, i) => apps.reduce((n, a) => n + (a[name][i] ?? 0), 0)) : []);
  figure("won", "Won by this node", won, "messages/s");
  figure("acked", "Acknowledged by all applications", perSecond(sum("acked"), line?.step_ms ?? 1), "messages/s");
  figure("backlog", "Waiting for all applications", sum("backlog"), "messages");
  end(plots);
  const scroll = el(section, "scroll", "div", "scroll");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", `Applications of ${m.name}`);
  let table = scroll.querySelector("table");
  if (!table) {
    table = document.createElement("table");
    const heads = ["Application", "Last minutes", "Acked/s", "Backlog", "Bytes", "Oldest", "In flight", "Redelivered", "Dead letters", "Instances"];
    const caption = table.createCaption();
    caption.textContent = "Applications, each of which gets every message of the mapping once";
    const row = table.createTHead().insertRow();
    for (const head of heads) {
      const th = document.createElement("th");
      th.scope = "col";
      th.textContent = head;
      row.append(th);
    }
    table.append(document.createElement("tbody"));
    scroll.append(table);
  }
  appRows(table.tBodies[0], m, then, seconds, line);
  end(section);
}

function say(sentence) {
  if (sentence === spoken) return;
  spoken = sentence;
  text($("news"), sentence);
}

function show(status, timeline, lines, at) {
  const seconds = before ? (at - before.at) / 1000 : 0;
  text($("node"), status.node);
  document.title = `${status.node} · fanin`;
  facts(status);
  checks(lines);
  const root = $("mappings");
  begin(root);
  for (const m of status.mappings) {
    const then = before?.status.mappings.find((other) => other.name === m.name);
    const line = timeline.mappings[m.name];
    mapping(root, m, then, seconds, line && { ...line, step_ms: timeline.step_ms });
  }
  end(root);
  const wrong = status.mappings.filter((m) => !(m.state in STATES));
  const away = status.hub && !status.hub.connected ? [`The hub is away. ${status.hub.reason ?? ""}`.trim()] : [];
  say([...away, ...wrong.map((m) => `Mapping ${m.name} is ${m.state}.`)].join(" "));
}

let shown = null;
async function tick(again) {
  if (again && shown) { show(...shown); return; }
  try {
    const options = { cache: "no-store", signal: AbortSignal.timeout(5 * EVERY_MS) };
    const [status, timeline, ready] = await Promise.all([
      fetch("status", options).then((r) => { if (!r.ok) throw new Error(`status ${r.status}`); return r.json(); }),
      fetch("timeline", options).then((r) => r.json()),
      fetch("readyz?verbose&page", options).then((r) => r.text()),
    ]);
    const at = performance.now();
    shown = [status, timeline, ready.split("\n"), at];
    show(...shown);
    if (!before || at - before.at >= EVERY_MS) before = { status, at };
  } catch (error) {
    say(`This node does not answer (${error.message}). What is shown may be old.`);
  }
}
async function run() {
  await tick(false);
  setTimeout(run, document.hidden ? 5 * EVERY_MS : EVERY_MS);
}
run();

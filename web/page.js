// The operator page: one session is shown at a time, its state is asked for once a second.

import { key, request, upload } from "./api.js";
import { Player, Publisher, UNREACHED } from "./live.js";
import { Plot } from "./plots.js";
import { askForNodes, stateOf } from "./nodes.js";
import { Talk } from "./talk.js";
import { setUpDialogs } from "./dialogs.js";

const POLL = 1000;
// Time for media to come, after which the page says what may stop it.
const PATIENCE = 8000;
const $ = (id) => document.getElementById(id);

const CONTROLS = ["play", "speak-file", "talk", "microphone", "interrupt", "delete"];

const state = { sessions: [], id: null, server: null, player: null, publisher: null, talk: null, cpu: null, counts: null, quietUntil: 0 };

const plots = {
  latency: new Plot($("plots"), "Latency", "ms", { ceiling: 300 }),
  offset: new Plot($("plots"), "A/V offset", "ms", { floor: -20, ceiling: 20, digits: 1 }),
  fps: new Plot($("plots"), "Frames a second", "", { ceiling: 30 }),
  faults: new Plot($("plots"), "Held, late or dropped a second", "", { ceiling: 5 }),
  viewers: new Plot($("plots"), "Viewers", "", { ceiling: 4 }),
  cpu: new Plot($("plots"), "CPU", "%", { ceiling: 100 }),
};

// --- What is told -----------------------------------------------------------------------------------------------

// An error with what did not succeed, or good news.
export function tell(error, { good = false, failed = error.title ?? error.name } = {}) {
  const notice = document.createElement("div");
  notice.className = good ? "notice good" : "notice";
  const text = document.createElement("div");
  const title = document.createElement("b");
  title.textContent = good ? error : failed;
  text.append(title, good ? "" : error.message);
  const close = document.createElement("button");
  close.className = "small";
  close.type = "button";
  close.textContent = "Dismiss";
  close.onclick = () => notice.remove();
  notice.append(text, close);
  $("notices").append(notice);
  while ($("notices").children.length > 4) $("notices").firstChild.remove();
  setTimeout(() => notice.remove(), good ? 4000 : 20000);
}

// An action of a button; where it fails, `failed` says what did.
function act(id, failed, action) {
  $(id).addEventListener("click", async () => {
    $(id).disabled = true;
    $(id).dataset.busy = "yes";
    try {
      await action();
    } catch (error) {
      tell(error, { failed });
    } finally {
      delete $(id).dataset.busy;
      $(id).disabled = false;
      show();
    }
  });
}

// --- State ------------------------------------------------------------------------------------------------------

const current = () => state.sessions.find((session) => session.id === state.id);
const path = (rest = "") => `/api/v1/sessions/${encodeURIComponent(state.id)}${rest}`;

let asking = false;

async function poll() {
  if (asking || document.hidden) return;
  asking = true;
  try {
    const [sessions, server, capacity, nodes] = await Promise.all([
      request("GET", "/api/v1/sessions"),
      request("GET", "/api/v1/server"),
      request("GET", "/api/v1/capacity"),
      askForNodes(),
    ]);
    Object.assign(state, { sessions, server, capacity, nodes });
    $("screen-note").dataset.offline = "";
    measure(server);
    show();
    plot();
    if (state.player) showReceived(await state.player.received());
  } catch (error) {
    $("screen-note").dataset.offline = error.message;
    show();
  } finally {
    asking = false;
  }
}

function measure(server) {
  const now = performance.now();
  if (state.cpu) state.load = (server.cpu_seconds - state.cpu.seconds) / (now - state.cpu.at) * 1e5 / server.cores;
  state.cpu = { seconds: server.cpu_seconds, at: now };
}

export function choose(id) {
  if (id === state.id) return;
  stop();
  endVoice();
  state.id = id;
  state.counts = null;
  state.gain = undefined;
  Object.values(plots).forEach((p) => p !== plots.cpu && p.clear());
  $("speech-line").textContent = "";
  history.replaceState(null, "", id ? `#${encodeURIComponent(id)}` : "#");
  show();
  if (id) play();
}

export async function refresh() {
  await poll();
}

// --- What is shown ----------------------------------------------------------------------------------------------

// Texts are changed in place: what is selected or read aloud stays.
function write(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

function fill(list, entries) {
  const names = entries.map(([name]) => name).join("\n");
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...entries.map(([name]) => {
      const group = document.createElement("div");
      const [term, description] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      group.append(term, description);
      return group;
    }));
  }
  entries.forEach(([, value, bad], n) => {
    const group = list.children[n];
    write(group.lastChild, value);
    group.className = bad ? "bad" : "";
  });
}

function show() {
  const ids = state.sessions.map((session) => session.id);
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (!ids.includes(state.id)) choose(ids.includes(wanted) ? wanted : ids[0] ?? null);
  const picker = $("session");
  if (picker.dataset.ids !== ids.join("\n")) {
    picker.dataset.ids = ids.join("\n");
    picker.replaceChildren(...ids.map((id) => new Option(id, id)));
  }
  picker.value = state.id ?? "";

  showMachine();
  const session = current();
  for (const id of CONTROLS) $(id).disabled = !session || $(id).dataset.busy !== undefined;
  $("title").textContent = session?.id ?? "No session";
  if (!session) {
    $("screen-note").textContent = $("screen-note").dataset.offline || "There is no session. Create one to see it here.";
    for (const id of ["counters", "links", "addresses"]) {
      $(id).replaceChildren();
      $(id).removeAttribute("data-names");
      $(id).removeAttribute("data-text");
    }
    for (const id of ["stages-panel", "clips-panel", "gain-row", "graph", "speaking"]) $(id).hidden = true;
    for (const id of ["phase", "reason", "speech-line"]) $(id).textContent = "";
    return;
  }
  showSession(session);
  showVoice(session);
  showAddresses(session);
}

function showMachine() {
  const { server, capacity } = state;
  if (!server) return;
  $("cpu").textContent = state.load === undefined ? "–" : `${Math.round(state.load)} %`;
  $("cpu").title = `of ${server.cores} cores`;
  $("memory").textContent = `${Math.round(server.memory_bytes / 1e6)} MB`;
  const left = capacity.sessions_left;
  $("room").textContent = capacity.full ? "no more" : `${left} session${left === 1 ? "" : "s"}`;
  $("room").title = capacity.full
    ?? `of 720p at 25 frames a second, as measured on this machine: ${capacity.resources.map(ofResource).join(", ")}`;
  $("version").textContent = `Lipstream ${server.version}`;
  showCards(server);
  showNodes(state.nodes);
}

function showNodes(nodes) {
  $("nodes-panel").hidden = !nodes;
  if (!nodes) return;
  const free = nodes.filter((node) => !node.silent && !node.draining).reduce((sum, node) => sum + node.sessions_free, 0);
  write($("nodes-free"), `room for ${free} session${free === 1 ? "" : "s"}`);
  tabulate($("nodes"), nodes.map((node) => [
    node.name,
    String(node.sessions),
    node.silent || node.draining ? "–" : String(node.sessions_free),
    stateOf(node),
    `${node.seconds.toFixed(node.silent ? 0 : 1)} s ago`,
  ]));
  nodes.forEach((node, n) => { $("nodes").rows[n].className = node.silent && !node.draining ? "bad" : ""; });
}

// Of all programs on the cards, and of the engines that sessions share.
function showCards({ cards, engines, encoder }) {
  $("cards-panel").hidden = cards.length === 0;
  write($("encoder"), `H.264 by ${encoder}`);
  const list = $("cards");
  while (list.children.length > cards.length) list.lastChild.remove();
  const told = (value, text) => value === undefined ? "–" : text(value);
  cards.forEach((card, n) => {
    const own = list.children[n] ?? list.appendChild(cardElement());
    const gigabytes = (bytes) => (bytes / 2 ** 30).toFixed(1);
    write(own.firstChild, `${card.number}: ${card.name}`);
    fill(own.lastChild, [
      ["Busy", told(card.utilisation, (part) => `${Math.round(100 * part)} %`)],
      ["Memory", `${gigabytes(card.memory_used_bytes)} of ${gigabytes(card.memory_bytes)} GiB`, card.memory_used_bytes > 0.95 * card.memory_bytes],
      ["Power", told(card.power_watts, (watts) => `${Math.round(watts)} W`)],
      ["Temperature", told(card.temperature_celsius, (degrees) => `${Math.round(degrees)} °C`)],
    ]);
  });
  const rows = engines.flatMap(({ name, queued, stages }) => stages.map((stage, n) => [
    `${name} ${stage.name}`,
    stage.batches ? (stage.items / stage.batches).toFixed(1) : "–",
    stage.batches ? stage.p50_ms.toFixed(1) : "–",
    // Items wait for any stage of their engine.
    n === 0 ? String(queued) : "",
  ]));
  tabulate($("batches"), rows);
}

function cardElement() {
  const own = document.createElement("div");
  const facts = document.createElement("dl");
  facts.className = "grid";
  own.append(document.createElement("h3"), facts);
  return own;
}

function tabulate(table, rows) {
  while (table.rows.length > rows.length) table.deleteRow(-1);
  rows.forEach((texts, n) => {
    const row = table.rows[n] ?? table.insertRow();
    texts.forEach((text, cell) => write(row.cells[cell] ?? row.insertCell(), text));
  });
}

function ofResource({ kind, device, used, room }) {
  const percent = `${Math.round((100 * used) / room)} %`;
  if (kind === "cores") return `${used.toFixed(2)} of ${room.toFixed(2)} cores taken`;
  return `${percent} of the ${kind === "gpu-time" ? "time" : "memory"} of ${device} taken`;
}

function showSession(session) {
  const phase = session.phase ?? "idle";
  const gone = phase === "running" && session.video === "publish" && !session.publishing && !session.pull?.connected;
  write($("phase"), gone ? "source gone" : phase);
  $("phase").className = `badge ${gone ? "waiting" : phase}`;
  $("speaking").hidden = !session.speaking;
  const { engine } = session.params;
  const parts = [`graph ${session.graph}`, session.avatar && `avatar ${session.avatar}`, engine && `engine ${engine}`, session.reason, session.engine_reason];
  parts.push(session.marks.length ? `marks ${session.marks.join(", ")}` : "no marks");
  write($("reason"), parts.filter(Boolean).join(" · "));
  $("graph").href = path("/graph.svg");
  $("graph").hidden = phase !== "running";
  $("gain-row").hidden = false;
  const gain = session.params["motion-gain"] ?? "1";
  // Not while it is moved.
  if (state.gain !== gain && document.activeElement !== $("gain")) {
    state.gain = gain;
    $("gain").value = gain;
    $("gain-value").textContent = Number(gain).toFixed(2);
  }
  const offline = $("screen-note").dataset.offline;
  const connection = state.player?.peer.connectionState;
  const source = session.pull ? `Waits for ${session.pull.url}`
    : `Nobody publishes yet. Publish to ${[state.server?.rtmp_url && `${state.server.rtmp_url}/${session.id}`, "WHIP"].filter(Boolean).join(", or by ")}.`;
  const missing = phase === "waiting" ? source : "";
  write($("screen-note"), offline ? `The server does not answer: ${offline}`
    : connection === "connected" ? missing : state.note ?? (state.player ? "Connecting…" : "Not playing"));
  const size = session.width ? `${session.width}×${session.height}` : "–";
  fill($("counters"), [
    ["Picture", size],
    ["Frames", session.frames.toLocaleString("en")],
    ["Held", session.frames_held.toLocaleString("en")],
    ["Late", session.frames_late.toLocaleString("en")],
    ["Dropped", session.frames_dropped.toLocaleString("en"), session.frames_dropped > 0],
    ["Own mouth", untouched(session), untouched(session) !== "0"],
    ["Interval p99", `${(session.interval_p99_ms ?? 0).toFixed(0)} ms`],
    ["Restarts", session.restarts, session.restarts > 0],
    ["Sync", inSync(session.sync_offset), Math.abs(session.sync_offset ?? 0) > 1],
    ["Source's sync", inSync(session.source_sync_offset), Math.abs(session.source_sync_offset ?? 0) > 1],
    ["Clock skew", `${session.skew_ppm.toFixed(0)} ppm`],
    ["Last flush", session.flush_ms === null ? "–" : `${session.flush_ms.toFixed(0)} ms`],
    ["Face", session.face ? "followed" : "none", phase === "running" && !session.face],
    ["Bit rate", session.video_bitrate ? `${(session.video_bitrate / 1e6).toFixed(2)} Mbit/s` : "–"],
    ["Running for", phase === "idle" ? "–" : duration(session.uptime)],
  ]);
  const link = (word) => (link) => [`${word} ${link.url}`, link.connected ? "connected" : link.error ?? "not connected", Boolean(link.error)];
  fill($("links"), [...(session.pull ? [link("Reads")(session.pull)] : []), ...session.pushes.map(link("Pushes to"))]);
  $("stages-panel").hidden = session.stages.length === 0;
  showStages(session.stages);
  showClips(session);
}

function showStages(stages) {
  // A stage that has not worked yet has no times.
  const times = (stage) => ["p50_ms", "p95_ms", "p99_ms"].map((key) => stage.p99_ms === 0 ? "–" : stage[key].toFixed(1));
  tabulate($("stages"), stages.map((stage) => [stage.name, ...times(stage)]));
}

function showClips(session) {
  $("clips-panel").hidden = session.clips.length < 2;
  const names = session.clips.join("\n");
  if ($("clips").dataset.names !== names) {
    $("clips").dataset.names = names;
    $("clips").replaceChildren(...session.clips.map((clip) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = clip;
      button.onclick = () => request("POST", path("/clip"), { body: { clip } }).catch((error) => tell(error, { failed: `${clip} is not shown` }));
      return button;
    }));
  }
  for (const button of $("clips").children) button.setAttribute("aria-pressed", button.textContent === session.clip);
}

// What is said here by an event stays until there is something newer to say.
function say(text) {
  state.waiting = false;
  write($("speech-line"), text);
}

function showVoice(session) {
  const open = state.publisher !== null;
  $("microphone").classList.toggle("on", open);
  write($("microphone"), open ? "Close microphone" : "Open microphone");
  const seconds = session.speech_queued_ms / 1000;
  // While the button is held, the WebSocket says what happens.
  if (seconds >= 1 && $("talk").getAttribute("aria-pressed") === "false" && performance.now() > state.quietUntil) {
    write($("speech-line"), `${seconds.toFixed(0)} s of speech wait`);
    state.waiting = true;
  } else if (state.waiting) {
    say("");
  }
}

function showAddresses(session) {
  const rtmp = state.server?.rtmp_url;
  const entries = [["Play by WHEP", `${location.origin}/whep/${session.id}`]];
  if (rtmp) entries.push(["Play by RTMP", `${rtmp}/${session.id}/synced`]);
  const dub = session.voice === "second";
  if (session.video === "publish") {
    entries.push(["Publish by WHIP", `${location.origin}/whip/${session.id}`]);
    if (rtmp) entries.push(["Publish by RTMP", `${rtmp}/${session.id}`]);
    if (rtmp && dub) entries.push(["Publish the voice by RTMP", `${rtmp}/${session.id}/voice`]);
  }
  const header = key() ? ' -H "Authorization: Bearer $KEY"' : "";
  entries.push(["Speak a file", `curl -X POST${header} -T speech.wav ${location.origin}${path("/speak")}`]);
  const text = JSON.stringify(entries);
  if ($("addresses").dataset.text === text) return;
  $("addresses").dataset.text = text;
  $("addresses").replaceChildren(...entries.map(([name, address]) => {
    const group = document.createElement("div");
    const [term, description, code, copy] = ["dt", "dd", "code", "button"].map((tag) => document.createElement(tag));
    term.textContent = name;
    code.textContent = address;
    copy.className = "small";
    copy.type = "button";
    copy.textContent = "Copy";
    copy.setAttribute("aria-label", `Copy: ${name}`);
    copy.onclick = async () => {
      try {
        await navigator.clipboard.writeText(address);
        tell("Copied", { good: true });
      } catch {
        // Only pages by HTTPS or from this machine may copy.
        getSelection().selectAllChildren(code);
        tell("Selected: copy it with the keyboard", { good: true });
      }
    };
    description.append(code, copy);
    group.append(term, description);
    return group;
  }));
}

function plot() {
  plots.cpu.add(state.load);
  const session = current();
  if (!session) return;
  const running = session.phase === "running";
  plots.latency.add(running ? session.latency_ms : NaN);
  plots.offset.add(running ? session.av_offset_ms : NaN);
  plots.fps.add(running ? session.fps : NaN);
  plots.viewers.add(session.viewers);
  const counts = session.frames_held + session.frames_late + session.frames_dropped;
  if (state.counts !== null) plots.faults.add(Math.max(0, counts - state.counts));
  state.counts = counts;
}

function showReceived(received) {
  if (!received) return;
  const parts = [
    received.codec?.replace("video/", ""),
    received.width && `${received.width}×${received.height}`,
    `${received.fps.toFixed(0)} fps`,
    `${(received.rate / 1e6).toFixed(1)} Mbit/s`,
    received.rtt !== undefined && `${(received.rtt * 1000).toFixed(0)} ms`,
    received.lost > 0 && `${received.lost} lost`,
  ];
  $("received").textContent = parts.filter(Boolean).join(" · ");
}

// Frames without a mouth of ours, with their most frequent reason.
function untouched(session) {
  const reasons = Object.entries(session.frames_untouched ?? {}).sort((a, b) => b[1] - a[1]);
  const total = reasons.reduce((sum, [, count]) => sum + count, 0);
  return total ? `${total.toLocaleString("en")} (${reasons[0][0]})` : "0";
}

// Frames of 40 ms by which a picture is late, as the sync check says.
function inSync(frames) {
  if (frames === null || frames === undefined) return "–";
  if (Math.abs(frames) <= 1) return "in sync";
  return `${Math.abs(frames) * 40} ms ${frames > 0 ? "late" : "early"}`;
}

function duration(seconds) {
  const whole = Math.floor(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
}

// --- Picture ----------------------------------------------------------------------------------------------------

async function play() {
  stop();
  let connected = false;
  const player = new Player(state.server?.ice_servers ?? [], (connection) => {
    if (state.player !== player) return;
    connected ||= connection === "connected";
    const failed = connected ? "The connection failed; press Play to try again" : UNREACHED;
    if (connection === "failed") stop();
    state.note = { failed, disconnected: "The connection is gone" }[connection];
    show();
  });
  state.player = player;
  state.note = undefined;
  // Browsers take half a minute until they call it failed, and some never do.
  setTimeout(() => {
    if (state.player !== player || connected || state.note) return;
    state.note = UNREACHED;
    show();
  }, PATIENCE);
  $("video").srcObject = player.stream;
  showPlay();
  try {
    await player.open(state.id);
    await $("video").play();
  } catch (error) {
    if (state.player !== player) return;
    stop();
    state.note = error.message;
    show();
  }
}

function stop() {
  state.player?.close();
  state.player = null;
  state.note = undefined;
  $("video").srcObject = null;
  $("received").textContent = "";
  showPlay();
}

function showPlay() {
  $("play").textContent = state.player ? "Stop" : "Play";
  $("sound").disabled = !state.player;
}

$("play").addEventListener("click", () => {
  if (state.player) stop();
  else play();
  show();
});

$("sound").addEventListener("click", () => {
  const video = $("video");
  video.muted = !video.muted;
  $("sound").textContent = video.muted ? "Unmute" : "Mute";
});

// --- Voice ------------------------------------------------------------------------------------------------------

$("speak-file").addEventListener("change", async () => {
  const [file] = $("speak-file").files;
  if (!file) return;
  const bar = $("speak-progress");
  bar.hidden = false;
  try {
    const type = file.type || "application/octet-stream";
    const told = (part) => { bar.firstChild.style.width = `${part * 100}%`; };
    const spoken = await upload("POST", path("/speak"), file, { "Content-Type": type }, told);
    if (spoken?.seconds) tell(`${file.name}: ${spoken.seconds.toFixed(1)} s of speech`, { good: true });
  } catch (error) {
    tell(error, { failed: `${file.name} is not spoken` });
  } finally {
    bar.hidden = true;
    bar.firstChild.style.width = "0";
    $("speak-file").value = "";
  }
});

act("interrupt", "Not interrupted", async () => {
  const { ms } = await request("POST", path("/interrupt"));
  // What was asked for before tells of speech that is gone.
  state.quietUntil = performance.now() + POLL;
  say(`Interrupted: the mouth was at rest after ${ms.toFixed(0)} ms`);
});

act("microphone", "The microphone is not open", async () => {
  if (state.publisher) {
    await endVoice();
    return;
  }
  const publisher = new Publisher(state.server?.ice_servers ?? [], (connection) => {
    if (connection !== "failed" || state.publisher !== publisher) return;
    endVoice();
    tell(new Error(UNREACHED), { failed: "The connection of the microphone failed" });
    show();
  });
  await publisher.open(state.id);
  state.publisher = publisher;
});

async function endVoice() {
  const { publisher, talk } = state;
  state.publisher = null;
  state.talk = null;
  talk?.close();
  await publisher?.close();
}

function heard(event) {
  const words = {
    listening: "Listening", speaking: "Speaking", idle: "All is said",
    flushed: `Interrupted: the mouth was at rest after ${event.ms?.toFixed(0)} ms`, error: event.message,
  };
  say(words[event.type] ?? JSON.stringify(event));
}

async function startTalking() {
  $("talk").setAttribute("aria-pressed", true);
  try {
    if (!state.talk?.open) state.talk = new Talk(state.id, heard);
    await state.talk.start();
  } catch (error) {
    stopTalking();
    tell(error, { failed: "The microphone is not open" });
  }
}

function stopTalking() {
  $("talk").setAttribute("aria-pressed", false);
  state.talk?.stop();
}

$("talk").addEventListener("pointerdown", (event) => {
  $("talk").setPointerCapture(event.pointerId);
  startTalking();
});
$("talk").addEventListener("pointerup", stopTalking);
$("talk").addEventListener("pointercancel", stopTalking);
$("talk").addEventListener("keydown", (event) => {
  if ((event.key === " " || event.key === "Enter") && !event.repeat) startTalking();
});
$("talk").addEventListener("keyup", (event) => (event.key === " " || event.key === "Enter") && stopTalking());
$("talk").addEventListener("blur", stopTalking);

// --- The rest ---------------------------------------------------------------------------------------------------

$("gain").addEventListener("input", () => { $("gain-value").textContent = Number($("gain").value).toFixed(2); });
$("gain").addEventListener("change", () => {
  const params = { "motion-gain": $("gain").value };
  request("PATCH", path(), { body: { params } }).catch((error) => tell(error, { failed: "The motion gain stays" }));
});

$("session").addEventListener("change", () => choose($("session").value));

// A link carries no key: what needs one is fetched, and opened from here.
for (const id of ["graph", "metrics"]) {
  $(id).addEventListener("click", async (event) => {
    if (!key()) return;
    event.preventDefault();
    try {
      const response = await request("GET", $(id).getAttribute("href"), { raw: true });
      const url = URL.createObjectURL(await response.blob());
      window.open(url, "_blank");
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    } catch (error) {
      tell(error, { failed: "Not opened" });
    }
  });
}

act("delete", "The session is not deleted", async () => {
  if (!confirm(`End session ${state.id}? Its viewers and publishers are let go.`)) return;
  stop();
  await endVoice();
  await request("DELETE", path());
  state.id = null;
  await poll();
});

window.addEventListener("pagehide", () => {
  stop();
  endVoice();
});
document.addEventListener("visibilitychange", poll);
window.addEventListener("resize", () => Object.values(plots).forEach((p) => p.draw()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => Object.values(plots).forEach((p) => p.draw()));

setUpDialogs({ tell, choose, refresh });
poll();
setInterval(poll, POLL);

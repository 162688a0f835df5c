// The operator page: one session is shown at a time, its state is asked for once a second.

import { request, upload } from "./api.js";
import { Player, Publisher } from "./live.js";
import { Plot } from "./plots.js";
import { Talk } from "./talk.js";
import { setUpDialogs } from "./dialogs.js";

const POLL = 1000;
const $ = (id) => document.getElementById(id);

const CONTROLS = ["play", "speak-file", "talk", "microphone", "interrupt", "delete"];

const state = { sessions: [], id: null, server: null, player: null, publisher: null, talk: null, cpu: null, counts: null };

const plots = {
  latency: new Plot($("plots"), "Latency", "ms", { ceiling: 300 }),
  offset: new Plot($("plots"), "A/V offset", "ms", { floor: -20, ceiling: 20, digits: 1 }),
  fps: new Plot($("plots"), "Frame rate", "fps", { ceiling: 30, digits: 1 }),
  faults: new Plot($("plots"), "Held, late, lost", "/s", { ceiling: 5 }),
  viewers: new Plot($("plots"), "Viewers", "", { ceiling: 4 }),
  cpu: new Plot($("plots"), "CPU", "%", { ceiling: 100 }),
};

// --- What is told -----------------------------------------------------------------------------------------------

export function tell(error, good = false) {
  const notice = document.createElement("div");
  notice.className = good ? "notice good" : "notice";
  const text = document.createElement("div");
  const title = document.createElement("b");
  title.textContent = good ? error : error.title ?? error.name ?? "Error";
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

// An action of a button; its error is shown.
function act(id, action) {
  $(id).addEventListener("click", async () => {
    $(id).disabled = true;
    $(id).dataset.busy = "yes";
    try {
      await action();
    } catch (error) {
      tell(error);
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
    const [sessions, server, capacity] = await Promise.all([
      request("GET", "/api/v1/sessions"),
      request("GET", "/api/v1/server"),
      request("GET", "/api/v1/capacity"),
    ]);
    Object.assign(state, { sessions, server, capacity });
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

function fill(list, entries) {
  list.replaceChildren(...entries.map(([name, value, bad]) => {
    const group = document.createElement("div");
    const [term, description] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    description.textContent = value;
    description.title = value;
    group.className = bad ? "bad" : "";
    group.append(term, description);
    return group;
  }));
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
    for (const id of ["counters", "stages", "addresses", "clips"]) $(id).replaceChildren();
    $("phase").textContent = "";
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
  $("room").textContent = capacity.full ? "no session" : `${left} session${left === 1 ? "" : "s"}`;
  $("room").title = capacity.full ?? "720p at 25 frames a second, measured on this machine";
  $("version").textContent = `Lipstream ${server.version}`;
}

function showSession(session) {
  const phase = session.phase ?? "idle";
  $("phase").textContent = phase;
  $("phase").className = `badge ${phase}`;
  $("speaking").hidden = !session.speaking;
  const parts = [session.graph, session.avatar && `avatar ${session.avatar}`, session.reason].filter(Boolean);
  $("reason").textContent = parts.join(" · ");
  $("graph").href = path("/graph.svg");
  $("graph").classList.toggle("disabled", phase !== "running");
  const offline = $("screen-note").dataset.offline;
  const connection = state.player?.peer.connectionState;
  $("screen-note").textContent = offline ? `The server does not answer: ${offline}`
    : connection === "connected" ? "" : state.note ?? (state.player ? "Connecting…" : "Not playing");
  const size = session.width ? `${session.width}×${session.height}` : "–";
  fill($("counters"), [
    ["Picture", size],
    ["Frames a second", session.fps.toFixed(1)],
    ["Frames", session.frames.toLocaleString("en")],
    ["Held", session.frames_held.toLocaleString("en")],
    ["Late", session.frames_late.toLocaleString("en")],
    ["Dropped", session.frames_dropped.toLocaleString("en"), session.frames_dropped > 0],
    ["Interval p99", `${(session.interval_p99_ms ?? 0).toFixed(0)} ms`],
    ["Viewers", session.viewers],
    ["Restarts", session.restarts, session.restarts > 0],
    ["Clock skew", `${session.skew_ppm.toFixed(0)} ppm`],
    ["Last flush", session.flush_ms === null ? "–" : `${session.flush_ms.toFixed(0)} ms`],
    ["Face", session.face ? "followed" : "none"],
    ["Bit rate", session.video_bitrate ? `${(session.video_bitrate / 1e6).toFixed(2)} Mbit/s` : "–"],
    ["Up", duration(session.uptime)],
    ...session.pushes.map((push) => [push.url, push.connected ? "connected" : push.error ?? "connecting", !push.connected]),
  ]);
  $("stages-panel").hidden = session.stages.length === 0;
  $("stages").replaceChildren(...session.stages.map((stage) => {
    const row = document.createElement("tr");
    for (const text of [stage.name, ...["p50_ms", "p95_ms", "p99_ms"].map((k) => stage[k].toFixed(1))]) {
      row.insertCell().textContent = text;
    }
    return row;
  }));
  $("clips-panel").hidden = session.clips.length < 2;
  $("clips").replaceChildren(...session.clips.map((clip) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = clip;
    button.setAttribute("aria-pressed", clip === session.clip);
    button.onclick = () => request("POST", path("/clip"), { body: { clip } }).catch(tell);
    return button;
  }));
}

function showVoice(session) {
  const talking = state.publisher !== null;
  $("microphone").setAttribute("aria-pressed", talking);
  $("microphone").textContent = talking ? "Microphone is live" : "Microphone live";
  const queued = session.speech_queued_ms;
  if (queued > 0) $("speech-line").textContent = `${(queued / 1000).toFixed(1)} s of speech wait`;
  else if ($("speech-line").textContent.includes("wait")) $("speech-line").textContent = "";
}

function showAddresses(session) {
  const rtmp = state.server?.rtmp_url;
  const entries = [["Play by WHEP", `${location.origin}/whep/${session.id}`]];
  if (rtmp) entries.push(["Play by RTMP", `${rtmp}/${session.id}/synced`]);
  if (session.video === "publish") {
    entries.push(["Publish by WHIP", `${location.origin}/whip/${session.id}`]);
    if (rtmp) entries.push(["Publish by RTMP", `${rtmp}/${session.id}`]);
  }
  entries.push(["Speak a file", `curl -X POST -T speech.wav ${location.origin}${path("/speak")}`]);
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
    copy.onclick = () => navigator.clipboard.writeText(address).then(() => tell("Copied", true), tell);
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

function duration(seconds) {
  const whole = Math.floor(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
}

// --- Picture ----------------------------------------------------------------------------------------------------

async function play() {
  stop();
  const player = new Player(state.server?.ice_servers ?? [], (connection) => {
    if (state.player !== player) return;
    state.note = { failed: "The connection failed; press Play to try again", disconnected: "The connection is gone" }[connection];
    if (connection === "failed") stop();
    show();
  });
  state.player = player;
  state.note = undefined;
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
  $("sound").setAttribute("aria-pressed", !video.muted);
  $("sound").textContent = video.muted ? "Sound off" : "Sound on";
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
    if (spoken?.seconds) tell(`${file.name}: ${spoken.seconds.toFixed(1)} s of speech`, true);
  } catch (error) {
    tell(error);
  } finally {
    bar.hidden = true;
    bar.firstChild.style.width = "0";
    $("speak-file").value = "";
  }
});

act("interrupt", async () => {
  const { ms } = await request("POST", path("/interrupt"));
  $("speech-line").textContent = `Interrupted: silent after ${ms.toFixed(0)} ms`;
});

act("microphone", async () => {
  if (state.publisher) {
    await endVoice();
    return;
  }
  const publisher = new Publisher(state.server?.ice_servers ?? [], (connection) => {
    if (connection !== "failed" || state.publisher !== publisher) return;
    endVoice();
    tell(new Error("the connection of the microphone failed"));
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
    listening: "Listening", speaking: "Speaking", idle: "Silent",
    flushed: `Interrupted: silent after ${event.ms?.toFixed(0)} ms`, error: event.message,
  };
  $("speech-line").textContent = words[event.type] ?? JSON.stringify(event);
}

async function startTalking() {
  $("talk").setAttribute("aria-pressed", true);
  try {
    if (!state.talk?.open) state.talk = new Talk(state.id, heard);
    await state.talk.start();
  } catch (error) {
    stopTalking();
    tell(error);
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
  request("PATCH", path(), { body: { params } }).catch(tell);
});

$("session").addEventListener("change", () => choose($("session").value));

act("delete", async () => {
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

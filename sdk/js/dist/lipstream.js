// src/errors.ts
var LipstreamError = class _LipstreamError extends Error {
  constructor(status, type, message) {
    super(message);
    this.status = status;
    this.type = type;
  }
  status;
  type;
  name = "LipstreamError";
  /** Of an answer that is none of success. */
  static async of(response) {
    const text = await response.text().catch(() => "");
    try {
      const problem = JSON.parse(text);
      return new _LipstreamError(response.status, problem.type ?? "", problem.detail || problem.title);
    } catch {
      return new _LipstreamError(response.status, "", text.slice(0, 300) || `${response.status} ${response.statusText}`);
    }
  }
};

// src/backoff.ts
var Backoff = class {
  constructor(first = 500, most = 8e3) {
    this.first = first;
    this.most = most;
    this.#next = first;
  }
  first;
  most;
  #next;
  /** Milliseconds until the next attempt. */
  take() {
    const wait = this.#next * (0.75 + Math.random() / 2);
    this.#next = Math.min(this.#next * 2, this.most);
    return wait;
  }
  reset() {
    this.#next = this.first;
  }
};
function pause(ms, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const over = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", over);
      resolve();
    };
    const timer = setTimeout(over, ms);
    signal.addEventListener("abort", over);
  });
}

// src/speech.ts
var RATE = 24e3;
var KEEP_ALIVE = 6e4;
var FULL = 200;
var PIECE = 96e3;
var Speech = class extends EventTarget {
  constructor(session) {
    super();
    this.session = session;
  }
  session;
  #socket;
  #open;
  #closed = new AbortController();
  #backoff = new Backoff();
  /** Who waits for what of which utterance. */
  #endings = /* @__PURE__ */ new Map();
  /** Who waits for whether the sound of an utterance was queued. */
  #answers = /* @__PURE__ */ new Map();
  /** Utterances of which the session has no sound yet. */
  #unheard = /* @__PURE__ */ new Set();
  #sending = Promise.resolve();
  /** Completes the utterance that was begun last. */
  #finish = () => {
  };
  #flushed = [];
  /** Listens to one kind of event. */
  on(type, listener) {
    this.addEventListener(type, (event) => listener(event.detail));
  }
  /** Opens the socket, so that events come and the first sentence waits for nothing. */
  async open() {
    await this.#connected();
  }
  /** Begins a sentence; one that is being written ends where it is. */
  begin(id = name()) {
    const ended = new Promise((resolve) => this.#endings.set(id, resolve));
    const sound = [];
    let complete = false;
    let silent = true;
    let more = () => {
    };
    this.#unheard.add(id);
    this.#finish();
    this.#finish = () => {
      complete = true;
      more();
    };
    const finish = this.#finish;
    const next = () => new Promise((resolve) => {
      more = resolve;
    });
    const pump = async () => {
      await this.#connected();
      while (!complete || sound.length) {
        if (sound.length) {
          silent = false;
          await this.#queue(id, take(sound, PIECE));
        } else await Promise.race([next(), ended]);
        if (!this.#endings.has(id)) return;
      }
      if (silent) this.#settle(id, { spokenMs: 0 });
      else this.#send({ type: "agent.speak_end", event_id: id });
    };
    this.#sending = this.#sending.then(pump).catch(() => this.#settle(id, { spokenMs: 0, cut: "disconnected" }));
    return {
      id,
      write: (samples) => {
        sound.push(new Uint8Array(samples instanceof Int16Array ? samples.buffer.slice(samples.byteOffset, samples.byteOffset + samples.byteLength) : samples.slice(0)));
        more();
      },
      end: () => {
        finish();
        return ended;
      }
    };
  }
  /** Sends sound of an utterance; returns when the session has queued it, which it does when it has space, or nobody waits for it. */
  async #queue(id, sound) {
    const command = { type: "agent.speak", audio: base64(sound), event_id: id };
    while (this.#endings.has(id)) {
      const answer = new Promise((resolve) => this.#answers.set(id, resolve));
      this.#send(command);
      if (await answer) return void this.#unheard.delete(id);
      await pause(FULL, this.#closed.signal);
    }
  }
  /** Throws away what is queued and closes the mouth; gives the milliseconds until it was at rest. */
  async interrupt() {
    await this.#connected();
    for (const id of [...this.#unheard]) this.#settle(id, { spokenMs: 0, cut: "interrupted" });
    const flushed = new Promise((resolve, reject) => this.#flushed.push({ resolve, reject }));
    this.#send({ type: "agent.interrupt" });
    return flushed;
  }
  close() {
    this.#closed.abort();
    this.#socket?.close();
  }
  #connected() {
    if (this.#closed.signal.aborted) return Promise.reject(new LipstreamError(0, "", "this speech has been closed"));
    this.#open ??= this.#connect();
    return this.#open;
  }
  #connect() {
    const { server, id } = this.session;
    const url = server.at(`/api/v1/sessions/${encodeURIComponent(id)}/agent`);
    url.protocol = url.protocol.replace("http", "ws");
    if (server.token) url.searchParams.set("token", server.token);
    const protocols = ["lipstream", ...server.key && !server.token ? [`bearer.${base64(utf8(server.key), true)}`] : []];
    const socket = new WebSocket(url, protocols);
    this.#socket = socket;
    const alive = setInterval(() => this.#send({ type: "session.keep_alive" }), KEEP_ALIVE);
    return new Promise((resolve, reject) => {
      let connected = false;
      socket.onmessage = (message) => {
        const event = JSON.parse(String(message.data));
        if (event.type === "session.state_updated" && event.state === "connected") {
          connected = true;
          this.#backoff.reset();
          resolve(socket);
        }
        this.#told(event);
      };
      socket.onclose = () => {
        clearInterval(alive);
        this.#open = void 0;
        this.#lost();
        if (!connected) {
          reject(new LipstreamError(0, "", `the speech socket of session ${id} does not open: no such session, no right to it, or no server`));
        } else if (!this.#closed.signal.aborted) {
          this.dispatchEvent(new CustomEvent("disconnected", { detail: { type: "disconnected" } }));
          void this.#again();
        }
      };
    });
  }
  async #again() {
    while (!this.#closed.signal.aborted && !this.#open) {
      await pause(this.#backoff.take(), this.#closed.signal);
      if (!this.#closed.signal.aborted) await this.#connected().catch(() => {
      });
    }
  }
  #send(command) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(command));
  }
  #told(event) {
    if (event.type === "agent.speak_ended" || event.type === "agent.speak_interrupted") {
      this.#settle(event.event_id, { spokenMs: event.spoken_ms ?? 0, ...event.cut ? { cut: event.cut } : {} });
    } else if (event.type === "agent.audio_buffer_appended") {
      this.#answer(event.source_event_id, true);
    } else if (event.type === "error" && event.error.event_id) {
      this.#answer(event.error.event_id, event.error.type !== "buffer_full");
    } else if (event.type === "agent.interrupted") {
      for (const { resolve } of this.#flushed.splice(0)) resolve(event.ms);
    }
    this.dispatchEvent(new CustomEvent(event.type, { detail: event }));
  }
  #settle(id, end) {
    this.#endings.get(id)?.(end);
    this.#endings.delete(id);
    this.#unheard.delete(id);
    this.#answer(id, true);
  }
  #answer(id, queued) {
    this.#answers.get(id ?? "")?.(queued);
    this.#answers.delete(id ?? "");
  }
  /** Nothing more is told of what was spoken over a socket that is gone. */
  #lost() {
    for (const id of [...this.#endings.keys()]) this.#settle(id, { spokenMs: 0, cut: "disconnected" });
    const lost = new LipstreamError(0, "", "the speech socket broke before the mouth was at rest");
    for (const { reject } of this.#flushed.splice(0)) reject(lost);
  }
};
function name() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
function take(pieces, most) {
  const taken = new Uint8Array(Math.min(most, pieces.reduce((sum, piece) => sum + piece.length, 0)));
  for (let at = 0; at < taken.length; ) {
    const piece = pieces.shift();
    const part = piece.subarray(0, taken.length - at);
    taken.set(part, at);
    at += part.length;
    if (part.length < piece.length) pieces.unshift(piece.subarray(part.length));
  }
  return taken;
}
function utf8(text) {
  return new TextEncoder().encode(text);
}
function base64(bytes, url = false) {
  let text = "";
  for (let from = 0; from < bytes.length; from += 8192) text += String.fromCharCode(...bytes.subarray(from, from + 8192));
  const coded = btoa(text);
  return url ? coded.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "") : coded;
}

// src/session.ts
var Session = class {
  constructor(server, id) {
    this.server = server;
    this.id = id;
  }
  server;
  id;
  get #parts() {
    return { id: this.id };
  }
  async status() {
    return this.server.call("GET /api/v1/sessions/{id}", this.#parts);
  }
  /** Changes it while it runs. */
  async change(change) {
    return this.server.call("PATCH /api/v1/sessions/{id}", this.#parts, { body: change });
  }
  /** Speaks a file: WAV, MP3, Ogg Opus or FLAC, or raw samples as `audio/L16;rate=24000;channels=1`. Resolves when all of it is queued. */
  async speak(sound, options = {}) {
    const type = options.type ?? (sound instanceof Blob ? sound.type : "");
    return this.server.call("POST /api/v1/sessions/{id}/speak", this.#parts, {
      body: sound,
      type: type || "application/octet-stream",
      query: {
        ...options.utterance ? { utterance: options.utterance } : {},
        ...options.voice ? { voice: options.voice } : {}
      },
      ...options.signal ? { signal: options.signal } : {}
    });
  }
  /** Throws away what is queued, or that of one voice, and closes the mouth; gives the milliseconds until it was at rest. */
  async interrupt(voice) {
    const { ms } = await this.server.call("POST /api/v1/sessions/{id}/interrupt", this.#parts, {
      query: voice ? { voice } : {}
    });
    return ms;
  }
  /** Ends it with its viewers. */
  async end() {
    await this.server.call("DELETE /api/v1/sessions/{id}", this.#parts);
  }
  /** Speech in pieces as it is made, and what becomes of it. */
  speech() {
    return new Speech(this);
  }
};

// src/server.ts
var Lipstream = class {
  url;
  #access;
  /** `url` is the server's address: `http://127.0.0.1:8080`, or that of a proxy with the path that stands for its root. */
  constructor(url, access = {}) {
    this.url = new URL(url);
    if (!/^https?:$/.test(this.url.protocol)) throw new TypeError(`${url} is no address of a server: give http:// or https://`);
    if (!this.url.pathname.endsWith("/")) this.url.pathname += "/";
    this.#access = access;
  }
  get token() {
    return this.#access.token;
  }
  get key() {
    return this.#access.key;
  }
  /** A session by its id, whether it exists or not. */
  session(id) {
    return new Session(this, id);
  }
  async sessions() {
    return this.call("GET /api/v1/sessions");
  }
  /** Creates a session. */
  async create(spec) {
    await this.call("POST /api/v1/sessions", {}, { body: spec });
    return this.session(spec.id);
  }
  async avatars() {
    return this.call("GET /api/v1/avatars");
  }
  /** Version, addresses, STUN and TURN servers. */
  async state() {
    return this.call("GET /api/v1/server");
  }
  /** A call of the API whose answer is JSON, or nothing. */
  async call(call, parts = {}, request = {}) {
    const [method, path] = call.split(" ");
    const filled = path.replace(/\{(\w+)\}/g, (_, name2) => encodeURIComponent(parts[name2] ?? ""));
    const response = await this.send(method, filled, request);
    const text = await response.text();
    return text ? JSON.parse(text) : void 0;
  }
  /** A request to a path of the server. Throws a {@link LipstreamError} where it is refused or does not get there. */
  async send(method, path, { body, type, query, keepalive, signal } = {}) {
    const url = this.at(path);
    for (const [name2, value] of Object.entries(query ?? {})) url.searchParams.set(name2, value);
    const json = body !== void 0 && isPlain(body);
    const bearer = this.#access.token ?? this.#access.key;
    const headers = new Headers();
    const media = json ? "application/json" : type;
    if (media) headers.set("Content-Type", media);
    if (bearer) headers.set("Authorization", `Bearer ${bearer}`);
    let response;
    try {
      const sent = body === void 0 ? {} : { body: json ? JSON.stringify(body) : body };
      response = await fetch(url, { method, headers, ...sent, keepalive: keepalive ?? false, signal: signal ?? null });
    } catch (error) {
      if (signal?.aborted) throw error;
      const why = `${url.origin} does not answer, or does not allow pages of ${globalThis.location?.origin ?? "this origin"} (server.cors_origins): ${String(error)}`;
      throw new LipstreamError(0, "", why);
    }
    if (!response.ok) throw await LipstreamError.of(response);
    return response;
  }
  /** The address of a path of the server. */
  at(path) {
    return new URL(path.replace(/^\//, ""), this.url);
  }
};
function isPlain(body) {
  return Object.getPrototypeOf(body) === Object.prototype;
}

// src/webrtc.ts
var GATHERING = 800;
var BROKEN = 3e3;
var STALLED = 5e3;
var Connection = class {
  constructor(session, iceServers2) {
    this.session = session;
    this.peer = new RTCPeerConnection({ iceServers: iceServers2 });
  }
  session;
  peer;
  #resource;
  #closed = false;
  /** STUN and TURN servers that the answer named, for the next attempt. */
  iceServers = [];
  /** Sends the offer and takes the answer. */
  async open(path) {
    await this.peer.setLocalDescription();
    await gathered(this.peer);
    const body = this.peer.localDescription?.sdp ?? "";
    const answer = await this.session.server.send("POST", path, { body, type: "application/sdp" });
    const location2 = answer.headers.get("Location");
    this.#resource = location2 ? new URL(location2, answer.url) : void 0;
    this.iceServers = iceServers(answer.headers.get("Link"));
    if (this.#closed) return this.#leave();
    await this.peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  }
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#leave();
  }
  /** The server notices by itself where this does not get there. */
  #leave() {
    if (!this.#resource) return this.peer.close();
    const path = this.#resource.pathname.slice(this.session.server.url.pathname.length - 1);
    this.session.server.send("DELETE", path, { keepalive: true }).catch(() => {
    }).finally(() => this.peer.close());
    this.#resource = void 0;
  }
};
function gathered(peer) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, GATHERING);
    const look = () => {
      if (peer.iceGatheringState !== "complete") return;
      clearTimeout(timer);
      resolve();
    };
    peer.addEventListener("icegatheringstatechange", look);
    look();
  });
}
function iceServers(header) {
  const links = header?.match(/<[^>]*>[^<]*/g) ?? [];
  return links.filter((link) => /;\s*rel="?ice-server"?/i.test(link)).map((link) => {
    const value = (name2) => new RegExp(`;\\s*${name2}="([^"]*)"`, "i").exec(link)?.[1];
    const [username, credential] = [value("username"), value("credential")];
    const urls = link.slice(1, link.indexOf(">"));
    return { urls, ...username ? { username } : {}, ...credential ? { credential } : {} };
  });
}
var Player = class {
  /** `changed` is told each change of the state, and the cause where there is one. */
  constructor(session, changed = () => {
  }) {
    this.session = session;
    this.changed = changed;
    void this.#play();
  }
  session;
  changed;
  /** For the `srcObject` of a video element; it stays the same over reconnections. */
  stream = new MediaStream();
  state = "connecting";
  #connection;
  #iceServers = [];
  #closed = new AbortController();
  #backoff = new Backoff();
  /** The connection of the moment, for its statistics. */
  get peer() {
    return this.#connection?.peer;
  }
  close() {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort();
    this.#drop();
    this.#become("closed");
  }
  #become(state, error) {
    if (this.state === state && !error) return;
    this.state = state;
    this.changed(state, error);
  }
  #drop() {
    this.#connection?.close();
    this.#connection = void 0;
    for (const track of this.stream.getTracks()) this.stream.removeTrack(track);
  }
  async #play() {
    const { signal } = this.#closed;
    while (!signal.aborted) {
      let cause;
      try {
        await this.#watch(await this.#connect());
      } catch (error) {
        cause = error;
      }
      if (signal.aborted) return;
      this.#drop();
      if (cause instanceof LipstreamError && (cause.status === 401 || cause.status === 403)) return this.#become("refused", cause);
      this.#become("reconnecting", cause);
      await pause(this.#backoff.take(), signal);
    }
  }
  async #connect() {
    const connection = new Connection(this.session, this.#iceServers);
    this.#connection = connection;
    const { peer } = connection;
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.addTransceiver("audio", { direction: "recvonly" });
    peer.addEventListener("track", ({ track }) => this.stream.addTrack(track));
    await connection.open(`/whep/${encodeURIComponent(this.session.id)}`);
    if (connection.iceServers.length) this.#iceServers = connection.iceServers;
    return connection;
  }
  /** Returns when the connection is to be made anew. */
  async #watch({ peer }) {
    const { signal } = this.#closed;
    let frames = 0;
    let moved = performance.now();
    let whole = moved;
    while (!signal.aborted) {
      await pause(250, signal);
      const now = performance.now();
      if (peer.connectionState === "connected") whole = now;
      else if (peer.connectionState === "failed" || peer.connectionState === "closed") return;
      else if (this.state === "playing" && now - whole > BROKEN) return;
      const decoded = await framesDecoded(peer);
      if (decoded > frames || document.hidden) moved = now;
      if (decoded > frames) {
        this.#backoff.reset();
        this.#become("playing");
      }
      frames = decoded;
      if (now - moved > STALLED * (this.state === "playing" ? 1 : 2)) return;
    }
  }
};
async function framesDecoded(peer) {
  for (const report of (await peer.getStats()).values()) {
    if (report.type === "inbound-rtp" && report.kind === "video") return report.framesDecoded ?? 0;
  }
  return 0;
}
var Microphone = class {
  /** `broken` is called when the connection breaks, after which the microphone is off. */
  constructor(session, broken = () => {
  }) {
    this.session = session;
    this.broken = broken;
  }
  session;
  broken;
  #connection;
  #media;
  get on() {
    return this.#connection !== void 0;
  }
  /** Asks for the microphone and sends it until {@link stop}. Throws where the user or the server refuses. */
  async start() {
    if (this.#connection) return;
    if (!navigator.mediaDevices) throw new Error("browsers give the microphone to pages by HTTPS or from this machine only");
    const connection = new Connection(this.session, []);
    this.#connection = connection;
    try {
      const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true };
      const media = await navigator.mediaDevices.getUserMedia({ audio });
      this.#media = media;
      if (this.#connection !== connection) return media.getTracks().forEach((track) => track.stop());
      for (const track of media.getTracks()) {
        connection.peer.addTransceiver(track, { direction: "sendonly", streams: [media] });
      }
      connection.peer.addEventListener("connectionstatechange", () => {
        if (this.#connection !== connection || !["failed", "closed"].includes(connection.peer.connectionState)) return;
        this.stop();
        this.broken();
      });
      await connection.open(`/whip/${encodeURIComponent(this.session.id)}/voice`);
    } catch (error) {
      this.stop();
      throw error;
    }
  }
  stop() {
    this.#media?.getTracks().forEach((track) => track.stop());
    this.#media = void 0;
    this.#connection?.close();
    this.#connection = void 0;
  }
};

// src/element.ts
var STYLE = `
  :host { display: inline-block; position: relative; background: #222; overflow: hidden }
  :host([hidden]) { display: none }
  video { display: block; width: 100%; height: 100%; object-fit: contain }
  button { font: inherit; cursor: pointer }
  .unmute { position: absolute; inset: auto 0.75rem 0.75rem auto; padding: 0.4em 0.9em; border: 0; border-radius: 2em; background: #000c; color: #fff }
  .note { position: absolute; inset: auto 0.75rem 0.75rem 0.75rem; margin: 0; color: #fff; font: 0.9rem sans-serif; text-shadow: 0 0 4px #000; pointer-events: none }
  [hidden] { display: none }
`;
var Base = globalThis.HTMLElement ?? class {
};
var LipstreamAvatar = class extends Base {
  static observedAttributes = ["server", "session", "token", "muted", "label"];
  /** One of the server's keys, for pages that only operators see. It is no attribute, so that it does not stand in the markup. */
  key;
  #server;
  #session;
  #player;
  #microphone;
  #speech;
  #begun = false;
  #video = document.createElement("video");
  #unmute = document.createElement("button");
  #note = document.createElement("p");
  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    Object.assign(this.#video, { autoplay: true, playsInline: true });
    this.#video.setAttribute("part", "video");
    this.#video.setAttribute("aria-label", "Avatar");
    Object.assign(this.#unmute, { className: "unmute", type: "button", hidden: true, textContent: "Unmute" });
    this.#unmute.setAttribute("part", "unmute");
    this.#unmute.addEventListener("click", () => {
      this.muted = false;
      this.#sound();
    });
    Object.assign(this.#note, { className: "note", hidden: true });
    this.#note.setAttribute("part", "note");
    this.#note.setAttribute("role", "status");
    root.append(this.#video, this.#note, this.#unmute);
  }
  get state() {
    return this.#player?.state ?? "closed";
  }
  get muted() {
    return this.hasAttribute("muted");
  }
  set muted(muted) {
    this.toggleAttribute("muted", muted);
  }
  /** The video element, for its size or a picture of it. */
  get video() {
    return this.#video;
  }
  /** The session that is shown. */
  get session() {
    if (!this.#session) throw new Error("<lipstream-avatar> is not part of a page, or its attribute `session` is missing");
    return this.#session;
  }
  /** The player, for its statistics. */
  get player() {
    return this.#player;
  }
  /** Speech in pieces, and what is told of it; opened when it is first asked for. */
  get speech() {
    return this.#speech ??= this.session.speech();
  }
  /** Speaks a file. */
  speak(sound, options) {
    return this.session.speak(sound, options);
  }
  /** Begins a sentence that is spoken as it is made: 16-bit samples at 24 kHz. */
  begin(id) {
    return this.speech.begin(id);
  }
  /** Throws away what is queued and closes the mouth; gives the milliseconds until it was at rest. */
  interrupt() {
    return this.speech.interrupt();
  }
  get microphoneOn() {
    return this.#microphone?.on ?? false;
  }
  /** Makes the user's microphone the voice of the session. */
  async startMicrophone() {
    this.#microphone ??= new Microphone(this.session, () => this.stopMicrophone());
    await this.#microphone.start();
    this.#tell("microphone", { on: this.microphoneOn });
  }
  stopMicrophone() {
    if (!this.#microphone) return;
    this.#microphone.stop();
    this.#microphone = void 0;
    this.#tell("microphone", { on: false });
  }
  connectedCallback() {
    addEventListener("pageshow", this.#return);
    this.#begin();
  }
  disconnectedCallback() {
    queueMicrotask(() => {
      if (this.isConnected) return;
      removeEventListener("pageshow", this.#return);
      this.#end();
    });
  }
  attributeChangedCallback(name2, before, after) {
    if (name2 === "muted") {
      this.#video.muted = this.muted;
      if (this.muted) this.#unmute.hidden = true;
    } else if (name2 === "label") {
      this.#video.setAttribute("aria-label", after ?? "Avatar");
    } else if (before !== after) {
      this.#end();
      this.#begin();
    }
  }
  #begin() {
    const id = this.getAttribute("session");
    if (this.#begun || !this.isConnected || !id) return;
    const token = this.getAttribute("token");
    const access = { ...token ? { token } : {}, ...this.key ? { key: this.key } : {} };
    try {
      this.#server = new Lipstream(new URL(this.getAttribute("server") ?? "/", location.href), access);
    } catch (error) {
      return this.#say(String(error.message));
    }
    this.#begun = true;
    this.#session = this.#server.session(id);
    this.#video.muted = this.muted;
    this.#player = new Player(this.#session, (state, error) => this.#changed(state, error));
    this.#video.srcObject = this.#player.stream;
    this.#changed("connecting");
    addEventListener("pagehide", this.#leave);
  }
  #leave = () => this.#end();
  /** The user comes back to a page that the browser has kept. */
  #return = (event) => event.persisted && this.#begin();
  #end() {
    if (!this.#begun) return;
    this.#begun = false;
    removeEventListener("pagehide", this.#leave);
    this.stopMicrophone();
    this.#speech?.close();
    this.#player?.close();
    this.#video.srcObject = null;
    this.#speech = this.#player = this.#session = void 0;
  }
  #changed(state, error) {
    const notes = { connecting: "Connecting…", reconnecting: "Reconnecting…" };
    this.#say(state === "refused" && error ? error.message : notes[state] ?? "");
    if (state === "playing") {
      this.#sound();
      if (this.#server?.token) this.speech.open().catch(() => {
      });
    }
    this.#tell("state", { state, ...error ? { error } : {} });
  }
  /** Plays with sound where the browser lets it, else without. */
  #sound() {
    this.#video.muted = this.muted;
    this.#unmute.hidden = true;
    this.#video.play().catch((error) => {
      if (error.name !== "NotAllowedError") return;
      this.#video.muted = true;
      this.#unmute.hidden = false;
      this.#video.play().catch(() => {
      });
    });
  }
  #say(note) {
    this.#note.textContent = note;
    this.#note.hidden = !note;
  }
  #tell(name2, detail) {
    this.dispatchEvent(new CustomEvent(name2, { detail }));
  }
};

// src/index.ts
if (globalThis.customElements && !customElements.get("lipstream-avatar")) customElements.define("lipstream-avatar", LipstreamAvatar);
export {
  Lipstream,
  LipstreamAvatar,
  LipstreamError,
  Microphone,
  Player,
  RATE,
  Session,
  Speech
};

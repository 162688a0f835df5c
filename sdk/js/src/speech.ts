import type { AgentCommand, AgentEvent } from "./api.js";
import { Backoff, pause } from "./backoff.js";
import { LipstreamError } from "./errors.js";
import type { Session } from "./session.js";

/** Samples a second of what {@link Utterance.write} takes. */
export const RATE = 24000;
/** A session of a token ends when its agent has been silent for five minutes. */
const KEEP_ALIVE = 60_000;
/** Milliseconds until sound is sent again for which the session had no space. */
const FULL = 200;
/** Bytes of sound in one message; the server takes 1 MiB of JSON. */
const PIECE = 96_000;

/** What a session says of its speech, and `disconnected`, after which it is connected again by itself; what was being spoken is told of no more. */
export type SpeechEvent = AgentEvent | { type: "disconnected" };

/** A sentence that is spoken as it is made. */
export interface Utterance {
  readonly id: string;
  /** 16-bit samples of one channel at 24 kHz, in pieces of any size, as fast as they are made: what the session has no space for waits here. */
  write(samples: Int16Array | ArrayBuffer): void;
  /** All of it is written. Resolves when it has been shown: with the milliseconds that were spoken, and why not all of it was. */
  end(): Promise<{ spokenMs: number; cut?: string }>;
}

/** Speech over a socket: it is opened when it is first needed, and again when it breaks. */
export class Speech extends EventTarget {
  #socket: WebSocket | undefined;
  #open: Promise<WebSocket> | undefined;
  readonly #closed = new AbortController();
  readonly #backoff = new Backoff();
  /** Who waits for what of which utterance. */
  readonly #endings = new Map<string, (end: { spokenMs: number; cut?: string }) => void>();
  /** Who waits for whether the sound of an utterance was queued. */
  readonly #answers = new Map<string, (queued: boolean) => void>();
  /** Utterances of which the session has no sound yet. */
  readonly #unheard = new Set<string>();
  #sending: Promise<void> = Promise.resolve();
  /** Completes the utterance that was begun last. */
  #finish = () => {};
  #flushed: { resolve: (ms: number) => void; reject: (error: Error) => void }[] = [];

  constructor(private readonly session: Session) {
    super();
  }

  /** Listens to one kind of event. */
  on<T extends SpeechEvent["type"]>(type: T, listener: (event: Extract<SpeechEvent, { type: T }>) => void): void {
    this.addEventListener(type, (event) => listener((event as CustomEvent).detail));
  }

  /** Opens the socket, so that events come and the first sentence waits for nothing. */
  async open(): Promise<void> {
    await this.#connected();
  }

  /** Begins a sentence; one that is being written ends where it is. */
  begin(id: string = name()): Utterance {
    const ended = new Promise<{ spokenMs: number; cut?: string }>((resolve) => this.#endings.set(id, resolve));
    const sound: Uint8Array[] = [];
    let complete = false;
    let silent = true;
    let more = () => {};
    this.#unheard.add(id);
    this.#finish();
    this.#finish = () => {
      complete = true;
      more();
    };
    const finish = this.#finish;
    const next = () => new Promise<void>((resolve) => { more = resolve; });
    const pump = async () => {
      await this.#connected();
      while (!complete || sound.length) {
        if (sound.length) {
          silent = false;
          await this.#queue(id, take(sound, PIECE));
        } else await Promise.race([next(), ended]);
        if (!this.#endings.has(id)) return;
      }
      // The server tells nothing of one without sound.
      if (silent) this.#settle(id, { spokenMs: 0 });
      else this.#send({ type: "agent.speak_end", event_id: id });
    };
    // One after the other, as the server takes them.
    this.#sending = this.#sending.then(pump).catch(() => this.#settle(id, { spokenMs: 0, cut: "disconnected" }));
    return {
      id,
      write: (samples) => {
        // What the caller does with its buffer afterwards is not our matter.
        sound.push(new Uint8Array(samples instanceof Int16Array
          ? samples.buffer.slice(samples.byteOffset, samples.byteOffset + samples.byteLength)
          : samples.slice(0)));
        more();
      },
      end: () => {
        finish();
        return ended;
      },
    };
  }

  /** Sends sound of an utterance; returns when the session has queued it, which it does when it has space, or nobody waits for it. */
  async #queue(id: string, sound: Uint8Array): Promise<void> {
    const command: AgentCommand = { type: "agent.speak", audio: base64(sound), event_id: id };
    while (this.#endings.has(id)) {
      const answer = new Promise<boolean>((resolve) => this.#answers.set(id, resolve));
      this.#send(command);
      if (await answer) return void this.#unheard.delete(id);
      await pause(FULL, this.#closed.signal);
    }
  }

  /** Throws away what is queued and closes the mouth; gives the milliseconds until it was at rest. */
  async interrupt(): Promise<number> {
    await this.#connected();
    // The server knows nothing of these.
    for (const id of [...this.#unheard]) this.#settle(id, { spokenMs: 0, cut: "interrupted" });
    const flushed = new Promise<number>((resolve, reject) => this.#flushed.push({ resolve, reject }));
    this.#send({ type: "agent.interrupt" });
    return flushed;
  }

  close(): void {
    this.#closed.abort();
    this.#socket?.close();
  }

  #connected(): Promise<WebSocket> {
    if (this.#closed.signal.aborted) return Promise.reject(new LipstreamError(0, "", "this speech has been closed"));
    this.#open ??= this.#connect();
    return this.#open;
  }

  #connect(): Promise<WebSocket> {
    const { server, id } = this.session;
    const url = server.at(`/api/v1/sessions/${encodeURIComponent(id)}/agent`);
    url.protocol = url.protocol.replace("http", "ws");
    if (server.token) url.searchParams.set("token", server.token);
    // A browser sets no headers on a socket: a key goes as a subprotocol.
    const protocols = ["lipstream", ...(server.key && !server.token ? [`bearer.${base64(utf8(server.key), true)}`] : [])];
    const socket = new WebSocket(url, protocols);
    this.#socket = socket;
    const alive = setInterval(() => this.#send({ type: "session.keep_alive" }), KEEP_ALIVE);
    return new Promise((resolve, reject) => {
      let connected = false;
      socket.onmessage = (message) => {
        const event = JSON.parse(String(message.data)) as AgentEvent;
        if (event.type === "session.state_updated" && event.state === "connected") {
          connected = true;
          this.#backoff.reset();
          resolve(socket);
        }
        this.#told(event);
      };
      socket.onclose = () => {
        clearInterval(alive);
        this.#open = undefined;
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

  async #again(): Promise<void> {
    while (!this.#closed.signal.aborted && !this.#open) {
      await pause(this.#backoff.take(), this.#closed.signal);
      if (!this.#closed.signal.aborted) await this.#connected().catch(() => {});
    }
  }

  #send(command: AgentCommand): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(command));
  }

  #told(event: AgentEvent): void {
    if (event.type === "agent.speak_ended" || event.type === "agent.speak_interrupted") {
      this.#settle(event.event_id, { spokenMs: event.spoken_ms ?? 0, ...(event.cut ? { cut: event.cut } : {}) });
    } else if (event.type === "agent.audio_buffer_appended") {
      this.#answer(event.source_event_id, true);
    } else if (event.type === "error" && event.error.event_id) {
      this.#answer(event.error.event_id, event.error.type !== "buffer_full");
    } else if (event.type === "agent.interrupted") {
      for (const { resolve } of this.#flushed.splice(0)) resolve(event.ms);
    }
    this.dispatchEvent(new CustomEvent(event.type, { detail: event }));
  }

  #settle(id: string, end: { spokenMs: number; cut?: string }): void {
    this.#endings.get(id)?.(end);
    this.#endings.delete(id);
    this.#unheard.delete(id);
    this.#answer(id, true);
  }

  #answer(id: string | null | undefined, queued: boolean): void {
    this.#answers.get(id ?? "")?.(queued);
    this.#answers.delete(id ?? "");
  }

  /** Nothing more is told of what was spoken over a socket that is gone. */
  #lost(): void {
    for (const id of [...this.#endings.keys()]) this.#settle(id, { spokenMs: 0, cut: "disconnected" });
    const lost = new LipstreamError(0, "", "the speech socket broke before the mouth was at rest");
    for (const { reject } of this.#flushed.splice(0)) reject(lost);
  }
}

/** `crypto.randomUUID` is for secure contexts only, and pages of a local network have none. */
function name(): string {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Up to `most` bytes of the pieces, which are taken out of them; an even number, as each piece has. */
function take(pieces: Uint8Array[], most: number): Uint8Array {
  const taken = new Uint8Array(Math.min(most, pieces.reduce((sum, piece) => sum + piece.length, 0)));
  for (let at = 0; at < taken.length;) {
    const piece = pieces.shift() as Uint8Array;
    const part = piece.subarray(0, taken.length - at);
    taken.set(part, at);
    at += part.length;
    if (part.length < piece.length) pieces.unshift(piece.subarray(part.length));
  }
  return taken;
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function base64(bytes: Uint8Array, url = false): string {
  let text = "";
  for (let from = 0; from < bytes.length; from += 8192) text += String.fromCharCode(...bytes.subarray(from, from + 8192));
  const coded = btoa(text);
  return url ? coded.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "") : coded;
}

import type { Spoken } from "./api.js";
import { Lipstream } from "./server.js";
import type { Session } from "./session.js";
import type { Speech, Utterance } from "./speech.js";
import { Microphone, Player, type PlayerState } from "./webrtc.js";

const STYLE = `
  :host { display: inline-block; position: relative; background: #222; overflow: hidden }
  :host([hidden]) { display: none }
  video { display: block; width: 100%; height: 100%; object-fit: contain }
  button { font: inherit; cursor: pointer }
  .unmute { position: absolute; inset: auto 0.75rem 0.75rem auto; padding: 0.4em 0.9em; border: 0; border-radius: 2em; background: #000c; color: #fff }
  .note { position: absolute; inset: auto 0.75rem 0.75rem 0.75rem; margin: 0; color: #fff; font: 0.9rem sans-serif; text-shadow: 0 0 4px #000; pointer-events: none }
  [hidden] { display: none }
`;

/** What a {@link LipstreamAvatar} tells: `state` (its `state` has changed, `error` holds the cause), `microphone` (it went on or off). */
export interface AvatarEvents {
  state: CustomEvent<{ state: PlayerState; error?: Error }>;
  microphone: CustomEvent<{ on: boolean }>;
}

/** Outside of pages, in Node, the file is loaded for the rest of it. */
const Base = globalThis.HTMLElement ?? (class {} as typeof HTMLElement);

/**
 * `<lipstream-avatar server="https://HOST" session="demo"></lipstream-avatar>`: the live picture of a session.
 *
 * Attributes: `server` (this page's own origin where it is missing), `session`, `token` (of one session, see {@link Access}), `muted`,
 * `label` (the accessible name of the picture).
 * Where the browser lets no sound play without a gesture, the picture plays muted and a button offers the sound.
 * Parts for styles: `video`, `unmute`, `note`.
 */
export class LipstreamAvatar extends Base {
  static readonly observedAttributes = ["server", "session", "token", "muted", "label"];

  /** One of the server's keys, for pages that only operators see. It is no attribute, so that it does not stand in the markup. */
  key: string | undefined;
  #server: Lipstream | undefined;
  #session: Session | undefined;
  #player: Player | undefined;
  #microphone: Microphone | undefined;
  #speech: Speech | undefined;
  #begun = false;
  readonly #video = document.createElement("video");
  readonly #unmute = document.createElement("button");
  readonly #note = document.createElement("p");

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    // A style element would need leave of the page's content security policy.
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

  get state(): PlayerState {
    return this.#player?.state ?? "closed";
  }

  get muted(): boolean {
    return this.hasAttribute("muted");
  }

  set muted(muted: boolean) {
    this.toggleAttribute("muted", muted);
  }

  /** The video element, for its size or a picture of it. */
  get video(): HTMLVideoElement {
    return this.#video;
  }

  /** The session that is shown. */
  get session(): Session {
    if (!this.#session) throw new Error("<lipstream-avatar> is not part of a page, or its attribute `session` is missing");
    return this.#session;
  }

  /** The player, for its statistics. */
  get player(): Player | undefined {
    return this.#player;
  }

  /** Speech in pieces, and what is told of it; opened when it is first asked for. */
  get speech(): Speech {
    return (this.#speech ??= this.session.speech());
  }

  /** Speaks a file. */
  speak(sound: Blob | BufferSource, options?: Parameters<Session["speak"]>[1]): Promise<Spoken> {
    return this.session.speak(sound, options);
  }

  /** Begins a sentence that is spoken as it is made: 16-bit samples at 24 kHz. */
  begin(id?: string): Utterance {
    return this.speech.begin(id);
  }

  /** Throws away what is queued and closes the mouth; gives the milliseconds until it was at rest. */
  interrupt(): Promise<number> {
    return this.speech.interrupt();
  }

  get microphoneOn(): boolean {
    return this.#microphone?.on ?? false;
  }

  /** Makes the user's microphone the voice of the session. */
  async startMicrophone(): Promise<void> {
    // A connection that breaks ends the microphone: what it would hear meanwhile is not for later.
    this.#microphone ??= new Microphone(this.session, () => this.stopMicrophone());
    await this.#microphone.start();
    this.#tell("microphone", { on: this.microphoneOn });
  }

  stopMicrophone(): void {
    if (!this.#microphone) return;
    this.#microphone.stop();
    this.#microphone = undefined;
    this.#tell("microphone", { on: false });
  }

  connectedCallback(): void {
    addEventListener("pageshow", this.#return);
    this.#begin();
  }

  disconnectedCallback(): void {
    // An element that is moved in the page is out of it for a moment only.
    queueMicrotask(() => {
      if (this.isConnected) return;
      removeEventListener("pageshow", this.#return);
      this.#end();
    });
  }

  attributeChangedCallback(name: string, before: string | null, after: string | null): void {
    if (name === "muted") {
      this.#video.muted = this.muted;
      if (this.muted) this.#unmute.hidden = true;
    } else if (name === "label") {
      this.#video.setAttribute("aria-label", after ?? "Avatar");
    } else if (before !== after) {
      this.#end();
      this.#begin();
    }
  }

  #begin(): void {
    const id = this.getAttribute("session");
    if (this.#begun || !this.isConnected || !id) return;
    const token = this.getAttribute("token");
    const access = { ...(token ? { token } : {}), ...(this.key ? { key: this.key } : {}) };
    try {
      this.#server = new Lipstream(new URL(this.getAttribute("server") ?? "/", location.href), access);
    } catch (error) {
      return this.#say(String((error as Error).message));
    }
    this.#begun = true;
    this.#session = this.#server.session(id);
    this.#video.muted = this.muted;
    this.#player = new Player(this.#session, (state, error) => this.#changed(state, error));
    this.#video.srcObject = this.#player.stream;
    this.#changed("connecting");
    addEventListener("pagehide", this.#leave);
  }

  readonly #leave = () => this.#end();
  /** The user comes back to a page that the browser has kept. */
  readonly #return = (event: PageTransitionEvent) => event.persisted && this.#begin();

  #end(): void {
    if (!this.#begun) return;
    this.#begun = false;
    removeEventListener("pagehide", this.#leave);
    this.stopMicrophone();
    this.#speech?.close();
    this.#player?.close();
    this.#video.srcObject = null;
    this.#speech = this.#player = this.#session = undefined;
  }

  #changed(state: PlayerState, error?: Error): void {
    const notes: Partial<Record<PlayerState, string>> = { connecting: "Connecting…", reconnecting: "Reconnecting…" };
    this.#say(state === "refused" && error ? error.message : (notes[state] ?? ""));
    if (state === "playing") {
      this.#sound();
      // Its messages keep the session of a token, which ends when nobody has said anything for long.
      if (this.#server?.token) this.speech.open().catch(() => {});
    }
    this.#tell("state", { state, ...(error ? { error } : {}) });
  }

  /** Plays with sound where the browser lets it, else without. */
  #sound(): void {
    this.#video.muted = this.muted;
    this.#unmute.hidden = true;
    this.#video.play().catch((error: DOMException) => {
      if (error.name !== "NotAllowedError") return;
      this.#video.muted = true;
      this.#unmute.hidden = false;
      this.#video.play().catch(() => {});
    });
  }

  #say(note: string): void {
    this.#note.textContent = note;
    this.#note.hidden = !note;
  }

  #tell<K extends keyof AvatarEvents>(name: K, detail: AvatarEvents[K]["detail"]): void {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

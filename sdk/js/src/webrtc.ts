import { Backoff, pause } from "./backoff.js";
import { LipstreamError } from "./errors.js";
import type { Session } from "./session.js";

/** Candidates of this machine come within a moment; the server tells its own in the answer, so that one of the two is enough. */
const GATHERING = 800;
/** A connection that is broken for so long, and a picture that stands still for so long, are made anew. */
const BROKEN = 3000;
const STALLED = 5000;

/** One WHIP or WHEP connection (RFC 9725). */
class Connection {
  readonly peer: RTCPeerConnection;
  #resource: URL | undefined;
  #closed = false;
  /** STUN and TURN servers that the answer named, for the next attempt. */
  iceServers: RTCIceServer[] = [];

  constructor(private readonly session: Session, iceServers: RTCIceServer[]) {
    this.peer = new RTCPeerConnection({ iceServers });
  }

  /** Sends the offer and takes the answer. */
  async open(path: string): Promise<void> {
    await this.peer.setLocalDescription();
    await gathered(this.peer);
    const body = this.peer.localDescription?.sdp ?? "";
    const answer = await this.session.server.send("POST", path, { body, type: "application/sdp" });
    const location = answer.headers.get("Location");
    this.#resource = location ? new URL(location, answer.url) : undefined;
    this.iceServers = iceServers(answer.headers.get("Link"));
    if (this.#closed) return this.#leave();
    await this.peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#leave();
  }

  /** The server notices by itself where this does not get there. */
  #leave(): void {
    if (!this.#resource) return this.peer.close();
    const path = this.#resource.pathname.slice(this.session.server.url.pathname.length - 1);
    // Once the peer is closed the server knows, and the resource is gone.
    this.session.server.send("DELETE", path, { keepalive: true }).catch(() => {}).finally(() => this.peer.close());
    this.#resource = undefined;
  }
}

function gathered(peer: RTCPeerConnection): Promise<void> {
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

/** The servers of `Link` headers: `<stun:a.example>; rel="ice-server"; username="u"; credential="c"`. */
export function iceServers(header: string | null): RTCIceServer[] {
  const links = header?.match(/<[^>]*>[^<]*/g) ?? [];
  return links.filter((link) => /;\s*rel="?ice-server"?/i.test(link)).map((link) => {
    const value = (name: string) => new RegExp(`;\\s*${name}="([^"]*)"`, "i").exec(link)?.[1];
    const [username, credential] = [value("username"), value("credential")];
    const urls = link.slice(1, link.indexOf(">"));
    return { urls, ...(username ? { username } : {}), ...(credential ? { credential } : {}) };
  });
}

/** `connecting` until the first picture, `playing`, `reconnecting` while it is made anew, `refused` where another attempt would change nothing, `closed`. */
export type PlayerState = "connecting" | "playing" | "reconnecting" | "refused" | "closed";

/** The live picture and sound of a session by WHEP. It is connected again by itself when the network or the server was away. */
export class Player {
  /** For the `srcObject` of a video element; it stays the same over reconnections. */
  readonly stream = new MediaStream();
  state: PlayerState = "connecting";
  #connection: Connection | undefined;
  #iceServers: RTCIceServer[] = [];
  readonly #closed = new AbortController();
  readonly #backoff = new Backoff();

  /** `changed` is told each change of the state, and the cause where there is one. */
  constructor(private readonly session: Session, private readonly changed: (state: PlayerState, error?: Error) => void = () => {}) {
    void this.#play();
  }

  /** The connection of the moment, for its statistics. */
  get peer(): RTCPeerConnection | undefined {
    return this.#connection?.peer;
  }

  close(): void {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort();
    this.#drop();
    this.#become("closed");
  }

  #become(state: PlayerState, error?: Error): void {
    if (this.state === state && !error) return;
    this.state = state;
    this.changed(state, error);
  }

  #drop(): void {
    this.#connection?.close();
    this.#connection = undefined;
    for (const track of this.stream.getTracks()) this.stream.removeTrack(track);
  }

  async #play(): Promise<void> {
    const { signal } = this.#closed;
    while (!signal.aborted) {
      let cause: Error | undefined;
      try {
        await this.#watch(await this.#connect());
      } catch (error) {
        cause = error as Error;
      }
      if (signal.aborted) return;
      this.#drop();
      // A key or a token that is not known now is not known later.
      if (cause instanceof LipstreamError && (cause.status === 401 || cause.status === 403)) return this.#become("refused", cause);
      this.#become("reconnecting", cause);
      await pause(this.#backoff.take(), signal);
    }
  }

  async #connect(): Promise<Connection> {
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
  async #watch({ peer }: Connection): Promise<void> {
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
      // Pages in the background decode nothing.
      if (decoded > frames || document.hidden) moved = now;
      if (decoded > frames) {
        this.#backoff.reset();
        this.#become("playing");
      }
      frames = decoded;
      if (now - moved > STALLED * (this.state === "playing" ? 1 : 2)) return;
    }
  }
}

async function framesDecoded(peer: RTCPeerConnection): Promise<number> {
  for (const report of (await peer.getStats()).values()) {
    if (report.type === "inbound-rtp" && report.kind === "video") return report.framesDecoded ?? 0;
  }
  return 0;
}

/** The microphone as the voice of a session by WHIP. */
export class Microphone {
  #connection: Connection | undefined;
  #media: MediaStream | undefined;

  /** `broken` is called when the connection breaks, after which the microphone is off. */
  constructor(private readonly session: Session, private readonly broken: () => void = () => {}) {}

  get on(): boolean {
    return this.#connection !== undefined;
  }

  /** Asks for the microphone and sends it until {@link stop}. Throws where the user or the server refuses. */
  async start(): Promise<void> {
    if (this.#connection) return;
    // Outside of secure contexts there is no such interface.
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

  stop(): void {
    this.#media?.getTracks().forEach((track) => track.stop());
    this.#media = undefined;
    this.#connection?.close();
    this.#connection = undefined;
  }
}

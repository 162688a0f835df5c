import type { Change, Interrupted, Spoken, Status } from "./api.js";
import type { Lipstream } from "./server.js";
import { Speech } from "./speech.js";

/** One of the two voices that a session may have. */
export type Voice = "a" | "b";

/** One session of a server. */
export class Session {
  constructor(
    readonly server: Lipstream,
    readonly id: string,
  ) {}

  get #parts(): { id: string } {
    return { id: this.id };
  }

  async status(): Promise<Status> {
    return this.server.call("GET /api/v1/sessions/{id}", this.#parts);
  }

  /** Changes it while it runs. */
  async change(change: Change): Promise<Status> {
    return this.server.call("PATCH /api/v1/sessions/{id}", this.#parts, { body: change });
  }

  /** Speaks a file: WAV, MP3, Ogg Opus or FLAC, or raw samples as `audio/L16;rate=24000;channels=1`. Resolves when all of it is queued. */
  async speak(sound: Blob | BufferSource, options: { type?: string; utterance?: string; voice?: Voice; signal?: AbortSignal } = {}): Promise<Spoken> {
    const type = options.type ?? (sound instanceof Blob ? sound.type : "");
    return this.server.call("POST /api/v1/sessions/{id}/speak", this.#parts, {
      body: sound,
      type: type || "application/octet-stream",
      query: {
        ...(options.utterance ? { utterance: options.utterance } : {}),
        ...(options.voice ? { voice: options.voice } : {}),
      },
      ...(options.signal ? { signal: options.signal } : {}),
    });
  }

  /** Throws away what is queued, or that of one voice, and closes the mouth; gives the milliseconds until it was at rest. */
  async interrupt(voice?: Voice): Promise<number> {
    const { ms } = await this.server.call<Interrupted>("POST /api/v1/sessions/{id}/interrupt", this.#parts, {
      query: voice ? { voice } : {},
    });
    return ms;
  }

  /** Ends it with its viewers. */
  async end(): Promise<void> {
    await this.server.call("DELETE /api/v1/sessions/{id}", this.#parts);
  }

  /** Speech in pieces as it is made, and what becomes of it. */
  speech(): Speech {
    return new Speech(this);
  }
}

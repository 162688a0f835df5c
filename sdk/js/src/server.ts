import type { Call, Server as ServerState, Spec, Status, Summary } from "./api.js";
import { LipstreamError } from "./errors.js";
import { Session } from "./session.js";

/** What lets a client in. A page for the public gets a token; keys are for programs and operators. */
export interface Access {
  /** One of the server's `auth.keys`. It opens everything: a page that strangers see must not have one. */
  key?: string;
  /** A session's token (`POST /api/v1/liveavatar/sessions/token`, asked for by a server of yours): it opens what shows the session and
   * what speaks in it, and ends with the session. */
  token?: string;
}

/** What a request may have. */
export interface Request {
  body?: BodyInit | object;
  type?: string;
  query?: Record<string, string>;
  /** The page may go away meanwhile. */
  keepalive?: boolean;
  signal?: AbortSignal;
}

/** A Lipstream server. */
export class Lipstream {
  readonly url: URL;
  readonly #access: Access;

  /** `url` is the server's address: `http://127.0.0.1:8080`, or that of a proxy with the path that stands for its root. */
  constructor(url: string | URL, access: Access = {}) {
    this.url = new URL(url);
    if (!/^https?:$/.test(this.url.protocol)) throw new TypeError(`${url} is no address of a server: give http:// or https://`);
    if (!this.url.pathname.endsWith("/")) this.url.pathname += "/";
    this.#access = access;
  }

  get token(): string | undefined {
    return this.#access.token;
  }

  get key(): string | undefined {
    return this.#access.key;
  }

  /** A session by its id, whether it exists or not. */
  session(id: string): Session {
    return new Session(this, id);
  }

  async sessions(): Promise<Status[]> {
    return this.call("GET /api/v1/sessions");
  }

  /** Creates a session. */
  async create(spec: Spec): Promise<Session> {
    await this.call("POST /api/v1/sessions", {}, { body: spec });
    return this.session(spec.id);
  }

  async avatars(): Promise<Summary[]> {
    return this.call("GET /api/v1/avatars");
  }

  /** Version, addresses, STUN and TURN servers. */
  async state(): Promise<ServerState> {
    return this.call("GET /api/v1/server");
  }

  /** A call of the API whose answer is JSON, or nothing. */
  async call<T>(call: Call, parts: Record<string, string> = {}, request: Request = {}): Promise<T> {
    const [method, path] = call.split(" ") as [string, string];
    const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(parts[name] ?? ""));
    const response = await this.send(method, filled, request);
    const text = await response.text();
    return (text ? JSON.parse(text) : undefined) as T;
  }

  /** A request to a path of the server. Throws a {@link LipstreamError} where it is refused or does not get there. */
  async send(method: string, path: string, { body, type, query, keepalive, signal }: Request = {}): Promise<Response> {
    const url = this.at(path);
    for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value);
    const json = body !== undefined && isPlain(body);
    const bearer = this.#access.token ?? this.#access.key;
    const headers = new Headers();
    const media = json ? "application/json" : type;
    if (media) headers.set("Content-Type", media);
    if (bearer) headers.set("Authorization", `Bearer ${bearer}`);
    let response: Response;
    try {
      const sent = body === undefined ? {} : { body: json ? JSON.stringify(body) : (body as BodyInit) };
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
  at(path: string): URL {
    return new URL(path.replace(/^\//, ""), this.url);
  }
}

function isPlain(body: BodyInit | object): body is object {
  return Object.getPrototypeOf(body) === Object.prototype;
}


import type { Problem } from "./api.js";

/** A request that was refused or that did not reach the server. `message` is the server's text: cause and cure. */
export class LipstreamError extends Error {
  override readonly name = "LipstreamError";

  constructor(
    /** The HTTP status; 0 where there was no answer. */
    readonly status: number,
    /** The kind of the problem, `urn:lipstream:` and its name; empty where there was no answer. */
    readonly type: string,
    message: string,
  ) {
    super(message);
  }

  /** Of an answer that is none of success. */
  static async of(response: Response): Promise<LipstreamError> {
    const text = await response.text().catch(() => "");
    try {
      const problem = JSON.parse(text) as Problem;
      return new LipstreamError(response.status, problem.type ?? "", problem.detail || problem.title);
    } catch {
      return new LipstreamError(response.status, "", text.slice(0, 300) || `${response.status} ${response.statusText}`);
    }
  }
}

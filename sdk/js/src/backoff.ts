/** Waits between attempts: twice as long each time, up to a bound, spread so that many clients do not come at once. */
export class Backoff {
  #next: number;

  constructor(
    private readonly first = 500,
    private readonly most = 8000,
  ) {
    this.#next = first;
  }

  /** Milliseconds until the next attempt. */
  take(): number {
    const wait = this.#next * (0.75 + Math.random() / 2);
    this.#next = Math.min(this.#next * 2, this.most);
    return wait;
  }

  reset(): void {
    this.#next = this.first;
  }
}

/** Resolves after so many milliseconds, or at once when `signal` is aborted. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
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

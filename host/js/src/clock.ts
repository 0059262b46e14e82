/** Time: the host's, and the store's as well as this process knows it. */

/** A source of time in milliseconds since the Unix epoch. */
export interface Clock {
  /** The time now, in milliseconds since the Unix epoch. */
  nowMs(): number;
}

/** The largest time that is told as a number; 285,000 years. */
const LAST_MS = Number.MAX_SAFE_INTEGER;

/** A sample is held for so long against ones that look earlier: their answers were only longer under way. */
const SAMPLE_HELD_MS = 10_000;

/** Whatever a clock says, as a time: whole milliseconds from 0 on. */
export function sane(ms: number): number {
  if (!(ms > 0)) return 0;
  return ms >= LAST_MS ? LAST_MS : Math.floor(ms);
}

/**
 * The system's time as it was when the clock was made, carried on by the monotonic clock. It never steps, so a correction of the
 * machine's clock neither opens nor closes a circuit.
 */
export class SystemClock implements Clock {
  readonly #originMs = Date.now() - performance.now();

  nowMs(): number {
    return sane(this.#originMs + performance.now());
  }
}

/**
 * A clock that stands still until it is moved, for tests.
 *
 * @example
 * ```ts
 * const clock = new ManualClock(1_000);
 * clock.advanceMs(60_000);
 * clock.nowMs(); // 61_000
 * ```
 */
export class ManualClock implements Clock {
  #nowMs: number;

  constructor(nowMs: number) {
    this.#nowMs = sane(nowMs);
  }

  nowMs(): number {
    return this.#nowMs;
  }

  /** Sets the clock, forwards or backwards. */
  setMs(nowMs: number): void {
    this.#nowMs = sane(nowMs);
  }

  /** Moves the clock forwards. */
  advanceMs(byMs: number): void {
    this.#nowMs = sane(this.#nowMs + sane(byMs));
  }
}

/** The host's clock, put right by what the store's answers tell. Through an outage it goes on as it was. */
export class StoreClock implements Clock {
  readonly #base: Clock;
  #sample: { readonly offsetMs: number; readonly takenMs: number } | undefined;

  constructor(base: Clock) {
    this.#base = base;
  }

  /** The host's own time. A clock that throws or says nonsense reads as 0: early, never an error of a call. */
  baseMs(): number {
    try {
      return sane(this.#base.nowMs());
    } catch {
      return 0;
    }
  }

  nowMs(): number {
    return sane(this.baseMs() + (this.#sample?.offsetMs ?? 0));
  }

  /** Whether an answer has told the store's time. */
  get isTold(): boolean {
    return this.#sample !== undefined;
  }

  /**
   * Takes the store's time, as an answer that just came in tells it. The answer was under way for a while, so the store's time is
   * that or later: of two samples the later one is nearer to the truth, until it is old.
   */
  learn(storeMs: number): void {
    const baseMs = this.baseMs();
    const offsetMs = sane(storeMs) - baseMs;
    const held = this.#sample;
    if (held && Math.max(0, baseMs - held.takenMs) < SAMPLE_HELD_MS && offsetMs <= held.offsetMs) return;
    this.#sample = { offsetMs, takenMs: baseMs };
  }
}

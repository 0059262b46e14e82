/** {@link Ends}: the outcomes of a circuit that wait to be settled together. */

import type { CircuitryError } from './errors.js';
import type * as Wit from './generated/interfaces/circuitry-breaker-types.js';
import type { Ending, Settlement } from './outcome.js';

/** The most completions of one call, and the most permits in one completion, as `wit/` says. */
const COMPLETIONS_MAX = 256;
const RUN_MAX = 65_536;

/** To what an outcome belongs. */
export interface Grant {
  readonly era: bigint;
  readonly probe: Wit.Token | undefined;
}

/** One outcome that waits, and who wants to know. */
export interface Ended extends Grant, Ending {
  readonly slow: boolean;
  readonly settled: (settlement: Settlement) => void;
  readonly failed: (error: CircuitryError) => void;
}

/** Outcomes that go to the record in one swap. */
export class Batch {
  constructor(
    readonly completions: Wit.Completion[],
    readonly replies: readonly Ended[],
  ) {}

  /** Tells everybody what became of their outcome: of a run the first ones are accepted. */
  settle(dispositions: readonly Wit.Disposition[], local: boolean): void {
    let index = 0;
    for (const { accepted, stale } of dispositions) {
      for (let count = 0; count < accepted; count++) this.replies[index++]?.settled({ disposition: 'accepted', local });
      for (let count = 0; count < stale; count++) this.replies[index++]?.settled({ disposition: 'stale', local });
      if (index >= this.replies.length) return;
    }
    // A component that rules on too few leaves the rest unsettled.
    while (index < this.replies.length) this.replies[index++]?.settled({ disposition: 'unsettled', local });
  }

  /** Tells everybody the same. */
  settleAll(settlement: Settlement): void {
    for (const ended of this.replies) ended.settled(settlement);
  }

  /** Tells everybody of an error. */
  fail(error: CircuitryError): void {
    for (const ended of this.replies) ended.failed(error);
  }
}

/** An outcome as the component is told. */
export function completionOf({ era, probe, outcome, slow, retryAfterMs }: Omit<Ended, 'settled' | 'failed'>): Wit.Completion {
  return { era, probe, outcome, slow, count: 1, retryAfterMs };
}

/** The outcomes that wait to be settled on one record. */
export class Ends {
  #waiting: Ended[] = [];
  #isSettling = false;

  /** Adds an outcome; says whether the caller has to see to it that what waits is settled. */
  push(ended: Ended): boolean {
    this.#waiting.push(ended);
    const begins = !this.#isSettling;
    this.#isSettling = true;
    return begins;
  }

  /** Whether outcomes wait or are being settled. */
  get isBusy(): boolean {
    return this.#isSettling;
  }

  /** Takes what waits, as much as fits into one call; with nothing the settling ends, and the next outcome begins it anew. */
  nextBatch(): Batch | undefined {
    const completions: Wit.Completion[] = [];
    let taken = 0;
    for (const ended of this.#waiting) {
      const last = completions.at(-1);
      if (last && isRun(last, ended)) {
        last.count++;
      } else {
        if (completions.length === COMPLETIONS_MAX) break;
        completions.push(completionOf(ended));
      }
      taken++;
    }
    if (taken === 0) {
      this.#isSettling = false;
      return undefined;
    }
    const replies = this.#waiting.slice(0, taken);
    this.#waiting = this.#waiting.slice(taken);
    return new Batch(completions, replies);
  }
}

function isRun(last: Wit.Completion, ended: Ended): boolean {
  return (
    ended.probe === undefined &&
    last.probe === undefined &&
    last.era === ended.era &&
    last.outcome === ended.outcome &&
    last.slow === ended.slow &&
    last.retryAfterMs === ended.retryAfterMs &&
    last.count < RUN_MAX
  );
}

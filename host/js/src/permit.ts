/// <reference lib="esnext.disposable" preserve="true" />
/** {@link Permit}: leave to work, settled once: by `end`, or as ignored when it is disposed of. */

import { asyncDispose, later } from './asking.js';
import { type OwnRecord, renew, settle } from './ballot.js';
import type { Circuit } from './circuit.js';
import type { Grant } from './ends.js';
import { ArgumentError, type Refusal } from './errors.js';
import type { Node } from './node.js';
import { type Ending, type Outcome, type Settlement, endingOf } from './outcome.js';
import { handOver } from './settling.js';
import { messageOf } from './store.js';

/** How often a lease is renewed within its length, so that two renewals may fail. */
const RENEWALS_A_LEASE = 3;
/** For how many lengths of a lease a place is held. A probe whose work hangs, or whose permit leaked, is given up then. */
const LEASES_HELD = 10;

/** Who judges an outcome. */
export type Judge =
  /** The shared record, or its stand-in while the store is down. */
  | { readonly by: 'fleet' }
  /** This node's own: a quorum is in force. */
  | { readonly by: 'node'; readonly own: OwnRecord }
  /** Nobody: by an override, or `local` because the store is down. */
  | { readonly by: 'nobody'; readonly local: boolean };

/** A start that was admitted. */
export interface Admitted {
  /** Of the shared record; `undefined` where it was given without asking. */
  readonly era: bigint | undefined;
  readonly judge: Judge;
  readonly grant: Grant | undefined;
  readonly slowCallAfterMs: number | undefined;
  readonly wouldHaveRefused: Refusal | undefined;
  /** How long the lease of a probe lasts, by the settings in force. */
  readonly leaseMs: number;
}

/**
 * Leave to work on a circuit.
 *
 * While the work of a probe runs its lease is renewed, for ten times the lease's length at most: work that hangs does not keep the
 * circuit from recovery. Its outcome counts after that too, until another probe takes its place.
 *
 * It is settled once, by {@link Permit.end}. One that is never settled counts nothing; a probe's holds its place for those ten lengths.
 * `await using` settles one that was not as ignored, which frees the place at once.
 *
 * @example
 * ```ts
 * const permit = await breaker.start();
 * // … the body arrives, the stream ends …
 * const { disposition } = await permit.end('success');
 * ```
 */
export class Permit {
  /** The circuit's era that the permit belongs to; `undefined` where it was given without asking, because the store is down. */
  readonly era: number | undefined;
  /** Whether the work is a probe: its outcome decides whether the circuit closes. */
  readonly isProbe: boolean;
  /** The refusal that an override of the kind `metrics-only` turned into this permit. Its outcome counts nothing. */
  readonly wouldHaveRefused: Refusal | undefined;
  readonly #node: Node;
  readonly #circuit: Circuit;
  readonly #admitted: Admitted;
  readonly #begunAtMs: number;
  readonly #renewal: { cancel: () => void } | undefined;
  #isSettled = false;

  /** @internal */
  constructor(node: Node, circuit: Circuit, admitted: Admitted) {
    this.#node = node;
    this.#circuit = circuit;
    this.#admitted = admitted;
    this.#begunAtMs = node.clock.baseMs();
    this.era = admitted.era === undefined ? undefined : Number(admitted.era);
    this.isProbe = admitted.grant?.probe !== undefined;
    this.wouldHaveRefused = admitted.wouldHaveRefused;
    this.#renewal = this.isProbe ? renewing(node, circuit, admitted) : undefined;
  }

  /** Whether it was settled. */
  get isSettled(): boolean {
    return this.#isSettled;
  }

  /**
   * Settles the permit: tells the circuit how the work ended, and the caller what became of that. The outcome is handed over at once,
   * also if nobody awaits the answer; an error of the store is then told to the logger only. Waits at most the store's timeout;
   * `unsettled` then says that the settling goes on.
   *
   * A store that is down is no error: the outcome is then settled as `storeFailure` says.
   *
   * @throws {ArgumentError} when the outcome is none, or the permit was settled already.
   * @throws {RecordError} when what is stored cannot be read; {@link StoreError} of the kind `other`, {@link CallError}.
   */
  end(outcome: Outcome): Promise<Settlement> {
    let ending: Ending;
    try {
      ending = endingOf(outcome);
      if (this.#isSettled) throw new ArgumentError('permit', 'it was settled already: end it once');
    } catch (error) {
      return Promise.reject(error as Error);
    }
    const settled = this.#settle(ending);
    // Who does not await it must not have the process ended by a store.
    settled.catch(() => {});
    return settled;
  }

  /** Settles the permit as ignored, if it was not settled: it counts nothing and frees its place. It throws nothing. */
  async [asyncDispose](): Promise<void> {
    if (this.#isSettled) return;
    try {
      await this.#settle({ outcome: 'ignored', retryAfterMs: undefined });
    } catch (error) {
      this.#node.settings.logger.warn?.('a permit could not be given back', { circuit: this.#circuit.name, error });
    }
  }

  async #settle(ending: Ending): Promise<Settlement> {
    this.#isSettled = true;
    this.#renewal?.cancel();
    const { judge, grant } = this.#admitted;
    if (judge.by === 'nobody' || !grant) {
      return { disposition: 'uncounted', local: judge.by === 'nobody' ? judge.local : true };
    }
    // It would change nothing, so nobody needs to be asked.
    if (!grant.probe && ending.outcome === 'ignored') return { disposition: 'accepted', local: judge.by === 'node' };
    const slow = ending.outcome !== 'ignored' && this.#isSlow();
    if (judge.by === 'fleet') return handOver(this.#node, this.#circuit, grant, ending, slow);
    return settle(this.#node, this.#circuit, judge.own, grant, ending, slow);
  }

  #isSlow(): boolean {
    const { slowCallAfterMs } = this.#admitted;
    return slowCallAfterMs !== undefined && this.#node.clock.baseMs() - this.#begunAtMs > slowCallAfterMs;
  }
}

/** Renews a probe's lease until its place is lost, the permit is settled, or it takes too long. */
function renewing(node: Node, circuit: Circuit, { judge, grant, leaseMs }: Admitted): { cancel: () => void } {
  const everyMs = Math.max(leaseMs / RENEWALS_A_LEASE, 1);
  let left = (LEASES_HELD - 1) * RENEWALS_A_LEASE;
  let isOver = false;
  let cancelTimer: (() => void) | undefined;
  const { logger } = node.settings;
  const about = { circuit: circuit.name };
  const wait = (): void => {
    if (isOver || node.isClosed) return;
    if (left-- <= 0) return logger.warn?.("a probe's work takes too long; its place may go to another", about);
    cancelTimer = later(everyMs, () => {
      // Its store may be closed, too.
      if (node.isClosed) return;
      isHeld(node, circuit, judge, grant).then(
        (held) => (held ? wait() : logger.debug?.("the probe's place was given to another", about)),
        (error: unknown) => {
          logger.debug?.("a probe's lease was not renewed", { ...about, error: messageOf(error) });
          wait();
        },
      );
    });
  };
  wait();
  return {
    cancel: () => {
      isOver = true;
      cancelTimer?.();
    },
  };
}

/** Whether the place is held, as far as is known. */
async function isHeld(node: Node, circuit: Circuit, judge: Judge, grant: Grant | undefined): Promise<boolean> {
  if (!grant?.probe || judge.by === 'nobody') return false;
  const { era, probe } = grant;
  if (judge.by === 'node') return renew(node, circuit, judge.own, era, probe);
  const asked = await node.ask(circuit, { kind: 'renew', era, probe });
  // What an outage's record does not hold the shared one may.
  return !(asked.by === 'shared' && asked.answer.tag === 'renewed' && asked.answer.val.deadlines[0] === undefined);
}

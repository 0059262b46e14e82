/** How work ended, what became of that, and who says which error is what. */

import { ArgumentError, CircuitRefusedError, ExpectedError, isNamed } from './errors.js';

/** A failure with which the dependency asked to be left alone for a while (HTTP's `Retry-After`). */
export interface FailureRetryAfter {
  readonly outcome: 'failure';
  /** If this failure opens the circuit, it opens for at least so many milliseconds, `retryAfterMaxMs` at most. */
  readonly retryAfterMs: number;
}

/** How work ended. */
export type Outcome =
  /** It went well, or with an error that is expected. */
  | 'success'
  /** The dependency failed; a deadline that passed is a failure too. */
  | 'failure'
  /** Neither: changes no count and frees a probe's place. A cancel by the caller is one. */
  | 'ignored'
  | FailureRetryAfter;

/** What a matcher or a classifier says. */
export type Judgement = Outcome;

/** Says what an error of the work means for the circuit. */
export type MatchError = (error: unknown) => Outcome;

/** What work gave: a value, or what it threw. */
export type WorkResult<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: unknown };

/** What became of an outcome. */
export interface Settlement {
  /**
   * - `accepted`: it was applied.
   * - `stale`: it belongs to another era, or to a probe's place that was given away, and changed nothing.
   * - `unsettled`: not known. The store did not answer in time, and the outcome is settled in the background, once; or an answer
   *   was lost and so many others have written since that nobody can tell.
   * - `uncounted`: by an override nothing counts, or the store is down and the settings keep no local record.
   */
  readonly disposition: 'accepted' | 'stale' | 'unsettled' | 'uncounted';
  /** Whether this was a record of the process's own: because the store was down, or because a quorum is in force. */
  readonly local: boolean;
}

/**
 * A failure with which the dependency asked to be left alone for `ms` milliseconds.
 *
 * @example
 * ```ts
 * await permit.end(failureRetryAfter(30_000));
 * ```
 */
export function failureRetryAfter(ms: number): FailureRetryAfter {
  return { outcome: 'failure', retryAfterMs: ms };
}

/** An outcome, taken apart. */
export interface Ending {
  readonly outcome: 'success' | 'failure' | 'ignored';
  readonly retryAfterMs: bigint | undefined;
}

/** Reads an outcome as it is given. */
export function endingOf(outcome: Outcome): Ending {
  if (outcome === 'success' || outcome === 'failure' || outcome === 'ignored') return { outcome, retryAfterMs: undefined };
  if (typeof outcome === 'object' && outcome !== null && outcome.outcome === 'failure') {
    const ms = outcome.retryAfterMs;
    if (typeof ms === 'number' && ms >= 0) {
      return { outcome: 'failure', retryAfterMs: BigInt(Math.min(Math.ceil(ms), Number.MAX_SAFE_INTEGER)) };
    }
    throw new ArgumentError('outcome.retryAfterMs', 'it is no length of time; give milliseconds, 0 or more');
  }
  throw new ArgumentError('outcome', "it is none; give 'success', 'failure', 'ignored' or failureRetryAfter(ms)");
}

/** How deep causes are looked through. */
const CAUSES_MAX = 16;

/**
 * The default matcher. An {@link ExpectedError} is a success; a breaker's own {@link CircuitRefusedError} and a cancel (an error of
 * the name `AbortError`) are ignored; every other error is a failure, a deadline (`TimeoutError`) too, also one that a cancel has as its
 * cause. It looks through `cause`, and knows the first two by their names too, where the process has two copies of this package. A number of milliseconds under `retryAfterMs` of the error lengthens the open time.
 */
export function defaultErrorMatcher(error: unknown): Outcome {
  let cause: unknown = error;
  let isCancel = false;
  let isDeadline = false;
  for (let depth = 0; depth < CAUSES_MAX && typeof cause === 'object' && cause !== null && !isDeadline; depth++) {
    isDeadline = property(cause, 'name') === 'TimeoutError';
    if (!isCancel && (cause instanceof ExpectedError || isNamed(cause, 'ExpectedError'))) return 'success';
    if (cause instanceof CircuitRefusedError || isNamed(cause, 'CircuitRefusedError')) return 'ignored';
    // What was cancelled by a deadline says so in its cause, as Node's own functions do.
    isCancel ||= property(cause, 'name') === 'AbortError';
    cause = property(cause, 'cause');
  }
  if (isCancel && !isDeadline) return 'ignored';
  const retryAfterMs = typeof error === 'object' && error !== null ? property(error, 'retryAfterMs') : undefined;
  return typeof retryAfterMs === 'number' && retryAfterMs > 0 ? failureRetryAfter(retryAfterMs) : 'failure';
}

/** A property of whatever was thrown; a getter that throws has none. */
function property(object: object, name: string): unknown {
  try {
    return (object as Record<string, unknown>)[name];
  } catch {
    return undefined;
  }
}

/** Takes a promise that was answered where none belongs: that it is rejected must not end the process. */
export function unheard(answer: unknown): void {
  if (answer instanceof Promise) answer.catch(() => {});
}

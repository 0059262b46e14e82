/** What can go wrong, each a class of its own. All are {@link CircuitryError}s. */

import { shortened } from './names.js';

/** The base of every error of this package. */
export class CircuitryError extends Error {
  override name = 'CircuitryError';
}

/** Why a start was refused. */
export type RefusalReason =
  /** The circuit is open. */
  | 'open'
  /** The circuit is half-open and every probe's place is taken. */
  | 'too-many-requests'
  /** A person forced the circuit open. */
  | 'forced-open'
  /** The circuit has recovered and admits a share for now. */
  | 'ramp'
  /** This node's own circuit is open, and the fleet's is not: the node tripped alone (see `quorum`). */
  | 'node-open'
  /** The store is down, and the settings say to refuse then. */
  | 'store-down';

const WHY: Record<RefusalReason, string> = {
  open: 'the circuit is open',
  'too-many-requests': 'the circuit is half-open and all its probes are out',
  'forced-open': 'the circuit was forced open',
  ramp: 'the circuit has recovered and admits a share for now',
  'node-open': 'the circuit is open for this node',
  'store-down': 'the store is down and the settings refuse then',
};

/** A start that was refused, and when to come back. */
export interface Refusal {
  /** Why. */
  readonly reason: RefusalReason;
  /** How long to wait before asking again, in milliseconds; at least 1. */
  readonly retryAfterMs: number;
}

/**
 * A start that was refused. The work has not run.
 *
 * @example
 * ```ts
 * try {
 *   await breaker.execute(send);
 * } catch (error) {
 *   if (!(error instanceof CircuitRefusedError)) throw error;
 *   await queue.putBack(job, { delayMs: error.spreadDelayMs() });
 * }
 * ```
 */
export class CircuitRefusedError extends CircuitryError implements Refusal {
  override name = 'CircuitRefusedError';

  constructor(
    /** The circuit's name. */
    readonly circuit: string,
    /** Why. */
    readonly reason: RefusalReason,
    /** How long to wait before asking again, in milliseconds; at least 1. */
    readonly retryAfterMs: number,
  ) {
    super(`${WHY[reason] ?? reason}; try again in ${retryAfterMs} ms (circuit ${shortened(circuit)})`);
  }

  /**
   * The delay with which a queue gives the job back, in milliseconds: `retryAfterMs` and up to a tenth of it more, at random, so
   * that the jobs of a circuit do not all return at once.
   */
  spreadDelayMs(): number {
    return Math.ceil(this.retryAfterMs * (1 + Math.random() / 10));
  }
}

/** A setting that cannot be used, found when the factory is made. */
export class SettingsError extends CircuitryError {
  override name = 'SettingsError';

  constructor(
    /** The setting, as it is named in the options: `closeThreshold`, `backoff.maxMs`. */
    readonly field: string,
    /** What is wrong and what would do. */
    readonly problem: string,
  ) {
    super(`the setting ${field} cannot be used: ${problem}`);
  }
}

/** An argument of a call that is out of its bounds. Nothing was asked. */
export class ArgumentError extends CircuitryError {
  override name = 'ArgumentError';

  constructor(
    /** The argument: `circuit`, `context.tenant`, `override.author`. */
    readonly field: string,
    /** What is wrong and what would do. */
    readonly problem: string,
  ) {
    super(`${field}: ${problem}`);
  }
}

/**
 * What went wrong in a store, sorted by what to do next.
 *
 * - `unavailable`: nothing was written; try again later.
 * - `unknown`: a write may or may not have happened; load before writing again.
 * - `denied`: the store refuses this client; fix its configuration. Nothing was written.
 * - `other`: retrying does not help, a key that is not ours for example. Nothing was written.
 */
export class StoreError extends CircuitryError {
  override name = 'StoreError';

  constructor(
    readonly kind: 'unavailable' | 'unknown' | 'denied' | 'other',
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What is stored for a circuit cannot be used. It was left as it is. */
export class RecordError extends CircuitryError {
  override name = 'RecordError';

  constructor(
    /** The circuit's name. */
    readonly circuit: string,
    /** `malformed`: not a record, or a damaged one. `newer-schema`: deploy a newer circuitry here too. */
    readonly kind: 'malformed' | 'newer-schema',
    problem: string,
  ) {
    super(`circuit ${shortened(circuit)}: ${problem}`);
  }
}

/**
 * The call came to no answer.
 *
 * - `contention`: others kept writing and this call came to no end in time. Nothing was written.
 * - `forgotten`: an answer was lost and so many others have written since that nobody can tell whether the call was applied. It was
 *   not applied again.
 * - `hurried`: the call came to no end in its time, and that was not the store's fault: others wrote the circuit too, or this process
 *   was too busy.
 * - `trapped`: the component failed; the call is lost and so is the component's instance, nothing else is.
 * - `closed`: the factory is closed.
 */
export class CallError extends CircuitryError {
  override name = 'CallError';

  constructor(
    /** The circuit's name. */
    readonly circuit: string,
    readonly kind: 'contention' | 'forgotten' | 'hurried' | 'trapped' | 'closed',
    problem: string,
    options?: ErrorOptions,
  ) {
    super(`circuit ${shortened(circuit)}: ${problem}`, options);
  }
}

/**
 * An error that is part of the work and no fault of the dependency; it counts as a success.
 *
 * @example
 * ```ts
 * throw new ExpectedError('no such customer'); // "no such customer" is an answer
 * ```
 */
export class ExpectedError extends CircuitryError {
  override name = 'ExpectedError';
}

/**
 * Whether it is an error of this package of the name `name`; also of another copy of the package, as in a process with two, which no
 * class tells.
 */
export function isNamed(error: unknown, name: 'CircuitRefusedError' | 'ExpectedError' | 'StoreError'): boolean {
  try {
    return typeof error === 'object' && (error as { name?: unknown } | null)?.name === name;
  } catch {
    // A getter that throws.
    return false;
  }
}

const STORE_ERRORS: readonly unknown[] = ['unavailable', 'unknown', 'denied', 'other'] satisfies StoreError['kind'][];

/** The {@link StoreError} that a store has thrown, where it is one; one of another copy of the package is made this copy's. */
export function storeErrorOf(error: unknown): StoreError | undefined {
  if (error instanceof StoreError) return error;
  if (!isNamed(error, 'StoreError')) return undefined;
  try {
    const { kind, message } = error as StoreError;
    return STORE_ERRORS.includes(kind) ? new StoreError(kind, String(message), { cause: error }) : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the store is to be taken as down. */
export function isOutage(error: unknown): error is StoreError {
  return error instanceof StoreError && error.kind !== 'other';
}

/** Whether the same call may well succeed in a moment. */
export function isPassing(error: unknown): boolean {
  return error instanceof CallError && (error.kind === 'contention' || error.kind === 'hurried');
}

/// <reference lib="esnext.disposable" preserve="true" />
/** Asking the store: until a deadline. And waiting. */

import { CallError, StoreError } from './errors.js';
import { type Loaded, type Store, type Swapped, loadFrom, swapIn } from './store.js';

/** The longest time that a timer takes. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** Until when a call may take. */
export class Deadline {
  readonly #atMs: number;
  /**
   * How long an operation must have been given for its silence to say something of the store: with less, the time went to lost races,
   * or to a process that was too busy.
   */
  readonly #enoughMs: number;

  /** `withinMs` from now, of which half is enough. */
  constructor(withinMs: number) {
    this.#atMs = performance.now() + withinMs;
    this.#enoughMs = withinMs / 2;
  }

  get leftMs(): number {
    return Math.max(0, this.#atMs - performance.now());
  }

  /** Waits for `operation` until the deadline; then fails with what `late` makes. */
  async within<T>(circuit: string, operation: Promise<T>, late: () => StoreError): Promise<T> {
    const givenMs = this.leftMs;
    let cancel: (() => void) | undefined;
    const elapsed = new Promise<never>((_, reject) => {
      cancel = patiently(givenMs, () => {
        reject(
          givenMs < this.#enoughMs
            ? new CallError(circuit, 'hurried', 'the call came to no end in its time; the store was given too little to be judged')
            : late(),
        );
      });
    });
    try {
      return await Promise.race([operation, elapsed]);
    } finally {
      cancel?.();
    }
  }
}

/** Into how many parts a wait for the store is cut. */
const PARTS = 4;

/**
 * Calls `then` after `ms` in which this process has run, unless it is cancelled. Time in which the event loop was held up, or the
 * process was stopped, says nothing of the store: it counts for a quarter of the wait at most, and what has come in meanwhile is read
 * first.
 */
export function patiently(ms: number, then: () => void): () => void {
  let left = PARTS;
  let timer: unknown;
  let isCancelled = false;
  const wait = (): void => {
    timer = setTimeout(() => {
      if (--left > 0) return wait();
      void nextTurn().then(() => isCancelled || then());
    }, ms / PARTS);
  };
  wait();
  return () => {
    isCancelled = true;
    clearTimeout(timer as number);
  };
}

export function load(store: Store, circuit: string, deadline: Deadline): Promise<Loaded> {
  return deadline.within(circuit, loadFrom(store, circuit), () => {
    return new StoreError('unavailable', "a load was not answered within the store's timeout");
  });
}

export function swap(
  store: Store,
  circuit: string,
  expected: Uint8Array | undefined,
  value: Uint8Array,
  ttlMs: number | undefined,
  deadline: Deadline,
): Promise<Swapped> {
  return deadline.within(circuit, swapIn(store, circuit, expected, value, ttlMs), () => {
    return new StoreError('unknown', "a swap was not answered within the store's timeout");
  });
}

/** Whether a swap that failed so may have written. */
export function mayHaveWritten(error: unknown): boolean {
  return error instanceof CallError || (error instanceof StoreError && error.kind === 'unknown');
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.min(ms, TIMER_MAX_MS)));
}

declare const setImmediate: ((then: () => void) => unknown) | undefined;

/** Waits until all that is ready to run has run, as far as the platform has a quick way to. */
export function nextTurn(): Promise<void> {
  return typeof setImmediate === 'function' ? new Promise((resolve) => setImmediate(resolve)) : Promise.resolve();
}

/** Calls `then` later, unless it is cancelled. It keeps no process alive. */
export function later(ms: number, then: () => void): () => void {
  const timer: unknown = setTimeout(then, Math.min(Math.max(ms, 0), TIMER_MAX_MS));
  if (typeof timer === 'object' && timer !== null && 'unref' in timer) (timer as { unref(): void }).unref();
  return () => clearTimeout(timer as number);
}

/** A number between the two. */
export function between(least: number, most: number): number {
  return least + Math.random() * (most - least);
}

/** A random number of 64 bits: nobody's but this process's. */
export function random64(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n;
}

/** Platforms that have no such symbol yet have one of their own here, so that the class can be made. */
export const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? (Symbol.for('Symbol.asyncDispose') as never);

/** {@link MemoryStore}: the embedded store, shared by all factories inside one process that are given it. */

import { type Clock, SystemClock, sane } from './clock.js';
import { type Loaded, type Store, type Swapped, checkName, mintVersion, sameBytes } from './store.js';

/** Entries are looked through for expired ones once in so many writes, so a name used once does not stay for ever. */
const SWEEP_EVERY = 1024;

interface Row {
  readonly value: Uint8Array;
  readonly version: Uint8Array;
  readonly expiresAtMs: number;
}

/**
 * A store in this process's memory: the default, and the double for tests. Nothing is kept over a restart.
 *
 * @example
 * ```ts
 * const clock = new ManualClock(1_000);
 * const store = new MemoryStore(clock); // its entries age as the test moves the clock
 * ```
 */
export class MemoryStore implements Store {
  readonly #clock: Clock;
  readonly #rows = new Map<string, Row>();
  #writesSinceSweep = 0;

  /** Makes an empty store on `clock`, by which its entries age and which its answers tell; by default on the system's. */
  constructor(clock: Clock = new SystemClock()) {
    this.#clock = clock;
  }

  /** How many entries there are, with those that are over and not yet swept. */
  get size(): number {
    return this.#rows.size;
  }

  async load(circuit: string): Promise<Loaded> {
    return this.loadNow(circuit);
  }

  async swap(
    circuit: string,
    expected: Uint8Array | undefined,
    value: Uint8Array,
    ttlMs: number | undefined,
  ): Promise<Swapped> {
    return this.swapNow(circuit, expected, value, ttlMs);
  }

  /** As {@link MemoryStore.load}, at once. */
  loadNow(circuit: string): Loaded {
    checkName(circuit);
    const nowMs = sane(this.#clock.nowMs());
    const row = this.#row(circuit, nowMs);
    return { entry: row && { value: row.value.slice(), version: row.version.slice() }, nowMs };
  }

  /** As {@link MemoryStore.swap}, at once. */
  swapNow(circuit: string, expected: Uint8Array | undefined, value: Uint8Array, ttlMs: number | undefined): Swapped {
    checkName(circuit);
    const nowMs = sane(this.#clock.nowMs());
    const row = this.#row(circuit, nowMs);
    if (!sameBytes(row?.version, expected)) return { stored: false, ...this.loadNow(circuit) };
    const version = mintVersion();
    // An entry lives for a millisecond at least, as in a store that counts whole ones.
    const expiresAtMs = ttlMs === undefined ? Infinity : nowMs + Math.max(1, Math.ceil(ttlMs));
    this.#rows.set(circuit, { value: value.slice(), version, expiresAtMs });
    this.#sweep(nowMs);
    return { stored: true, version: version.slice(), nowMs };
  }

  #row(circuit: string, nowMs: number): Row | undefined {
    const row = this.#rows.get(circuit);
    return row && row.expiresAtMs > nowMs ? row : undefined;
  }

  #sweep(nowMs: number): void {
    if (++this.#writesSinceSweep < SWEEP_EVERY) return;
    this.#writesSinceSweep = 0;
    for (const [circuit, row] of this.#rows) if (row.expiresAtMs <= nowMs) this.#rows.delete(circuit);
  }
}

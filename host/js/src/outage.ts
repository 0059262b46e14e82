/**
 * {@link Outage}: whether the store is down, and the records that this process keeps meanwhile.
 *
 * Entering and leaving is one event each. While the store is down no call asks it: one watch does, with growing pauses, until it reads
 * *and writes*. Then the local records are dropped, and nothing of them is written.
 */

import { Deadline, later, load, swap } from './asking.js';
import type { Circuit } from './circuit.js';
import { StoreError } from './errors.js';
import type { Exchange } from './exchange.js';
import { MemoryStore } from './memory.js';
import type { Node } from './node.js';
import { closed, settleParked } from './settling.js';

/** The first pause before the store is asked again, and the longest. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2_000;
/** An outage that begins so soon after another is the same one: one shard of a cluster may work and another not. */
const GOES_ON_WITHIN_MS = 10_000;
/** How long the entry lives that the watch writes. */
const TRIAL_TTL_MS = 60_000;

export class Outage {
  readonly #node: Node;
  #isDown = false;
  #records: MemoryStore;
  #leftAtMs = -Infinity;
  /** Calls whose write may have happened before the store went down. */
  #parked: Exchange[] = [];
  #cancelWatch: (() => void) | undefined;
  #cancelDrop: (() => void) | undefined;

  constructor(node: Node) {
    this.#node = node;
    this.#records = new MemoryStore(node.clock);
  }

  get isDown(): boolean {
    return this.#isDown;
  }

  /** The records that this process keeps while the store is down. */
  get records(): MemoryStore {
    return this.#records;
  }

  /**
   * Keeps a call until the store answers: it may have been applied, and is applied once if it was not. Says no when the store is not
   * down (any more), or nobody watches for its return.
   */
  park(exchange: Exchange): boolean {
    const isKept = this.#isDown && !this.#node.isClosed;
    if (isKept) this.#parked.push(exchange);
    return isKept;
  }

  /** Takes the store as down, and watches for its return; nothing once the node is closed, since nobody would tell of the return. */
  enter(circuit: Circuit, error: StoreError): void {
    if (this.#isDown || this.#node.isClosed) return;
    this.#cancelDrop?.();
    const goesOn = performance.now() - this.#leftAtMs < GOES_ON_WITHIN_MS;
    this.#isDown = true;
    if (!goesOn) this.#records = new MemoryStore(this.#node.clock);
    const { logger, storeFallbackCallback } = this.#node.settings;
    const circuitName = circuit.name;
    logger.warn?.('the store is down; calls take the store-failure way until it answers', { circuit: circuitName, error });
    this.#watch(circuitName, goesOn ? LONGEST_PAUSE_MS : FIRST_PAUSE_MS);
    this.#node.tell('storeFallbackCallback', storeFallbackCallback, { down: true, circuit: circuitName, error });
  }

  /** Ends the watch, for a node that is closed, and tells of what it would have settled. */
  close(): void {
    this.#cancelWatch?.();
    const parked = this.#parked;
    this.#parked = [];
    for (const { circuit, outcomes } of parked) this.#node.lost(circuit, outcomes, closed(circuit));
  }

  #watch(circuit: string, pauseMs: number): void {
    this.#cancelWatch = later(pauseMs * (1 + Math.random() / 2), () => {
      void this.#answers(circuit).then((answers) => {
        if (this.#node.isClosed) return;
        if (answers) this.#leave();
        else this.#watch(circuit, Math.min(pauseMs * 2, LONGEST_PAUSE_MS));
      });
    });
  }

  /**
   * Whether the store does its work: it reads the circuit that could not be read or written, and writes. What it writes is an entry of
   * this process's own, with a name that begins with a control character, so that the answer does not hang on others.
   */
  async #answers(circuit: string): Promise<boolean> {
    const { store, storeTimeoutMs } = this.#node.settings;
    const deadline = new Deadline(storeTimeoutMs);
    const trial = `\u0001trial of node ${this.#node.idText}`;
    try {
      await load(store, circuit, deadline).catch((error: unknown) => {
        // That what it has for this circuit is not ours is an answer too.
        if (!(error instanceof StoreError && error.kind === 'other')) throw error;
      });
      const { entry } = await load(store, trial, deadline);
      const value = new TextEncoder().encode('circuitry: the store writes');
      return (await swap(store, trial, entry?.version, value, TRIAL_TTL_MS, deadline)).stored;
    } catch {
      return false;
    }
  }

  #leave(): void {
    this.#isDown = false;
    this.#leftAtMs = performance.now();
    // Until then another outage may take them up.
    this.#cancelDrop = later(GOES_ON_WITHIN_MS, () => (this.#records = new MemoryStore(this.#node.clock)));
    const parked = this.#parked;
    this.#parked = [];
    const { logger, storeFallbackCallback } = this.#node.settings;
    logger.info?.('the store answers again; the local records are dropped', { parked: parked.length });
    this.#node.tell('storeFallbackCallback', storeFallbackCallback, { down: false, parked: parked.length });
    const settleAll = async (): Promise<void> => {
      // One after another, so that they do not take the store from the calls.
      for (const exchange of parked) await settleParked(this.#node, exchange);
    };
    this.#node.background(settleAll());
  }
}

/** Loads of starts: concurrent ones of a circuit share one, begun after the last of them asked. */

import { Deadline, load, nextTurn } from './asking.js';
import { StoreError } from './errors.js';
import type { Loaded, Store } from './store.js';

interface Waiter {
  readonly told: (loaded: Loaded) => void;
  readonly failed: (error: unknown) => void;
}

/**
 * Those who want the same entry at the same time get it together. Who comes alone asks for himself; who comes while somebody asks
 * waits for a *round*, which begins after he came, with all who wait by then.
 *
 * Invariant: **what somebody is given was asked for after he came.** So strict stays strict.
 */
export class Loads {
  #waiting: Waiter[] = [];
  #isAlone = false;
  #hasRounds = false;

  /** Loads the entry of `circuit`; a round may take `patienceMs`. */
  async load(store: Store, circuit: string, deadline: Deadline, patienceMs: number): Promise<Loaded> {
    if (!this.#isAlone && !this.#hasRounds) {
      this.#isAlone = true;
      try {
        return await load(store, circuit, deadline);
      } finally {
        this.#isAlone = false;
      }
    }
    const told = new Promise<Loaded>((resolve, reject) => this.#waiting.push({ told: resolve, failed: reject }));
    if (!this.#hasRounds) {
      this.#hasRounds = true;
      void this.#goRound(store, circuit, patienceMs);
    }
    return deadline.within(circuit, told, () => {
      return new StoreError('unavailable', "a load was not answered within the store's timeout");
    });
  }

  async #goRound(store: Store, circuit: string, patienceMs: number): Promise<void> {
    // Those who are about to come, too.
    await nextTurn();
    while (this.#waiting.length > 0) {
      const waiting = this.#waiting;
      this.#waiting = [];
      try {
        const loaded = await load(store, circuit, new Deadline(patienceMs));
        for (const waiter of waiting) waiter.told(loaded);
      } catch (error) {
        for (const waiter of waiting) waiter.failed(error);
      }
    }
    this.#hasRounds = false;
  }
}

// A store that fails on demand.
import { StoreError } from '../../dist/index.js';

const never = () => new Promise(() => {});

/**
 * Faults: `unavailable`, `denied`, `other`; `lost-answer` (written, then unknown), `lost-write` (unknown); `hang` (not done, no answer),
 * `hang-answer` (done, no answer); a function, which answers in the place of the store.
 */
export class FaultStore {
  /** How many of each there were. */
  loads = 0;
  swaps = 0;
  announced = [];
  #isDown = false;
  #next = [];
  #nextSwap = [];
  #nextLoad = [];

  constructor(store) {
    this.store = store;
  }

  goDown() {
    this.#isDown = true;
  }

  comeUp() {
    this.#isDown = false;
    this.#next = [];
    this.#nextSwap = [];
    this.#nextLoad = [];
  }

  onNext(...faults) {
    this.#next.push(...faults);
  }

  onNextSwap(...faults) {
    this.#nextSwap.push(...faults);
  }

  onNextLoad(...faults) {
    this.#nextLoad.push(...faults);
  }

  load(circuit) {
    this.loads++;
    return this.#meet(this.#nextLoad.shift() ?? this.#next.shift(), () => this.store.load(circuit), 'unavailable');
  }

  swap(circuit, expected, value, ttlMs) {
    this.swaps++;
    const fault = this.#nextSwap.shift() ?? this.#next.shift();
    return this.#meet(fault, () => this.store.swap(circuit, expected, value, ttlMs), 'unknown');
  }

  async announce(circuit) {
    this.announced.push(circuit);
  }

  async #meet(fault, ask, ambiguous) {
    const error = (kind) => new StoreError(kind, `the test says ${kind}`);
    if (typeof fault === 'function') return fault(ask);
    if (fault === undefined && this.#isDown) throw error('unavailable');
    switch (fault) {
      case undefined:
        return ask();
      case 'lost-answer':
        await ask();
        throw error(ambiguous);
      case 'lost-write':
        throw error(ambiguous);
      case 'hang':
        return never();
      case 'hang-answer':
        await ask();
        return never();
      default:
        throw error(fault);
    }
  }
}

/** What this process keeps of one circuit. A circuit forgotten costs one load, and with a quorum what the node has counted for itself. */

import type { OwnRecord } from './ballot.js';
import type { Context } from './names.js';
import { Ends } from './ends.js';
import { Loads } from './loading.js';
import type { State } from './state.js';
import type { Loaded } from './store.js';

/** So many settings of others are remembered, so that each is told once. */
const TOLD_MAX = 16;

export class Circuit {
  readonly ends = new Ends();
  /** Starts that load. */
  readonly loads = new Loads();
  /** With a quorum: the record by which this node decides for itself. */
  own: OwnRecord | undefined;
  /** The entry last seen in the store, without the time at which it was seen. */
  known: Loaded | undefined;
  #state: State | undefined;
  #nextStart: bigint;
  #nextOwnStart: bigint;
  readonly #told: string[] = [];

  constructor(
    /** The circuit's name, as it is shared. */
    readonly name: string,
    /** The name given to `breakerFor`. */
    readonly base: string,
    readonly context: Context,
    firstStart: bigint,
  ) {
    this.#nextStart = firstStart;
    this.#nextOwnStart = firstStart;
  }

  /** The number of a start; consecutive, because a ramp admits by it. */
  nextStart(): bigint {
    return this.#nextStart++;
  }

  /** The number that the next start will have. */
  get comingStart(): bigint {
    return this.#nextStart;
  }

  /** The number of a start on this node's own record, which not all starts come to. */
  nextOwnStart(): bigint {
    return this.#nextOwnStart++;
  }

  /** Remembers the entry last seen in the store. */
  saw(seen: Loaded): void {
    this.known = { entry: seen.entry };
  }

  /** Notes the state that an answer has shown. */
  sawState(state: State): void {
    this.#state = state;
  }

  /** Whether it is rather not forgotten: it is not closed as far as is known, or outcomes wait. */
  get isKept(): boolean {
    return (this.#state ?? 'closed') !== 'closed' || this.ends.isBusy;
  }

  /** Whether settings in force that are not this process's own are new to it. */
  sawSettings(inForce: string): boolean {
    if (this.#told.includes(inForce)) return false;
    if (this.#told.length === TOLD_MAX) this.#told.shift();
    this.#told.push(inForce);
    return true;
  }
}

/** {@link Exchange}: one call on the shared record, from its load to its last try. */

import { type Deadline, between, sleep } from './asking.js';
import type { Circuit } from './circuit.js';
import { CallError, CircuitryError, StoreError } from './errors.js';
import type * as ExchangeTypes from './generated/interfaces/circuitry-breaker-exchange.js';
import type { Node } from './node.js';
import { type Failed, type Operation, run } from './steps.js';
import type { Loaded } from './store.js';

/** How often a call asks a store that fails, within its timeout. */
const TRIES_MAX = 3;

/** One call on the shared record, which may be tried several times under the same token. */
export class Exchange {
  readonly circuit: Circuit;
  readonly operation: Operation;
  readonly #node: Node;
  readonly #token: { readonly node: bigint; readonly sequence: bigint };
  #known: Loaded | undefined;
  /** The lowest revision that a swap was based on whose fate is unknown. */
  #retryOf: bigint | undefined;

  constructor(node: Node, circuit: Circuit, operation: Operation, known: Loaded | undefined) {
    this.#node = node;
    this.circuit = circuit;
    this.operation = operation;
    this.#token = node.token(operation);
    this.#known = known;
  }

  /** How many outcomes it carries. */
  get outcomes(): number {
    const { operation } = this;
    return operation.kind === 'end' ? operation.completions.reduce((sum, { count }) => sum + count, 0) : 0;
  }

  /** Whether it may have written although no answer said so. */
  get mayHaveWritten(): boolean {
    return this.#retryOf !== undefined;
  }

  /**
   * Runs the call; tries again until the deadline after lost races and failures that may pass. It throws nothing, and may be run again
   * after an error: it is the same call, and is applied once.
   */
  async run(deadline: Deadline): Promise<{ readonly answer: ExchangeTypes.Answer } | { readonly error: CircuitryError }> {
    for (let tries = 1; ; tries++) {
      const result = await this.#attempt(deadline);
      if ('answer' in result) {
        this.#saw(result.seen);
        this.#node.tellWatchers(this.circuit, result.answer);
        return { answer: result.answer };
      }
      const { error, lastSeen, revision } = result;
      this.#known = lastSeen;
      // What it told of the time may be old by now.
      if (lastSeen) this.circuit.saw(lastSeen);
      if (revision !== undefined && (this.#retryOf === undefined || revision < this.#retryOf)) this.#retryOf = revision;
      const pauseMs = this.#pauseMs(error, tries);
      if (pauseMs === undefined || pauseMs >= deadline.leftMs) return { error };
      await sleep(pauseMs);
    }
  }

  /** After how long the call is worth another try; `undefined`: it is not. */
  #pauseMs(error: CircuitryError, tries: number): number | undefined {
    if (error instanceof CallError && error.kind === 'contention') return this.#node.isOver ? undefined : between(0.5, 8);
    const passes = error instanceof StoreError && (error.kind === 'unavailable' || error.kind === 'unknown');
    if (!passes || tries >= TRIES_MAX) return undefined;
    // What was seen before the failure may be old: begin with a load.
    this.#known = undefined;
    // The token is remembered for 32 writes of others only, so a lost answer is asked for at once.
    return tries === 1 && error.kind === 'unknown' ? 0 : between(2, 10) * 2 ** tries;
  }

  async #attempt(deadline: Deadline): Promise<{ answer: ExchangeTypes.Answer; seen: Loaded } | Failed> {
    const node = this.#node;
    const { circuit, operation } = this;
    // Until an answer has told the store's time there is only the host's; a host that is minutes ahead would end another's open time
    // with its first call.
    if (!this.#known && (operation.kind === 'start' || !node.clock.isTold)) {
      try {
        this.#known = await circuit.loads.load(node.settings.store, circuit.name, deadline, node.patienceMs);
      } catch (error) {
        return { error: error as CircuitryError };
      }
      this.#saw(this.#known);
    }
    const known = this.#known;
    this.#known = undefined;
    const caller = { ...this.#token, retryOf: this.#retryOf };
    const settings = node.settings.circuit;
    const call = { circuit: circuit.name, settings, operation, caller, known, nowMs: node.clock.nowMs() };
    return run(node.component, node.settings.store, call, deadline);
  }

  #saw(seen: Loaded): void {
    if (seen.nowMs !== undefined) this.#node.clock.learn(seen.nowMs);
    this.circuit.saw(seen);
  }
}

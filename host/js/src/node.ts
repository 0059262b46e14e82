/** {@link Node}: this process among the fleet's. It asks the shared record, or in an outage the local one. */

import { Deadline, random64 } from './asking.js';
import { Circuit } from './circuit.js';
import { StoreClock } from './clock.js';
import type { Component } from './component.js';
import { settingsOut, transitionOut } from './convert.js';
import { CallError, type CircuitryError, StoreError, isOutage } from './errors.js';
import { Exchange } from './exchange.js';
import type * as ExchangeTypes from './generated/interfaces/circuitry-breaker-exchange.js';
import type * as Wit from './generated/interfaces/circuitry-breaker-types.js';
import { MemoryStore } from './memory.js';
import { type Context, shortened } from './names.js';
import { Outage } from './outage.js';
import type { Settings } from './settings.js';
import { settleParked } from './settling.js';
import { type Answered, type Failed, type Operation, runAtOnce } from './steps.js';
import { messageOf } from './store.js';

/** Set in the numbers of all calls but starts, which have consecutive numbers of their own. */
const NO_START = 1n << 63n;

/** Who answered. */
export type Asked =
  /** The shared record, or this process's own: the store is down. */
  | { readonly by: 'shared' | 'local'; readonly answer: ExchangeTypes.Answer }
  /** Nobody: the store is down and the settings keep no local record. */
  | { readonly by: 'nobody' };

/**
 * The answer of a copy that is thrown away: what changed on it is told to nobody, and it gives no probe's place, since each call would
 * have places of its own.
 */
function forgotten(answer: ExchangeTypes.Answer, waitMs: number): ExchangeTypes.Answer {
  if (answer.tag !== 'started') return answer;
  const { verdict, ...started } = answer.val;
  const isProbe = verdict.tag === 'permit' && verdict.val.probe !== undefined;
  const refusal: Wit.Verdict = { tag: 'refusal', val: { reason: 'too-many-requests', retryAfterMs: BigInt(waitMs) } };
  return { tag: 'started', val: { ...started, transitions: [], verdict: isProbe ? refusal : verdict } };
}

export class Node {
  readonly clock: StoreClock;
  readonly outage: Outage;
  /** The name under which this node votes. */
  readonly voteAs: string;
  #closedAtMs = Infinity;
  readonly #id = random64();
  /** Names this process on records of its own, so that no place there is taken for one on the shared record. */
  readonly #localId = random64();
  #sequence = 1n;
  #circuitsMade = 0n;
  /** What goes on without a caller, until it ends. */
  readonly #underWay = new Set<Promise<unknown>>();

  constructor(
    readonly settings: Settings,
    readonly component: Component,
  ) {
    this.clock = new StoreClock(settings.clock);
    this.outage = new Outage(this);
    // Without a name of the user's, a vote is told apart for as long as this process lives.
    this.voteAs = settings.nodeId ?? `unnamed-${this.idText}`;
  }

  /** Whether the factory is closed. */
  get isClosed(): boolean {
    return this.#closedAtMs !== Infinity;
  }

  /** Whether it was closed so long ago that what still goes on is given up: just before whoever closes it waits no longer. */
  get isOver(): boolean {
    return performance.now() - this.#closedAtMs >= this.patienceMs;
  }

  /** Ends what the node does by itself, at once or within the store's timeout. */
  close(): void {
    if (this.isClosed) return;
    this.#closedAtMs = performance.now();
    this.outage.close();
  }

  /** This process's number, as text. */
  get idText(): string {
    return this.#id.toString(16).padStart(16, '0');
  }

  /** How long one try at the store may take, so that the fallback still answers within the store's timeout. */
  get patienceMs(): number {
    const { storeTimeoutMs } = this.settings;
    return storeTimeoutMs - Math.min(storeTimeoutMs / 5, 50);
  }

  /**
   * Makes what is kept of a circuit. The numbers of its starts are consecutive from the first on: a circuit that was forgotten and is
   * made again repeats none, and processes begin somewhere else each, so that a ramp does not admit the same starts of all.
   */
  circuit(name: string, base: string, context: Context): Circuit {
    const made = this.#circuitsMade++ & 0x7fff_ffffn;
    return new Circuit(name, base, context, (made << 32n) + (random64() % 1_000n));
  }

  /** Names a call; no two of this process on a circuit have the same name. */
  token(operation: Operation): { node: bigint; sequence: bigint } {
    const sequence = operation.kind === 'start' ? operation.number : this.#sequence++ | NO_START;
    return { node: this.#id, sequence };
  }

  /** Asks the shared record, and the fallback that the settings name when the store is down. */
  async ask(circuit: Circuit, operation: Operation): Promise<Asked> {
    if (!this.outage.isDown) {
      const result = await this.askShared(circuit, operation);
      if ('answer' in result) return { by: 'shared', answer: result.answer };
      const { error } = result;
      if (isOutage(error)) {
        this.outage.enter(circuit, error);
      } else if (error instanceof CallError && error.kind === 'hurried') {
        // This call alone goes by a copy of the entry last seen: the store may be well. Where it has turned out to be down meanwhile,
        // the record that all calls share is asked.
        return this.#askFallback(circuit, operation, this.outage.isDown ? this.outage.records : undefined);
      } else {
        throw error;
      }
    }
    return this.#askFallback(circuit, operation, this.outage.records);
  }

  async #askFallback(circuit: Circuit, operation: Operation, records: MemoryStore | undefined): Promise<Asked> {
    if (this.settings.storeFailure !== 'local') return { by: 'nobody' };
    const result = await this.askLocally(circuit, operation, records);
    if ('error' in result) throw result.error;
    return { by: 'local', answer: result.answer };
  }

  /** Asks the shared record and nothing else. */
  async askShared(
    circuit: Circuit,
    operation: Operation,
  ): Promise<{ readonly answer: ExchangeTypes.Answer } | { readonly error: CircuitryError }> {
    // Strict: a start sees what the store has now, and so does who looks or forces.
    const usesKnown = operation.kind === 'end' || operation.kind === 'renew' || operation.kind === 'vote';
    const exchange = new Exchange(this, circuit, operation, usesKnown ? circuit.known : undefined);
    const result = await exchange.run(new Deadline(this.patienceMs));
    if ('error' in result && operation.kind === 'start' && exchange.mayHaveWritten) {
      // Perhaps it made a transition, which is to be told, and took a place, which is to be given back.
      this.finishLater(exchange, result.error);
    }
    return result;
  }

  /** Sees to it that a call whose write may have happened is applied once and told. */
  finishLater(exchange: Exchange, error: CircuitryError): void {
    if (isOutage(error)) this.outage.enter(exchange.circuit, error);
    if (!this.outage.park(exchange)) this.background(settleParked(this, exchange));
  }

  /**
   * Asks a record of this process's own, which begins as a copy of the entry last seen. It is kept in `records`, or thrown away where
   * there are none, or as many as circuits are remembered: names may come from requests.
   */
  async askLocally(circuit: Circuit, operation: Operation, records: MemoryStore | undefined): Promise<Answered | Failed> {
    if (!this.component.isReady) await this.component.ready(circuit.name);
    const isKept = records && (records.size < this.settings.maxCircuits || records.loadNow(circuit.name).entry !== undefined);
    const asked = isKept ? records : new MemoryStore(this.clock);
    const { entry } = circuit.known ?? {};
    if (entry && !asked.loadNow(circuit.name).entry) asked.swapNow(circuit.name, undefined, entry.value, undefined);
    const result = this.askOwn(circuit, operation, asked, this.settings.circuit);
    if (isKept || 'error' in result) return result;
    return { ...result, answer: forgotten(result.answer, this.settings.storeTimeoutMs) };
  }

  /** Asks a record of this process's own by `settings`, at once. The component has to be ready. */
  askOwn(circuit: Circuit, operation: Operation, records: MemoryStore, settings: Wit.Settings): Answered | Failed {
    const caller = { ...this.token(operation), node: this.#localId };
    const call = { circuit: circuit.name, settings, operation, caller, known: undefined, nowMs: this.clock.nowMs() };
    return runAtOnce(this.component, records, call);
  }

  /** Tells other processes of a change, where they listen. A hint: nobody waits for it, and it may be lost. */
  tellWatchers(circuit: Circuit, answer: ExchangeTypes.Answer): void {
    const { store } = this.settings;
    if (typeof store.announce !== 'function') return;
    if (!changes(answer)) return;
    const untold = (error: unknown): void => {
      this.settings.logger.debug?.('others were not told of a change', { circuit: circuit.name, error });
    };
    try {
      this.background(store.announce(circuit.name).catch(untold));
    } catch (error) {
      untold(error);
    }
  }

  /** Tells of the transitions that a call made. */
  announce(circuit: Circuit, transitions: readonly Wit.Transition[], local: boolean): void {
    for (const made of transitions) {
      const transition = transitionOut(made);
      circuit.sawState(transition.next);
      const { name: circuitName, base: name, context } = circuit;
      const { previous: from, next: to } = transition;
      this.settings.logger.info?.('circuit changed its state', { circuit: circuitName, ...transition, local });
      this.tell('stateChangeCallback', this.settings.stateChangeCallback, {
        name,
        circuit: circuitName,
        context,
        from,
        to,
        transition,
        local,
      });
    }
  }

  /** Calls a callback. One that throws, or whose promise is rejected, must not break the call that it listens to. */
  tell<T>(what: string, callback: ((value: T) => void) | undefined, value: T): void {
    if (!callback) return;
    const failed = (error: unknown): void => {
      this.settings.logger.error?.(`the ${what} threw`, { error });
    };
    try {
      const answer: unknown = callback(value);
      if (answer instanceof Promise) answer.catch(failed);
    } catch (error) {
      failed(error);
    }
  }

  /** Notes settings in force that are others than this process's own; tells of each once. */
  sawSettings(circuit: Circuit, inForce: Wit.Settings | undefined): void {
    if (!inForce || !this.settings.logger.warn) return;
    const settings = settingsOut(inForce);
    if (!circuit.sawSettings(JSON.stringify(settings))) return;
    const own = settingsOut(this.settings.circuit);
    const names = Object.keys(settings) as (keyof typeof settings)[];
    const differ = names.filter((name) => name !== 'idleRetentionMs' && JSON.stringify(settings[name]) !== JSON.stringify(own[name]));
    this.settings.logger.warn("another process's settings are in force, not this one's", { circuit: circuit.name, differ });
  }

  /** Outcomes that are not counted, or of which nobody can tell. */
  lost(circuit: Circuit, outcomes: number, error: CircuitryError): void {
    if (outcomes > 0) this.settings.logger.warn?.('outcomes are lost', { circuit: circuit.name, outcomes, error });
  }

  /** Lets something go on without a caller. */
  background(work: Promise<unknown>): void {
    const done = work.catch((error: unknown) => {
      this.settings.logger.error?.('work in the background failed', { error: messageOf(error) });
    });
    this.#underWay.add(done);
    void done.finally(() => this.#underWay.delete(done));
  }

  /** Waits for what goes on without a caller. */
  async idle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  /** What is told where nobody can be asked. */
  storeDown(circuit: Circuit): StoreError {
    const why = 'it is down, or this process is too busy to ask it, and the settings keep no local record';
    return new StoreError('unavailable', `circuit ${shortened(circuit.name)}: ${why}`);
  }
}

/** Whether an answer tells of something that others may want to hear of. */
function changes(answer: ExchangeTypes.Answer): boolean {
  switch (answer.tag) {
    case 'started':
    case 'settled':
    case 'voted':
      return answer.val.transitions.length > 0;
    case 'overridden':
    case 'cleared':
      return true;
    default:
      return false;
  }
}

/** The answer, where it is one to the question asked. */
export function expected<T extends ExchangeTypes.Answer['tag']>(
  circuit: Circuit,
  tag: T,
  answer: ExchangeTypes.Answer,
): Extract<ExchangeTypes.Answer, { tag: T }>['val'] {
  if (answer.tag !== tag) throw new CallError(circuit.name, 'trapped', 'the component answered another question');
  return answer.val as never;
}

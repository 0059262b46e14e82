/// <reference lib="esnext.disposable" preserve="true" />
/** {@link Factory}: makes breakers that share settings, a store and the component. */

import { asyncDispose } from './asking.js';
import { Breaker } from './breaker.js';
import type { Circuit } from './circuit.js';
import { Component } from './component.js';
import { ArgumentError, SettingsError } from './errors.js';
import { type Context, nameProblem, textProblem } from './names.js';
import { Node } from './node.js';
import type { FactoryOptions } from './options.js';
import { gather, optionName, optionNames, settle } from './settings.js';

/** How many of the oldest circuits are looked at for one to forget. */
const LOOKS = 8;

/**
 * Makes a factory: loads the component and lets it check the settings. Asks no store. Make one a process.
 *
 * Options may be given in several objects, the fleet's settings apart from the process's own for example; each may be given once.
 *
 * @throws {SettingsError} that names the setting, and says what would do.
 *
 * @example
 * ```ts
 * const factory = await createFactory({ store, failureCountThreshold: 15, allowAfterMs: 30 * 60_000 });
 * const breaker = factory.breakerFor('emails', { tenant: 'acme' });
 * ```
 */
export async function createFactory(...options: (FactoryOptions | undefined)[]): Promise<Factory> {
  const settings = settle(gather(options));
  const component = await Component.load(settings.coreModule, settings.tripFn, settings.logger);
  const checked = component.check(settings.circuit);
  if ('problem' in checked) {
    throw new SettingsError(optionName(checked.problem.field), optionNames(checked.problem.problem));
  }
  return new Factory(new Node(settings, component), checked.fingerprint);
}

/** Makes breakers. */
export class Factory {
  /** A digest of the settings that the fleet shares: equal settings, equal fingerprint, in every host. */
  readonly fingerprint: bigint;
  readonly #node: Node;
  /** The circuits that this process remembers, the one that was asked for last at the end. */
  readonly #circuits = new Map<string, Circuit>();

  /** @internal Use {@link createFactory}. */
  constructor(node: Node, fingerprint: bigint) {
    this.#node = node;
    this.fingerprint = fingerprint;
  }

  /**
   * A handle on the circuit of `name` and `context`, under the name that `nameFn` gives it: by default `name`, or `name/tenant` where
   * the context has a tenant.
   *
   * @throws {ArgumentError} when a name is no well-formed text of 1 to 1,024 bytes; it names the argument.
   */
  breakerFor(name: string, context: Context = {}): Breaker {
    checkText('name', name);
    if (!isPlain(context)) throw new ArgumentError('context', 'it is no plain object; give texts by name: { tenant }');
    for (const [key, value] of Object.entries(context)) checkText(`context.${key}`, value);
    return this.#breaker(this.#node.settings.nameFn(name, context), name, context);
  }

  /**
   * A handle on the circuit of exactly this name, whatever `nameFn` says.
   *
   * @throws {ArgumentError} as {@link Factory.breakerFor}.
   */
  breaker(circuit: string): Breaker {
    return this.#breaker(circuit, circuit, {});
  }

  #breaker(circuitName: string, base: string, context: Context): Breaker {
    const problem = nameProblem(circuitName);
    if (problem !== undefined) throw new ArgumentError('circuit', `the circuit's name cannot be used: ${problem}`);
    let circuit = this.#circuits.get(circuitName);
    if (circuit) this.#circuits.delete(circuitName);
    else circuit = this.#node.circuit(circuitName, base, Object.freeze({ ...context }));
    this.#circuits.set(circuitName, circuit);
    this.#forget();
    return new Breaker(this.#node, circuit, base);
  }

  /** Forgets a circuit where there are too many: the one that was asked for longest ago, of those that are closed and empty. */
  #forget(): void {
    for (let looks = 0; this.#circuits.size > this.#node.settings.maxCircuits && looks < LOOKS; looks++) {
      const [oldest] = this.#circuits;
      if (!oldest) return;
      const [name, circuit] = oldest;
      this.#circuits.delete(name);
      if (circuit.isKept && looks < LOOKS - 1) this.#circuits.set(name, circuit);
    }
  }

  /** Whether the store is taken as down, so that calls take the store-failure way. */
  get isStoreDown(): boolean {
    return this.#node.outage.isDown;
  }

  /**
   * Ends what the factory does by itself, and waits for outcomes that are being settled, at most for the store's timeout. What is not
   * settled by then is given up, and so is what waits for the return of a store that is down; the logger is told how many outcomes are
   * lost. Starts fail from then on; permits can still be ended, each by one try. The store is the caller's, and is not closed.
   */
  async close(): Promise<void> {
    this.#node.close();
    let timer: unknown;
    const elapsed = new Promise<void>((resolve) => (timer = setTimeout(resolve, this.#node.settings.storeTimeoutMs)));
    await Promise.race([this.#node.idle(), elapsed]);
    clearTimeout(timer as number);
  }

  /** The same as {@link Factory.close}, for `await using`. */
  [asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Whether all that it has is its own: of a `Map` or of a class with a getter nothing would be seen, and all tenants share a circuit. */
function isPlain(context: unknown): boolean {
  if (typeof context !== 'object' || context === null) return false;
  const made: unknown = Object.getPrototypeOf(context);
  // That of another realm is one as well.
  return made === null || Object.getPrototypeOf(made) === null;
}

function checkText(field: string, value: unknown): void {
  // However long: what it is made to is checked too.
  const problem = textProblem(value, 0, Number.MAX_SAFE_INTEGER);
  if (problem !== undefined) throw new ArgumentError(field, problem);
}

/** The component: loaded once, asked for decisions, and made anew when it fails. */

import { CallError, SettingsError } from './errors.js';
import { type Root, instantiate } from './generated/circuitry.js';
import type * as Exchange from './generated/interfaces/circuitry-breaker-exchange.js';
import type * as Hooks from './generated/interfaces/circuitry-breaker-hooks.js';
import type * as Wit from './generated/interfaces/circuitry-breaker-types.js';
import { CORE, SMALL } from './generated/modules.js';
import type { FactoryOptions, Logger, TripFn } from './options.js';
import { unheard } from './outcome.js';
import { messageOf } from './store.js';

type Modules = ReadonlyMap<string, WebAssembly.Module>;

/** The modules from beside this file, compiled once for all factories. */
let own: Promise<Modules> | undefined;

/** An instance of the component that decides; with the code of a trip rule of the user's own. */
export class Component {
  readonly #modules: Modules;
  readonly #tripFn: TripFn | undefined;
  readonly #logger: Logger;
  #root: Root | undefined;
  #making: Promise<Root> | undefined;

  private constructor(modules: Modules, tripFn: TripFn | undefined, logger: Logger) {
    this.#modules = modules;
    this.#tripFn = tripFn;
    this.#logger = logger;
  }

  /**
   * Loads the component.
   *
   * @throws {SettingsError} that names `coreModule`, when it cannot be read or compiled.
   */
  static async load(given: FactoryOptions['coreModule'], tripFn: TripFn | undefined, logger: Logger): Promise<Component> {
    const address = new URL(`./generated/${CORE}`, import.meta.url);
    try {
      const loading = given === undefined ? (own ??= modules(address)) : modules(given);
      const component = new Component(await loading, tripFn, logger);
      await component.#instance();
      return component;
    } catch (error) {
      own = undefined;
      const from = given instanceof URL ? given.href : given === undefined ? address.href : 'that was given';
      const remedy = 'where it can be neither read nor fetched, give its module, bytes or address as coreModule';
      throw new SettingsError('coreModule', `the component ${from} cannot be loaded: ${messageOf(error)}; ${remedy}`);
    }
  }

  /** Says what is wrong with settings; `undefined` if nothing is. */
  check(settings: Wit.Settings): { problem: Wit.SettingsError } | { fingerprint: bigint } {
    if (!this.#root) throw new Error('the component is not loaded');
    try {
      return { fingerprint: this.#root.breaker.check(settings) };
    } catch (error) {
      const problem = (error as { payload?: Wit.SettingsError }).payload;
      if (problem === undefined) throw error;
      return { problem };
    }
  }

  /** Whether it can decide at once; else wait for {@link Component.ready}. */
  get isReady(): boolean {
    return this.#root !== undefined;
  }

  /** Waits until it can decide: after a failure an instance has to be made anew. */
  async ready(circuit: string): Promise<void> {
    try {
      await this.#instance();
    } catch (error) {
      throw new CallError(circuit, 'trapped', `there is no new instance of the component: ${messageOf(error)}`, { cause: error });
    }
  }

  /**
   * Decides. Everything in the arguments has been checked, so whatever is thrown is the component's own failure: its instance is
   * thrown away.
   */
  decide(circuit: string, request: Exchange.Request, loaded: Wit.Loaded, nowMs: bigint): Exchange.Decision {
    const root = this.#root;
    if (!root) throw new CallError(circuit, 'trapped', 'the component failed a moment ago and is made anew');
    try {
      return root.exchange.decide(request, loaded, nowMs);
    } catch (error) {
      this.#root = undefined;
      // It is made when somebody waits for it; here only for who does not.
      void this.#instance().catch(() => {});
      throw new CallError(circuit, 'trapped', `the component trapped: ${messageOf(error)}`, { cause: error });
    }
  }

  async #instance(): Promise<Root> {
    if (this.#root) return this.#root;
    this.#making ??= this.#make().finally(() => (this.#making = undefined));
    this.#root = await this.#making;
    return this.#root;
  }

  async #make(): Promise<Root> {
    const unused = (): never => {
      throw new Error('decisions ask no store');
    };
    const module = (name: string): WebAssembly.Module => {
      const found = this.#modules.get(name);
      if (!found) throw new Error(`there is no module ${name}`);
      return found;
    };
    const imports = {
      'circuitry:breaker/store': { load: unused, swap: unused },
      'circuitry:breaker/hooks': { willTrip: (query: Hooks.TripQuery) => this.#willTrip(query) },
    };
    return instantiate(module, imports as never, (of, needs) => WebAssembly.instantiate(of, needs));
  }

  /** Where the rule in force is another, or the function fails, the default rule stands in for it. */
  #willTrip(query: Hooks.TripQuery): boolean {
    const { rule, counts, failureCountThreshold } = query;
    const byDefault = counts.consecutiveFailures > failureCountThreshold;
    const own = this.#tripFn;
    if (!own || own.name !== rule.name || own.version !== rule.version) return byDefault;
    try {
      const trips: unknown = own.trips({
        circuit: query.circuit,
        failureCountThreshold: Number(failureCountThreshold),
        generation: Number(query.generation),
        counts: {
          total: Number(counts.total),
          totalSuccesses: Number(counts.totalSuccesses),
          totalFailures: Number(counts.totalFailures),
          consecutiveSuccesses: Number(counts.consecutiveSuccesses),
          consecutiveFailures: Number(counts.consecutiveFailures),
        },
      });
      if (typeof trips === 'boolean') return trips;
      unheard(trips);
      this.#logger.error?.('the trip function answered no boolean; the default rule stands in', { circuit: query.circuit });
    } catch (error) {
      this.#logger.error?.('the trip function threw; the default rule stands in', { circuit: query.circuit, error });
    }
    return byDefault;
  }
}

async function modules(core: NonNullable<FactoryOptions['coreModule']>): Promise<Modules> {
  const made = new Map<string, WebAssembly.Module>();
  for (const [name, text] of Object.entries(SMALL)) {
    made.set(name, await WebAssembly.compile(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))));
  }
  made.set(CORE, core instanceof URL ? await compileAt(core) : await compiled(core));
  return made;
}

async function compiled(core: object): Promise<WebAssembly.Module> {
  return core instanceof WebAssembly.Module ? core : WebAssembly.compile(core as BufferSource);
}

async function compileAt(address: URL): Promise<WebAssembly.Module> {
  if (address.protocol === 'file:') {
    // Only where there are files; no bundler is to look for it.
    const files = 'node:fs/promises';
    const { readFile } = (await import(/* @vite-ignore */ /* webpackIgnore: true */ files)) as {
      readFile(address: URL): Promise<Uint8Array<ArrayBuffer>>;
    };
    return WebAssembly.compile(await readFile(address));
  }
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`it is answered with status ${answer.status}`);
  // Not the streaming way, which needs the right content type.
  return WebAssembly.compile(await answer.arrayBuffer());
}

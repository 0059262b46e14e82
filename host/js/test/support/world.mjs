// The world of a test: a store that fails on demand, a clock that stands still, and what the callbacks were told.
import { CircuitRefusedError, ManualClock, MemoryStore, createFactory } from '../../dist/index.js';
import { FaultStore } from './fault.mjs';
import { until } from './servers.mjs';

export const BEGIN_MS = 1_000_000;
/** The open time of the tests' circuits. */
export const ALLOW_AFTER_MS = 60_000;

export class World {
  clock = new ManualClock(BEGIN_MS);
  store = new FaultStore(new MemoryStore(this.clock));
  /** `[circuit, from, to, local]` */
  changes = [];
  fallbacks = [];
  logged = [];
  #factories = [];

  /** Options on this world: trips on the third failure in a row, closes after two probes. */
  options(more = {}) {
    const log = (level) => (message, fields) => this.logged.push({ level, message, fields });
    return {
      store: this.store,
      clock: this.clock,
      failureCountThreshold: 2,
      closeThreshold: 2,
      allowAfterMs: ALLOW_AFTER_MS,
      stateChangeCallback: ({ circuit, from, to, local }) => this.changes.push([circuit, from, to, local]),
      storeFallbackCallback: (fallback) => this.fallbacks.push(fallback),
      logger: { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') },
      ...more,
    };
  }

  async factory(more) {
    const factory = await createFactory(this.options(more));
    this.#factories.push(factory);
    return factory;
  }

  async breaker(more) {
    return (await this.factory(more)).breakerFor('jobs', { tenant: 'acme' });
  }

  openTimePasses() {
    this.clock.advanceMs(ALLOW_AFTER_MS);
  }

  async close() {
    for (const factory of this.#factories) await factory.close();
  }
}

/** Starts and ends with `outcome`, `times` times. */
export async function run(breaker, outcome, times) {
  for (let count = 0; count < times; count++) await (await breaker.start()).end(outcome);
}

/** Fails until the circuit trips. */
export async function trip(breaker) {
  await run(breaker, 'failure', 3);
  if ((await breaker.state()) !== 'open') throw new Error('the circuit did not trip');
}

/** Asks to start and is refused. */
export async function refused(breaker) {
  try {
    await breaker.start();
  } catch (error) {
    if (error instanceof CircuitRefusedError) return error;
    throw error;
  }
  throw new Error('it was admitted');
}

export const outageIsOver = (factory) => until('the outage is over', () => !factory.isStoreDown);

/** Runs a rule in a world of its own. */
export const inWorld = (rule) => async (context) => {
  const world = new World();
  try {
    await rule(world, context);
  } finally {
    await world.close();
  }
};

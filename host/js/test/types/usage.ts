// What a user writes, for the compiler only.
import {
  type Breaker,
  CircuitRefusedError,
  type Information,
  type Loaded,
  ManualClock,
  MemoryStore,
  type Outcome,
  type Permit,
  type Settlement,
  type Store,
  type Swapped,
  createFactory,
  failureRetryAfter,
} from 'circuitry';
import { RedisStore } from 'circuitry/redis';
import { createClient } from 'redis';
import { Redis } from 'ioredis';

class OwnStore implements Store {
  async load(_circuit: string): Promise<Loaded> {
    return {};
  }

  async swap(_circuit: string, _expected: Uint8Array | undefined, value: Uint8Array, _ttlMs: number | undefined): Promise<Swapped> {
    return { stored: true, version: value };
  }
}

const stores: Store[] = [
  new OwnStore(),
  new MemoryStore(new ManualClock(0)),
  await RedisStore.connect('redis://127.0.0.1', { prefix: 'a', lazy: true }),
  RedisStore.fromClient(createClient()),
  RedisStore.fromClient(new Redis({ lazyConnect: true, autoResendUnfulfilledCommands: false })),
];
const factory = await createFactory(
  {
    failureCountThreshold: 5n,
    tripRules: [{ kind: 'slow-call-rate', perMille: 500, minimumCalls: 1, window: { calls: 10 } }],
    slowCallAfterMs: 1_000,
    tripFn: { name: 'a', version: 1, trips: ({ counts }) => counts.totalFailures > 2 },
  },
  {
    ...(stores[0] && { store: stores[0] }),
    storeFailure: 'refuse',
    logger: console,
    fallbackErrorMatcher: (error: unknown): Outcome => (error instanceof RangeError ? 'success' : failureRetryAfter(5)),
    stateChangeCallback: ({ circuit, from, to, transition }) => void [circuit, from, to, transition.reason],
  },
);
const breaker: Breaker = factory.breakerFor('emails', { tenant: 'acme' });
const value: number = await breaker.execute(async ({ signal }) => (signal?.aborted ? 1 : 2), {
  classify: (result) => (result.ok && result.value > 1 ? 'success' : 'ignored'),
});
const permit: Permit = await breaker.start();
const settlement: Settlement = await permit.end('success');
const information: Information = await breaker.information();
try {
  await breaker.start();
} catch (error) {
  if (error instanceof CircuitRefusedError) void [error.reason satisfies string, error.spreadDelayMs() satisfies number];
}
{
  await using held = await breaker.start();
  void held.isProbe;
}
void [value, settlement.disposition, information.override?.untilMs, factory.isStoreDown];
// @ts-expect-error an outcome is one of a few
void permit.end('done');
// @ts-expect-error a store is no URL
void createFactory({ store: 'redis://127.0.0.1' });

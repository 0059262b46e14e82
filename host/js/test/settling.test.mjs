// Outcomes go together, loads are shared, nothing is counted twice, leases are renewed.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { MemoryStore } from '../dist/index.js';
import { FaultStore } from './support/fault.mjs';
import { until } from './support/servers.mjs';
import { ALLOW_AFTER_MS, World, inWorld, refused, run, trip } from './support/world.mjs';

const permits = (breaker, count) => Promise.all(Array.from({ length: count }, () => breaker.start()));

describe('settling', () => {
  test('outcomes that end in the same turn go in one swap', inWorld(async (world) => {
    const breaker = await world.breaker();
    const all = await permits(breaker, 100);
    const before = world.store.swaps;
    const settled = await Promise.all(all.map((permit) => permit.end('success')));
    assert.equal(world.store.swaps - before, 1);
    assert.ok(settled.every(({ disposition }) => disposition === 'accepted'));
    assert.equal((await breaker.information()).counts.total, 100);
  }));

  test('outcomes that come while a swap is under way go with the next', inWorld(async (world) => {
    const breaker = await world.breaker();
    const all = await permits(breaker, 50);
    const before = world.store.swaps;
    let open;
    world.store.onNextSwap((ask) => new Promise((resolve) => (open = () => resolve(ask()))));
    const first = all[0].end('success');
    await until('a swap is under way', () => open);
    const others = all.slice(1).map((permit) => permit.end('success'));
    await sleep(1);
    open();
    await Promise.all([first, ...others]);
    assert.equal(world.store.swaps - before, 2);
    assert.equal((await breaker.information()).counts.total, 50);
  }));

  test('outcomes keep their order, and of a run the first ones are accepted', inWorld(async (world) => {
    const breaker = await world.breaker();
    const all = await permits(breaker, 6);
    const outcomes = ['failure', 'failure', 'success', 'failure', 'failure', 'failure'];
    const settled = await Promise.all(all.map((permit, index) => permit.end(outcomes[index])));
    assert.ok(settled.every(({ disposition }) => disposition === 'accepted'), 'the last one trips');
    await breaker.reset();
    const more = await permits(breaker, 5);
    const dispositions = (await Promise.all(more.map((permit) => permit.end('failure')))).map(({ disposition }) => disposition);
    assert.deepEqual(dispositions, ['accepted', 'accepted', 'accepted', 'stale', 'stale'], 'the third failure trips');
  }));

  test('a call takes 256 completions at most, and the rest goes after it', inWorld(async (world) => {
    const breaker = await world.breaker({ failureCountThreshold: 1_000 });
    const all = await permits(breaker, 600);
    const before = world.store.swaps;
    // No two that are equal follow each other, so each is a completion of its own.
    await Promise.all(all.map((permit, index) => permit.end(index % 2 ? 'success' : 'failure')));
    assert.equal(world.store.swaps - before, 3);
    const { counts } = await breaker.information();
    assert.deepEqual([counts.totalSuccesses, counts.totalFailures], [300, 300]);
  }));

  test('an outcome whose answer is lost is counted once, whether it was written or not', inWorld(async (world) => {
    const factory = await world.factory();
    for (const fault of ['lost-answer', 'lost-write']) {
      const breaker = factory.breaker(fault);
      await run(breaker, 'success', 1);
      const permit = await breaker.start();
      world.store.onNextSwap(fault);
      assert.deepEqual(await permit.end('success'), { disposition: 'accepted', local: false });
      assert.equal((await breaker.information()).counts.total, 2, fault);
    }
    assert.equal(factory.isStoreDown, false, 'that is no outage');
  }));

  test('no outcome is given up because others write too', inWorld(async (world) => {
    const [one, other] = [await world.breaker(), await world.breaker()];
    const ours = await permits(one, 1);
    await run(other, 'success', 1);
    // Somebody else is faster, more often than one call tries.
    for (let count = 0; count < 20; count++) {
      world.store.onNextSwap(async (ask) => {
        const { entry } = await world.store.store.load('jobs/acme');
        await world.store.store.swap('jobs/acme', entry.version, entry.value, undefined);
        return ask();
      });
    }
    assert.deepEqual(await ours[0].end('success'), { disposition: 'accepted', local: false });
    assert.equal((await one.information()).counts.total, 2);
  }));

  test('an end waits no longer than the timeout of the store, and is settled later', inWorld(async (world) => {
    const breaker = await world.breaker({ storeTimeoutMs: 1_000, storeFailure: 'local' });
    const permit = await breaker.start();
    // Each swap takes less than its own time, and loses.
    for (let count = 0; count < 7; count++) {
      world.store.onNextSwap(async () => {
        await sleep(300);
        const { entry } = await world.store.store.load('jobs/acme');
        return { stored: false, entry: { value: entry.value, version: Uint8Array.of(count) } };
      });
    }
    const begun = performance.now();
    assert.deepEqual(await permit.end('success'), { disposition: 'unsettled', local: false });
    assert.ok(performance.now() - begun < 10_000);
    await until('it is settled', async () => (await breaker.information()).counts.total === 1);
  }));

  test('is given up a store timeout after the factory was closed, and that is told', inWorld(async (world) => {
    const factory = await world.factory({ storeTimeoutMs: 200 });
    const breaker = factory.breaker('a');
    await run(breaker, 'success', 1);
    const all = await permits(breaker, 5);
    // Somebody else is faster, always.
    world.store.swap = async (circuit) => {
      world.store.swaps++;
      const { entry } = await world.store.store.load(circuit);
      return { stored: false, entry: { value: entry.value, version: crypto.getRandomValues(new Uint8Array(16)) } };
    };
    const ends = all.map((permit) => permit.end('success'));
    await factory.close();
    const lost = () => world.logged.filter(({ message }) => message === 'outcomes are lost').map(({ fields }) => fields.outcomes);
    await until('it is told', () => lost().length > 0, 5_000);
    assert.deepEqual(lost(), [5]);
    await Promise.allSettled(ends);
    const { swaps, loads } = world.store;
    await sleep(600);
    assert.deepEqual([world.store.swaps, world.store.loads], [swaps, loads], 'nobody asks the store any more');
  }));

  test('pauses longer with each try that others win', inWorld(async (world) => {
    const breaker = await world.breaker({ storeTimeoutMs: 10 });
    await run(breaker, 'success', 1);
    const permit = await breaker.start();
    const { swap } = world.store;
    const atMs = [];
    world.store.swap = async (circuit) => {
      atMs.push(performance.now());
      const { entry } = await world.store.store.load(circuit);
      return { stored: false, entry: { value: entry.value, version: crypto.getRandomValues(new Uint8Array(16)) } };
    };
    await permit.end('success');
    // Pauses that do not grow are 8 ms at most.
    await until('it pauses for long', () => atMs.some((at, index) => at - atMs[index - 1] > 100));
    world.store.swap = swap;
    await until('it is settled', async () => (await breaker.information()).counts.total === 2);
  }));
});

describe('loads of starts', () => {
  /** A store whose loads take as long as the test says. */
  class Gated extends FaultStore {
    gates = [];
    #open = false;

    async load(circuit) {
      const answer = super.load(circuit);
      if (!this.#open) await new Promise((resolve) => this.gates.push(resolve));
      return answer;
    }

    open() {
      this.#open = true;
      for (const gate of this.gates) gate();
    }
  }

  test('concurrent ones share a load that begins after they came', inWorld(async (world) => {
    const store = new Gated(new MemoryStore(world.clock));
    const breaker = await world.breaker({ store });
    const alone = breaker.start();
    await until('the first one loads', () => store.gates.length === 1);
    const others = permits(breaker, 99);
    await until('the others load', () => store.gates.length === 2);
    // These came after that load had begun, so it is none of theirs.
    const last = permits(breaker, 10);
    await sleep(5);
    assert.equal(store.loads, 2);
    store.open();
    const eras = (await Promise.all([alone, others, last])).flat().map(({ era }) => era);
    assert.equal(new Set(eras).size, 1, 'they found the same circuit');
    // What the first start writes makes others look again: those are lost races, not loads.
    assert.equal(store.loads, 3);
  }));

  test('a trip elsewhere is seen by every start that begins after it', inWorld(async (world) => {
    const other = await world.breaker();
    await run(other, 'success', 1);
    // The same entries; the answer to a load is as old as its beginning.
    const store = new Gated(world.store.store);
    const one = await world.breaker({ store });
    const alone = one.start();
    await until('the first one loads', () => store.gates.length === 1);
    const early = permits(one, 20);
    await until('the others load', () => store.gates.length === 2);
    await trip(other);
    const late = Promise.allSettled(Array.from({ length: 20 }, () => one.start()));
    await sleep(5);
    store.open();
    await Promise.all([alone, early]);
    assert.ok((await late).every(({ reason }) => reason?.reason === 'open'), 'strict is strict');
  }));

  test('those who share a load that fails are all told', inWorld(async (world) => {
    const breaker = await world.breaker({ storeFailure: 'refuse' });
    world.store.goDown();
    const started = await Promise.allSettled(Array.from({ length: 50 }, () => breaker.start()));
    assert.ok(started.every(({ reason }) => reason?.reason === 'store-down'));
  }));
});

describe('probes', () => {
  test('are never more than there are places, however many ask at once', inWorld(async (world) => {
    const breakers = [];
    for (let count = 0; count < 8; count++) breakers.push(await world.breaker());
    await trip(breakers[0]);
    world.openTimePasses();
    const started = await Promise.allSettled(breakers.flatMap((breaker) => Array.from({ length: 16 }, () => breaker.start())));
    const admitted = started.filter(({ status }) => status === 'fulfilled').map(({ value }) => value);
    assert.equal(admitted.length, 2);
    await Promise.all(admitted.map((permit) => permit.end('success')));
    assert.equal(await breakers[0].state(), 'closed');
  }));

  test('have their lease renewed while the work runs', async () => {
    const world = new World();
    // On the system's clock: leases are renewed by timers.
    const store = new MemoryStore();
    const options = { store, clock: undefined, closeThreshold: 1, probeTimeoutMs: 3_000, allowAfterMs: 1 };
    const breaker = await world.breaker(options);
    await run(breaker, 'failure', 3);
    await sleep(5);
    const probe = await breaker.start();
    assert.ok(probe.isProbe);
    const [{ deadlineMs }] = (await breaker.information()).probes;
    await until('the lease is longer', async () => (await breaker.information()).probes[0].deadlineMs > deadlineMs + 1_000);
    assert.equal((await refused(await world.breaker(options))).reason, 'too-many-requests');
    assert.deepEqual(await probe.end('success'), { disposition: 'accepted', local: false });
    await world.close();
  });

  test('hold their place for ten leases at most, and not after they are ended', async () => {
    const world = new World();
    const store = new FaultStore(new MemoryStore());
    const options = { store, clock: undefined, closeThreshold: 1, probeTimeoutMs: 30, allowAfterMs: 1 };
    const breaker = await world.breaker(options);
    await run(breaker, 'failure', 3);
    await sleep(5);
    const leaked = await breaker.start();
    await until('another is given the place', async () => {
      try {
        await (await breaker.start()).end('ignored');
        return true;
      } catch {
        return false;
      }
    }, 20_000);
    assert.deepEqual(await leaked.end('success'), { disposition: 'stale', local: false }, 'its place was given away');
    const { swaps } = store;
    await sleep(50);
    assert.equal(store.swaps, swaps, 'nothing is renewed any more');
    await world.close();
  });

  test('have no lease renewed by a factory that is closed', inWorld(async (world) => {
    const factory = await world.factory({ probeTimeoutMs: 300, closeThreshold: 1 });
    const breaker = factory.breaker('a');
    await trip(breaker);
    world.openTimePasses();
    assert.ok((await breaker.start()).isProbe);
    await factory.close();
    const { loads, swaps } = world.store;
    world.store.goDown();
    await sleep(250);
    assert.deepEqual([world.store.loads, world.store.swaps, world.fallbacks], [loads, swaps, []]);
  }));

  test('a probe that lost the answer to its start gets the same place again', inWorld(async (world) => {
    const breaker = await world.breaker({ closeThreshold: 1 });
    await trip(breaker);
    world.openTimePasses();
    world.store.onNextSwap('lost-answer');
    const probe = await breaker.start();
    assert.ok(probe.isProbe);
    assert.equal((await breaker.information()).probes.length, 1);
    assert.deepEqual(await probe.end('success'), { disposition: 'accepted', local: false });
    assert.equal(world.changes.filter(([, , to]) => to === 'half-open').length, 1, 'told once');
  }));
});

describe('time', () => {
  test('is the time of the store, not of the host', inWorld(async (world) => {
    const ahead = { ...world.clock, nowMs: () => world.clock.nowMs() + 3_600_000 };
    const [one, other] = [await world.breaker(), await world.breaker({ clock: ahead })];
    await trip(one);
    const refusal = await refused(other);
    assert.equal(refusal.retryAfterMs, ALLOW_AFTER_MS, 'a host that is an hour ahead does not end the open time');
  }));

  test('a clock that throws or says nonsense is no error of a call', inWorld(async (world) => {
    const clocks = [() => { throw new Error('no time'); }, () => NaN, () => -5, () => Infinity, () => 'now', () => undefined];
    for (const nowMs of clocks) {
      const breaker = await world.breaker({ clock: { nowMs }, store: new FaultStore(new MemoryStore(world.clock)) });
      await run(breaker, 'success', 2);
      assert.equal(await breaker.state(), 'closed');
    }
  }));

  test('a ramp admits its share by the numbers of the starts alone', inWorld(async (world) => {
    const breaker = await world.breaker({ closeThreshold: 1, ramp: { stepsPerMille: [250], stepMs: 10_000 } });
    await trip(breaker);
    world.openTimePasses();
    await run(breaker, 'success', 1);
    let admitted = 0;
    for (let count = 0; count < 100; count++) {
      try {
        // Ends and looks in between have numbers of their own.
        await (await breaker.start()).end('success');
        await breaker.information();
        admitted++;
      } catch (error) {
        assert.equal(error.reason, 'ramp');
      }
    }
    assert.equal(admitted, 25);
  }));
});

test('a process that is held up for long does not take the store as down', inWorld(async (world) => {
  const factory = await world.factory({ storeTimeoutMs: 200 });
  const breaker = factory.breaker('a');
  // The answer is there, and this process does something else for longer than the timeout before it looks.
  world.store.onNextLoad(async (ask) => {
    await new Promise((resolve) => setImmediate(resolve));
    return ask();
  });
  const starting = breaker.start();
  const begun = performance.now();
  while (performance.now() - begun < 600);
  await (await starting).end('success');
  assert.deepEqual([factory.isStoreDown, world.fallbacks], [false, []]);
}));

test('an end of a process that is held up for long is told what became of it', inWorld(async (world) => {
  const breaker = await world.breaker({ storeTimeoutMs: 200 });
  await run(breaker, 'success', 1);
  const permit = await breaker.start();
  world.store.onNextSwap(async (ask) => {
    await new Promise((resolve) => setImmediate(resolve));
    return ask();
  });
  const ending = permit.end('success');
  const begun = performance.now();
  while (performance.now() - begun < 600);
  assert.deepEqual(await ending, { disposition: 'accepted', local: false });
}));

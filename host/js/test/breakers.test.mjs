// Starts, ends and executes; who is told what.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ArgumentError, CircuitRefusedError, ExpectedError, StoreError, createFactory, failureRetryAfter } from '../dist/index.js';
import { until } from './support/servers.mjs';
import { ALLOW_AFTER_MS, BEGIN_MS, inWorld, outageIsOver, refused, run, trip } from './support/world.mjs';

describe('a breaker', () => {
  test('works with no options at all', async () => {
    const factory = await createFactory();
    const breaker = factory.breakerFor('emails', { tenant: 'acme' });
    assert.equal(breaker.name, 'emails/acme');
    assert.equal(await breaker.execute(async () => 7), 7);
    assert.equal((await breaker.information()).counts.totalSuccesses, 1);
    await factory.close();
  });

  test('opens, tells when to come back, probes and closes', inWorld(async (world) => {
    const breaker = await world.breaker();
    await trip(breaker);
    world.clock.advanceMs(1_000);
    const refusal = await refused(breaker);
    assert.deepEqual([refusal.reason, refusal.retryAfterMs, refusal.circuit], ['open', ALLOW_AFTER_MS - 1_000, 'jobs/acme']);
    const delays = Array.from({ length: 100 }, () => refusal.spreadDelayMs());
    assert.ok(delays.every((ms) => ms >= refusal.retryAfterMs && ms <= refusal.retryAfterMs * 1.1 + 1));
    assert.ok(new Set(delays).size > 10, 'they spread out');
    world.clock.advanceMs(ALLOW_AFTER_MS);
    const [one, other] = [await breaker.start(), await breaker.start()];
    assert.ok(one.isProbe && other.isProbe);
    assert.equal((await refused(breaker)).reason, 'too-many-requests');
    await one.end('success');
    assert.equal(await breaker.state(), 'half-open');
    await other.end('success');
    assert.equal(await breaker.state(), 'closed');
    const states = world.changes.map(([, from, to]) => `${from} ${to}`);
    assert.deepEqual(states, ['closed open', 'open half-open', 'half-open closed'], 'each is told once');
  }));

  test('says in words what it does', inWorld(async (world) => {
    const breaker = await world.breaker();
    await trip(breaker);
    assert.match(await breaker.explain(), /^Circuit jobs\/acme is open .* 3 failures in a row/);
    const information = await breaker.information();
    assert.deepEqual([information.state, information.lastTrip.kind, information.expiresAtMs], ['open', 'consecutive-failures', BEGIN_MS + ALLOW_AFTER_MS]);
    assert.equal(JSON.parse(JSON.stringify(information)).settingsInForce.failureCountThreshold, 2, 'it is plain data');
  }));

  test('an outcome of an era that is over is stale and changes nothing', inWorld(async (world) => {
    const breaker = await world.breaker();
    const late = await breaker.start();
    await trip(breaker);
    assert.deepEqual(await late.end('success'), { disposition: 'stale', local: false });
    assert.equal(await breaker.state(), 'open');
  }));

  test('what a start that came before the record does not know is decided on a loaded entry', inWorld(async (world) => {
    const [one, other] = [await world.breaker(), await world.breaker()];
    await run(one, 'success', 1);
    await trip(other);
    world.openTimePasses();
    const probe = await other.start();
    // `one` has last seen the closed circuit, and so has this process's copy; the shared record knows the probe.
    assert.deepEqual(await probe.end('success'), { disposition: 'accepted', local: false });
  }));

  test('the work is given back what it threw, and a refusal has not run it', inWorld(async (world) => {
    const breaker = await world.breaker();
    const error = new TypeError('no route');
    for (let count = 0; count < 3; count++) {
      await assert.rejects(breaker.execute(async () => { throw error; }), (thrown) => thrown === error);
    }
    let ran = false;
    await assert.rejects(breaker.execute(() => { ran = true; }), CircuitRefusedError);
    assert.equal(ran, false);
  }));

  test('an override stands above the state, for everybody, until it ends', inWorld(async (world) => {
    const [one, other] = [await world.breaker(), await world.breaker()];
    const override = { kind: 'forced-open', author: 'ann', reason: 'maintenance', untilMs: BEGIN_MS + 5_000 };
    assert.equal(await one.setOverride(override), undefined);
    const refusal = await refused(other);
    assert.deepEqual([refusal.reason, refusal.retryAfterMs], ['forced-open', 5_000]);
    assert.deepEqual((await other.information()).override, override);
    world.clock.advanceMs(5_000);
    await run(other, 'success', 1);
    await one.setOverride({ kind: 'metrics-only', author: 'ann', reason: 'a trial' });
    await trip(other);
    const permit = await other.start();
    assert.equal(permit.wouldHaveRefused.reason, 'open');
    assert.deepEqual(await permit.end('failure'), { disposition: 'uncounted', local: false });
    assert.equal((await one.setOverride(undefined)).kind, 'metrics-only');
    await refused(other);
    await one.reset();
    assert.equal(await other.state(), 'closed');
    assert.deepEqual(world.changes.at(-1).slice(1), ['open', 'closed', false], 'a reset is told');
  }));

  test("another process's settings in force are told once", inWorld(async (world) => {
    const theirs = await world.breaker({ allowAfterMs: 30_000, settingsRevision: 2 });
    await run(theirs, 'success', 1);
    const ours = await world.breaker();
    await run(ours, 'success', 5);
    const warned = world.logged.filter(({ level }) => level === 'warn');
    assert.equal(warned.length, 1);
    assert.deepEqual(warned[0].fields.differ, ['allowAfterMs', 'settingsRevision']);
    const information = await ours.information();
    assert.equal(information.settingsDiffer, true);
    assert.equal(information.settingsInForce.allowAfterMs, 30_000);
  }));

  test('a change is announced on the store, and other calls are not', inWorld(async (world) => {
    const breaker = await world.breaker();
    await run(breaker, 'success', 2);
    await breaker.information();
    assert.deepEqual(world.store.announced, []);
    await trip(breaker);
    assert.deepEqual(world.store.announced, ['jobs/acme']);
  }));

  test('a store whose announcement fails or throws breaks nothing', inWorld(async (world) => {
    const breaker = await world.breaker();
    world.store.announce = () => Promise.reject(new Error('nobody listens'));
    await trip(breaker);
    world.store.announce = () => { throw new Error('nobody listens'); };
    await breaker.reset();
    assert.equal(await breaker.state(), 'closed');
  }));

  test('a callback that throws, or whose promise is rejected, does not break the call', inWorld(async (world) => {
    for (const stateChangeCallback of [() => { throw new Error('it throws'); }, async () => { throw new Error('it rejects'); }]) {
      const breaker = (await world.factory({ stateChangeCallback })).breaker(`callback ${String(stateChangeCallback)}`);
      await trip(breaker);
    }
    await sleep(1);
    assert.equal(world.logged.filter(({ level }) => level === 'error').length, 2);
  }));

  test('a logger that throws, or rejects, breaks no call', inWorld(async (world) => {
    const unhandled = [];
    const note = (error) => unhandled.push(error);
    process.on('unhandledRejection', note);
    for (const say of [() => { throw new Error('it throws'); }, async () => { throw new Error('it rejects'); }]) {
      const logger = { debug: say, info: say, warn: say, error: say };
      const factory = await world.factory({ logger, stateChangeCallback: () => { throw new Error('no'); } });
      const breaker = factory.breaker(`logger ${say}`);
      await trip(breaker);
      world.openTimePasses();
      for (const permit of [await breaker.start(), await breaker.start()]) {
        assert.deepEqual(await permit.end('success'), { disposition: 'accepted', local: false });
      }
      assert.equal(await breaker.state(), 'closed');
      world.store.goDown();
      await run(breaker, 'success', 1);
      world.store.comeUp();
      await outageIsOver(factory);
    }
    await sleep(1);
    process.off('unhandledRejection', note);
    assert.deepEqual(unhandled, []);
  }));

  test('a factory that is closed starts nothing, and its permits can still be ended', inWorld(async (world) => {
    const factory = await world.factory();
    const breaker = factory.breaker('a');
    const permit = await breaker.start();
    await factory.close();
    await assert.rejects(breaker.start(), { name: 'CallError', kind: 'closed' });
    assert.deepEqual(await permit.end('success'), { disposition: 'accepted', local: false });
  }));

  test('circuits are forgotten one after another, and those that are not closed last', inWorld(async (world) => {
    const factory = await world.factory({ maxCircuits: 2 });
    await trip(factory.breaker('open'));
    for (let count = 0; count < 20; count++) await run(factory.breaker(`closed ${count}`), 'success', 1);
    world.store.goDown();
    // Only what is remembered is known while the store is down.
    assert.equal((await refused(factory.breaker('open'))).reason, 'open');
  }));
});

describe('a permit', () => {
  test('is settled once', inWorld(async (world) => {
    const permit = await (await world.breaker()).start();
    await permit.end('success');
    assert.equal(permit.isSettled, true);
    await assert.rejects(permit.end('success'), { name: 'ArgumentError', field: 'permit' });
  }));

  test('that is given no outcome stays as it is', inWorld(async (world) => {
    const permit = await (await world.breaker()).start();
    for (const outcome of ['done', undefined, null, 7, {}, failureRetryAfter(NaN), failureRetryAfter(-1), failureRetryAfter('1')]) {
      await assert.rejects(permit.end(outcome), ArgumentError);
    }
    assert.deepEqual(await permit.end('success'), { disposition: 'accepted', local: false });
  }));

  test('that is disposed of counts nothing and frees its place', inWorld(async (world) => {
    const breaker = await world.breaker({ closeThreshold: 1 });
    await trip(breaker);
    world.openTimePasses();
    const probe = await breaker.start();
    await refused(breaker);
    await probe[Symbol.asyncDispose]();
    await probe[Symbol.asyncDispose]();
    const next = await breaker.start();
    assert.ok(next.isProbe);
    await next.end('success');
    await next[Symbol.asyncDispose]();
    assert.equal(await breaker.state(), 'closed');
  }));

  test('whose outcome nobody awaits is settled all the same', inWorld(async (world) => {
    const factory = await world.factory();
    const breaker = factory.breaker('a');
    void (await breaker.start()).end('failure');
    await factory.close();
    assert.equal((await (await world.factory()).breaker('a').information()).counts.totalFailures, 1);
  }));

  test('whose outcome nobody awaits ends no process when it cannot be settled', inWorld(async (world) => {
    const factory = await world.factory();
    const unhandled = [];
    const note = (error) => unhandled.push(error);
    process.on('unhandledRejection', note);
    const permit = await factory.breaker('a').start();
    world.store.onNextSwap('other');
    void permit.end('success');
    await factory.close();
    await sleep(1);
    process.off('unhandledRejection', note);
    assert.deepEqual(unhandled, []);
    assert.equal(world.logged.filter(({ message }) => message === 'outcomes are lost').length, 1);
  }));

  test('a failure that says when to come back lengthens the open time, as far as is allowed', inWorld(async (world) => {
    const breaker = await world.breaker({ failureCountThreshold: 0, retryAfterMaxMs: 300_000 });
    await run(breaker, failureRetryAfter(120_000), 1);
    assert.equal((await refused(breaker)).retryAfterMs, 120_000);
    await breaker.reset();
    await run(breaker, failureRetryAfter(Infinity), 1);
    assert.equal((await refused(breaker)).retryAfterMs, 300_000);
  }));

  test('a call that took longer than it should is slow', inWorld(async (world) => {
    const breaker = await world.breaker({
      tripRules: [{ kind: 'slow-call-rate', perMille: 500, minimumCalls: 2, window: { calls: 4 } }],
      slowCallAfterMs: 1_000,
    });
    for (const tookMs of [1_001, 1_000, 1_001]) {
      const permit = await breaker.start();
      world.clock.advanceMs(tookMs);
      await permit.end('success');
    }
    assert.equal((await breaker.information()).lastTrip.kind, 'slow-call-rate');
  }));
});

describe('execute', () => {
  const failing = (error) => async () => { throw error; };
  const named = (name) => Object.assign(new Error(name), { name });

  const judged = [
    ['an error', new Error('x'), 'totalFailures'],
    ['what is no error', 'thrown text', 'totalFailures'],
    ['nothing', undefined, 'totalFailures'],
    ['an expected error', new ExpectedError('no such customer'), 'totalSuccesses'],
    ['an error whose cause is expected', new Error('outer', { cause: new ExpectedError('inner') }), 'totalSuccesses'],
    ['a cancel', named('AbortError'), undefined],
    ['a deadline', named('TimeoutError'), 'totalFailures'],
    ['a cancel by a deadline', Object.assign(named('AbortError'), { cause: named('TimeoutError') }), 'totalFailures'],
    ['a cancel by a person', Object.assign(named('AbortError'), { cause: named('Error') }), undefined],
    ['a refusal of another breaker', new CircuitRefusedError('other', 'open', 5), undefined],
    ['an error whose cause is such a refusal', new Error('outer', { cause: new CircuitRefusedError('other', 'open', 5) }), undefined],
    ['an error whose properties throw', { get name() { throw new Error('no'); }, get cause() { throw new Error('no'); } }, 'totalFailures'],
  ];
  for (const [what, error, count] of judged) {
    const means = { totalFailures: 'a failure', totalSuccesses: 'a success' }[count] ?? 'ignored';
    test(`by default ${what} is ${means}`, inWorld(async (world) => {
      const breaker = await world.breaker({ failureCountThreshold: 99 });
      await breaker.execute(failing(error)).then(() => assert.fail('it does not throw'), () => {});
      const { counts } = await breaker.information();
      assert.equal(counts.total, count ? 1 : 0);
      if (count) assert.equal(counts[count], 1);
    }));
  }

  test('a deadline of a function of Node is a failure, without a signal for execute', inWorld(async (world) => {
    const breaker = await world.breaker();
    const alive = setInterval(() => {}, 1_000);
    const work = () => sleep(60_000, undefined, { signal: AbortSignal.timeout(5) });
    await assert.rejects(breaker.execute(work), { name: 'AbortError' });
    clearInterval(alive);
    assert.equal((await breaker.information()).counts.totalFailures, 1);
  }));

  test('an error with retryAfterMs lengthens the open time', inWorld(async (world) => {
    const breaker = await world.breaker({ failureCountThreshold: 0 });
    await assert.rejects(breaker.execute(failing(Object.assign(new Error('503'), { retryAfterMs: 90_000 }))));
    assert.equal((await refused(breaker)).retryAfterMs, 90_000);
  }));

  test('matchers say what an error means, the one of the name first', inWorld(async (world) => {
    const factory = await world.factory({
      fallbackErrorMatcher: () => 'success',
      circuitSpecificErrorMatchers: { strict: () => 'failure' },
    });
    for (const name of ['strict', 'lenient']) {
      const breaker = factory.breakerFor(name, { tenant: 'acme' });
      await assert.rejects(breaker.execute(failing(new Error('x'))));
      const { totalFailures, totalSuccesses } = (await breaker.information()).counts;
      assert.deepEqual([totalFailures, totalSuccesses], name === 'strict' ? [1, 0] : [0, 1]);
    }
  }));

  test('classify sees what went well, too', inWorld(async (world) => {
    const breaker = await world.breaker();
    const classify = (result) => (result.ok && result.value.status < 500 ? 'success' : 'failure');
    assert.deepEqual(await breaker.execute(async () => ({ status: 503 }), { classify }), { status: 503 });
    assert.equal((await breaker.information()).counts.totalFailures, 1);
  }));

  test('a judge that throws or says nonsense loses no result', inWorld(async (world) => {
    const breaker = await world.breaker();
    const unhandled = [];
    const note = (error) => unhandled.push(error);
    process.on('unhandledRejection', note);
    const judges = [
      () => { throw new Error('no'); },
      () => 'perhaps',
      () => undefined,
      async () => { throw new Error('it rejects'); },
      () => ({ get outcome() { throw new Error('no'); } }),
    ];
    for (const classify of judges) assert.equal(await breaker.execute(async () => 7, { classify }), 7);
    await sleep(1);
    process.off('unhandledRejection', note);
    assert.deepEqual(unhandled, [], 'nor does it end the process');
    const { counts } = await breaker.information();
    assert.deepEqual([counts.totalSuccesses, counts.totalFailures], [5, 0]);
    await assert.rejects(breaker.execute(failing(new Error('the work')), { classify: () => 'perhaps' }), /the work/);
    assert.equal((await breaker.information()).counts.totalFailures, 1);
  }));

  test('work that throws at once, or is not async, is work', inWorld(async (world) => {
    const breaker = await world.breaker();
    assert.equal(await breaker.execute(() => 7), 7);
    await assert.rejects(breaker.execute(() => { throw new Error('at once'); }), /at once/);
    await assert.rejects(breaker.execute('no function'), { name: 'ArgumentError', field: 'work' });
  }));

  test('a cancel ends the wait at once and is no failure; a deadline is one', inWorld(async (world) => {
    const breaker = await world.breaker();
    // A deadline's timer keeps no process alive.
    const alive = setInterval(() => {}, 1_000);
    const hanging = () => new Promise(() => {});
    const controller = new AbortController();
    const reason = new Error('the user went away');
    setTimeout(() => controller.abort(reason), 5);
    await assert.rejects(breaker.execute(hanging, { signal: controller.signal }), (error) => error === reason);
    assert.equal((await breaker.information()).counts.total, 0);
    await assert.rejects(breaker.execute(hanging, { signal: AbortSignal.timeout(5) }), { name: 'TimeoutError' });
    await until('it is settled', async () => (await breaker.information()).counts.totalFailures === 1);
    await assert.rejects(breaker.execute(hanging, { signal: controller.signal }), (error) => error === reason);
    clearInterval(alive);
  }));

  test('a deadline waits for no store, and its outcome is settled all the same', inWorld(async (world) => {
    const breaker = await world.breaker({ storeTimeoutMs: 60_000 });
    await run(breaker, 'success', 1);
    const alive = setInterval(() => {}, 1_000);
    let answer;
    const held = (ask) => new Promise((resolve) => (answer = () => resolve(ask())));
    world.store.onNextSwap(held);
    const begun = performance.now();
    await assert.rejects(breaker.execute(() => new Promise(() => {}), { signal: AbortSignal.timeout(20) }), { name: 'TimeoutError' });
    assert.ok(performance.now() - begun < 20_000);
    answer();
    await until('it is settled', async () => (await breaker.information()).counts.totalFailures === 1);
    // Work that was done in time keeps its result.
    world.store.onNextSwap(held);
    assert.equal(await breaker.execute(async () => 7, { signal: AbortSignal.timeout(50) }), 7);
    assert.ok(performance.now() - begun < 20_000);
    answer();
    await until('it is settled', async () => (await breaker.information()).counts.totalSuccesses === 2);
    clearInterval(alive);
  }));

  test('an outcome that cannot be settled after its caller was left is told to the logger', inWorld(async (world) => {
    const breaker = await world.breaker();
    await run(breaker, 'success', 1);
    const alive = setInterval(() => {}, 1_000);
    world.store.onNextSwap(async () => {
      await sleep(20);
      throw new StoreError('other', 'the test says so');
    });
    await assert.rejects(breaker.execute(() => new Promise(() => {}), { signal: AbortSignal.timeout(5) }), { name: 'TimeoutError' });
    const told = () => world.logged.filter(({ message }) => message === 'the outcome of finished work could not be settled');
    await until('it is told', () => told().length === 1);
    assert.equal(told()[0].fields.error.kind, 'other');
    clearInterval(alive);
  }));

  test('errors of another copy of the package are known by their names', inWorld(async (world) => {
    const other = await import('../dist/errors.js?another-copy');
    assert.notEqual(other.StoreError, StoreError);
    const factory = await world.factory();
    const breaker = factory.breaker('a');
    const throwing = (error) => breaker.execute(async () => { throw error; }).catch(() => {});
    await throwing(new other.CircuitRefusedError('b', 'open', 1_000));
    await throwing(new Error('no mail', { cause: new other.ExpectedError('no such customer') }));
    const { counts } = await breaker.information();
    assert.deepEqual([counts.totalSuccesses, counts.totalFailures], [1, 0]);
    // It says that nothing was written, and that the store is well.
    world.store.onNextSwap(() => Promise.reject(new other.StoreError('other', 'not ours')));
    const permit = await breaker.start();
    await assert.rejects(permit.end('success'), (error) => error instanceof StoreError && error.kind === 'other');
    assert.equal(factory.isStoreDown, false);
  }));

  test('work that fails after it was left is nobody\'s unhandled rejection', inWorld(async (world) => {
    const breaker = await world.breaker();
    const signal = AbortSignal.timeout(5);
    await assert.rejects(breaker.execute(async () => { await sleep(20); throw new Error('too late'); }, { signal }));
    await sleep(40);
  }));

  test('the work is told whether it is a probe, and the signal', inWorld(async (world) => {
    const breaker = await world.breaker();
    const { signal } = new AbortController();
    assert.deepEqual(await breaker.execute((attempt) => attempt, { signal }), { isProbe: false, era: BEGIN_MS, signal });
  }));

  test('a store that fails after the work loses nothing of it', inWorld(async (world) => {
    const breaker = await world.breaker();
    const { result, settlement } = await breaker.executeSettled(async () => {
      world.store.onNextSwap('other');
      return 7;
    });
    assert.deepEqual(result, { ok: true, value: 7 });
    assert.ok(settlement instanceof Error);
    assert.equal(settlement.kind, 'other');
    world.store.onNextSwap('other');
    assert.equal(await breaker.execute(async () => 8), 8);
  }));

  test('a start that is left gives its place back', inWorld(async (world) => {
    const breaker = await world.breaker({ closeThreshold: 1 });
    await trip(breaker);
    world.openTimePasses();
    const controller = new AbortController();
    const starting = breaker.start({ signal: controller.signal });
    controller.abort();
    await assert.rejects(starting, { name: 'AbortError' });
    await sleep(20);
    assert.equal((await breaker.start()).isProbe, true);
  }));

  test('a start that is left at any moment leaves no place taken', inWorld(async (world) => {
    const ends = new Set();
    for (let turns = 0; turns < 60; turns++) {
      const breaker = (await world.factory({ closeThreshold: 1 })).breaker(`left after ${turns}`);
      await trip(breaker);
      world.openTimePasses();
      const controller = new AbortController();
      const starting = breaker.start({ signal: controller.signal }).then(
        async (permit) => (await permit.end('ignored'), 'started'),
        ({ name }) => name,
      );
      for (let turn = 0; turn < turns; turn++) await undefined;
      controller.abort();
      ends.add(await starting);
      await sleep(1);
      assert.deepEqual((await breaker.information()).probes, [], `left after ${turns} turns`);
    }
    assert.deepEqual([...ends].sort(), ['AbortError', 'started'], 'it was left before and after');
  }));
});

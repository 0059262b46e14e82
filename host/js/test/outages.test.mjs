// The store goes away and comes back.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ManualClock, MemoryStore, StoreError, createFactory } from '../dist/index.js';
import { Outage } from '../dist/outage.js';
import { RedisStore } from '../dist/redis.js';
import { OwnRedis, ownPrefix, redisUrl, until } from './support/servers.mjs';
import { inWorld, outageIsOver, refused, run, trip } from './support/world.mjs';

const warnings = (world) => world.logged.filter(({ level }) => level !== 'debug' && level !== 'info').length;

describe('an outage', () => {
  test('is one event on entering and one on leaving', inWorld(async (world) => {
    const factory = await world.factory();
    const breaker = factory.breaker('a');
    await run(breaker, 'success', 1);
    world.store.goDown();
    await run(breaker, 'success', 100);
    assert.deepEqual(world.fallbacks.map(({ down }) => down), [true]);
    assert.equal(world.fallbacks[0].circuit, 'a');
    assert.equal(world.fallbacks[0].error.kind, 'unavailable');
    assert.equal(warnings(world), 1);
    world.store.comeUp();
    await outageIsOver(factory);
    assert.deepEqual(world.fallbacks.map(({ down }) => down), [true, false]);
    assert.equal(warnings(world), 1);
  }));

  test('makes no call wait longer than the timeout of the store, and only the first wait at all', inWorld(async (world) => {
    const breaker = await world.breaker({ storeTimeoutMs: 200 });
    await run(breaker, 'success', 1);
    world.store.onNext(...Array(100).fill('hang'));
    let begun = performance.now();
    const permit = await breaker.start();
    assert.ok(performance.now() - begun < 5_000);
    begun = performance.now();
    assert.equal((await permit.end('success')).local, true);
    const { loads, swaps } = world.store;
    await run(breaker, 'success', 20);
    assert.ok(world.store.loads + world.store.swaps - loads - swaps <= 3, 'calls do not ask the store, one watch does');
    world.store.comeUp();
  }));

  test('gives those who meet its beginning no more probes than one record has', inWorld(async (world) => {
    const breaker = await world.breaker({ storeTimeoutMs: 200, closeThreshold: 1 });
    await trip(breaker);
    const changes = world.changes.length;
    world.openTimePasses();
    world.store.onNext(...Array(1_000).fill('hang'));
    const starts = await Promise.allSettled(Array.from({ length: 100 }, () => breaker.start()));
    const permits = starts.filter(({ status }) => status === 'fulfilled');
    assert.equal(permits.length, 1, 'the local record has one place');
    assert.equal(world.changes.length, changes + 1, 'and it went half-open once');
    await permits[0].value.end('success');
    world.store.comeUp();
  }));

  test('keeps no more local records than circuits are remembered', inWorld(async (world) => {
    const factory = await world.factory({ maxCircuits: 3 });
    world.store.goDown();
    const answers = [];
    for (const tenant of ['1', '2', '3', '4', '5']) {
      const breaker = factory.breakerFor('jobs', { tenant });
      await run(breaker, 'failure', 3);
      answers.push(await breaker.start().then(() => 'admitted', ({ reason }) => reason));
    }
    assert.deepEqual(answers, ['open', 'open', 'open', 'admitted', 'admitted'], 'what has no record goes by what was seen last');
    world.store.comeUp();
    await outageIsOver(factory);
  }));

  test('is protected by a local record, which is dropped after it', inWorld(async (world) => {
    const factory = await world.factory();
    const breaker = factory.breaker('a');
    await run(breaker, 'success', 4);
    const before = await breaker.information();
    world.store.goDown();
    await run(breaker, 'failure', 3);
    assert.equal((await refused(breaker)).reason, 'open');
    const during = await breaker.information();
    assert.deepEqual([during.state, during.local], ['open', true]);
    assert.match(during.explanation, /this process's own record/);
    assert.deepEqual(world.changes, [['a', 'closed', 'open', true]]);
    world.store.comeUp();
    await outageIsOver(factory);
    assert.deepEqual(await breaker.information(), before, 'nothing of the local record is written');
  }));

  test('leaves an open circuit open, and an override in force', inWorld(async (world) => {
    const factory = await world.factory();
    const [open, forced] = [factory.breaker('open'), factory.breaker('forced')];
    await trip(open);
    await forced.setOverride({ kind: 'forced-open', author: 'ann', reason: 'maintenance' });
    await refused(forced);
    world.store.goDown();
    assert.equal((await refused(open)).reason, 'open');
    assert.equal((await refused(forced)).reason, 'forced-open');
    world.openTimePasses();
    assert.equal((await open.start()).isProbe, true);
  }));

  test('keeps no override that could not be stored', inWorld(async (world) => {
    const factory = await world.factory();
    const breaker = factory.breaker('a');
    world.store.goDown();
    const override = { kind: 'forced-open', author: 'ann', reason: 'too late' };
    await assert.rejects(breaker.setOverride(override), { name: 'StoreError', kind: 'unavailable' });
    await assert.rejects(breaker.reset(), { name: 'StoreError', kind: 'unavailable' });
    await (await breaker.start()).end('success');
    world.store.comeUp();
    await outageIsOver(factory);
    assert.equal((await breaker.information()).override, undefined);
  }));

  test('settles permits of either side where their era is current', inWorld(async (world) => {
    const factory = await world.factory();
    const breaker = factory.breaker('a');
    const shared = await breaker.start();
    world.store.goDown();
    const local = await breaker.start();
    assert.deepEqual(await shared.end('success'), { disposition: 'accepted', local: true });
    world.store.comeUp();
    await outageIsOver(factory);
    assert.deepEqual(await local.end('success'), { disposition: 'accepted', local: false });
    assert.equal((await breaker.information()).counts.total, 1);
  }));

  test('makes outcomes of a local era stale on the shared record', inWorld(async (world) => {
    const factory = await world.factory();
    const breaker = factory.breaker('a');
    await run(breaker, 'success', 1);
    world.store.goDown();
    await run(breaker, 'failure', 3);
    world.openTimePasses();
    const probe = await breaker.start();
    world.store.comeUp();
    await outageIsOver(factory);
    assert.deepEqual(await probe.end('failure'), { disposition: 'stale', local: false });
    assert.equal(await breaker.state(), 'closed');
  }));

  test('is admitted or refused, where the settings say so', inWorld(async (world) => {
    const admitting = (await world.factory({ storeFailure: 'admit' })).breaker('a');
    const refusing = (await world.factory({ storeFailure: 'refuse' })).breaker('a');
    await trip(admitting);
    world.store.goDown();
    const permit = await admitting.start();
    assert.equal(permit.era, undefined);
    assert.deepEqual(await permit.end('failure'), { disposition: 'uncounted', local: true });
    const refusal = await refused(refusing);
    assert.deepEqual([refusal.reason, refusal.retryAfterMs], ['store-down', 500]);
    await assert.rejects(refusing.information(), { name: 'StoreError', kind: 'unavailable' });
  }));

  test('is no outage where a failure passes within the timeout', inWorld(async (world) => {
    const factory = await world.factory();
    const breaker = factory.breaker('a');
    await run(breaker, 'success', 1);
    world.store.onNextLoad('unavailable');
    const permit = await breaker.start();
    world.store.onNextSwap('lost-answer');
    assert.deepEqual(await permit.end('success'), { disposition: 'accepted', local: false });
    assert.deepEqual([factory.isStoreDown, world.fallbacks], [false, []]);
    assert.equal((await breaker.information()).counts.total, 2, 'counted once');
  }));

  for (const happened of [true, false]) {
    test(`counts once what was ${happened ? '' : 'not '}written before it, without an answer`, inWorld(async (world) => {
      const factory = await world.factory({ storeTimeoutMs: 200 });
      const breaker = factory.breaker('a');
      const permit = await breaker.start();
      world.store.onNextSwap(happened ? 'hang-answer' : 'hang');
      const ending = permit.end('success');
      await sleep(20);
      world.store.goDown();
      assert.equal((await ending).local, true);
      world.store.comeUp();
      await until('it is counted', async () => {
        const { counts, local } = await breaker.information();
        return !local && counts.total === 1;
      });
      await run(breaker, 'success', 1);
      assert.equal((await breaker.information()).counts.total, 2);
    }));
  }

  test('ends when the store writes, not when it reads', inWorld(async (world) => {
    const factory = await world.factory();
    const breaker = factory.breaker('a');
    await run(breaker, 'success', 1);
    const { swap } = world.store.store;
    world.store.store.swap = async () => { throw Object.assign(new Error('read-only'), {}); };
    await run(breaker, 'failure', 3);
    const { loads } = world.store;
    // A watch loads twice before it writes.
    await until('a watch has read and not written', () => world.store.loads >= loads + 3);
    assert.equal(factory.isStoreDown, true);
    assert.equal((await refused(breaker)).reason, 'open', 'the local record protects all the while');
    world.store.store.swap = swap;
    await outageIsOver(factory);
    assert.equal(world.fallbacks.length, 2);
  }));

  test('that goes on where one has just ended keeps its local records', inWorld(async (world) => {
    const memory = new MemoryStore(world.clock);
    // One shard writes, and another not.
    const store = {
      load: (circuit) => memory.load(circuit),
      swap: async (circuit, expected, ...rest) => {
        if (circuit === 'a' && expected) throw new Error('this shard does not write');
        return memory.swap(circuit, expected, ...rest);
      },
    };
    const breaker = (await world.factory({ store })).breaker('a');
    let refusals = 0;
    for (let count = 0; count < 30; count++) {
      await breaker.start().then((permit) => permit.end('failure'), () => refusals++);
      await sleep(50);
    }
    assert.ok(refusals > 10, `${refusals} of 30 were refused`);
  }));

  test('tells of a start whose answer was lost, and gives its place back', inWorld(async (world) => {
    const factory = await world.factory({ storeTimeoutMs: 200 });
    const breaker = factory.breaker('a');
    await trip(breaker);
    world.openTimePasses();
    world.store.onNextSwap('hang-answer');
    const starting = breaker.start();
    await sleep(20);
    world.store.goDown();
    const local = await starting;
    assert.ok(local.isProbe);
    world.store.comeUp();
    await outageIsOver(factory);
    await until('the place is given back', async () => {
      const { state, probes, local: isLocal } = await breaker.information();
      return !isLocal && state === 'half-open' && probes.length === 0;
    });
    const shared = world.changes.filter(([, , , isLocal]) => !isLocal).map(([, , to]) => to);
    assert.deepEqual(shared, ['open', 'half-open'], 'each once');
  }));

  test('a store that denies takes the same way', inWorld(async (world) => {
    const factory = await world.factory();
    await run(factory.breaker('a'), 'success', 1);
    world.store.onNext('denied', 'denied');
    await factory.breaker('a').start();
    assert.equal(factory.isStoreDown, true);
  }));

  test('ends by itself when the factory is closed, with no timer left', inWorld(async (world) => {
    const factory = await world.factory();
    world.store.goDown();
    await run(factory.breaker('a'), 'success', 1);
    await factory.close();
    await sleep(200);
    const { loads } = world.store;
    await sleep(300);
    assert.equal(world.store.loads, loads);
  }));

  test('tells how many outcomes are lost when the factory is closed in it', inWorld(async (world) => {
    const factory = await world.factory({ storeTimeoutMs: 200 });
    const breaker = factory.breaker('a');
    await run(breaker, 'success', 1);
    const permits = await Promise.all(Array.from({ length: 3 }, () => breaker.start()));
    world.store.onNextSwap('hang');
    const ends = permits.map((permit) => permit.end('success'));
    await sleep(20);
    world.store.goDown();
    await Promise.all(ends);
    assert.equal(factory.isStoreDown, true);
    await factory.close();
    const lost = world.logged.filter(({ message }) => message === 'outcomes are lost');
    assert.deepEqual(lost.map(({ fields: { circuit, outcomes, error } }) => [circuit, outcomes, error.kind]), [['a', 3, 'closed']]);
  }));

  test('does not begin once the factory is closed, since nobody would tell of its end', inWorld(async (world) => {
    const factory = await world.factory();
    const breaker = factory.breaker('a');
    await run(breaker, 'success', 1);
    const permit = await breaker.start();
    await factory.close();
    world.store.goDown();
    assert.equal((await permit.end('failure')).local, true);
    assert.deepEqual([factory.isStoreDown, world.fallbacks], [false, []]);
  }));

  test('leaves its local records for another outage for ten seconds, and no longer', async (context) => {
    // The timers of this test are moved, and the rest of a factory waits by timers too; so the outage is alone.
    context.mock.timers.enable({ apis: ['setTimeout'] });
    const clock = new ManualClock(1_000);
    const settings = { store: new MemoryStore(clock), storeTimeoutMs: 500, logger: {} };
    const node = { clock, settings, idText: 'alone', isClosed: false, tell() {}, background: (work) => void work };
    const outage = new Outage(node);
    const comeAndGo = async () => {
      outage.enter({ name: 'a' }, new StoreError('unavailable', 'the test says so'));
      const { records } = outage;
      context.mock.timers.tick(3_000);
      for (let turn = 0; outage.isDown && turn < 1_000; turn++) await new Promise((resolve) => setImmediate(resolve));
      assert.equal(outage.isDown, false);
      return records;
    };
    const records = await comeAndGo();
    context.mock.timers.tick(9_000);
    assert.equal(outage.records, records);
    assert.equal(await comeAndGo(), records, 'another outage takes them up');
    context.mock.timers.tick(9_000);
    assert.equal(outage.records, records, 'the ten seconds begin anew');
    context.mock.timers.tick(1_000);
    assert.notEqual(outage.records, records);
  });
});

describe('a Redis server', () => {
  /** A factory on a server of its own. */
  async function withRedis(rule) {
    const server = await OwnRedis.start();
    const events = [];
    const store = await RedisStore.connect(server.url, { prefix: ownPrefix() });
    const factory = await createFactory({
      store,
      storeTimeoutMs: 500,
      failureCountThreshold: 2,
      allowAfterMs: 60_000,
      storeFallbackCallback: ({ down }) => events.push(down),
    });
    try {
      await rule({ server, store, factory, events, breaker: factory.breakerFor('jobs', { tenant: 'acme' }) });
    } finally {
      await factory.close();
      await store.close();
      await server.kill();
    }
  }

  test('that is killed and started again is an outage, in which the circuit protects', () => withRedis(async (world) => {
    const { server, factory, events, breaker } = world;
    await run(breaker, 'success', 3);
    const permit = await breaker.start();
    await server.kill();
    assert.equal((await permit.end('failure')).local, true);
    await run(breaker, 'failure', 2);
    assert.equal((await refused(breaker)).reason, 'open');
    await server.startAgain();
    await outageIsOver(factory);
    assert.deepEqual(events, [true, false]);
    // The server has forgotten: a circuit begins closed, in a new era.
    await run(breaker, 'success', 1);
    assert.deepEqual((await breaker.information()).counts.total, 1);
    assert.equal(factory.isStoreDown, false);
  }));

  test('that answers nothing holds up no call longer than the timeout, and is taken up when it goes on', () => withRedis(async (world) => {
    const { server, factory, events, breaker } = world;
    await trip(breaker);
    server.stall();
    const begun = performance.now();
    assert.equal((await refused(breaker)).reason, 'open');
    const tookMs = performance.now() - begun;
    assert.ok(tookMs < 10_000, `it took ${tookMs} ms`);
    for (let count = 0; count < 50; count++) await refused(breaker);
    server.goOn();
    await outageIsOver(factory);
    assert.deepEqual(events, [true, false]);
    const { state, local } = await breaker.information();
    assert.deepEqual([state, local], ['open', false]);
  }));

  test('that stalls while a write is under way counts it once', () => withRedis(async (world) => {
    const { server, factory, breaker } = world;
    await run(breaker, 'success', 1);
    const permits = await Promise.all(Array.from({ length: 20 }, () => breaker.start()));
    server.stall();
    const settled = await Promise.all(permits.map((permit) => permit.end('success')));
    assert.ok(settled.every(({ disposition, local }) => local || disposition === 'unsettled'));
    server.goOn();
    await outageIsOver(factory);
    await until('they are counted', async () => (await breaker.information()).counts.total === 21);
    await sleep(100);
    assert.equal((await breaker.information()).counts.total, 21);
  }));

  test('that has forgotten the script is sent it again', () => withRedis(async ({ server, breaker }) => {
    await run(breaker, 'success', 1);
    server.cli('SCRIPT', 'FLUSH');
    await run(breaker, 'success', 1);
    assert.equal((await breaker.information()).counts.total, 2);
  }));

  test('with its own users is denied what it does not permit, and writes nothing then', () => withRedis(async ({ server, store }) => {
    server.cli('ACL', 'SETUSER', 'worker', 'on', '>secret', '~*', '+@connection', '+hmget', '+exists', '+time', '+info', '+type');
    const url = new URL(server.url);
    Object.assign(url, { username: 'worker', password: 'secret' });
    const prefix = store.channel;
    const limited = await RedisStore.connect(url.href, { prefix });
    await assert.rejects(limited.swap('a', undefined, new Uint8Array(1), undefined), { name: 'StoreError', kind: 'denied' });
    assert.equal((await limited.load('a')).entry, undefined);
    server.cli('ACL', 'SETUSER', 'worker', '+evalsha', '+eval', '+hset');
    await assert.rejects(limited.swap('a', undefined, new Uint8Array(1), 5_000), { name: 'StoreError', kind: 'denied' });
    assert.equal((await limited.load('a')).entry, undefined, 'a script that may not do all does nothing');
    await limited.close();
    Object.assign(url, { password: 'wrong' });
    await assert.rejects(RedisStore.connect(url.href), { name: 'StoreError', kind: 'denied' });
  }));

  test('that is out of memory is unavailable, and nothing was written', () => withRedis(async ({ server, store }) => {
    await store.swap('a', undefined, new Uint8Array(1), undefined);
    server.cli('CONFIG', 'SET', 'maxmemory', '1');
    await assert.rejects(store.swap('b', undefined, new Uint8Array(1), undefined), { name: 'StoreError', kind: 'unavailable' });
    assert.equal((await store.load('b')).entry, undefined);
  }));
});

describe('connecting to Redis', () => {
  test('fails with a clear error where there is no server, or the URL is none', async () => {
    const server = await OwnRedis.start();
    await server.kill();
    await assert.rejects(RedisStore.connect(server.url), { name: 'StoreError', kind: 'unavailable' });
    for (const url of ['no URL', 'http://127.0.0.1', '', undefined]) {
      await assert.rejects(RedisStore.connect(url), { name: 'StoreError', kind: 'other' });
    }
    await assert.rejects(RedisStore.connect(server.url, { prefx: 'a' }), { name: 'SettingsError', field: 'prefx' });
    await assert.rejects(RedisStore.connect(server.url, { operationTimeoutMs: 0 }), { name: 'SettingsError', field: 'operationTimeoutMs' });
    await assert.rejects(RedisStore.connect(server.url, { prefix: '\ud800' }), { name: 'SettingsError', field: 'prefix' });
  });

  test('does not wait for a server that takes the connection and says nothing, and leaves one that began to', async () => {
    let isMute = true;
    const sockets = new Set();
    const { hostname, port } = new URL(redisUrl());
    const server = net.createServer((socket) => {
      sockets.add(socket.on('error', () => {}));
      if (isMute) return;
      const behind = net.connect(Number(port), hostname);
      for (const [from, to] of [[socket, behind], [behind, socket]]) from.on('error', () => {}).on('close', () => to.destroy()).pipe(to);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = Object.assign(new URL(redisUrl()), { hostname: '127.0.0.1', port: server.address().port }).href;
    await assert.rejects(RedisStore.connect(url, { connectTimeoutMs: 200 }), { name: 'StoreError', kind: 'unavailable' });
    isMute = false;
    const store = await RedisStore.connect(url, { connectTimeoutMs: 2_000, prefix: ownPrefix() });
    await store.load('a');
    isMute = true;
    for (const socket of sockets) socket.destroy();
    sockets.clear();
    await until('it has connected again', () => sockets.size > 0);
    await assert.rejects(store.load('a'), { name: 'StoreError', kind: 'unavailable' });
    // The connection that it has now stays mute; a new one would be answered.
    isMute = false;
    await until('it has left that connection', () => store.load('a').then(() => true, () => false));
    await store.close();
    for (const socket of sockets) socket.destroy();
    server.close();
  });

  test('lazily, a server that comes later is found', async () => {
    const server = await OwnRedis.start();
    await server.kill();
    const store = await RedisStore.connect(server.url, { lazy: true });
    const factory = await createFactory({ store });
    await run(factory.breaker('a'), 'success', 1);
    assert.equal(factory.isStoreDown, true);
    await server.startAgain();
    await outageIsOver(factory);
    await factory.close();
    await store.close();
    await server.kill();
  });
});

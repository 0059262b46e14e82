// Hostile input: a clear refusal or error, never a crash, never another tenant's circuit.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { runInNewContext } from 'node:vm';
import { createClient } from 'redis';
import { ArgumentError, MemoryStore, StoreError, createFactory, defaultName } from '../dist/index.js';
import { Component } from '../dist/component.js';
import { RedisStore } from '../dist/redis.js';
import { OwnRedis, ownPrefix, redisUrl } from './support/servers.mjs';
import { inWorld, outageIsOver, run, trip } from './support/world.mjs';

describe('a name', () => {
  const bad = [
    ['of nothing', ''],
    ['of 1,025 bytes', 'x'.repeat(1_025)],
    ['of 1,025 bytes in fewer characters', `x${'🦀'.repeat(256)}`],
    ['of a megabyte', 'x'.repeat(1 << 20)],
    ['with the first half of a pair', 'tenant-\ud800'],
    ['with the second half of a pair', 'tenant-\udfff'],
    ['with a pair the wrong way round', '\udc00\ud800'],
    ['that is no text', 7],
    ['that is an object', { toString: () => 'a' }],
    ['that is missing', undefined],
  ];
  for (const [what, name] of bad) {
    test(`${what} is refused by its field`, inWorld(async (world) => {
      const factory = await world.factory();
      assert.throws(() => factory.breaker(name), { name: 'ArgumentError', field: 'circuit' });
      assert.throws(() => factory.breakerFor(name), ArgumentError);
      if (typeof name !== 'string' || name !== '') {
        assert.throws(() => factory.breakerFor('emails', { tenant: name }), (error) => {
          return error instanceof ArgumentError && ['context.tenant', 'circuit'].includes(error.field) && error.message.length < 400;
        });
      }
      assert.deepEqual([world.store.loads, world.store.swaps], [0, 0], 'nothing was asked');
    }));
  }

  test('that a name function makes is looked at, too', inWorld(async (world) => {
    for (const nameFn of [() => '', () => undefined, () => '\ud800', () => 'x'.repeat(2_000)]) {
      const factory = await world.factory({ nameFn });
      assert.throws(() => factory.breakerFor('emails', { tenant: 'acme' }), { name: 'ArgumentError', field: 'circuit' });
    }
  }));

  test('of any tenant is its own circuit, whatever it looks like', inWorld(async (world) => {
    const factory = await world.factory();
    const tenants = [
      'acme', 'acme/eu', 'acme%2Feu', '/', '%', '', ' ', '..', '__proto__', 'constructor', 'toString', '\0', '\u0001trial of node 0',
      '*', '{a}', '\r\n', 'é', 'e\u0301', '\ufffd', '🦀',
    ];
    for (const tenant of tenants) await run(factory.breakerFor('emails', { tenant }), 'success', 1);
    await run(factory.breakerFor('emails'), 'success', 1);
    await run(factory.breakerFor('emails/acme'), 'success', 1);
    const names = [...tenants.map((tenant) => defaultName('emails', { tenant })), 'emails', defaultName('emails/acme', {})];
    assert.equal(new Set(names).size, names.length);
    for (const name of names) assert.equal((await factory.breaker(name).information()).counts.total, 1, JSON.stringify(name));
  }));

  test('is not made of a context whose tenant would not be seen', inWorld(async (world) => {
    const factory = await world.factory();
    class Request {
      get tenant() {
        return 'acme';
      }
    }
    for (const context of [new Map([['tenant', 'acme']]), new Request(), Object.create({ tenant: 'acme' }), ['acme'], 'acme', null]) {
      assert.throws(() => factory.breakerFor('emails', context), { name: 'ArgumentError', field: 'context' });
    }
    const own = Object.assign(Object.create(null), { tenant: 'acme' });
    for (const context of [own, runInNewContext("({ tenant: 'acme' })")]) assert.equal(factory.breakerFor('emails', context).name, 'emails/acme');
  }));

  test('is shown on one line and not whole', inWorld(async (world) => {
    const breaker = (await world.factory({ storeFailure: 'refuse' })).breaker(`${'a'.repeat(500)}\r\n\u2028\u202e`);
    world.store.goDown();
    const error = await breaker.start().catch((thrown) => thrown);
    assert.ok(error.message.length < 300 && !/[\r\n\u2028\u202e]/.test(error.message), error.message);
    const short = (await world.factory({ storeFailure: 'refuse' })).breaker('a\r\n\u2028\u202eb');
    assert.doesNotMatch((await short.start().catch((thrown) => thrown)).message, /[\r\n\u2028\u202e]/);
  }));

  test('of the default function is the same in every host', () => {
    assert.equal(defaultName('emails', {}), 'emails');
    assert.equal(defaultName('emails', { tenant: 'acme' }), 'emails/acme');
    assert.equal(defaultName('emails', { tenant: 'a/b', region: 'eu' }), 'emails/a%2Fb');
    assert.equal(defaultName('100%/x', { tenant: '' }), '100%25%2Fx/');
    assert.equal(defaultName('emails', Object.create({ tenant: 'inherited' })), 'emails');
  });
});

describe('an override is refused by its field', () => {
  const good = { kind: 'forced-open', author: 'ann', reason: 'maintenance' };
  const bad = [
    ['kind', { ...good, kind: 'ajar' }],
    ['author', { ...good, author: 'x'.repeat(129) }],
    ['author', { ...good, author: '\ud800' }],
    ['author', { ...good, author: undefined }],
    ['reason', { ...good, reason: 'x'.repeat(257) }],
    ['reason', { ...good, reason: 7 }],
    ['untilMs', { ...good, untilMs: -1 }],
    ['untilMs', { ...good, untilMs: NaN }],
    ['untilMs', { ...good, untilMs: '2030' }],
  ];
  for (const [field, override] of bad) {
    test(`${field}: ${JSON.stringify(override).slice(0, 60)}`, inWorld(async (world) => {
      await assert.rejects((await world.breaker()).setOverride(override), { name: 'ArgumentError', field: `override.${field}` });
    }));
  }
});

describe('a store that answers garbage', () => {
  const entry = { value: Uint8Array.of(1), version: Uint8Array.of(1) };
  const garbage = [
    ['nothing', undefined], ['null', null], ['a text', 'OK'], ['a number', 7], ['a list', []], ['an entry that is a text', { entry: 'CKT' }],
    ['an entry without a version', { entry: { value: entry.value } }],
    ['an entry without a value', { entry: { version: entry.version } }],
    ['a value that is a text', { entry: { ...entry, value: 'CKT' } }],
    ['a value that is a list', { entry: { ...entry, value: [1, 2] } }],
    ['a version of no bytes', { entry: { ...entry, version: new Uint8Array(0) } }],
    ['a version of a megabyte', { entry: { ...entry, version: new Uint8Array(1 << 20) } }],
    ['a value of a hundred megabytes', { entry: { ...entry, value: new Uint8Array(100 << 20) } }],
    ['a time that is none', { nowMs: NaN }], ['a time before 1970', { nowMs: -1 }], ['a time without end', { nowMs: Infinity }],
    ['a time that is a text', { nowMs: 'now' }],
    ['properties that throw', { get entry() { throw new Error('no'); } }],
  ];
  for (const [what, answer] of garbage) {
    test(`is told to be none: a load with ${what}`, inWorld(async (world) => {
      if (Array.isArray(answer)) answer.nowMs = 'x';
      const store = { load: async () => answer, swap: async () => ({ stored: true, version: entry.version }) };
      const factory = await world.factory({ store });
      await assert.rejects(factory.breaker('a').start(), (error) => error instanceof StoreError && error.kind === 'other');
      assert.equal(factory.isStoreDown, false, 'it does answer');
    }));

    test(`is not believed: a swap with ${what}`, inWorld(async (world) => {
      const memory = new MemoryStore(world.clock);
      const store = { load: (circuit) => memory.load(circuit), swap: async () => answer };
      const factory = await world.factory({ store });
      const permit = await factory.breaker('a').start();
      assert.equal(factory.isStoreDown, true, 'nobody knows what it has written');
      assert.equal((await permit.end('success')).local, true);
    }));
  }

  test('a swap that says neither stored nor lost is not believed', inWorld(async (world) => {
    const memory = new MemoryStore(world.clock);
    for (const answer of [{ version: entry.version }, { stored: 'yes', version: entry.version }, { stored: true }, { stored: true, version: 'v' }]) {
      const factory = await world.factory({ store: { load: (circuit) => memory.load(circuit), swap: async () => answer } });
      await factory.breaker('a').start();
      assert.equal(factory.isStoreDown, true);
    }
  }));

  test('bytes that are no record are an error that says so, and stay as they are', inWorld(async (world) => {
    const breaker = (await world.factory()).breaker('a');
    const records = [[], [1, 2, 3], [...'CKT'].map((letter) => letter.charCodeAt(0)), Array(4_096).fill(0xff), Array(65_536).fill(0x43)];
    let version;
    for (const bytes of records) {
      ({ version } = await world.store.store.swap('a', version, Uint8Array.from(bytes), undefined));
      for (const ask of [() => breaker.start(), () => breaker.information(), () => breaker.reset()]) {
        await assert.rejects(ask(), { name: 'RecordError', kind: 'malformed' });
      }
      assert.deepEqual([...(await world.store.store.load('a')).entry.value], bytes);
    }
    const newer = Uint8Array.of(0x43, 0x4b, 0x54, 200);
    await world.store.store.swap('a', version, newer, undefined);
    await assert.rejects(breaker.start(), { name: 'RecordError', kind: 'newer-schema' });
  }));

  test('a store that throws at once, or throws what is no error, is down', inWorld(async (world) => {
    const throws = [() => { throw new Error('at once'); }, () => { throw undefined; }, async () => { throw 'text'; }, async () => { throw Object.create(null); }];
    for (const load of throws) {
      const factory = await world.factory({ store: { load, swap: load } });
      await run(factory.breaker('a'), 'success', 2);
      assert.equal(factory.isStoreDown, true);
    }
  }));

  test('a store that always loses races is contention, not an endless loop', inWorld(async (world) => {
    const store = { load: async () => ({}), swap: async () => ({ stored: false }) };
    const factory = await world.factory({ store, storeTimeoutMs: 200 });
    await assert.rejects(factory.breaker('a').start(), { name: 'CallError', kind: 'contention' });
  }));

  test('a component that traps is thrown away, and the next call has a new one', async () => {
    const decide = Component.prototype.decide;
    const factory = await createFactory();
    const breaker = factory.breaker('a');
    await run(breaker, 'success', 1);
    let traps = 0;
    Component.prototype.decide = function (circuit, request, loaded, nowMs) {
      if (traps++ > 0) return decide.call(this, circuit, request, loaded, nowMs);
      // What no caller of this package can send.
      return decide.call(this, circuit, { tag: 'start', val: { circuit, settings: null, caller: null } }, loaded, nowMs);
    };
    try {
      await assert.rejects(breaker.start(), { name: 'CallError', kind: 'trapped' });
      await run(breaker, 'success', 1);
      assert.equal((await breaker.information()).counts.total, 2);
    } finally {
      Component.prototype.decide = decide;
    }
  });
});

describe('Redis keys that are not ours', () => {
  async function withClient(rule) {
    const client = createClient({ url: redisUrl() });
    await client.connect();
    const prefix = ownPrefix();
    const store = await RedisStore.connect(redisUrl(), { prefix });
    try {
      await rule({ client, prefix, store });
    } finally {
      await store.close();
      client.destroy();
    }
  }

  test('are an error that says what they hold, and are not overwritten', () => withClient(async ({ client, prefix, store }) => {
    const foreign = [
      ['text', /a string/, (key) => client.set(key, 'x')],
      ['list', /a list/, (key) => client.rPush(key, 'x')],
      ['other hash', /a hash without/, (key) => client.hSet(key, 'x', 'y')],
      ['half an entry', /a hash with/, (key) => client.hSet(key, 'version', 'y')],
    ];
    for (const [circuit, found, write] of foreign) {
      await write(prefix + circuit);
      const before = await client.dump(prefix + circuit);
      for (const ask of [
        () => store.load(circuit),
        () => store.swap(circuit, undefined, Uint8Array.of(1), undefined),
        () => store.swap(circuit, Uint8Array.of(1), Uint8Array.of(1), 5_000),
      ]) {
        await assert.rejects(ask(), (error) => error instanceof StoreError && error.kind === 'other' && found.test(error.message));
      }
      assert.deepEqual(await client.dump(prefix + circuit), before);
    }
  }));

  test('the layout is the one of every host: a hash of version and value, under the prefix and the name as it is', () => withClient(async ({ client, prefix, store }) => {
    const { version } = await store.swap('emails/acme', undefined, Uint8Array.of(0, 255), 60_000);
    const found = await client.sendCommand(['HGETALL', `${prefix}emails/acme`], { typeMapping: { 36: Buffer } });
    const fields = Array.isArray(found) ? found : [...(found instanceof Map ? found : Object.entries(found))].flat();
    assert.deepEqual(fields.map(String).filter((field) => field === 'version' || field === 'value').sort(), ['value', 'version']);
    assert.ok(fields.some((field) => Buffer.isBuffer(field) && field.equals(Buffer.of(0, 255))));
    assert.ok(fields.some((field) => Buffer.isBuffer(field) && field.equals(Buffer.from(version))));
    assert.equal(version.length, 16);
    const ttl = await client.pTTL(`${prefix}emails/acme`);
    assert.ok(ttl > 50_000 && ttl <= 60_000);
  }));

  test('an entry keeps no more memory than it has bytes, also where many come in together', () => withClient(async ({ store }) => {
    const names = Array.from({ length: 200 }, (_, index) => `circuit ${index}`);
    await Promise.all(names.map((name) => store.swap(name, undefined, new Uint8Array(100), 60_000)));
    const loaded = await Promise.all(names.map((name) => store.load(name)));
    const lost = await Promise.all(names.map((name) => store.swap(name, undefined, new Uint8Array(1), 60_000)));
    for (const { entry } of [...loaded, ...lost]) {
      assert.deepEqual([entry.value.buffer.byteLength, entry.version.buffer.byteLength], [100, 16]);
    }
  }));

  test('a factory on them fails with a clear error, and other circuits work', () => withClient(async ({ client, prefix, store }) => {
    const factory = await createFactory({ store });
    await client.set(`${prefix}taken`, 'x');
    await assert.rejects(factory.breaker('taken').start(), { name: 'StoreError', kind: 'other' });
    await run(factory.breaker('free'), 'success', 1);
    assert.equal(factory.isStoreDown, false);
    await factory.close();
  }));
});

test('a client that would send a write twice, or is none, is refused', async () => {
  const { default: Redis } = await import('ioredis');
  const { createCluster } = await import('redis');
  const client = new Redis(redisUrl(), { lazyConnect: true });
  assert.throws(() => RedisStore.fromClient(client), /autoResendUnfulfilledCommands/);
  const prefixed = new Redis(redisUrl(), { lazyConnect: true, autoResendUnfulfilledCommands: false, keyPrefix: 'a' });
  assert.throws(() => RedisStore.fromClient(prefixed), /keyPrefix/);
  const cluster = createCluster({ rootNodes: [{ url: redisUrl() }] });
  for (const none of [cluster, {}, undefined, redisUrl()]) {
    assert.throws(() => RedisStore.fromClient(none), { name: 'SettingsError', field: 'client' });
  }
});

test('a server that speaks nonsense is an error, and no crash', async () => {
  const net = await import('node:net');
  const { once } = await import('node:events');
  for (const nonsense of ['HTTP/1.1 400 Bad Request\r\n\r\n', '\xff\xfe\0\0', '*-5\r\n', '']) {
    const server = net.createServer((socket) => socket.on('error', () => {}).on('data', () => socket.end(nonsense))).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `redis://127.0.0.1:${server.address().port}`;
    await assert.rejects(RedisStore.connect(url, { connectTimeoutMs: 500 }), StoreError);
    server.close();
  }
});

test('an outage of another factory\'s store is nobody else\'s', inWorld(async (world) => {
  const server = await OwnRedis.start();
  const store = await RedisStore.connect(server.url);
  const [one, other] = [await world.factory({ store }), await world.factory()];
  await run(one.breaker('a'), 'success', 1);
  await server.kill();
  await run(one.breaker('a'), 'success', 1);
  assert.deepEqual([one.isStoreDown, other.isStoreDown], [true, false]);
  await server.startAgain();
  await outageIsOver(one);
  await trip(one.breaker('b'));
  await store.close();
  await server.kill();
}));

// What is refused when a factory is made, and by which name.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { readFile } from 'node:fs/promises';
import { MemoryStore, SettingsError, createFactory } from '../dist/index.js';
import { CORE } from '../dist/generated/modules.js';
import { inWorld, refused, run } from './support/world.mjs';

const windowed = (more) => ({ tripRules: [{ kind: 'failure-rate', perMille: 500, minimumCalls: 5, window: { calls: 10 }, ...more }] });

const refusals = [
  ['an unknown option', { closeTreshold: 5 }, 'closeTreshold', /there is no such setting.*closeThreshold/],
  ['an option in the case of another language', { close_threshold: 5 }, 'close_threshold'],
  ['an unknown field of a policy', { backoff: { factorPerMille: 2_000, maxMs: 1, healthyAfterMs: 1, jitter: 1 } }, 'backoff.jitter'],
  ['no probes to close by', { closeThreshold: 0 }, 'closeThreshold', /give it 1 to 64/],
  ['too many probes', { closeThreshold: 65 }, 'closeThreshold', /give it 1 to 64/],
  ['no open time', { allowAfterMs: 0 }, 'allowAfterMs', /at least 1 ms/],
  ['no lease', { probeTimeoutMs: 0 }, 'probeTimeoutMs'],
  ['no retention', { idleRetentionMs: 0 }, 'idleRetentionMs'],
  ['counts that live for nothing', { cyclicClearAfterMs: 0 }, 'cyclicClearAfterMs'],
  ['a negative length', { allowAfterMs: -1 }, 'allowAfterMs'],
  ['a length that is no number', { allowAfterMs: NaN }, 'allowAfterMs'],
  ['a length without end', { allowAfterMs: Infinity }, 'allowAfterMs'],
  ['a length as text', { allowAfterMs: '60s' }, 'allowAfterMs', /"60s"/],
  ['a count that is no whole number', { failureCountThreshold: 1.5 }, 'failureCountThreshold'],
  ['a number beyond 64 bits', { failureCountThreshold: 2n ** 64n }, 'failureCountThreshold'],
  ['minimum calls above the window', windowed({ minimumCalls: 11 }), 'tripRules.failureRate', /minimumCalls/],
  ['a window of nothing', windowed({ window: { calls: 0 } }), 'tripRules.failureRate'],
  ['a window that is two', windowed({ window: { calls: 5, timeMs: 5 } }), 'tripRules[0].window'],
  ['a window that is none', windowed({ window: {} }), 'tripRules[0].window'],
  ['a rule without its threshold', windowed({ perMille: undefined }), 'tripRules[0].perMille'],
  ['a rule that is none', { tripRules: [{ kind: 'never' }] }, 'tripRules[0].kind'],
  ['rules with holes between them', { tripRules: Array(2) }, 'tripRules[0]'],
  ['rules that are no list', { tripRules: 'all' }, 'tripRules'],
  ['a custom rule without code', { tripRules: [{ kind: 'custom', name: 'a', version: 1 }] }, 'tripRules', /tripFn/],
  ['a trip function without a name', { tripFn: { name: '', version: 1, trips: () => true } }, 'tripFn.name'],
  ['a trip function that is none', { tripFn: { name: 'a', version: 1, trips: true } }, 'tripFn.trips'],
  ['a rate of slow calls without a limit', { tripRules: [{ kind: 'slow-call-rate', perMille: 1, minimumCalls: 1, window: { calls: 1 } }] }, 'slowCallAfterMs'],
  ['a cap below the open time', { backoff: { factorPerMille: 2_000, maxMs: 1, healthyAfterMs: 1 } }, 'backoff.maxMs'],
  ['too much jitter', { jitterPerMille: 1_001 }, 'jitterPerMille'],
  ['fewer probes than close', { closeThreshold: 5, probes: 4 }, 'probes'],
  ['more probes at once than there are', { probesAtOnce: 2 }, 'probesAtOnce'],
  ['a ramp that falls', { ramp: { stepsPerMille: [500, 100], stepMs: 1 } }, 'ramp.stepsPerMille'],
  ['a limit that does nothing known', { halfOpenLimit: { afterMs: 1, then: 'explodes' } }, 'halfOpenLimit.then'],
  ['a quorum of nobody', { quorum: { votes: 0, windowMs: 1 }, nodeId: 'a' }, 'quorum.votes'],
  ['a quorum without a name for the node', { quorum: { votes: 2, windowMs: 1_000 } }, 'nodeId', /restart/],
  ['a name of a node that is no text', { nodeId: '\udfff' }, 'nodeId', /surrogate/],
  ['a name of a node that is too long', { nodeId: 'x'.repeat(49) }, 'nodeId', /at most 48/],
  ['a store that is none', { store: {} }, 'store', /load/],
  ['a store that is a URL', { store: 'redis://127.0.0.1' }, 'store'],
  ['a policy for outages that is none', { storeFailure: 'ignore' }, 'storeFailure', /local, admit, refuse/],
  ['a timeout of nothing', { storeTimeoutMs: 0 }, 'storeTimeoutMs'],
  ['a callback that is none', { stateChangeCallback: 'console.log' }, 'stateChangeCallback'],
  ['a matcher that is none', { circuitSpecificErrorMatchers: { a: 1 } }, 'circuitSpecificErrorMatchers.a'],
  ['a clock that is none', { clock: Date.now }, 'clock'],
  ['no circuits to remember', { maxCircuits: 0 }, 'maxCircuits'],
  ['a module that is none', { coreModule: new Uint8Array([0, 1, 2]) }, 'coreModule'],
  ['options that are none', 'strict', 'options'],
];

describe('a factory is not made with', () => {
  for (const [what, options, field, problem = /./] of refusals) {
    test(what, async () => {
      await assert.rejects(createFactory(options), (error) => {
        assert.ok(error instanceof SettingsError, String(error));
        assert.equal(error.field, field, error.message);
        assert.match(error.message, problem);
        return true;
      });
    });
  }

  test('an option that is given twice', async () => {
    const fleet = { closeThreshold: 5, allowAfterMs: 1_000 };
    await assert.rejects(createFactory(fleet, { closeThreshold: 5 }), { name: 'SettingsError', field: 'closeThreshold' });
    const factory = await createFactory(fleet, undefined, { store: new MemoryStore() });
    assert.equal((await factory.breaker('a').information()).settingsInForce.closeThreshold, 5);
  });
});

describe('settings', () => {
  test('have the defaults and the fingerprints that every host has', async () => {
    const factory = await createFactory();
    const shown = (await factory.breaker('a').information()).settingsInForce;
    const { failureCountThreshold, closeThreshold, allowAfterMs, probeTimeoutMs, idleRetentionMs } = shown;
    assert.deepEqual([failureCountThreshold, closeThreshold, allowAfterMs, probeTimeoutMs, idleRetentionMs], [5, 1, 60_000, 30_000, 86_400_000]);
    const said = await createFactory({ tripRules: [{ kind: 'consecutive-failures' }], retryAfterMaxMs: 600_000, jitterPerMille: 0 });
    assert.equal(said.fingerprint, factory.fingerprint);
    assert.notEqual((await createFactory({ allowAfterMs: 60_001 })).fingerprint, factory.fingerprint);
    assert.equal((await createFactory({ idleRetentionMs: 1 })).fingerprint, factory.fingerprint);
  });

  test('with every policy come back as they were given', async () => {
    const options = {
      failureCountThreshold: 15,
      tripRules: [
        { kind: 'consecutive-failures', minimumCalls: 3 },
        { kind: 'failure-rate', perMille: 500, window: { timeMs: 60_000 }, minimumCalls: 20 },
        { kind: 'slow-call-rate', perMille: 800, window: { calls: 200 }, minimumCalls: 50 },
        { kind: 'failure-count', failures: 3, window: { decayingMs: 10_000 }, minimumCalls: 1 },
      ],
      slowCallAfterMs: 2_000,
      cyclicClearAfterMs: 43_200_000,
      allowAfterMs: 30_000,
      backoff: { factorPerMille: 2_000, maxMs: 600_000, healthyAfterMs: 1_800_000 },
      jitterPerMille: 100,
      retryAfterMaxMs: 1_000,
      closeThreshold: 6,
      probes: 10,
      probesAtOnce: 2,
      probeTimeoutMs: 20_000,
      halfOpenLimit: { afterMs: 120_000, then: 'opens' },
      ramp: { stepsPerMille: [100, 250, 500], stepMs: 30_000 },
      quorum: { votes: 2, windowMs: 10_000 },
      settingsRevision: 7,
      idleRetentionMs: 3_600_000,
    };
    const factory = await createFactory(options, { nodeId: 'a' });
    assert.deepEqual((await factory.breaker('a').information()).settingsInForce, options);
  });

  test('take whole numbers as bigint, and round lengths up', async () => {
    const factory = await createFactory({ failureCountThreshold: 7n, allowAfterMs: 0.1 });
    const shown = (await factory.breaker('a').information()).settingsInForce;
    assert.deepEqual([shown.failureCountThreshold, shown.allowAfterMs], [7, 1]);
  });

  test('a trip function of the user\'s own trips, and the default one stands in where it fails', inWorld(async (world) => {
    const seen = [];
    const trips = (query) => (seen.push(query), query.counts.totalFailures >= 2);
    const breaker = (await world.factory({ tripFn: { name: 'two', version: 1, trips } })).breaker('a');
    await run(breaker, 'failure', 2);
    assert.equal((await refused(breaker)).reason, 'open');
    assert.deepEqual([seen.length, seen[0].circuit, seen[0].failureCountThreshold], [2, 'a', 2]);
    const unhandled = [];
    const note = (error) => unhandled.push(error);
    process.on('unhandledRejection', note);
    for (const broken of [() => { throw new Error('no'); }, async () => { throw new Error('it rejects'); }, async () => true, () => 'yes']) {
      const other = (await world.factory({ tripFn: { name: 'broken', version: 1, trips: broken } })).breaker(`broken ${broken}`);
      await run(other, 'failure', 2);
      assert.equal(await other.state(), 'closed');
      await run(other, 'failure', 1);
      assert.equal(await other.state(), 'open');
    }
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', note);
    assert.deepEqual(unhandled, []);
  }));

  test('the component may be given as bytes, as a module or by its address', async () => {
    const address = new URL(`../dist/generated/${CORE}`, import.meta.url);
    const bytes = await readFile(address);
    for (const coreModule of [address, bytes, await WebAssembly.compile(bytes), new Uint8Array(bytes).buffer]) {
      const factory = await createFactory({ coreModule });
      assert.equal(await factory.breaker('a').execute(() => 7), 7);
    }
  });
});

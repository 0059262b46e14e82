// With a quorum nodes decide for themselves, and together for the fleet.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MemoryStore } from '../dist/index.js';
import { until } from './support/servers.mjs';
import { ALLOW_AFTER_MS, BEGIN_MS, inWorld, outageIsOver, refused, run } from './support/world.mjs';

const quorum = { votes: 2, windowMs: 10_000 };

describe('with a quorum', () => {
  test('a node that trips alone is refused alone', inWorld(async (world) => {
    const one = await world.breaker({ quorum, nodeId: 'one' });
    const other = await world.breaker({ quorum, nodeId: 'other' });
    await run(one, 'failure', 3);
    assert.equal((await refused(one)).reason, 'node-open');
    await run(other, 'success', 3);
    const shared = await other.information();
    assert.deepEqual([shared.state, shared.votes.map(({ nodeId }) => nodeId)], ['closed', ['one']]);
    const seen = await one.information();
    assert.deepEqual([seen.state, seen.own.state, seen.own.local], ['closed', 'open', true]);
    assert.match(seen.explanation, /This node decides for itself: .* is open/);
    assert.deepEqual(world.changes, [['jobs/acme', 'closed', 'open', true]]);
  }));

  test('enough votes within the window open the circuit for all', inWorld(async (world) => {
    const breakers = [];
    for (const nodeId of ['one', 'two', 'three']) breakers.push(await world.breaker({ quorum, nodeId, closeThreshold: 1 }));
    const [one, two, three] = breakers;
    await run(three, 'success', 1);
    await run(one, 'failure', 3);
    await run(two, 'failure', 3);
    for (const breaker of breakers) assert.equal((await refused(breaker)).reason, 'open');
    world.openTimePasses();
    const probe = await three.start();
    assert.ok(probe.isProbe);
    assert.deepEqual(await probe.end('success'), { disposition: 'accepted', local: false });
    // What a node held against the dependency does not outlive the recovery.
    for (const breaker of breakers) await run(breaker, 'success', 1);
    const shared = world.changes.filter(([, , , local]) => !local).map(([, , to]) => to);
    assert.deepEqual(shared, ['open', 'half-open', 'closed']);
  }));

  test('an outcome costs no write, and one of an era that is over is stale', inWorld(async (world) => {
    const one = await world.breaker({ quorum, nodeId: 'one' });
    await run(one, 'success', 1);
    const { swaps } = world.store;
    await run(one, 'success', 5);
    assert.equal(world.store.swaps, swaps);
    const late = await one.start();
    await one.reset();
    await run(one, 'success', 1);
    assert.deepEqual(await late.end('failure'), { disposition: 'stale', local: true });
  }));

  test('a start that was answered late takes no newer counts away', inWorld(async (world) => {
    const one = await world.breaker({ quorum, nodeId: 'one' });
    await run(one, 'success', 1);
    let answer;
    world.store.onNextLoad(async (ask) => {
      const old = await ask();
      return new Promise((resolve) => (answer = () => resolve(old)));
    });
    const late = one.start();
    await until('it loads', () => answer);
    await one.reset();
    await run(one, 'failure', 2);
    const permit = await one.start();
    answer();
    assert.deepEqual(await (await late).end('failure'), { disposition: 'stale', local: true });
    assert.deepEqual(await permit.end('failure'), { disposition: 'accepted', local: true });
    assert.equal((await refused(one)).reason, 'node-open', 'the third failure of the era');
  }));

  test('a node follows a circuit whose era went back', inWorld(async (world) => {
    const one = await world.breaker({ quorum, nodeId: 'one' });
    await run(one, 'failure', 2);
    // The store was restored, by a machine whose clock is behind.
    world.clock.setMs(BEGIN_MS - 1_000);
    world.store.store = new MemoryStore(world.clock);
    const permits = await Promise.all([one.start(), one.start()]);
    for (const permit of permits) assert.deepEqual(await permit.end('success'), { disposition: 'accepted', local: true });
  }));

  test('a node probes for itself, and a failed probe prolongs its vote', inWorld(async (world) => {
    const long = { votes: 2, windowMs: 2 * ALLOW_AFTER_MS };
    const one = await world.breaker({ quorum: long, nodeId: 'one', closeThreshold: 1 });
    await run(one, 'failure', 3);
    const [{ atMs }] = (await one.information()).votes;
    world.openTimePasses();
    const probe = await one.start();
    assert.ok(probe.isProbe);
    await probe.end('failure');
    assert.equal((await one.information()).votes[0].atMs, atMs + ALLOW_AFTER_MS);
    world.openTimePasses();
    await run(one, 'success', 1);
    await run(one, 'success', 1);
    assert.equal((await one.information()).own.state, 'closed');
  }));

  test('an override frees a node that tripped alone', inWorld(async (world) => {
    const one = await world.breaker({ quorum, nodeId: 'one' });
    await run(one, 'failure', 3);
    await refused(one);
    await one.setOverride({ kind: 'metrics-only', author: 'ann', reason: 'a trial' });
    assert.equal((await one.start()).wouldHaveRefused.reason, 'node-open');
    await one.setOverride({ kind: 'forced-closed', author: 'ann', reason: 'a trial' });
    assert.equal((await one.start()).wouldHaveRefused, undefined);
  }));

  test('that another process has brought, a node without a name votes all the same', inWorld(async (world) => {
    const theirs = await world.breaker({ quorum, nodeId: 'one' });
    await run(theirs, 'success', 1);
    const ours = await world.breaker();
    await run(ours, 'failure', 3);
    assert.equal((await refused(ours)).reason, 'node-open');
    assert.match((await theirs.information()).votes[0].nodeId, /^unnamed-[0-9a-f]{16}$/);
  }));

  test('a node goes on deciding for itself in an outage', inWorld(async (world) => {
    const factory = await world.factory({ quorum, nodeId: 'one' });
    const one = factory.breaker('a');
    await run(one, 'success', 1);
    world.store.goDown();
    await run(one, 'failure', 3);
    assert.equal((await refused(one)).reason, 'node-open');
    world.store.comeUp();
    await outageIsOver(factory);
    assert.equal((await refused(one)).reason, 'node-open');
  }));
});

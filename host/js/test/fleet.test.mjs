// Processes on one Redis: nothing is lost, nothing is counted twice, each change is told once, and nobody is locked out.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ownPrefix, redisUrl } from './support/servers.mjs';

const program = fileURLToPath(new URL('./fleet-worker.mjs', import.meta.url));

class Worker {
  #process;
  #lines;

  static async start(task) {
    const worker = new Worker();
    worker.#process = spawn(process.execPath, [program, JSON.stringify(task)], { stdio: ['pipe', 'pipe', 'inherit'] });
    worker.#lines = createInterface({ input: worker.#process.stdout })[Symbol.asyncIterator]();
    assert.equal((await worker.#lines.next()).value, 'ready');
    return worker;
  }

  async ask(name, given = {}) {
    this.#process.stdin.write(`${JSON.stringify({ [name]: given })}\n`);
    const answer = JSON.parse((await this.#lines.next()).value);
    assert.equal(answer.error, undefined);
    return Object.values(answer)[0];
  }

  async kill() {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await exited;
  }

  async end() {
    const exited = once(this.#process, 'exit');
    this.#process.stdin.end();
    const [code] = await exited;
    assert.equal(code, 0);
  }
}

async function withWorkers(count, more, rule) {
  const task = {
    redis_url: redisUrl(),
    prefix: ownPrefix(),
    circuit: 'emails/acme',
    failure_count_threshold: 5,
    close_threshold: 1,
    allow_after_ms: 200,
    probe_timeout_ms: 30_000,
    ...more,
  };
  const workers = await Promise.all(Array.from({ length: count }, () => Worker.start(task)));
  try {
    await rule(workers);
  } finally {
    await Promise.all(workers.map((worker) => worker.kill()));
  }
}

describe('a fleet of processes', () => {
  test('loses no outcome and counts none twice', () => withWorkers(3, { failure_count_threshold: 1_000_000 }, async (workers) => {
    const load = { tasks: 16, executions: 1_500, failures_per_mille: 300 };
    const reports = await Promise.all(workers.map((worker, index) => worker.ask('execute', { ...load, seed: index + 1 })));
    const sum = (field) => reports.reduce((total, report) => total + report[field], 0);
    assert.deepEqual(reports.flatMap(({ errors }) => errors), []);
    assert.deepEqual([sum('attempts'), sum('refused'), sum('stale'), sum('unsettled'), sum('local')], [4_500, 0, 0, 0, 0]);
    const { counts } = await workers[0].ask('inspect');
    assert.deepEqual([counts.total_successes, counts.total_failures], [sum('accepted_successes'), sum('accepted_failures')]);
    assert.equal(counts.total, 4_500);
    for (const worker of workers) await worker.end();
  }));

  test('tells of each change once, in one order', () => withWorkers(3, { failure_count_threshold: 2 }, async (workers) => {
    const load = { tasks: 8, executions: 800, failures_per_mille: 400 };
    const reports = await Promise.all(workers.map((worker, index) => worker.ask('execute', { ...load, seed: index + 1 })));
    assert.deepEqual(reports.flatMap(({ errors }) => errors), []);
    const changes = reports.flatMap(({ changes: told }) => told).sort((one, other) => one.era - other.era);
    assert.ok(changes.length >= 3, 'it tripped');
    assert.equal(new Set(changes.map(({ era }) => era)).size, changes.length, 'no change is told twice');
    for (const [index, { from, to, local }] of changes.entries()) {
      assert.equal(local, false);
      assert.equal(from, changes[index - 1]?.to ?? 'closed', 'none is missing');
      assert.notEqual(from, to);
    }
  }));

  test('a worker that is killed with a probe locks nobody out', () => withWorkers(2, { failure_count_threshold: 0, allow_after_ms: 1, probe_timeout_ms: 2_000 }, async ([one, other]) => {
    const { id } = await one.ask('start');
    await one.ask('end', { id, outcome: 'failure' });
    await sleep(5);
    assert.equal((await one.ask('start')).probe, true);
    const refused = await other.ask('start');
    assert.equal(refused.reason, 'too-many-requests');
    assert.ok(refused.retry_after_ms >= 100 && refused.retry_after_ms <= 2_000);
    await one.kill();
    await sleep(2_100);
    const probe = await other.ask('start');
    assert.equal(probe.probe, true);
    assert.deepEqual(await other.ask('end', { id: probe.id, outcome: 'success' }), { disposition: 'accepted', local: false });
    assert.equal((await other.ask('inspect')).state, 'closed');
  }));
});

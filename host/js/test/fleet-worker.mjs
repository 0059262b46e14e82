// One worker of a fleet in several languages: commands as JSON lines on stdin, an answer to each on stdout.
//
//   node test/fleet-worker.mjs '{"redis_url": "redis://…", "prefix": "…", "circuit": "…", "failure_count_threshold": 5,
//                                "close_threshold": 1, "allow_after_ms": 1000, "probe_timeout_ms": 30000}'
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { CircuitRefusedError, createFactory } from '../dist/index.js';
import { RedisStore } from '../dist/redis.js';

/** Nothing is local here because a machine is slow. */
const PATIENT_MS = 20_000;

const task = JSON.parse(process.argv[2]);
const store = await RedisStore.connect(task.redis_url, { prefix: task.prefix, operationTimeoutMs: PATIENT_MS });
let changes = [];
const factory = await createFactory({
  store,
  storeTimeoutMs: PATIENT_MS,
  failureCountThreshold: task.failure_count_threshold,
  closeThreshold: task.close_threshold,
  allowAfterMs: task.allow_after_ms,
  probeTimeoutMs: task.probe_timeout_ms,
  stateChangeCallback: ({ from, to, transition, local }) => {
    const { reason, atMs, era, generation } = transition;
    changes.push({ from, to, reason, at_ms: atMs, era, generation, local });
  },
});
const breaker = factory.breaker(task.circuit);
const permits = new Map();
let lastId = 0;

/** Numbers from a seed, 0 to 999: xorshift, with its first ones thrown away. */
function draws(seed) {
  let state = BigInt.asUintN(64, (BigInt(seed) + 1n) * 0x9e37_79b9_7f4a_7c15n) || 1n;
  return () => {
    state ^= BigInt.asUintN(64, state << 13n);
    state ^= state >> 7n;
    state = BigInt.asUintN(64, state ^ (state << 17n));
    return Number(state % 1_000n);
  };
}

async function execute({ tasks, executions, failures_per_mille: failuresPerMille, seed }) {
  const report = {
    attempts: 0,
    refused: 0,
    accepted_successes: 0,
    accepted_failures: 0,
    stale: 0,
    unsettled: 0,
    local: 0,
    errors: [],
  };
  const one = async (draw) => {
    report.attempts += 1;
    let permit;
    try {
      permit = await breaker.start();
    } catch (error) {
      if (!(error instanceof CircuitRefusedError)) throw error;
      report.refused += 1;
      await sleep(5);
      return;
    }
    const outcome = draw() < failuresPerMille ? 'failure' : 'success';
    const { disposition, local } = await permit.end(outcome);
    if (local) report.local += 1;
    if (disposition === 'accepted') report[outcome === 'success' ? 'accepted_successes' : 'accepted_failures'] += 1;
    else if (disposition in report) report[disposition] += 1;
    else report.errors.push(`the outcome is ${disposition}`);
  };
  const run = async (index) => {
    const draw = draws(seed * tasks + index);
    for (let warm = 0; warm < 16; warm++) draw();
    // What does not divide evenly goes to the first tasks.
    const share = Math.floor(executions / tasks) + (index < executions % tasks ? 1 : 0);
    for (let count = 0; count < share; count++) {
      await one(draw).catch((error) => report.errors.push(String(error)));
    }
  };
  await Promise.all(Array.from({ length: tasks }, (_, index) => run(index)));
  const told = changes;
  changes = [];
  return { report: { ...report, changes: told } };
}

const commands = {
  async start() {
    try {
      const permit = await breaker.start();
      lastId += 1;
      permits.set(lastId, permit);
      return { permit: { id: lastId, era: permit.era ?? null, probe: permit.isProbe } };
    } catch (error) {
      if (!(error instanceof CircuitRefusedError)) throw error;
      return { refused: { reason: error.reason, retry_after_ms: error.retryAfterMs } };
    }
  },
  async end({ id, outcome }) {
    const permit = permits.get(id);
    if (!permit) throw new Error(`there is no permit ${id}`);
    permits.delete(id);
    const { disposition, local } = await permit.end(outcome);
    return { settled: { disposition, local } };
  },
  async inspect() {
    const { state, era, generation, revision, counts } = await breaker.information();
    return {
      information: {
        state,
        era,
        generation,
        revision,
        counts: {
          total: counts.total,
          total_successes: counts.totalSuccesses,
          total_failures: counts.totalFailures,
          consecutive_successes: counts.consecutiveSuccesses,
          consecutive_failures: counts.consecutiveFailures,
        },
      },
    };
  },
  execute,
};

async function answer(line) {
  try {
    const [[name, given]] = Object.entries(JSON.parse(line));
    if (!Object.hasOwn(commands, name)) throw new Error(`there is no command ${name}`);
    return await commands[name](given);
  } catch (error) {
    return { error: String(error) };
  }
}

console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() !== '') console.log(JSON.stringify(await answer(line)));
}
await factory.close();
await store.close();
// A permit that was never ended must not keep the process.
process.exit(0);

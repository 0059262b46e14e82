// What a decision costs in this host, in µs: the median over rounds, as JSON lines.
import { readFile } from 'node:fs/promises';
import { createFactory } from '../dist/index.js';
import { instantiate } from '../dist/generated/circuitry.js';
import { CORE, SMALL } from '../dist/generated/modules.js';

const ROUNDS = Number(process.env.CIRCUITRY_BENCH_ROUNDS ?? 31);
const CALLS = Number(process.env.CIRCUITRY_BENCH_CALLS ?? 1_000);

const modules = new Map([[CORE, await WebAssembly.compile(await readFile(new URL(`../dist/generated/${CORE}`, import.meta.url)))]]);
for (const [name, text] of Object.entries(SMALL)) modules.set(name, await WebAssembly.compile(Buffer.from(text, 'base64')));
const unused = () => {
  throw new Error('decisions ask no store');
};
const { exchange } = await instantiate(
  (name) => modules.get(name),
  { 'circuitry:breaker/store': { load: unused, swap: unused }, 'circuitry:breaker/hooks': { willTrip: () => false } },
  (module, imports) => WebAssembly.instantiate(module, imports),
);

const settings = {
  failureCountThreshold: 5n,
  closeThreshold: 1,
  allowAfterMs: 60_000n,
  probeTimeoutMs: 30_000n,
  idleRetentionMs: 86_400_000n,
  settingsRevision: 0n,
};
const nowMs = 1_000_000n;
const version = new Uint8Array(16);
let sequence = 0n;
let entry;

function start() {
  const caller = { node: 1n, sequence: ++sequence };
  return exchange.decide({ tag: 'start', val: { circuit: 'bench', settings, caller } }, { entry }, nowMs);
}

function end() {
  const caller = { node: 1n, sequence: (1n << 63n) | ++sequence };
  const completions = [{ era: nowMs, outcome: 'success', slow: false, count: 1 }];
  const decision = exchange.decide({ tag: 'end', val: { circuit: 'bench', settings, caller, completions } }, { entry }, nowMs);
  entry = { value: decision.val.value, version };
}

entry = { value: start().val.value, version };
// A record in steady use has the last 32 calls in it.
for (let count = 0; count < 40; count++) end();

const factory = await createFactory();
const breaker = factory.breaker('bench');
const work = async () => {};

const cases = {
  'exchange.decide of a start, record in steady use': start,
  'exchange.decide of a start and of an end': () => {
    start();
    end();
  },
  'strict execute on the memory store, one after another': () => breaker.execute(work),
};

function median(values) {
  return values.sort((one, other) => one - other)[Math.floor(values.length / 2)];
}

const measured = Object.fromEntries(Object.keys(cases).map((name) => [name, []]));
// Until the code is compiled well, which its size makes late.
for (let count = 0; count < 4 * CALLS; count++) for (const call of Object.values(cases)) await call();
for (let round = 0; round < ROUNDS; round++) {
  // They take turns, so that a machine that slows down slows all.
  for (const [name, call] of Object.entries(cases)) {
    const isAsync = call() instanceof Promise;
    const begun = process.hrtime.bigint();
    if (isAsync) for (let count = 0; count < CALLS; count++) await call();
    else for (let count = 0; count < CALLS; count++) call();
    measured[name].push(Number(process.hrtime.bigint() - begun) / CALLS / 1_000);
  }
}
await factory.close();
for (const [what, values] of Object.entries(measured)) {
  const us = Number(median(values).toFixed(3));
  console.log(JSON.stringify({ host: 'node', version: process.version, what, us, rounds: ROUNDS, calls: CALLS }));
}

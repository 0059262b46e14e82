// The golden vectors, on the built component, through `breaker` and through `exchange`.
import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { defaultName } from '../dist/index.js';
import { difference, fromJson, toJson } from './support/contract.mjs';
import { Machine } from './support/machine.mjs';

const folder = new URL('../../../tests/vectors/', import.meta.url);
const NO_VECTORS = ['hostile.json', 'records.json', 'records-schema-1.json'];
const read = async (file) => JSON.parse(await readFile(new URL(file, folder), 'utf8'));

const files = (await readdir(folder)).filter((file) => file.endsWith('.json') && !NO_VECTORS.includes(file)).sort();
const vectors = [];
for (const file of files) for (const vector of await read(file)) vectors.push({ file, ...vector });
const records = await read('records.json');

const FIELDS = [
  'call', 'at-ms', 'circuit', 'settings', 'seen', 'store-at-ms', 'down', 'swaps-meet', 'answer', 'failure', 'loads', 'swaps',
  'ttl-ms', 'leaves',
];
const hex = (bytes) => Buffer.from(bytes).toString('hex');

/** Runs a vector and gives what is stored after it, by circuit; the problem is the first step that differs. */
async function run(vector, way) {
  const machine = new Machine();
  const names = new Map([['nothing', { entry: undefined, nowMs: undefined }]]);
  for (const [index, step] of vector.steps.entries()) {
    const problem = runStep(vector, step, machine, way, names);
    if (problem) return { problem: `step ${index + 1}: ${problem}` };
  }
  return { stored: Object.fromEntries([...machine.memory.entries].map(([circuit, { value }]) => [circuit, hex(value)])) };
}

function runStep(vector, step, machine, way, names) {
  const unknown = Object.keys(step).find((field) => !FIELDS.includes(field));
  if (unknown) return `a step has no field ${unknown}`;
  const { memory } = machine;
  const circuit = step.circuit ?? 'upstream';
  const settings = fromJson(step.settings ?? vector.settings, 'settings');
  const optional = (value) => (value === undefined || value === null ? undefined : BigInt(value));
  Object.assign(memory, {
    clockMs: optional(step['store-at-ms']),
    down: step.down ?? false,
    faults: [...(step['swaps-meet'] ?? [])],
    loads: 0,
    swaps: 0,
  });
  const known = step.seen === undefined ? undefined : names.get(step.seen);
  if (step.seen !== undefined && !known) return `no entry is named ${step.seen}`;
  const [[kind, given]] = Object.entries(step.call);
  if (kind === 'lose') {
    memory.entries.delete(circuit);
    return undefined;
  }
  let answer;
  let failure;
  if (kind === 'check') {
    const { ok, error } = machine.check(settings);
    if (error) failure = toJson(error);
    else answer = String(ok);
  } else {
    const request = { tag: kind, val: { circuit, settings, ...fromJson(given) } };
    // Lists of the request have names, too.
    if (given.completions) request.val.completions = fromJson(given.completions, 'completions');
    const nowMs = BigInt(step['at-ms']);
    const { ok, error } = way === 'breaker' ? machine.call(request, known, nowMs) : machine.callInSteps(request, known, nowMs);
    if (ok) {
      answer = toJson(ok[0]);
      // What is stored now, unless the call worked on an entry that it was given.
      if (step.seen === undefined || memory.swaps > 0) {
        const problem = difference(toJson(memory.loaded(circuit)), toJson(ok[1]), 'the entry last seen');
        if (problem) return problem;
      }
    } else {
      failure = toJson({ error: error.error, revision: error.revision });
    }
  }
  const expectation = step.answer !== undefined ? ['answer', step.answer, answer] : ['failure', step.failure, failure];
  if (expectation[1] === undefined) return 'the step expects neither an answer nor a failure';
  if (expectation[2] === undefined) return `unexpected: ${JSON.stringify(answer ?? failure)}`;
  const problems = [
    difference(expectation[1], expectation[2], expectation[0]),
    step.loads !== undefined && way === 'breaker' && difference(step.loads, memory.loads, 'loads'),
    step.swaps !== undefined && difference(step.swaps, memory.swaps, 'swaps'),
    step['ttl-ms'] !== undefined && difference(step['ttl-ms'], toJson(memory.ttlMs), 'ttl-ms'),
  ];
  const problem = problems.find(Boolean);
  if (problem) return problem;
  // Its time is left out: a host keeps that apart.
  if (step.leaves) names.set(step.leaves, { entry: memory.loaded(circuit).entry, nowMs: undefined });
  return undefined;
}

for (const way of ['breaker', 'exchange']) {
  describe(`the component keeps to the vectors through ${way}`, () => {
    for (const vector of vectors) {
      test(`${vector.file}: ${vector.name}`, async () => {
        const { problem, stored } = await run(vector, way);
        assert.equal(problem, undefined);
        assert.deepEqual(stored, records[vector.name], 'the bytes of the record differ');
      });
    }
  });
}

test('no vector is left out', () => {
  assert.ok(vectors.length >= 200, `only ${vectors.length} vectors`);
  assert.deepEqual(vectors.map(({ name }) => name).sort(), Object.keys(records).sort());
});

test('a wrong expectation fails', async () => {
  const found = { a: [1, { b: 'x' }], c: '18446744073709551615', d: null };
  for (const same of [{}, { a: [1, {}] }, { c: '…446…' }, found]) assert.equal(difference(same, found, 'it'), undefined);
  const others = [{ a: [1] }, { a: [1, { b: 'y' }] }, { a: [1, { e: null }] }, { a: { b: 'x' } }, { c: 5 }, { c: '…447…' }, { d: 0 }, { e: null }];
  for (const other of others) assert.notEqual(difference(other, found, 'it'), undefined, JSON.stringify(other));
  const [vector] = vectors;
  for (const index of vector.steps.keys()) {
    const steps = vector.steps.map((step, at) => (at === index ? { ...step, answer: { 'at-ms': 1 } } : step));
    assert.notEqual((await run({ ...vector, steps }, 'breaker')).problem, undefined);
  }
});

/** One request of each kind. */
function requests(settings) {
  const circuit = 'upstream';
  const token = { node: 1n, sequence: 1n };
  const caller = { node: 1n, sequence: 2n, retryOf: undefined };
  const completions = [{ era: 1n, outcome: 'failure', slow: true, count: 1 }];
  return [
    { tag: 'start', val: { circuit, settings, caller } },
    { tag: 'end', val: { circuit, settings, caller, completions } },
    { tag: 'renew', val: { circuit, settings, caller, era: 1n, probes: [token] } },
    { tag: 'inspect', val: { circuit, settings } },
    { tag: 'set-override', val: { circuit, settings, caller, override: undefined } },
    { tag: 'vote', val: { circuit, settings, caller, era: 1n, nodeId: 'n1' } },
    { tag: 'reset', val: { circuit, settings, caller } },
  ];
}

describe('bytes that are no record are an error of every call and stay as they are', async () => {
  const hostile = await read('hostile.json');
  const settings = fromJson(vectors[0].settings, 'settings');
  assert.ok(hostile.length >= 12);
  for (const { name, bytes, error } of hostile) {
    test(name, async () => {
      for (const request of requests(settings)) {
        const machine = new Machine();
        machine.memory.put('upstream', Buffer.from(bytes, 'hex'));
        const before = machine.memory.loaded('upstream');
        const decision = machine.decide(request, before, 1_000_000n);
        assert.equal(decision.tag === 'done' && decision.val.tag, 'failed', `${request.tag} was decided`);
        assert.equal(difference(error, toJson(decision.val.val), request.tag), undefined);
        const { error: failure } = machine.call(request, undefined, 1_000_000n);
        assert.deepEqual(toJson(failure.error), toJson(decision.val.val));
        assert.deepEqual(machine.memory.loaded('upstream'), before, 'something was written');
      }
    });
  }
});

describe('the oldest record bytes still load', async () => {
  const settings = fromJson(
    {
      'failure-count-threshold': 2,
      'close-threshold': 1,
      'allow-after-ms': 60_000,
      'probe-timeout-ms': 10_000,
      'idle-retention-ms': 86_400_000,
    },
    'settings',
  );
  const oldest = await read('records-schema-1.json');
  const seen = new Set();
  for (const [name, circuits] of Object.entries(oldest)) {
    test(name, async () => {
      for (const text of Object.values(circuits)) {
        const bytes = Buffer.from(text, 'hex');
        const expected = shownOfSchema1(bytes);
        const machine = new Machine();
        machine.memory.put('upstream', bytes);
        const sinceMs = BigInt(expected['since-ms']);
        const inspect = { tag: 'inspect', val: { circuit: 'upstream', settings } };
        const { ok } = machine.call(inspect, undefined, sinceMs);
        assert.equal(difference(expected, toJson(ok[0]), 'information'), undefined);
        // Later than any open time or override of theirs.
        const start = { tag: 'start', val: { circuit: 'upstream', settings, caller: { node: 1_000n, sequence: 1n } } };
        assert.ok(machine.call(start, undefined, sinceMs + 1_000_000n).ok);
        const stored = Buffer.from(machine.memory.loaded('upstream').entry.value);
        const kept = stored.equals(bytes);
        if (!kept) assert.equal(stored.subarray(0, 4).toString('latin1'), 'CKT\u0002');
        seen.add(`${expected.state}${expected.override ? ', forced' : ''}, ${kept ? 'kept' : 'wrote'}`);
      }
    });
  }
  test('every state is among them', () => {
    for (const state of ['closed, kept', 'closed, forced, kept', 'open, wrote', 'open, forced, wrote', 'half-open, wrote']) {
      assert.ok(seen.has(state), `no record that is ${state}: ${[...seen]}`);
    }
  });
});

/** What `inspect` shows of a record of schema 1 at the time its state was entered, read from the bytes without the component. */
function shownOfSchema1(bytes) {
  assert.equal(bytes.subarray(0, 4).toString('latin1'), 'CKT\u0001');
  const fields = cbor(bytes.subarray(4));
  const field = (key) => fields.get(key);
  const [state, status] = field(4);
  const counts = field(5);
  const states = ['closed', 'open', 'half-open'];
  const halfOpen = states[state] === 'half-open';
  const forced = field(6);
  return {
    state: states[state],
    era: field(1),
    generation: field(2),
    'since-ms': field(3),
    revision: field(0),
    counts: {
      total: counts[0],
      'total-successes': counts[1],
      'total-failures': counts[2],
      'consecutive-successes': counts[3],
      'consecutive-failures': counts[4],
    },
    'expires-at-ms': halfOpen ? null : (status?.[0] ?? null),
    probes: (halfOpen ? status[0] : []).map(([[node, sequence], deadline]) => ({ id: { node, sequence }, 'deadline-ms': deadline })),
    'probe-successes': halfOpen ? status[1] : 0,
    'probe-failures': 0,
    override: forced
      ? { kind: ['forced-open', 'forced-closed'][forced[0]], author: forced[1], reason: forced[2], 'until-ms': forced[3] ?? null }
      : null,
    transitions: field(7).map(([previous, next, reason, at, era, generation]) => ({
      previous: states[previous],
      next: states[next],
      reason: ['tripped', 'open-time-over', 'probes-succeeded', 'probe-failed'][reason],
      'at-ms': at,
      era,
      generation,
    })),
    'last-trip': null,
    'trips-in-a-row': 0,
    ramp: null,
    votes: [],
    'settings-differ': false,
  };
}

/** Reads as much of CBOR as records have: whole numbers, bytes, texts, lists, maps and null. */
function cbor(bytes) {
  let at = 0;
  const length = (short) => {
    if (short < 24) return short;
    const size = 1 << (short - 24);
    let value = 0n;
    for (let index = 0; index < size; index++) value = (value << 8n) | BigInt(bytes[at++]);
    return value > 1n << 53n ? value.toString() : Number(value);
  };
  const item = () => {
    const head = bytes[at++];
    const short = head & 31;
    switch (head >> 5) {
      case 0:
        return length(short);
      case 2: {
        const size = length(short);
        return bytes.subarray(at, (at += size));
      }
      case 3: {
        const size = length(short);
        return bytes.subarray(at, (at += size)).toString();
      }
      case 4:
        return Array.from({ length: length(short) }, item);
      case 5:
        return new Map(Array.from({ length: length(short) }, () => [item(), item()]));
      default:
        assert.equal(head, 0xf6, 'null is the only other one');
        return null;
    }
  };
  return item();
}

test('breakers have the circuits that the list of names says', async () => {
  const list = await read('names/circuits.json');
  for (const { name, context, circuit } of list) assert.equal(defaultName(name, context), circuit);
  assert.ok(list.length > 0);
});

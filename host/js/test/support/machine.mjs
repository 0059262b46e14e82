// The built component with a store in memory whose versions are the same in every run, and that fails on demand.
import { readFile } from 'node:fs/promises';
import { instantiate } from '../../dist/generated/circuitry.js';
import { CORE, SMALL } from '../../dist/generated/modules.js';

const modules = new Map([[CORE, await WebAssembly.compile(await readFile(new URL(`../../dist/generated/${CORE}`, import.meta.url)))]]);
for (const [name, text] of Object.entries(SMALL)) modules.set(name, await WebAssembly.compile(Buffer.from(text, 'base64')));

export class Memory {
  entries = new Map();
  clockMs;
  down = false;
  faults = [];
  loads = 0;
  swaps = 0;
  ttlMs;
  #versions = 0n;

  /** What a load would answer; not counted, and no failure. */
  loaded(circuit) {
    return { entry: this.entries.get(circuit), nowMs: this.clockMs };
  }

  load(circuit) {
    this.loads++;
    if (this.down) throw { tag: 'unavailable', val: 'it is down' };
    return this.loaded(circuit);
  }

  swap(circuit, expected, value, ttlMs) {
    this.swaps++;
    const fault = this.faults.shift() ?? 'none';
    if (fault === 'write-lost') throw { tag: 'unknown', val: 'no answer' };
    if (fault === 'unavailable') throw { tag: 'unavailable', val: 'it is down' };
    if (fault === 'denied') throw { tag: 'denied', val: 'no permission' };
    if (fault === 'race') this.put(circuit, this.entries.get(circuit)?.value ?? value);
    const version = this.entries.get(circuit)?.version;
    const isSame = version && expected ? Buffer.compare(version, expected) === 0 : version === expected;
    if (!isSame) return { tag: 'conflict', val: this.loaded(circuit) };
    const written = this.put(circuit, value);
    this.ttlMs = ttlMs;
    if (fault === 'answer-lost') throw { tag: 'unknown', val: 'no answer' };
    return { tag: 'stored', val: { version: written, nowMs: this.clockMs } };
  }

  /** Writes without asking, as somebody else would. */
  put(circuit, value) {
    const version = Buffer.alloc(8);
    version.writeBigUInt64BE(++this.#versions);
    this.entries.set(circuit, { value: Uint8Array.from(value), version: Uint8Array.from(version) });
    return Uint8Array.from(version);
  }
}

/** The trip rules that vectors name. */
function willTrip({ rule, counts }) {
  if (rule.name === 'always') return true;
  if (rule.name === 'every-third-failure') return counts.totalFailures % 3n === 0n;
  if (rule.name === 'half-of-four') return counts.total >= 4n && counts.totalFailures * 2n >= counts.total;
  return false;
}

/** How often a round is run before the race is given up. */
const TRIES_MAX = 8;

/** The memory of the machine that is asked now: the component keeps nothing between calls, so one instance serves all. */
let present;

const root = await instantiate(
  (name) => modules.get(name),
  {
    'circuitry:breaker/store': {
      load: (circuit) => present.load(circuit),
      swap: (circuit, expected, value, ttlMs) => present.swap(circuit, expected, value, ttlMs),
    },
    'circuitry:breaker/hooks': { willTrip },
  },
  (module, imports) => WebAssembly.instantiate(module, imports),
);

export class Machine {
  memory = new Memory();

  /** A result of the component: `{ ok }` or `{ error }`. A trap is neither, and fails the test. */
  #result(call) {
    present = this.memory;
    try {
      return { ok: call() };
    } catch (error) {
      if (error?.constructor?.name === 'ComponentError' || 'payload' in error) return { error: error.payload };
      throw error;
    }
  }

  check(settings) {
    return this.#result(() => root.breaker.check(settings));
  }

  decide(request, loaded, nowMs) {
    return root.exchange.decide(request, loaded, nowMs);
  }

  /** The function of `breaker` that the request names: `{ ok: [answer, seen] }` or `{ error: failure }`. */
  call({ tag, val }, known, nowMs) {
    const { breaker } = root;
    const { circuit, settings, caller } = val;
    const calls = {
      start: () => breaker.start(circuit, settings, caller, known, nowMs),
      end: () => breaker.end(circuit, settings, caller, known, val.completions, nowMs),
      renew: () => breaker.renew(circuit, settings, caller, known, val.era, val.probes, nowMs),
      inspect: () => breaker.inspect(circuit, settings, known, nowMs),
      'set-override': () => breaker.setOverride(circuit, settings, caller, known, val.override, nowMs),
      vote: () => breaker.vote(circuit, settings, caller, known, val.era, val.nodeId, nowMs),
      reset: () => breaker.reset(circuit, settings, caller, known, nowMs),
    };
    return this.#result(calls[tag]);
  }

  /** The same call in steps, as `wit/exchange.wit` says it. */
  callInSteps(request, known, nowMs) {
    const { memory } = this;
    const { circuit } = request.val;
    const attempt = (ask, lastSeen, revision) => {
      try {
        return ask();
      } catch (error) {
        if (!error?.tag) throw error;
        const isUnknown = error.tag === 'unknown';
        throw { failure: { error: { tag: 'store', val: error }, lastSeen, revision: isUnknown ? revision : undefined } };
      }
    };
    try {
      let unverified = known !== undefined;
      let seen = known ?? attempt(() => memory.load(circuit));
      for (let tries = 0; tries < TRIES_MAX; tries++) {
        if (seen.nowMs !== undefined && seen.nowMs > nowMs) nowMs = seen.nowMs;
        const decision = this.decide(request, seen, nowMs);
        if (decision.tag === 'done') {
          if (decision.val.tag === 'failed') return { error: { error: decision.val.val, lastSeen: seen } };
          if (!unverified || !denies(decision.val)) return { ok: [decision.val.val, seen] };
          unverified = false;
          seen = attempt(() => memory.load(circuit), seen);
          continue;
        }
        const { value, ttlMs, answerIfStored, basedOn } = decision.val;
        const swapped = attempt(() => memory.swap(circuit, seen.entry?.version, value, ttlMs), seen, basedOn);
        if (swapped.tag === 'stored') {
          return { ok: [answerIfStored.val, { entry: { value, version: swapped.val.version }, nowMs: swapped.val.nowMs }] };
        }
        unverified = false;
        seen = swapped.val;
      }
      return { error: { error: { tag: 'contention' }, lastSeen: seen } };
    } catch (thrown) {
      if (!thrown?.failure) throw thrown;
      return { error: thrown.failure };
    }
  }
}

/** Whether a newer entry may grant what the answer denies. */
function denies({ tag, val }) {
  if (tag === 'settled') return val.dispositions.some(({ stale }) => stale > 0);
  if (tag === 'renewed') return val.deadlines.some((deadline) => deadline === undefined);
  return tag === 'voted' && !val.accepted;
}

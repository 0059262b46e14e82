/** Settings: the options, checked and with their defaults. What bounds there are the component says. */

import { type Clock, SystemClock } from './clock.js';
import { SettingsError } from './errors.js';
import type * as Wit from './generated/interfaces/circuitry-breaker-types.js';
import { MemoryStore } from './memory.js';
import { type Context, defaultName, textProblem } from './names.js';
import type { FactoryOptions, Logger, TripFn, TripRule, Window } from './options.js';
import { type MatchError, defaultErrorMatcher, unheard } from './outcome.js';
import type { StateChange, StoreFallback } from './state.js';
import type { Store } from './store.js';

/** The most bytes of a custom rule's name and of a node's id, as `wit/` says. */
const RULE_NAME_MAX_BYTES = 64;
const NODE_ID_MAX_BYTES = 48;
const U64_MAX = (1n << 64n) - 1n;
const U32_MAX = 2 ** 32 - 1;

/** The options with their defaults. */
export interface Settings {
  readonly circuit: Wit.Settings;
  readonly tripFn: TripFn | undefined;
  readonly nodeId: string | undefined;
  readonly store: Store;
  readonly storeFailure: 'local' | 'admit' | 'refuse';
  readonly storeTimeoutMs: number;
  readonly nameFn: (name: string, context: Context) => string;
  readonly fallbackErrorMatcher: MatchError;
  readonly errorMatchers: ReadonlyMap<string, MatchError>;
  readonly stateChangeCallback: ((change: StateChange) => void) | undefined;
  readonly storeFallbackCallback: ((fallback: StoreFallback) => void) | undefined;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly maxCircuits: number;
  readonly coreModule: FactoryOptions['coreModule'];
}

const OPTIONS: Readonly<Record<keyof FactoryOptions, true>> = {
  store: true,
  storeFailure: true,
  storeTimeoutMs: true,
  failureCountThreshold: true,
  tripRules: true,
  tripFn: true,
  slowCallAfterMs: true,
  cyclicClearAfterMs: true,
  allowAfterMs: true,
  backoff: true,
  jitterPerMille: true,
  retryAfterMaxMs: true,
  closeThreshold: true,
  probes: true,
  probesAtOnce: true,
  probeTimeoutMs: true,
  halfOpenLimit: true,
  ramp: true,
  quorum: true,
  nodeId: true,
  settingsRevision: true,
  idleRetentionMs: true,
  nameFn: true,
  fallbackErrorMatcher: true,
  circuitSpecificErrorMatchers: true,
  stateChangeCallback: true,
  storeFallbackCallback: true,
  logger: true,
  clock: true,
  maxCircuits: true,
  coreModule: true,
};

type Raw = Record<string, unknown>;

/** Puts options together that are given in several objects: each may be given once. */
export function gather(given: readonly unknown[]): FactoryOptions {
  const gathered: Raw = {};
  for (const options of given) {
    if (options === undefined) continue;
    for (const [name, value] of Object.entries(object('options', options, Object.keys(OPTIONS)))) {
      if (value === undefined) continue;
      if (name in gathered) throw new SettingsError(name, 'it was already set: give it once');
      gathered[name] = value;
    }
  }
  return gathered as FactoryOptions;
}

/** Checks the options and puts their defaults in. */
export function settle(given: FactoryOptions): Settings {
  const options = given as Raw;
  const tripFn = tripFnIn(options['tripFn']);
  const quorum = given.quorum !== undefined;
  const nodeId = optional(options, 'nodeId', (field, value) => text(field, value, 1, NODE_ID_MAX_BYTES));
  if (quorum && nodeId === undefined) {
    throw new SettingsError(
      'nodeId',
      'a quorum is set, and votes are told apart by it: name this node, with a name that no other has and that a restart keeps',
    );
  }
  const clock = optional(options, 'clock', (field, value) => withMethods<Clock>(field, value, ['nowMs'])) ?? new SystemClock();
  const matchers = options['circuitSpecificErrorMatchers'] ?? {};
  return {
    circuit: circuitIn(options, tripFn),
    tripFn,
    nodeId,
    store:
      optional(options, 'store', (field, value) => withMethods<Store>(field, value, ['load', 'swap'])) ?? new MemoryStore(clock),
    storeFailure: optional(options, 'storeFailure', oneOf(['local', 'admit', 'refuse'] as const)) ?? 'local',
    storeTimeoutMs: optional(options, 'storeTimeoutMs', within(1, 3_600_000)) ?? 500,
    nameFn: optional(options, 'nameFn', fn<Settings['nameFn']>) ?? defaultName,
    fallbackErrorMatcher: optional(options, 'fallbackErrorMatcher', fn<MatchError>) ?? defaultErrorMatcher,
    errorMatchers: new Map(
      Object.entries(object('circuitSpecificErrorMatchers', matchers)).map(([name, matcher]) => {
        return [name, fn<MatchError>(`circuitSpecificErrorMatchers.${name}`, matcher)];
      }),
    ),
    stateChangeCallback: optional(options, 'stateChangeCallback', fn<(change: StateChange) => void>),
    storeFallbackCallback: optional(options, 'storeFallbackCallback', fn<(fallback: StoreFallback) => void>),
    logger: optional(options, 'logger', (field, value) => harmless(withMethods<Logger>(field, value, []))) ?? {},
    clock,
    maxCircuits: optional(options, 'maxCircuits', within(1, Number.MAX_SAFE_INTEGER)) ?? 100_000,
    coreModule: given.coreModule,
  };
}

/** A logger of which nothing that it does breaks a call: one that throws, or rejects, is not heard. */
function harmless(logger: Logger): Logger {
  const made: { [level in keyof Logger]: Logger[level] } = {};
  for (const level of ['debug', 'info', 'warn', 'error'] as const) {
    if (typeof logger[level] !== 'function') continue;
    made[level] = (message, fields) => {
      try {
        unheard(logger[level]?.(message, fields));
      } catch {
        // There is nobody to tell.
      }
    };
  }
  return made;
}

/** The contract's name of a setting as it is here: `backoff.max-ms` is `backoff.maxMs`. */
export function optionName(field: string): string {
  return field.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** A problem as the component tells it, with the settings' names as they are here. */
export function optionNames(problem: string): string {
  const names = /\b(minimum-calls|close-threshold|probes-at-once|allow-after-ms|slow-call-after-ms|trip-rules|max-ms)\b/g;
  return problem.replace(names, optionName);
}

function circuitIn(options: Raw, tripFn: TripFn | undefined): Wit.Settings {
  const tripRules = optional(options, 'tripRules', tripRulesIn) ?? [];
  if (tripFn) tripRules.push({ tag: 'custom', val: { name: tripFn.name, version: tripFn.version } });
  // Said, not left out, so that all hosts send the same.
  if (tripRules.length === 0) tripRules.push({ tag: 'consecutive-failures', val: { minimumCalls: 0 } });
  const policies: Wit.Policies = {
    tripRules,
    slowCallAfterMs: optional(options, 'slowCallAfterMs', u64),
    backoff: optional(options, 'backoff', (field, value) => {
      const given = object(field, value, ['factorPerMille', 'maxMs', 'healthyAfterMs']);
      return {
        factorPerMille: u32(`${field}.factorPerMille`, given['factorPerMille']),
        maxMs: u64(`${field}.maxMs`, given['maxMs']),
        healthyAfterMs: u64(`${field}.healthyAfterMs`, given['healthyAfterMs']),
      };
    }),
    jitterPerMille: optional(options, 'jitterPerMille', u32) ?? 0,
    retryAfterMaxMs: optional(options, 'retryAfterMaxMs', u64) ?? 600_000n,
    probes: optional(options, 'probes', u32),
    probesAtOnce: optional(options, 'probesAtOnce', u32),
    halfOpenLimit: optional(options, 'halfOpenLimit', (field, value) => {
      const given = object(field, value, ['afterMs', 'then']);
      const then = oneOf(['opens', 'closes'] as const)(`${field}.then`, given['then']);
      return { afterMs: u64(`${field}.afterMs`, given['afterMs']), then };
    }),
    ramp: optional(options, 'ramp', (field, value) => {
      const given = object(field, value, ['stepsPerMille', 'stepMs']);
      const steps = list(`${field}.stepsPerMille`, given['stepsPerMille'], u32);
      return { stepsPerMille: Uint32Array.from(steps), stepMs: u64(`${field}.stepMs`, given['stepMs']) };
    }),
    quorum: optional(options, 'quorum', (field, value) => {
      const given = object(field, value, ['votes', 'windowMs']);
      return { votes: u32(`${field}.votes`, given['votes']), windowMs: u64(`${field}.windowMs`, given['windowMs']) };
    }),
  };
  return {
    failureCountThreshold: optional(options, 'failureCountThreshold', u64) ?? 5n,
    closeThreshold: optional(options, 'closeThreshold', u32) ?? 1,
    allowAfterMs: optional(options, 'allowAfterMs', u64) ?? 60_000n,
    cyclicClearAfterMs: optional(options, 'cyclicClearAfterMs', u64),
    probeTimeoutMs: optional(options, 'probeTimeoutMs', u64) ?? 30_000n,
    idleRetentionMs: optional(options, 'idleRetentionMs', u64) ?? 86_400_000n,
    // What is by default is not told, which costs a decision less.
    policies: isByDefault(policies) ? undefined : policies,
    settingsRevision: optional(options, 'settingsRevision', u64) ?? 0n,
  };
}

function isByDefault(policies: Wit.Policies): boolean {
  const [rule, ...more] = policies.tripRules;
  const others = [
    policies.slowCallAfterMs,
    policies.backoff,
    policies.probes,
    policies.probesAtOnce,
    policies.halfOpenLimit,
    policies.ramp,
    policies.quorum,
  ];
  return (
    more.length === 0 &&
    rule?.tag === 'consecutive-failures' &&
    rule.val.minimumCalls === 0 &&
    policies.jitterPerMille === 0 &&
    policies.retryAfterMaxMs === 600_000n &&
    others.every((policy) => policy === undefined)
  );
}

function tripFnIn(given: unknown): TripFn | undefined {
  if (given === undefined) return undefined;
  const { name, version, trips } = object('tripFn', given, ['name', 'version', 'trips']);
  return {
    name: text('tripFn.name', name, 1, RULE_NAME_MAX_BYTES),
    version: u32('tripFn.version', version),
    trips: fn<TripFn['trips']>('tripFn.trips', trips),
  };
}

function tripRulesIn(field: string, given: unknown): Wit.TripRule[] {
  return list(field, given, (place, rule): Wit.TripRule => {
    const { kind } = object(place, rule);
    switch (kind as TripRule['kind']) {
      case 'consecutive-failures': {
        const { minimumCalls } = object(place, rule, ['kind', 'minimumCalls']);
        return {
          tag: 'consecutive-failures',
          val: { minimumCalls: minimumCalls === undefined ? 0 : u32(`${place}.minimumCalls`, minimumCalls) },
        };
      }
      case 'failure-count':
        return { tag: 'failure-count', val: windowed(place, rule, 'failures') };
      case 'failure-rate':
        return { tag: 'failure-rate', val: windowed(place, rule, 'perMille') };
      case 'slow-call-rate':
        return { tag: 'slow-call-rate', val: windowed(place, rule, 'perMille') };
      case 'custom':
        throw new SettingsError(field, 'a custom rule has code: give it with tripFn');
      default:
        throw new SettingsError(
          `${place}.kind`,
          `${shown(kind)} is no rule; give consecutive-failures, failure-count, failure-rate or slow-call-rate`,
        );
    }
  });
}

function windowed(place: string, rule: unknown, threshold: string): Wit.WindowedRule {
  const given = object(place, rule, ['kind', threshold, 'window', 'minimumCalls']);
  return {
    threshold: u32(`${place}.${threshold}`, given[threshold]),
    minimumCalls: u32(`${place}.minimumCalls`, given['minimumCalls']),
    window: windowIn(`${place}.window`, given['window']),
  };
}

function windowIn(place: string, given: unknown): Wit.Window {
  const window = object(place, given, ['calls', 'timeMs', 'decayingMs']) as Partial<Record<'calls' | 'timeMs' | 'decayingMs', unknown>>;
  const [kind, ...more] = Object.keys(window) as (keyof typeof window)[];
  if (kind === undefined || more.length > 0) {
    throw new SettingsError(place, 'give it one of calls, timeMs and decayingMs');
  }
  if (kind === 'calls') return { tag: 'calls', val: u32(`${place}.calls`, window.calls) };
  return { tag: kind === 'timeMs' ? 'time' : 'decaying', val: u64(`${place}.${kind}`, window[kind]) };
}

// ---- values ----

function optional<T>(options: Raw, name: string, read: (field: string, value: unknown) => T): T | undefined {
  const value = options[name];
  return value === undefined ? undefined : read(name, value);
}

/** An object with no other fields than `known`. */
function object(field: string, value: unknown, known?: readonly string[]): Raw {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new SettingsError(field, `it is ${shown(value)}; give an object`);
  }
  for (const name of known ? Object.keys(value) : []) {
    if (known?.includes(name)) continue;
    const place = field === 'options' ? name : `${field}.${name}`;
    throw new SettingsError(place, `there is no such setting; there are ${known?.join(', ')}`);
  }
  return value as Raw;
}

function list<T>(field: string, value: unknown, read: (field: string, value: unknown) => T): T[] {
  if (!Array.isArray(value)) throw new SettingsError(field, `it is ${shown(value)}; give an array`);
  if (value.length > 1_000) throw new SettingsError(field, `it has ${value.length} items, which is too many`);
  // A hole in it is an item, too.
  return Array.from(value, (item, index) => read(`${field}[${index}]`, item));
}

/** A whole number of 64 bits. A fraction of a millisecond is rounded up, so that a length above zero does not become zero. */
function u64(field: string, value: unknown): bigint {
  if (typeof value === 'bigint' && value >= 0n && value <= U64_MAX) return value;
  if (typeof value === 'number' && value >= 0 && value <= Number.MAX_SAFE_INTEGER) {
    if (Number.isInteger(value)) return BigInt(value);
    if (/Ms$/.test(field)) return BigInt(Math.ceil(value));
  }
  throw new SettingsError(field, `it is ${shown(value)}; give a whole number, 0 or more`);
}

function u32(field: string, value: unknown): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= U32_MAX) return value;
  throw new SettingsError(field, `it is ${shown(value)}; give a whole number, 0 or more`);
}

function within(least: number, most: number): (field: string, value: unknown) => number {
  return (field, value) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value;
    throw new SettingsError(field, `it is ${shown(value)}; give a whole number, ${least} to ${most}`);
  };
}

function text(field: string, value: unknown, least: number, most: number): string {
  const problem = textProblem(value, least, most);
  if (problem !== undefined) throw new SettingsError(field, problem);
  return value as string;
}

function oneOf<const T extends string>(values: readonly T[]): (field: string, value: unknown) => T {
  return (field, value) => {
    const found = values.find((known) => known === value);
    if (found === undefined) throw new SettingsError(field, `it is ${shown(value)}; give one of ${values.join(', ')}`);
    return found;
  };
}

function fn<T>(field: string, value: unknown): T {
  if (typeof value !== 'function') throw new SettingsError(field, `it is ${shown(value)}; give a function`);
  return value as T;
}

function withMethods<T>(field: string, value: unknown, methods: readonly (keyof T & string)[]): T {
  if (typeof value === 'object' && value !== null) {
    const missing = methods.find((method) => typeof (value as Raw)[method] !== 'function');
    if (missing === undefined) return value as T;
    throw new SettingsError(field, `it has no method ${missing}`);
  }
  throw new SettingsError(field, `it is ${shown(value)}; give an object with ${methods.join(' and ') || 'methods'}`);
}

/** A value in a message. */
function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 40));
  if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean' || value == null) return String(value);
  return Array.isArray(value) ? 'an array' : `of the type ${typeof value}`;
}

/** Windows as they are given; for who shows settings in force. */
export function windowOut(window: Wit.Window): Window {
  if (window.tag === 'calls') return { calls: window.val };
  return window.tag === 'time' ? { timeMs: Number(window.val) } : { decayingMs: Number(window.val) };
}

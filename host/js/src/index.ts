/**
 * circuitry: a distributed circuit breaker. Many processes share one circuit for each dependency, tenant or kind of job, and one
 * WebAssembly component takes every decision.
 *
 * Every start reads the store and every end that counts writes it (*strict* mode; there is no other in this package).
 *
 * @example
 * ```ts
 * import { CircuitRefusedError, createFactory } from 'circuitry';
 *
 * const factory = await createFactory();
 * const breaker = factory.breakerFor('emails', { tenant: 'acme' });
 * await breaker.execute(async () => sendMail());
 * ```
 *
 * @module
 */

export { Breaker } from './breaker.js';
export type { Attempt, ExecuteOptions, Executed, StartOptions } from './breaker.js';
export { ManualClock, SystemClock } from './clock.js';
export type { Clock } from './clock.js';
export {
  ArgumentError,
  CallError,
  CircuitRefusedError,
  CircuitryError,
  ExpectedError,
  RecordError,
  SettingsError,
  StoreError,
} from './errors.js';
export type { Refusal, RefusalReason } from './errors.js';
export { Factory, createFactory } from './factory.js';
export { COMPONENT_SHA256 } from './generated/modules.js';
export { MemoryStore } from './memory.js';
export { NAME_MAX_BYTES, defaultName } from './names.js';
export type { Context } from './names.js';
export type { CircuitOptions, FactoryOptions, Logger, TripFn, TripRule, Window, Windowed } from './options.js';
export { defaultErrorMatcher, failureRetryAfter } from './outcome.js';
export type { FailureRetryAfter, MatchError, Outcome, Settlement, WorkResult } from './outcome.js';
export { Permit } from './permit.js';
export type {
  Counts,
  Information,
  NextChange,
  Override,
  OverrideKind,
  Probe,
  RuleState,
  State,
  StateChange,
  StoreFallback,
  Transition,
  TransitionReason,
  Trip,
  TripInformation,
} from './state.js';
export { checkName, mintVersion } from './store.js';
export type { Entry, Loaded, Store, Swapped } from './store.js';

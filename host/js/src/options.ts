/** The options of a factory, as they are given. */

import type { Clock } from './clock.js';
import type { Context } from './names.js';
import type { Judgement, MatchError } from './outcome.js';
import type { StateChange, StoreFallback, TripInformation } from './state.js';
import type { Store } from './store.js';

/** Which calls of a closed circuit a rule looks at. Every entry into *closed* begins all windows anew; ignored outcomes are in none. */
export type Window =
  /** The last so many calls: 1 to 1,024. */
  | { readonly calls: number }
  /** The calls of the last so many milliseconds, at least 1; kept in at most 20 buckets, so a call leaves the window with its bucket. */
  | { readonly timeMs: number }
  /** All calls, each with a weight that halves with every so many milliseconds; at least 1. */
  | { readonly decayingMs: number };

/** What the rules over a window have in common. */
export interface Windowed {
  /** Which calls. */
  readonly window: Window;
  /** The rule sleeps until so many calls are in the window; at least 1, and for a window of calls not above its size. */
  readonly minimumCalls: number;
}

/**
 * When a closed circuit trips. A rule over failures is asked after each failure, `slow-call-rate` after each slow call. *At least*
 * the threshold trips; the consecutive failures have to be *over* theirs.
 */
export type TripRule =
  /** When the failures in a row are over `failureCountThreshold`, once so many calls were counted (0, the default: from the first). */
  | { readonly kind: 'consecutive-failures'; readonly minimumCalls?: number | undefined }
  /** When the window has so many failures: at least 1, and for a window of calls not above its size. */
  | ({ readonly kind: 'failure-count'; readonly failures: number } & Windowed)
  /** When so many per mille of the calls in the window are failures: 1 to 1,000. */
  | ({ readonly kind: 'failure-rate'; readonly perMille: number } & Windowed)
  /** When so many per mille of the calls in the window were slow: 1 to 1,000. Needs `slowCallAfterMs`. */
  | ({ readonly kind: 'slow-call-rate'; readonly perMille: number } & Windowed)
  /** When `tripFn` says so. It is not given here, but shown to who reads the rules of a circuit. */
  | { readonly kind: 'custom'; readonly name: string; readonly version: number };

/** How circuits behave: what the processes of a fleet share. Lengths of time are in milliseconds. */
export interface CircuitOptions {
  /** How many consecutive failures a closed circuit bears; one more trips it. Default 5. */
  readonly failureCountThreshold?: number | bigint | undefined;
  /** When a closed circuit trips: any of these, at most 4 with `tripFn`. Default: `consecutive-failures`. */
  readonly tripRules?: readonly TripRule[] | undefined;
  /** A call that took longer is slow; at least 1. Default: none is. */
  readonly slowCallAfterMs?: number | bigint | undefined;
  /** How long the counts of a closed circuit live from their first write on; at least 1. Default: until it trips. */
  readonly cyclicClearAfterMs?: number | bigint | undefined;
  /** How long an open circuit refuses before it lets probes through; at least 1. Default 60,000. */
  readonly allowAfterMs?: number | bigint | undefined;
  /** Open times that grow from trip to trip. Default: each takes `allowAfterMs`. */
  readonly backoff?:
    | {
        /** Each trip in a row opens for so many per mille of the time before: 1,000 to 100,000; 2,000 doubles. */
        readonly factorPerMille: number;
        /** The longest open time; not below `allowAfterMs`. */
        readonly maxMs: number | bigint;
        /** A circuit that has been closed for so long begins with `allowAfterMs` again. */
        readonly healthyAfterMs: number | bigint;
      }
    | undefined;
  /** An open time is up to so many per mille shorter: 0 to 1,000, by the circuit's name and era. Default 0. */
  readonly jitterPerMille?: number | undefined;
  /** The most that a failure's `retryAfterMs` counts; 0: it does not count. Default 600,000. */
  readonly retryAfterMaxMs?: number | bigint | undefined;
  /** How many successful probes close the circuit: 1 to 64. Default 1. */
  readonly closeThreshold?: number | undefined;
  /** How many probes a half-open phase has: `closeThreshold` to 64. Default: `closeThreshold`, so all must succeed. */
  readonly probes?: number | undefined;
  /** How many probes may be out at once, in the whole fleet. Default: all of them. */
  readonly probesAtOnce?: number | undefined;
  /** How long the lease of a probe lasts; it is renewed while the work runs. At least 1. Default 30,000. */
  readonly probeTimeoutMs?: number | bigint | undefined;
  /** How long a half-open phase may take, and what follows then. Default: as long as it takes. */
  readonly halfOpenLimit?: { readonly afterMs: number | bigint; readonly then: 'opens' | 'closes' } | undefined;
  /** How the load comes back when the circuit has closed: 1 to 8 growing shares per mille, each for `stepMs`. Default: all at once. */
  readonly ramp?: { readonly stepsPerMille: readonly number[]; readonly stepMs: number | bigint } | undefined;
  /** Nodes decide for themselves, and so many of them (1 to 32) within a window for the fleet. Needs `nodeId`. */
  readonly quorum?: { readonly votes: number; readonly windowMs: number | bigint } | undefined;
  /** The revision of these settings: a process with a lower one does not bring its own back. Default 0. */
  readonly settingsRevision?: number | bigint | undefined;
  /** How long a record is kept after the last thing in it that matters; at least 1. Default 24 h. Not shared. */
  readonly idleRetentionMs?: number | bigint | undefined;
}

/** A trip rule of your own. It must be pure, and the same in every process. */
export interface TripFn {
  /** 1 to 64 bytes. Name and version stand for the function in the settings that the fleet shares. */
  readonly name: string;
  /** Raise it when you change the function. */
  readonly version: number;
  /** Whether the circuit trips; asked after each failure of a closed circuit, and again after a lost race. Not async. */
  readonly trips: (query: TripInformation) => boolean;
}

/** What is told of what goes on. `console` is one. */
export interface Logger {
  debug?(message: string, fields: Record<string, unknown>): void;
  info?(message: string, fields: Record<string, unknown>): void;
  warn?(message: string, fields: Record<string, unknown>): void;
  error?(message: string, fields: Record<string, unknown>): void;
}

/** The options of {@link createFactory}. */
export interface FactoryOptions extends CircuitOptions {
  /** Where records live. Default: a {@link MemoryStore} of this factory's own. */
  readonly store?: Store | undefined;
  /** What becomes of calls while the store is down: go on with the same rules on a record of this process (`local`, the default),
   * `admit` every start and count nothing, or `refuse` every start. */
  readonly storeFailure?: 'local' | 'admit' | 'refuse' | undefined;
  /** How long one call may wait for the store, tries included: 1 to 3,600,000. Default 500. */
  readonly storeTimeoutMs?: number | undefined;
  /** A trip rule of your own: one more beside `tripRules`, or the only one. */
  readonly tripFn?: TripFn | undefined;
  /** The name under which this node votes, where a quorum is in force: 1 to 48 bytes, its own and the same after a restart. */
  readonly nodeId?: string | undefined;
  /** Under which name a breaker's circuit is shared. Default: {@link defaultName}. It must not map two tenants to one name. */
  readonly nameFn?: ((name: string, context: Context) => string) | undefined;
  /** What an error of the work means, for circuits without a matcher of their own. Default: {@link defaultErrorMatcher}. */
  readonly fallbackErrorMatcher?: MatchError | undefined;
  /** What an error means for the breakers of one name (the one given to `breakerFor`). */
  readonly circuitSpecificErrorMatchers?: Readonly<Record<string, MatchError>> | undefined;
  /** Is told of each change of state that this process made: once for each in the whole fleet. */
  readonly stateChangeCallback?: ((change: StateChange) => void) | undefined;
  /** Is told once when the store goes down, and once when it answers again. */
  readonly storeFallbackCallback?: ((fallback: StoreFallback) => void) | undefined;
  /** Is told what a person may want to know: lost outcomes, other settings in force, an outage. Default: nobody. */
  readonly logger?: Logger | undefined;
  /** Where time comes from until the store tells its own, and by which calls are slow. Default: {@link SystemClock}. */
  readonly clock?: Clock | undefined;
  /** Of how many circuits this process remembers the entry last seen; at least 1. Default 100,000. */
  readonly maxCircuits?: number | undefined;
  /**
   * The core module, where it can be neither read nor fetched: a compiled `WebAssembly.Module`, its bytes (`Uint8Array`, `ArrayBuffer`),
   * or its address (`URL`).
   */
  readonly coreModule?: object | undefined;
}

/** What a matcher says; re-exported for whoever writes one. */
export type { Judgement, MatchError };

/** What a circuit is, as people and callbacks are told. Times are milliseconds since the Unix epoch, in store time. */

import type { StoreError } from './errors.js';
import type { Context } from './names.js';
import type { CircuitOptions, TripRule } from './options.js';

/** What a circuit does with a start: admits, refuses, or admits a few probes. */
export type State = 'closed' | 'open' | 'half-open';

/** Why a circuit changed its state. */
export type TransitionReason =
  | 'tripped'
  | 'open-time-over'
  | 'probes-succeeded'
  | 'probe-failed'
  | 'votes-reached'
  | 'half-open-overdue-opened'
  | 'half-open-overdue-closed'
  | 'reset';

/** A change of state. */
export interface Transition {
  readonly previous: State;
  readonly next: State;
  readonly reason: TransitionReason;
  /** When it took effect. */
  readonly atMs: number;
  /** The era that began. */
  readonly era: number;
  /** The generation that is counted from then on. */
  readonly generation: number;
}

/** A change of state, as the callback is told. */
export interface StateChange {
  /** The name given to `breakerFor`. */
  readonly name: string;
  /** The circuit's name, as it is shared. */
  readonly circuit: string;
  /** The context of the breaker that first named the circuit in this process. */
  readonly context: Context;
  /** The state before. */
  readonly from: State;
  /** The state after. */
  readonly to: State;
  /** All of it: reason, time, era, generation. */
  readonly transition: Transition;
  /** Whether it is a record of this process's own that changed: because the store was down, or because a quorum is in force. */
  readonly local: boolean;
}

/** The store went down, or answers again. */
export type StoreFallback =
  | {
      readonly down: true;
      /** The circuit whose call found it out. */
      readonly circuit: string;
      /** What the store said. */
      readonly error: StoreError;
    }
  | {
      readonly down: false;
      /** How many calls, whose write may have happened before, are now repeated to be applied once. */
      readonly parked: number;
    };

/** What has been counted since the generation began. */
export interface Counts {
  readonly total: number;
  readonly totalSuccesses: number;
  readonly totalFailures: number;
  readonly consecutiveSuccesses: number;
  readonly consecutiveFailures: number;
}

/** What a trip function is asked about: a failure that was just counted on a closed circuit. */
export interface TripInformation {
  readonly circuit: string;
  readonly failureCountThreshold: number;
  readonly generation: number;
  /** The counts, with the failure in them. */
  readonly counts: Counts;
}

/** What a person can force. */
export type OverrideKind =
  /** Every start is refused. */
  | 'forced-open'
  /** Every start is admitted; outcomes of a closed circuit are counted, but nothing trips. */
  | 'forced-closed'
  /** Every start is admitted with a permit that counts nothing, and no outcome counts anything. */
  | 'disabled'
  /** Everything goes on as ever, but a start that would be refused is admitted with a permit that counts nothing and says so. */
  | 'metrics-only';

/** A state set by a person, for the whole fleet. The state underneath goes on as it is when the override ends. */
export interface Override {
  readonly kind: OverrideKind;
  /** Who set it; at most 128 bytes. */
  readonly author: string;
  /** Why; at most 256 bytes. */
  readonly reason: string;
  /** When it ends, in store time; `undefined`: when somebody takes it away. */
  readonly untilMs?: number | undefined;
}

/** A probe that holds a place in half-open. */
export interface Probe {
  /** The process that has it, as 16 hexadecimal digits. */
  readonly node: string;
  /** The start that was given it. */
  readonly sequence: string;
  /** When its lease ends. */
  readonly deadlineMs: number;
}

/** Why a circuit opened last. */
export interface Trip {
  readonly kind:
    | 'consecutive-failures'
    | 'failure-count'
    | 'failure-rate'
    | 'slow-call-rate'
    | 'custom'
    | 'probe'
    | 'overdue'
    | 'votes';
  /** What was found: failures, a share per mille, failed probes, or votes; for `custom` the failures in a row. */
  readonly observed: number;
  /** With what it opens, in the same unit; 0 for `custom`. */
  readonly threshold: number;
  /** The calls that the rule looked at; 0 where it looks at none. */
  readonly calls: number;
  readonly atMs: number;
  /** How long it opened for, in milliseconds. */
  readonly openForMs: number;
}

/** What a rule sees now. */
export interface RuleState {
  readonly rule: TripRule;
  /** Failures, or a share per mille; for `custom` the failures in a row. */
  readonly observed: number;
  /** The calls that it looks at. */
  readonly calls: number;
}

/** The next change that time brings. */
export interface NextChange {
  readonly kind:
    | 'half-open'
    | 'lease-end'
    | 'half-open-overdue'
    | 'ramp-step'
    | 'override-end'
    | 'counts-clear'
    | 'vote-end';
  readonly atMs: number;
}

/** What a person asks of a circuit. It is plain data: `JSON.stringify` takes it. Numbers over 2^53 are rounded. */
export interface Information {
  /** The effective state, before any override: an open circuit whose time is over reads as half-open. */
  readonly state: State;
  /** The era, 0 where nothing is stored yet. */
  readonly era: number;
  /** How often the counts were reset. */
  readonly generation: number;
  /** The counts; zero where their time is over. */
  readonly counts: Counts;
  /** Since when the circuit is in this state; 0 where nothing is stored yet. */
  readonly sinceMs: number;
  /** Open: when the open time ends. Closed: when the counts are cleared. Half-open: when the phase is overdue. */
  readonly expiresAtMs: number | undefined;
  /** The probes that hold a place. */
  readonly probes: readonly Probe[];
  readonly probeSuccesses: number;
  readonly probeFailures: number;
  /** The override in force. */
  readonly override: Override | undefined;
  /** The last 8 transitions, oldest first. */
  readonly transitions: readonly Transition[];
  /** How often the record was written. */
  readonly revision: number;
  /** Why the circuit opened last. */
  readonly lastTrip: Trip | undefined;
  /** How many trips in a row there were, for the backoff. */
  readonly tripsInARow: number;
  /** Closed: what each rule in force sees. */
  readonly rules: readonly RuleState[];
  /** The ramp, while there is one. */
  readonly ramp: { readonly sharePerMille: number; readonly nextStepAtMs: number } | undefined;
  /** The votes that live, oldest first. */
  readonly votes: readonly { readonly nodeId: string; readonly atMs: number }[];
  /** What time will change next. */
  readonly nextChange: NextChange | undefined;
  /** The settings in force; those of this process where nothing is stored yet. */
  readonly settingsInForce: CircuitOptions;
  /** Whether this process has others. */
  readonly settingsDiffer: boolean;
  /** With a quorum: the record by which this node decides for itself, once it has asked it. */
  readonly own: Information | undefined;
  /** All this in a short paragraph, in English. */
  readonly explanation: string;
  /** Whether this is the process's own record, because the store is down or the process too busy to ask it. */
  readonly local: boolean;
}

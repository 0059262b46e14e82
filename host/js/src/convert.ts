/** The contract's values as people and callbacks are told them. Numbers of 64 bits become numbers, rounded over 2^53. */

import { CallError, type CircuitryError, RecordError, StoreError } from './errors.js';
import { ArgumentError } from './errors.js';
import type * as Wit from './generated/interfaces/circuitry-breaker-types.js';
import { shortened } from './names.js';
import type { CircuitOptions, TripRule } from './options.js';
import { windowOut } from './settings.js';
import type { Information, Override, Transition } from './state.js';

/** A number of 64 bits, of which there may be none. */
function number(value: bigint | undefined): number | undefined {
  return value === undefined ? undefined : Number(value);
}

export function transitionOut(made: Wit.Transition): Transition {
  const { previous, next, reason } = made;
  return { previous, next, reason, atMs: Number(made.atMs), era: Number(made.era), generation: Number(made.generation) };
}

export function overrideOut(set: Wit.Override): Override {
  return { kind: set.kind, author: set.author, reason: set.reason, untilMs: number(set.untilMs) };
}

function ruleOut(rule: Wit.TripRule): TripRule {
  switch (rule.tag) {
    case 'consecutive-failures':
      return { kind: rule.tag, minimumCalls: rule.val.minimumCalls };
    case 'failure-count': {
      const { threshold, window, minimumCalls } = rule.val;
      return { kind: rule.tag, failures: threshold, window: windowOut(window), minimumCalls };
    }
    case 'failure-rate':
    case 'slow-call-rate': {
      const { threshold, window, minimumCalls } = rule.val;
      return { kind: rule.tag, perMille: threshold, window: windowOut(window), minimumCalls };
    }
    case 'custom':
      return { kind: rule.tag, name: rule.val.name, version: rule.val.version };
  }
}

/** Settings in force, as options. */
export function settingsOut(settings: Wit.Settings): CircuitOptions {
  const { policies } = settings;
  return {
    failureCountThreshold: Number(settings.failureCountThreshold),
    closeThreshold: settings.closeThreshold,
    allowAfterMs: Number(settings.allowAfterMs),
    cyclicClearAfterMs: number(settings.cyclicClearAfterMs),
    probeTimeoutMs: Number(settings.probeTimeoutMs),
    idleRetentionMs: Number(settings.idleRetentionMs),
    settingsRevision: Number(settings.settingsRevision),
    tripRules: policies?.tripRules.length ? policies.tripRules.map(ruleOut) : [{ kind: 'consecutive-failures', minimumCalls: 0 }],
    slowCallAfterMs: number(policies?.slowCallAfterMs),
    backoff: policies?.backoff && {
      factorPerMille: policies.backoff.factorPerMille,
      maxMs: Number(policies.backoff.maxMs),
      healthyAfterMs: Number(policies.backoff.healthyAfterMs),
    },
    jitterPerMille: policies?.jitterPerMille ?? 0,
    retryAfterMaxMs: Number(policies?.retryAfterMaxMs ?? 600_000n),
    probes: policies?.probes,
    probesAtOnce: policies?.probesAtOnce,
    halfOpenLimit: policies?.halfOpenLimit && {
      afterMs: Number(policies.halfOpenLimit.afterMs),
      then: policies.halfOpenLimit.then,
    },
    ramp: policies?.ramp && { stepsPerMille: [...policies.ramp.stepsPerMille], stepMs: Number(policies.ramp.stepMs) },
    quorum: policies?.quorum && { votes: policies.quorum.votes, windowMs: Number(policies.quorum.windowMs) },
  };
}

export function informationOut(seen: Wit.Information, local: boolean): Information {
  const { counts, lastTrip, ramp, nextChange } = seen;
  return {
    state: seen.state,
    era: Number(seen.era),
    generation: Number(seen.generation),
    counts: {
      total: Number(counts.total),
      totalSuccesses: Number(counts.totalSuccesses),
      totalFailures: Number(counts.totalFailures),
      consecutiveSuccesses: Number(counts.consecutiveSuccesses),
      consecutiveFailures: Number(counts.consecutiveFailures),
    },
    sinceMs: Number(seen.sinceMs),
    expiresAtMs: number(seen.expiresAtMs),
    probes: seen.probes.map(({ id, deadlineMs }) => ({
      node: id.node.toString(16).padStart(16, '0'),
      sequence: id.sequence.toString(),
      deadlineMs: Number(deadlineMs),
    })),
    probeSuccesses: seen.probeSuccesses,
    probeFailures: seen.probeFailures,
    override: seen.override && overrideOut(seen.override),
    transitions: seen.transitions.map(transitionOut),
    revision: Number(seen.revision),
    lastTrip: lastTrip && {
      kind: lastTrip.kind,
      observed: Number(lastTrip.observed),
      threshold: Number(lastTrip.threshold),
      calls: Number(lastTrip.calls),
      atMs: Number(lastTrip.atMs),
      openForMs: Number(lastTrip.openForMs),
    },
    tripsInARow: seen.tripsInARow,
    rules: seen.rules.map(({ rule, observed, calls }) => {
      return { rule: ruleOut(rule), observed: Number(observed), calls: Number(calls) };
    }),
    ramp: ramp && { sharePerMille: ramp.sharePerMille, nextStepAtMs: Number(ramp.nextStepAtMs) },
    votes: seen.votes.map(({ nodeId, atMs }) => ({ nodeId, atMs: Number(atMs) })),
    nextChange: nextChange && { kind: nextChange.kind, atMs: Number(nextChange.atMs) },
    settingsInForce: settingsOut(seen.settingsInForce),
    settingsDiffer: seen.settingsDiffer,
    own: undefined,
    explanation: seen.explanation,
    local,
  };
}

/** The error of a call, by the component's words. */
export function errorOut(circuit: string, error: Wit.Error): CircuitryError {
  switch (error.tag) {
    case 'circuit-name':
      return new ArgumentError('circuit', error.val);
    case 'settings':
      return new ArgumentError(`settings.${error.val.field}`, error.val.problem);
    case 'request':
      return new ArgumentError(`circuit ${shortened(circuit)}`, error.val);
    case 'stored-record':
      return error.val.tag === 'malformed'
        ? new RecordError(circuit, 'malformed', `what is stored for it is no record of circuitry: ${error.val.val}`)
        : new RecordError(
            circuit,
            'newer-schema',
            `what is stored for it has schema ${error.val.val}, newer than this version knows; deploy a newer circuitry here too`,
          );
    case 'store':
      return new StoreError(error.val.tag, error.val.val);
    case 'contention':
      return contention(circuit);
    case 'forgotten':
      return new CallError(
        circuit,
        'forgotten',
        'whether the call was applied cannot be told any more; it was not applied again',
      );
  }
}

export function contention(circuit: string): CallError {
  return new CallError(circuit, 'contention', 'too many processes write it at once; try again');
}

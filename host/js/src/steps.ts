/**
 * A call in steps: the component decides, the host asks the store. This is the loop that `wit/exchange.wit` describes; nothing in it
 * blocks.
 */

import { type Deadline, load, mayHaveWritten, swap } from './asking.js';
import type { Component } from './component.js';
import { contention, errorOut } from './convert.js';
import { CallError, CircuitryError } from './errors.js';
import type * as Exchange from './generated/interfaces/circuitry-breaker-exchange.js';
import type * as Wit from './generated/interfaces/circuitry-breaker-types.js';
import type { MemoryStore } from './memory.js';
import { type Loaded, type Store, messageOf } from './store.js';

/** How many swaps a call tries before it gives the race up; the same number as in the component. */
const TRIES_MAX = 8;

/** What is asked. */
export type Operation =
  | { readonly kind: 'start'; readonly number: bigint }
  | { readonly kind: 'end'; readonly completions: Wit.Completion[] }
  | { readonly kind: 'renew'; readonly era: bigint; readonly probe: Wit.Token }
  | { readonly kind: 'inspect' }
  | { readonly kind: 'set-override'; readonly override: Wit.Override | undefined }
  | { readonly kind: 'vote'; readonly era: bigint; readonly nodeId: string }
  | { readonly kind: 'reset' };

/** One call. */
export interface Call {
  readonly circuit: string;
  readonly settings: Wit.Settings;
  readonly operation: Operation;
  readonly caller: Wit.Caller;
  /** The entry last seen; loaded where there is none. */
  readonly known: Loaded | undefined;
  readonly nowMs: number;
}

/** An answer, with the entry last seen. */
export interface Answered {
  readonly answer: Exchange.Answer;
  readonly seen: Loaded;
}

/** A call that failed, with what was seen on the way. */
export interface Failed {
  readonly error: CircuitryError;
  readonly lastSeen?: Loaded | undefined;
  /** The revision that a swap was based on whose fate is unknown. */
  readonly revision?: bigint | undefined;
}

/** The call as the component is asked. */
export function requestOf({ circuit, settings, operation, caller }: Omit<Call, 'known' | 'nowMs'>): Exchange.Request {
  switch (operation.kind) {
    case 'start':
      return { tag: 'start', val: { circuit, settings, caller } };
    case 'end':
      return { tag: 'end', val: { circuit, settings, caller, completions: operation.completions } };
    case 'renew':
      return { tag: 'renew', val: { circuit, settings, caller, era: operation.era, probes: [operation.probe] } };
    case 'inspect':
      return { tag: 'inspect', val: { circuit, settings } };
    case 'set-override':
      return { tag: 'set-override', val: { circuit, settings, caller, override: operation.override } };
    case 'vote':
      return { tag: 'vote', val: { circuit, settings, caller, era: operation.era, nodeId: operation.nodeId } };
    case 'reset':
      return { tag: 'reset', val: { circuit, settings, caller } };
  }
}

/** Whether the answer denies the caller something that a newer entry may grant. */
function denies(answer: Exchange.Answer): boolean {
  switch (answer.tag) {
    case 'settled':
      return answer.val.dispositions.some(({ stale }) => stale > 0);
    case 'renewed':
      return answer.val.deadlines.some((deadline) => deadline === undefined);
    case 'voted':
      return !answer.val.accepted;
    default:
      return false;
  }
}

/** Runs a call against a store. It throws nothing. */
export async function run(component: Component, store: Store, call: Call, deadline: Deadline): Promise<Answered | Failed> {
  const { circuit } = call;
  const request = requestOf(call);
  let { nowMs, known: seen } = call;
  let unverified = seen !== undefined;
  let revision: bigint | undefined;
  try {
    seen ??= await load(store, circuit, deadline);
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      // A later time is kept through a conflict that tells none.
      nowMs = Math.max(nowMs, seen.nowMs ?? 0);
      if (!component.isReady) await component.ready(circuit);
      const decision = component.decide(circuit, request, { entry: seen.entry }, BigInt(nowMs));
      if (decision.tag === 'done') {
        if (unverified && denies(decision.val)) {
          // No swap has shown that the entry is still the one in the store.
          unverified = false;
          seen = await load(store, circuit, deadline);
          continue;
        }
        if (decision.val.tag === 'failed') return { error: errorOut(circuit, decision.val.val), lastSeen: seen };
        return { answer: decision.val, seen };
      }
      const { value, ttlMs, answerIfStored, basedOn } = decision.val;
      // Set for as long as the swap is under way: what fails then may have written.
      revision = basedOn;
      const swapped = await swap(store, circuit, seen.entry?.version, value, ttlOf(ttlMs), deadline);
      revision = undefined;
      if (swapped.stored) {
        const stored = { entry: { value, version: swapped.version }, nowMs: swapped.nowMs };
        if (answerIfStored.tag === 'failed') return { error: errorOut(circuit, answerIfStored.val), lastSeen: stored };
        return { answer: answerIfStored, seen: stored };
      }
      unverified = false;
      seen = { entry: swapped.entry, nowMs: swapped.nowMs };
    }
    return { error: contention(circuit), lastSeen: seen };
  } catch (error) {
    return { error: known(circuit, error), lastSeen: seen, revision: mayHaveWritten(error) ? revision : undefined };
  }
}

/** Runs a call against a record of this process's own, at once: nobody else can write it meanwhile. It throws nothing. */
export function runAtOnce(component: Component, records: MemoryStore, call: Call): Answered | Failed {
  const { circuit } = call;
  try {
    const seen = records.loadNow(circuit);
    const nowMs = Math.max(call.nowMs, seen.nowMs ?? 0);
    const decision = component.decide(circuit, requestOf(call), { entry: seen.entry }, BigInt(nowMs));
    let answer = decision.tag === 'done' ? decision.val : decision.val.answerIfStored;
    if (decision.tag === 'write') {
      const { value, ttlMs } = decision.val;
      records.swapNow(circuit, seen.entry?.version, value, ttlOf(ttlMs));
    }
    return answer.tag === 'failed' ? { error: errorOut(circuit, answer.val), lastSeen: seen } : { answer, seen };
  } catch (error) {
    return { error: known(circuit, error) };
  }
}

function known(circuit: string, error: unknown): CircuitryError {
  if (error instanceof CircuitryError) return error;
  return new CallError(circuit, 'trapped', `the call was cut off: ${messageOf(error)}`, { cause: error });
}

/** A time to live beyond what a number holds is 285,000 years. */
function ttlOf(ttlMs: bigint | undefined): number | undefined {
  return ttlMs === undefined ? undefined : Math.min(Number(ttlMs), Number.MAX_SAFE_INTEGER);
}

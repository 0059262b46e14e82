/**
 * With a quorum: the record by which a node decides for itself, and its vote when that opens.
 *
 * The own record is one in memory, of this process and this circuit; it goes by the settings in force without their quorum. It belongs
 * to one era of the shared record and begins anew with the next, so what a node held against the dependency does not outlive the
 * fleet's recovery. Its probes hold places of this node only.
 *
 * A vote is one call on the shared record. It is cast when the own record opens, again with each failed own probe, which prolongs it; it
 * is never taken back.
 */

import { Deadline } from './asking.js';
import type { Circuit } from './circuit.js';
import { informationOut } from './convert.js';
import { type Grant, completionOf } from './ends.js';
import { isOutage, isPassing } from './errors.js';
import { Exchange } from './exchange.js';
import type * as Wit from './generated/interfaces/circuitry-breaker-types.js';
import { MemoryStore } from './memory.js';
import { type Node, expected } from './node.js';
import type { Ending, Settlement } from './outcome.js';
import { settleParked } from './settling.js';
import type { Information } from './state.js';
import { type Operation, runAtOnce } from './steps.js';

/** The record by which this node decides for itself. */
export interface OwnRecord {
  /** The era of the shared record that it belongs to. */
  readonly era: bigint;
  /** Starts from this number on have begun after the record. */
  readonly before: bigint;
  /** The settings in force, as text, to compare. */
  readonly inForce: string;
  /** The settings in force, without the quorum. */
  readonly settings: Wit.Settings;
  readonly records: MemoryStore;
}

function textOf(settings: Wit.Settings): string {
  return JSON.stringify(settings, (_, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value));
}

function ownRecord(node: Node, circuit: Circuit, era: bigint, inForce: Wit.Settings, number: bigint): OwnRecord {
  const text = textOf(inForce);
  const { own } = circuit;
  if (own && own.era === era && own.inForce === text) return own;
  const settings = { ...inForce, policies: inForce.policies && { ...inForce.policies, quorum: undefined } };
  const made = { era, before: circuit.comingStart, inForce: text, settings, records: new MemoryStore(node.clock) };
  // A start that began before the record and saw a lower era was answered late: that era is over. One that began after it has seen what
  // is now; eras go back too, after an outage or where a store was restored.
  if (own && era < own.era && number < own.before) return made;
  return (circuit.own = made);
}

/** Asks the own record. Nobody else writes it, so there is no race. */
async function ask(node: Node, circuit: Circuit, own: OwnRecord, operation: Operation): Promise<Answer> {
  if (!node.component.isReady) await node.component.ready(circuit.name);
  const result = node.askOwn(circuit, operation, own.records, own.settings);
  if ('error' in result) throw result.error;
  return result.answer;
}

type Answer = Parameters<typeof expected>[2];

/** Asks the node's own record too, where the shared one of the era `era` has admitted the start of that number. */
export async function start(
  node: Node,
  circuit: Circuit,
  era: bigint,
  inForce: Wit.Settings,
  number: bigint,
): Promise<{ readonly own: OwnRecord; readonly verdict: Wit.Verdict }> {
  const own = ownRecord(node, circuit, era, inForce, number);
  const answer = await ask(node, circuit, own, { kind: 'start', number: circuit.nextOwnStart() });
  const { verdict, transitions } = expected(circuit, 'started', answer);
  node.announce(circuit, transitions, true);
  // Its own half-open phase took too long. The start does not wait for the store a second time.
  if (hasOpened(transitions)) node.background(cast(node, circuit, era));
  return { own, verdict };
}

/** Settles an outcome on the node's own record; if that opens, the node votes before it is told. */
export async function settle(
  node: Node,
  circuit: Circuit,
  own: OwnRecord,
  grant: Grant,
  ending: Ending,
  slow: boolean,
): Promise<Settlement> {
  // Nothing is decided inside of whatever called.
  await Promise.resolve();
  // The shared era is another one now.
  if (circuit.own !== own) return { disposition: 'stale', local: true };
  const completion = completionOf({ ...grant, ...ending, slow });
  const answer = await ask(node, circuit, own, { kind: 'end', completions: [completion] });
  const { dispositions, transitions } = expected(circuit, 'settled', answer);
  node.announce(circuit, transitions, true);
  if (hasOpened(transitions)) await cast(node, circuit, own.era);
  return { disposition: (dispositions[0]?.accepted ?? 0) > 0 ? 'accepted' : 'stale', local: true };
}

/** Prolongs the lease of one of the node's own probes; says whether it still holds its place. */
export async function renew(node: Node, circuit: Circuit, own: OwnRecord, era: bigint, probe: Wit.Token): Promise<boolean> {
  const answer = await ask(node, circuit, own, { kind: 'renew', era, probe });
  return expected(circuit, 'renewed', answer).deadlines[0] !== undefined;
}

/** Adds what the node's own record shows, where the node goes by one in this era. */
export async function look(node: Node, circuit: Circuit, shared: Wit.Information, shown: Information): Promise<Information> {
  const { own } = circuit;
  if (!own || !shared.settingsInForce.policies?.quorum || own.era !== shared.era) return shown;
  const seen = expected(circuit, 'inspected', await ask(node, circuit, own, { kind: 'inspect' }));
  return {
    ...shown,
    own: informationOut(seen, true),
    explanation: `${shown.explanation} This node decides for itself: ${seen.explanation}`,
  };
}

/** Whether nobody is to be refused now: an override of that kind stands above the node's own record, which does not know it. */
export async function isMetricsOnly(node: Node, circuit: Circuit): Promise<boolean> {
  const { entry } = circuit.known ?? {};
  if (!entry) return false;
  // The entry that the start has just seen, or the last one of before the outage: no store is asked.
  const records = new MemoryStore(node.clock);
  records.swapNow(circuit.name, undefined, entry.value, undefined);
  if (!node.component.isReady) await node.component.ready(circuit.name);
  const caller = node.token({ kind: 'inspect' });
  const call = { circuit: circuit.name, settings: node.settings.circuit, operation: { kind: 'inspect' } as const, caller };
  const result = runAtOnce(node.component, records, { ...call, known: undefined, nowMs: node.clock.nowMs() });
  if ('error' in result) throw result.error;
  return expected(circuit, 'inspected', result.answer).override?.kind === 'metrics-only';
}

function hasOpened(transitions: readonly Wit.Transition[]): boolean {
  return transitions.some(({ next }) => next === 'open');
}

/** Casts this node's vote in the era `era`. Waits for the store's timeout at most; what is not through by then goes on. */
async function cast(node: Node, circuit: Circuit, era: bigint): Promise<void> {
  const operation = { kind: 'vote', era, nodeId: node.voteAs } as const;
  const failed = (error: Error): void => {
    node.settings.logger.warn?.("this node's vote was not counted", { circuit: circuit.name, error });
  };
  if (!node.outage.isDown) {
    const exchange = new Exchange(node, circuit, operation, circuit.known);
    const result = await exchange.run(new Deadline(node.patienceMs));
    if ('answer' in result) return told(node, circuit, expected(circuit, 'voted', result.answer), false);
    const { error } = result;
    // Perhaps it opened the circuit, which is to be told.
    if (isOutage(error) && exchange.mayHaveWritten) node.finishLater(exchange, error);
    else if (isOutage(error)) node.outage.enter(circuit, error);
    else if (isPassing(error)) return node.background(settleParked(node, exchange));
    else return failed(error);
  }
  if (node.settings.storeFailure !== 'local') return;
  const local = await node.askLocally(circuit, operation, node.outage.records);
  if ('error' in local) failed(local.error);
  else told(node, circuit, expected(circuit, 'voted', local.answer), true);
}

/** Tells what a vote brought. */
export function told(node: Node, circuit: Circuit, { accepted, votes, transitions }: Wit.Voted, local: boolean): void {
  node.settings.logger.info?.('this node has voted to open', { circuit: circuit.name, accepted, votes, local });
  node.announce(circuit, transitions, local);
}

/** Starting: what the shared record says, then, with a quorum, what this node's own says; an override stands above both. */

import { isMetricsOnly, start as startOwn } from './ballot.js';
import type { Circuit } from './circuit.js';
import { CallError, CircuitRefusedError, type Refusal, type RefusalReason } from './errors.js';
import type * as Wit from './generated/interfaces/circuitry-breaker-types.js';
import { type Node, expected } from './node.js';
import { type Admitted, Permit } from './permit.js';

/** Asks to begin work. */
export async function start(node: Node, circuit: Circuit): Promise<Permit> {
  if (node.isClosed) throw new CallError(circuit.name, 'closed', 'the factory is closed');
  // One number a start, whoever answers it.
  const number = circuit.nextStart();
  const asked = await node.ask(circuit, { kind: 'start', number });
  if (asked.by === 'nobody') {
    if (node.settings.storeFailure === 'admit') {
      return new Permit(node, circuit, byNobody(undefined, undefined, true));
    }
    throw refused(circuit, { reason: 'store-down', retryAfterMs: node.settings.storeTimeoutMs });
  }
  const admitted = await admit(node, circuit, expected(circuit, 'started', asked.answer), number, asked.by === 'local');
  if ('reason' in admitted) {
    sawRefusal(circuit, admitted);
    throw refused(circuit, admitted);
  }
  if (admitted.wouldHaveRefused) sawRefusal(circuit, admitted.wouldHaveRefused);
  else if (admitted.grant) circuit.sawState(admitted.grant.probe ? 'half-open' : 'closed');
  return new Permit(node, circuit, admitted);
}

/** Makes of an answer who judges the work, or why there is none. */
async function admit(
  node: Node,
  circuit: Circuit,
  started: Wit.Started,
  number: bigint,
  local: boolean,
): Promise<Admitted | Refusal> {
  const { verdict, transitions, settingsInForce } = started;
  node.announce(circuit, transitions, local);
  node.sawSettings(circuit, settingsInForce);
  const inForce = settingsInForce ?? node.settings.circuit;
  if (verdict.tag === 'refusal') return refusalOf(verdict.val);
  const permit = verdict.val;
  const { era } = permit;
  if (permit.judgedBy === 'nobody') {
    return byNobody(era, permit.wouldHaveRefused && refusalOf(permit.wouldHaveRefused), false);
  }
  const leaseMs = Number(inForce.probeTimeoutMs);
  if (permit.judgedBy === 'fleet') return judged(era, { by: 'fleet' }, permit, leaseMs);
  const { own, verdict: ownVerdict } = await startOwn(node, circuit, era, inForce, number);
  if (ownVerdict.tag === 'permit') return judged(era, { by: 'node', own }, ownVerdict.val, leaseMs);
  const refusal = refusalOf(ownVerdict.val);
  const told: Refusal = refusal.reason === 'open' ? { ...refusal, reason: 'node-open' } : refusal;
  return (await isMetricsOnly(node, circuit)) ? byNobody(era, told, false) : told;
}

function judged(era: bigint, judge: Admitted['judge'], permit: Wit.Permit, leaseMs: number): Admitted {
  const { slowCallAfterMs } = permit;
  return {
    era,
    judge,
    grant: { era: permit.era, probe: permit.probe?.id },
    slowCallAfterMs: slowCallAfterMs === undefined ? undefined : Number(slowCallAfterMs),
    wouldHaveRefused: undefined,
    leaseMs,
  };
}

function byNobody(era: bigint | undefined, wouldHaveRefused: Refusal | undefined, local: boolean): Admitted {
  const judge = { by: 'nobody', local } as const;
  return { era, judge, grant: undefined, slowCallAfterMs: undefined, wouldHaveRefused, leaseMs: 0 };
}

function refusalOf(refusal: Wit.Refusal): Refusal {
  return { reason: refusal.reason, retryAfterMs: Number(refusal.retryAfterMs) };
}

function refused(circuit: Circuit, { reason, retryAfterMs }: Refusal): CircuitRefusedError {
  return new CircuitRefusedError(circuit.name, reason, retryAfterMs);
}

/** What a refusal tells of the state. */
const STATES: Partial<Record<RefusalReason, 'closed' | 'open' | 'half-open'>> = {
  open: 'open',
  'node-open': 'open',
  'too-many-requests': 'half-open',
  ramp: 'closed',
};

function sawRefusal(circuit: Circuit, { reason }: Refusal): void {
  const state = STATES[reason];
  if (state) circuit.sawState(state);
}

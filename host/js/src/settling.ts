/**
 * Settling: outcomes of one record go to it together, one swap under way at a time; what ends meanwhile waits and goes with the next.
 */

import { told } from './ballot.js';
import { Deadline, between, patiently, sleep } from './asking.js';
import type { Circuit } from './circuit.js';
import type { Batch, Grant } from './ends.js';
import { CallError, type CircuitryError, isOutage, isPassing } from './errors.js';
import { Exchange } from './exchange.js';
import { type Node, expected } from './node.js';
import type { Ending, Settlement } from './outcome.js';
import { messageOf } from './store.js';

/** The longest pause between two tries of a settling, each of which loses races for as long as it may take. */
const LONGEST_PAUSE_MS = 250;

/** The pauses between the tries of a settling: random ones, that grow. */
function pauses(): () => Promise<void> {
  let atMostMs = 8;
  return () => {
    const paused = sleep(between(atMostMs / 16, atMostMs));
    atMostMs = Math.min(atMostMs * 2, LONGEST_PAUSE_MS);
    return paused;
  };
}

/**
 * Hands an outcome over to be settled, and waits for the answer; but no longer than the store's timeout, the settling goes on. It is
 * settled also if nobody waits for it.
 */
export function handOver(node: Node, circuit: Circuit, grant: Grant, ending: Ending, slow: boolean): Promise<Settlement> {
  return new Promise((resolve, reject) => {
    // By the same measure as the store's own time, so that what has come in or failed by then is told.
    const cancel = patiently(node.settings.storeTimeoutMs, () => resolve({ disposition: 'unsettled', local: false }));
    const settled = (settlement: Settlement): void => {
      cancel();
      resolve(settlement);
    };
    const failed = (error: CircuitryError): void => {
      cancel();
      reject(error);
    };
    if (circuit.ends.push({ ...grant, ...ending, slow, settled, failed })) node.background(settleWaiting(node, circuit));
  });
}

async function settleWaiting(node: Node, circuit: Circuit): Promise<void> {
  // Those who end in the same turn go together; and nothing is decided inside of whatever called.
  await Promise.resolve();
  for (let batch = circuit.ends.nextBatch(); batch; batch = circuit.ends.nextBatch()) {
    try {
      await settleBatch(node, circuit, batch);
    } catch (error) {
      // Not to be: but then it fails this batch, and not the circuit for ever.
      fail(node, circuit, batch, new CallError(circuit.name, 'trapped', messageOf(error), { cause: error }));
    }
  }
}

async function settleBatch(node: Node, circuit: Circuit, batch: Batch): Promise<void> {
  const operation = { kind: 'end', completions: batch.completions } as const;
  const exchange = new Exchange(node, circuit, operation, circuit.known);
  const pause = pauses();
  while (!node.outage.isDown) {
    const result = await exchange.run(new Deadline(node.patienceMs));
    if ('answer' in result) {
      const { dispositions, transitions } = expected(circuit, 'settled', result.answer);
      node.announce(circuit, transitions, false);
      return batch.settle(dispositions, false);
    }
    const { error } = result;
    if (isOutage(error)) {
      node.outage.enter(circuit, error);
      // A node that is closed takes no store as down; it goes the same way all the same.
      break;
    } else if (isPassing(error) && !node.isOver) {
      // No outcome is given up because others write too.
      await pause();
    } else if (error instanceof CallError && error.kind === 'forgotten') {
      node.lost(circuit, exchange.outcomes, error);
      return batch.settleAll({ disposition: 'unsettled', local: false });
    } else {
      return fail(node, circuit, batch, error);
    }
  }
  // Parked, it is repeated under its token when the store answers; meanwhile it counts on the local record too.
  if (exchange.mayHaveWritten && !node.outage.park(exchange)) node.background(settleParked(node, exchange));
  // So that the circuit protects through the outage.
  if (node.settings.storeFailure !== 'local') return batch.settleAll({ disposition: 'uncounted', local: true });
  const local = await node.askLocally(circuit, operation, node.outage.records);
  if ('error' in local) return batch.fail(local.error);
  const { dispositions, transitions } = expected(circuit, 'settled', local.answer);
  node.announce(circuit, transitions, true);
  batch.settle(dispositions, true);
}

function fail(node: Node, circuit: Circuit, batch: Batch, error: CircuitryError): void {
  node.lost(circuit, batch.replies.length, error);
  batch.fail(error);
}

/**
 * Runs a call again whose write may have happened: it is applied once, and what it did is told. Goes on until it is, or until the node
 * was closed a store's timeout ago.
 */
export async function settleParked(node: Node, exchange: Exchange): Promise<void> {
  const { circuit } = exchange;
  const pause = pauses();
  for (;;) {
    if (node.isOver) return node.lost(circuit, exchange.outcomes, closed(circuit));
    const result = await exchange.run(new Deadline(node.patienceMs));
    if ('answer' in result) {
      const { answer } = result;
      if (answer.tag === 'settled') {
        node.announce(circuit, answer.val.transitions, false);
      } else if (answer.tag === 'voted') {
        told(node, circuit, answer.val, false);
      } else if (answer.tag === 'started') {
        const { verdict, transitions } = answer.val;
        node.announce(circuit, transitions, false);
        if (verdict.tag === 'permit' && verdict.val.probe) {
          // Whoever asked is gone: the place is given back.
          const grant = { era: verdict.val.era, probe: verdict.val.probe.id };
          await handOver(node, circuit, grant, { outcome: 'ignored', retryAfterMs: undefined }, false).catch(() => {});
        }
      }
      return;
    }
    const { error } = result;
    if (isOutage(error)) {
      node.outage.enter(circuit, error);
      if (node.outage.park(exchange)) return;
    }
    if (isPassing(error) || isOutage(error)) {
      await pause();
    } else {
      return node.lost(circuit, exchange.outcomes, error);
    }
  }
}

/** Why what a closed node could not settle is given up. */
export function closed(circuit: Circuit): CallError {
  return new CallError(circuit.name, 'closed', 'the factory was closed before the store had taken it');
}

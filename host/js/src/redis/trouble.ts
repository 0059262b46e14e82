/**
 * Classification: which {@link StoreError} an error of the client or of the server is, so that the caller knows what to do next.
 *
 * Invariant: nothing that may have written is told as anything but `unknown`.
 */

import { StoreError } from '../errors.js';
import { messageOf } from '../store.js';

/** What went wrong with a request, by how far it came. */
export class Trouble extends Error {
  constructor(
    /**
     * - `not-sent`: there was no connection to send it on.
     * - `refused`: the server's own error, which is the proof that the request was not carried out: the script checks before it writes.
     * - `lost`: it was sent, or may have been, and the connection failed.
     * - `no-answer`: the time is over.
     */
    readonly kind: 'not-sent' | 'refused' | 'lost' | 'no-answer',
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** The error of the store. */
  told(what: string, isSwap: boolean): StoreError {
    const because = { cause: this.cause ?? this };
    const error = (kind: StoreError['kind'], how: string): StoreError => {
      return new StoreError(kind, `${what}: ${how}: ${this.message}`, because);
    };
    switch (this.kind) {
      case 'not-sent':
        return error('unavailable', 'there is no connection');
      case 'lost':
      case 'no-answer':
        return error(isSwap ? 'unknown' : 'unavailable', isSwap ? 'it was sent and the answer is lost' : 'the answer is lost');
      case 'refused': {
        const remedy = remedyFor(this.message);
        if (remedy === 'denied') return error(remedy, 'the server does not let this user do it (the README lists the permissions)');
        return error(remedy, remedy === 'unavailable' ? 'the server does not take it now' : 'the server refuses it');
      }
    }
  }
}

/** Errors of the clients that say that the request was not sent. */
const NOT_SENT = new Set(['ClientOfflineError', 'ClientClosedError']);
/** The text by which ioredis says so. */
const NOT_SENT_TEXT = "Stream isn't writeable and enableOfflineQueue options is false";

/** Makes a {@link Trouble} of whatever a client has thrown. */
export function troubleOf(error: unknown): Trouble {
  if (error instanceof Trouble) return error;
  const message = messageOf(error);
  const because = { cause: error };
  const name = error instanceof Error ? error.constructor.name : '';
  if (NOT_SENT.has(name) || NOT_SENT_TEXT === message) return new Trouble('not-sent', message, because);
  if (isServers(error)) return new Trouble('refused', message, because);
  return new Trouble('lost', message, because);
}

/** Whether the server itself has said so. */
function isServers(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  for (let made: unknown = error.constructor; typeof made === 'function'; made = Object.getPrototypeOf(made)) {
    // node-redis has the first, ioredis the second.
    if (made.name === 'ErrorReply' || made.name === 'ReplyError') return true;
  }
  return false;
}

/** Not ready, not the master, out of memory or of disk, too few replicas, busy with somebody's script: all of them pass. */
const PASSING = new Set(
  'LOADING READONLY MASTERDOWN CLUSTERDOWN TRYAGAIN MOVED ASK OOM MISCONF NOREPLICAS BUSY NOSCRIPT UNBLOCKED'.split(' '),
);

function codeOf(message: string): string {
  return /^[A-Z]+/.exec(message)?.[0] ?? '';
}

export function remedyFor(message: string): 'unavailable' | 'denied' | 'other' {
  const code = codeOf(message);
  if (code === 'NOPERM' || code === 'NOAUTH' || code === 'WRONGPASS') return 'denied';
  // A user may run the script, but not a command in it; before Redis 7 that has no code of its own.
  if (message.includes("The user executing the script can't")) return 'denied';
  if (PASSING.has(code) || message.includes('max number of clients reached')) return 'unavailable';
  return 'other';
}

/** Whether the server does not know the script, which it then has not run. */
export function isUnknownScript(trouble: Trouble): boolean {
  return trouble.kind === 'refused' && codeOf(trouble.message) === 'NOSCRIPT';
}

/** Whether the key holds another type than a hash. */
export function isWrongType(trouble: Trouble): boolean {
  return trouble.kind === 'refused' && codeOf(trouble.message) === 'WRONGTYPE';
}

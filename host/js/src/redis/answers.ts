/** What the server answers, read strictly: an answer of another form is not taken for one of ours. */

import type { Entry } from '../store.js';

/** Why an answer to HMGET is no entry: one of the fields is there without the other, or it is another answer. */
export type Misfit = 'foreign' | 'unreadable';

/** What the script answers. */
export type Ruling =
  | { readonly kind: 'stored'; readonly nowMs: number }
  | { readonly kind: 'conflict'; readonly nowMs: number; readonly entry: Entry | undefined }
  | { readonly kind: 'foreign'; readonly nowMs: number };

export function entryIn(fields: unknown): Entry | 'absent' | Misfit {
  if (!Array.isArray(fields) || fields.length !== 2) return 'unreadable';
  const [version, value] = fields as unknown[];
  if (version === null && value === null) return 'absent';
  if (version instanceof Uint8Array && value instanceof Uint8Array) return entryOf(version, value);
  const isField = (field: unknown): boolean => field === null || field instanceof Uint8Array;
  return isField(version) && isField(value) ? 'foreign' : 'unreadable';
}

/** Copies: what the clients give are views on all that came in with it, up to 64 kB, which an entry that is remembered would keep. */
function entryOf(version: Uint8Array, value: Uint8Array): Entry {
  return { version: new Uint8Array(version), value: new Uint8Array(value) };
}

/** TIME answers seconds and, as their fraction, microseconds. */
export function timeIn(answer: unknown): number | undefined {
  if (!Array.isArray(answer) || answer.length !== 2) return undefined;
  const [seconds, microseconds] = answer.map((part) => {
    const text = part instanceof Uint8Array ? new TextDecoder().decode(part) : String(part);
    return /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  });
  const nowMs = (seconds ?? NaN) * 1_000 + Math.floor((microseconds ?? NaN) / 1_000);
  return Number.isSafeInteger(nowMs) ? nowMs : undefined;
}

export function rulingIn(answer: unknown): Ruling | undefined {
  if (!Array.isArray(answer)) return undefined;
  const [ruling, nowMs, version, value] = answer as unknown[];
  if (!(typeof nowMs === 'number' && Number.isSafeInteger(nowMs) && nowMs >= 0)) return undefined;
  if (answer.length === 4 && ruling === 0 && version instanceof Uint8Array && value instanceof Uint8Array) {
    return { kind: 'conflict', nowMs, entry: entryOf(version, value) };
  }
  if (answer.length !== 2) return undefined;
  if (ruling === 0) return { kind: 'conflict', nowMs, entry: undefined };
  if (ruling === 1) return { kind: 'stored', nowMs };
  return ruling === 2 ? { kind: 'foreign', nowMs } : undefined;
}

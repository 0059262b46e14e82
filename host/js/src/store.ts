/** Stores: where records live, and what they answer, taken apart with care. */

import { StoreError, storeErrorOf } from './errors.js';
import { nameProblem, shortened } from './names.js';

/** What is stored for a circuit: a value, and the version of the write that put it there. */
export interface Entry {
  /** The bytes, as they were given to {@link Store.swap}. */
  readonly value: Uint8Array;
  /** The version of the write; opaque, of 1 byte or more. */
  readonly version: Uint8Array;
}

/** The answer to a load, and what a lost race brings. */
export interface Loaded {
  /** The entry; `undefined` when there is none or its time to live is over. */
  readonly entry?: Entry | undefined;
  /** The store's own clock in milliseconds since the Unix epoch, where the store tells it. */
  readonly nowMs?: number | undefined;
}

/** What became of a swap. A lost race is an outcome, not an error, and brings the entry that won. */
export type Swapped =
  | {
      /** The value is stored. */
      readonly stored: true;
      /** The version that the entry has now. */
      readonly version: Uint8Array;
      /** The store's own clock, where it tells it. */
      readonly nowMs?: number | undefined;
    }
  | ({
      /** Nothing was written: the entry is not the expected one. Here is the one that is. */
      readonly stored: false;
    } & Loaded);

/**
 * A place that keeps one entry for each circuit and replaces it only if it is unchanged.
 *
 * - `swap` is atomic: of several with the same `expected`, at most one is stored.
 * - A version is minted at random before each write ({@link mintVersion}), so none repeats, not even after the entry expired and was
 *   written again.
 * - An entry whose time to live is over is absent, for `load` and `swap` alike.
 * - Names are opaque: any Unicode text of 1 to 1,024 bytes in UTF-8, and two names never share an entry.
 * - A swap that may or may not have happened is a {@link StoreError} of the kind `unknown`; it is never sent again inside. A conflict
 *   that shows the very version that this swap minted is told as stored.
 *
 * What else a store throws is taken as `unavailable` by a load, and as `unknown` by a swap. What it answers is looked at before it
 * is used.
 */
export interface Store {
  /**
   * Reads the entry of `circuit`. A failure is never read as absence.
   *
   * @throws {StoreError} sorted by what to do next.
   */
  load(circuit: string): Promise<Loaded>;
  /**
   * Replaces the entry of `circuit` by `value` if its version is still `expected` (`undefined`: if there is no entry).
   *
   * `ttlMs` is how long the entry lives from now on, in milliseconds; `undefined` is for ever.
   *
   * @throws {StoreError} of the kind `unknown` when the value may or may not have been written; with the others nothing was.
   */
  swap(circuit: string, expected: Uint8Array | undefined, value: Uint8Array, ttlMs: number | undefined): Promise<Swapped>;
  /** Tells watchers in other processes that the entry of `circuit` was replaced, where the store can. A hint: it may be lost. */
  announce?(circuit: string): Promise<void>;
}

/**
 * The most bytes of an entry that is looked at. A record has at most 4,096; what is much larger is not one, and would only fill the
 * component's memory.
 */
const VALUE_MAX_BYTES = 65_536;
/** The most bytes of a version. */
const VERSION_MAX_BYTES = 1_024;

const VERSION_BYTES = 16;
/** Random bytes to come: drawn for many versions at once, since drawing is dear. */
let drawn = new Uint8Array(0);

/** Mints a version of 16 random bytes. */
export function mintVersion(): Uint8Array {
  if (drawn.length === 0) drawn = crypto.getRandomValues(new Uint8Array(64 * VERSION_BYTES));
  const version = drawn.slice(0, VERSION_BYTES);
  drawn = drawn.subarray(VERSION_BYTES);
  return version;
}

/** Whether two versions, or the lack of one, are the same. */
export function sameBytes(one: Uint8Array | undefined, other: Uint8Array | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  if (one.length !== other.length) return false;
  for (let index = 0; index < one.length; index++) if (one[index] !== other[index]) return false;
  return true;
}

/** Refuses what is no circuit's name. */
export function checkName(circuit: string): void {
  const problem = nameProblem(circuit);
  if (problem !== undefined) throw new StoreError('other', `the circuit's name cannot be used: ${problem}`);
}

/** Bytes also where they come from another realm, as in some test runners. */
function isBytes(value: unknown): value is Uint8Array {
  return Object.prototype.toString.call(value) === '[object Uint8Array]';
}

/** What is wrong with an answer, for a person. */
class Garbage extends Error {}

function entryIn(entry: unknown): Entry | undefined {
  if (entry === undefined || entry === null) return undefined;
  if (typeof entry !== 'object') throw new Garbage(`the entry is ${typeof entry}`);
  const { value, version } = entry as Partial<Entry>;
  if (!isBytes(value)) throw new Garbage('the value of the entry is no Uint8Array');
  if (value.length > VALUE_MAX_BYTES) {
    throw new Garbage(`the value of the entry has ${value.length} bytes, which is no record of a circuit`);
  }
  return { value, version: versionIn(version) };
}

function versionIn(version: unknown): Uint8Array {
  if (!isBytes(version)) throw new Garbage('the version is no Uint8Array');
  if (version.length < 1 || version.length > VERSION_MAX_BYTES) {
    throw new Garbage(`the version has ${version.length} bytes, not 1 to ${VERSION_MAX_BYTES}`);
  }
  return version;
}

function timeIn(nowMs: unknown): number | undefined {
  if (nowMs === undefined || nowMs === null) return undefined;
  const ms = typeof nowMs === 'bigint' ? Number(nowMs) : nowMs;
  if (typeof ms !== 'number' || !(ms >= 0) || ms > Number.MAX_SAFE_INTEGER) {
    throw new Garbage(`its time is ${String(nowMs).slice(0, 40)}, not milliseconds since 1970`);
  }
  return Math.floor(ms);
}

function loadedIn(answer: unknown): Loaded {
  if (typeof answer !== 'object' || answer === null) throw new Garbage(`it is ${answer === null ? 'null' : typeof answer}`);
  const { entry, nowMs } = answer as Loaded;
  return { entry: entryIn(entry), nowMs: timeIn(nowMs) };
}

function swappedIn(answer: unknown): Swapped {
  const loaded = loadedIn(answer);
  const { stored, version } = answer as { stored?: unknown; version?: unknown };
  if (stored === true) return { stored, version: versionIn(version), nowMs: loaded.nowMs };
  if (stored === false) return { stored, ...loaded };
  throw new Garbage('it does not say whether the value is stored');
}

/** Loads, whatever the store throws or answers. */
export async function loadFrom(store: Store, circuit: string): Promise<Loaded> {
  const what = `load of ${shortened(circuit)}`;
  let answer: unknown;
  try {
    answer = await store.load(circuit);
  } catch (error) {
    throw storeErrorOf(error) ?? new StoreError('unavailable', `${what}: the store failed: ${messageOf(error)}`, { cause: error });
  }
  try {
    return loadedIn(answer);
  } catch (error) {
    throw new StoreError('other', `${what}: the answer is none of a store: ${messageOf(error)}`);
  }
}

/** Swaps, whatever the store throws or answers. */
export async function swapIn(
  store: Store,
  circuit: string,
  expected: Uint8Array | undefined,
  value: Uint8Array,
  ttlMs: number | undefined,
): Promise<Swapped> {
  const what = `swap of ${shortened(circuit)}`;
  let answer: unknown;
  try {
    answer = await store.swap(circuit, expected, value, ttlMs);
  } catch (error) {
    throw storeErrorOf(error) ?? new StoreError('unknown', `${what}: the store failed: ${messageOf(error)}`, { cause: error });
  }
  try {
    return swappedIn(answer);
  } catch (error) {
    // Whoever answers so may have done anything.
    throw new StoreError('unknown', `${what}: the answer is none of a store: ${messageOf(error)}`);
  }
}

/** The text of whatever was thrown. */
export function messageOf(error: unknown): string {
  try {
    return error instanceof Error ? error.message : String(error);
  } catch {
    return 'something that is no error';
  }
}

/** {@link Breaker}: a handle on one circuit. */

import { look } from './ballot.js';
import type { Circuit } from './circuit.js';
import { informationOut, overrideOut } from './convert.js';
import { ArgumentError } from './errors.js';
import type * as Wit from './generated/interfaces/circuitry-breaker-types.js';
import { textProblem } from './names.js';
import { type Node, expected } from './node.js';
import { type Outcome, type Settlement, type WorkResult, unheard } from './outcome.js';
import type { Permit } from './permit.js';
import { start } from './starting.js';
import type { Information, Override, OverrideKind, State } from './state.js';
import type { Operation } from './steps.js';
import { messageOf } from './store.js';

/** The most bytes of an override's texts, as `wit/` says. */
const AUTHOR_MAX_BYTES = 128;
const REASON_MAX_BYTES = 256;
const KINDS: readonly OverrideKind[] = ['forced-open', 'forced-closed', 'disabled', 'metrics-only'];

/** What {@link Breaker.start} may be told. */
export interface StartOptions {
  /** Aborted, the start goes on without the caller, and the permit it may get is settled as ignored. */
  readonly signal?: AbortSignal | undefined;
}

/** What {@link Breaker.execute} may be told. */
export interface ExecuteOptions<T = unknown> {
  /**
   * Says how the work ended, in the place of the matchers. It sees what went well too, so an answer of status 503 can be a failure.
   */
  readonly classify?: ((result: WorkResult<T>) => Outcome) | undefined;
  /**
   * Aborted, `execute` fails at once with the signal's reason, whatever the work does, and does not wait for the outcome to be settled:
   * that goes on, and the logger is told if it fails. Work that is done by then keeps its result. By the default matcher a cancel is
   * ignored and a deadline (`AbortSignal.timeout`) is a failure. The work is given the signal too, to stop by it.
   */
  readonly signal?: AbortSignal | undefined;
}

/** What work is told. */
export interface Attempt {
  /** Whether it is a probe. */
  readonly isProbe: boolean;
  /** The circuit's era; `undefined` where nobody was asked, because the store is down. */
  readonly era: number | undefined;
  /** The signal that was given to `execute`. */
  readonly signal: AbortSignal | undefined;
}

/** Work that ran, with what became of its outcome: see {@link Breaker.executeSettled}. */
export interface Executed<T> {
  /** What the work gave. */
  readonly result: WorkResult<T>;
  /** What became of its outcome; an error where that could not be told. */
  readonly settlement: Settlement | Error;
}

/** A handle on a circuit. Cheap to make; all handles of one name share the circuit. */
export class Breaker {
  readonly #node: Node;
  readonly #circuit: Circuit;
  readonly #base: string;

  /** @internal */
  constructor(node: Node, circuit: Circuit, base: string) {
    this.#node = node;
    this.#circuit = circuit;
    this.#base = base;
  }

  /** The circuit's name, as it is shared. */
  get name(): string {
    return this.#circuit.name;
  }

  /**
   * Asks to begin work; settle the permit with {@link Permit.end}. It costs one load when the circuit is closed. Waits at most the
   * store's timeout; when the store does not answer, `storeFailure` decides.
   *
   * @throws {CircuitRefusedError} with the time to wait. The work must not run.
   * @throws {RecordError} when what is stored cannot be read; {@link StoreError} of the kind `other`, {@link CallError}.
   */
  async start({ signal }: StartOptions = {}): Promise<Permit> {
    signal?.throwIfAborted();
    const starting = start(this.#node, this.#circuit);
    if (!signal) return starting;
    // Whoever leaves and the permit that comes are settled by the same promise, so no permit is left between the two.
    return new Promise<Permit>((resolve, reject) => {
      let isLeft = false;
      const leave = (): void => {
        isLeft = true;
        reject(signal.reason as Error);
      };
      signal.addEventListener('abort', leave, { once: true });
      const came = (tell: () => void): void => {
        signal.removeEventListener('abort', leave);
        tell();
      };
      starting.then(
        (permit) => {
          // Whoever asked is gone: the place is given back.
          came(() => (isLeft ? void permit.end('ignored').catch(() => {}) : resolve(permit)));
        },
        (error: unknown) => came(() => reject(error as Error)),
      );
    });
  }

  /**
   * Starts, works and ends.
   *
   * What the work gives or throws is given back whatever becomes of its outcome: a store that fails after the work loses nothing. What
   * it throws is judged by the matcher of this circuit or the fallback matcher, unless `classify` says otherwise.
   *
   * @throws {CircuitRefusedError} when the circuit refuses; the work has not run.
   * @throws what the work throws, as it is.
   * @throws the errors of {@link Breaker.start}; the work has not run.
   *
   * @example
   * ```ts
   * const answer = await breaker.execute(({ signal }) => fetch(url, { signal }), {
   *   signal: AbortSignal.timeout(2_000),
   *   classify: (result) => (result.ok && result.value.status < 500 ? 'success' : 'failure'),
   * });
   * ```
   */
  async execute<T>(work: (attempt: Attempt) => T | PromiseLike<T>, options: ExecuteOptions<Awaited<T>> = {}): Promise<Awaited<T>> {
    const { result, settling } = await this.#work(work, options);
    // Whoever has left waits for no store.
    const { signal } = options;
    await (signal ? orAborted(settling, signal).catch(() => this.#node.background(settling)) : settling);
    if (result.ok) return result.value;
    throw result.error;
  }

  /**
   * Like {@link Breaker.execute}, and says what became of the outcome; it waits for that also where the signal is aborted, the store's
   * timeout at most.
   *
   * @throws only what {@link Breaker.start} does: the work has not run.
   */
  async executeSettled<T>(
    work: (attempt: Attempt) => T | PromiseLike<T>,
    options: ExecuteOptions<Awaited<T>> = {},
  ): Promise<Executed<Awaited<T>>> {
    const { result, settling } = await this.#work(work, options);
    return { result, settlement: await settling };
  }

  /** Starts, works and hands the outcome over; `settling` is never rejected. */
  async #work<T>(
    work: (attempt: Attempt) => T | PromiseLike<T>,
    { classify, signal }: ExecuteOptions<Awaited<T>>,
  ): Promise<{ readonly result: WorkResult<Awaited<T>>; readonly settling: Promise<Settlement | Error> }> {
    if (typeof work !== 'function') throw new ArgumentError('work', 'it is no function; give an async function');
    const permit = await this.start({ signal });
    const result = await this.#run(work, permit, signal);
    const outcome = this.#outcomeOf(result, classify, signal);
    return { result, settling: this.#settle(permit, result, outcome) };
  }

  async #settle(permit: Permit, result: WorkResult<unknown>, outcome: Outcome): Promise<Settlement | Error> {
    try {
      return await permit.end(outcome).catch(async (error: unknown) => {
        // A judgement that is no outcome: the work did run, so it counts as it went.
        if (permit.isSettled) throw error;
        unheard(outcome);
        this.#node.settings.logger.error?.('a judgement is no outcome', { circuit: this.name, error });
        return permit.end(result.ok ? 'success' : 'failure');
      });
    } catch (error) {
      this.#node.settings.logger.warn?.('the outcome of finished work could not be settled', { circuit: this.name, error });
      return error instanceof Error ? error : new Error(messageOf(error));
    }
  }

  async #run<T>(
    work: (attempt: Attempt) => T | PromiseLike<T>,
    { isProbe, era }: Permit,
    signal: AbortSignal | undefined,
  ): Promise<WorkResult<Awaited<T>>> {
    try {
      const working = (async () => work({ isProbe, era, signal }))();
      return { ok: true, value: (await (signal ? orAborted(working, signal) : working)) as Awaited<T> };
    } catch (error) {
      return { ok: false, error };
    }
  }

  /** What a result counts as. A judge that throws is left out: the work went as it did. */
  #outcomeOf<T>(
    result: WorkResult<T>,
    classify: ((result: WorkResult<T>) => Outcome) | undefined,
    signal: AbortSignal | undefined,
  ): Outcome {
    const { errorMatchers, fallbackErrorMatcher, logger } = this.#node.settings;
    try {
      if (classify) return classify(result);
      if (result.ok) return 'success';
      // A cancel by the caller, whatever the reason is that it gave.
      if (signal?.aborted && result.error === signal.reason && !isTimeout(result.error)) return 'ignored';
      return (errorMatchers.get(this.#base) ?? fallbackErrorMatcher)(result.error);
    } catch (error) {
      logger.error?.('a matcher or classifier threw', { circuit: this.name, error });
      return result.ok ? 'success' : 'failure';
    }
  }

  /** The effective state: an open circuit whose time is over reads as half-open. Does not look at overrides. */
  async state(): Promise<State> {
    return (await this.information()).state;
  }

  /**
   * Everything that is known of the circuit. Reading never changes it. While the store is down this is the process's own record, and
   * says so.
   *
   * @throws {StoreError} when the store is down and the settings keep no local record; {@link RecordError}, {@link CallError}.
   */
  async information(): Promise<Information> {
    const asked = await this.#node.ask(this.#circuit, { kind: 'inspect' });
    if (asked.by === 'nobody') throw this.#node.storeDown(this.#circuit);
    const seen = expected(this.#circuit, 'inspected', asked.answer);
    const shown = informationOut(seen, asked.by === 'local');
    const said = shown.local
      ? { ...shown, explanation: `${shown.explanation} So says this process's own record; the store was not asked.` }
      : shown;
    return look(this.#node, this.#circuit, seen, said);
  }

  /** Says in a short paragraph, in English, what the circuit does, why, and until when: for the person who was just woken up. */
  async explain(): Promise<string> {
    return (await this.information()).explanation;
  }

  /**
   * Forces the circuit for the whole fleet, or takes the force away with `undefined`; says what was in force before.
   *
   * @throws {ArgumentError} when the override cannot be used, with its field.
   * @throws {StoreError} when it could not be stored; it is never kept in this process only. With the kind `unknown` it may have been
   * stored all the same: {@link Breaker.information} tells.
   */
  async setOverride(override: Override | undefined): Promise<Override | undefined> {
    const wanted = override === undefined || override === null ? undefined : overrideIn(override);
    const answer = await this.#askShared({ kind: 'set-override', override: wanted });
    const { previous } = expected(this.#circuit, 'overridden', answer);
    return previous && overrideOut(previous);
  }

  /**
   * Closes the circuit for the whole fleet as if it were new, whatever its state: no counts, no votes, no trips in a row, no ramp and
   * no override. Says which override was in force before.
   *
   * @throws {StoreError} as {@link Breaker.setOverride}.
   */
  async reset(): Promise<Override | undefined> {
    const { previous, transitions } = expected(this.#circuit, 'cleared', await this.#askShared({ kind: 'reset' }));
    this.#node.announce(this.#circuit, transitions, false);
    return previous && overrideOut(previous);
  }

  async #askShared(operation: Operation): Promise<Parameters<typeof expected>[2]> {
    const result = await this.#node.askShared(this.#circuit, operation);
    if ('error' in result) throw result.error;
    return result.answer;
  }
}

function overrideIn(given: Override): Wit.Override {
  const { kind, author, reason, untilMs } = given;
  if (!KINDS.includes(kind)) throw new ArgumentError('override.kind', `it is none; give one of ${KINDS.join(', ')}`);
  for (const [field, value, most] of [
    ['author', author, AUTHOR_MAX_BYTES],
    ['reason', reason, REASON_MAX_BYTES],
  ] as const) {
    const problem = textProblem(value, 0, most);
    if (problem !== undefined) throw new ArgumentError(`override.${field}`, problem);
  }
  if (untilMs === undefined || untilMs === null) return { kind, author, reason };
  if (!Number.isSafeInteger(untilMs) || untilMs < 0) {
    throw new ArgumentError('override.untilMs', 'it is no time; give whole milliseconds since 1970');
  }
  return { kind, author, reason, untilMs: BigInt(untilMs) };
}

/** Waits for `promise`, or until the signal is aborted; then fails with its reason. */
async function orAborted<T>(promise: PromiseLike<T>, signal: AbortSignal): Promise<Awaited<T>> {
  let leave: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    leave = () => reject(signal.reason as Error);
    if (signal.aborted) leave();
    else signal.addEventListener('abort', leave, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    if (leave) signal.removeEventListener('abort', leave);
  }
}

function isTimeout(error: unknown): boolean {
  return typeof error === 'object' && error !== null && (error as { name?: unknown }).name === 'TimeoutError';
}

/**
 * Redis storage for circuitry: circuits that many processes share through a Redis or Valkey server, 6.2 or newer.
 *
 * Keys, fields and script are those of every other host. The store loads and swaps entries. It does not retry, does not cache, lists no
 * circuits, and holds no lock. It needs `redis` (node-redis) or `ioredis`, whichever you have.
 *
 * @example
 * ```ts
 * import { createFactory } from 'circuitry';
 * import { RedisStore } from 'circuitry/redis';
 *
 * const store = await RedisStore.connect('redis://127.0.0.1:6379');
 * const factory = await createFactory({ store });
 * ```
 *
 * @module
 */

import { patiently } from './asking.js';
import { SettingsError, StoreError } from './errors.js';
import { SWAP_SCRIPT, SWAP_SHA1 } from './generated/swap.js';
import { shortened, textProblem } from './names.js';
import { GivenLink, type Link, OwnLink, type Reply } from './redis/link.js';
import { type Misfit, entryIn, rulingIn, timeIn } from './redis/answers.js';
import { Trouble, isUnknownScript, isWrongType, troubleOf } from './redis/trouble.js';
import { type Loaded, type Store, type Swapped, checkName, mintVersion } from './store.js';

export { SWAP_SCRIPT, SWAP_SHA1 };

/** What stands before a circuit's name in its key, unless set. */
export const DEFAULT_PREFIX = 'circuitry:';

/** A load asks for the server's time when nothing has told it for so long. */
const TIME_AGES_AFTER_MS = 10_000;
/** Redis refuses a time to live whose end it cannot count; this one ends in 31,000 years. */
const LONGEST_TTL_MS = 1_000_000_000_000_000;
/** An entry may expire or be created between two looks at it; a key that is not ours stays so. */
const CLOSER_LOOKS = 3;
/** For so long after a failure a write goes out only behind a read that has shown the way to be good. */
const DOUBT_MS = 5_000;

/** The options of a {@link RedisStore}. */
export interface RedisStoreOptions {
  /** What stands before a circuit's name in its key. Default `circuitry:`; shared by all who share circuits. */
  readonly prefix?: string | undefined;
  /** How long a load or a swap may take, everything included, in milliseconds: 1 to 3,600,000. Default 1,000. */
  readonly operationTimeoutMs?: number | undefined;
}

/** Whom a connection with TLS trusts, and what it shows: options of Node's `tls.connect`. Texts are PEM. */
export interface RedisTlsOptions {
  /** The authorities that may vouch for the server. Default: those of Node.js, with `NODE_EXTRA_CA_CERTS`. */
  readonly ca?: string | Uint8Array | (string | Uint8Array)[] | undefined;
  /** This client's certificate, where the server asks for one. */
  readonly cert?: string | Uint8Array | undefined;
  /** The key of `cert`. */
  readonly key?: string | Uint8Array | undefined;
  /** What `key` is encrypted with. */
  readonly passphrase?: string | undefined;
  /** The name that the server's certificate has to have. Default: the host in the URL. */
  readonly servername?: string | undefined;
}

/** The options of {@link RedisStore.connect}. */
export interface RedisConnectOptions extends RedisStoreOptions {
  /** For `rediss://`: whom to trust, and what to show. */
  readonly tls?: RedisTlsOptions | undefined;
  /** How long one connection may take, TLS included, and then the server's first answers, in milliseconds: 1 to 3,600,000. Default 2,000. */
  readonly connectTimeoutMs?: number | undefined;
  /** Does not wait for the first connection: a server that is not there yet reads as `unavailable`. Default false. */
  readonly lazy?: boolean | undefined;
}

/** What is used of a client of node-redis. */
export interface NodeRedisClient {
  readonly isReady: boolean;
  sendCommand(args: (string | Buffer)[], options?: object): Promise<unknown>;
}

/** What is used of a client of ioredis. */
export interface IoRedisClient {
  readonly status: string;
  callBuffer(command: string, ...args: (string | Buffer | number)[]): Promise<unknown>;
}

/** A store on Redis, or whatever speaks its protocol and runs its scripts. */
export class RedisStore implements Store {
  readonly #link: Link;
  readonly #prefix: string;
  readonly #operationTimeoutMs: number;
  #timeTold: { readonly nowMs: number; readonly atMs: number } | undefined;
  #doubtUntilMs = -Infinity;

  private constructor(link: Link, options: RedisStoreOptions) {
    this.#link = link;
    this.#prefix = prefixIn(options.prefix);
    this.#operationTimeoutMs = timeoutIn('operationTimeoutMs', options.operationTimeoutMs, 1_000);
  }

  /**
   * Connects to the server at `url`: `redis://[user:password@]host[:port][/database]`, or `rediss://` with TLS. It uses the package
   * `redis`. The connection is made again by itself, and replaced when it answers nothing; {@link RedisStore.close} closes it.
   *
   * @throws {SettingsError} that names the option; {@link StoreError} when there is no server (`unavailable`), it does not let this
   * user in (`denied`), or the URL or the server is of no use (`other`).
   */
  static async connect(url: string, options: RedisConnectOptions = {}): Promise<RedisStore> {
    checkOptions(options, ['prefix', 'operationTimeoutMs', 'connectTimeoutMs', 'lazy', 'tls']);
    const connectTimeoutMs = timeoutIn('connectTimeoutMs', options.connectTimeoutMs, 2_000);
    const link = new OwnLink(url, connectTimeoutMs, options.tls);
    const store = new RedisStore(link, options);
    await link.open(options.lazy === true);
    return store;
  }

  /**
   * Takes a client that you have made: one of node-redis, connected, or one of ioredis with `autoResendUnfulfilledCommands: false`,
   * since a swap must not be sent twice. Make it without an offline queue (`disableOfflineQueue: true`, in ioredis
   * `enableOfflineQueue: false`), so that an outage is told at once. The client stays yours: it is not closed, nor replaced when it
   * answers nothing.
   *
   * @throws {SettingsError} that says what to change.
   */
  static fromClient(client: NodeRedisClient | IoRedisClient, options: RedisStoreOptions = {}): RedisStore {
    checkOptions(options, ['prefix', 'operationTimeoutMs']);
    return new RedisStore(new GivenLink(client), options);
  }

  /** The key of a circuit: the prefix and the circuit's name, as they are. */
  key(circuit: string): string {
    return this.#prefix + circuit;
  }

  /** The channel on which changes are announced: the prefix itself, which is no circuit's key. */
  get channel(): string {
    return this.#prefix;
  }

  /** Closes the connection that `connect` has made. A client that was given stays open. */
  async close(): Promise<void> {
    this.#link.close();
  }

  /** Sends one HMGET. If nothing has told the server's time for 10 s, TIME goes with it in the same message. */
  async load(circuit: string): Promise<Loaded> {
    checkName(circuit);
    const task = this.#task('load', circuit);
    const commands = [fieldsOf(task.key)];
    if (this.#timeNow() === undefined) commands.push(['TIME']);
    const [fields, time] = await this.#send(task, commands);
    if (commands.length > 1) {
      const nowMs = timeIn(time);
      if (nowMs === undefined) throw this.#misread(task, time);
      this.#timeWasTold(nowMs);
    }
    const nowMs = this.#timeNow();
    const found = entryIn(fields);
    if (found === 'absent') return { entry: await this.#lookCloser(task), nowMs };
    if (typeof found === 'string') throw this.#misfit(task, found, fields);
    return { entry: found, nowMs };
  }

  /** Sends one EVALSHA of `swap.lua`; where the server does not know it yet, one EVAL after it. It is never sent a second time. */
  async swap(
    circuit: string,
    expected: Uint8Array | undefined,
    value: Uint8Array,
    ttlMs: number | undefined,
  ): Promise<Swapped> {
    checkName(circuit);
    const version = mintVersion();
    const task = this.#task('swap', circuit);
    if (performance.now() < this.#doubtUntilMs) {
      // What fails here has not written: the swap was not sent.
      await this.#send({ ...task, operation: 'load' }, [['EXISTS', task.key]]);
    }
    const ttl = ttlMs === undefined ? '' : String(Math.min(Math.max(1, Math.ceil(ttlMs)), LONGEST_TTL_MS));
    const rest = ['1', task.key, expected ? '1' : '0', expected ? bytes(expected) : '', bytes(version), bytes(value), ttl];
    let answer: Reply | undefined;
    try {
      [answer] = await this.#sendRaw(task, [['EVALSHA', SWAP_SHA1, ...rest]]);
    } catch (error) {
      if (!(error instanceof Trouble)) throw error;
      if (!isUnknownScript(error)) throw await this.#failed(task, error);
      // The server says that it has not run it, so this is no second time. EVAL leaves the script there.
      [answer] = await this.#send(task, [['EVAL', SWAP_SCRIPT, ...rest]]);
    }
    const ruling = rulingIn(answer);
    if (!ruling) throw this.#misread(task, answer);
    this.#timeWasTold(ruling.nowMs);
    if (ruling.kind === 'foreign') throw this.#foreign(task, 'a hash without the fields version and value');
    if (ruling.kind === 'stored') return { stored: true, version, nowMs: ruling.nowMs };
    return { stored: false, entry: ruling.entry, nowMs: ruling.nowMs };
  }

  /** Sends one PUBLISH, so that those who listen hear of a change before they ask. */
  async announce(circuit: string): Promise<void> {
    checkName(circuit);
    await this.#send(this.#task('announcement', circuit), [['PUBLISH', this.channel, circuit]]);
  }

  // ---- inside ----

  #task(operation: Task['operation'], circuit: string): Task {
    return { operation, key: this.key(circuit), untilMs: performance.now() + this.#operationTimeoutMs };
  }

  /** Sends, and makes a {@link StoreError} of what fails. */
  async #send(task: Task, commands: Command[]): Promise<Reply[]> {
    try {
      return await this.#sendRaw(task, commands);
    } catch (error) {
      throw error instanceof Trouble ? await this.#failed(task, error) : error;
    }
  }

  async #sendRaw(task: Task, commands: Command[]): Promise<Reply[]> {
    const leftMs = Math.max(0, task.untilMs - performance.now());
    let cancel: (() => void) | undefined;
    const elapsed = new Promise<never>((_, reject) => {
      cancel = patiently(leftMs, () => reject(new Trouble('no-answer', `there was no answer within ${this.#operationTimeoutMs} ms`)));
    });
    try {
      // Sent in one turn, they go in one message.
      return await Promise.race([Promise.all(commands.map((command) => this.#link.send(command))), elapsed]);
    } catch (error) {
      const trouble = troubleOf(error);
      if (trouble.kind !== 'refused') this.#doubtUntilMs = performance.now() + DOUBT_MS;
      if (trouble.kind === 'no-answer') this.#link.replace();
      throw trouble;
    } finally {
      cancel?.();
    }
  }

  async #failed(task: Task, trouble: Trouble): Promise<StoreError> {
    if (isWrongType(trouble)) {
      const [kind] = await this.#sendRaw(task, [['TYPE', task.key]]).catch(() => []);
      return this.#foreign(task, typeof kind === 'string' ? `a ${kind}` : 'another type than a hash');
    }
    return trouble.told(`${task.operation} of the key ${shortened(task.key)} at ${this.#link.place}`, task.operation === 'swap');
  }

  /** A hash without our fields looks like no key at all; this tells the two apart. */
  async #lookCloser(task: Task): Promise<Loaded['entry']> {
    for (let looks = 0; looks < CLOSER_LOOKS; looks++) {
      const [exists, fields] = await this.#send(task, [['EXISTS', task.key], fieldsOf(task.key)]);
      const found = entryIn(fields);
      if (found === 'absent') {
        if (exists === 0) return undefined;
      } else if (found === 'foreign') {
        break;
      } else if (typeof found === 'string') {
        throw this.#misread(task, fields);
      } else {
        return found;
      }
    }
    throw this.#foreign(task, 'a hash without the fields version and value');
  }

  #misfit(task: Task, misfit: Misfit, answer: unknown): StoreError {
    if (misfit === 'foreign') return this.#foreign(task, 'a hash with only one of the fields version and value');
    return this.#misread(task, answer);
  }

  #foreign(task: Task, found: string): StoreError {
    return new StoreError(
      'other',
      `${task.operation} of the key ${shortened(task.key)} at ${this.#link.place}: the key holds ${found}, which is no entry of a ` +
        'circuit; nothing was changed. Delete or rename the key, or give the store a prefix that nobody else uses',
    );
  }

  #misread(task: Task, answer: unknown): StoreError {
    const shown = shortened(typeof answer === 'string' ? answer : Object.prototype.toString.call(answer));
    // Whoever answers a swap so may have done anything.
    return new StoreError(
      task.operation === 'swap' ? 'unknown' : 'other',
      `${task.operation} of the key ${shortened(task.key)} at ${this.#link.place}: the answer is not one of Redis: ${shown}`,
    );
  }

  /** The server's time now, if it was told lately: as it was, and what has passed since. */
  #timeNow(): number | undefined {
    if (!this.#timeTold) return undefined;
    const passedMs = performance.now() - this.#timeTold.atMs;
    return passedMs < TIME_AGES_AFTER_MS ? this.#timeTold.nowMs + Math.floor(passedMs) : undefined;
  }

  #timeWasTold(nowMs: number): void {
    this.#timeTold = { nowMs, atMs: performance.now() };
  }
}

type Command = (string | Buffer)[];

interface Task {
  readonly operation: 'load' | 'swap' | 'announcement';
  readonly key: string;
  readonly untilMs: number;
}

function fieldsOf(key: string): Command {
  return ['HMGET', key, 'version', 'value'];
}

function bytes(value: Uint8Array): Buffer {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

function checkOptions(options: object, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null) throw new SettingsError('options', 'it is no object');
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) throw new SettingsError(name, `there is no such option; there are ${known.join(', ')}`);
  }
}

function prefixIn(prefix: string | undefined): string {
  if (prefix === undefined) return DEFAULT_PREFIX;
  const problem = textProblem(prefix, 0, 4_096);
  if (problem !== undefined) throw new SettingsError('prefix', problem);
  return prefix;
}

function timeoutIn(field: string, given: number | undefined, byDefault: number): number {
  if (given === undefined) return byDefault;
  if (Number.isInteger(given) && given >= 1 && given <= 3_600_000) return given;
  throw new SettingsError(field, `it is ${String(given)}; give whole milliseconds, 1 to 3,600,000`);
}

/** {@link Link}: the connection, and what replaces it when it is of no use any more. Neither kind sends anything twice. */

import { patiently } from '../asking.js';
import { SettingsError, StoreError } from '../errors.js';
import type { IoRedisClient, NodeRedisClient, RedisTlsOptions } from '../redis.js';
import { messageOf } from '../store.js';
import { Trouble, remedyFor, troubleOf } from './trouble.js';

/** What the server answers: texts of one line as text, others as bytes. */
export type Reply = unknown;

export interface Link {
  /** Where it leads, for messages. */
  readonly place: string;
  send(command: (string | Buffer)[]): Promise<Reply>;
  /** Replaces a connection that answers nothing. */
  replace(): void;
  close(): void;
}

/** In the protocol, `$` begins a text of bytes. */
const AS_BYTES = { typeMapping: { 36: Buffer } };
/** Between two attempts to connect, longer each time, and up to twice as long by chance: a fleet does not come back in step. */
const SHORTEST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2_000;
const TLS_OPTIONS: ReadonlySet<string> = new Set<keyof RedisTlsOptions>(['ca', 'cert', 'key', 'passphrase', 'servername']);

/** What is used of node-redis. */
interface OwnClient extends NodeRedisClient {
  connect(): Promise<unknown>;
  destroy(): void;
  on(event: string, listener: (value: unknown) => void): unknown;
}

/** A connection that is made here, by node-redis. */
export class OwnLink implements Link {
  readonly place: string;
  readonly #options: object;
  readonly #connectTimeoutMs: number;
  #create: ((options: object) => OwnClient) | undefined;
  #client: OwnClient | undefined;
  #isClosed = false;
  #goesOn = false;
  /** Since when the server has taken the connection and not greeted. */
  #silentSinceMs: number | undefined;

  constructor(url: string, connectTimeoutMs: number, tls?: RedisTlsOptions) {
    this.#connectTimeoutMs = connectTimeoutMs;
    let address: URL;
    try {
      address = new URL(url);
    } catch {
      throw new StoreError('other', 'the URL of the Redis server is none; give redis://[user:password@]host[:port][/database]');
    }
    if (address.protocol !== 'redis:' && address.protocol !== 'rediss:') {
      throw new StoreError('other', `the URL begins with ${address.protocol}//; give redis:// or, for TLS, rediss://`);
    }
    if (tls !== undefined) checkTls(tls, address.protocol);
    const socket = address.protocol === 'rediss:' ? { tls: true, ...tls } : {};
    // No password in messages.
    this.place = `${address.protocol}//${address.host}${address.pathname}`;
    // The first attempt is told of; a connection that has been good is made again and again.
    const reconnectStrategy = (retries: number): number | false => {
      if (!this.#goesOn) return false;
      return Math.min(SHORTEST_PAUSE_MS * 2 ** Math.min(retries, 10), LONGEST_PAUSE_MS) * (1 + Math.random());
    };
    this.#options = { url, disableOfflineQueue: true, socket: { ...socket, connectTimeout: connectTimeoutMs, reconnectStrategy } };
  }

  /** Connects; `lazy` does not wait for it. */
  async open(lazy: boolean): Promise<void> {
    try {
      // Only who connects needs the package.
      const { createClient } = (await import('redis')) as unknown as { createClient: (options: object) => OwnClient };
      this.#create = createClient;
    } catch (error) {
      throw new StoreError('other', 'the package redis is not installed: npm install redis', { cause: error });
    }
    this.#goesOn = lazy;
    const client = this.#make(this.#create);
    if (lazy) {
      client.connect().catch(() => {});
      return;
    }
    try {
      await this.#answered(client.connect());
      this.#goesOn = true;
      await this.#answered(checkVersion(client));
    } catch (error) {
      this.close();
      throw failedToConnect(this.place, error);
    }
  }

  #make(create: (options: object) => OwnClient): OwnClient {
    const client = create(this.#options);
    this.#client = client;
    const note = (silentSinceMs?: number): void => {
      if (this.#client === client) this.#silentSinceMs = silentSinceMs;
    };
    note();
    client.on('connect', () => note(performance.now()));
    for (const event of ['ready', 'reconnecting']) client.on(event, () => note());
    // Whoever sends is told; the client goes on trying.
    client.on('error', () => note());
    return client;
  }

  /** The client's own timeout ends when the server takes the connection; it may take it and say nothing. */
  async #answered<T>(answer: Promise<T>): Promise<T> {
    const ms = this.#connectTimeoutMs;
    let cancel: (() => void) | undefined;
    const elapsed = new Promise<never>((_, reject) => {
      cancel = patiently(ms, () => reject(new Trouble('no-answer', `there was no answer within ${ms} ms`)));
    });
    try {
      return await Promise.race([answer, elapsed]);
    } finally {
      cancel?.();
    }
  }

  async send(command: (string | Buffer)[]): Promise<Reply> {
    if (this.#silentSinceMs !== undefined && performance.now() - this.#silentSinceMs > this.#connectTimeoutMs) this.replace();
    const client = this.#client;
    if (!client) throw new Trouble('not-sent', this.#isClosed ? 'the store is closed' : 'the store is not connected');
    return client.sendCommand(command, AS_BYTES);
  }

  replace(): void {
    const old = this.#client;
    if (!old || !this.#create || this.#isClosed || !this.#goesOn) return;
    // First, so that what fails by it finds the new one.
    this.#make(this.#create)
      .connect()
      .catch(() => {});
    destroy(old);
  }

  close(): void {
    this.#isClosed = true;
    const old = this.#client;
    this.#client = undefined;
    if (old) destroy(old);
  }
}

/** A client that the user made, and only the user can replace. */
export class GivenLink implements Link {
  readonly place = 'the client that was given';
  readonly #send: (command: (string | Buffer)[]) => Promise<Reply>;

  constructor(client: NodeRedisClient | IoRedisClient) {
    const given = client as Partial<NodeRedisClient & IoRedisClient & { options: Record<string, unknown>; masters: unknown }>;
    if (typeof given !== 'object' || given === null) throw new SettingsError('client', 'it is no client of node-redis or ioredis');
    if (typeof given.callBuffer === 'function') {
      const { callBuffer, options } = given;
      if (options?.['autoResendUnfulfilledCommands'] !== false) {
        throw new SettingsError(
          'client',
          'it sends again what was not answered, and a swap must be sent once: make it with autoResendUnfulfilledCommands: false, or ' +
            'give client.duplicate({ autoResendUnfulfilledCommands: false, enableOfflineQueue: false, maxRetriesPerRequest: 0 })',
        );
      }
      if (options['keyPrefix']) throw new SettingsError('client', 'it has a keyPrefix; give prefix to the store instead');
      this.#send = async ([name, ...args]) => texts(await callBuffer.call(client, String(name), ...args), String(name));
    } else if (typeof given.sendCommand === 'function' && typeof given.isReady === 'boolean' && given.masters === undefined) {
      const { sendCommand } = given;
      this.#send = (command) => sendCommand.call(client, command, AS_BYTES);
    } else {
      throw new SettingsError('client', 'it is no client of node-redis (createClient) or ioredis; clusters are not supported');
    }
  }

  async send(command: (string | Buffer)[]): Promise<Reply> {
    return this.#send(command);
  }

  replace(): void {}

  close(): void {}
}

/** ioredis gives a text of one line as bytes, too. */
function texts(reply: unknown, command: string): unknown {
  return command === 'TYPE' && Buffer.isBuffer(reply) ? reply.toString() : reply;
}

/** What node-redis would take and not use: a certificate for a connection without TLS, say, or a name that is none of its options. */
function checkTls(tls: RedisTlsOptions, protocol: string): void {
  if (typeof tls !== 'object' || tls === null) throw new SettingsError('tls', 'it is no object; give { ca, cert, key }');
  if (protocol !== 'rediss:') throw new SettingsError('tls', 'the URL is one without TLS; give rediss://, or leave tls out');
  for (const name of Object.keys(tls)) {
    if (!TLS_OPTIONS.has(name)) throw new SettingsError(`tls.${name}`, `there is no such option; there are ${[...TLS_OPTIONS].join(', ')}`);
  }
}

function destroy(client: OwnClient): void {
  try {
    client.destroy();
  } catch {
    // It was closed already.
  }
}

/** The scripts need effects replication, and scripts that may ask for the time before they write: 6.2. */
async function checkVersion(client: OwnClient): Promise<void> {
  const told = await client.sendCommand(['INFO', 'server'], AS_BYTES).catch((error: unknown) => {
    // Who may not ask is told by the first operation.
    if (troubleOf(error).kind === 'refused') return '';
    throw error;
  });
  const found = /redis_version:(\d+)\.(\d+)/.exec(String(told));
  if (!found) return;
  const [major, minor] = [Number(found[1]), Number(found[2])];
  if (major < 6 || (major === 6 && minor < 2)) {
    throw new StoreError('other', `the server is Redis ${major}.${minor}; circuitry needs 6.2 or newer`);
  }
}

function failedToConnect(place: string, error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const trouble = troubleOf(error);
  const message = `connect to ${place}: ${messageOf(error)}`;
  if (trouble.kind === 'refused') return new StoreError(remedyFor(trouble.message), message, { cause: error });
  const code = (error as { code?: unknown }).code;
  // A certificate that is not accepted does not pass.
  const isTls = typeof code === 'string' && /CERT|SSL|TLS|SELF_SIGNED|UNABLE_TO_VERIFY/.test(code);
  return new StoreError(isTls ? 'other' : 'unavailable', message, { cause: error });
}

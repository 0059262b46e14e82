// The Redis of the tests, prefixes of their own on it, and servers that a test may stop.
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** The server that all tests share. Never flushed: each test has a prefix of its own. */
export function redisUrl() {
  const url = process.env.CIRCUITRY_TEST_REDIS_URL;
  if (!url) {
    throw new Error('CIRCUITRY_TEST_REDIS_URL is not set: start the servers of the tests and source target/services/env');
  }
  return url;
}

export const ownPrefix = () => `js-${randomBytes(8).toString('hex')}:`;

export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** A redis-server of the test's own, on loopback and without files. */
export class OwnRedis {
  #process;
  #port;

  #options;

  static async start(...options) {
    const server = new OwnRedis();
    server.#port = await freePort();
    server.#options = options;
    await server.startAgain();
    return server;
  }

  get url() {
    return `redis://127.0.0.1:${this.#port}`;
  }

  async startAgain() {
    const options = ['--port', String(this.#port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', '/tmp', ...this.#options];
    this.#process = spawn('redis-server', options, { stdio: 'ignore' });
    for (let tries = 0; tries < 200; tries++) {
      const socket = net.connect(this.#port, '127.0.0.1');
      const isUp = await Promise.race([once(socket, 'connect').then(() => true), sleep(1_000)]).catch(() => false);
      socket.destroy();
      if (isUp) return;
      await sleep(25);
    }
    throw new Error(`redis-server did not come up on port ${this.#port}`);
  }

  /** It is there and answers nothing. */
  stall() {
    process.kill(this.#process.pid, 'SIGSTOP');
  }

  goOn() {
    process.kill(this.#process.pid, 'SIGCONT');
  }

  async kill() {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await exited;
  }

  cli(...args) {
    return execFileSync('redis-cli', ['-p', String(this.#port), ...args], { encoding: 'utf8' }).trim();
  }
}

/** Waits until it is so. */
export async function until(what, condition, limitMs = 20_000) {
  const deadline = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`did not come about in ${limitMs} ms: ${what}`);
    await sleep(5);
  }
}

// The stores pass the suite of circuitry-store: memory, and Redis by each of its clients.
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import Redis from 'ioredis';
import { createClient } from 'redis';
import { ManualClock, MemoryStore } from '../dist/index.js';
import { RedisStore } from '../dist/redis.js';
import { rules } from './support/conformance.mjs';
import { FaultStore } from './support/fault.mjs';
import { LossyProxy } from './support/proxy.mjs';
import { ownPrefix, redisUrl } from './support/servers.mjs';

/** Longer than any rule takes on a slow machine; a store that hangs is told from a slow one. */
const timeout = 120_000;
/** The rules are about what a store says, not about how fast the machine is. */
const operationTimeoutMs = 20_000;

class MemoryHarness {
  clock = new ManualClock(1_000);
  store = new MemoryStore(this.clock);

  async open() {
    return this.store;
  }

  async waitMs(ms) {
    this.clock.advanceMs(Math.ceil(ms));
  }

  async openUnreachable() {
    const store = new FaultStore(this.store);
    store.goDown();
    return store;
  }

  async openLosingAnswer() {
    const store = new FaultStore(this.store);
    store.onNextSwap('lost-answer');
    return store;
  }

  async openApart() {
    return new MemoryStore();
  }

  async watch() {
    return undefined;
  }

  async close() {}
}

/** On the system's clock, as users run it. */
class SystemHarness extends MemoryHarness {
  store = new MemoryStore();

  async waitMs(ms) {
    await sleep(ms);
  }
}

class RedisHarness {
  prefix = ownPrefix();
  #closers = [];

  /** A store through its own connection, and what closes it. */
  async connect(url, prefix) {
    const store = await RedisStore.connect(url, { prefix, operationTimeoutMs });
    return [store, () => store.close()];
  }

  async #openAt(url, prefix = this.prefix) {
    const [store, close] = await this.connect(url, prefix);
    this.#closers.push(close);
    return store;
  }

  async #openThroughProxy() {
    const proxy = await LossyProxy.start(redisUrl());
    this.#closers.push(() => proxy.close());
    return { proxy, store: await this.#openAt(proxy.through(redisUrl())) };
  }

  open() {
    return this.#openAt(redisUrl());
  }

  openApart() {
    return this.#openAt(redisUrl(), ownPrefix());
  }

  async waitMs(ms) {
    await sleep(ms);
  }

  async openUnreachable() {
    const { proxy, store } = await this.#openThroughProxy();
    await proxy.refuse();
    // The first request after a loss may be the one that finds it out, and a swap would be unknown then.
    await store.load('the connection is lost').catch(() => {});
    return store;
  }

  async openLosingAnswer() {
    const { proxy, store } = await this.#openThroughProxy();
    const { prefix } = this;
    let isArmed = true;
    return {
      load: (circuit) => store.load(circuit),
      swap: async (circuit, ...args) => {
        if (!isArmed) return store.swap(circuit, ...args);
        isArmed = false;
        proxy.loseAnswerTo(prefix + circuit);
        try {
          return await store.swap(circuit, ...args);
        } finally {
          if (proxy.lost !== 1) throw new Error('the proxy was to lose one answer');
          proxy.loseNothing();
        }
      },
    };
  }

  /** Stores of this package announce and do not listen; who listens here does it as other hosts do. */
  async watch(store) {
    const client = createClient({ url: redisUrl() });
    client.on('error', () => {});
    await client.connect();
    const heard = [];
    let wake = () => {};
    await client.subscribe(store.channel, (message) => {
      heard.push(message.toString());
      wake();
    }, true);
    let isClosed = false;
    const close = async () => {
      if (!isClosed) client.destroy();
      isClosed = true;
    };
    this.#closers.push(close);
    return {
      next: async (ms) => {
        if (heard.length === 0) await Promise.race([new Promise((resolve) => (wake = resolve)), sleep(ms, undefined, { ref: false })]);
        return heard.shift();
      },
      close,
    };
  }

  async close() {
    for (const close of this.#closers) await close();
  }
}

class GivenNodeRedisHarness extends RedisHarness {
  async connect(url, prefix) {
    const client = createClient({ url, RESP: 2, disableOfflineQueue: true });
    client.on('error', () => {});
    await client.connect();
    return [RedisStore.fromClient(client, { prefix, operationTimeoutMs }), () => client.destroy()];
  }
}

class GivenIoRedisHarness extends RedisHarness {
  async connect(url, prefix) {
    const client = new Redis(url, {
      autoResendUnfulfilledCommands: false,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      lazyConnect: true,
    });
    client.on('error', () => {});
    await client.connect();
    return [RedisStore.fromClient(client, { prefix, operationTimeoutMs }), () => client.disconnect()];
  }
}

const harnesses = {
  'the memory store': MemoryHarness,
  "the memory store on the system's clock": SystemHarness,
  'the Redis store': RedisHarness,
  'the Redis store on a client of node-redis that was given, by RESP2': GivenNodeRedisHarness,
  'the Redis store on a client of ioredis that was given': GivenIoRedisHarness,
};

for (const [name, Harness] of Object.entries(harnesses)) {
  describe(`${name} keeps to the rules of stores`, { concurrency: 8 }, () => {
    for (const [rule, check] of Object.entries(rules)) {
      test(rule, { timeout }, async () => {
        const harness = new Harness();
        try {
          await check(harness);
        } finally {
          await harness.close();
        }
      });
    }
  });
}

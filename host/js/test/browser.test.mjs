// The package in headless Chromium, as plain ESM without a bundler, with the memory store.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { once } from 'node:events';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join, normalize } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const EXECUTABLE = process.env.CIRCUITRY_TEST_CHROMIUM ?? '/usr/bin/chromium';
const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const TYPES = { js: 'text/javascript', wasm: 'application/wasm', html: 'text/html' };
const PAGE = '<!doctype html><title>circuitry</title><link rel="icon" href="data:,">';

describe('in a browser', () => {
  let server;
  let profile;
  let context;
  let page;
  const requested = [];
  const problems = [];

  before(async () => {
    if (!existsSync(EXECUTABLE)) {
      throw new Error(`there is no Chromium at ${EXECUTABLE}: install it (apt-get install chromium) or set CIRCUITRY_TEST_CHROMIUM`);
    }
    server = http.createServer(async (request, response) => {
      const path = normalize(decodeURIComponent(new URL(request.url, 'http://page').pathname));
      requested.push(path);
      if (path === '/') return response.writeHead(200, { 'content-type': TYPES.html }).end(PAGE);
      try {
        const content = await readFile(join(dist, path));
        response.writeHead(200, { 'content-type': TYPES[path.split('.').pop()] ?? 'text/plain' }).end(content);
      } catch {
        response.writeHead(404).end();
      }
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    profile = await mkdtemp(join(tmpdir(), 'circuitry-chromium-'));
    context = await chromium.launchPersistentContext(profile, {
      executablePath: EXECUTABLE,
      headless: true,
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    });
    page = await context.newPage();
    page.on('pageerror', (error) => problems.push(String(error)));
    page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
  });

  after(async () => {
    await context?.close();
    server?.close();
    if (profile) await rm(profile, { recursive: true, force: true });
  });

  test('a circuit opens and heals by the memory store', async () => {
    const told = await page.evaluate(async () => {
      const { CircuitRefusedError, ManualClock, createFactory } = await import('/index.js');
      const clock = new ManualClock(1_000_000);
      const changes = [];
      const factory = await createFactory({
        clock,
        failureCountThreshold: 2,
        allowAfterMs: 60_000,
        stateChangeCallback: ({ from, to }) => changes.push(`${from} ${to}`),
      });
      const breaker = factory.breakerFor('api', { tenant: 'acme' });
      const failing = async () => {
        throw new Error('503');
      };
      for (let count = 0; count < 3; count++) await breaker.execute(failing).catch(() => {});
      const refusal = await breaker.execute(async () => 1).catch((error) => error);
      const explanation = await breaker.explain();
      clock.advanceMs(60_000);
      const value = await breaker.execute(async ({ isProbe }) => isProbe);
      const { state, counts } = await breaker.information();
      await factory.close();
      return {
        refused: refusal instanceof CircuitRefusedError && refusal.retryAfterMs,
        explanation,
        value,
        state,
        counts,
        changes,
      };
    });
    assert.equal(told.refused, 60_000);
    assert.match(told.explanation, /^Circuit api\/acme is open/);
    assert.equal(told.value, true);
    assert.equal(told.state, 'closed');
    assert.equal(told.counts.total, 0);
    assert.deepEqual(told.changes, ['closed open', 'open half-open', 'half-open closed']);
  });

  test('names, cancels and the system\'s clock are as in Node', async () => {
    const told = await page.evaluate(async () => {
      const { createFactory } = await import('/index.js');
      const factory = await createFactory({ failureCountThreshold: 0, allowAfterMs: 60_000 });
      const bad = (() => {
        try {
          factory.breaker('\ud800');
          return undefined;
        } catch (error) {
          return error.field;
        }
      })();
      const breaker = factory.breaker('🦀');
      const signal = AbortSignal.timeout(5);
      const timeout = await breaker.execute(() => new Promise(() => {}), { signal }).catch((error) => error.name);
      const refusal = await breaker.start().catch((error) => error);
      return { bad, timeout, reason: refusal.reason, retryAfterMs: refusal.retryAfterMs, state: await breaker.state() };
    });
    assert.deepEqual([told.bad, told.timeout, told.reason, told.state], ['circuit', 'TimeoutError', 'open', 'open']);
    assert.ok(told.retryAfterMs > 0 && told.retryAfterMs <= 60_000);
  });

  test('it works in a worker, too', async () => {
    const state = await page.evaluate(async () => {
      const code = `
        import { createFactory } from '${location.origin}/index.js';
        const factory = await createFactory({ failureCountThreshold: 0 });
        const permit = await factory.breaker('a').start();
        await permit.end('failure');
        postMessage(await factory.breaker('a').state());
      `;
      const worker = new Worker(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })), { type: 'module' });
      return new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = (event) => reject(new Error(event.message));
      });
    });
    assert.equal(state, 'open');
  });

  test('nothing of Redis and nothing of Node is loaded', () => {
    assert.deepEqual(problems, []);
    assert.ok(requested.includes('/generated/circuitry.core.wasm'));
    assert.deepEqual(requested.filter((path) => /redis|node:|swap/.test(path)), []);
  });
});

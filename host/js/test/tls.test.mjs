// Redis over TLS: whom the store trusts, and who is let in.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createClient } from 'redis';
import { createFactory } from '../dist/index.js';
import { RedisStore } from '../dist/redis.js';
import { OwnRedis, freePort, ownPrefix } from './support/servers.mjs';

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
const folder = mkdtempSync(join(tmpdir(), 'circuitry-tls-'));
const patient = { operationTimeoutMs: 20_000, connectTimeoutMs: 20_000 };
let server;
let tlsUrl;
let tls;

const openssl = (...args) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
const path = (name) => join(folder, name);
const read = (name) => readFileSync(path(name), 'utf8');

/** Makes a certificate for loopback, signed by the authority. */
function sign(name) {
  openssl('req', '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`, ...NEW_KEY);
  writeFileSync(path('names'), 'subjectAltName=IP:127.0.0.1\n');
  const signed = ['-CA', 'authority.pem', '-CAkey', 'authority.key', '-CAcreateserial', '-days', '2', '-extfile', 'names'];
  openssl('x509', '-req', '-in', `${name}.csr`, ...signed, '-out', `${name}.pem`);
}

before(async () => {
  openssl('req', '-x509', '-subj', '/CN=authority', '-days', '2', '-keyout', 'authority.key', '-out', 'authority.pem', ...NEW_KEY);
  sign('server');
  sign('worker');
  const port = await freePort();
  const files = ['--tls-cert-file', path('server.pem'), '--tls-key-file', path('server.key'), '--tls-ca-cert-file', path('authority.pem')];
  server = await OwnRedis.start('--tls-port', String(port), '--tls-auth-clients', 'yes', ...files);
  tlsUrl = `rediss://127.0.0.1:${port}`;
  tls = { ca: read('authority.pem'), cert: read('worker.pem'), key: read('worker.key') };
});

after(async () => {
  await server?.kill();
  rmSync(folder, { recursive: true });
});

test('a fleet shares a circuit over TLS, by a URL and by a client', async () => {
  const prefix = ownPrefix();
  const client = createClient({ url: tlsUrl, socket: { tls: true, ...tls }, disableOfflineQueue: true });
  client.on('error', () => {});
  await client.connect();
  const stores = [await RedisStore.connect(tlsUrl, { ...patient, prefix, tls }), RedisStore.fromClient(client, { prefix })];
  for (const store of stores) {
    const factory = await createFactory({ store, storeTimeoutMs: 20_000 });
    const permit = await factory.breaker('emails').start();
    assert.deepEqual(await permit.end('success'), { disposition: 'accepted', local: false });
    await factory.close();
    await store.close();
  }
  client.destroy();
  const plain = await RedisStore.connect(server.url, { prefix });
  const factory = await createFactory({ store: plain });
  assert.equal((await factory.breaker('emails').information()).counts.total, 2);
  await factory.close();
  await plain.close();
});

test('a server whose certificate nobody vouches for is not trusted', async () => {
  const { ca: _, ...shown } = tls;
  await assert.rejects(RedisStore.connect(tlsUrl, { ...patient, tls: shown }), (error) => {
    assert.match(error.message, /certificate/i);
    return error.name === 'StoreError' && error.kind === 'other';
  });
});

test('who shows no certificate is not let in', async () => {
  const { ca } = tls;
  // The server says so after the handshake, and hangs up: which of the two is seen first is up to the system.
  await assert.rejects(RedisStore.connect(tlsUrl, { ...patient, tls: { ca } }), (error) => {
    return error.name === 'StoreError' && ['other', 'unavailable'].includes(error.kind);
  });
});

test('a server that speaks no TLS is told within the time to connect', async () => {
  const url = server.url.replace('redis:', 'rediss:');
  await assert.rejects(RedisStore.connect(url, { connectTimeoutMs: 500, tls }), { name: 'StoreError' });
});

test('certificates without TLS, and options that there are not, are refused by name', async () => {
  const refused = (url, given, field) => assert.rejects(RedisStore.connect(url, { tls: given }), { name: 'SettingsError', field });
  await refused('redis://127.0.0.1:1', tls, 'tls');
  await refused(tlsUrl, 'ca', 'tls');
  await refused(tlsUrl, { ...tls, certificate: 'x' }, 'tls.certificate');
});

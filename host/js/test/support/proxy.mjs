// A TCP proxy on loopback that loses answers and connections when a test asks.
import { once } from 'node:events';
import net from 'node:net';

export class LossyProxy {
  #server;
  #sockets = new Set();
  #target;
  #losing;
  #stalled = false;
  #port;
  lost = 0;

  static async start(url) {
    const proxy = new LossyProxy();
    const { hostname, port } = new URL(url);
    proxy.#target = { host: hostname, port: Number(port) };
    proxy.#listen();
    await once(proxy.#server, 'listening');
    proxy.#port = proxy.#server.address().port;
    return proxy;
  }

  /** The same URL, through this proxy. */
  through(url) {
    const changed = new URL(url);
    changed.hostname = '127.0.0.1';
    changed.port = String(this.#port);
    return changed.href;
  }

  #listen() {
    this.#server = net.createServer((client) => this.#serve(client));
    this.#server.listen(this.#port ?? 0, '127.0.0.1');
  }

  #serve(client) {
    const server = net.connect(this.#target);
    let isLost = false;
    const end = () => {
      client.destroy();
      server.destroy();
      this.#sockets.delete(client);
    };
    this.#sockets.add(client);
    client.on('data', (data) => {
      if (this.#stalled) return;
      if (this.#losing && data.includes(this.#losing)) {
        this.#losing = undefined;
        isLost = true;
      }
      server.write(data);
    });
    server.on('data', (data) => {
      if (this.#stalled) return;
      if (!isLost) return client.write(data);
      // The server has carried it out, and the connection ends instead of an answer.
      this.lost++;
      end();
    });
    for (const socket of [client, server]) socket.on('error', end).on('close', end);
  }

  /** Loses the answer to the next request that has these bytes in it. */
  loseAnswerTo(bytes) {
    this.#losing = bytes;
  }

  loseNothing() {
    this.#losing = undefined;
  }

  /** Keeps all bytes, in both directions. */
  stall() {
    this.#stalled = true;
  }

  /** There are no connections, and nobody listens. */
  async refuse() {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** Listens again. */
  async resume() {
    this.#stalled = false;
    if (this.#server.listening) return;
    this.#listen();
    await once(this.#server, 'listening');
  }

  async close() {
    if (this.#server.listening) await this.refuse();
  }
}

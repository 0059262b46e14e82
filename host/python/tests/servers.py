"""Real servers for tests: the shared Redis, one of a test's own, and what stands between a client and it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator


def redis_url() -> str:
    """The shared Redis. Nothing on it is flushed; each test has a prefix of its own."""
    url = os.environ.get("CIRCUITRY_TEST_REDIS_URL")
    if not url:
        raise RuntimeError(
            "CIRCUITRY_TEST_REDIS_URL is not set: these tests need a Redis. `cargo xtask services start` starts one "
            "and says which file to source"
        )
    return url


def fresh_prefix() -> str:
    """A prefix that nobody else uses."""
    return f"test-python-{secrets.token_hex(8)}:"


def free_port() -> int:
    """A loopback port that is free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A redis-server of a test's own, which can be killed, restarted, stalled and resumed."""

    def __init__(self, *options: str) -> None:
        if shutil.which("redis-server") is None:
            raise RuntimeError("redis-server is not installed: these tests start one of their own")
        self.port = free_port()
        self._options = options
        # A replica writes what its master sends to a file before it reads it.
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it, and waits until it answers. Nothing is kept over a restart."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--dir", self._folder.name]
        self._process = subprocess.Popen([*command, *self._options], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(1)
                connection.sendall(b"PING\r\n")
                if connection.recv(16):
                    return
            time.sleep(0.02)
        raise RuntimeError("the test's redis-server does not answer")

    def kill(self) -> None:
        """Kills it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def clean_up(self) -> None:
        """Removes its folder, when it has ended."""
        self._folder.cleanup()

    def stall(self) -> None:
        """Stops it, so that connections are taken and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def own_server(*options: str) -> Iterator[Server]:
    """A server for one test."""
    server = Server(*options)
    try:
        yield server
    finally:
        server.resume()
        server.kill()
        server.clean_up()


class LossyProxy:
    """Stands between a client and a Redis, and loses the answer to one swap when it is asked to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._loses = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}"

    def lose_next_answer(self) -> None:
        """The next swap reaches the server, and its answer nobody."""
        self._loses.set()

    def close(self) -> None:
        """Ends it and its connections."""
        for each in [self._listener, *self._sockets]:
            # A thread that reads from it wakes only so.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            self._sockets += [client, server]
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        # Requests and answers alternate on such a connection.
        with contextlib.suppress(OSError), client, server:
            while request := _message(client):
                server.sendall(request)
                answer = _message(server)
                if b"EVAL" in request and not answer.startswith(b"-NOSCRIPT") and self._loses.is_set():
                    self._loses.clear()
                    return
                client.sendall(answer)


def _message(connection: socket.socket) -> bytes:
    """What comes until nothing has come for a moment."""
    connection.settimeout(None)
    message = connection.recv(1 << 16)
    connection.settimeout(0.02)
    try:
        while message and (more := connection.recv(1 << 16)):
            message += more
    except TimeoutError:
        pass
    finally:
        connection.settimeout(None)
    return message

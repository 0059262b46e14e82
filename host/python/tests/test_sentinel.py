"""A master behind Sentinel, which fails over."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis import sentinel as sync_sentinel
from redis.asyncio import sentinel as async_sentinel

from circuitry import Factory, Outcome, Stored, StoreError
from circuitry.redis import AsyncRedisStore, RedisStore
from servers import Server, free_port, fresh_prefix, own_server

# The client's are not typed.
SyncSentinel: Any = sync_sentinel.Sentinel
AsyncSentinel: Any = async_sentinel.Sentinel


@contextlib.contextmanager
def sentinel_of(master: Server, folder: Path) -> Iterator[int]:
    """One sentinel that watches the master; its port."""
    port = free_port()
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 2000\n"
    )
    command = [str(shutil.which("redis-server")), str(configuration), "--sentinel"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Any, seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not come to pass"
        time.sleep(0.1)


def test_the_master_is_asked_for_again_after_a_failover(tmp_path: Path) -> None:
    with own_server() as master, own_server() as replica, sentinel_of(master, tmp_path) as port:
        with Redis.from_url(replica.url) as client:
            client.replicaof("127.0.0.1", str(master.port))
            wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        sentinel = SyncSentinel([("127.0.0.1", port)], socket_timeout=1)
        wait_until(lambda: sentinel.discover_slaves("mymaster"))
        store = RedisStore(sentinel.master_for("mymaster"), prefix=fresh_prefix())
        factory = Factory(store)
        breaker = factory.breaker_for("db")
        breaker.execute(int)
        assert store._link.place == "the master 'mymaster'"
        with Redis.from_url(replica.url) as client:
            wait_until(lambda: client.exists(store.key("db")))
        master.kill()
        assert breaker.start().end(Outcome.SUCCESS).local

        wait_until(lambda: not factory.is_store_down)
        settlement = breaker.start().end(Outcome.SUCCESS)
        assert not settlement.local
        with Redis.from_url(replica.url) as client:
            assert client.role()[0] == b"master"
            assert client.exists(store.key("db"))
        factory.close()
        store.close()
        master.start()


async def test_asyncio_finds_the_master_too(tmp_path: Path) -> None:
    with own_server() as master, sentinel_of(master, tmp_path) as port:
        sentinel = AsyncSentinel([("127.0.0.1", port)], socket_timeout=1)
        store = AsyncRedisStore(sentinel.master_for("mymaster"), prefix=fresh_prefix())
        assert isinstance(await store.swap("db", None, b"v", None), Stored)
        assert (await store.load("db")).entry is not None
        await store.aclose()
        unknown = AsyncRedisStore(sentinel.master_for("nobody"), prefix=fresh_prefix())
        with pytest.raises(StoreError) as raised:
            await unknown.load("db")
        assert raised.value.kind == "unavailable"
        for each in sentinel.sentinels:
            await each.aclose()

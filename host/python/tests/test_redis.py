"""What is sent to Redis and which error is which, on real servers."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import asyncio as aioredis

from circuitry import CircuitryError, Conflict, Factory, Outcome, SettingsError, Stored, StoreError
from circuitry.redis import AsyncRedisStore, RedisStore
from servers import Server, fresh_prefix, own_server, redis_url


@pytest.fixture
def prefix() -> str:
    return fresh_prefix()


@pytest.fixture
def client() -> Iterator[Any]:
    with redis.Redis.from_url(redis_url()) as client:
        yield client


@pytest.fixture
def store(prefix: str) -> Iterator[RedisStore]:
    store = RedisStore(redis_url(), prefix=prefix)
    yield store
    store.close()


def calls(client: Any, command: str) -> int:
    """How often a server has run a command."""
    stats = client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(stats["calls"])


def test_the_layout_is_a_hash_of_version_and_value_under_prefix_and_name(
    store: RedisStore, client: Any, prefix: str
) -> None:
    stored = store.swap("emails/acme", None, b"\0value", 60_000)
    assert isinstance(stored, Stored)
    assert client.hgetall(f"{prefix}emails/acme") == {b"version": stored.version, b"value": b"\0value"}
    assert len(stored.version) == 16
    assert 0 < client.pttl(f"{prefix}emails/acme") <= 60_000
    assert store.key("emails/acme") == f"{prefix}emails/acme"


@pytest.mark.parametrize(
    ("put", "found"),
    [
        (lambda client, key: client.set(key, "text"), "a string"),
        (lambda client, key: client.rpush(key, "a", "b"), "a list"),
        (lambda client, key: client.hset(key, "other", "field"), "without the fields"),
        (lambda client, key: client.hset(key, "version", "alone"), "version"),
    ],
)
def test_a_key_that_is_not_ours_is_left_alone_and_named(
    put: Any, found: str, store: RedisStore, client: Any, prefix: str
) -> None:
    key = f"{prefix}db"
    put(client, key)
    before = client.dump(key)
    for operation in (lambda: store.load("db"), lambda: store.swap("db", None, b"v", None)):
        with pytest.raises(StoreError) as raised:
            operation()
        assert raised.value.kind == "other"
        assert found in str(raised.value)
        assert prefix in str(raised.value)
    with pytest.raises(StoreError):
        Factory(store).breaker_for("db").start()
    assert client.dump(key) == before


def test_a_client_is_taken_for_its_settings_and_bytes_stay_bytes(prefix: str) -> None:
    value = bytes(range(256))
    with redis.Redis.from_url(redis_url(), decode_responses=True, socket_timeout=None) as decoding:
        store = RedisStore(decoding, prefix=prefix)
        assert isinstance(store.swap("db", None, value, None), Stored)
        entry = store.load("db").entry
    assert entry is not None
    assert entry.value == value
    store.close()


def test_a_server_or_a_setting_of_the_wrong_kind_is_refused_by_name() -> None:
    bad: list[tuple[Any, dict[str, Any], str]] = [
        (5, {}, "server"),
        ("http://127.0.0.1", {}, "server"),
        (aioredis.Redis(), {}, "server"),
        (redis_url(), {"prefix": b"bytes"}, "prefix"),
        (redis_url(), {"prefix": "\ud800"}, "prefix"),
        (redis_url(), {"operation_timeout_ms": 0}, "operation_timeout_ms"),
        (redis_url(), {"operation_timeout_ms": 60_001}, "operation_timeout_ms"),
        (redis_url(), {"connect_timeout_ms": 1.5}, "connect_timeout_ms"),
    ]
    for server, options, field in bad:
        with pytest.raises(SettingsError) as raised:
            RedisStore(server, **options)
        assert raised.value.field == field
    with pytest.raises(SettingsError):
        AsyncRedisStore(redis.Redis())


def test_the_script_is_sent_whole_where_the_server_does_not_know_it(prefix: str) -> None:
    with own_server() as server, redis.Redis.from_url(server.url) as client:
        store = RedisStore(server.url, prefix=prefix)
        for circuit in ("a", "b"):
            assert isinstance(store.swap(circuit, None, b"v", None), Stored)
        assert (calls(client, "evalsha"), calls(client, "eval")) == (2, 1)
        client.script_flush()
        assert isinstance(store.swap("c", None, b"v", None), Stored)
        assert (calls(client, "evalsha"), calls(client, "eval")) == (3, 2)
        store.close()


def test_a_load_is_one_command_and_asks_for_the_time_when_it_is_old(prefix: str) -> None:
    with own_server() as server, redis.Redis.from_url(server.url) as client:
        store = RedisStore(server.url, prefix=prefix)
        store.swap("db", None, b"v", None)
        loads = [store.load("db") for _ in range(10)]
        assert (calls(client, "hmget"), calls(client, "time")) == (11, 1), "the script has asked once"
        assert all(loaded.now_ms for loaded in loads)
        told = store._protocol._told
        assert told is not None
        told.at -= 11
        store.load("db")
        assert calls(client, "time") == 2
        store.close()


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_swap_is_sent_at_most_once_and_one_that_is_not_answered_is_unknown(kind: str, prefix: str) -> None:
    with own_server() as server, redis.Redis.from_url(server.url) as client:
        # A client that would try again.
        retrying: dict[str, Any] = {"retry_on_timeout": True, "socket_timeout": 0.1}
        if kind == "threads":
            store: Any = RedisStore(redis.Redis.from_url(server.url, **retrying), prefix=prefix)
            run: Any = lambda work: work()  # noqa: E731
        else:
            store = AsyncRedisStore(aioredis.Redis.from_url(server.url, **retrying), prefix=prefix)
            run = lambda work: asyncio.run(_and_close(store, work()))  # noqa: E731
        run(lambda: store.swap("warm", None, b"v", None))

        def swap_stalled() -> Any:
            return store.swap("db", None, b"v", None, timeout=0.3)

        async def both() -> Any:
            # On one loop, so that a connection is there.
            await store.swap("warm", None, b"v", None)
            server.stall()
            try:
                return await swap_stalled()
            finally:
                await store.aclose()

        sent = calls(client, "evalsha")
        begun = time.monotonic()
        if kind == "threads":
            server.stall()
        else:
            sent += 1
        with pytest.raises(StoreError) as raised:
            swap_stalled() if kind == "threads" else asyncio.run(both())
        assert raised.value.kind == "unknown"
        assert time.monotonic() - begun < 2
        server.resume()
        time.sleep(0.3)
        assert calls(client, "evalsha") == sent + 1


async def _and_close(store: Any, work: Any) -> Any:
    try:
        return await work
    finally:
        await store.aclose()


def test_after_a_failure_an_outage_reads_as_unavailable_and_writes_nothing(prefix: str) -> None:
    with own_server() as server:
        store = RedisStore(server.url, prefix=prefix, operation_timeout_ms=200)
        store.swap("db", None, b"v", None)
        server.stall()
        kinds = []
        for _ in range(3):
            with pytest.raises(StoreError) as raised:
                store.swap("db", None, b"v", None)
            kinds.append(raised.value.kind)
        assert kinds == ["unknown", "unavailable", "unavailable"]
        server.resume()
        assert isinstance(store.swap("db", None, b"v", None), Conflict)
        store.close()


def test_a_connection_that_the_server_closed_is_replaced_before_a_swap(prefix: str) -> None:
    with own_server() as server:
        store = RedisStore(server.url, prefix=prefix)
        store.load("db")
        server.kill()
        server.start()
        assert isinstance(store.swap("db", None, b"v", None), Stored), "a dead connection is no lost answer"
        store.close()


@pytest.fixture
def acl_server() -> Iterator[Server]:
    with own_server() as server:
        worker = "on >secret ~circuitry:* &circuitry: +hmget +evalsha +eval +hset +pexpire +persist +exists +time +type"
        reader = "on >secret ~circuitry:* +hmget +exists +time +type"
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "worker", *worker.split(), "+publish")
            client.execute_command("ACL", "SETUSER", "reader", *reader.split())
        yield server


def test_the_permissions_of_the_readme_are_enough_and_without_them_access_is_denied(acl_server: Server) -> None:
    port = acl_server.port
    store = RedisStore(f"redis://worker:secret@127.0.0.1:{port}")
    factory = Factory(store, failure_count_threshold=0)
    breaker = factory.breaker_for("db")
    breaker.start().end(Outcome.FAILURE)
    assert not factory.is_store_down
    reader = RedisStore(f"redis://reader:secret@127.0.0.1:{port}")
    assert reader.load("db").entry is not None
    elsewhere = RedisStore(f"redis://worker:secret@127.0.0.1:{port}", prefix="other:")
    stranger = RedisStore(f"redis://worker:wrong@127.0.0.1:{port}")
    for operation in (
        lambda: reader.swap("db", None, b"v", None),
        lambda: elsewhere.load("db"),
        lambda: stranger.load("db"),
        stranger.connect,
    ):
        with pytest.raises(StoreError) as raised:
            operation()
        assert raised.value.kind == "denied"
    for each in (store, reader, elsewhere, stranger):
        each.close()


def test_a_server_that_may_not_write_is_unavailable(prefix: str) -> None:
    with own_server() as master, own_server() as replica, redis.Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", str(master.port))
        store = RedisStore(replica.url, prefix=prefix)
        with pytest.raises(StoreError) as raised:
            store.swap("db", None, b"v", None)
        assert raised.value.kind == "unavailable"
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreError) as raised:
            store.swap("db", None, b"v", None)
        assert raised.value.kind == "unavailable"
        store.close()


def test_a_change_is_announced_to_those_who_listen(store: RedisStore, client: Any, prefix: str) -> None:
    """Hosts in bounded mode hear of it; the channel is the prefix itself, a message is the circuit's name."""
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(prefix)
    subscription.get_message(timeout=5)
    factory = Factory(store, failure_count_threshold=0)
    breaker = factory.breaker_for("db", tenant="ü")
    breaker.execute(int)
    breaker.start().end(Outcome.FAILURE)
    until = time.monotonic() + 10
    message = None
    while message is None and time.monotonic() < until:
        message = subscription.get_message(timeout=1)
    assert message is not None
    assert message["data"] == "db/ü".encode()
    subscription.close()
    factory.close()


# ---- servers that are none ----


class Impostor:
    """Answers every connection with the same bytes."""

    def __init__(self, answer: bytes, *, greets: bool = True) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answer = answer
        self._greets = greets
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}?protocol=2"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer_all, args=(connection,), daemon=True).start()

    def _answer_all(self, connection: socket.socket) -> None:
        with connection:
            try:
                while request := connection.recv(1 << 16):
                    is_greeting = self._greets and b"SETINFO" in request
                    connection.sendall(b"+OK\r\n" if is_greeting else self._answer)
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()


class Slow:
    """Answers each piece of a request, and the second half of each answer, after a while."""

    def __init__(self, *, pause: float, greeting_pause: float = 0) -> None:
        self._pause, self._greeting_pause = pause, greeting_pause
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://user:secret@127.0.0.1:{self._listener.getsockname()[1]}/1?protocol=2"

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
            with connection:
                while request := connection.recv(1 << 16):
                    if b"HMGET" not in request:
                        time.sleep(self._greeting_pause)
                        connection.sendall(b"+OK\r\n" * max(1, request.count(b"SETINFO")))
                        continue
                    connection.sendall(b"*2\r\n$-1\r\n")
                    time.sleep(self._pause)
                    connection.sendall(b"$-1\r\n*2\r\n$1\r\n5\r\n$1\r\n5\r\n" if b"TIME" in request else b"$-1\r\n")
                    if b"TIME" not in request:
                        return
        except OSError:
            return

    def close(self) -> None:
        self._listener.close()


def test_each_operation_has_its_own_time_whatever_the_one_had_that_connected() -> None:
    slow = Slow(pause=0.3)
    store = RedisStore(slow.url, operation_timeout_ms=10_000)
    connection = store._link._connect(time.monotonic() + 0.2, None)
    store._link._idle.append(connection)
    with pytest.raises(StoreError, match="answer is lost"):
        # It is read, slowly, and what is asked next is not answered: a key without an entry is looked at twice.
        store.load("db")
    assert connection.until - time.monotonic() > 5, "the first half was not all that it waited for"
    slow.close()


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_to_connect_is_bounded_as_a_whole_with_the_greeting(kind: str) -> None:
    slow = Slow(pause=0, greeting_pause=0.25)
    if kind == "threads":
        connect: Any = RedisStore(slow.url, connect_timeout_ms=400).connect
    else:
        store = AsyncRedisStore(slow.url, connect_timeout_ms=400)
        connect = lambda: asyncio.run(_and_close(store, store.connect()))  # noqa: E731
    begun = time.monotonic()
    with pytest.raises(StoreError) as raised:
        connect()
    assert raised.value.kind == "unavailable"
    assert 0.3 < time.monotonic() - begun < 0.7, "four greetings take a second"
    slow.close()


GARBAGE = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"+OK\r\n",
    b":1\r\n",
    b"$-1\r\n",
    b"*0\r\n",
    b"*2\r\n:1\r\n:-5\r\n",
    b"*2\r\n:3\r\n:5\r\n",
    b"*3\r\n:1\r\n:5\r\n$1\r\nx\r\n",
    b"*2\r\n$1\r\nx\r\n:5\r\n",
    b"*3\r\n:0\r\n:5\r\n$7\r\nversion\r\n",
    b"*4\r\n:0\r\n:5\r\n$1\r\nv\r\n:9\r\n",
    b"*-1\r\n",
    b"*1\r\n*1\r\n*1\r\n:1\r\n",
    b"-\r\n",
    b"-NONSENSE at all\r\n",
    b"$5\r\nab",
    b"$99999999999999999999\r\n",
    b"\x00\xff\xfe",
    b"!!!!\r\n",
    b"",
]


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
@pytest.mark.parametrize("answer", GARBAGE, ids=repr)
def test_garbage_on_the_wire_is_a_typed_error(answer: bytes, kind: str) -> None:
    impostor = Impostor(answer)
    store: Any
    if kind == "threads":
        store = RedisStore(impostor.url, operation_timeout_ms=150)
        run: Any = lambda work: work()  # noqa: E731
    else:
        store = AsyncRedisStore(impostor.url, operation_timeout_ms=150)

        def run(work: Any) -> Any:
            return asyncio.run(_and_close(store, work()))

    for name, operation in (
        ("load", lambda: store.load("db")),
        ("swap", lambda: store.swap("db", None, b"v", None)),
    ):
        with pytest.raises(StoreError) as raised:
            run(operation)
        allowed = {"unavailable", "other"} if name == "load" else {"unknown", "unavailable", "other"}
        assert raised.value.kind in allowed
    impostor.close()


def test_a_server_that_is_none_makes_no_permit_of_the_shared_record() -> None:
    impostor = Impostor(b"*2\r\n:1\r\n:5\r\n")
    factory = Factory(RedisStore(impostor.url, operation_timeout_ms=150), store_timeout_ms=200)
    try:
        permit = factory.breaker_for("db").start()
    except CircuitryError:
        pass
    else:
        assert permit.end(Outcome.SUCCESS).local
    factory.close()
    impostor.close()


def test_the_script_is_the_one_of_the_project() -> None:
    original = Path(__file__).parents[2] / "redis" / "src" / "swap.lua"
    assert RedisStore(redis_url())._protocol._script == original.read_bytes()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_has_ended_leaves_no_connection_open(prefix: str, client: Any) -> None:
    name = prefix.strip(":").encode()
    named = aioredis.Redis.from_url(redis_url(), client_name=name.decode())
    store = AsyncRedisStore(named, prefix=prefix)

    async def work() -> None:
        await asyncio.gather(*[store.load("db") for _ in range(3)])

    def open_now() -> int:
        return sum(connection["name"] == name.decode() for connection in client.client_list())

    asyncio.run(work())
    of_one_loop = open_now()
    assert of_one_loop == 3
    for _ in range(4):
        asyncio.run(work())
    until = time.monotonic() + 10
    while open_now() > of_one_loop:
        assert time.monotonic() < until, f"{open_now()} connections are open"
        time.sleep(0.01)
    asyncio.run(store.aclose())
    gc.collect()

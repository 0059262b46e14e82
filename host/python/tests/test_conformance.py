"""The store conformance cases, on the stores in memory and on Redis, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from circuitry import AsyncMemoryStore, AsyncStore, Loaded, ManualClock, MemoryStore, Store, StoreError, Swapped
from circuitry.redis import AsyncRedisStore, RedisStore
from conformance import RULES, Harness, bounded
from servers import LossyProxy, free_port, fresh_prefix, redis_url

T = TypeVar("T")


class Waiting:
    """A store for asyncio as one for threads: its coroutines run on a loop of another thread."""

    def __init__(self, store: AsyncStore, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def load(self, circuit: str, *, timeout: float) -> Loaded:
        return self._run(self._store.load(circuit, timeout=timeout))

    def swap(
        self, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None, *, timeout: float
    ) -> Swapped:
        return self._run(self._store.swap(circuit, expected, value, ttl_ms, timeout=timeout))


class FaultyStore:
    """A store in memory that is out of reach, or loses the answer to its next swap."""

    def __init__(self, store: Store, *, is_down: bool = False) -> None:
        self._store = store
        self._is_down = is_down
        self._loses = not is_down

    def load(self, circuit: str, *, timeout: float) -> Loaded:
        if self._is_down:
            raise StoreError("unavailable", "it is down")
        return self._store.load(circuit, timeout=timeout)

    def swap(
        self, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None, *, timeout: float
    ) -> Swapped:
        if self._is_down:
            raise StoreError("unavailable", "it is down")
        swapped = self._store.swap(circuit, expected, value, ttl_ms, timeout=timeout)
        if self._loses:
            self._loses = False
            raise StoreError("unknown", "no answer")
        return swapped


class MemoryHarness:
    grain_ms = 1

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._clock = ManualClock(1_000)
        self._store: Store = MemoryStore(clock=self._clock)
        if loop is not None:
            self._store = Waiting(AsyncMemoryStore(clock=self._clock), loop)

    def open(self) -> Store:
        return self._store

    def wait_ms(self, ms: int) -> None:
        self._clock.advance_ms(ms)

    def open_unreachable(self) -> Store:
        return FaultyStore(self._store, is_down=True)

    def open_losing_answer(self) -> Store:
        return FaultyStore(self._store)


class RedisHarness:
    grain_ms = 50

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._prefix = fresh_prefix()
        self._proxies: list[LossyProxy] = []
        self._stores: list[Any] = []

    def _make(self, url: str) -> Store:
        # A busy machine is no broken rule.
        if self._loop is None:
            self._stores.append(RedisStore(url, prefix=self._prefix, operation_timeout_ms=10_000))
            store: Store = self._stores[-1]
            return store
        self._stores.append(AsyncRedisStore(url, prefix=self._prefix, operation_timeout_ms=10_000))
        return Waiting(self._stores[-1], self._loop)

    def open(self) -> Store:
        return self._make(redis_url())

    def wait_ms(self, ms: int) -> None:
        time.sleep(ms / 1000)

    def open_unreachable(self) -> Store:
        return self._make(f"redis://127.0.0.1:{free_port()}")

    def open_losing_answer(self) -> Store:
        proxy = LossyProxy(urlsplit(redis_url()).port or 6379)
        self._proxies.append(proxy)
        store = self._make(proxy.url)
        store.load("warm up", timeout=10)
        proxy.lose_next_answer()
        return store

    def close(self) -> None:
        for store in self._stores:
            if self._loop is None:
                store.close()
            else:
                asyncio.run_coroutine_threadsafe(store.aclose(), self._loop).result(10)
        for proxy in self._proxies:
            proxy.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_memory(rule: Callable[[Harness], None], kind: str, loop: asyncio.AbstractEventLoop) -> None:
    bounded(rule, MemoryHarness(loop if kind == "asyncio" else None))


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_redis(rule: Callable[[Harness], None], kind: str, loop: asyncio.AbstractEventLoop) -> None:
    harness = RedisHarness(loop if kind == "asyncio" else None)
    try:
        bounded(rule, harness)
    finally:
        harness.close()


def test_the_rules_are_those_of_the_suite_in_rust() -> None:
    suite = Path(__file__).parents[2] / "store" / "src" / "conformance.rs"
    listed = re.search(r"@\$what \$harness;(.*?)\}", suite.read_text(encoding="utf-8"), re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"(\w+),", listed[1])) == set(RULES)

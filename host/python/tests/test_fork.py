"""A forked child is another process of the fleet: another node, and connections of its own."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from circuitry import Context, Disposition, Factory, Outcome, StoreError
from circuitry.redis import RedisStore
from servers import fresh_prefix, redis_url

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_child(work: Callable[[], Any]) -> str:
    """Runs it in a child; gives what it returned, as a text."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Later releases of Python warn of forks of processes with threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            text = str(work())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    told = b""
    while part := os.read(read, 4096):
        told += part
    os.close(read)
    os.waitpid(pid, 0)
    return told.decode()


def test_a_child_has_a_node_and_connections_of_its_own_and_both_count() -> None:
    store = RedisStore(redis_url(), prefix=fresh_prefix())
    factory = Factory(store, failure_count_threshold=1_000)
    breaker = factory.breaker_for("db")
    breaker.execute(int)
    node = factory._node._id

    def work() -> Any:
        for _ in range(20):
            breaker.execute(int)
        return factory._node._id

    child = in_child(work)
    assert child.isdigit(), child
    assert int(child) != node
    for _ in range(20):
        breaker.execute(int)
    assert breaker.information().counts.total_successes == 41
    store.close()


def test_a_child_does_not_wait_for_what_was_under_way_in_its_parent() -> None:
    """Locks that are held at the fork, and a leader that is not there in the child."""
    store = RedisStore(redis_url(), prefix=fresh_prefix())
    # The parent wins most races, so a child needs its time.
    factory = Factory(store, failure_count_threshold=1_000_000, store_timeout_ms=30_000)
    breaker = factory.breaker_for("db")
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            breaker.execute(int)

    threads = [threading.Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            begun = time.monotonic()
            told = in_child(lambda: breaker.start().end(Outcome.SUCCESS).disposition.value)
            assert told == Disposition.ACCEPTED.value
            assert time.monotonic() - begun < 29
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    store.close()


def test_a_child_may_make_a_factory() -> None:
    factory = Factory()
    told = in_child(lambda: Factory(jitter_per_mille=5).breaker_for("db").execute(lambda: "made"))
    assert told == "made"
    factory.close()


def test_an_outage_of_the_parent_is_found_out_anew() -> None:
    healthy = Factory()
    healthy._node.outage.enter("db", StoreError("unavailable", "as the test says"))
    assert healthy.is_store_down
    assert in_child(lambda: (healthy.is_store_down, healthy.breaker_for("db").execute(int))) == "(False, 0)"


def test_a_circuit_that_a_child_makes_anew_repeats_no_number_of_the_one_before() -> None:
    factory = Factory(max_circuits=1)

    def number(name: str) -> int:
        return next(factory._node.circuit(name, Context()).starts) >> 32

    before = [number("a"), number("b")]
    assert int(in_child(lambda: number("a"))) not in before

"""The worker of the polyglot fleet test, by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers import fresh_prefix, redis_url

WORKER = Path(__file__).parent / "fleet_worker.py"


class Worker:
    def __init__(self, prefix: str, *options: str, **settings: Any) -> None:
        given = {
            "redis_url": redis_url(),
            "prefix": prefix,
            "circuit": "a/b",
            "failure_count_threshold": 5,
            "close_threshold": 1,
            "allow_after_ms": 300,
            "probe_timeout_ms": 30_000,
            **settings,
        }
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(given), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._read())

    def close(self) -> None:
        _, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0


@pytest.fixture(params=[[], ["--async"]], ids=["threads", "asyncio"])
def workers(request: Any) -> Iterator[list[Worker]]:
    prefix = fresh_prefix()
    workers = [Worker(prefix, *request.param) for _ in range(2)]
    yield workers
    for worker in workers:
        worker.close()


def test_two_workers_share_the_circuit_of_exactly_that_name(workers: list[Worker]) -> None:
    one, other = workers
    permits = [one.ask(start={})["permit"] for _ in range(6)]
    assert [permit["probe"] for permit in permits] == [False] * 6
    told = [one.ask(end={"id": permit["id"], "outcome": "failure"}) for permit in permits]
    assert told == [{"settled": {"disposition": "accepted", "local": False}}] * 6
    refused = other.ask(start={})["refused"]
    assert (refused["reason"], 0 < refused["retry_after_ms"] <= 300) == ("open", True)
    information = other.ask(inspect={})["information"]
    assert (information["state"], information["counts"]["total"]) == ("open", 0)
    report = one.ask(execute={"tasks": 1, "executions": 0, "failures_per_mille": 0, "seed": 1})["report"]
    assert [(change["from"], change["to"], change["reason"]) for change in report["changes"]] == [
        ("closed", "open", "tripped")
    ]
    assert other.ask(end={"id": 99, "outcome": "failure"})["error"]
    assert other.ask(dance={})["error"]


def test_executions_add_up(workers: list[Worker]) -> None:
    reports = [
        worker.ask(execute={"tasks": 4, "executions": 100, "failures_per_mille": 200, "seed": seed})["report"]
        for seed, worker in enumerate(workers)
    ]
    for report in reports:
        assert report["errors"] == []
        settled = ("accepted_successes", "accepted_failures", "stale", "unsettled", "refused")
        assert report["attempts"] == sum(report[name] for name in settled) == 100
    information = workers[0].ask(inspect={})["information"]
    if not any(report["changes"] for report in reports):
        counts = information["counts"]
        assert counts["total_successes"] == sum(report["accepted_successes"] for report in reports)
        assert counts["total_failures"] == sum(report["accepted_failures"] for report in reports)

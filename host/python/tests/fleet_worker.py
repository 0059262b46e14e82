"""A worker of the polyglot fleet test: it takes commands as JSON lines on stdin and answers each with one on stdout.

    python fleet_worker.py '{"redis_url": "…", "prefix": "…", "circuit": "…", "failure_count_threshold": 5}' [--async]

It works with threads; with ``--async`` with asyncio.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
import time
from typing import Any

from circuitry import (
    AsyncFactory,
    AsyncPermit,
    CircuitRefused,
    Disposition,
    Factory,
    Information,
    Outcome,
    Permit,
    Settlement,
    StateChange,
)
from circuitry.redis import AsyncRedisStore, RedisStore

REFUSED_PAUSE = 0.005
ERRORS_MAX = 5
Json = dict[str, Any]


def settings_of(given: Json, changes: list[Json]) -> Json:
    """The settings of the factory; the circuit's name is taken as it is."""

    def changed(change: StateChange) -> None:
        made = change.transition
        changes.append(
            {
                "from": made.previous.value,
                "to": made.next.value,
                "reason": made.reason.value,
                "at_ms": made.at_ms,
                "era": made.era,
                "generation": made.generation,
                "local": change.local,
            }
        )

    names = ("failure_count_threshold", "close_threshold", "allow_after_ms", "probe_timeout_ms")
    return {
        **{name: given[name] for name in names if name in given},
        "store_timeout_ms": 20_000,
        "name_fn": lambda name, _context: name,
        "state_change_callback": changed,
    }


def told(information: Information) -> Json:
    counts = information.counts
    return {
        "information": {
            "state": information.state.value,
            "era": information.era,
            "generation": information.generation,
            "revision": information.revision,
            "counts": dict(vars(counts)),
        }
    }


class Report:
    """What became of executions, for threads and tasks alike."""

    def __init__(self, changes: list[Json]) -> None:
        self._lock = threading.Lock()
        self._changes = changes
        names = ("attempts", "refused", "accepted_successes", "accepted_failures", "stale", "unsettled", "local")
        self._counts = dict.fromkeys(names, 0)
        self._errors: list[str] = []

    def count(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self._counts[name] += 1

    def settled(self, outcome: Outcome, settlement: Settlement) -> None:
        names = {
            Disposition.ACCEPTED: "accepted_successes" if outcome is Outcome.SUCCESS else "accepted_failures",
            Disposition.STALE: "stale",
            Disposition.UNSETTLED: "unsettled",
        }
        name = names.get(settlement.disposition)
        self.count(*([name] if name else []), *(["local"] if settlement.local else []))

    def failed(self, error: Exception) -> None:
        with self._lock:
            if len(self._errors) < ERRORS_MAX:
                self._errors.append(f"{type(error).__name__}: {error}")

    def to_json(self) -> Json:
        changes = self._changes[:]
        del self._changes[: len(changes)]
        return {"report": {**self._counts, "errors": self._errors, "changes": changes}}


def shares(executions: int, tasks: int) -> list[int]:
    return [executions // tasks + (1 if task < executions % tasks else 0) for task in range(tasks)]


def outcomes(ask: Json, task: int) -> random.Random:
    return random.Random(f"{ask['seed']}-{task}")


def outcome_of(ask: Json, rng: random.Random) -> Outcome:
    return Outcome.FAILURE if rng.randrange(1000) < ask["failures_per_mille"] else Outcome.SUCCESS


class Permits:
    """The permits that were given by number."""

    def __init__(self) -> None:
        self._given: dict[int, Any] = {}
        self._last = 0

    def keep(self, permit: Permit | AsyncPermit) -> Json:
        self._last += 1
        self._given[self._last] = permit
        return {"permit": {"id": self._last, "era": permit.era, "probe": permit.is_probe}}

    def take(self, number: int) -> Any:
        return self._given.pop(number)


def refused(refusal: CircuitRefused) -> Json:
    return {"refused": {"reason": refusal.reason.value, "retry_after_ms": refusal.retry_after_ms}}


def settled(settlement: Settlement) -> Json:
    return {"settled": {"disposition": settlement.disposition.value, "local": settlement.local}}


def run_threads(given: Json) -> None:
    changes: list[Json] = []
    store = RedisStore(given["redis_url"], prefix=given["prefix"], operation_timeout_ms=20_000)
    factory = Factory(store, **settings_of(given, changes))
    breaker = factory.breaker_for(given["circuit"])
    permits = Permits()

    def execute(ask: Json) -> Json:
        report = Report(changes)

        def work(task: int, executions: int) -> None:
            rng = outcomes(ask, task)
            for _ in range(executions):
                report.count("attempts")
                try:
                    permit = breaker.start()
                    outcome = outcome_of(ask, rng)
                    report.settled(outcome, permit.end(outcome))
                except CircuitRefused:
                    report.count("refused")
                    time.sleep(REFUSED_PAUSE)
                except Exception as error:
                    report.failed(error)

        threads = [
            threading.Thread(target=work, args=share) for share in enumerate(shares(ask["executions"], ask["tasks"]))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return report.to_json()

    def answer(command: str, ask: Json) -> Json:
        if command == "start":
            try:
                return permits.keep(breaker.start())
            except CircuitRefused as refusal:
                return refused(refusal)
        if command == "end":
            return settled(permits.take(ask["id"]).end(ask["outcome"]))
        if command == "inspect":
            return told(breaker.information())
        if command == "execute":
            return execute(ask)
        raise ValueError(f"there is no command {command!r}")

    print("ready", flush=True)
    for line in sys.stdin:
        try:
            ((command, ask),) = json.loads(line).items()
            reply = answer(command, ask)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)
    factory.close()
    store.close()


async def run_tasks(given: Json) -> None:
    changes: list[Json] = []
    store = AsyncRedisStore(given["redis_url"], prefix=given["prefix"], operation_timeout_ms=20_000)
    factory = AsyncFactory(store, **settings_of(given, changes))
    breaker = factory.breaker_for(given["circuit"])
    permits = Permits()

    async def execute(ask: Json) -> Json:
        report = Report(changes)

        async def work(task: int, executions: int) -> None:
            rng = outcomes(ask, task)
            for _ in range(executions):
                report.count("attempts")
                try:
                    permit = await breaker.start()
                    outcome = outcome_of(ask, rng)
                    report.settled(outcome, await permit.end(outcome))
                except CircuitRefused:
                    report.count("refused")
                    await asyncio.sleep(REFUSED_PAUSE)
                except Exception as error:
                    report.failed(error)

        await asyncio.gather(*(work(*share) for share in enumerate(shares(ask["executions"], ask["tasks"]))))
        return report.to_json()

    async def answer(command: str, ask: Json) -> Json:
        if command == "start":
            try:
                return permits.keep(await breaker.start())
            except CircuitRefused as refusal:
                return refused(refusal)
        if command == "end":
            return settled(await permits.take(ask["id"]).end(ask["outcome"]))
        if command == "inspect":
            return told(await breaker.information())
        if command == "execute":
            return await execute(ask)
        raise ValueError(f"there is no command {command!r}")

    print("ready", flush=True)
    # Not the loop's: leases are renewed while it waits for a command.
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            ((command, ask),) = json.loads(line).items()
            reply = await answer(command, ask)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)
    await factory.aclose()
    await store.aclose()


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--async"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    given = json.loads(arguments[0])
    if "--async" in sys.argv:
        asyncio.run(run_tasks(given))
    else:
        run_threads(given)


if __name__ == "__main__":
    main()

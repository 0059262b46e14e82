"""What a breaker does in asyncio."""

from __future__ import annotations

import asyncio

import pytest

from circuitry import (
    ArgumentError,
    AsyncFactory,
    AsyncMemoryStore,
    CircuitRefused,
    Disposition,
    ManualClock,
    Outcome,
    Override,
    OverrideKind,
    State,
)
from doubles import NOW_MS, Recorder, Work


async def test_the_same_for_asyncio() -> None:
    clock, recorder = ManualClock(NOW_MS), Recorder()
    factory = AsyncFactory(
        AsyncMemoryStore(clock=clock), clock=clock, failure_count_threshold=1, state_change_callback=recorder
    )
    breaker = factory.breaker_for("emails", tenant="acme")

    @breaker
    async def send(what: str) -> str:
        if what == "bad":
            raise Work
        return what

    assert await send("good") == "good"
    for _ in range(2):
        with pytest.raises(Work):
            await send("bad")
    with pytest.raises(CircuitRefused):
        await send("good")
    assert await breaker.state() is State.OPEN
    clock.advance_ms(60_000)
    async with breaker.permit() as permit:
        assert permit.is_probe
    assert recorder.reasons() == ["tripped", "open-time-over", "probes-succeeded"]
    assert (await breaker.explain()).startswith("Circuit emails/acme is closed")
    await breaker.set_override(Override(OverrideKind.FORCED_OPEN, "ops", ""))
    assert await breaker.reset() is not None
    status, settlement = await breaker.execute_classified(lambda: asyncio.sleep(0, 503), lambda _: Outcome.FAILURE)
    assert (status, settlement.disposition) == (503, Disposition.ACCEPTED)  # type: ignore[union-attr]
    await factory.aclose()


async def test_a_cancel_is_ignored_and_a_deadline_is_a_failure() -> None:
    factory = AsyncFactory(failure_count_threshold=5)
    breaker = factory.breaker_for("db")
    task = asyncio.create_task(breaker.execute(asyncio.sleep, 60))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await breaker.information()).counts.total == 0
    with pytest.raises(asyncio.TimeoutError):
        await breaker.execute(asyncio.wait_for, asyncio.sleep(60), 0.01)
    assert (await breaker.information()).counts.total_failures == 1


async def test_a_cancelled_probe_frees_its_place() -> None:
    clock = ManualClock(NOW_MS)
    factory = AsyncFactory(AsyncMemoryStore(clock=clock), clock=clock, failure_count_threshold=0)
    breaker = factory.breaker_for("db")
    with pytest.raises(Work):
        async with breaker.permit():
            raise Work
    clock.advance_ms(60_000)
    task = asyncio.create_task(breaker.execute(asyncio.sleep, 60))
    await asyncio.sleep(0.05)
    assert len((await breaker.information()).probes) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await factory._driver.join(5)
    assert (await breaker.information()).probes == ()
    assert (await breaker.start()).is_probe


async def test_what_is_not_awaited_is_refused() -> None:
    breaker = AsyncFactory().breaker_for("db")
    with pytest.raises(ArgumentError):
        breaker.guard(int)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        await breaker.execute(int)  # type: ignore[arg-type]
    assert (await breaker.information()).counts.total == 0


def test_a_factory_works_on_one_loop_after_another_but_not_on_two() -> None:
    factory = AsyncFactory()
    breaker = factory.breaker_for("db")

    async def work() -> int:
        await breaker.start()
        return await breaker.execute(asyncio.sleep, 0, 5)

    assert asyncio.run(work()) == 5
    assert asyncio.run(work()) == 5
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work())

        async def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                await breaker.start()

        asyncio.run(elsewhere())
    finally:
        loop.close()

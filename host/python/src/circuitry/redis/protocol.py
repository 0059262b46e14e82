"""What is sent to Redis, what comes back, and which error is which. No I/O here.

A load and a swap are steps: they yield the commands of one message and are sent the answers, or are thrown
:class:`Trouble`.

Invariant: nothing that may have written is told as anything but ``unknown``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from redis import exceptions

from .._wasm.component import packaged
from ..errors import StoreError, StoreErrorKind
from ..store import Conflict, Entry, Loaded, Stored, Swapped, check_name, mint_version

T = TypeVar("T")

Command = Sequence[bytes]
Steps = Generator[Sequence[Command], Any, T]

# A load asks for the server's time when nothing has told it for so long. A drift of 100 parts in a million, which is a
# bad clock, makes a millisecond of it.
_TIME_AGES_AFTER = 10.0
# Redis refuses a time to live whose end it cannot count; this one ends in 31,000 years.
_LONGEST_TTL_MS = 1_000_000_000_000_000
# An entry may expire or be created between two looks at it; a key that is not ours stays so.
_CLOSER_LOOKS = 3
# For so long after a failure each swap is preceded by one read that shows the way to be good.
_DOUBT = 5.0

# Not ready, not the master, not in this state of the cluster, out of memory or of disk, too few replicas, busy with
# somebody's script: all of them pass.
_PASSING = {
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MOVED",
    "ASK",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
    "NOSCRIPT",
    "UNBLOCKED",
}
_ACCESS = {"NOPERM", "NOAUTH", "WRONGPASS"}
# The client takes the code off the text of these.
_CODES: list[tuple[type[Exception], str]] = [
    (exceptions.NoScriptError, "NOSCRIPT"),
    (exceptions.NoPermissionError, "NOPERM"),
    (exceptions.AuthenticationError, "NOAUTH"),
    (exceptions.AuthenticationWrongNumberOfArgsError, "NOAUTH"),
    (exceptions.BusyLoadingError, "LOADING"),
    (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.OutOfMemoryError, "OOM"),
    (exceptions.MovedError, "MOVED"),
    (exceptions.AskError, "ASK"),
    (exceptions.TryAgainError, "TRYAGAIN"),
    (exceptions.MasterDownError, "MASTERDOWN"),
    (exceptions.ClusterDownError, "CLUSTERDOWN"),
]


class Trouble(Exception):
    """Why there is no answer, by how far the request came."""

    def __init__(self, how_far: Literal["not sent", "no answer"], error: BaseException | str) -> None:
        super().__init__(how_far, error)
        self.how_far = how_far
        self.error = error


def code_of(error: Exception) -> str | None:
    """The code of a server's error; ``None`` where it is none."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if "max number of clients reached" in str(error):
        return "BUSY"
    if not isinstance(error, exceptions.ResponseError):
        return None
    first = str(error).split(" ", 1)[0]
    return first if first.isupper() and first.isalpha() else "ERR"


def kind_of_code(code: str, error: Exception) -> StoreErrorKind:
    """A server's error is the proof that the request was not carried out: the script checks before it writes."""
    # A user may run the script, but not a command in it; before Redis 7 that has no code of its own.
    if code in _ACCESS or "The user executing the script can't" in str(error):
        return "denied"
    return "unavailable" if code in _PASSING else "other"


def kind_without_connection(error: BaseException | str) -> StoreErrorKind:
    """What a failure to connect is: nothing was sent, so there is nothing to look for."""
    if not isinstance(error, Exception):
        return "unavailable"
    code = code_of(error)
    if code is not None:
        return kind_of_code(code, error)
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "WRONG_VERSION_NUMBER" in text or "Invalid Database" in text:
        return "other"
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, OSError)):
        return "unavailable"
    return "other"


@dataclass
class _TimeTold:
    now_ms: int
    at: float


class Protocol:
    """The requests of one store."""

    def __init__(self, prefix: str, place: str) -> None:
        self._prefix = prefix
        self._prefix_bytes = prefix.encode()
        self._place = place
        self._script = packaged("swap.lua")
        self._digest = hashlib.sha1(self._script).hexdigest().encode()
        self._told: _TimeTold | None = None
        self._doubted_until = 0.0

    def key(self, circuit: str) -> str:
        """The key of a circuit: the prefix and the circuit's name, as they are."""
        return self._prefix + circuit

    # ---- time ----

    def _time_now(self) -> int | None:
        """The server's time now, if it was told lately: as it was, and what has passed since."""
        told = self._told
        if told is None:
            return None
        passed = time.monotonic() - told.at
        return told.now_ms + int(passed * 1000) if passed < _TIME_AGES_AFTER else None

    def _time_was_told(self, now_ms: int) -> None:
        self._told = _TimeTold(now_ms, time.monotonic())

    # ---- the operations ----

    def load(self, circuit: str) -> Steps[Loaded]:
        """One HMGET; if nothing has told the server's time for 10 s, TIME goes with it in the same message."""
        name = check_name(circuit)
        task = _Task("load", self.key(circuit), self._place)
        key = self._prefix_bytes + name
        asks_time = self._time_now() is None
        answers = yield from self._send(task, key, [_fields(key), *([[b"TIME"]] if asks_time else [])])
        if asks_time:
            now_ms = _time_in(answers[1])
            if now_ms is None:
                raise task.misread(answers[1])
            self._time_was_told(now_ms)
        entry = _entry_in(task, answers[0])
        if entry is None:
            entry = yield from self._look_closer(task, key)
        return Loaded(entry, self._time_now())

    def swap(self, circuit: str, expected: bytes | None, value: bytes, ttl_ms: int | None) -> Steps[Swapped]:
        """One EVALSHA; where the server does not know the script yet, one EVAL after it."""
        name = check_name(circuit)
        task = _Task("swap", self.key(circuit), self._place)
        key = self._prefix_bytes + name
        version = mint_version()
        if time.monotonic() < self._doubted_until:
            try:
                yield [[b"EXISTS", key]]
            except Trouble as trouble:
                # A read failed, so the write that was to follow it was not sent.
                self._doubt()
                raise task.failed(Trouble("not sent", trouble.error)) from None

        def command(name: bytes, script: bytes) -> Command:
            ttl = b"" if ttl_ms is None else str(min(max(ttl_ms, 1), _LONGEST_TTL_MS)).encode()
            exists = b"0" if expected is None else b"1"
            return [name, script, b"1", key, exists, expected or b"", version, value, ttl]

        try:
            answers = yield from self._send(task, key, [command(b"EVALSHA", self._digest)])
        except _UnknownScript:
            # The server says that it has not run it, so this is no second time. EVAL leaves the script there.
            answers = yield from self._send(task, key, [command(b"EVAL", self._script)])
        return self._ruling_in(task, answers[0], version)

    def announce(self, circuit: str) -> Steps[None]:
        """One PUBLISH on the channel, which is the prefix itself."""
        name = check_name(circuit)
        task = _Task("announcement", self.key(circuit), self._place)
        yield from self._send(task, self._prefix_bytes, [[b"PUBLISH", self._prefix_bytes, name]])

    def _ruling_in(self, task: _Task, answer: Any, version: bytes) -> Swapped:
        if not isinstance(answer, list) or len(answer) < 2 or not all(type(item) is int for item in answer[:2]):
            raise task.misread(answer)
        ruling, now_ms, *rest = answer
        if now_ms < 0:
            raise task.misread(answer)
        if ruling == 1 and not rest:
            self._time_was_told(now_ms)
            return Stored(version, now_ms)
        if ruling == 0 and not rest:
            self._time_was_told(now_ms)
            return Conflict(Loaded(None, now_ms))
        if ruling == 0 and len(rest) == 2 and all(isinstance(item, bytes) for item in rest):
            self._time_was_told(now_ms)
            return Conflict(Loaded(Entry(rest[1], rest[0]), now_ms))
        if ruling == 2 and not rest:
            raise task.foreign("a hash without the fields version and value")
        raise task.misread(answer)

    def _look_closer(self, task: _Task, key: bytes) -> Steps[Entry | None]:
        """A hash without our fields looks like no key at all; this tells the two apart."""
        for _ in range(_CLOSER_LOOKS):
            exists, fields = yield from self._send(task, key, [[b"EXISTS", key], _fields(key)])
            entry = _entry_in(task, fields)
            if entry is not None:
                return entry
            if exists == 0:
                return None
        raise task.foreign("a hash without the fields version and value")

    def _send(self, task: _Task, key: bytes, commands: Sequence[Command]) -> Steps[list[Any]]:
        try:
            answers: list[Any] = yield commands
        except Trouble as trouble:
            self._doubt()
            raise task.failed(trouble) from None
        for answer in answers:
            if not isinstance(answer, Exception):
                continue
            code = code_of(answer)
            if code == "NOSCRIPT" and task.operation == "swap" and commands[0][0] == b"EVALSHA":
                raise _UnknownScript
            if code == "WRONGTYPE":
                raise (yield from self._wrong_type(task, key))
            raise task.answered(code, answer)
        return answers

    def _wrong_type(self, task: _Task, key: bytes) -> Steps[StoreError]:
        """Says what the key holds; where that cannot be asked, that it is no hash."""
        try:
            (kind,) = yield [[b"TYPE", key]]
        except Trouble:
            kind = None
        text = kind.decode(errors="replace") if isinstance(kind, bytes) else kind
        return task.foreign(f"a {text}" if isinstance(text, str) else "another type than a hash")

    def _doubt(self) -> None:
        self._doubted_until = time.monotonic() + _DOUBT


class _UnknownScript(Exception):
    pass


def _fields(key: bytes) -> Command:
    return [b"HMGET", key, b"version", b"value"]


def _entry_in(task: _Task, fields: Any) -> Entry | None:
    """Read strictly: an answer of another form is not taken for one of ours."""
    if not isinstance(fields, list) or len(fields) != 2:
        raise task.misread(fields)
    version, value = fields
    if isinstance(version, bytes) and isinstance(value, bytes):
        return Entry(value, version)
    if version is None and value is None:
        return None
    if all(field is None or isinstance(field, bytes) for field in fields):
        raise task.foreign("a hash with only one of the fields version and value")
    raise task.misread(fields)


def _time_in(answer: Any) -> int | None:
    """TIME answers seconds and, as their fraction, microseconds."""
    if not isinstance(answer, (list, tuple)) or len(answer) != 2:
        return None
    try:
        seconds, microseconds = int(answer[0]), int(answer[1])
    except (TypeError, ValueError):
        return None
    now_ms = seconds * 1000 + microseconds // 1000
    return now_ms if 0 <= now_ms < 1 << 64 else None


@dataclass(frozen=True)
class _Task:
    """What the store does with a key: every message begins with it."""

    operation: Literal["load", "swap", "announcement"]
    key: str
    place: str

    def __str__(self) -> str:
        shown = self.key if len(self.key) <= 100 else f"{self.key[:100]}… ({len(self.key)} characters)"
        return f"{self.operation} of the key {shown!r} at {self.place}"

    def failed(self, trouble: Trouble) -> StoreError:
        """The error of a request without an answer."""
        if trouble.how_far == "not sent":
            return StoreError(
                kind_without_connection(trouble.error), f"{self}: there is no connection: {trouble.error}"
            )
        # Whatever is no error of the server's own leaves it open what the server has done.
        kind: StoreErrorKind = "unknown" if self.operation == "swap" else "unavailable"
        return StoreError(kind, f"{self}: the answer is lost: {trouble.error}")

    def answered(self, code: str | None, error: Exception) -> StoreError:
        """The error of a request that was answered with one."""
        if code is None:
            return self.failed(Trouble("no answer", error))
        kind = kind_of_code(code, error)
        what = {
            "unavailable": "the server does not take it now",
            "denied": "the server does not let this user do it (the README lists the permissions)",
        }.get(kind, "the server refuses it")
        return StoreError(kind, f"{self}: {what}: {code} {error}")

    def foreign(self, found: str) -> StoreError:
        """The key holds what we have not written."""
        return StoreError(
            "other",
            f"{self}: the key holds {found}, which is no entry of a circuit; nothing was changed. Delete or rename the "
            "key, or give the store a prefix that nobody else uses",
        )

    def misread(self, answer: object) -> StoreError:
        """The answer is not of the form that was asked for. Whoever answers a swap so may have done anything."""
        text = f"{self}: the answer is not one of Redis to this request: {repr(answer)[:200]}"
        return StoreError("unknown" if self.operation == "swap" else "other", text)

"""Compiled components that are kept in a folder.

What is kept is machine code, which runs with all rights of this process. So it is loaded only where nobody but this
process's user or root can have written it, and its digest is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import stat
import tempfile
from importlib.metadata import version
from pathlib import Path

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component

from ..errors import SettingsError

_log = logging.getLogger("circuitry")
_SETTING = "component_cache"


def compiled(engine: Engine, wasm: bytes, folder: str | os.PathLike[str], kind: str) -> Component:
    """The component, out of the folder or compiled and put there."""
    if not hasattr(os, "getuid"):
        raise SettingsError(_SETTING, "on this system it cannot be told who may write the folder: leave it out")
    place = Path(folder)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(_SETTING, f"the folder {place} cannot be made: {error}") from None
    _check(place, os.stat(place), "folder", stat.S_ISDIR)
    digest = hashlib.sha256(wasm).hexdigest()[:32]
    name = f"circuitry-{digest}-{kind}-wasmtime-{version('wasmtime')}-{platform.machine()}.cwasm"
    kept = _kept(place / name)
    if kept is not None:
        try:
            return Component.deserialize(engine, kept)
        except WasmtimeError as error:
            _log.warning("the kept component %s is compiled anew: %s", place / name, error)
    component = Component(engine, wasm)
    code = bytes(component.serialize())
    _write(place / name, hashlib.sha256(code).digest() + code)
    return component


def _check(path: Path, found: os.stat_result, what: str, is_kind: object) -> None:
    if not callable(is_kind) or not is_kind(found.st_mode):
        raise SettingsError(_SETTING, f"{path} is no {what}")
    if found.st_uid not in (0, os.getuid()):
        raise SettingsError(
            _SETTING, f"the {what} {path} belongs to another user (uid {found.st_uid}): what is in it runs as code"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError(_SETTING, f"others may write the {what} {path}, which runs as code: chmod go-w it")


def _kept(path: Path) -> bytes | None:
    """The code, if the file is whole."""
    try:
        # What was looked at is what is read.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            _check(path, os.fstat(file.fileno()), "file", stat.S_ISREG)
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("the kept component %s cannot be read: %s", path, error)
        return None
    digest, code = content[:32], content[32:]
    if hashlib.sha256(code).digest() != digest:
        _log.warning("the kept component %s is damaged; it is compiled anew", path)
        return None
    return code


def _write(path: Path, content: bytes) -> None:
    """Writes whole or not at all; for its owner's eyes only."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".circuitry-")
        with open(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        _log.warning("the compiled component cannot be kept in %s: %s", path.parent, error)
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

"""Puts the component, its digest and the swap script into the package, so that wheel and sdist stand alone.

In a clone of the project they are copied from where they are kept; in an sdist they are there already.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = ["component/circuitry.wasm", "component/circuitry.wasm.sha256", "redis/src/swap.lua"]
LICENSES = ["LICENSE-APACHE", "LICENSE-MIT"]


class DataHook(BuildHookInterface[Any]):
    """Runs before each build, an editable one too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copies what is kept elsewhere."""
        root = Path(self.root)
        data = root / "src" / "circuitry" / "_data"
        data.mkdir(exist_ok=True)
        for name in FILES:
            _copy(root.parent / name, data / Path(name).name)
        for name in LICENSES:
            _copy(root.parent.parent / name, root / name)
        wasm = (data / "circuitry.wasm").read_bytes()
        expected = (data / "circuitry.wasm.sha256").read_text().split()[0]
        if hashlib.sha256(wasm).hexdigest() != expected:
            raise RuntimeError("circuitry.wasm is not the file that circuitry.wasm.sha256 was made of")


def _copy(source: Path, target: Path) -> None:
    if source.exists():
        shutil.copyfile(source, target)
    elif not target.exists():
        raise RuntimeError(f"{target.name} is neither at {source} nor in the package: build in a clone of the project")

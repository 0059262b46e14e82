"""Wheel and sdist stand alone, and what is in them is what is in the project."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import circuitry
from servers import fresh_prefix, redis_url

ROOT = Path(__file__).parents[1]
HOST = ROOT.parent
CONSTRAINTS = ROOT / "constraints.txt"
COPIES = {
    "circuitry.wasm": HOST / "component" / "circuitry.wasm",
    "circuitry.wasm.sha256": HOST / "component" / "circuitry.wasm.sha256",
    "swap.lua": HOST / "redis" / "src" / "swap.lua",
}

SCRIPT = """
import asyncio, importlib.metadata, sys
import circuitry
from circuitry import AsyncFactory, CircuitRefused, Factory, Outcome
from circuitry.redis import AsyncRedisStore, RedisStore

url, prefix = sys.argv[1:]
assert "site-packages" in circuitry.__file__, circuitry.__file__
assert importlib.metadata.version("circuitry") == circuitry.__version__
store = RedisStore(url, prefix=prefix)
factory = Factory(store, failure_count_threshold=1)
breaker = factory.breaker_for("db", tenant="acme")
assert breaker.execute(lambda: 5) == 5
for _ in range(2):
    breaker.start().end(Outcome.FAILURE)

async def main():
    store = AsyncRedisStore(url, prefix=prefix)
    async with AsyncFactory(store, failure_count_threshold=1) as factory:
        try:
            await factory.breaker_for("db", tenant="acme").start()
        except CircuitRefused as refused:
            print("refused:", refused.reason, refused.retry_after_ms > 0)
    await store.aclose()

asyncio.run(main())
store.close()
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that was built of it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


def test_a_wheel_works_from_the_packed_file_outside_of_the_project(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, f"{wheel}[redis]", cwd=tmp_path)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    told = run(python, "-I", script, redis_url(), fresh_prefix(), cwd=tmp_path)
    assert told == "refused: open True\n"


def test_the_wheel_has_the_component_the_script_the_types_and_nothing_of_the_tests(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        for name, original in COPIES.items():
            assert packed.read(f"circuitry/_data/{name}") == original.read_bytes(), name
        metadata = packed.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert "circuitry/py.typed" in names
    assert any(name.endswith("licenses/LICENSE-MIT") for name in names)
    assert not [name for name in names if "test" in name or "bench" in name or "__pycache__" in name]
    assert "Requires-Dist: wasmtime" in metadata
    assert re.search(r"Requires-Dist: redis.*extra == ['\"]redis['\"]", metadata)


def test_the_sdist_has_all_that_a_wheel_is_built_of(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        names = {name.split("/", 1)[1] for name in packed.getnames() if "/" in name}
    assert {"pyproject.toml", "hatch_build.py", "README.md", "LICENSE-APACHE", "LICENSE-MIT"} <= names
    assert {f"src/circuitry/_data/{name}" for name in COPIES} <= names


def test_the_copies_in_this_installation_are_those_of_the_project() -> None:
    for name, original in COPIES.items():
        copy = Path(circuitry.__file__).parent / "_data" / name
        again = "install again: pip install -e 'host/python[test]'"
        assert copy.read_bytes() == original.read_bytes(), f"{name} is an old one; {again}"


def test_constraints_name_versions_and_no_addresses() -> None:
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"#.*|[\w.-]+==[\w.]+|", line), line


def modules() -> list[str]:
    return ["circuitry", *(found.name for found in pkgutil.walk_packages(circuitry.__path__, "circuitry."))]


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_the_docs_of_the_code_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_everything_public_is_documented() -> None:
    for name in circuitry.__all__:
        thing = getattr(circuitry, name)
        if not isinstance(thing, type):
            continue
        assert thing.__doc__, name
        for member, value in vars(thing).items():
            if not member.startswith("_") and callable(value):
                assert value.__doc__, f"{name}.{member}"


def test_without_redis_the_rest_works(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['redis'] = None; import circuitry; circuitry.Factory().breaker_for('a').execute(int)"
    )
    run(sys.executable, "-c", script, cwd=tmp_path)


def test_no_file_is_much_longer_than_400_lines() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 480, path

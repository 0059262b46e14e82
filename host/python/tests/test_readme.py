"""The README's programs run, and its lists are whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from circuitry import errors
from circuitry._wasm.component import packaged_component
from circuitry.settings import get_known
from servers import fresh_prefix, redis_url

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
BARE = [program for program in PROGRAMS if "from_file" in program]
SERVER = '"redis://127.0.0.1:6379"'


@pytest.mark.parametrize("program", PROGRAMS, ids=[f"program {number}" for number in range(1, len(PROGRAMS) + 1)])
def test_a_program_of_the_readme_runs(program: str, tmp_path: Path) -> None:
    """As it stands there, but for the server's address and the prefix."""
    (tmp_path / "circuitry.wasm").write_bytes(packaged_component())
    store = re.compile(rf"RedisStore\({SERVER}\)")
    program = store.sub(f'RedisStore("{redis_url()}", prefix="{fresh_prefix()}")', program)
    program = program.replace(SERVER, f'"{redis_url()}"')
    if "from_file" in program:
        program += "assert started.verdict.tag == 'permit' and seen.entry.value == entries['emails/acme'].value"
    environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_the_bare_component_is_loaded_in_30_lines() -> None:
    (program,) = BARE
    assert len([line for line in program.splitlines() if line.strip()]) <= 30
    assert "circuitry import" not in program


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 8


def test_every_setting_is_in_the_table() -> None:
    table = README.split("## Settings")[1].split("## Errors")[0]
    for name in get_known():
        assert f"`{name}`" in table, name


def test_every_error_is_in_the_table() -> None:
    table = README.split("## Errors")[1].split("## What a person asks")[0]
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.CircuitryError):
            assert f"`{name}`" in table, name


def test_every_refusal_has_words() -> None:
    for reason in errors.RefusalReason:
        assert "try again in 5 ms" in str(errors.CircuitRefused("db", reason, 5))

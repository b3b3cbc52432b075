"""The targets of ``make fuzz`` work: each is given some inputs here, so that none rots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.child import Board
from fuzz.mutations import mutated
from fuzz.table import TARGETS, target
from fuzz.target import UnsayableError, outcome
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from coocnet.errors import InputError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SLOW = {"databases", "derived", "repairs", "http", "sockets"}
FEW = {"derived": 10, "repairs": 30, "http": 30, "sockets": 30}
MANNERS = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in TARGETS])
def test_every_input_is_answered_or_refused_by_an_error_of_ours(name: str, tmp_path: Path) -> None:
    one = target(name)
    reads = one.prepare(tmp_path)
    ended = {outcome(reads, seed) for seed in one.seeds()}

    def answered(data: bytes) -> None:
        outcome(reads, data)

    manners = settings(MANNERS, max_examples=FEW.get(name, 40))
    manners(given(st.one_of(one.structured, mutated(one.seeds())))(answered))()
    assert "read" in ended


def test_what_is_no_error_of_ours_is_a_finding() -> None:
    def reads(data: bytes) -> None:
        raise KeyError(data)

    with pytest.raises(KeyError):
        outcome(reads, b"x")


@pytest.mark.parametrize("text", ["x" * 5000, "a\udc80"], ids=["long", "no text"])
def test_an_error_that_nobody_can_read_is_a_finding(text: str) -> None:
    def reads(data: bytes) -> None:
        raise InputError(text)

    with pytest.raises(UnsayableError):
        outcome(reads, b"x")


def test_the_input_that_ended_a_process_stands_on_its_board(tmp_path: Path) -> None:
    Board(tmp_path / "board").put(7, b"fatal")
    assert Board(tmp_path / "board").at() == (7, b"fatal")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["boxes"])
def test_a_campaign_writes_down_how_its_inputs_ended(name: str, tmp_path: Path) -> None:
    result = tmp_path / "fuzz.json"
    words = [sys.executable, "-m", "fuzz", name, "--runs", "60", "--output", result, "--folder", tmp_path]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text())["targets"][name]
    assert found["runs"] == sum(found["outcomes"].values()) == sum(found["by"].values()) == 60
    assert found["findings"] == {}

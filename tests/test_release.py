"""What is built can be installed: the wheel, made of the sdist, passes the demo away from the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coocnet import __version__
from coocnet.recipe import tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
def test_the_wheel_passes_the_demo_where_it_is_installed(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "release.py", "--borrow", "--into", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"coocnet-{__version__}-py3-none-any.whl: the demo passes where it is installed" in ended.stdout
    assert (tmp_path / f"coocnet-{__version__}.tar.gz").is_file()


def test_the_changelog_begins_with_this_version():
    heads = [line for line in CHANGELOG.splitlines() if line.startswith("## ")]
    assert heads[0].split()[1] == __version__


def test_every_supported_python_is_named_once():
    named = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if "Python :: 3." in name]
    assert named == sorted(set(named), key=lambda version: int(version.partition(".")[2]))
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_every_extra_of_users_is_in_that_of_developers():
    extras = PROJECT["optional-dependencies"]
    (own,) = (line for line in extras["dev"] if line.startswith("coocnet["))
    assert set(own.removeprefix("coocnet[").rstrip("]").split(",")) == set(extras) - {
        "dev",
        "fuzz",
        "lock",
    }  # two that are installed where they are used

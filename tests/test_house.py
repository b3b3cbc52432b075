"""Rules of the house that a machine can hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import coocnet

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "coocnet"


def _fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)


def test_every_public_name_exists_and_is_listed_where_type_checkers_look() -> None:
    assert sorted(coocnet.__all__) == sorted(coocnet._HOMES)
    for name in coocnet.__all__:
        assert getattr(coocnet, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = coocnet.nothing_of_the_kind
    checked = ast.parse((SOURCE / "__init__.py").read_text())
    imported = {a.asname or a.name for n in ast.walk(checked) if isinstance(n, ast.ImportFrom) for a in n.names}
    assert set(coocnet.__all__) <= imported


@pytest.mark.parametrize(
    "module",
    [
        "coocnet",
        "coocnet.cli",
        "coocnet.index",
        "coocnet.ranking",
        "coocnet.recipe",
        "coocnet.evaluate",
        "coocnet.data.benchmarks",
    ],
)
def test_importing_loads_no_torch_and_says_nothing(module: str) -> None:
    done = _fresh(f"import sys, {module}; assert 'torch' not in sys.modules, 'torch was loaded'")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_the_check_above_can_fail() -> None:
    assert (
        "torch was loaded"
        in _fresh("import sys, coocnet.ops; assert 'torch' not in sys.modules, 'torch was loaded'").stderr
    )


def test_the_help_loads_neither_numpy_nor_pillow() -> None:
    done = _fresh(
        "import sys; from coocnet import cli\n"
        "sys.argv = ['coocnet', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "assert not {'numpy', 'PIL', 'torch'} & set(sys.modules), 'loaded'"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_fetch_opens_urls_and_only_the_server_listens(path: Path) -> None:
    names = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] + ([node.module or ""] if isinstance(node, ast.ImportFrom) else []))
    }
    opens = {"urllib.request", "http.client", "requests", "httpx", "socket"} & names
    serving = {"serve/server.py", "serve/connections.py"}
    listens = path.relative_to(SOURCE).as_posix() in serving and opens == {"socket"}
    assert not opens or path.name == "fetch.py" or listens


@pytest.mark.slow
def test_imports_that_point_the_wrong_way_are_caught(tmp_path: Path) -> None:
    """The checker runs in ``make check``; here it is seen to fail."""
    package = tmp_path / "coocnet"
    for file in SOURCE.rglob("*.py"):
        target = package / file.relative_to(SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "env": {"PYTHONPATH": str(tmp_path), "PATH": ""}}
    assert subprocess.run(command, **run).returncode == 0
    pooling = package / "ops" / "pooling.py"
    pooling.write_text(pooling.read_text() + "\nfrom coocnet.recipe import Recipe\n")
    broken = subprocess.run(command, **run)
    assert broken.returncode != 0
    assert "coocnet.ops.pooling -> coocnet.recipe" in broken.stdout

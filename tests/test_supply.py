"""What is installed: pinned, hashed and listed; and nothing that is read is run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
RUN_WITH = ("ann", "evaluate", "fast", "heic", "milvus", "rerank", "serve")
PYTHONS = [f"3.{minor}" for minor in re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))]
SYSTEMS = ["linux", "darwin", "win32"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(python: str, system: str) -> dict[str, str]:
    """Versions by package, for one Python and system."""
    found: dict[str, str] = {}
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system}
    for line in re.findall(r"^([\w.-]+==[^\\\n]+)", LOCK, re.MULTILINE):
        one = Requirement(line)
        if one.marker is None or one.marker.evaluate(environment):
            assert normal(one.name) not in found, f"{one.name} twice"
            (exact,) = one.specifier
            found[normal(one.name)] = exact.version
    return found


def named() -> list[Requirement]:
    listed = [
        *PROJECT["dependencies"],
        *(one for extra in RUN_WITH for one in PROJECT["optional-dependencies"][extra]),
    ]
    return [Requirement(one) for one in listed]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_a_version_in_range_of_everything_that_is_run(python: str, system: str) -> None:
    versions = locked(python, system)
    for one in named():
        if normal(one.name) == "torch" or (one.marker and not one.marker.evaluate({"python_version": python})):
            continue
        assert one.specifier.contains(versions[normal(one.name)]), one


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_the_versions_that_are_tested(python: str) -> None:
    versions, pinned = locked(python, "linux"), {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        one = Requirement(line) if not line.startswith("#") else None
        if one and (one.marker is None or one.marker.evaluate({"python_version": python})):
            pinned[normal(one.name)] = str(one.specifier)
    differing = {name for name in versions.keys() & pinned.keys() if f"=={versions[name]}" != pinned[name]}
    assert differing == set()


@pytest.mark.parametrize("python", PYTHONS)
def test_no_version_is_pinned_for_a_python_that_it_does_not_run_on(python: str) -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        one = Requirement(line) if not line.startswith("#") else None
        if one and (one.marker is None or one.marker.evaluate({"python_version": python})):
            with suppress(PackageNotFoundError):
                runs_on = metadata(one.name).get("Requires-Python") or ""
                assert SpecifierSet(runs_on).contains(f"{python}.99"), f"{line}: {runs_on}"


def test_every_version_in_the_lock_has_hashes() -> None:
    blocks = re.split(r"\n(?=[\w.-]+==)", LOCK)[1:]
    assert len(blocks) > 50
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)


def test_the_lock_names_no_place() -> None:
    assert not re.search(r"https?://|--index|--find-links|@ ", LOCK)


def test_the_lock_is_made_of_what_the_project_asks_for_now() -> None:
    sys.path.insert(0, str(ROOT / "deploy"))
    try:
        import lock
    finally:
        sys.path.remove(str(ROOT / "deploy"))
    assert set(lock.EXTRAS) == set(RUN_WITH)
    versions = locked("3.11", "linux")
    assert {normal(Requirement(one).name) for one in lock.wanted()} - {"tomli"} <= set(versions)


@pytest.mark.slow
def test_the_bill_of_materials_lists_what_is_needed_with_versions_and_licences(tmp_path: Path) -> None:
    words = [sys.executable, ROOT / "deploy" / "sbom.py", tmp_path / "bill.json"]
    subprocess.run(words, check=True, capture_output=True)
    document = json.loads((tmp_path / "bill.json").read_text())
    listed = {normal(one["name"]): one for one in document["components"]}
    here = [one for one in named() if one.marker is None or one.marker.evaluate()]
    assert {normal(one.name) for one in here} <= set(listed)
    for name, one in listed.items():
        assert one["version"] == version(name)
        assert one.get("licenses"), f"{name} has no licence"
    assert not {"pytest", "mypy", "hypothesis", "ruff"} & set(listed)
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["version"] == version("coocnet")
    refs = {one["bom-ref"] for one in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
    assert {ref for one in document["dependencies"] for ref in (one["ref"], *one["dependsOn"])} == refs


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_read_in_a_way_that_runs_it(path: Path) -> None:
    """Pickle itself is refused by the linter; here are the functions of others that would use it."""
    for call in calls(path):
        said = ast.unparse(call.func)
        options = {one.arg: ast.unparse(one.value) for one in call.keywords}
        assert said not in (
            "eval",
            "exec",
            "torch.jit.load",
            "joblib.load",
            "pickle.load",
            "pickle.loads",
            "shelve.open",
        )
        if said == "torch.load":
            assert options.get("weights_only") == "True"
        if said in ("np.load", "np.lib.format.read_array", "np.lib.npyio.NpzFile"):
            assert options.get("allow_pickle") == "False"
        if said.endswith((".extractall", ".unpack_archive")):
            raise AssertionError(f"{said}: archives are unpacked by coocnet.data.benchmarks.unpack alone")

"""Builds the wheel and the sdist, installs each into an environment of its own, and has each pass the demo.

    python benchmarks/release.py              # the real thing: pip installs everything; minutes
    python benchmarks/release.py --borrow     # as in the tests: the wheel alone, on what is here

Needs coocnet[dev]. The files are in dist/, with a bill of materials of the environment that this runs in. What is
installed is tried away from the checkout, on pictures that it renders itself; of the sdist some tests are run too,
where it is unpacked.
"""

from __future__ import annotations

import argparse
import os
import shutil
import site
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RENDER = 'from coocnet.data.scenes import make_scenes; make_scenes("town", instances=4, views=3, size_px=192)'
TESTS = ("tests/test_recipe.py", "tests/test_nearest.py", "tests/test_deploy.py", "tests/test_scenes.py")
"""Of the sdist: they cover the package, the folders beside it, and files at its top."""
SHIPPED = ("mini.safetensors", "mini-whitening.safetensors", "mini.json", "index.html", "py.typed")
"""What a wheel has to hold beside the code."""


def run(*words: str | Path, where: Path, **environment: str) -> str:
    """Runs a program and gives what it printed; what it said ends this one where it failed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COOCNET_", "PYTHON"))}
    command = list(map(str, words))
    ended = subprocess.run(
        command, cwd=where, env={**clean, **environment}, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        sys.exit(f"{' '.join(map(str, words))}\nended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def built(target: Path, *, borrow: bool) -> tuple[Path, Path]:
    """The wheel and the sdist of this checkout; the wheel is built from the sdist, which so has all that it needs."""
    shutil.rmtree(target, ignore_errors=True)
    isolation = ["--no-isolation"] if borrow else []
    run(sys.executable, "-m", "build", *isolation, "--outdir", target, ".", where=ROOT)
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


def environment(folder: Path, distribution: Path, *, borrow: bool) -> Path:
    """A new environment with this distribution; gives its Python."""
    run(sys.executable, "-m", "venv", *(["--without-pip"] if borrow else []), folder, where=folder.parent)
    (python,) = (path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.exists())
    if not borrow:
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
        run(*pip, distribution, where=ROOT)
        return python
    own = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", where=folder).strip())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", own]
    run(*pip, distribution, where=ROOT)
    others = [path for path in site.getsitepackages() if Path(path).is_dir()]
    (own / "borrowed.pth").write_text("\n".join(others))  # behind its own, so that its own coocnet is found first
    return python


def tried(python: Path, distribution: Path, folder: Path) -> None:
    """Renders, indexes, searches, explains; and the demo, whose script comes from the checkout."""
    folder.mkdir()
    home = folder / "home"
    home.mkdir()
    surroundings = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "https_proxy": "http://127.0.0.1:9"}
    where = run(python, "-c", "import coocnet; print(coocnet.__file__)", where=folder, **surroundings)
    if not Path(where.strip()).is_relative_to(python.parents[1]):
        sys.exit(f"{distribution.name} was to be tried, but {where.strip()} was found")
    run(python, "-c", RENDER, where=folder, **surroundings)
    shutil.copyfile(ROOT / "examples" / "demo.py", folder / "demo.py")
    said = run(python, "demo.py", "--photos", "town/database", "--output", "found", where=folder, **surroundings)
    for name in ("found.png", "heatmap.png"):
        if not (folder / "found" / name).is_file():
            sys.exit(f"the demo wrote no {name}:\n{said}")
    print(f"{distribution.name}: the demo passes where it is installed")


def check_contents(wheel: Path, sdist: Path) -> None:
    """The wheel holds what the package reads, and nothing but the package; the sdist what its tests read."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    missing = [file for file in SHIPPED if not any(name.endswith(f"/{file}") for name in names)]
    strangers = [name for name in names if not name.startswith(("coocnet/", "coocnet-"))]
    if missing or strangers:
        sys.exit(f"{wheel.name} lacks {missing} and has {strangers}")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = run("git", "ls-files", where=ROOT).splitlines() if (ROOT / ".git").exists() else []
    left_out = [name for name in tracked if name not in held and name != ".gitignore"]
    if left_out:
        sys.exit(f"{sdist.name} lacks {', '.join(left_out)}")


def test_sdist(sdist: Path, folder: Path) -> None:
    """Unpacks the sdist and runs some of its tests there, with its own source."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", *TESTS]
    said = run(*command, where=root, PYTHONPATH=str(root / "src"))
    print(f"{sdist.name}: {said.strip().splitlines()[-1]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds and tries both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--borrow", action="store_true", help="try the wheel alone, over what is installed here")
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="the folder for both files")
    given = parser.parse_args(arguments)
    wheel, sdist = built(given.into.resolve(), borrow=given.borrow)
    check_contents(wheel, sdist)
    with tempfile.TemporaryDirectory() as kept:
        here = Path(kept).resolve()
        for distribution, name in ((wheel, "wheel"), (sdist, "sdist"))[: 1 if given.borrow else 2]:
            python = environment(here / f"{name}-environment", distribution, borrow=given.borrow)
            tried(python, distribution, here / name)
        if not given.borrow:
            test_sdist(sdist, here / "unpacked")
            bill = wheel.with_name("-".join(wheel.name.split("-")[:2]) + ".cdx.json")
            print(run(sys.executable, ROOT / "deploy" / "sbom.py", bill, where=ROOT).strip())


if __name__ == "__main__":
    main()

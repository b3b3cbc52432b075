"""Resizing by compiled loops: Pillow's pixels to the bit, and Pillow itself wherever the loops are not to be had."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from coocnet.data import decode, resizing
from coocnet.data.resizing import resize

pytest.importorskip("numba", reason="the compiled loops need: pip install 'coocnet[fast]'")
from llvmlite.binding.ffi import lib as llvm
from numba.core.compiler_lock import global_compiler_lock


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Every second value is black or full, so that many sums leave 0 to 255."""
    values = np.random.default_rng(seed).integers(-255, 511, (height, width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def by_pillow(image: Image.Image, size: tuple[int, int], box: resizing.Part | None = None) -> np.ndarray:
    return np.array(image.resize(size, Image.Resampling.LANCZOS, box=box))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of each picture that the loops have resized."""
    called: list[tuple[int, ...]] = []
    loops = resizing.compiled_loops()
    run = loops.resize

    def noted(pixels: np.ndarray, *rest: object) -> None:
        run(pixels, *rest)
        called.append(pixels.shape)

    monkeypatch.setattr(loops, "resize", noted)
    return called


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process where nothing has been resized."""
    monkeypatch.setattr(resizing, "_tried", [])


@pytest.mark.parametrize(
    ("whole", "size"),
    [
        ((1, 1), (1, 1)),
        ((400, 300), (200, 150)),
        ((400, 300), (399, 299)),
        ((400, 300), (1, 1)),
        ((397, 31), (131, 10)),
        ((97, 65), (50, 33)),
        ((150, 300), (75, 150)),
        ((1, 9), (1, 9)),
        ((400, 1), (7, 1)),
        ((400, 2), (133, 1)),
        ((3000, 3), (512, 1)),
        ((90, 60), (30, 60)),
        ((90, 60), (90, 60)),
        ((30, 20), (75, 61)),
        ((1, 1), (5, 4)),
    ],
    ids=str,
)
def test_the_loops_give_pillows_pixels(whole, size, calls) -> None:
    image = noise(*whole)
    np.testing.assert_array_equal(resize(image, size), by_pillow(image, size), strict=True)
    assert calls == [(whole[1], whole[0], 3)]


@given(st.data(), st.tuples(st.integers(1, 160), st.integers(1, 120)), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_loops_give_pillows_pixels_of_any_part_at_any_size(data, whole, seed) -> None:
    image = noise(*whole, seed)
    size = tuple(data.draw(st.integers(1, side)) for side in whole)
    edges = [sorted(data.draw(st.lists(st.floats(0, side), min_size=2, max_size=2))) for side in whole]
    box = (edges[0][0], edges[1][0], edges[0][1], edges[1][1])
    try:
        expected = by_pillow(image, size, box)
    except ValueError:  # a part that is empty in float32
        with pytest.raises(ValueError, match=r".+"):
            resize(image, size, box=box)
        return
    np.testing.assert_array_equal(resize(image, size, box=box), expected)


@pytest.mark.parametrize(
    "box", [(0, 0, 99.875, 74.5), (0.25, 0.5, 99.1, 75), (40, 30, 41, 31), (3, 4, 97, 70)], ids=str
)
def test_a_part_between_pixels_is_taken_as_pillow_takes_it(box, calls) -> None:
    image = noise(100, 75)
    np.testing.assert_array_equal(resize(image, (33, 25), box=box), by_pillow(image, (33, 25), box))
    assert calls


def test_decoded_pictures_are_the_same_with_the_loops_and_without(calls, monkeypatch) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6  # lies on its side
    contents = []
    for width, height in ((301, 203), (203, 301)):
        for kind in ("JPEG", "PNG"):
            stream = io.BytesIO()
            noise(width, height).save(stream, kind, exif=tags)
            contents.append(stream.getvalue())
    sizes = (40, 64, 150, 300)  # JPEGs at a quarter, a half and in full
    found = [decode(content, "p", size_px=size_px).pixels for content in contents for size_px in sizes]
    assert len(calls) == len(found)
    monkeypatch.setattr(resizing, "compiled_loops", lambda: None)
    expected = [decode(content, "p", size_px=size_px).pixels for content in contents for size_px in sizes]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(calls) == len(found)


def test_eight_threads_at_once_get_pillows_pixels(calls) -> None:
    images = [noise(120 + 7 * seed, 90 + seed, seed) for seed in range(40)]
    expected = [by_pillow(image, (50, 40)) for image in images]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda image: resize(image, (50, 40)), images))
    assert len(calls) == len(images)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_while_one_thread_compiles_the_others_do_not_wait(untried, monkeypatch) -> None:
    compiling, done, made = threading.Event(), threading.Event(), []

    def slow() -> str:
        compiling.set()
        made.append("loops")
        assert done.wait(30)
        return "loops"

    monkeypatch.setattr(resizing, "_checked_loops", slow)
    first = threading.Thread(target=resizing.compiled_loops)
    first.start()
    assert compiling.wait(30)
    assert resizing.compiled_loops() is None
    image = noise(40, 30)
    np.testing.assert_array_equal(resize(image, (20, 15)), by_pillow(image, (20, 15)))
    done.set()
    first.join()
    assert (resizing.compiled_loops(), made) == ("loops", ["loops"])


# ---------------------------------------------------------------------------------- what Pillow keeps


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_other_kinds_of_pictures_stay_with_pillow(mode, calls) -> None:
    image = noise(40, 30).convert(mode)
    np.testing.assert_array_equal(resize(image, (20, 15)), by_pillow(image, (20, 15)))
    assert not calls


@pytest.mark.parametrize(
    ("whole", "size"), [((100, 300), (33, 100)), ((1, 400), (1, 7)), ((60, 60), (90, 59))], ids=str
)
def test_a_tall_picture_stays_with_pillow_which_filters_its_columns_first_or_not(whole, size, calls) -> None:
    image = noise(*whole)
    np.testing.assert_array_equal(resize(image, size), by_pillow(image, size))
    assert not calls


def test_a_picture_whose_copy_is_large_stays_with_pillow(calls, monkeypatch) -> None:
    monkeypatch.setattr(resizing, "_LARGEST_PX", 40 * 30 - 1)
    image = noise(40, 30)
    np.testing.assert_array_equal(resize(image, (20, 15)), by_pillow(image, (20, 15)))
    assert not calls


@pytest.mark.parametrize(
    "wrong",
    [
        lambda image: resize(image, (0, 15)),
        lambda image: resize(image, (20, 15), box=(-1, 0, 40, 30)),
        lambda image: resize(image, (20, 15), box=(0, 0, 40, 30.5)),
        lambda image: resize(image, (20, 15), box=(9, 0, 8, 30)),
        lambda image: resize(image, (20, 15), box=(float("nan"), 0, 8, 30)),
    ],
    ids=["no width", "left of it", "below it", "from right to left", "no number"],
)
def test_what_is_no_size_or_part_is_never_given_to_the_loops(wrong: Callable[[Image.Image], object], calls) -> None:
    with contextlib.suppress(ValueError):
        wrong(noise(40, 30))
    assert not calls


def test_where_the_loops_fail_pillow_resizes(monkeypatch) -> None:
    def fails(*_: object) -> None:
        global_compiler_lock.acquire()  # as where memory ends while numba takes it
        raise MemoryError

    monkeypatch.setattr(resizing.compiled_loops(), "resize", fails)
    image = noise(40, 30)
    with ThreadPoolExecutor(1) as thread:
        resized = thread.submit(resize, image, (20, 15)).result()
        assert global_compiler_lock._lock.acquire(timeout=5), "other threads would wait for it without end"
    global_compiler_lock._lock.release()
    np.testing.assert_array_equal(resized, by_pillow(image, (20, 15)))


def test_where_the_loops_cannot_be_compiled_no_other_thread_waits_for_them(untried, monkeypatch) -> None:
    locks = [global_compiler_lock._lock, llvm._lock._lock]

    def fails(*_: object) -> None:
        for lock in locks * 2:
            lock.acquire()
        raise MemoryError

    monkeypatch.setattr(resizing, "_by_loops", fails)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(resizing.compiled_loops).result() is None
        assert [lock.acquire(timeout=5) for lock in locks] == [True, True]
    for lock in locks:
        lock.release()


def test_loops_whose_pixels_are_not_pillows_are_not_used(untried, monkeypatch) -> None:
    monkeypatch.setattr(Image.Image, "resize", lambda _, size, *__, **___: Image.new("RGB", size))
    assert resizing.compiled_loops() is None


@pytest.mark.parametrize(
    "start",
    [
        "",
        "sys.modules['numba'] = None",
        "os.environ['NUMBA_DISABLE_JIT'] = '1'; import numba",
        "import numba; sys.modules['coocnet.data.lanczos'] = None",
    ],
    ids=["numba not loaded", "no numba", "numba told not to compile", "nothing compiles"],
)
def test_without_the_compiler_pillow_resizes(start) -> None:
    asked = (
        f"import os, sys; {start}\n"
        "import numpy as np\nfrom PIL import Image\nfrom coocnet.data import resizing\n"
        "image = Image.effect_mandelbrot((90, 60), (-3, -2.5, 2, 2.5), 100).convert('RGB')\n"
        "found = resizing.resize(image, (31, 20))\n"
        "assert np.array_equal(found, np.array(image.resize((31, 20), Image.Resampling.LANCZOS)))\n"
        "assert resizing.compiled_loops() is None\n"
        "print('numba' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), ran.returncode) == (str(bool(start)), 0), ran.stderr

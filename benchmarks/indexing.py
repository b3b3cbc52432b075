"""From a folder of photographs to stored rows: ours, its own engine, the plain loop, and another package.

    python benchmarks/indexing.py DATA [--pictures 300] [--threads 2] [--rounds 5] [--peer PYTHON]
        [--out results/indexing.json]

Takes the largest JPEG photographs of DATA, at most 1024 pixels as they are. The sides take turns, each in a process
of its own that first loads the network and describes three pictures; from then on the time counts:

- ``engine``: the default recipe on pictures that are decoded already and wait in memory;
- ``index``: the same pictures from files to rows stored in a new index;
- ``plain loop``: one picture after the other as public retrieval code does it: opened, made RGB, reduced by Pillow to
  the same size, scaled and normalised as a float32 tensor, through the same network in PyTorch's ordinary layout and
  the same pooling without compiled loops, rows collected and saved;
- ``imagededup``: that package's ``CNN.encode_images`` with the same network and its mean over the cells, all pictures
  at 512 by 384 because it stacks them, with as many workers as threads; run by PYTHON, which needs it installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from machine import recorded

PEER_CODE = """
import json, sys, time
from pathlib import Path
import torch
operators = torch.library.Library("torchvision", "DEF")  # for a torchvision of another build: none of them is used
names = ["nms", "qnms", "qroi_align", "deform_conv2d", "_deform_conv2d_backward"]
names += [f"{back}{kind}{end}" for kind in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
          for back, end in (("", ""), ("_", "_backward"))]
for name in names:
    operators.define(f"{name}(...) -> Tensor")
from torchvision import transforms
from imagededup.methods import CNN
from imagededup.utils import CustomModel
sys.path.insert(0, sys.argv[2])
from coocnet.backbones import load_backbone
trunk = load_backbone("mini").trunk.to(memory_format=torch.contiguous_format)
class Pooled(torch.nn.Module):
    def forward(self, x):
        return trunk(x, "head").mean((2, 3))
steps = [transforms.Resize((384, 512)), transforms.ToTensor(),
         transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
model = CustomModel(name="mini", model=Pooled(), transform=transforms.Compose(steps))
encoder = CNN(verbose=False, model_config=model)
first = sorted(Path(sys.argv[1]).iterdir())[0]
encoder.encode_image(image_file=str(first))
started = time.perf_counter()
rows = encoder.encode_images(image_dir=sys.argv[1], num_enc_workers=int(sys.argv[3]))
print(json.dumps({"pictures": len(rows), "s": time.perf_counter() - started}))
"""


def engine(folder: Path, scratch: Path) -> Callable[[], int]:  # noqa: ARG001 - all sides are called alike
    from coocnet.describe import Describer

    describer = Describer()
    pictures = [describer.load(path) for path in files(folder)]
    for picture in pictures[:3]:
        describer.describe_pixels(picture.pixels[None])

    def run() -> int:
        rows = describer.stream(pictures, lambda picture: picture)
        return sum(1 for _ in rows)

    return run


def index(folder: Path, scratch: Path) -> Callable[[], int]:
    from coocnet.describe import Describer
    from coocnet.index import open_index
    from coocnet.recipe import Recipe

    describer = Describer()
    describer.describe(files(folder)[:3])

    def run() -> int:
        with open_index(scratch / "photos.cooc", Recipe()) as opened:
            return opened.sync(folder, describer=describer).described

    return run


def plain(folder: Path, scratch: Path) -> Callable[[], int]:
    from unittest import mock

    import numpy as np
    import torch
    from PIL import Image

    from coocnet import ops
    from coocnet.backbones import load_backbone
    from coocnet.ops import quick
    from coocnet.poolings import POOLINGS
    from coocnet.recipe import Recipe

    recipe = Recipe()
    loaded = load_backbone("mini")
    trunk = loaded.trunk.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    mean, std = (torch.tensor(values)[:, None, None] for values in (loaded.weights.mean, loaded.weights.std))

    def row_of(path: Path) -> np.ndarray:
        image = Image.open(path).convert("RGB")
        image.thumbnail((recipe.size_px, recipe.size_px), Image.Resampling.LANCZOS, reducing_gap=None)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        with torch.no_grad():
            a = trunk(((x - mean) / std)[None], recipe.tap)
            row: np.ndarray = ops.unit_rows(POOLINGS[recipe.pooling](a, recipe))[0].numpy()
        return row

    def run() -> int:
        with mock.patch.object(quick, "compiled_loops", return_value=None):
            rows = np.stack([row_of(path) for path in files(folder)])
        np.save(scratch / "rows.npy", rows)
        return len(rows)

    for path in files(folder)[:3]:
        row_of(path)
    return run


SIDES = {"engine": engine, "index": index, "plain loop": plain}


def files(folder: Path) -> list[Path]:
    """The pictures of a folder, in order."""
    return sorted(folder.iterdir())


def largest_photographs(data: Path, count: int) -> Iterator[Path]:
    """JPEG files of at most 1024 pixels, the largest first."""
    from PIL import Image

    sizes = {}
    for path in data.rglob("*.jpg"):
        with Image.open(path) as image:
            sizes[path] = max(image.size)
    yield from sorted((path for path in sizes if sizes[path] <= 1024), key=lambda path: (-sizes[path], path))[:count]


def timed(command: list[str], threads: int) -> float:
    """Pictures per second of one process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    answer = json.loads(ran.stdout.splitlines()[-1])
    return float(answer["pictures"] / answer["s"])


def main() -> None:
    """Measures, prints and writes; or is one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", help="a Python with imagededup, torchvision and what coocnet needs")
    parser.add_argument("--out", type=Path, default=Path("results/indexing.json"))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        with tempfile.TemporaryDirectory() as scratch:
            run = SIDES[given.side](given.data, Path(scratch))
            started = time.perf_counter()
            count = run()
            print(json.dumps({"pictures": count, "s": time.perf_counter() - started}))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photographs"
        folder.mkdir()
        for at, path in enumerate(largest_photographs(given.data, given.pictures)):
            (folder / f"{at:05d}.jpg").write_bytes(path.read_bytes())
        commands = {side: [sys.executable, __file__, str(folder), "--side", side] for side in SIDES}
        if given.peer:
            source = str(Path(__file__).parents[1] / "src")
            commands["imagededup"] = [given.peer, "-c", PEER_CODE, str(folder), source, str(given.threads)]
        rates: dict[str, list[float]] = {side: [] for side in commands}
        for _ in range(given.rounds):
            for side, command in commands.items():
                rates[side].append(timed(command, given.threads))
                print(f"{side}: {rates[side][-1]:.1f} pictures per second", flush=True)
    document = recorded(
        "python benchmarks/indexing.py DATA", threads=given.threads, packages=("torch", "numba", "pillow")
    )
    document["pictures"] = given.pictures
    document["pictures_per_s"] = {
        side: {"median": statistics.median(found), "lowest": min(found), "highest": max(found)}
        for side, found in rates.items()
    }
    shares = [one / other for one, other in zip(rates["index"], rates["engine"], strict=True)]
    document["index_of_engine"] = {
        "median": statistics.median(shares),
        "lowest": min(shares),
        "highest": max(shares),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

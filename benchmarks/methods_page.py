"""Writes the tables of docs/real-photographs.md and docs/real-photographs-tables.md from the results of methods.py.

python benchmarks/methods_page.py [--results results] [--docs docs]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

import photosets
from pages import difference, head, interval, row, written

NETWORKS = {"resnet101v2": "ResNet-101 v2", "mobile": "MobileNetV2"}
SHORT = {"paris6k_subset": "Paris", "paris6k_web": "Paris, web", "dvd_covers": "DVD covers", "ukbench": "UKBench"}
W, RAW = "pca 512", "raw"
TREATMENTS = (RAW, W, "pca 1024", "pca 1400", "pairs 512", f"{W}, aqe", f"{W}, alpha-qe")
TABLED = (*photosets.JUDGED, "dvd_covers")

# Each line: what is compared, minus what, under which treatment of both, or of each.
PAPER = (
    ("ChCO-SCT − uCroW", "chco-sct", "ucrow", W),
    ("ChCO-SCT − CroW", "chco-sct", "crow", W),
    ("ChCO-SCT − GeM", "chco-sct", "gem", W),
    ("ChCO-SCT − MAC", "chco-sct", "mac", W),
    ("ChCO-SCT − R-MAC", "chco-sct", "rmac", W),
    ("ChCO-SCT under a centre prior − SPoC", "chco-sct-ct", "spoc (ucrow-ct)", W),
    ("ChCO-SCT: top-down prior − none", "chco-sct-td", "chco-sct", W),
    ("CroW: top-down prior − none", "crow-td", "crow", W),
    ("ChCO-SCT: centre prior − none", "chco-sct-ct", "chco-sct", W),
    ("CroW: centre prior − none", "crow-ct", "crow", W),
    ("BP(A, CT) − BP(A, A), 8,192", "bp-act", "bp-aa", RAW),
    ("BP(A, CT) − BP(A, A), to 512", "bp-act", "bp-aa", W),
    ("the same under a top-down prior, to 512", "bp-act-td", "bp-aa-td", W),
    ("BP(A, CT): to 1,400 − to 512", "bp-act", "bp-act", "pca 1400", W),
    ("BP(A, CT) to 512 − ChCO-SCT", "bp-act", "chco-sct", W),
    ("ChCO-SCT: three scales − one", "chco-sct", "chco-sct", f"three scales, {W}", W),
    ("BP(A, CT) − BP(A, A), three scales, 8,192", "bp-act", "bp-aa", "three scales, raw"),
    ("ChCO-SCT: AQE − none", "chco-sct", "chco-sct", f"{W}, aqe", W),
    (
        "direct CT − Shih's tensor, ChCO-SCT, 128 channels",
        "chco-sct (128 channels)",
        "shih-chco-sct (128 channels)",
        RAW,
    ),
    ("direct CT − Shih's tensor, BP, 128 channels", "bp-act (128 channels)", "shih-bp (128 channels)", RAW),
    ("BP(A, A) − Shih's vector, 128 axes", "bp-aa (full, 128 axes)", "shih (vector, 128 axes)", RAW),
)
BEYOND = (
    ("context − ChCO-SCT", "context", "chco-sct", W),
    ("context − ChCO-SCT, raw", "context", "chco-sct", RAW),
    ("context − GeM", "context", "gem", W),
    ("context − GeM, raw", "context", "gem", RAW),
    ("context − GeM, both under a centre prior", "context-ct", "gem-ct", W),
    ("context: centre prior − none", "context-ct", "context", W),
    ("BP(A, A∘T) − BP(A, CT), 8,192", "bp-at", "bp-act", RAW),
    ("BP(A, A∘T) − BP(A, CT), to 512", "bp-at", "bp-act", W),
    ("centred, own mean − BP(A, CT), 8,192", "centred (own mean)", "bp-act", RAW),
    ("centred, learned mean − BP(A, CT), 8,192", "centred (learned mean)", "bp-act", RAW),
    ("centred, own mean, 8,192 − context to 512", "centred (own mean)", "context", RAW, W),
    ("centred, learned mean, 8,192 − context to 512", "centred (learned mean)", "context", RAW, W),
    ("context: three scales − one", "context", "context", f"three scales, {W}", W),
    ("context: whitening elsewhere − none", "context", "context", W, RAW),
    ("context: whitening from pairs − PCA", "context", "context", "pairs 512", W),
    ("context: α-QE − none", "context", "context", f"{W}, alpha-qe", W),
    ("context: AQE − none", "context", "context", f"{W}, aqe", W),
)
_ABLATED = {
    "chco-sct": (
        *(
            f"chco-sct, {what}"
            for what in ("threshold 0", "threshold median", "r = 1", "r = 2", "r = 8", "whole map")
        ),
        "chco-sct, own channel kept",
        *(f"chco-sct, ε = {epsilon}" for epsilon in ("1e-06", "0.0001", "0.01", "0.1")),
        "sct",
        "chco",
    ),
    "chco-sct-td": tuple(f"chco-sct-td, floor {floor}" for floor in ("0", "0.25", "0.75")),
    "bp-act": tuple(
        f"bp-act, {what}"
        for what in ("threshold 0", "r = 1", "r = 2", "r = 8", "whole map", "own channel kept", "signed root")
    ),
    "bp-aa": ("bp-aa, signed root",),
    "bp-at": ("bp-at, signed root",),
    "context": (
        *(f"context, g = {g}, q = {q}" for g, q in ((1, 1), (1, 1.5), (1, 2), (2, 1), (2, 2), (3, 1.5))),
        "context, whole map",
    ),
}
Found = Mapping[str, np.ndarray]


def summary(found: Found) -> str:
    """The methods on the judged sets, raw and whitened."""
    heads = [f"{SHORT.get(name, name)} {treatment}" for name in TABLED for treatment in (RAW, W)]
    lines = head(["pooling", *heads])
    for method in _methods(found):
        cells = [_mean(found, name, method, treatment) for name in TABLED for treatment in (RAW, W)]
        lines.append(row([f"`{method}`", *cells]))
    return "\n".join(lines)


def whole(found: Found, name: str) -> str:
    """Every method and treatment on one set, with intervals."""
    kinds = [scales + treatment for scales in ("", "three scales, ") for treatment in TREATMENTS]
    shown = [kind for kind in kinds if any(key == f"{name}|{m}|{kind}" for m in _methods(found) for key in found)]
    lines = head(["pooling", *shown])
    for method in _methods(found):
        cells = [interval(found.get(f"{name}|{method}|{kind}")) for kind in shown]
        lines.append(row([f"`{method}`", *cells]))
    return "\n".join(lines)


def differences(found: Mapping[str, Found], listed: Sequence[tuple[str, ...]]) -> str:
    """Paired differences on every set and network."""
    lines = head(["", "network", *(SHORT.get(name, name) for name in photosets.SETS)])
    for label, one, other, *treatments in listed:
        for network, values in found.items():
            cells = [
                difference(values, f"{name}|{one}|{treatments[0]}", f"{name}|{other}|{treatments[-1]}")
                for name in photosets.SETS
            ]
            lines.append(row([label, NETWORKS[network], *cells]))
    return "\n".join(lines)


def ablations() -> Iterator[tuple[str, ...]]:
    """Each ablated variant against its base, raw and whitened."""
    for base, listed in _ABLATED.items():
        for variant in listed:
            yield f"{variant} − {base}", variant, base, RAW
            yield f"{variant} − {base}, to 512", variant, base, W


def _methods(found: Found) -> list[str]:
    names = dict.fromkeys(key.split("|")[1] for key in found)
    ablated = {variant for listed in _ABLATED.values() for variant in listed} - {"sct", "chco"}
    return [name for name in names if name not in ablated]


def _mean(found: Found, name: str, method: str, treatment: str) -> str:
    values = found.get(f"{name}|{method}|{treatment}")
    return "" if values is None else f"{100 * float(values.mean()):.1f}"


def main() -> None:
    """Reads the results, writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    given = parser.parse_args()
    found: dict[str, Found] = {}
    for network in NETWORKS:
        with np.load(given.results / f"methods-{network}.npz") as held:
            found[network] = {key: held[key] for key in held}
    written(
        given.docs / "real-photographs.md",
        {
            **{f"{network} methods": summary(values) for network, values in found.items()},
            "the paper's claims": differences(found, PAPER),
            "beyond the paper": differences(found, BEYOND),
        },
        by="methods_page.py",
    )
    chapters = ["# Every method on real photographs", _preface(given.results)]
    for network, values in found.items():
        for name in TABLED:
            queries = len(values[f"{name}|ucrow|raw"])
            chapters += [f"## {NETWORKS[network]}, {name}: {queries} queries", whole(values, name)]
    chapters += ["## Ablations", "Paired differences in mAP.", differences(found, list(ablations()))]
    (given.docs / "real-photographs-tables.md").write_text("\n\n".join(chapters) + "\n")


def _preface(results: Path) -> str:
    facts = json.loads((results / "methods-resnet101v2.json").read_text())
    return (
        "mAP in percent with 95 % bootstrap intervals over the queries. How it was made, and what it says, is in "
        "[real-photographs.md](real-photographs.md). Made by `benchmarks/methods.py`, written by "
        f"`benchmarks/methods_page.py`; PyTorch {facts['versions']['torch']}. dvd_covers was also used to choose "
        "parameters; its whitenings were fitted without it. *pca* and *pairs* are whitenings learned elsewhere, by "
        "PCA and from pairs, with their dimensions; *three scales* are 1, 1/√2 and 1/2."
    )


if __name__ == "__main__":
    main()

"""How the command speaks: to a person on a terminal, to another program in JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from coocnet.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.progress import Progress, TaskID

    from coocnet.cluster import ClusterDescriber
    from coocnet.describe import Describer

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

_NARROW_COLUMNS = 60


def plain(value: object) -> str:
    """A value as it may be printed: no control characters, no markup."""
    return escape(printable(str(value)))


def counted(count: int, what: str) -> str:
    """So many of something, in words."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def print_json(document: Mapping[str, object]) -> None:
    """One JSON document on one line."""
    print(json.dumps(document))


def json_path(path: str) -> dict[str, str]:
    """A path for JSON: as it is where it is text, else made readable, with its bytes beside it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return {"path": printable(path), "path_bytes": os.fsencode(path).hex()}
    return {"path": path}


def tell_unverified(describer: Describer | ClusterDescriber) -> None:
    """Says so when weights are in use whose checksum nobody knows."""
    place = describer.weights_place
    if not place.verified and place.found_in != "named by the user":
        err.print(
            f"The weights {plain(place.path.name)} could not be verified: their record has no checksum. "
            f"SHA-256 of this file: {place.sha256}"
        )


@contextmanager
def progress_display() -> Iterator[Progress]:
    """A progress display on the terminal; silent where there is none."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "")

    columns: tuple[ProgressColumn, ...] = (MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    if err.width >= _NARROW_COLUMNS:
        columns = (TextColumn("{task.description}"), BarColumn(), *columns)
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as shown:
        yield shown


def download_progress(progress: Progress) -> Callable[[int, int | None], None]:
    """Shows a download, in megabytes, once it begins."""
    tasks: list[TaskID] = []

    def show(done_bytes: int, total_bytes: int | None) -> None:
        total = None if total_bytes is None else total_bytes // 10**6
        if not tasks:
            tasks.append(progress.add_task("Downloading weights (MB)", total=total))
        progress.update(tasks[0], completed=done_bytes // 10**6, total=total)

    return show


def step_progress(progress: Progress) -> Callable[[str, int, int | None, str], None]:
    """Shows the steps of a long piece of work one after another; bytes in megabytes."""
    tasks: dict[str, TaskID] = {}

    def show(step: str, done: int, total: int | None, unit: str) -> None:
        size, name = (10**6, f"{step} (MB)") if unit == "bytes" else (1, step)
        whole = None if total is None else total // size
        if name not in tasks:
            for task in tasks.values():
                progress.update(task, visible=False)
            tasks[name] = progress.add_task(name, total=whole)
        progress.update(tasks[name], completed=done // size, total=whole)

    return show

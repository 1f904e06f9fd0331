"""The grid itself: cells one after another, while a second process loads what they have saved."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import BadEnvironment
from .cells import Cell, Cover, refused_ones
from .check import Outcome, examine, listen, refusal
from .tiny import Tiny, tiny

Say = Callable[[str], None]


def go(cells: Sequence[Cell], fast: bool, say: Say, within: float = float("inf")) -> list[Outcome]:
    """Look at every cell; with `fast`, at so many that every two things that go together have done so.

    No cell is begun when so many seconds have gone by as `within` says.
    """
    began = time.monotonic()
    with tiny() as place, loading(place) as load:
        found: dict[Path, Outcome] = {}
        for cell, settle in chosen(cells, place) if fast else every(cells):
            if time.monotonic() - began > within:
                break
            folder = place.folder / str(len(found))
            outcome = found[folder] = examine(cell, place, folder)
            settle(outcome.status == "refused")
            say(f"{len(found):4}  {outcome.status:7}  {outcome.name}")
            if outcome.status == "ok":
                load(folder)
        load(None)
        for folder, outcome in found.items():
            if outcome.status == "ok":
                listen(outcome, folder)
    return list(found.values())


Settled = tuple[Cell, Callable[[bool], None]]


def every(cells: Sequence[Cell]) -> Iterator[Settled]:
    return ((cell, lambda refused: None) for cell in cells)


def chosen(cells: Sequence[Cell], place: Tiny) -> Iterator[Settled]:
    """A choice of cells, and whom to tell whether one was refused."""
    reasons = {cell: refusal(cell, place) for cell in cells}
    cover = Cover(cell for cell in cells if not reasons[cell])
    for cell in cover:
        yield cell, lambda refused, cell=cell: cover.settle(cell, refused)
    yield from every(refused_ones([cell for cell in cells if reasons[cell]], cover.having))


@contextmanager
def loading(place: Tiny) -> Iterator[Callable[[Path | None], None]]:
    """A second process that loads what is saved in the folders that it is told; None waits for it to end."""
    errors = place.folder / "loading.txt"
    with errors.open("w", encoding="utf-8") as log:
        loader = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tunesmith.grid.reload"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            text=True,
        )
        assert loader.stdin

        def load(folder: Path | None) -> None:
            if loader.poll() is not None:
                said = errors.read_text(encoding="utf-8").strip().split("\n")[-1]
                raise BadEnvironment(f"grid: the process that loads what was saved has ended: {said}")
            if folder is None:
                loader.stdin.close()
                loader.wait()
            else:
                loader.stdin.write(f"{folder}\n")
                loader.stdin.flush()

        try:
            yield load
        finally:
            loader.kill()
            loader.wait()

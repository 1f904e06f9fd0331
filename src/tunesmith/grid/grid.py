"""The grid itself: cells one after another, while a second process loads what they have saved."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import BadEnvironment
from .cells import Cell, Cover, refused_ones
from .check import Outcome, examine, listen, refusal
from .tiny import Tiny, tiny

Say = Callable[[str], None]


def go(cells: Sequence[Cell], together: int = 0, say: Say = lambda text: None) -> list[Outcome]:
    """Look at every cell; with `together`, at so many that all which go together, that many at a time, have done so."""
    with tiny() as place, loading(place) as load:
        found: dict[Path, Outcome] = {}
        for cell, settle in chosen(cells, place, together) if together else every(cells):
            folder = place.folder / str(len(found))
            outcome = found[folder] = examine(cell, place, folder)
            settle(outcome.status == "refused")
            state = "saved" if outcome.status == "ok" else outcome.status  # what it loads as is heard at the end
            say(f"{len(found):4}  {state:7}  {outcome.name}")
            if outcome.status == "ok":
                load(folder)
        load(None)
        for folder, outcome in found.items():
            if outcome.status == "ok":
                listen(outcome, folder)
    return list(found.values())


Settled = tuple[Cell, Callable[[bool], None]]


def every(cells: Iterable[Cell]) -> Iterator[Settled]:
    return ((cell, lambda refused: None) for cell in cells)


def chosen(cells: Sequence[Cell], place: Tiny, together: int) -> Iterator[Settled]:
    """A choice of cells, and whom to tell whether one was refused."""
    alike = {cell._replace(batch=""): cell for cell in cells}  # nothing is refused for its batches beforehand
    said = {key: refusal(cell, place) for key, cell in alike.items()}
    reasons = {cell: said[cell._replace(batch="")] for cell in cells}
    cover = Cover((cell for cell in cells if not reasons[cell]), together)
    for cell in cover:
        yield cell, lambda refused, cell=cell: cover.settle(cell, refused)
    yield from every(refused_ones((cell for cell in cells if reasons[cell]), together, cover.having))


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
        told = loader.stdin
        assert told

        def load(folder: Path | None) -> None:
            if loader.poll() is not None:
                said = errors.read_text(encoding="utf-8").strip().split("\n")[-1]
                raise BadEnvironment(f"grid: the process that loads what was saved has ended: {said}")
            if folder is None:
                told.close()
                loader.wait()
            else:
                told.write(f"{folder}\n")
                told.flush()

        try:
            yield load
        finally:
            loader.kill()
            loader.wait()

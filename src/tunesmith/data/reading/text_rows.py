"""Rows of text: tables whose head names the columns, and plain lines."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError
from .guard import unguarded
from .row import LONGEST, Bad, Row, refuse, too_long
from .stream import lines, text_of


def plain(file: Path, bad: Bad) -> Iterator[Row]:
    """Each line is a text."""
    for number, line in lines(file, bad):
        if line.isspace():
            continue
        try:
            yield Row(f"{file}:{number}", {"text": text_of(file, number, line).rstrip("\r\n")})
        except ValueError as error:
            bad(str(error))


def table(file: Path, bad: Bad) -> Iterator[Row]:
    """Each row is a record; the first names the columns. A row's line is the one that it begins in."""
    csv.field_size_limit(max(LONGEST, csv.field_size_limit()))  # of the whole process; ours is kept by Records
    tabs = ".tsv" in [suffix.lower() for suffix in file.suffixes]
    records = Records(file, bad, "\t" if tabs else ",")
    head = next(records, None)
    if head is None:
        return
    names = head[1]
    check_head(file, head[0], names, tabs)
    for number, cells in records:
        if len(cells) != len(names):
            bad(f"{file}:{number}: has {len(cells)} cells where the head has {len(names)}")
            continue
        try:
            values = unguarded(dict(zip(names, cells, strict=True)))
        except ValueError as error:
            bad(f"{file}:{number}: {error}")
        else:
            yield Row(f"{file}:{number}", values)


def check_head(file: Path, number: int, names: list[str], tabs: bool) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(f"{file}:{number}: names the column '{twice[0]}' twice; rename one of them")
    other = next((mark for mark in ("\t", ";", ",") if mark in names[0]), None)
    if len(names) == 1 and other:
        expected = "a tab" if tabs else "a comma"
        raise DataError(f"{file}:{number}: the columns are parted by {other!r}, expected {expected}; save it again so")


class Records(Iterator[tuple[int, list[str]]]):
    """The cells of one record after another, with the line that each begins in; blank lines are none."""

    def __init__(self, file: Path, bad: Bad, delimiter: str) -> None:
        self.file, self.bad = file, bad
        self.faults: list[str] = []
        self.lines = lines(file, refuse)
        self.cells = csv.reader(self.fed(), delimiter=delimiter, strict=True)
        self.start, self.size, self.ended = 0, 0, False

    def __next__(self) -> tuple[int, list[str]]:
        while True:
            self.start, self.size = 0, 0
            try:
                cells = next(self.cells)
            except StopIteration:
                self.report()
                raise
            except csv.Error as error:
                if self.ended:
                    raise DataError(
                        f"{self.file}:{self.start}: a quote is opened in this row that nothing closes; close it, or"
                        ' write "" for a quote within a quoted cell'
                    ) from None
                self.faults.append(f"{self.file}:{self.start}: is not CSV: {error}")
                cells = []
            if not self.report() and cells:
                return self.start, cells

    def report(self) -> bool:
        """Say what was wrong with the lines of this record; whether there was anything."""
        faults, self.faults[:] = list(self.faults), []
        for fault in faults:
            self.bad(fault)
        return bool(faults)

    def fed(self) -> Iterator[str]:
        """The lines, for csv to put together where a quoted cell goes over several."""
        for number, line in self.lines:
            self.start = self.start or number
            self.size += len(line)
            if self.size > LONGEST:
                raise DataError(f"{too_long(self.file, self.start)}, or close the quote that it opens")
            try:
                yield text_of(self.file, number, line)
            except ValueError as error:
                self.faults.append(str(error))
                yield "\n"
        self.ended = True

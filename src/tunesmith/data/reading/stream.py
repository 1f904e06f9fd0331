"""The bytes, lines and characters of a file, packed or not, never more than a row of them at a time."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ...errors import DataError
from .row import BLOCK, LONGEST, Bad, too_long

PACKED = {".gz": "gzip", ".zst": "zstd"}
BOMB = 256 << 20, 200
"""A packed file that grows to more than so many bytes, and to more than so many times its size, is refused."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def opened(file: Path) -> BinaryIO:
    """A file's content as it was before it was packed."""
    try:
        plain = file.open("rb")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    method = PACKED.get(file.suffix.lower())
    return io.BufferedReader(Unpacked(file, plain, method), BLOCK) if method else plain


class Unpacked(io.RawIOBase):
    """Unpacks as it is read, and stops at a file that was made to fill a disk."""

    def __init__(self, file: Path, plain: BinaryIO, method: str) -> None:
        from pyarrow import CompressedInputStream

        self.file, self.plain = file, plain
        self.size, self.made = file.stat().st_size, 0
        self.stream = CompressedInputStream(plain, method)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.plain.close()
        super().close()

    def readinto(self, buffer) -> int:
        try:
            block = self.stream.read(len(buffer))
        except (OSError, ValueError) as error:  # pyarrow's own are among these
            raise DataError(f"{self.file}: is damaged and cannot be unpacked ({error}); get it again") from None
        self.made += len(block)
        least, times = BOMB
        if self.made > max(least, times * self.size):
            raise DataError(
                f"{self.file}: unpacks to more than {times} times its size; if that is meant, unpack it yourself first"
            )
        buffer[: len(block)] = block
        return len(block)


def lines(file: Path, bad: Bad) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, blank ones too, with their numbers."""
    number = 0
    with opened(file) as content:
        while line := readline(file, content, number + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8) or b"\n"
            if len(line) <= LONGEST:
                yield number, line
                continue
            bad(too_long(file, number))
            while line and not line.endswith(b"\n"):
                line = readline(file, content, number)


def readline(file: Path, content: BinaryIO, number: int) -> bytes:
    try:
        return content.readline(LONGEST + 1)
    except OSError as error:
        raise DataError(f"{file}:{number}: cannot be read: {error.strerror}") from None


def text_of(file: Path, number: int, line: bytes) -> str:
    """A line as text; a ValueError says what else it is."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}:{number}: {foreign(number, line, error)}") from None
    if "\0" in text:
        raise ValueError(f"{file}:{number}: holds a NUL byte, so it is no text")
    return text


def foreign(number: int, text: bytes, error: UnicodeDecodeError) -> str:
    """What bytes may be that are not UTF-8."""
    if number == 1 and text.startswith(UTF16):
        return "is not UTF-8 text but UTF-16; convert the file to UTF-8"
    try:
        text.decode("gb18030")
    except UnicodeDecodeError:
        return f"is not UTF-8 text (byte {error.start + 1} of the line); convert the file to UTF-8"
    return (
        "is not UTF-8 text; it could be GB18030, as Chinese Windows and Excel write: convert the file with"
        " `iconv -f GB18030 -t UTF-8 FILE > NEW` and look at it"
    )


class Characters:
    """The text of a file from `at` on, as much of it as has been asked for."""

    def __init__(self, file: Path, content: BinaryIO) -> None:
        self.file, self.content = file, content
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self.ended = "", 0, False
        self.line, self.counted, self.before = 1, 0, 0
        self.more()
        self.text = self.text.removeprefix("\ufeff")

    def more(self) -> bool:
        """Have more text, if there is any; what lies before `at` is let go of."""
        if self.ended:
            return False
        kept = self.text[self.at :]
        if len(kept) > LONGEST:
            raise DataError(too_long(self.file, self.here()))
        try:
            block = self.content.read(max(BLOCK, len(kept)))  # or a long row would be looked through once a block
        except OSError as error:
            raise DataError(f"{self.file}: cannot be read: {error.strerror}") from None
        self.here()
        self.before = self.column() - 1
        self.text, self.at, self.counted = kept + self.decoded(block), 0, 0
        self.ended = not block
        return True

    def decoded(self, block: bytes) -> str:
        try:
            return self.decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            seen = bytes(error.object)
            start = seen.rfind(b"\n", 0, error.start) + 1
            number = self.line + self.text[self.at :].count("\n") + seen[:start].count(b"\n")
            line = seen[start:].partition(b"\n")[0]
            raise DataError(f"{self.file}:{number}: {foreign(number, line, error)}") from None

    def here(self) -> int:
        """The line that `at` is in."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def column(self) -> int:
        """The column that `at` is in."""
        start = self.text.rfind("\n", 0, self.at)
        return self.at - start if start >= 0 else self.at + 1 + self.before

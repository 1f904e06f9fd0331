"""What was answered, and what people said of it: an SQLite file that several processes may read while one writes."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from ..errors import DataError

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
  id TEXT NOT NULL, place INTEGER NOT NULL, created REAL NOT NULL,
  prompt TEXT NOT NULL, answer TEXT NOT NULL, made_of TEXT NOT NULL, sampled TEXT NOT NULL, asker TEXT NOT NULL,
  PRIMARY KEY (id, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL, place INTEGER NOT NULL, created REAL NOT NULL,
  kind TEXT NOT NULL, value TEXT NOT NULL, rater TEXT NOT NULL,
  FOREIGN KEY (id, place) REFERENCES answers (id, place)
);
CREATE INDEX IF NOT EXISTS of_answers ON verdicts (id, place);
"""
VERSION = 1
PATIENCE = 3.0
"""Seconds to wait for another process that writes."""


@dataclass(frozen=True)
class Answered:
    """One answer, with all that it came from."""

    id: str
    place: int
    """Which of a request's choices."""
    prompt: dict[str, Any]
    """messages and tools, or the text that was gone on with."""
    answer: dict[str, Any]
    """The assistant's turn."""
    made_of: dict[str, Any] = field(default_factory=dict)
    """model, base, the adapter's hash, the template's."""
    sampled: dict[str, Any] = field(default_factory=dict)
    asker: str = ""
    created: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Verdict:
    """What one person said of one answer."""

    id: str
    place: int
    kind: str
    """thumb, edit, better_than or tag."""
    value: Any
    rater: str
    created: float = field(default_factory=time.time)
    number: int = 0


class Store:
    """The file. Each call opens a transaction of its own, so that what was said is on the disk when it is confirmed."""

    def __init__(self, file: Path, create: bool = True) -> None:
        if not create and not file.is_file():
            raise DataError(f"{file}: is not there; `tunesmith serve` writes it with feedback={file.name}")
        self.file, self.lock = file, Lock()
        try:
            if create:
                file.touch(0o600)  # SQLite gives what it makes beside a file the modes of that file
            self.base = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=PATIENCE)
            version = self.base.execute("PRAGMA user_version").fetchone()[0]
            tables = self.base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != VERSION and tables:
                raise DataError(f"{file}: holds no feedback of this version; name another file")
            self.base.execute("PRAGMA journal_mode=WAL")
            self.base.execute("PRAGMA synchronous=FULL")
            self.base.execute("PRAGMA foreign_keys=ON")
            self.base.executescript(SCHEMA)
            self.base.execute(f"PRAGMA user_version={VERSION}")
            if create:
                make_private(file)
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{file}: cannot be used for feedback: {error}; name another file") from None

    def close(self) -> None:
        with self.lock:
            self.base.close()

    def answered(self, answers: Sequence[Answered]) -> None:
        """Keep answers. Raises sqlite3.Error where they cannot be."""
        rows = [
            (one.id, one.place, one.created, *map(text, (one.prompt, one.answer, one.made_of, one.sampled)), one.asker)
            for one in answers
        ]
        with self.lock, closing(self.base.cursor()) as cursor:
            transacted(cursor, "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def say(self, verdicts: Sequence[Verdict]) -> None:
        """Keep what was said; all of it or nothing."""
        rows = [(one.id, one.place, one.created, one.kind, text(one.value), one.rater) for one in verdicts]
        words = "INSERT INTO verdicts (id, place, created, kind, value, rater) VALUES (?, ?, ?, ?, ?, ?)"
        with self.lock, closing(self.base.cursor()) as cursor:
            transacted(cursor, words, rows)

    def find(self, id: str, place: int) -> Answered | None:
        with self.lock:
            row = self.base.execute("SELECT * FROM answers WHERE id = ? AND place = ?", (id, place)).fetchone()
        return answer_of(row) if row else None

    def answers(self) -> dict[tuple[str, int], Answered]:
        """All answers of which something was said."""
        words = "SELECT * FROM answers WHERE (id, place) IN (SELECT id, place FROM verdicts)"
        words += " OR id IN (SELECT id FROM verdicts WHERE kind = 'better_than')"
        words += " OR id IN (SELECT json_extract(value, '$.id') FROM verdicts WHERE kind = 'better_than')"
        with self.lock:
            found = map(answer_of, self.base.execute(words).fetchall())
        return {(one.id, one.place): one for one in found}

    def verdicts(self) -> Iterator[Verdict]:
        """What was said, in its order."""
        words = "SELECT id, place, kind, value, rater, created, number FROM verdicts ORDER BY number"
        with self.lock:
            rows = self.base.execute(words).fetchall()
        for id, place, kind, value, *rest in rows:
            yield Verdict(id, place, kind, json.loads(value), *rest)

    def count(self) -> int:
        with self.lock:
            return self.base.execute("SELECT count(*) FROM answers").fetchone()[0]


def make_private(file: Path) -> None:
    """Let nobody but the owner read a file that others could, with what SQLite has beside it."""
    whole = file.resolve()
    for one in (whole, *(whole.with_name(whole.name + end) for end in ("-wal", "-shm"))):
        if one.exists():
            one.chmod(0o600)


def transacted(cursor: sqlite3.Cursor, words: str, rows: Sequence[Sequence[Any]]) -> None:
    cursor.execute("BEGIN IMMEDIATE")
    try:
        cursor.executemany(words, rows)
        cursor.execute("COMMIT")
    except sqlite3.Error:
        if cursor.connection.in_transaction:
            cursor.execute("ROLLBACK")
        raise


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def answer_of(row: Sequence[Any]) -> Answered:
    id, place, created, prompt, answer, made_of, sampled, asker = row
    asked, said, origin, drawn = (json.loads(part) for part in (prompt, answer, made_of, sampled))
    return Answered(id, place, asked, said, origin, drawn, asker, created)

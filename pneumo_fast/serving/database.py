"""The file of a spool: an SQLite database.

A transaction is on disk when it ends, and nothing is kept of what was deleted.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pneumo_fast.errors import PacsError

APPLICATION: Final = 0x504E4641
"""By which SQLite files of ours are known (``PRAGMA application_id``)."""
VERSION: Final = 1
SCHEMA: Final = """
BEGIN;
PRAGMA application_id = {application};
PRAGMA user_version = {version};
CREATE TABLE made_with (hash_key TEXT NOT NULL);
INSERT INTO made_with VALUES ('{hash_key}');
CREATE TABLE instances (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    instance TEXT NOT NULL,                 -- pseudonym of the SOP Instance UID
    model TEXT NOT NULL,                    -- digest of checkpoints, calibration and threshold
    state TEXT NOT NULL DEFAULT 'waiting',  -- waiting, set aside, scored, rejected
    received REAL NOT NULL,                 -- seconds since 1970, as the other times
    finished REAL,
    attempts INTEGER NOT NULL DEFAULT 0,    -- begun, and not ended since
    reason TEXT,                            -- why it was rejected or set aside
    probability REAL,
    size INTEGER NOT NULL,                  -- bytes of the object
    UNIQUE (instance, model)
);
CREATE INDEX instances_by_state ON instances (state, attempts, number, size);
CREATE TABLE results (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    instance INTEGER NOT NULL REFERENCES instances,
    uid TEXT NOT NULL UNIQUE,               -- SOP Instance UID, derived
    state TEXT NOT NULL,                    -- waiting, set aside, sent, written
    made REAL NOT NULL,
    sent REAL,
    tries INTEGER NOT NULL DEFAULT 0,
    status INTEGER,                         -- that the node answered last
    size INTEGER NOT NULL
);
CREATE INDEX results_by_state ON results (state, number, size);
-- the DICOM files of what waits; apart, so that a row that stays is small
CREATE TABLE instance_objects (number INTEGER PRIMARY KEY REFERENCES instances, object BLOB NOT NULL);
CREATE TABLE result_objects (number INTEGER PRIMARY KEY REFERENCES results, object BLOB NOT NULL);
COMMIT;
"""


STEP: Final = 2000
"""Pages of 4 KiB that are given back at once."""
REST_S: Final = 0.001
REMEDIES: Final = {
    "disk is full": "free some space",
    "disk I/O": "free some space, or check the disk",
    "locked": "end the other program that uses it",
}
"""What helps against an error of SQLite, by what it says."""
OTHER_REMEDY: Final = "see that the folder and its files are there and may be written"


class SpoolFullError(PacsError):
    """The quota is reached, the disk is full, or the file cannot be used for now; nothing was changed."""


class SpoolDamagedError(PacsError):
    """The file is no longer one that SQLite can read."""


class Database:
    """A connection for all threads, which lets in one at a time.

    Parameters
    ----------
    hash_key : str
        Id of the hash key, which the pseudonyms in the file were made with.

    Raises
    ------
    PacsError
        If the file is damaged, or of another version or hash key.
    """

    def __init__(self, path: Path, hash_key: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))  # SQLite's would be 0644
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(hash_key)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, hash_key: str) -> None:
        with self.reading() as base:
            base.execute("PRAGMA secure_delete = ON")
            base.execute("PRAGMA temp_store = MEMORY")
            if not self.value("SELECT count(*) FROM sqlite_master"):
                base.execute("PRAGMA auto_vacuum = INCREMENTAL")
                base.executescript(SCHEMA.format(application=APPLICATION, version=VERSION, hash_key=hash_key))
            found = self.value("PRAGMA application_id"), self.value("PRAGMA user_version")
        if found != (APPLICATION, VERSION):
            raise PacsError(
                f"{self.path} is no spool of this version (format {found[1]}, {VERSION} expected): name another folder "
                "with --spool"
            )
        if self.value("SELECT hash_key FROM made_with") != hash_key:
            raise PacsError(f"{self.path} was made with another hash key: name that with --hash-key, or another spool")
        with self.reading() as base:
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @property
    def changes(self) -> int:
        """Rows that this process has changed so far."""
        return self._connection.total_changes

    def value(self, query: str, *values: Any) -> Any:
        """The first column of the first row that a query gives."""
        with self.reading() as base:
            row = base.execute(query, values).fetchone()
            if row is None:
                raise sqlite3.DatabaseError("a row is missing")
            return row[0]

    def tidy(self, interrupted: Callable[[], object] = lambda: False) -> None:
        """Give back the space of what was deleted, so that nothing of it is left in any file.

        Other threads are let in after each step.

        Parameters
        ----------
        interrupted : callable
            Whether to leave the rest for another time.
        """
        for _ in range(0, self.value("PRAGMA freelist_count"), STEP):
            if interrupted():
                return
            with self.reading() as base:
                base.executescript(f"PRAGMA incremental_vacuum({STEP})")  # execute() would free one page
            time.sleep(REST_S)  # a thread that waits for the lock gets it
        with self.reading() as base:
            base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block, or nothing of it; on disk when it ends.

        Raises
        ------
        SpoolFullError
            If there is no room on the disk, or the file cannot be used, for instance since another program locks it.
        SpoolDamagedError
            If the file is damaged.
        """
        with self.reading() as base:
            base.execute("BEGIN IMMEDIATE")
            try:
                yield base
                base.execute("COMMIT")
            finally:
                if base.in_transaction:
                    base.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread; what SQLite finds wrong is told in one line, as :meth:`transaction` does."""
        with self._lock:
            try:
                yield self._connection
            except sqlite3.OperationalError as error:
                remedy = next((told for words, told in REMEDIES.items() if words in str(error)), OTHER_REMEDY)
                raise SpoolFullError(
                    f"{self.path} cannot be used ({error}): {remedy}; what was accepted stands"
                ) from error
            except sqlite3.DatabaseError as error:
                raise SpoolDamagedError(
                    f"{self.path} is damaged ({error}): move it away, and have its radiographs sent again"
                ) from error

"""What waits, on disk: instances that were received, results that are to be sent, and the journal of both.

One SQLite file. An instance is accepted by one committed transaction; another one puts its results into its place, so
that a kill at any moment loses nothing and does nothing twice. What is done leaves its row, without the object: the
row names no patient. See ``docs/serving.md``.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pneumo_fast.dataset.pseudonyms import key_id, pseudonym
from pneumo_fast.errors import PacsError, PneumoError
from pneumo_fast.folders import locked, mode_for_others
from pneumo_fast.serving.database import Database, SpoolFullError

FILE: Final = "spool.sqlite3"
MOST_ATTEMPTS: Final = 5
"""Times that the server may have died while scoring an instance before it is rejected."""
DIGITS: Final = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    """How much may wait, instances and results together."""

    objects: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of an instance."""

    number: int
    reason: str = ""
    """Why it was rejected; empty where it was scored."""
    probability: float | None = None
    results: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    """SOP Instance UID and DICOM file of each result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A result that is to be sent."""

    number: int
    tries: int
    """So far."""
    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """The journal in numbers."""

    received: int
    waiting: int
    """Instances that are to be scored, those set aside among them."""
    scored: int
    rejected: dict[str, int]
    """By reason."""
    results: int
    results_waiting: int
    """To be sent, those set aside among them."""
    results_sent: int
    set_aside: int
    """Instances that could not be scored, and results that the node refused; tried again at the next start."""


class Spool:
    """An open spool, for several threads; :func:`open_spool` opens it.

    Attributes
    ----------
    base : Database
        Its file.
    arrived, made : threading.Event
        Set when an instance was accepted; when results were made.
    """

    def __init__(self, base: Database, key: bytes, model: str, quota: Quota) -> None:
        self.base, self._key, self._model, self._quota = base, key, model, quota
        self.arrived, self.made = threading.Event(), threading.Event()

    def take_up(self) -> None:
        """Take up what an earlier process left: what it set aside waits again, for the model that is here now."""
        with self.base.transaction() as base:
            # scored with this model before, and sent again while another one was here
            base.execute(
                "DELETE FROM instances WHERE state IN ('waiting', 'set aside') AND model != :model AND instance IN "
                "(SELECT instance FROM instances WHERE model = :model)", {"model": self._model},
            )  # fmt: skip
            base.execute(
                "UPDATE instances SET state = 'waiting', reason = NULL, model = ? "
                "WHERE state IN ('waiting', 'set aside')", (self._model,),
            )  # fmt: skip
            base.execute(
                "UPDATE instances SET state = 'rejected', reason = 'crashed', finished = ? "
                "WHERE state = 'waiting' AND attempts >= ?", (time.time(), MOST_ATTEMPTS),
            )  # fmt: skip
            base.execute(
                "DELETE FROM instance_objects WHERE number NOT IN "
                "(SELECT number FROM instances WHERE state = 'waiting')"
            )
            base.execute("UPDATE results SET state = 'waiting', tries = 0 WHERE state = 'set aside'")

    def accept(self, uid: str, data: bytes) -> bool:
        """Keep an instance; when this returns it is on disk. False for one that is known, which is not kept again.

        Raises
        ------
        SpoolFullError
            If there is no room; nothing is kept.
        """
        row = pseudonym(self._key, "sop instance", uid, DIGITS), self._model
        with self.base.transaction() as base:
            if base.execute("SELECT 1 FROM instances WHERE (instance, model) = (?, ?)", row).fetchone():
                return False
            objects, size = _waiting(base)
            if objects >= self._quota.objects or size + len(data) > self._quota.bytes:
                raise SpoolFullError(
                    f"{self.base.path} has reached its quota: {objects:,} objects of {size / 1e6:,.0f} MB wait in it "
                    "(--max-waiting, --max-waiting-gb)"
                )
            number = base.execute(
                "INSERT INTO instances (instance, model, received, size) VALUES (?, ?, ?, ?)",
                (*row, time.time(), len(data)),
            ).lastrowid
            base.execute("INSERT INTO instance_objects VALUES (?, ?)", (number, data))
        self.arrived.set()
        return True

    def fresh(self, most: int) -> list[int]:
        """Numbers of the next instances that nobody has begun, in the order of their arrival."""
        return self._numbers("attempts = 0 ORDER BY number LIMIT ?", most)

    def begun(self, most: int) -> list[int]:
        """Numbers of instances that were being scored when a server died: one of them may be why."""
        return self._numbers("attempts > 0 ORDER BY attempts, number LIMIT ?", most)

    def _numbers(self, which: str, most: int) -> list[int]:
        query = f"SELECT number FROM instances WHERE state = 'waiting' AND {which}"  # noqa: S608  # our own text
        with self.base.reading() as base:
            return [number for (number,) in base.execute(query, (most,))]

    def waits(self, number: int) -> bool:
        """Whether an instance is still to be scored."""
        return bool(self.base.value("SELECT count(*) FROM instances WHERE number = ? AND state = 'waiting'", number))

    def object_of(self, number: int) -> bytes:
        """The DICOM file of an instance that waits."""
        return bytes(self.base.value("SELECT object FROM instance_objects WHERE number = ?", number))

    @contextmanager
    def begin(self, numbers: Sequence[int]) -> Iterator[None]:
        """Note that instances are being scored while the block lasts.

        The note stays if the process dies in it, or an error ends it that nobody foresaw.
        """
        self._add_attempts(numbers, 1)
        try:
            yield
        except (PneumoError, SystemExit, KeyboardInterrupt):
            with suppress(SpoolFullError):  # the note stays, and they are scored one by one
                self._add_attempts(numbers, -1)
            raise
        self._add_attempts(numbers, -1)

    def _add_attempts(self, numbers: Sequence[int], change: int) -> None:
        with self.base.transaction() as base:
            base.executemany(
                "UPDATE instances SET attempts = attempts + ? WHERE number = ?", [(change, one) for one in numbers]
            )

    def finish(self, outcomes: Sequence[Outcome], *, forward: bool) -> None:
        """Put results into the place of their instances, or reject these; all at once.

        Parameters
        ----------
        forward : bool
            Whether results are to be sent; else they were written elsewhere.
        """
        state = "waiting" if forward else "written"
        with self.base.transaction() as base:
            for one in outcomes:
                for uid, data in one.results:
                    result = base.execute(
                        "INSERT INTO results (instance, uid, state, made, size) VALUES (?, ?, ?, ?, ?)",
                        (one.number, uid, state, time.time(), len(data)),
                    ).lastrowid
                    if forward:
                        base.execute("INSERT INTO result_objects VALUES (?, ?)", (result, data))
                became = "rejected" if one.reason else "scored"
                base.execute(
                    "UPDATE instances SET state = ?, reason = ?, probability = ?, finished = ? "
                    "WHERE number = ? AND state = 'waiting'",
                    (became, one.reason or None, one.probability, time.time(), one.number),
                )
                base.execute("DELETE FROM instance_objects WHERE number = ?", (one.number,))
        self.made.set()

    def set_aside(self, number: int, reason: str) -> None:
        """Keep an instance that could not be scored, and do not try again before the next start."""
        with self.base.transaction() as base:
            base.execute("UPDATE instances SET state = 'set aside', reason = ? WHERE number = ?", (reason, number))

    def next_result(self, but: Collection[int] = ()) -> Result | None:
        """The first result that is to be sent, in the order in which they were made, but for some; None for none."""
        query = "SELECT number, tries FROM results WHERE state = 'waiting' ORDER BY number LIMIT ?"
        with self.base.reading() as base:
            rows = base.execute(query, (len(but) + 1,)).fetchall()
            for number, tries in (row for row in rows if row[0] not in but):
                data = self.base.value("SELECT object FROM result_objects WHERE number = ?", number)
                return Result(number=number, tries=tries, data=bytes(data))
        return None

    def sent(self, number: int, status: int) -> None:
        """Note that a node has stored a result, and forget the object."""
        with self.base.transaction() as base:
            base.execute(
                "UPDATE results SET state = 'sent', tries = tries + 1, sent = ?, status = ? WHERE number = ?",
                (time.time(), status, number),
            )
            base.execute("DELETE FROM result_objects WHERE number = ?", (number,))

    def refused(self, number: int, status: int | None, *, for_good: bool) -> None:
        """Note that a node did not take a result, and whether it is not to be tried before the next start."""
        with self.base.transaction() as base:
            base.execute(
                "UPDATE results SET tries = tries + 1, status = ?, state = ? WHERE number = ?",
                (status, "set aside" if for_good else "waiting", number),
            )

    def counts(self) -> Counts:
        """Count the journal."""
        with self.base.reading() as base:
            instances, results, rejected = (
                dict(base.execute(query).fetchall())
                for query in (
                    "SELECT state, count(*) FROM instances GROUP BY state",
                    "SELECT state, count(*) FROM results GROUP BY state",
                    "SELECT reason, count(*) FROM instances WHERE state = 'rejected' GROUP BY reason ORDER BY 2 DESC",
                )
            )
        return Counts(
            received=sum(instances.values()),
            waiting=instances.get("waiting", 0) + instances.get("set aside", 0),
            scored=instances.get("scored", 0),
            rejected=rejected,
            results=sum(results.values()),
            results_waiting=results.get("waiting", 0) + results.get("set aside", 0),
            results_sent=results.get("sent", 0),
            set_aside=instances.get("set aside", 0) + results.get("set aside", 0),
        )


def _waiting(base: sqlite3.Connection) -> tuple[int, int]:
    """Objects that wait, and their bytes."""
    objects, size = base.execute(
        "SELECT sum(n), sum(bytes) FROM (SELECT count(*) AS n, total(size) AS bytes FROM instances WHERE state IN "
        "('waiting', 'set aside') UNION ALL SELECT count(*), total(size) FROM results WHERE state IN "
        "('waiting', 'set aside'))"
    ).fetchone()
    return int(objects), int(size)


@contextmanager
def open_spool(folder: Path, key: bytes, model: str, quota: Quota) -> Iterator[Spool]:
    """Open the spool in a folder, or make one, for this process alone.

    Parameters
    ----------
    key : bytes
        The hash key.
    model : str
        Digest of what scores, with calibration and threshold: the same instance is scored once by each.

    Raises
    ------
    PacsError
        If another process serves it, the folder cannot be written or is open to other users, or the file is not such
        a spool.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mode := mode_for_others(folder):
        raise PacsError(f"{folder} is open to other users (mode {mode}): chmod 700 it, or name a new folder")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except BlockingIOError as error:
            raise PacsError(
                f"{folder}: another process serves this spool: end that, or name another with --spool"
            ) from error
        base = stack.enter_context(closing(Database(folder / FILE, key_id(key))))
        spool = Spool(base, key, model, quota)
        spool.take_up()
        yield spool

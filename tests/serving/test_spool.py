"""The spool: whatever happens in whatever order, nothing that was accepted is lost or done twice."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pneumo_fast.errors import PacsError
from pneumo_fast.serving import database
from pneumo_fast.serving.database import Database, SpoolDamagedError, SpoolFullError
from pneumo_fast.serving.spool import FILE, MOST_ATTEMPTS, Outcome, Quota, Spool, open_spool
from tests.support.serving import journal

KEY = bytes(32)
ROOMY = Quota(objects=1000, bytes=1 << 30)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with open_spool(tmp_path / "spool", KEY, "model", ROOMY) as opened:
        yield opened


def outcome(number: int, uid: str | None = None) -> Outcome:
    names = [f"2.25.{uid or number}.{kind}" for kind in (1, 2)]
    return Outcome(number=number, probability=0.25, results=tuple((name, name.encode()) for name in names))


def score(spool: Spool) -> list[int]:
    numbers = spool.fresh(100)
    with spool.begin(numbers):
        spool.finish([outcome(number) for number in numbers], forward=True)
    return numbers


def die_at(spool: Spool, number: int) -> None:
    """Leave the note that :meth:`Spool.begin` makes, as a process does that dies."""
    with spool.base.transaction() as base:
        base.execute("UPDATE instances SET attempts = attempts + 1 WHERE number = ?", (number,))


def send_all(spool: Spool) -> int:
    count = 0
    while result := spool.next_result():
        spool.sent(result.number, 0)
        count += 1
    return count


def test_the_way_of_an_instance(spool: Spool, tmp_path: Path) -> None:
    assert spool.accept("1.2.3", b"received")
    (number,) = spool.fresh(10)
    assert spool.object_of(number) == b"received"
    assert score(spool) == [number]
    result = spool.next_result()
    assert result
    assert result.data == f"2.25.{number}.1".encode()
    assert send_all(spool) == 2
    counts = spool.counts()
    assert (counts.received, counts.scored, counts.results, counts.results_sent) == (1, 1, 2, 2)
    assert (counts.waiting, counts.results_waiting) == (0, 0)
    rows = journal(tmp_path / "spool", "SELECT state, probability, attempts FROM instances")
    assert rows == [("scored", 0.25, 0)]
    for table in ("instance_objects", "result_objects"):
        assert not journal(tmp_path / "spool", f"SELECT * FROM {table}")  # noqa: S608


def test_an_instance_is_kept_once(spool: Spool) -> None:
    assert spool.accept("1.2.3", b"1")
    assert not spool.accept("1.2.3", b"1")
    score(spool)
    assert not spool.accept("1.2.3", b"1")
    assert spool.counts().received == 1


def test_a_rejected_one_is_journalled_and_forgotten(spool: Spool) -> None:
    spool.accept("1.2.3", b"1")
    spool.finish([Outcome(number=1, reason="other_view")], forward=True)
    assert spool.counts().rejected == {"other_view": 1}
    assert not spool.accept("1.2.3", b"1")
    assert not spool.fresh(1)


def test_results_that_need_not_be_sent_are_not_kept(spool: Spool) -> None:
    spool.accept("1.2.3", b"1")
    spool.finish([outcome(1)], forward=False)
    assert spool.next_result() is None
    assert spool.counts().results == 2


def test_it_is_for_one_process(spool: Spool, tmp_path: Path) -> None:
    message = "another process serves this spool: end that, or name another with --spool"
    with pytest.raises(PacsError, match=message), open_spool(tmp_path / "spool", KEY, "model", ROOMY):
        pass
    assert spool.accept("1.2.3", b"1")


def test_it_is_private(spool: Spool, tmp_path: Path) -> None:
    spool.accept("1.2.3", b"1")
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    files = [path for path in (tmp_path / "spool").iterdir() if path.name.startswith(FILE)]
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_nothing_is_left_of_what_is_done(spool: Spool, tmp_path: Path) -> None:
    for number in range(50):
        spool.accept(f"1.2.826.{number}", b"Wilhelmine" * 2000)
    assert (tmp_path / "spool" / FILE).stat().st_size + (tmp_path / "spool" / f"{FILE}-wal").stat().st_size > 1_000_000
    spool.finish([Outcome(number=number, reason="other_view") for number in range(1, 50)], forward=True)
    score(spool)
    send_all(spool)
    spool.base.tidy()
    for path in (tmp_path / "spool").glob(f"{FILE}*"):
        assert b"Wilhelmine" not in path.read_bytes()
        assert b"1.2.826" not in path.read_bytes()
    assert (tmp_path / "spool" / FILE).stat().st_size < 100_000


def test_space_is_given_back_in_steps_that_let_others_in(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "STEP", 10)
    spool.accept("1.1", bytes(1 << 20))
    spool.finish([Outcome(number=1, reason="other_view")], forward=True)
    left: list[int] = []

    def interrupted() -> bool:
        sender = threading.Thread(target=spool.accept, args=(f"1.2.{len(left)}", b"1"))
        sender.start()
        sender.join(10)
        assert not sender.is_alive()
        left.append(spool.base.value("PRAGMA freelist_count"))
        return len(left) == 3

    spool.base.tidy(interrupted)
    assert left[0] > left[1] > left[2] > 0
    spool.base.tidy()
    assert spool.base.value("PRAGMA freelist_count") == 0


@pytest.mark.parametrize("quota", [Quota(objects=2, bytes=1 << 20), Quota(objects=100, bytes=25)])
def test_quota(tmp_path: Path, quota: Quota) -> None:
    with open_spool(tmp_path, KEY, "model", quota) as spool:
        assert spool.accept("1.1", b"0123456789")
        assert spool.accept("1.2", b"0123456789")
        with pytest.raises(SpoolFullError, match="has reached its quota: 2 objects"):
            spool.accept("1.3", b"0123456789")
        assert not spool.accept("1.1", b"0123456789")
        spool.finish([Outcome(number=1, reason="other_view")], forward=True)
        assert spool.accept("1.3", b"0123456789")
        spool.finish([outcome(2)], forward=True)
        with pytest.raises(SpoolFullError, match="has reached its quota"):  # results count as well
            spool.accept("1.4", b"0123456789")


def test_a_full_disk_refuses_and_keeps_what_is_there(spool: Spool) -> None:
    spool.accept("1.1", b"1" * 10_000)
    with spool.base.reading() as base:
        base.execute("PRAGMA max_page_count = 30")
    with pytest.raises(SpoolFullError, match=r"cannot be used \(database or disk is full\): free some space"):
        spool.accept("1.2", b"1" * 1_000_000)
    assert spool.counts().received == 1
    assert spool.object_of(1) == b"1" * 10_000
    assert spool.accept("1.3", b"1" * 1000)
    big = Outcome(number=1, results=(("2.25.1", b"1" * 1_000_000),))
    with pytest.raises(SpoolFullError, match="database or disk is full"):
        spool.finish([big], forward=True)
    assert spool.fresh(10) == [1, 2]


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        ("database or disk is full", "free some space; "),
        ("disk I/O error", "free some space, or check the disk; "),
        ("database is locked", "end the other program that uses it; "),
        ("database table is locked", "end the other program that uses it"),
        ("unable to open database file", "see that the folder and its files are there and may be written; "),
    ],
)
def test_each_error_of_sqlite_has_its_remedy(tmp_path: Path, found: str, remedy: str) -> None:
    base = Database(tmp_path / "spool.sqlite3", "key")
    with pytest.raises(SpoolFullError) as told, base.transaction():
        raise sqlite3.OperationalError(found)
    base.close()
    assert f"cannot be used ({found}): {remedy}" in str(told.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no database" * 100, r"is damaged \(file is not a database\): move it away"),
        ("CREATE TABLE theirs (x)", "is no spool of this version"),
        ("PRAGMA application_id = 1347307073; PRAGMA user_version = 7; CREATE TABLE x (y)", r"format 7, 1 expected"),
    ],
)
def test_files_that_are_no_spool_are_left_alone(tmp_path: Path, content: bytes | str, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / FILE).write_bytes(content)
    else:
        with closing(sqlite3.connect(tmp_path / FILE)) as base:
            base.executescript(content)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(PacsError, match=message), open_spool(tmp_path, KEY, "model", ROOMY):
        pass
    assert (tmp_path / FILE).read_bytes() == before


def test_damage_while_it_runs_is_one_line(tmp_path: Path) -> None:
    with open_spool(tmp_path, KEY, "model", ROOMY) as spool:
        for number in range(50):
            spool.accept(f"1.{number}", b"1" * 5000)
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(60_000))
    with pytest.raises(SpoolDamagedError, match="is damaged"), open_spool(tmp_path, KEY, "model", ROOMY) as spool:
        spool.object_of(20)


def test_another_hash_key_is_refused(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool", KEY, "model", ROOMY):
        pass
    message = "was made with another hash key"
    with pytest.raises(PacsError, match=message), open_spool(tmp_path / "spool", bytes([1] * 32), "model", ROOMY):
        pass


def test_another_model_scores_what_waits_and_what_comes_again(tmp_path: Path) -> None:
    with open_spool(tmp_path, KEY, "one", ROOMY) as spool:
        spool.accept("1.1", b"1")
        score(spool)
        spool.accept("1.2", b"1")
    with open_spool(tmp_path, KEY, "two", ROOMY) as spool:
        assert not spool.accept("1.2", b"1")
        assert spool.accept("1.1", b"1")
        assert len(spool.fresh(10)) == 2
    with open_spool(tmp_path, KEY, "one", ROOMY) as spool:  # which has scored 1.1 before
        assert len(spool.fresh(10)) == 1
        assert not spool.accept("1.1", b"1")


def test_what_kills_the_server_again_and_again_is_rejected(tmp_path: Path) -> None:
    for death in range(MOST_ATTEMPTS):
        with open_spool(tmp_path, KEY, "model", ROOMY) as spool:
            if not death:
                spool.accept("1.1", b"1")
                spool.accept("1.2", b"1")
            assert spool.fresh(10) == ([1, 2] if not death else [2])
            assert spool.begun(10) == ([] if not death else [1])
            die_at(spool, 1)
    with open_spool(tmp_path, KEY, "model", ROOMY) as spool:
        assert spool.counts().rejected == {"crashed": 1}
        assert spool.fresh(10) == [2]


def test_an_error_that_nobody_foresaw_counts_as_a_death(spool: Spool) -> None:
    spool.accept("1.1", b"1")
    for error, begun in ((PacsError("x"), []), (SystemExit(1), []), (ZeroDivisionError(), [1])):
        with pytest.raises(type(error)), spool.begin([1]):
            raise error
        assert spool.begun(10) == begun


def test_what_was_set_aside_is_tried_again_at_the_next_start(tmp_path: Path) -> None:
    with open_spool(tmp_path, KEY, "model", ROOMY) as spool:
        spool.accept("1.1", b"1")
        spool.accept("1.2", b"1")
        spool.set_aside(1, "PredictError")
        spool.finish([outcome(2)], forward=True)
        spool.refused(1, 0xA900, for_good=True)
        assert not spool.fresh(10)
        assert (spool.counts().set_aside, spool.counts().waiting, spool.counts().results_waiting) == (2, 1, 2)
    with open_spool(tmp_path, KEY, "model", ROOMY) as spool:
        assert spool.fresh(10) == [1]
        assert send_all(spool) == 2


def test_results_go_in_order_but_for_those_that_wait_longer(spool: Spool) -> None:
    for number in range(3):
        spool.accept(f"1.{number}", b"1")
    score(spool)
    first = spool.next_result()
    assert first
    assert first.number == 1
    spool.refused(1, 0xA900, for_good=False)
    other = spool.next_result(but={1})
    again = spool.next_result()
    assert other
    assert again
    assert (other.number, again.number, again.tries) == (2, 1, 1)


class Life(RuleBasedStateMachine):
    """Instances come, are scored and sent, and the process is killed, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(TemporaryDirectory()))
        self.acknowledged: set[str] = set()
        self.made: list[str] = []
        self.sent: list[str] = []
        self.open()

    def open(self) -> None:
        self.life = ExitStack()
        self.spool = self.life.enter_context(open_spool(self.folder, KEY, "model", Quota(objects=8, bytes=1 << 20)))

    @rule(uid=st.sampled_from("abcdef"))
    def come(self, uid: str) -> None:
        try:
            new = self.spool.accept(uid, uid.encode())
        except SpoolFullError:
            return
        assert new == (uid not in self.acknowledged)
        self.acknowledged.add(uid)

    @rule(most=st.integers(1, 4), fate=st.sampled_from(["scored", "rejected", "killed", "set aside"]))
    def score(self, most: int, fate: str) -> None:
        for number in self.spool.fresh(most) or self.spool.begun(1):
            uid = self.spool.object_of(number).decode()
            if fate == "killed":
                die_at(self.spool, number)
            elif fate == "set aside":
                self.spool.set_aside(number, "PredictError")
            else:
                with self.spool.begin([number]):
                    done = Outcome(number=number, reason="other_view") if fate == "rejected" else outcome(number, uid)
                    self.spool.finish([done], forward=True)
                self.made += [name for name, _ in done.results]

    @rule(status=st.sampled_from([0, 0xB000, 0xA900]))
    def send(self, status: int) -> None:
        if result := self.spool.next_result():
            if status == 0xA900:
                self.spool.refused(result.number, status, for_good=result.tries > 1)
            else:
                self.sent.append(result.data.decode())
                self.spool.sent(result.number, status)

    @precondition(lambda self: self.acknowledged)
    @rule()
    def kill(self) -> None:
        self.life.close()
        self.open()

    @invariant()
    def nothing_is_lost_or_done_twice(self) -> None:
        counts = self.spool.counts()
        assert counts.received == len(self.acknowledged)
        assert counts.received == counts.waiting + counts.scored + sum(counts.rejected.values())
        assert counts.results == len(self.made) == len(set(self.made)) == 2 * counts.scored
        assert counts.results_sent == len(self.sent) == len(set(self.sent))
        assert counts.results == counts.results_waiting + counts.results_sent

    def teardown(self) -> None:
        self.life.close()
        self.stack.close()


Life.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase

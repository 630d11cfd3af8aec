"""The DICOM node: receives, scores, forwards, until a signal ends it.

::

    threads of the receiver     C-STORE -> Spool.accept -> acknowledged
    the main thread             Scorer.round: batch after batch of what waits
    the forwarder's thread      results -> the node
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pneumo_fast.dataset.pseudonyms import load_key
from pneumo_fast.errors import PacsError, PredictError
from pneumo_fast.extras import DICOM_OUT
from pneumo_fast.pacs.address import is_loopback
from pneumo_fast.pacs.node import OUT_OF_RESOURCES, hushed, require_pynetdicom
from pneumo_fast.prediction.dicom_results import warn_of_identities
from pneumo_fast.prediction.model import open_model
from pneumo_fast.prediction.scoring import reading_processes, workers_for
from pneumo_fast.serving.database import SpoolFullError
from pneumo_fast.serving.forwarder import Forwarder
from pneumo_fast.serving.options import ServeConfig
from pneumo_fast.serving.scorer import Scorer, work_folder
from pneumo_fast.serving.spool import Counts, Quota, Spool, open_spool
from pneumo_fast.signals import StopRequest
from pneumo_fast.vocabulary import counted

POLL_S: Final = 0.25
"""How soon a signal is heeded while nothing arrives."""
TOLD_S: Final = 10.0
"""How often the counts are told, at most."""
FULL_S: Final = 2.0
"""After a full disk, when to try again."""

OnReady = Callable[[int], None]
"""Called with the port, once instances are received."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSummary:
    """How serving ended."""

    spool: Path
    counts: Counts
    """Of the journal, so of earlier processes too."""
    signal: int
    """That ended it."""

    @property
    def exit_code(self) -> int:
        """As shells report a signal."""
        return 128 + self.signal


def serve(config: ServeConfig, on_ready: OnReady | None = None, stop: StopRequest | None = None) -> ServeSummary:
    """Receive radiographs as a DICOM node, score them and forward the results, until SIGINT, SIGTERM or SIGHUP.

    An instance is acknowledged once it is in the spool, on disk. A kill at any moment loses none that was
    acknowledged; started again with the same spool, the server goes on with what waits.

    Parameters
    ----------
    on_ready : callable, optional
        Called with the port once instances are received.
    stop : StopRequest, optional
        Whose ``signal`` ends it, for another thread than the main one, where signals do not come.

    Raises
    ------
    PacsError
        If pynetdicom is not installed, the port or the spool is taken, or the spool is damaged.
    PredictError
        If DICOM objects cannot be made or written.
    RunError
        If a run is missing or damaged, or takes other images than the others.
    ConfigError
        If the hash key cannot be used.
    """
    _check(config)
    from pneumo_fast.pacs.receiver import Listening, receiving  # noqa: PLC0415  # an extra

    model, key = open_model(config.runs, config.device), load_key(config.hash_key, make=True)
    model.warm_up()
    quota = Quota(objects=config.max_waiting, bytes=int(config.max_waiting_gb * 1e9))
    listening = Listening(
        aet=config.aet, host=config.host, port=config.port, allowed=config.allow, associations=config.associations,
        most_bytes=int(config.max_message_mb * 1e6), timeout_s=config.network_timeout_s,
    )  # fmt: skip
    with (
        hushed(),
        stop or StopRequest() as ended,
        open_spool(config.spool, key, model.digest(config.threshold), quota) as spool,
        work_folder(config.spool) as work,
        workers_for(model, reading_processes(model, config.scoring)) as submit,
    ):
        scorer = Scorer(config, model, key, spool, work, submit, lambda: ended.signal)
        with _forwarding(config, spool) as forwarder, receiving(listening, _Acceptance(spool)) as port:
            _tell_start(config, port, spool.counts().waiting)
            if on_ready:
                on_ready(port)
            _run(ended, spool, scorer, forwarder)
        try:
            spool.base.tidy()
        except SpoolFullError as error:
            _log.warning("%s", error)  # the next process tidies it
        counts = spool.counts()
    return ServeSummary(spool=config.spool, counts=counts, signal=ended.signal)


def _check(config: ServeConfig) -> None:
    require_pynetdicom("serve")
    if find_spec("highdicom") is None:
        raise PredictError(DICOM_OUT.needed_by("serve", "highdicom"))
    if config.dicom_out:
        if config.dicom_out.exists() and not config.dicom_out.is_dir():
            raise PredictError(f"{config.dicom_out} is a file: name a folder with --dicom-out")
        config.dicom_out.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def _forwarding(config: ServeConfig, spool: Spool) -> Iterator[Forwarder | None]:
    if config.node is None:
        yield None
        return
    forwarder = Forwarder(spool, config.node, config.aet, config.network_timeout_s)
    forwarder.start()
    try:
        yield forwarder
    finally:
        forwarder.stop()


class _Acceptance:
    """Puts what arrives into the spool; of several that it has no room for, the first is told."""

    def __init__(self, spool: Spool) -> None:
        self._spool, self._full = spool, False

    def __call__(self, uid: str, data: bytes) -> int:
        try:
            self._spool.accept(uid, data)
        except PacsError as error:
            if not self._full:
                _log.warning("nothing is accepted: %s", error)
            self._full = True
            return OUT_OF_RESOURCES
        self._full = False
        return 0


def _run(stop: StopRequest, spool: Spool, scorer: Scorer, forwarder: Forwarder | None) -> None:
    """Score until a signal comes; tell the counts, and give space back when nothing happens."""
    told_at, told, tidied, before = time.monotonic(), 0, -1, -1
    while not stop.signal:
        spool.arrived.clear()
        try:
            busy = scorer.round()
            if forwarder and not forwarder.is_alive():
                raise forwarder.fault or PacsError(
                    "results can no longer be sent: start serve again, with the same spool"
                )
            changes = spool.base.changes
            if changes != told and time.monotonic() - told_at > TOLD_S:
                told_at, told = time.monotonic(), changes
                _tell(spool.counts())
            if not busy and changes == before != tidied:
                spool.base.tidy(lambda: stop.signal or spool.arrived.is_set())
                tidied = changes
        except SpoolFullError as error:
            _log.warning("%s", error)
            time.sleep(FULL_S)
            continue
        if not busy:
            spool.arrived.wait(POLL_S)
        before = changes


def _tell_start(config: ServeConfig, port: int, waiting: int) -> None:
    _log.info("%s listens at %s:%d; %s wait", config.aet, config.host, port, counted(waiting, "instance"))
    if not is_loopback(config.host):
        _log.warning(
            "other machines can reach %s: DICOM's protocol is NEITHER ENCRYPTED NOR AUTHENTICATED, and an AE title is "
            "no secret; keep the port within a network that you trust", config.host,
        )  # fmt: skip
    if config.dicom_out:
        warn_of_identities(config.dicom_out)


def _tell(counts: Counts) -> None:
    _log.info(
        "received %d, scored %d, rejected %d, waiting %d; results %d, sent %d", counts.received, counts.scored,
        sum(counts.rejected.values()), counts.waiting, counts.results, counts.results_sent,
    )  # fmt: skip

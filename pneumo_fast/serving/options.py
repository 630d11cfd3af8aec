"""Options of ``serve``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pneumo_fast.configuration import Device, Option, check
from pneumo_fast.conversion.options import HashKey
from pneumo_fast.errors import ConfigError
from pneumo_fast.evaluation.options import NO_PROBABILITY, BatchSize
from pneumo_fast.pacs.node import OUR_AET, Node, check_aet
from pneumo_fast.prediction.options import BodyParts, Modalities, Refuse, ScoreOptions, Views, is_run


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """What to listen to, what to score it by, and where results go."""

    # fmt: off
    runs: Annotated[tuple[Path, ...], Option(
        "Run folders.", "The logits of several runs, as of the folds of a cross-validation, are averaged.",
        positional=True, default="required",
    )] = ()
    allow: Annotated[tuple[str, ...], Option(
        "AE title that may call; may be repeated.", default="required", group="Receiver"
    )] = ()
    aet: Annotated[str, Option("Our AE title.")] = OUR_AET
    host: Annotated[str, Option(
        "Address to listen on.", "DICOM's own protocol is neither encrypted nor authenticated."
    )] = "127.0.0.1"
    port: Annotated[int, Option("Port to listen on; 0 for any that is free.", least=0, most=65535)] = 11112
    associations: Annotated[int, Option("Associations that may be open at once.", least=1, most=100)] = 8
    max_message_mb: Annotated[float, Option(
        "Largest message taken.", above=0, most=900, unit="megabytes"
    )] = 100
    network_timeout_s: Annotated[float, Option(
        "Seconds that a peer may be silent, or take for one PDU.", above=0, most=86_400, unit="seconds"
    )] = 30
    forward: Annotated[str | None, Option(
        "Node to send results to, as AET@HOST:PORT.", group="Results"
    )] = None
    dicom_out: Annotated[Path | None, Option(
        "Folder to write results to, as DICOM.", "They carry the identity of their source's patient.",
        default="none written",
    )] = None
    threshold: Annotated[float, Option(
        "Probability that makes an image positive, where the run has no operating threshold.",
        least=0, most=1, refusal=NO_PROBABILITY,
    )] = 0.5
    spool: Annotated[Path, Option("Folder for the queue and the journal.", group="Spool")] = Path("spool")
    max_waiting: Annotated[int, Option("Objects that may wait.", least=1)] = 10_000
    max_waiting_gb: Annotated[float, Option(
        "Size of the objects that may wait.", above=0, most=1_000_000, unit="gigabytes"
    )] = 10
    modalities: Modalities = ()
    views: Views = ()
    body_parts: BodyParts = ()
    refuse: Refuse = ()
    device: Annotated[Device, Option("auto, cpu, cuda or cuda:N.", decides=False, group="Work")] = "auto"
    batch_size: BatchSize = 64
    workers: Annotated[int | None, Option(
        "Worker processes that read images.", least=1, default="one per core", aliases=("--num-workers",)
    )] = None
    hash_key: Annotated[HashKey, Option(
        "Key file for pseudonyms.", "The UIDs of results are derived with it.", default="in your configuration folder",
        group="Privacy",
    )] = None
    # fmt: on

    def __post_init__(self) -> None:
        """Check every option, and which go together; ConfigError names the first that cannot work."""
        check(self)
        if not self.runs:
            raise ConfigError("no run folder is given: name one or several")
        for run in self.runs:
            if not is_run(run):
                raise ConfigError(f"{run} is not a run folder: name one that train wrote")
        if not self.allow:
            raise ConfigError("no caller is allowed: give AE titles with --allow")
        for aet in self.allow:
            check_aet("allow", aet)
        check_aet("aet", self.aet)
        if self.forward is None and self.dicom_out is None:
            raise ConfigError("results would go nowhere: give --forward AET@HOST:PORT, --dicom-out FOLDER or both")
        _ = self.node

    @property
    def node(self) -> Node | None:
        """Where results are sent."""
        return None if self.forward is None else Node.parse(self.forward)

    @property
    def scoring(self) -> ScoreOptions:
        """How instances become rows of a table."""
        return ScoreOptions(
            thresholds=(self.threshold,), modalities=self.modalities, views=self.views, body_parts=self.body_parts,
            refuse=self.refuse, batch_size=self.batch_size, workers=self.workers,
        )  # fmt: skip

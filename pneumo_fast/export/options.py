"""Options of ``export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pneumo_fast.configuration import Option, check
from pneumo_fast.errors import ConfigError
from pneumo_fast.run.layout import EXPORTED
from pneumo_fast.vocabulary import ExportFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Which model to export, as what."""

    # fmt: off
    runs: Annotated[tuple[Path, ...], Option(
        "Run folder; the logits of several runs, or of folds, are averaged in one model.",
        "The best checkpoint of each is taken.",
        positional=True,
    )] = (Path("run"),)
    format: Annotated[ExportFormat, Option(
        "ONNX, or PyTorch's torch.export.", "The file ends in `.onnx` or `.pt2`."
    )] = "onnx"
    out: Annotated[Path | None, Option(
        "File to write, or replace.", "To be given with several runs.", aliases=("-o",),
        default="RUN/model.onnx or RUN/model.pt2",
    )] = None
    # fmt: on

    def __post_init__(self) -> None:
        """Check every option, and which go together; ConfigError names the first that cannot work."""
        check(self)
        if not self.runs:
            raise ConfigError("no run is given: name at least one run folder")
        for run in self.runs:
            if self.runs.count(run) > 1:
                raise ConfigError(f"run {run} is given more than once: give each one once")
        if self.out is None and len(self.runs) > 1:
            raise ConfigError(f"{len(self.runs)} runs are given: name the file of their joint model with --out")
        ending = Path(EXPORTED[self.format]).suffix
        if self.out is not None and self.out.suffix != ending:
            raise ConfigError(f"out {self.out}: the name of a {ending} file expected for --format {self.format}")

    @property
    def file(self) -> Path:
        """The file to write."""
        return self.out or self.runs[0] / EXPORTED[self.format]

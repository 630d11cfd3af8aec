"""What an explanation found, and the file that says so; ``docs/explaining.md`` specifies it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pneumo_fast import __version__
from pneumo_fast.errors import RunError
from pneumo_fast.evaluation.identity import DatasetIdentity, RunIdentity
from pneumo_fast.evaluation.results import Intervals
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.explanation.pointing import BoxFigures
from pneumo_fast.explanation.sanity import Randomised
from pneumo_fast.records import Fault, Head, build, parse_file, plain
from pneumo_fast.run.layout import EXPLAIN, EXPLANATION, EXPLANATION_FORMAT, EXPLANATION_VERSION

KINDS: Final = {"TP": "true positive", "FP": "false positive", "FN": "false negative", "TN": "true negative"}
"""What may become of an image at the threshold, in the order of drawing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """One image that was drawn."""

    image_id: str
    label: int
    """0 or 1."""
    probability: float
    """The plain probability, in [0, 1]."""
    kind: str
    """One of :data:`KINDS`."""
    file: str
    hit: bool | None
    """Whether the map is highest in a box; None without boxes."""
    energy_share: float | None
    """Share of the map's sum inside the boxes, in [0, 1]; None without boxes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplanationFile:
    """Content of ``explain.json``; ``docs/explaining.md`` lists the keys."""

    format: str = EXPLANATION_FORMAT
    format_version: int = EXPLANATION_VERSION
    created_by: str = f"pneumo-fast {__version__}"
    method: str
    layer: str
    """Name of the module that was looked into."""
    map_size: tuple[int, int]
    """Height and width of the layer's output."""
    split: str
    threshold: float
    """Probability in [0, 1] from which an image counts as called positive."""
    boxes: BoxFigures | None
    """None where no image of the split has a box."""
    randomised: Randomised
    images: tuple[Drawn, ...]
    notes: tuple[str, ...]
    intervals: Intervals
    run: RunIdentity
    dataset: DatasetIdentity
    device: str
    options: ExplainConfig | None = None
    """The options of ``explain``; None in a file of an earlier release."""
    added_ids: tuple[str, ...] = ()
    """Images that a later ``explain --id`` drew in addition, in the order of their drawing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation(ExplanationFile):
    """What was found, and written."""

    folder: Path


def to_json(explanation: Explanation) -> dict[str, Any]:
    """Plain JSON values; ``docs/explaining.md`` lists the keys."""
    content = asdict(explanation)
    del content["folder"]
    return {**content, "options": plain(explanation.options)}


def read_explanation(run: Path) -> ExplanationFile | None:
    """Read a run's ``explain.json``; None where the run was not explained.

    Raises
    ------
    RunError
        If the file is damaged or of another version.
    """
    path = run / EXPLAIN / EXPLANATION
    try:
        values = parse_file(path)
        head = build(values, Head)
        if head.format != EXPLANATION_FORMAT:
            raise Fault(f"$.format: {EXPLANATION_FORMAT!r} expected, {head.format!r} found")
        if head.format_version != EXPLANATION_VERSION:
            raise RunError(f"{path} has format version {head.format_version!r}")
        return build(values, ExplanationFile)
    except FileNotFoundError:
        return None
    except (OSError, Fault) as error:
        raise RunError(f"{path} is damaged ({error})") from error

"""Adds heat maps to an explanation that is there: the images that ``--id`` names are drawn beside those before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pneumo_fast.errors import RunError
from pneumo_fast.explanation.maps import Maps
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.explanation.results import Drawn, ExplanationFile, read_explanation
from pneumo_fast.files import read_regular, write_atomic
from pneumo_fast.run.layout import EXPLAIN


def read_earlier(maps: Maps, config: ExplainConfig) -> ExplanationFile | None:
    """The explanation that named images are added to; None where there is none of the same maps of the same images."""
    try:
        found = read_explanation(config.run)
    except RunError:
        return None
    if found is None:
        return None
    how = (config.method, maps.layer, config.split, config.threshold, config.resamples, config.seed)
    earlier = found.method, found.layer, found.split, found.threshold, found.intervals.resamples, found.intervals.seed
    of = maps.judged.run_identity.sha256, maps.judged.dataset_identity.identity
    return found if earlier == how and (found.run.sha256, found.dataset.identity) == of else None


def keep_earlier(earlier: ExplanationFile, run: Path, folder: Path) -> Iterator[Drawn]:
    """The images drawn before whose files are there, and are copied into the new folder."""
    for drawn in earlier.images:
        if Path(drawn.file).name != drawn.file:  # only files of this folder
            continue
        try:
            png = read_regular(run / EXPLAIN / drawn.file)
        except (OSError, ValueError):  # not there, or a name that no file can have
            continue
        write_atomic(folder / drawn.file, png)
        yield drawn

"""How well scores fit labels, where a table gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pneumo_fast.conversion.labels import read_labels
from pneumo_fast.dataset.pseudonyms import pseudonym
from pneumo_fast.metrics.intervals import Bootstrap, group_numbers
from pneumo_fast.metrics.ranking import Ranking, rank
from pneumo_fast.metrics.scored import Sample
from pneumo_fast.metrics.thresholds import AtThreshold, Chosen, at_threshold
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.prediction.table import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """Figures of the images that have a label."""

    n: int
    positives: int
    without_label: int
    """Scored images that no row of the table is of."""
    ranking: Ranking
    thresholds: tuple[AtThreshold, ...]
    operating_point: AtThreshold | None
    """At the run's operating threshold, if it has one."""


class Judging:
    """Gathers the scores of images that have a label, part by part.

    Parameters
    ----------
    table : DataFrame
        Columns ``image_id``, ``label`` and ``group``, one row per image.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table.set_index("image_id")[["label", "group"]]
        self._parts: list[pd.DataFrame] = []
        self._without = 0

    def add(self, scored: Sequence[Row]) -> None:
        """Take the scored rows of a part."""
        joined = pd.DataFrame(scored, columns=["image_id", "logit"]).join(self._table, on="image_id")
        known = joined["label"].notna()
        self._without += int((~known).sum())
        self._parts.append(joined[known])

    def judge(self, config: PredictConfig, point: Chosen | None) -> Judgement | None:
        """The figures, those at a run's operating point too; None where no scored image has a label."""
        rows = pd.concat(self._parts, ignore_index=True) if self._parts else pd.DataFrame()
        if rows.empty:
            return None
        # several files with one id are of one patient
        several = rows["image_id"].duplicated(keep=False) & (rows["group"] == "")
        sample = Sample(
            labels=rows["label"].to_numpy(dtype=np.int64),
            logits=rows["logit"].to_numpy(dtype=np.float32),
            groups=group_numbers(rows["group"].where(~several, rows["image_id"])),
        )
        bootstrap = Bootstrap(resamples=config.resamples, seed=0)
        return Judgement(
            n=sample.n,
            positives=sample.positives,
            without_label=self._without,
            ranking=rank(sample, bootstrap),
            thresholds=tuple(at_threshold(sample, threshold, bootstrap) for threshold in config.thresholds),
            operating_point=None
            if point is None
            else at_threshold(sample, point.threshold, bootstrap, name=point.name),
        )


def read_table(config: PredictConfig, key: bytes) -> Judging | None:
    """The label table, with ids as they will be written; None where none is given.

    Raises
    ------
    LabelError
        If it cannot be used.
    """
    if config.labels is None:
        return None
    table = read_labels(
        config.labels, id_column=config.id_column, label=config.label_rule, group_column=config.group_column
    ).images
    if not config.keep_ids:
        table["image_id"] = [pseudonym(key, "image", image_id) for image_id in table["image_id"]]
    return Judging(table)

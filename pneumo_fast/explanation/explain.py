"""Draws where a run's model looked, and plays the pointing game; ``docs/explaining.md`` says what is written."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pneumo_fast.dataset.identifiers import stored_ids
from pneumo_fast.drawing.heat_maps import draw_overlay
from pneumo_fast.errors import ConfigError
from pneumo_fast.evaluation.inference import Judged, infer, open_run
from pneumo_fast.evaluation.notes import unread_note
from pneumo_fast.evaluation.results import describe_intervals
from pneumo_fast.explanation.added import keep_earlier, read_earlier
from pneumo_fast.explanation.cam import enlarge
from pneumo_fast.explanation.maps import Maps
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.explanation.pointing import Corners, energy_share, hit, judge_boxes, peak
from pneumo_fast.explanation.results import KINDS, Drawn, Explanation, ExplanationFile, to_json
from pneumo_fast.explanation.sanity import Randomised, compare_with_random
from pneumo_fast.files import write_atomic
from pneumo_fast.folders import replaced_folder
from pneumo_fast.loading.targets import boxes_of
from pneumo_fast.metrics.intervals import group_numbers
from pneumo_fast.metrics.scored import call_positive, sigmoid
from pneumo_fast.progress import OnProgress, part_of_whole, silent
from pneumo_fast.radiograph.resize import stored_boxes
from pneumo_fast.run.folder import writing
from pneumo_fast.run.layout import EXPLAIN, EXPLAINED, EXPLANATION, HEAT_MAPS, heat_map
from pneumo_fast.vocabulary import counted

_log = logging.getLogger(__name__)

RANDOMISED_IMAGES: Final = 64


def explain(config: ExplainConfig, on_progress: OnProgress = silent) -> Explanation:
    """Explain a run's best checkpoint and write ``RUN/explain/``.

    Parameters
    ----------
    config : ExplainConfig
    on_progress : callable, optional
        Called as (images done, images) after each batch.

    Raises
    ------
    ConfigError
        If the layer or an id is not there, or the hash key cannot be used.
    RunError
        If the run is missing or damaged, does not fit the dataset, or the folder cannot be written.
    DatasetError
        If the dataset is missing or damaged or has no image in the split.
    DeviceError
        If the device is not there.
    """
    judged = open_run(config.run, config.dataset, config.device)
    if judged.averages(config.split):
        raise ConfigError(
            "heat maps of a cross-validation are of its own images, split 'val': for others name one of its folds, for "
            f"instance {shlex.quote(str(judged.models[0].run))}"
        )
    rows = judged.rows(config.split)
    config = replace(config, ids=_stored_ids(judged, rows, config), hash_key=None)
    with closing(Maps(judged, rows, config)) as maps:
        return _explain(maps, config, on_progress)


def _explain(maps: Maps, config: ExplainConfig, on_progress: OnProgress) -> Explanation:
    place = config.run / EXPLAIN
    earlier = read_earlier(maps, config) if config.ids else None
    if earlier is not None:
        return _add(maps, config, earlier, on_progress)
    if there := len(list(place.glob(HEAT_MAPS))):
        _log.info("the %s in %s %s replaced", counted(there, "earlier heat map"), place, "is" if there == 1 else "are")
    judged, rows = maps.judged, maps.rows
    boxes = _boxes(judged, rows)
    boxed = np.array(sorted(boxes), dtype=np.int64)
    steps = len(rows) + len(boxed)
    probabilities = sigmoid(infer(judged, config.split, config.batch_size, part_of_whole(on_progress, 0, steps)))
    chosen, read = _choose(rows, probabilities, config), np.isfinite(probabilities)
    boxed = boxed[read[boxed]]
    peaks, energies = _look(maps, boxed, boxes, part_of_whole(on_progress, len(rows), steps))
    randomised = _randomised(maps, boxed if len(boxed) else np.flatnonzero(read), boxes, config)
    with writing(place), replaced_folder(place, EXPLAINED) as folder:
        drawn = tuple(_draw(maps, chosen, boxes, probabilities, folder))
        figures = None
        if len(boxed):
            groups = group_numbers(rows["group"])[boxed]
            figures = judge_boxes(
                peaks, energies, [boxes[row] for row in boxed.tolist()], maps.size, groups,
                resamples=config.resamples, seed=config.seed,
            )  # fmt: skip
        explanation = Explanation(
            folder=place,
            method=config.method,
            layer=maps.layer,
            map_size=maps.map_size,
            split=config.split,
            threshold=config.threshold,
            boxes=figures,
            randomised=randomised,
            images=drawn,
            notes=tuple(_notes(peaks, drawn, int((~read).sum()))),
            intervals=describe_intervals(rows["group"], config.resamples, config.seed),
            run=judged.run_identity,
            dataset=judged.dataset_identity,
            device=str(judged.device),
            options=config,
        )
        _write(explanation, folder)
    return explanation


def _add(maps: Maps, config: ExplainConfig, earlier: ExplanationFile, on_progress: OnProgress) -> Explanation:
    """Draw the named images that are not drawn yet beside the earlier ones; the figures stay as they are."""
    rows, place = maps.rows, config.run / EXPLAIN
    with writing(place), replaced_folder(place, EXPLAINED) as folder:
        before = tuple(keep_earlier(earlier, config.run, folder))
        there = {drawn.image_id for drawn in before}
        new = np.flatnonzero(rows["image_id"].isin([image_id for image_id in config.ids if image_id not in there]))
        probabilities = np.zeros(len(rows))
        probabilities[new] = sigmoid(maps.logits(new))
        named = replace(config, ids=tuple(image_id for image_id in config.ids if image_id not in there))
        chosen = _choose(rows, probabilities, named) if named.ids else []
        taken = {drawn.file for drawn in before}
        added = tuple(_draw(maps, chosen, _boxes(maps.judged, rows), probabilities, folder, taken))
        of_before = {field.name: getattr(earlier, field.name) for field in fields(ExplanationFile)}
        added_ids = (*earlier.added_ids, *named.ids)
        all_of_it = {"images": (*before, *added), "added_ids": tuple(dict.fromkeys(added_ids))}
        explanation = Explanation(folder=place, **(of_before | all_of_it))
        _write(explanation, folder)
    on_progress(len(chosen), len(chosen))
    return explanation


def _write(explanation: Explanation, folder: Path) -> None:
    text = json.dumps(to_json(explanation), indent=1, allow_nan=False, ensure_ascii=False)
    write_atomic(folder / EXPLANATION, text + "\n")


def _stored_ids(judged: Judged, rows: pd.DataFrame, config: ExplainConfig) -> tuple[str, ...]:
    """The ids asked for, as the dataset has them: an id of the label table stands in no output."""
    stored, there = stored_ids(judged.dataset, config.ids, config.hash_key), set(rows["image_id"])
    unknown = [given for given, image_id in zip(config.ids, stored, strict=True) if image_id not in there]
    if unknown:
        raise ConfigError(
            f"{len(unknown)} of {len(stored)} ids are not in split {config.split!r}, first {unknown[0]!r}: use ids of "
            "the label table or of index.csv, or another --split"
        )
    times = rows["image_id"].value_counts()
    for given, image_id in zip(config.ids, stored, strict=True):
        if times[image_id] > 1:
            raise ConfigError(
                f"id {given!r} names {times[image_id]} images of split {config.split!r}, each of another dataset: name "
                "the dataset with --dataset"
            )
    return tuple(stored)


def _choose(rows: pd.DataFrame, probabilities: NDArray[np.float64], config: ExplainConfig) -> list[tuple[str, int]]:
    """The images to draw, as (kind, row): those named, or the most confident of each kind."""
    called = call_positive(probabilities, config.threshold)
    right = called == (rows["label"].to_numpy() == 1)
    kinds = np.where(right, "T", "F").astype(object) + np.where(called, "P", "N").astype(object)
    if config.ids:
        places = {image_id: row for row, image_id in enumerate(rows["image_id"])}
        return [(kinds[places[image_id]], places[image_id]) for image_id in dict.fromkeys(config.ids)]
    order = np.argsort(-np.abs(probabilities - config.threshold), kind="stable")
    order = order[np.isfinite(probabilities[order])]  # those whose files can be read
    return [(kind, row) for kind in KINDS for row in order[kinds[order] == kind][: config.count].tolist()]


def _boxes(judged: Judged, rows: pd.DataFrame) -> dict[int, Corners]:
    """Boxes by row, as far as they lie within their images, of the positive images that have any."""
    found, lost = boxes_of(judged.dataset, rows)
    if lost:
        _log.warning("%d boxes lie outside of their images or have no area, and are left out", lost)
    positive = rows["label"].to_numpy()[found["number"]] == 1
    return {
        int(row): stored_boxes(own, judged.dataset.size) for row, own in found[positive].groupby("number", sort=True)
    }


def _look(
    maps: Maps, boxed: NDArray[np.int64], boxes: dict[int, Corners], on_progress: OnProgress
) -> tuple[list[tuple[float, float] | None], list[float]]:
    """Where the map of each image with boxes is highest, and the share of it inside them."""
    peaks: list[tuple[float, float] | None] = []
    energies: list[float] = []
    for batch, found in maps(boxed):
        peaks += [peak(m) for m in found]
        large = enlarge(torch.from_numpy(found), maps.size).numpy()
        energies += [energy_share(m, boxes[row]) for row, m in zip(batch.tolist(), large, strict=True)]
        on_progress(len(peaks), len(boxed))
    return peaks, energies


def _draw(
    maps: Maps,
    chosen: list[tuple[str, int]],
    boxes: dict[int, Corners],
    probabilities: NDArray[np.float64],
    folder: Path,
    taken: AbstractSet[str] = frozenset(),
) -> Iterator[Drawn]:
    """Draw the chosen images, one by one, under names that are not taken."""
    names = {kind: _names(kind, taken) for kind in KINDS}
    for kind, row in chosen:
        ((_, (small,)),) = maps(np.array([row]))
        large = enlarge(torch.from_numpy(small[None]), maps.size).numpy()[0]
        image, own = maps.rows.iloc[row], boxes.get(row, ())
        drawn = Drawn(
            image_id=image["image_id"],
            label=int(image["label"]),
            probability=float(probabilities[row]),
            kind=kind,
            file=next(names[kind]),
            hit=hit(peak(small), own, maps.size) if own else None,
            energy_share=energy_share(large, own) if own else None,
        )
        title = f"{kind}  ·  label {drawn.label}  ·  probability {drawn.probability:.3f}"
        png = draw_overlay(maps.images(np.array([row]))[0], large, own, title, drawn.image_id)
        write_atomic(folder / drawn.file, png)
        yield drawn


def _names(kind: str, taken: AbstractSet[str]) -> Iterator[str]:
    return (name for number in count(1) if (name := heat_map(kind, number)) not in taken)


def _randomised(maps: Maps, rows: NDArray[np.int64], boxes: dict[int, Corners], config: ExplainConfig) -> Randomised:
    """Compare with a model of random weights, on images that all have boxes or have none."""
    some = rows[:RANDOMISED_IMAGES]
    model = maps.random_model(some, config.seed)
    own = [m for _, batch in maps(some) for m in batch]
    other = [m for _, batch in maps(some, model) for m in batch]
    hits = None
    if some[0] in boxes:
        hits = [hit(peak(m), boxes[row], maps.size) for row, m in zip(some.tolist(), other, strict=True)]
    groups = group_numbers(maps.rows["group"])[some]
    return compare_with_random(own, other, hits, groups, resamples=config.resamples, seed=config.seed)


def _notes(peaks: list[tuple[float, float] | None], drawn: tuple[Drawn, ...], unread: int) -> Iterator[str]:
    yield "A map shows which locations of one layer raised the score; it does not prove why the model decided so."
    if not peaks:
        yield "No image of this split that can be read has a box: the pointing game needs boxes."
    if empty := sum(p is None for p in peaks):
        yield f"{empty} of {len(peaks)} maps of images with boxes are 0 everywhere: they count as misses."
    if unread:
        yield unread_note(unread)
    if not drawn:
        yield "No image was drawn."

"""Files through a model: read by worker processes, and scored part by part meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pneumo_fast.conversion.executors import Submit, local_workers, worker_count
from pneumo_fast.conversion.plan import printable
from pneumo_fast.conversion.task import Task
from pneumo_fast.dataset.npy import Images
from pneumo_fast.dataset.pseudonyms import pseudonym
from pneumo_fast.prediction.dicom_results import DicomResults, Store
from pneumo_fast.prediction.files import File, identify
from pneumo_fast.prediction.model import Model
from pneumo_fast.prediction.options import ScoreOptions
from pneumo_fast.prediction.overlays import Overlays
from pneumo_fast.prediction.reading import LARGEST_PART, SMALLEST_PART, cut, read
from pneumo_fast.prediction.table import Row, columns, score_part, to_rows
from pneumo_fast.radiograph.selection import Selection
from pneumo_fast.vocabulary import NOT_CLINICAL

Save = Callable[[str, bytes], None]
"""Takes the name of an overlay, and the PNG."""


def reading_processes(model: Model, options: ScoreOptions) -> int:
    """How many processes read files for a model."""
    return worker_count(options.workers, uses_gpu=model.decoding_gpu is not None)


def workers_for(model: Model, count: int) -> AbstractContextManager[Submit]:
    """Worker processes that read files, beside a model on its device."""
    return local_workers(count, shares_cores=model.device.type == "cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """What is written of a scored image besides its row of the table."""

    save: Save | None = None
    """What becomes of an overlay."""
    dicom_out: Path | None = None
    """Folder for DICOM objects."""
    store: Store | None = None
    """What sends DICOM objects to a server."""

    @property
    def makes_dicom(self) -> bool:
        """Whether DICOM objects are made."""
        return self.dicom_out is not None or self.store is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """Files to score, cut into parts that become tables one by one."""

    model: Model
    options: ScoreOptions
    files: Sequence[File]
    ids: Sequence[str]
    """Of the files, as they are."""
    shared_paths: frozenset[str]
    """Those that files below several of the given folders have."""
    tasks: Sequence[Task]
    """The parts."""
    selection: Selection
    key: bytes = field(repr=False)
    outputs: Outputs
    keep_ids: bool
    """Whether ids and paths are written as they are."""

    @classmethod
    def of(
        cls,
        model: Model,
        options: ScoreOptions,
        files: Sequence[File],
        work: Path,
        key: bytes,
        outputs: Outputs,
        *,
        keep_ids: bool = False,
    ) -> Scoring:
        """Plan the work; the folder ``work`` is that of the worker processes."""
        known = model.input.preprocessing
        selection = Selection(
            modalities=options.modalities or known.modalities,
            views=options.views or known.views,
            body_parts=options.body_parts or known.body_parts,
        )
        work.mkdir(parents=True, exist_ok=True)
        paths = Counter(file.path for file in files)
        retrieved = any(file.id is not None for file in files)  # the files of several parts lie there at once
        return cls(
            model=model, options=options, files=files, ids=identify(files, options, known),
            shared_paths=frozenset(path for path, count in paths.items() if count > 1),
            tasks=cut(files, model, selection, work.absolute(), key, SMALLEST_PART if retrieved else LARGEST_PART),
            selection=selection, key=key, outputs=outputs, keep_ids=keep_ids,
        )  # fmt: skip

    @property
    def columns(self) -> list[str]:
        """Names of a row's cells, in their order."""
        outputs = {"overlay": self.outputs.save is not None, "dicom": self.outputs.makes_dicom}
        return [*columns(self.model, self.options.thresholds), *(name for name, made in outputs.items() if made)]

    def tables(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Row]]]:
        """The rows of each part, in order."""
        if tasks:
            with workers_for(self.model, min(reading_processes(self.model, self.options), len(tasks))) as submit:
                yield from self.tables_by(submit, tasks)

    def tables_by(self, submit: Submit, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Row]]]:
        """The same, by worker processes that run already."""
        parts = read(tasks, submit, reading_processes(self.model, self.options), self.options.timeout_s)
        self.model.warm_up()  # while the first parts are being read
        overlays = Overlays(self.model) if self.outputs.save or self.outputs.makes_dicom else None
        results = self._dicom_results()
        names = self.columns
        for task, record, stored in parts:
            cells, kept = score_part(self.model, record, stored, self.options)
            for place in kept:
                if overlays is None:
                    break
                number = int(record.images[place]["image_id"])
                cells[number] |= self._show(overlays, results, number, stored[place], cells[number])
            numbers = [int(source.image_id) for source in task.sources]
            yield task, to_rows((self._named(number) | cells[number] for number in numbers), names)

    def _named(self, number: int) -> dict[str, str]:
        """Id and path of a file, as they are to be written."""
        image_id, file = self.ids[number], self.files[number]
        if self.keep_ids:
            return {"image_id": printable(image_id), "path": printable(file.shown)}
        name = file.shown if file.path in self.shared_paths else file.path  # which is the same wherever the folder lies
        path = pseudonym(self.key, "path", printable(name))
        return {"image_id": pseudonym(self.key, "image", image_id), "path": path}

    def _dicom_results(self) -> DicomResults | None:
        if not self.outputs.makes_dicom:
            return None
        outputs, threshold = self.outputs, self.options.thresholds[0]
        return DicomResults(outputs.dicom_out, outputs.store, self.model, threshold, self.key)

    def _show(
        self, overlays: Overlays, results: DicomResults | None, number: int, image: Images, scored: dict[str, Any]
    ) -> dict[str, str]:
        """Draw one image for the folder of overlays and for the PACS; the cells that tell where."""
        title, cells = f"probability {scored['probability']:.3f}", {}
        if self.outputs.save:
            cells["overlay"] = f"{number:07d}.png"
            self.outputs.save(cells["overlay"], overlays.draw(image, title, self._named(number)["image_id"]))
        if results:
            path = Path(self.files[number].full)
            cells["dicom"] = results.write(number, path, scored, overlays.draw(image, title, NOT_CLINICAL))
        return cells

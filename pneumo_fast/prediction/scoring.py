"""Files through a model: read by worker processes, and scored part by part meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.prediction.overlays import Overlays
from pneumo_fast.prediction.reading import LARGEST_PART, SMALLEST_PART, cut, read
from pneumo_fast.prediction.table import Row, columns, score_part, to_rows
from pneumo_fast.radiograph.selection import Selection
from pneumo_fast.vocabulary import NOT_CLINICAL

Save = Callable[[str, bytes], None]
"""Takes the name of an overlay, and the PNG."""


def reading_processes(model: Model, config: PredictConfig) -> int:
    """How many processes read files for a model."""
    return worker_count(config.workers, uses_gpu=model.decoding_gpu is not None)


@contextmanager
def workers_for(model: Model, count: int) -> Iterator[Submit]:
    """Worker processes that read files, beside a model on its device."""
    with local_workers(count, shares_cores=model.device.type == "cpu") as submit:
        yield submit


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """Files to score, cut into parts that become tables one by one."""

    model: Model
    config: PredictConfig
    files: Sequence[File]
    ids: Sequence[str]
    """Of the files, as they are."""
    shared_paths: frozenset[str]
    """Those that files below several of the given folders have."""
    tasks: Sequence[Task]
    """The parts."""
    selection: Selection
    key: bytes = field(repr=False)
    save: Save
    """What becomes of an overlay."""
    store: Store | None
    """What sends DICOM objects to a server."""

    @classmethod
    def of(
        cls,
        model: Model,
        config: PredictConfig,
        files: Sequence[File],
        work: Path,
        key: bytes,
        save: Save,
        store: Store | None = None,
    ) -> Scoring:
        """Plan the work; the folder ``work`` is that of the worker processes."""
        known = model.input.preprocessing
        selection = Selection(
            modalities=config.modalities or known.modalities,
            views=config.views or known.views,
            body_parts=config.body_parts or known.body_parts,
        )
        work.mkdir(parents=True, exist_ok=True)
        paths = Counter(file.path for file in files)
        largest = SMALLEST_PART if config.dicomweb else LARGEST_PART  # the files of several parts lie there at once
        return cls(
            model=model, config=config, files=files, ids=identify(files, config, known),
            shared_paths=frozenset(path for path, count in paths.items() if count > 1),
            tasks=cut(files, model, selection, work.absolute(), key, largest), selection=selection, key=key, save=save,
            store=store,
        )  # fmt: skip

    def tables(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Row]]]:
        """The rows of each part, in order; :func:`~pneumo_fast.prediction.table.columns` names the columns."""
        if tasks:
            with workers_for(self.model, min(reading_processes(self.model, self.config), len(tasks))) as submit:
                yield from self.tables_by(submit, tasks)

    def tables_by(self, submit: Submit, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Row]]]:
        """The same, by worker processes that run already."""
        parts = read(tasks, submit, reading_processes(self.model, self.config), self.config.timeout_s)
        self.model.warm_up()  # while the first parts are being read
        overlays = Overlays(self.model) if self.config.explain or self.config.makes_dicom else None
        results = self._dicom_results()
        names = columns(self.model, self.config)
        for task, record, stored in parts:
            cells, kept = score_part(self.model, record, stored, self.config)
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
        if self.config.keep_ids:
            return {"image_id": printable(image_id), "path": printable(file.shown)}
        name = file.shown if file.path in self.shared_paths else file.path  # which is the same wherever the folder lies
        path = pseudonym(self.key, "path", printable(name))
        return {"image_id": pseudonym(self.key, "image", image_id), "path": path}

    def _dicom_results(self) -> DicomResults | None:
        if not self.config.makes_dicom:
            return None
        return DicomResults(self.config.dicom_out, self.store, self.model, self.config.thresholds[0], self.key)

    def _show(
        self, overlays: Overlays, results: DicomResults | None, number: int, image: Images, scored: dict[str, Any]
    ) -> dict[str, str]:
        """Draw one image for the folder of overlays and for the PACS; the cells that tell where."""
        title, cells = f"probability {scored['probability']:.3f}", {}
        if self.config.explain:
            cells["overlay"] = f"{number:07d}.png"
            self.save(cells["overlay"], overlays.draw(image, title, self._named(number)["image_id"]))
        if results:
            path = Path(self.files[number].full)
            cells["dicom"] = results.write(number, path, scored, overlays.draw(image, title, NOT_CLINICAL))
        return cells

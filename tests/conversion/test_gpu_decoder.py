"""Frames for a GPU, decoded by DALI on the CPU: they become the reader's images, or are left to the reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid

from pneumo_fast.conversion import convert as convert_module
from pneumo_fast.conversion import executors, gpu_decoder
from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.executors import Submit, local_workers, worker_count
from pneumo_fast.conversion.gpu_decoder import DECODED_ON_GPU, PROCESSES, Frame, GpuDecoder
from pneumo_fast.conversion.shard import convert_task
from pneumo_fast.conversion.supervisor import Outcome
from pneumo_fast.conversion.task import NO_FILE, Record, Source, Task
from pneumo_fast.dataset.npy import Images
from pneumo_fast.errors import DeviceError
from pneumo_fast.prediction.reading import take
from pneumo_fast.vocabulary import Decode
from tests.support.conversions import write_input
from tests.support.radiograph_files import jpeg, save

LEVELS = 255
ON_GPU = [
    "plain.dcm", "inverted.dcm", "rescaled.dcm", "tall.dcm", "small.dcm", "rotated_by_exif.dcm",
]  # fmt: skip


def picture(rows: int, columns: int) -> NDArray[np.uint8]:
    """Smooth, bright at the edges, so that what lies beyond them matters."""
    y, x = np.mgrid[0:rows, 0:columns]
    values = 140 + 80 * np.cos(x / 7) * np.sin(y / 11) + 30 * np.cos(x * y / 900)
    clipped: NDArray[np.uint8] = np.clip(values, 0, LEVELS).astype(np.uint8)
    return clipped


def frame(rows: int, columns: int, fit: tuple[int, int]) -> Frame:
    return Frame(jpeg(picture(rows, columns)), (rows, columns), fit)


FRAMES = [
    frame(64, 64, (32, 32)), frame(300, 224, (224, 167)), frame(50, 120, (93, 224)), frame(64, 100, (64, 100)),
    frame(513, 257, (48, 24)), frame(90, 90, (91, 89)),
]  # fmt: skip


@pytest.fixture(scope="module")
def decoder() -> GpuDecoder:
    return GpuDecoder(None)


def test_frames_of_any_size_become_what_the_reader_makes_of_them(decoder: GpuDecoder) -> None:
    images = decoder.decode(FRAMES)
    assert images is not None
    for image, of in zip(images, FRAMES, strict=True):
        assert image.dtype == np.float32
        assert image.shape == of.fit
        np.testing.assert_allclose(image, of.by_cpu(), atol=0.05)


def test_a_damaged_frame_costs_the_batch_and_no_other(decoder: GpuDecoder) -> None:
    damaged = replace(FRAMES[1], encoded=FRAMES[1].encoded[: len(FRAMES[1].encoded) // 2])
    assert decoder.decode([FRAMES[0], damaged]) is None
    assert decoder.decode([damaged, FRAMES[0]]) is None
    assert decoder.decode(FRAMES[:1]) is not None


def test_a_pipeline_that_cannot_be_built_again_leaves_frames_to_the_reader(
    decoder: GpuDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int | None) -> None:
        raise DeviceError("the GPU is lost")

    with monkeypatch.context() as without:
        without.setattr(gpu_decoder, "_pipeline", fail)
        assert decoder.decode([replace(FRAMES[0], encoded=b"")]) is None
        assert decoder.decode(FRAMES[:1]) is None
    assert decoder.decode(FRAMES[:1]) is not None


def test_a_batch_that_begins_with_a_wrong_image_is_not_taken(
    decoder: GpuDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = FRAMES[0].by_cpu()
    apart[5, 7] += gpu_decoder.TOLERANCE + 1
    monkeypatch.setattr(Frame, "by_cpu", lambda _: apart)
    assert decoder.decode(FRAMES[:1]) is None


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Files that a GPU can decode, and files that it cannot."""
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = picture(128, 96)
    baseline: dict[str, Any] = {"syntax": uid.JPEGBaseline8Bit}

    def written(name: str, shown: NDArray[Any] = pixels, encoded: bytes | None = None, **options: Any) -> None:
        save(folder / f"{name}.dcm", shown, frames=[encoded or jpeg(shown)], **baseline | options)

    written("plain")
    written("inverted", photometric="MONOCHROME1")
    written("rescaled", RescaleSlope=2, RescaleIntercept=-7)
    written("tall", picture(256, 128))
    written("small", picture(40, 40))
    turned = Image.Exif()
    turned[0x0112] = 6
    written("rotated_by_exif", encoded=jpeg(pixels, exif=turned))
    written("windowed", WindowCenter=100, WindowWidth=80)
    written("padded", PixelPaddingValue=0)
    written("not_square", PixelAspectRatio=[2, 1])
    written("progressive", encoded=jpeg(pixels, progressive=True))
    written("cut_short", encoded=jpeg(pixels)[:-400])
    written("mismatch", encoded=jpeg(picture(64, 64)))
    save(folder / "uncompressed.dcm", pixels)
    (folder / "rubbish.dcm").write_bytes(b"no radiograph")
    Image.fromarray(pixels).save(folder / "picture.png")
    return folder


@pytest.fixture
def converted(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: GpuDecoder) -> Any:
    """Converts all of them as one task; gives its record, the stored images, and the positions that it told."""
    monkeypatch.setattr(gpu_decoder, "open_decoder", lambda _: decoder)

    def run(decode: Decode, **changes: Any) -> tuple[Record, Images, list[int]]:
        names = sorted(path.name for path in images.iterdir())
        task = Task(
            name=f"train-{decode}", split="train", images=images, out=tmp_path, size=48, dtype="float16",
            sources=tuple(Source(name, name, name, 0) for name in names), layout="shards", decode=decode,
            window="auto", max_pixels=10**6, key=b"", gpu=0 if decode == "gpu" else None,
        )  # fmt: skip
        told: list[int] = []
        record = convert_task(replace(task, **changes), {}, told.append)
        return record, take(task, record), told

    return run


Run = Callable[..., tuple[Record, Images, list[int]]]


def noted(record: Record) -> list[str]:
    return [row["image_id"] for row in record.images if DECODED_ON_GPU in row["notes"].split()]


def test_a_task_becomes_what_it_becomes_on_the_cpu(converted: Run) -> None:
    exact, expected, _ = converted("exact")
    record, found, _ = converted("gpu")
    assert sorted(noted(record)) == sorted(ON_GPU)
    assert record.rejects == exact.rejects
    assert {reject["path"] for reject in record.rejects} == {"cut_short.dcm", "mismatch.dcm", "rubbish.dcm"}
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), atol=0.6 / LEVELS)
    for row, same in zip(record.images, exact.images, strict=True):
        changed = {"notes", "pixel_hash", "shard"}
        assert {k: v for k, v in row.items() if k not in changed} == {k: v for k, v in same.items() if k not in changed}
        assert row["notes"].replace(DECODED_ON_GPU, "").split() == same["notes"].split()


@pytest.mark.parametrize(("name", "most"), [("BATCH", 4), ("BATCH_PIXELS", 2 * 128 * 96), ("BATCH_PIXELS", 1)])
def test_what_does_not_fit_into_a_batch_is_in_the_next(
    converted: Run, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(gpu_decoder, name, most)
    assert sorted(noted(converted("gpu")[0])) == sorted(ON_GPU)


def test_no_file_is_blamed_for_a_batch(converted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies while frames are decoded dies at no file."""
    monkeypatch.setattr(GpuDecoder, "decode", lambda *_: None)
    record, _, told = converted("gpu")
    files = list(range(len(record.images) + len(record.rejects)))
    assert told == [*files, NO_FILE, *files, NO_FILE]


def test_without_a_gpu_the_reader_sees_to_everything(converted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_decoder, "open_decoder", lambda _: None)
    assert np.array_equal(converted("gpu")[1], converted("exact")[1])


def test_convert_says_at_once_that_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_decoder, "has_driver", lambda: False)
    config = write_input(tmp_path)
    with pytest.raises(DeviceError, match=r"finds no NVIDIA driver: use --decode fast or exact"):
        convert(replace(config, decode="gpu"))
    assert not config.out.exists()


def test_convert_says_at_once_that_the_gpu_decodes_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_decoder, "GpuDecoder", lambda _: SimpleNamespace(decode=lambda _: None))
    with pytest.raises(DeviceError, match=r"does not decode JPEG as the CPU does"):
        convert(replace(write_input(tmp_path), decode="gpu"))


def test_the_trial_is_one_that_a_good_decoder_passes(decoder: GpuDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_decoder, "GpuDecoder", lambda _: decoder)
    gpu_decoder.check_gpu(0)


def test_a_gpu_is_shared_by_few_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    for there, uses_gpu, expected in ((True, True, PROCESSES), (True, False, 64), (False, True, 64)):
        monkeypatch.setattr(executors, "has_gpu", lambda found=there: found)
        assert worker_count(None, uses_gpu=uses_gpu) == expected
        assert worker_count(7, uses_gpu=uses_gpu) == 7


def test_a_finished_dataset_needs_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "check_gpu", lambda _: None)
    config = replace(write_input(tmp_path), decode="gpu")
    made = convert(config).manifest
    monkeypatch.undo()
    monkeypatch.setattr(gpu_decoder, "has_driver", lambda: False)
    assert convert(replace(config, resume=True)).manifest == made


def test_a_cluster_may_have_the_gpu_that_this_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks: list[Task] = []

    @contextmanager
    def cluster(_: str) -> Iterator[Submit]:
        def submit(task: Task, timeout_s: float) -> Future[Outcome]:
            tasks.append(task)
            return submit_here(task, timeout_s)

        with local_workers(1) as submit_here:
            yield submit

    monkeypatch.setattr(convert_module, "dask_workers", cluster)
    monkeypatch.setattr(gpu_decoder, "has_driver", lambda: False)
    config = write_input(tmp_path)
    manifest = convert(replace(config, decode="gpu", scheduler="tcp://cluster:8786")).manifest
    assert {task.gpu for task in tasks} == {convert_module.GPU}
    assert manifest.input[DECODED_ON_GPU] == 0  # the worker has none either
    assert manifest.shards == convert(replace(config, decode="exact", out=tmp_path / "exact")).manifest.shards


def test_that_the_cpu_decoded_everything_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(convert_module, "check_gpu", lambda _: None)
    config = write_input(tmp_path)
    convert(replace(config, decode="gpu"))
    assert "the GPU decoded none of the images" in caplog.text
    caplog.clear()
    convert(replace(config, decode="gpu", layout="source", out=tmp_path / "source"))
    assert "GPU" not in caplog.text

"""Decodes JPEG frames on a GPU, by nvJPEG through DALI, and resizes them there, a batch at a time.

It takes what most archives consist of: grey 8-bit JPEG whose pixels may be averaged before the greyscale curve. Every
other file is left to the reader on the CPU. So is a whole batch where DALI fails, or where its first image is not what
the CPU makes of it: each frame is then decoded, or rejected, on its own.
"""

from __future__ import annotations

import ctypes
import io
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo_fast.conversion.task import NO_FILE, Task
from pneumo_fast.errors import DeviceError, RejectedImageError
from pneumo_fast.extras import DALI
from pneumo_fast.radiograph.codestream import decode_grey_jpeg
from pneumo_fast.radiograph.read import Look, Radiograph, look_at, radiograph_of
from pneumo_fast.radiograph.rejection import rejecting
from pneumo_fast.radiograph.resize import kernel_inside, margin, resize
from pneumo_fast.radiograph.selection import Selection
from pneumo_fast.vocabulary import MAX_PIXELS, Window

logger = logging.getLogger(__name__)

PROCESSES: Final = 4
"""Worker processes that share a GPU, where nothing else is asked for: each takes some hundred MB of its memory."""
BATCH: Final = 64
"""Frames that are decoded at once."""
BATCH_PIXELS: Final = 256_000_000
"""Of all frames of a batch: the GPU holds each pixel several times."""
TOLERANCE: Final = 3.0
"""Grey levels of 255 by which an image may differ from what the CPU makes of it."""
DECODED_ON_GPU: Final = "decoded_on_gpu"
"""The note of an image that a GPU decoded."""
END_OF_IMAGE: Final = b"\xff\xd9"
"""What was cut short goes to the CPU, which rejects it: a GPU might fill it up."""
INSTEAD: Final = "use --decode fast or exact"


@dataclass(frozen=True, slots=True)
class Frame:
    """A grey 8-bit JPEG frame, and the size of the image that becomes of it."""

    encoded: bytes
    shape: tuple[int, int]
    """Rows and columns that it declares."""
    fit: tuple[int, int]
    """Height and width of the image."""

    @property
    def margins(self) -> tuple[int, int]:
        """Rows and columns beyond the edge that the kernel of the resize extends to."""
        return margin(self.shape[0], self.fit[0]), margin(self.shape[1], self.fit[1])

    def by_cpu(self) -> NDArray[np.float32]:
        """What the reader makes of it."""
        return resize(decode_grey_jpeg(self.encoded, *self.shape, None), *self.fit)


class GpuDecoder:
    """Decodes and resizes by a pipeline of DALI's.

    Parameters
    ----------
    gpu : int, optional
        Its number among those that ``CUDA_VISIBLE_DEVICES`` lets through. With None DALI decodes on the CPU.

    Raises
    ------
    DeviceError
        If DALI is not installed, or there is no such GPU.
    """

    def __init__(self, gpu: int | None) -> None:
        self._gpu = gpu
        self._pipeline: Any = _pipeline(gpu)

    def decode(self, frames: Sequence[Frame]) -> list[NDArray[np.float32]] | None:
        """Decode up to :data:`BATCH` frames and resize them.

        Returns
        -------
        list of ndarray of float32, shape ``frame.fit``, or None
            Grey levels of 0 to 255. None where DALI cannot decode them all, or decodes the first one wrongly.
        """
        try:
            self._pipeline = self._pipeline or _pipeline(self._gpu)
            images = self._run(frames)
            apart = float(np.abs(images[0] - frames[0].by_cpu()).max())
        except Exception as error:  # noqa: BLE001  # DALI's, or what the CPU raises at a damaged frame
            logger.debug("a batch of frames is left to the CPU: %s", type(error).__name__)
            self._pipeline = None  # it is no longer valid
            return None
        return images if apart <= TOLERANCE else None

    def _run(self, frames: Sequence[Frame]) -> list[NDArray[np.float32]]:
        shape, fit, margins = (
            np.array([getattr(frame, name) for frame in frames], dtype=np.int32) for name in ("shape", "fit", "margins")
        )
        whole = {"begin": -margins, "extent": shape + 2 * margins}
        real = {"fit": fit, "first": margins, "last": margins + shape}
        self._pipeline.feed_input("frame", [np.frombuffer(frame.encoded, dtype=np.uint8) for frame in frames])
        for name, values in (whole | {name: values.astype(np.float32) for name, values in real.items()}).items():
            self._pipeline.feed_input(name, values)
        resized, found = self._pipeline.run()
        if not np.array_equal(found.as_array()[:, :2], shape):
            raise ValueError("DALI finds frames of another size than is declared")
        on_cpu = resized.as_cpu()
        return [on_cpu.at(place)[..., 0] * _factors(frame.shape, frame.fit) for place, frame in enumerate(frames)]


@lru_cache(maxsize=16)
def _factors(shape: tuple[int, int], fit: tuple[int, int]) -> NDArray[np.float32]:
    """One over what lies on the image of each pixel's kernel, shape ``fit``."""
    down, across = (kernel_inside(*pair) for pair in zip(shape, fit, strict=True))
    return (1 / (down[:, None] * across)).astype(np.float32)


def _pipeline(gpu: int | None) -> Any:
    """DALI's operators: decode, put zeros around the image, resize.

    DALI's kernel is that of :mod:`pneumo_fast.radiograph.resize` but at the edge, where it repeats the last pixel. With
    zeros there it can be made the same.
    """
    if gpu is not None and not has_driver():
        raise DeviceError(f"--decode gpu finds no NVIDIA driver: {INSTEAD}")
    try:
        from nvidia.dali import fn, pipeline_def, types  # noqa: PLC0415  # takes a second, and may be missing
    except ImportError as error:
        raise DeviceError(f"NVIDIA DALI cannot be imported ({error}): {DALI.command}, or {INSTEAD}") from error

    def define() -> Any:
        def given(name: str, dtype: Any) -> Any:
            return fn.external_source(name=name, dtype=dtype, ndim=1)

        frame = given("frame", types.UINT8)
        grey = fn.decoders.image(
            frame,
            device="cpu" if gpu is None else "mixed",
            output_type=types.GRAY,
            adjust_orientation=False,  # DICOM has its own ways to say it
            hw_decoder_load=1.0,  # all or none, so that equal frames become equal images
        )
        framed = fn.slice(
            grey,
            start=given("begin", types.INT32),
            shape=given("extent", types.INT32),
            axes=[0, 1],
            out_of_bounds_policy="pad",
            fill_values=0,
        )
        resized = fn.resize(
            framed,
            size=given("fit", types.FLOAT),
            roi_start=given("first", types.FLOAT),
            roi_end=given("last", types.FLOAT),
            interp_type=types.INTERP_LINEAR,
            antialias=True,
            dtype=types.FLOAT,
        )
        return resized, fn.peek_image_shape(frame, adjust_orientation=False)

    pipeline = pipeline_def(batch_size=BATCH, num_threads=1, device_id=gpu, prefetch_queue_depth=1)(define)()
    try:
        pipeline.build()
    except RuntimeError as error:
        raise DeviceError(f"NVIDIA DALI cannot use GPU {gpu}: {INSTEAD}, or see pneumo-fast doctor") from error
    return pipeline


def has_driver() -> bool:
    """Whether NVIDIA's driver is there."""
    return _driver() is not None


def has_gpu() -> bool:
    """Whether the driver lets this process use a GPU."""
    driver, count = _driver(), ctypes.c_int()
    return bool(driver and not driver.cuInit(0) and not driver.cuDeviceGetCount(ctypes.byref(count)) and count.value)


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def check_gpu(gpu: int) -> None:
    """Try a GPU out.

    Raises
    ------
    DeviceError
        If it cannot be used, or does not decode as the CPU does.
    """
    ramp = np.add.outer(np.arange(64, dtype=np.uint8), np.arange(64, dtype=np.uint8))
    encoded = io.BytesIO()
    Image.fromarray(ramp).save(encoded, "JPEG")
    if GpuDecoder(gpu).decode([Frame(encoded.getvalue(), ramp.shape, (32, 32))]) is None:
        raise DeviceError(f"the GPU does not decode JPEG as the CPU does: {INSTEAD}")


@cache
def open_decoder(gpu: int) -> GpuDecoder | None:
    """The decoder of this process on a GPU; None where that cannot be used."""
    with suppress(DeviceError):
        return GpuDecoder(gpu)
    return None


class DecodedAhead:
    """Images of a task that a GPU decodes, a batch of them when the first is asked for.

    Parameters
    ----------
    at : callable
        Called with the position of a source before its file is read, with :data:`NO_FILE` before frames are decoded.
    """

    def __init__(self, task: Task, at: Callable[[int], None]) -> None:
        self._task, self._at = task, at
        self._decoder = open_decoder(task.gpu) if task.gpu is not None and task.pixels else None
        self._ready: dict[int, Radiograph] = {}
        self._next = 0  # the first source of the next batch

    def take(self, position: int) -> Radiograph | None:
        """The image of a source; None where the reader has to see to it. Positions are asked for in their order."""
        if self._decoder is None:
            return None
        if position == self._next:
            self._ready = self._decode(self._decoder)
        return self._ready.pop(position, None)

    def _decode(self, decoder: GpuDecoder) -> dict[int, Radiograph]:
        """Decode a batch of the sources that come next, as many as there is room for."""
        task, pixels = self._task, 0
        opened: dict[int, tuple[Look, Frame]] = {}
        for position in range(self._next, min(self._next + BATCH, len(task.sources))):
            self._at(position)
            with suppress(RejectedImageError):  # the reader will say so
                look, frame = open_for_gpu(
                    task.images / task.sources[position].path, task.size, window=task.window,
                    max_pixels=task.max_pixels, selection=task.selection,
                )  # fmt: skip
                pixels += math.prod(frame.shape)
                if pixels > BATCH_PIXELS and opened:
                    break
                opened[position] = look, frame
            self._next = position + 1
        self._at(NO_FILE)
        images = decoder.decode([frame for _, frame in opened.values()]) if opened else None
        if images is None:
            return {}
        return {
            position: radiograph_of(look, task.size, image, DECODED_ON_GPU)
            for (position, (look, _)), image in zip(opened.items(), images, strict=True)
        }


def open_for_gpu(
    path: Path,
    size: int,
    *,
    window: Window = "auto",
    max_pixels: int = MAX_PIXELS,
    selection: Selection | None = None,
) -> tuple[Look, Frame]:
    """Read a file whose frame a GPU can decode.

    Parameters are those of :func:`~pneumo_fast.radiograph.read.read_radiograph`.

    Raises
    ------
    RejectedImageError
        If it is none.
    """
    look = look_at(path, size, window=window, max_pixels=max_pixels, selection=selection)
    with rejecting("corrupt", "the compressed frame cannot be found"):
        encoded = look.linear_jpeg() if look else None
    if look is None or encoded is None or not encoded[-8:].rstrip(b"\0").endswith(END_OF_IMAGE):
        raise RejectedImageError("unsupported", "no whole frame of grey 8-bit JPEG")
    return look, Frame(encoded, (look.form.rows, look.form.columns), look.fit)

"""What conversion is measured against: the bare decoder and the reference approach, each in processes of its own.

    python -m benchmarks.rivals decode
    python -m benchmarks.rivals reference FOLDER SIZE [PLUGIN]

A process takes its paths from standard input as one line of JSON, imports and reads ahead what is not to be timed,
says ``ready``, and works when it gets another line; so that :func:`run_rivals` reads one clock for all of them.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

ROOT = Path(__file__).resolve().parents[1]


def run_rivals(work: Sequence[str], paths: Sequence[str], processes: int, environment: dict[str, str]) -> float:
    """Seconds from the word "go" until the last process is done; starting and importing are left out.

    Raises
    ------
    RuntimeError
        If a process fails; what it said is on standard error.
    """
    command = [sys.executable, "-m", "benchmarks.rivals", *work]
    with ExitStack() as stack:
        pipes: list[tuple[IO[str], IO[str]]] = []
        for part in filter(None, (paths[start::processes] for start in range(processes))):
            process = stack.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
                )
            )
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("a process has no pipes")
            pipes.append((process.stdin, process.stdout))
            _say(process.stdin, json.dumps(part))
        for _, answers in pipes:
            _expect(answers, "ready")
        begin = time.perf_counter()
        for orders, _ in pipes:
            _say(orders, "go")
        for _, answers in pipes:
            _expect(answers, "done")
        return time.perf_counter() - begin


def _say(pipe: IO[str], line: str) -> None:
    pipe.write(line + "\n")
    pipe.flush()


def _expect(pipe: IO[str], word: str) -> None:
    if (line := pipe.readline().strip()) != word:
        raise RuntimeError(f"a measured process said {line!r} in the place of {word!r}: see what it wrote above")


def main() -> None:
    """One process: prepare, wait for the word, work."""
    paths = json.loads(sys.stdin.readline())
    work = _decoding(paths) if sys.argv[1] == "decode" else _reference(paths, *sys.argv[2:])
    _say(sys.stdout, "ready")
    if sys.stdin.readline():  # else whoever started this is gone
        work()
        _say(sys.stdout, "done")


def _decoding(paths: list[str]) -> Callable[[], None]:
    """Decode frames that are in memory already, in full."""
    frames = [get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1) for path in paths]

    def work() -> None:
        for frame in frames:
            Image.open(io.BytesIO(frame), formats=["JPEG"]).load()

    return work


def _reference(paths: list[str], folder: str, size: str, plugin: str = "") -> Callable[[], None]:
    """Read, scale, resize and save one image after the other; the decoder has been loaded by a first one."""
    reference_image(paths[0], int(size), plugin)

    def work() -> None:
        for path in paths:
            np.save(Path(folder, Path(path).stem), reference_image(path, int(size), plugin))

    return work


def reference_image(path: str, size: int, plugin: str = "") -> NDArray[np.float16]:
    """What the common write-ups do: pydicom's array, over 255, resized.

    Parameters
    ----------
    plugin : str
        The decoding plugin that pydicom has to use; its own choice if empty.

    Returns
    -------
    ndarray of float16, shape (size, size), in [0, 1]
    """
    header = pydicom.dcmread(path)
    if plugin:
        header.pixel_array_options(decoding_plugin=plugin)
    unit: NDArray[np.float32] = np.divide(header.pixel_array, np.float32(255))
    return bilinear(unit, size).astype(np.float16)


def bilinear(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Plain bilinear resize as OpenCV's: four input pixels count for each output pixel, and all others not at all.

    Pillow's ``resize`` would average over them; its affine transform does not, and takes less time than NumPy.
    """
    rows, columns = image.shape
    matrix = (columns / size, 0, 0, 0, rows / size, 0)
    small = Image.fromarray(image).transform(
        (size, size), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR
    )
    return np.asarray(small)


def chosen_plugin(path: Path) -> str:
    """The plugin that pydicom decodes a file with when it is not told which: the first, in its order, that can.

    pydicom tells nobody, so this does what its ``pixel_array`` does, and looks.
    """
    header = pydicom.dcmread(path)
    syntax = header.file_meta.TransferSyntaxUID
    runner = DecodeRunner(syntax)
    runner.set_source(header)
    runner.set_options()
    plugins: Any = get_decoder(syntax)._validate_plugins()
    runner.set_decoders(plugins)
    runner.decode(0)
    return runner._previous[0]


if __name__ == "__main__":
    main()

"""By how much radiographs that were decoded in another way differ from those that the CPU decodes in full.

    python benchmarks/decode_difference.py [--decode fast|gpu|dali] [--size SIZE] [--every N] FOLDER...

reads the DICOM files below the folders, 8-bit JPEG, and prints one line of JSON: in grey levels of 255, over all images
the mean, and of each image's 99.9th percentile and largest difference the median, the 95th percentile and the maximum.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from pneumo_fast.conversion.gpu_decoder import DECODED_ON_GPU, GpuDecoder, open_for_gpu
from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.read import Radiograph, radiograph_of, read_radiograph

READERS: Final = {"gpu": 0, "dali": None}


Read = Callable[[Path, int], Radiograph]


def by_dali(gpu: int | None) -> Read:
    """Reads files that a GPU can decode, by a GPU or by DALI on the CPU; RejectedImageError for others."""
    decoder = GpuDecoder(gpu)

    def read(path: Path, size: int) -> Radiograph:
        look, frame = open_for_gpu(path, size)
        images = decoder.decode([frame])
        if images is None:
            raise RejectedImageError("unsupported", "DALI cannot decode the frame, or decodes it wrongly")
        return radiograph_of(look, size, images[0], DECODED_ON_GPU)

    return read


def differences(path: Path, size: int, read: Read) -> tuple[float, float, float]:
    """Mean, 99.9th percentile and maximum of one image, in grey levels of 255."""
    found = read(path, size).pixels.astype(np.float64)
    levels = 255.0 * np.abs(found - read_radiograph(path, size, decode_mode="exact").pixels)
    return float(levels.mean()), float(np.percentile(levels, 99.9)), float(levels.max())


def main() -> None:
    """Measure every file that can be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--decode", choices=("fast", "gpu", "dali"), default="fast", help="dali: DALI on the CPU")
    parser.add_argument("--size", type=int, default=224, help="side of the stored image, in pixels")
    parser.add_argument("--every", type=int, default=1, help="take the first of every N files")
    given, found = parser.parse_args(), []
    read = partial(read_radiograph, decode_mode="fast") if given.decode == "fast" else by_dali(READERS[given.decode])
    for path in sorted(path for folder in given.folders for path in folder.rglob("*.dcm"))[:: given.every]:
        try:
            found.append(differences(path, given.size, read))
        except RejectedImageError as error:
            sys.stderr.write(f"{path.name}: {error}\n")
    mean, high, largest = np.array(found).T
    spread = {"median": 50, "95th percentile": 95, "maximum": 100}
    summary: dict[str, Any] = {
        "decode": given.decode,
        "images": len(found),
        "size": given.size,
        "mean": round(float(mean.mean()), 3),
    }
    for name, values in (("99.9th percentile of an image", high), ("largest of an image", largest)):
        summary[name] = {label: round(float(np.percentile(values, at)), 2) for label, at in spread.items()}
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()

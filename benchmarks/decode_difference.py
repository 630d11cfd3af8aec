"""By how much radiographs that were decoded at reduced scale differ from those decoded whole.

    python benchmarks/decode_difference.py [--size SIZE] [--every N] FOLDER...

reads the DICOM files below the folders, 8-bit JPEG, and prints one line of JSON: in grey levels of 255, over all images
the mean, and of each image's 99.9th percentile and largest difference the median, the 95th percentile and the maximum.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.read import read_radiograph


def differences(path: Path, size: int) -> tuple[float, float, float]:
    """Mean, 99.9th percentile and maximum of one image, in grey levels of 255."""
    fast = read_radiograph(path, size, decode_mode="fast").pixels.astype(np.float64)
    levels = 255.0 * np.abs(fast - read_radiograph(path, size, decode_mode="exact").pixels)
    return float(levels.mean()), float(np.percentile(levels, 99.9)), float(levels.max())


def main() -> None:
    """Measure every file that can be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--size", type=int, default=224, help="side of the stored image, in pixels")
    parser.add_argument("--every", type=int, default=1, help="take the first of every N files")
    given, found = parser.parse_args(), []
    for path in sorted(path for folder in given.folders for path in folder.rglob("*.dcm"))[:: given.every]:
        try:
            found.append(differences(path, given.size))
        except RejectedImageError as error:
            sys.stderr.write(f"{path.name}: {error}\n")
    mean, high, largest = np.array(found).T
    spread = {"median": 50, "95th percentile": 95, "maximum": 100}
    summary: dict[str, Any] = {"images": len(found), "size": given.size, "mean": round(float(mean.mean()), 3)}
    for name, values in (("99.9th percentile of an image", high), ("largest of an image", largest)):
        summary[name] = {label: round(float(np.percentile(values, at)), 2) for label, at in spread.items()}
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()

"""A rehearsal with very many images: how long the steps take that grow with their number, and how much memory.

    python benchmarks/rehearse_large.py --images 1000000 --out FILE.json

Every image is a small DICOM file of its own (32 x 32 pixels of noise), so that next to nothing is decoded: what is
measured is finding files, matching them with the label table, splitting by patient, reading headers, writing tables
and opening them. Each step is one command in a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import surroundings
from pneumo_fast.phantoms.dicom_file import write_dicom

SIDE: Final = 32  # pixels, the fewest that are read
NUMBER: Final = "1.2.3.1000000000"  # SOP Instance UID of the file that the others are copies of
IN_FOLDER: Final = 1000
IMAGES_OF_A_PATIENT: Final = 3


def main() -> None:
    """Rehearse, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="how many (100000)")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    arguments = parser.parse_args()
    out = arguments.out.absolute() if arguments.out else None
    with tempfile.TemporaryDirectory(prefix="pneumo-fast-rehearsal-") as temporary:
        os.chdir(temporary)
        os.environ["XDG_CONFIG_HOME"] = temporary
        make(Path("images"), Path("labels.csv"), arguments.images)
        convert = ["convert", "images", "labels.csv", "--group-column", "patient", "--size", str(SIDE)]
        steps = {
            "convert": convert,
            "plan": [*convert, "--resume"],  # and then there is nothing left to do
            "verify": ["verify", "dataset"],
            "train on 64 images": ["train", "--limit-images", "64", "--epochs", "1", "--loader", "dali"],
        }
        found = {name: run([*step, "--quiet"]) for name, step in steps.items()}
        index = Path("dataset/index.csv").stat().st_size
    text = json.dumps(
        {"surroundings": surroundings(), "images": arguments.images, "steps": found, "index_bytes": index}
    )
    print(text)
    if out:
        out.write_text(text + "\n")


def make(images: Path, labels: Path, count: int) -> None:
    """Write the files, each with pixels and a UID of its own, and the label table in another order."""
    random = np.random.default_rng(0)
    marks = np.full((SIDE, SIDE), ord("@"), np.uint8)
    write_dicom(Path("one.dcm"), marks, transfer_syntax="1.2.840.10008.1.2.1", SOPInstanceUID=NUMBER)
    start, end = Path("one.dcm").read_bytes().split(marks.tobytes())
    rows, patients = [], 1 + count // IMAGES_OF_A_PATIENT
    for number in range(count):
        folder = images / f"{number // IN_FOLDER:05d}"
        if number % IN_FOLDER == 0:
            folder.mkdir(parents=True)
        image_id = str(uuid.UUID(bytes=random.bytes(16)))
        head = start.replace(NUMBER.encode(), f"1.2.3.1{number:09d}".encode())
        (folder / f"{image_id}.dcm").write_bytes(head + random.bytes(SIDE * SIDE) + end)
        rows.append((image_id, int(random.random() < 0.225), f"P{random.integers(patients):08d}"))
    random.shuffle(rows)
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows([("patientId", "Target", "patient"), *rows])


def run(command: list[str]) -> dict[str, float]:
    """Run one command; seconds from its start to its end, and the most memory that its main process had."""
    begin, before, peak = time.perf_counter(), os.times(), 0.0
    process = subprocess.Popen([sys.executable, "-m", "pneumo_fast", *command], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, peak_gigabytes(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    seconds = time.perf_counter() - begin
    return {"seconds": round(seconds, 1), "processor_seconds": round(used, 1), "peak_gigabytes": round(peak, 2)}


def peak_gigabytes(process: int) -> float:
    """Largest resident set of a process so far; 0 where it has ended."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(found[1]) / 1e6 if (found := re.search(r"VmHWM:\s*(\d+) kB", status)) else 0.0


if __name__ == "__main__":
    main()

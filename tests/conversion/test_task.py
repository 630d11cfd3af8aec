"""What a conversion costs beside its work: memory of a worker, and time to start; and what a task shows of itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pneumo_fast.conversion.task import Source, Task
from pneumo_fast.phantoms.dicom_file import write_dicom

SIDE, STORED, ROWS = 1024, 384, 96
SHARD_BYTES = ROWS * STORED * STORED * 2
IMAGE_BYTES = SIDE * SIDE * 4  # in float32, as which it is resized
MARGIN_BYTES = 8 << 20

PROGRAM = """
import re, sys
from pathlib import Path
from pneumo_fast.conversion.shard import convert_task
from pneumo_fast.conversion.task import Source, Task
from pneumo_fast.radiograph import full_header, pixels  # what files that are no JPEG import when the first one comes

def peak():  # ru_maxrss begins with the memory of the process that started this one
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])

def shard(name, rows):
    return Task(
        name=name, split="train", images=Path(sys.argv[1]), out=Path(sys.argv[2]), size=int(sys.argv[3]),
        sources=tuple(Source(image_id=f"{name}-{i}", path="image.dcm", shown_path="", label=0) for i in range(rows)),
        dtype="float16", layout="shards", decode="exact", window="auto", max_pixels=10**8, key=b"",
    )

print(peak())
convert_task(shard("warm", 1), {}, lambda position: None)
print(peak())
for number in range(3):
    convert_task(shard(f"train-{number}", int(sys.argv[4])), {}, lambda position: None)
    print(peak())
"""


def test_memory_of_a_worker_is_one_image(tmp_path: Path) -> None:
    """The peak after one small shard holds an image already; large shards add nothing, however many they are."""
    (tmp_path / "out" / ".convert").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 4096, (SIDE, SIDE), dtype=np.uint16)
    write_dicom(tmp_path / "image.dcm", pixels, transfer_syntax="1.2.840.10008.1.2.1", BitsStored=12, HighBit=11)
    arguments = [str(tmp_path), str(tmp_path / "out"), str(STORED), str(ROWS)]

    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)

    idle, small, *large = map(int, done.stdout.split())
    assert small - idle <= 4 * IMAGE_BYTES + MARGIN_BYTES
    assert large[-1] - small <= MARGIN_BYTES < SHARD_BYTES


def test_a_worker_imports_next_to_nothing() -> None:
    """Each of these takes longer to import than all that a worker needs, and there is one worker for every core."""
    names = "{'pandas', 'torch', 'numba', 'pydicom'}"
    program = f"import sys, pneumo_fast.conversion.task; print(*{names} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


def test_logs_of_a_cluster_show_no_file_names() -> None:
    source = Source(image_id="an-id", path="a-name.dcm", shown_path="a-pseudonym", label=0)
    task = Task(
        name="train-00000", split="train", images=Path("images"), out=Path("out"), sources=(source,), size=32,
        dtype="float16", layout="shards", decode="fast", window="auto", max_pixels=10**6, key=b"secret",
    )  # fmt: skip
    assert "a-name" not in f"{task!r}{source!r}"
    assert "secret" not in repr(task)


@pytest.mark.slow  # a figure of time, so not for machines that are busy with other things
def test_one_image_is_converted_within_two_seconds(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (1024, 1024), dtype=np.uint8)
    write_dicom(tmp_path / "images" / "a.dcm", pixels)
    (tmp_path / "labels.csv").write_text("patientId,Target\na,0\n")
    command = [sys.executable, "-m", "pneumo_fast", "convert", *(str(tmp_path / n) for n in ("images", "labels.csv"))]
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run([*command, str(tmp_path / "out"), "--val-fraction", "0"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - begin)
        shutil.rmtree(tmp_path / "out")
    assert sorted(seconds)[2] < 2.0, seconds

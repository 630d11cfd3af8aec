"""One contender in a process of its own, and what is measured of it.

python -m benchmarks.serve STORED.pickle NAME DEVICE BATCH_SIZE SETTING     (for benchmarks/processes.py)
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import Make
from benchmarks.inputs import Stored
from benchmarks.loaders import OWN
from benchmarks.peers import PEERS

EVERY_BATCHES = 8  # in an epoch off the clock, between two looks at the memory


class Child:
    """The contender in this process, and what is asked of it."""

    def __init__(
        self, stored: Stored, make: Make, device: torch.device, batch_size: int, cold: str = "", **setting: Any
    ) -> None:
        """Begin; with ``cold``, after the files below that folder have been evicted from the page cache."""
        self.stored, self.device = stored, device
        self.expected = len(stored.folder.index)
        if cold:
            evict(Path(cold))
        begin = time.perf_counter()
        self.epochs = make(stored, device, batch_size, **setting)
        if cold:
            self.cold_rate = self.run(warm=False)["images"] / (time.perf_counter() - begin)
        else:
            self.first_batch_s = self._look(begin)

    def _look(self, begin: float) -> float:
        """Go through one epoch; check that the batches are what was asked for; seconds to the first of them."""
        first, count, total = 0.0, 0, 0.0
        self.peak_pss = 0
        for number, (images, labels) in enumerate(next(self.epochs)):
            first = first or time.perf_counter() - begin
            size = self.stored.folder.size
            kinds = images.dtype == labels.dtype == torch.float32 and images.device.type == self.device.type
            if not kinds or images.shape != (len(labels), 1, size, size) or labels.shape != (len(labels),):
                raise RuntimeError(f"{images.dtype} {tuple(images.shape)}, {labels.dtype} {tuple(labels.shape)}")
            count, total = count + len(labels), total + float(images.sum(dtype=torch.float64))
            if number % EVERY_BATCHES == 0:
                self.peak_pss = max(self.peak_pss, sum(map(_pss, family())))
        if count != self.expected:
            raise RuntimeError(f"an epoch had {count} images, {self.expected} expected")
        mean = total / (count * self.stored.folder.size**2)
        if abs(mean - self.stored.mean_normalized) > 1e-3:
            raise RuntimeError(f"the images' mean is {mean}, {self.stored.mean_normalized} expected")
        return first

    def run(self, *, least_s: float = 0.0, step_s: float = 0.0, warm: bool = True) -> dict[str, float]:
        """Whole epochs until so many seconds have passed, each batch followed by a step of ``step_s`` seconds.

        With ``warm`` after one off the clock: between two turns a system may take the files out of its page cache.
        """
        for batch, _labels in next(self.epochs) if warm else ():
            del batch
        batches, images, seconds, stepped_s, spent = 0, 0, 0.0, 0.0, cpu_seconds()
        begin = time.perf_counter()
        while not images or seconds < least_s:
            for batch, labels in next(self.epochs):
                images, batches = images + len(labels), batches + 1
                if step_s:
                    step_began = time.perf_counter()
                    time.sleep(step_s)
                    stepped_s += time.perf_counter() - step_began
                del batch
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds = time.perf_counter() - begin
        spent = cpu_seconds() - spent
        return {"images": images, "batches": batches, "seconds": seconds, "stepped_s": stepped_s, "cpu_s": spent}

    def rows(self, *, epochs: int) -> list[list[list[int]]]:
        """The rows of each epoch's batches, of images that carry them (:func:`benchmarks.inputs.store_numbered`)."""
        mean, std = self.stored.folder.mean, self.stored.folder.std
        found: list[list[list[int]]] = []
        for _ in range(epochs):
            found.append([])
            for images, _labels in next(self.epochs):
                digits = torch.round((images[:, 0, 0, :3].cpu() * std + mean) * 32).to(torch.int64)
                found[-1].append((digits[:, 0] * 1024 + digits[:, 1] * 32 + digits[:, 2]).tolist())
        return found


def evict(folder: Path) -> None:
    """Ask the system to forget the contents of all files below a folder."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def family() -> list[int]:
    """Process ids of this process and all below it."""
    found = [os.getpid()]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def _pss(process: int) -> int:
    """Proportional set size in bytes."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * int(text.split("Pss:")[1].split()[0])


def cpu_seconds() -> float:
    """Processor time of this process and all below it."""
    ticks = 0
    for process in family():
        try:
            values = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(values[11]) + int(values[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Serve: a line of JSON in, a call and its arguments; a line of JSON out, its result or the error."""
    path, name, device, batch_size, setting = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not pass for an answer
    with open(path, "rb") as file:  # noqa: PTH123
        stored = pickle.load(file)  # noqa: S301  # from processes.py, which started us
    child, request = None, ""
    make = OWN.get(name) or PEERS[name].make
    try:
        child = Child(stored, make, torch.device(device), int(batch_size), **json.loads(setting))
        about = {name: getattr(child, name, None) for name in ("first_batch_s", "peak_pss", "cold_rate")}
        print(json.dumps(about), file=answers, flush=True)
        for request in sys.stdin:
            call, arguments = json.loads(request)
            print(json.dumps(getattr(child, call)(**arguments)), file=answers, flush=True)
    except Exception as error:  # noqa: BLE001  # a peer may fail in any way; the others go on
        print(json.dumps({"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}), file=answers)
        answers.flush()
    finally:
        if child is not None:
            with closing(child.epochs):
                pass


if __name__ == "__main__":
    main()

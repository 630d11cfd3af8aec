"""Attacks, drawn at random: each spoils a world in one way and names the command that is to meet it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from typing import Any, Final

import pydicom
import torch
from pydicom.datadict import dictionary_VR

from tests.faults.world import TRAIN, World

Command = tuple[str, ...]

EVALUATE: Final = ("evaluate", "run", "--resamples", "100", "--device", "cpu")
EXPLAIN: Final = ("explain", "run", "--count", "1", "--resamples", "100", "--device", "cpu")
REPORT: Final = ("report", "run")
VERIFY: Final = ("verify", "dataset")
SHOW: Final = ("show", "dataset", "--out", "sheet.png", "--count", "4")
RESUME: Final = (*TRAIN, "--epochs", "2", "--resume")
REPEAT: Final = ("train", "--config", "run/config.json", "--out", "again", "--device", "cpu")
READERS: Final = {
    "run/best.pt": (EVALUATE, EXPLAIN),
    "run/last.pt": (RESUME,),
    "run/config.json": (REPEAT, REPORT, EVALUATE),
    "run/history.jsonl": (REPORT,),
    "run/operating.json": (REPORT, EVALUATE, EXPLAIN),
    "run/eval/dataset-val/metrics.json": (REPORT,),
    "run/eval/dataset-val/predictions.csv": (REPORT,),
    "run/explain/explain.json": (REPORT,),
    "dataset/manifest.json": (VERIFY, EVALUATE, SHOW, RESUME, REPORT),
    "dataset/index.csv": (VERIFY, EVALUATE, SHOW, RESUME),
    "dataset/val-00000.npy": (VERIFY, EVALUATE, SHOW),
    "dataset/train-00000.npy": (VERIFY, SHOW, RESUME),
}
"""Files that somebody else may have made or changed, and the commands that read them."""
MARKUP: Final = "\x1b[31m[/x]<img src=x onerror=alert(1)>|`*_"


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def odd_value(rng: random.Random) -> Any:
    """A value that is expected nowhere."""
    return rng.choice((
        None, True, -1, 0, 3, 2.5, 1e308, float("nan"), float("-inf"), 10**40, "", "text", MARKUP, "x" * 5000,
        "../../x", [], {}, [[]], {"": {}}, [None], deep(60),
    ))  # fmt: skip


def odd_tensor(rng: random.Random) -> Any:
    return rng.choice((
        torch.zeros(0), torch.full((3,), torch.nan), torch.ones(2, 3, 5), torch.tensor(7),
        torch.ones(4, dtype=torch.complex64), torch.ones(2, dtype=torch.int8), torch.tensor([True]),
    ))  # fmt: skip


def tampered(content: Any, rng: random.Random, odd: Callable[[random.Random], Any]) -> Any:
    """The content with one value changed, taken away or put in, anywhere in it."""
    if rng.random() < 0.03:
        return odd(rng)
    spot = content
    while True:
        inside = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        if not inside:
            if isinstance(spot, dict):
                spot["odd"] = odd(rng)
            else:
                spot.append(odd(rng))
            return content
        key = rng.choice(inside)
        if isinstance(spot[key], tuple):
            spot[key] = list(spot[key])
        if isinstance(spot[key], dict | list) and rng.random() < 0.8:
            spot = spot[key]
            continue
        match rng.choice(("change", "change", "change", "drop", "add")):
            case "change":
                spot[key] = odd(rng)
            case "drop":
                del spot[key]
            case "add" if isinstance(spot, dict):
                spot[rng.choice(("odd", MARKUP, 7))] = odd(rng)
            case _:
                spot.append(odd(rng))
        return content


def tamper_json(world: World, rng: random.Random) -> Command:
    name = rng.choice([name for name in READERS if name.endswith("json")])
    path = world.folder / name
    path.write_text(json.dumps(tampered(json.loads(path.read_text()), rng, odd_value)))
    return rng.choice(READERS[name])


def tamper_checkpoint(world: World, rng: random.Random) -> Command:
    name = rng.choice(("run/best.pt", "run/last.pt"))
    path = world.folder / name

    def odd(rng: random.Random) -> Any:
        return odd_tensor(rng) if rng.random() < 0.4 else odd_value(rng)

    content = tampered(torch.load(path, weights_only=True), rng, odd)
    torch.save(content, path)
    return rng.choice(READERS[name])


def spoil_text(world: World, rng: random.Random) -> Command:
    """Cells, lines and bytes of what is read as text."""
    name = rng.choice([name for name in READERS if not name.endswith((".pt", ".npy"))])
    path = world.folder / name
    data = path.read_bytes()
    lines = data.split(b"\n")
    row = rng.randrange(len(lines))
    match rng.choice(("cell", "cell", "line", "twice", "bytes", "cut", "nothing", "nul", "deep")):
        case "cell":
            cells = lines[row].split(b",")
            cells[rng.randrange(len(cells))] = str(odd_value(rng)).encode()[:5000]
            lines[row] = b",".join(cells)
        case "line":
            del lines[row]
        case "twice":
            lines.insert(row, lines[row])
        case "bytes":
            lines[row] = rng.randbytes(20)
        case "cut":
            lines = lines[:row]
        case "nothing":
            lines = []
        case "nul":
            lines = [b"\0" * len(data)]
        case "deep":
            lines = [b"[" * 200_000]
    path.write_bytes(b"\n".join(lines))
    return rng.choice(READERS[name])


def spoil_bytes(world: World, rng: random.Random) -> Command:
    """Bits and lengths of what is read as bytes."""
    name = rng.choice(list(READERS))
    path = world.folder / name
    data = bytearray(path.read_bytes())
    match rng.choice(("flip", "cut", "more", "zeros")):
        case "flip":
            for _ in range(rng.choice((1, 8, 64))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "cut":
            del data[rng.randrange(len(data)) :]
        case "more":
            data += rng.randbytes(rng.choice((1, 4096)))
        case "zeros":
            data = bytearray(len(data))
    path.write_bytes(data)
    return rng.choice(READERS[name])


def put_special_file(world: World, rng: random.Random) -> Command:
    """A pipe, a device, a folder, a link to itself or a file without end under the name of ours."""
    image = f"images/{min(path.name for path in (world.folder / 'images').iterdir())}"
    name = rng.choice([*READERS, "labels.csv", image, "weights.pt"])
    path = world.folder / name
    if path.exists():
        path.unlink()
    match rng.choice(("pipe", "zero", "folder", "loop", "huge", "gone", "memory")):
        case "pipe":
            os.mkfifo(path)
        case "zero":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case "gone":
            pass
        case "memory":
            path.symlink_to("/proc/self/mem")
    train = (*TRAIN[:3], "new", *TRAIN[4:], "--epochs", "1", "--weights", "weights.pt")
    readers = {"labels.csv": (CONVERT,), image: (CONVERT,), "weights.pt": (train,)}
    return rng.choice((READERS | readers)[name])


def write_hostile_images(world: World, rng: random.Random) -> Command:
    """Numbers in image headers that may stand there one by one, or must not."""
    for path in rng.sample(sorted((world.folder / "images").iterdir()), 20):
        header = pydicom.dcmread(path)
        for keyword in rng.sample(list(HOSTILE), rng.choice((1, 2, 4))):
            vr = "US" if keyword == "PixelPaddingValue" else dictionary_VR(keyword)
            header.add_new(keyword, vr, rng.choice(HOSTILE[keyword]))
        header.save_as(path)
    return (*CONVERT, "--max-rejects", "1.0", "--dtype", rng.choice(("float16", "uint8")))


def forge_table(world: World, rng: random.Random) -> Command:
    """A cell of a table, whose checksum the manifest is given anew."""
    folder, name = world.folder / "dataset", rng.choice(("index.csv", "index.csv", "boxes.csv"))
    lines = (folder / name).read_text().splitlines()
    row = rng.randrange(len(lines))
    cells = lines[row].split(",")
    cells[rng.randrange(len(cells))] = str(odd_value(rng))
    lines[row] = ",".join(cells)
    (folder / name).write_text("\n".join(lines) + "\n")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tables"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return rng.choice(READERS["dataset/index.csv"])


def overwrite_what_is_not_ours(_world: World, rng: random.Random) -> Command:
    """Folders whose files have our names."""
    train = ("train", "dataset", "--out", "theirs", "--overwrite", "--device", "cpu")
    convert = ("convert", "images", "labels.csv", "theirs", "--overwrite", "--workers", "1")
    return rng.choice((train, convert, ("evaluate", "theirs"), ("report", "theirs"), ("verify", "theirs")))


def name_with_markup(world: World, rng: random.Random) -> Command:
    """A run whose folder's name is markup and control characters."""
    odd = MARKUP.replace("/", "")
    shutil.copytree(world.folder / "run", world.folder / odd)
    evaluate, explain = (EVALUATE[0], odd, *EVALUATE[2:]), (EXPLAIN[0], odd, *EXPLAIN[2:])
    train = (*TRAIN[:3], odd, *TRAIN[4:])
    return rng.choice((evaluate, explain, train, ("report", odd), ("evaluate", "gone" + odd), ("verify", odd)))


CONVERT: Final = ("convert", "images", "labels.csv", "other", "--size", "32", "--workers", "1", "--timeout-s", "5")
HOSTILE: Final[dict[str, tuple[Any, ...]]] = {
    "RescaleSlope": ("1e-20", "1e308", "-1e-300", "0", "-1", "1e10"),
    "RescaleIntercept": ("1000", "-1e308", "1e20", "0"),
    "WindowCenter": ("600", "-1e30", "1e-30", "127.5", ["1", "2"]),
    "WindowWidth": ("1000", "1e-30", "0", "-5", "1", "1e308", ["1", "2"]),
    "PixelPaddingValue": (0, 255, 128, 65535),
    "PixelSpacing": (["0.2", "0.1"], ["0.1", "9"], ["0", "0"], ["0.1", "0.3"]),
    "PixelAspectRatio": (["4", "3"], ["0", "1"], ["1", "100"]),
    "PixelRepresentation": (0, 1, 7),
    "BitsStored": (1, 7, 8, 16, 0),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "PALETTE COLOR", "MONOCHROME"),
}
"""Attributes of an image, and what may stand in them."""
ATTACKS: Final[tuple[Callable[[World, random.Random], Command], ...]] = (
    tamper_json, tamper_checkpoint, spoil_text, spoil_bytes, forge_table, put_special_file, write_hostile_images,
    overwrite_what_is_not_ours, name_with_markup,
)  # fmt: skip

"""Options of ``convert``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pneumo_fast.configuration import Option, check, check_resume
from pneumo_fast.errors import ConfigError
from pneumo_fast.vocabulary import (
    LARGEST_SIZE,
    MAX_PIXELS,
    WANTED_BODY_PARTS,
    WANTED_MODALITIES,
    WANTED_VIEWS,
    BodyPart,
    Decode,
    Dtype,
    Layout,
    Match,
    Modality,
    View,
    Window,
)

DIGEST = "input_digest"  # of what is in the files, wherever they lie
COUNT_OR_SHARE = "a count of at least 0, or a share from 0.0 to 1.0"


def most_rejects(allowed: int | float, total: int) -> int:
    """How many of so many files may be rejected, by a count or a share of them."""
    if isinstance(allowed, int):
        return allowed
    return math.floor(allowed * total * (1 + 1e-12))  # or 0.29 of 100, which is 28.999... in binary, would be 28


def check_rejects(allowed: int | float) -> None:
    """Refuse a share above 1 of files that may be rejected; ConfigError."""
    if isinstance(allowed, float) and allowed > 1:
        raise ConfigError(f"max-rejects {allowed}: {COUNT_OR_SHARE} expected")


LabelColumn = Annotated[str, Option("Column with the label.", "0 or 1, unless values are named.")]
Negative = Annotated[tuple[str, ...], Option("Label that is negative; may be repeated.", default="0")]
GroupColumn = Annotated[str | None, Option("Column with the patient.")]
Timeout = Annotated[
    float,
    Option("Seconds that reading one file may take.", above=0, below=math.inf, unit="seconds", decides=False),
]
Groups = Annotated[Path | None, Option("RSNA's mapping file (JSON): the patient of each image.", recorded=DIGEST)]
HashKey = Annotated[
    Path | None, Option("Key file for pseudonyms.", default="in your configuration folder", recorded=DIGEST)
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """What to convert and how."""

    # fmt: off
    images: Annotated[Path, Option("Folder with the DICOM files.", "Of any depth.", positional=True, recorded=DIGEST)]
    labels: Annotated[Path, Option(
        "Label table: CSV, divided by commas, semicolons or tabs. Where folders give the label, list each file's path "
        "and label in one, for --path-column and --label-column.",
        positional=True, recorded=DIGEST,
    )]
    out: Annotated[Path, Option("Dataset folder to write.", positional=True, decides=False)] = Path("dataset")
    id_column: Annotated[str, Option("Column with the image id.", group="Labels")] = "patientId"
    label_column: LabelColumn = "Target"
    positive: Annotated[tuple[str, ...], Option(
        "Label that is positive; may be repeated.",
        "A cell may hold several, divided by |. Whatever is not named is then negative, unless --negative is given.",
        default="1",
    )] = ()
    negative: Negative = ()
    ignore: Annotated[tuple[str, ...], Option(
        "Label whose rows are left out; may be repeated.", "For instance -1 for uncertain.", default="none"
    )] = ()
    group_column: GroupColumn = None
    path_column: Annotated[str | None, Option(
        "Column with the path below IMAGES.", "For tables that name files rather than ids."
    )] = None
    match: Annotated[Match, Option(
        "How a file's row is found: by its name, its path, or an attribute.",
        "The id column holds the name without its ending, the path below IMAGES, or the attribute's value. Files "
        "without such a header have no row.",
    )] = "filename"
    several: Annotated[Literal["reject", "first", "all"], Option(
        "What to do with several files of a row.",
        "`first` by path, or where headers are read by Series Number, Instance Number and path; where that one cannot "
        "be read, the next. `all` gives each the row's label, an id with its number, and one patient. Where headers "
        "are read, files that are not wanted do not count.",
    )] = "reject"
    class_info: Annotated[Path | None, Option("RSNA's table of three classes (CSV).", recorded=DIGEST)] = None
    groups: Groups = None
    modalities: Annotated[tuple[Modality, ...], Option(
        "Modality to take; may be repeated.", "Files that state none, or OT, are taken and counted.",
        name="modality", group="Selection",
    )] = WANTED_MODALITIES
    views: Annotated[tuple[View, ...], Option(
        "View to take; may be repeated.", "Files that state none are taken and counted.",
        name="view", default="all but LL, RL, LATERAL",
    )] = WANTED_VIEWS
    body_parts: Annotated[tuple[BodyPart, ...], Option(
        "Body part to take; may be repeated.", "Files that state none are taken and counted.", name="body-part"
    )] = WANTED_BODY_PARTS
    ungrouped: Annotated[Literal["keep", "drop"], Option(
        "What to do with images that have no group.", group="Split"
    )] = "keep"
    val_fraction: Annotated[float, Option("Share of the images for validation.", least=0, below=1)] = 0.1
    test_fraction: Annotated[float, Option("Share of the images for a test split.", least=0, below=1)] = 0.0
    seed: Annotated[int, Option("Chooses the split and the order of storage.")] = 0
    size: Annotated[int, Option(
        "Height and width of the stored images, in pixels.", least=16, most=LARGEST_SIZE, unit="pixels", group="Images",
    )] = 224
    dtype: Annotated[Dtype, Option("Stored data type.", "`float16` in [0, 1], or `uint8` in 0..255.")] = "float16"
    layout: Annotated[Layout, Option(
        "Shards, one .npy file per image, or the source files.",
        "`folder`: the files lie in folders by split and label. `source`: only headers are read now, and the pixels "
        "whenever they are needed ([direct.md](direct.md)).",
    )] = "shards"
    shard_size: Annotated[int | None, Option(
        "Images in a shard.", "By default a 64th of the split, at least 32 and at most 4096.", least=1,
        default="by the count",
    )] = None
    decode: Annotated[Decode, Option(
        "JPEG at reduced scale, in full, or by a GPU.",
        "`fast` takes the smallest scale that leaves at least twice the stored size. `gpu` needs an NVIDIA GPU, which "
        "decodes most grey 8-bit JPEG; the CPU decodes the rest ([radiographs.md](radiographs.md#on-a-gpu)).",
    )] = "fast"
    window: Annotated[Window, Option("Apply VOI LUTs and windows.")] = "auto"
    workers: Annotated[int | None, Option(
        "Worker processes.", least=1, default="one per core, or 4 for a GPU", decides=False,
        aliases=("--num-workers",), group="Work",
    )] = None
    scheduler: Annotated[str | None, Option(
        "Dask scheduler, tcp://HOST:PORT.", default="this machine", decides=False
    )] = None
    max_rejects: Annotated[int | float, Option(
        "Rejected files allowed: a count, or a share as 0.01 or 1%.",
        "With more the conversion fails. Files of other kinds than are wanted do not count.",
        least=0, range=COUNT_OR_SHARE, default="1%", decides=False,
    )] = 0.01
    timeout_s: Timeout = 10.0
    max_pixels: Annotated[int, Option(
        "Largest image; larger ones are rejected undecoded.",
        "In pixels, rows times columns; the default is twice the largest radiographs in use.",
        least=1,
    )] = MAX_PIXELS
    resume: Annotated[bool, Option(
        "Resume an unfinished conversion.", "Starts anew where there is nothing.", decides=False
    )] = False
    overwrite: Annotated[bool, Option("Replace the dataset in OUT.", decides=False)] = False
    keep_ids: Annotated[bool, Option(
        "Write image ids as they are, not pseudonyms.", "And the paths of rejected files.", group="Privacy",
    )] = False
    hash_key: HashKey = None
    # fmt: on

    def __post_init__(self) -> None:
        """Check every option, and which go together; ConfigError names the first that cannot work."""
        check(self)
        fractions = self.val_fraction, self.test_fraction
        if not sum(fractions) < 1:
            raise ConfigError(f"val and test fractions {fractions}: both together must be below 1")
        _ = self.label_rule
        if self.path_column and self.match not in {"filename", "path"}:
            raise ConfigError(f"match {self.match} with path-column: a file is found by one of them, give one")
        check_resume(resume=self.resume, overwrite=self.overwrite)
        check_rejects(self.max_rejects)

    @property
    def uses_gpu(self) -> bool:
        """Whether a GPU decodes now, and not whenever the pixels are needed."""
        return self.decode == "gpu" and self.layout != "source"

    @property
    def label_rule(self) -> LabelRule:
        """What the cells of the label column mean; ConfigError where a value has two meanings."""
        return LabelRule(
            column=self.label_column, positive=self.positive, negative=self.negative, ignore=self.ignore, all_occur=True
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class IdsConfig:
    """Which pseudonyms to look up, and where the ids stand that they were made of."""

    # fmt: off
    dataset: Annotated[Path, Option(
        "Dataset folder.", "Its manifest records which columns were used.", positional=True
    )]
    labels: Annotated[Path, Option("The label table that it was made from (CSV).", positional=True)]
    out: Annotated[Path, Option("File to write, for its owner alone.", aliases=("-o",))] = Path("ids.csv")
    images: Annotated[Path | None, Option(
        "Folder with the DICOM files: look up files rejected or without a row too.", default="none looked up"
    )] = None
    groups: Groups = None
    hash_key: HashKey = None
    overwrite: Annotated[bool, Option("Replace the file.")] = False
    # fmt: on

    def __post_init__(self) -> None:
        """Check every option."""
        check(self)


EXACT = 2**53  # every whole number below it has a float of its own


def canonical(cell: str) -> str:
    """A value of a table, so that ``1`` and ``1.0`` are the same, and spaces around it do not count."""
    text = cell.strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() and abs(number) < EXACT else text


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRule:
    """Which cells of the label column are positive, negative or ignored.

    Where positive values are named a cell may hold several values, divided by ``|``.
    """

    column: str = "Target"
    positive: tuple[str, ...] = ()
    """By default ``1``."""
    negative: tuple[str, ...] = ()
    """By default ``0``; whatever is not positive, where positive values are given."""
    ignore: tuple[str, ...] = ()
    """Rows with such a value are left out, whatever else they hold."""
    all_occur: bool = False
    """Whether a table without one of these values is refused: it may be misspelt."""

    def __post_init__(self) -> None:
        """Refuse a value of two meanings."""
        meanings = {"positive": self.positive, "negative": self.negative, "ignored": self.ignore}
        seen: dict[str, str] = {}
        for meaning, values in meanings.items():
            for value in set(map(canonical, values)):
                if value in seen:
                    raise ConfigError(f"label value {value!r} is both {seen[value]} and {meaning}: give it one meaning")
                seen[value] = meaning

    def values_of(self, cell: str) -> set[str]:
        """The values that a cell holds."""
        return set(map(canonical, cell.split("|") if self.positive else [cell]))

    def find_absent(self, cells: Iterable[str]) -> tuple[str, str] | None:
        """The first value that has to occur and that no cell has, after its option; None where all do."""
        if not self.all_occur:
            return None
        there = {value for cell in cells for value in self.values_of(cell)}
        named = {"positive": self.positive, "negative": self.negative, "ignore": self.ignore}
        pairs = ((option, value) for option, values in named.items() for value in values)
        return next((pair for pair in pairs if canonical(pair[1]) not in there), None)

    def label_of(self, cell: str) -> int | None:
        """1, 0, or -1 for a row that is ignored; None where the cell fits no value, or is positive and negative."""
        parts = self.values_of(cell)
        if parts & set(map(canonical, self.ignore)):
            return -1
        positive = bool(parts & set(map(canonical, self.positive or ("1",))))
        if self.positive and not self.negative:
            return int(positive)
        negative = bool(parts & set(map(canonical, self.negative or ("0",))))
        return int(positive) if positive != negative else None

    @property
    def meaning(self) -> str:
        """What counts as positive, in words."""
        values = " or ".join(map(repr, self.positive))
        return f"column {self.column!r} {f'holds {values}' if self.positive else 'is 1'}"

    @property
    def expected(self) -> str:
        """The values allowed, in words."""
        values = [*(self.positive or ("1",)), *(self.negative or ("0",)), *self.ignore]
        return " or ".join(values) if self.positive or self.negative or self.ignore else "0 or 1"

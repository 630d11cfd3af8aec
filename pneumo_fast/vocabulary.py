"""Every word that an option can take, and what people call it."""

from __future__ import annotations

from typing import Final, Literal

Dtype = Literal["float16", "uint8"]
Layout = Literal["shards", "folder"]
Decode = Literal["fast", "exact"]
Window = Literal["auto", "none"]
Ungrouped = Literal["keep", "drop"]
AmpDtype = Literal["float16", "bfloat16"]
Split = Literal["train", "val", "test"]
OrderName = Literal["sequential", "shuffle", "weighted", "windowed"]
EngineName = Literal["auto", "dali", "fused", "resident"]
Strength = Literal["light", "strong"]
Augment = Literal["none", "light", "strong"]
Optimizer = Literal["adam", "adamw"]
Monitor = Literal["auroc", "ap", "loss", "accuracy"]
ScheduleName = Literal["none", "cosine", "onecycle"]
SPLITS: Final = ("train", "val", "test")


def counted(number: int, thing: str) -> str:
    """A number with its noun: ``1 image``, ``2 images``."""
    return f"{number} {thing}" + ("" if number == 1 else "s")

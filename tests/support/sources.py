"""The phantoms as a dataset whose pixels stay in the source files, which a test may damage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.phantoms.make import PhantomSet

OPTIONS: dict[str, Any] = {"size": 32, "val_fraction": 0.3, "shard_size": 10, "workers": 1, "keep_ids": True}


def index_phantoms(phantoms: PhantomSet, folder: Path, **options: Any) -> Dataset:
    """Index copies of the phantoms, as ``folder/source``; they lie in ``folder/images``."""
    images = folder / "images"
    if not images.exists():
        shutil.copytree(phantoms.images, images)
    given = OPTIONS | {"layout": "source", "out": folder / "source"} | options
    config = ConvertConfig(
        images=images, labels=phantoms.labels, class_info=phantoms.class_info, groups=phantoms.mappings, **given
    )
    convert(config)
    return Dataset.open(config.out)

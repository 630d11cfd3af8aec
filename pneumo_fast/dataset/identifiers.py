"""The ids that people know and those that a dataset holds, which are pseudonyms unless it was told to keep them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.pseudonyms import default_key_path, key_id, load_key, pseudonym
from pneumo_fast.errors import ConfigError


def key_of(dataset: Dataset, path: Path | None = None) -> bytes:
    """The hash key that a dataset was made with, or that one of several joined datasets was.

    Parameters
    ----------
    path : Path, optional
        The key file; by default the one in the user's configuration folder.

    Raises
    ------
    ConfigError
        If the key cannot be read, or is another one.
    """
    key = load_key(path)
    if key_id(key) not in dataset.key_ids:
        which = f"dataset {dataset.path}" if len(dataset.key_ids) == 1 else "any of the joined datasets"
        raise ConfigError(
            f"hash key {path or default_key_path()} is not the one that {which} was made with: name that one "
            "with --hash-key"
        )
    return key


def stored_ids(dataset: Dataset, ids: Sequence[str], key_file: Path | None = None) -> list[str]:
    """Image ids as the index has them, of ids as the index or as the label table has them.

    Without need the key is not read.

    Raises
    ------
    ConfigError
        If ids have to be hashed, and the key cannot be read or is another one.
    """
    there = set(dataset.index["image_id"])
    if dataset.manifest.ids == "kept" or there.issuperset(ids):
        return list(ids)
    key = key_of(dataset, key_file)
    return [image_id if image_id in there else pseudonym(key, "image", image_id) for image_id in ids]

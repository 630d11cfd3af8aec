"""The split: nothing but seed and ids decide, groups stay whole, every part keeps the share of positives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.conversion.labels import read_labels
from pneumo_fast.dataset.leaks import refuse_overlap
from pneumo_fast.dataset.splits import assign_splits, seeded_order
from pneumo_fast.vocabulary import SPLITS

FRACTIONS = st.tuples(st.floats(0, 0.6), st.floats(0, 0.39))
SEEDS = st.integers(0, 2**31)
LABELS = st.lists(st.integers(0, 1), min_size=1, max_size=60)
GROUPED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12)), min_size=1, max_size=60)  # group 0: unknown


def table(labels: list[int], groups: list[int] | None = None) -> pd.DataFrame:
    groups = groups or [0] * len(labels)
    return pd.DataFrame(
        {
            "image_id": [f"image {i}" for i in range(len(labels))],
            "label": labels,
            "group": [f"p{group}" if group else "" for group in groups],
        }
    )


def split(images: pd.DataFrame, fractions: tuple[float, float] = (0.1, 0.0), seed: int = 0) -> pd.DataFrame:
    val, test = fractions
    return images.assign(split=assign_splits(images, val_fraction=val, test_fraction=test, seed=seed))


@given(LABELS, FRACTIONS, SEEDS)
def test_each_class_is_divided_to_one_image(labels: list[int], fractions: tuple[float, float], seed: int) -> None:
    images = split(table(labels), fractions, seed)
    shares = dict(zip(SPLITS, (1 - sum(fractions), *fractions), strict=True))
    for label in (0, 1):
        of_class = images[images["label"] == label]
        for name, share in shares.items():
            assert abs((of_class["split"] == name).sum() - share * len(of_class)) <= 1 + 1e-9


@given(GROUPED, FRACTIONS, SEEDS)
def test_order_of_the_rows_tells_nothing(
    rows: list[tuple[int, int]], fractions: tuple[float, float], seed: int
) -> None:
    images = table([label for label, _ in rows], [group for _, group in rows])
    shuffled = images.iloc[np.random.default_rng(seed).permutation(len(images))].reset_index(drop=True)
    one, other = (split(t, fractions, seed).set_index("image_id")["split"] for t in (images, shuffled))
    assert one.to_dict() == other.to_dict()


@given(GROUPED, FRACTIONS, SEEDS)
def test_no_group_is_divided(rows: list[tuple[int, int]], fractions: tuple[float, float], seed: int) -> None:
    images = split(table([label for label, _ in rows], [group for _, group in rows]), fractions, seed)
    grouped = images[images["group"] != ""]
    assert (grouped.groupby("group")["split"].nunique() == 1).all()
    assert set(images["split"]) <= {name for name, share in zip(SPLITS, (1, *fractions), strict=True) if share}
    refuse_overlap(images)


@given(st.integers(2, 20), SEEDS)
def test_equal_groups_are_divided_to_one_group(groups: int, seed: int) -> None:
    """Patients with the same images are interchangeable, so their number is right as well."""
    images = split(table([0, 0, 1] * groups, [g + 1 for g in range(groups) for _ in range(3)]), (0.3, 0.0), seed)
    in_val = images[images["split"] == "val"]["group"].nunique()
    assert abs(in_val - 0.3 * groups) <= 1 + 1e-9


def test_groups_of_all_sizes_come_near_the_shares() -> None:
    """Patients with 1 to 12 images, none like another: no group can be balanced by its like."""
    groups = [group for group in range(1, 13) for _ in range(group)]
    images = split(table([group % 3 // 2 for group in groups], groups), (0.3, 0.2))
    shares = images["split"].value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.5, "val": 0.3, "test": 0.2}, abs=0.08)


def test_an_image_is_not_taken_for_a_group_of_its_name() -> None:
    images = pd.DataFrame({"image_id": ["p", "a", "b"], "label": 0, "group": ["", "p", "p"]})
    assert any(split(images, (0.5, 0.0), seed)["split"].tolist()[:2] == ["val", "train"] for seed in range(20))


def test_seeds_differ() -> None:
    images = table([0, 1] * 50)
    assert split(images, seed=0)["split"].tolist() != split(images, seed=1)["split"].tolist()


def test_a_split_never_changes() -> None:
    """These values are the promise that a dataset can be made again by a later release."""
    assert seeded_order(list("abcdefgh"), 0, "split").tolist() == [0, 1, 7, 2, 6, 5, 3, 4]
    assert split(table([0, 0, 0, 1, 1, 1]), (0.3, 0.3))["split"].tolist() == [
        "val",
        "test",
        "train",
        "train",
        "val",
        "test",
    ]


@given(st.lists(st.text(), unique=True), SEEDS)
def test_seeded_order_is_a_permutation_of_the_ids(ids: list[str], seed: int) -> None:
    order = seeded_order(ids, seed, "x")
    assert sorted(order) == list(range(len(ids)))
    backwards = ids[::-1]
    assert [ids[i] for i in order] == [backwards[i] for i in seeded_order(backwards, seed, "x")]


def test_seeded_order_depends_on_seed_and_purpose() -> None:
    ids = [str(i) for i in range(50)]
    orders = [seeded_order(ids, *how).tolist() for how in ((0, "split"), (1, "split"), (0, "storage"))]
    assert all(orders.count(order) == 1 for order in orders)


def test_complete_tables_keep_their_imbalance(shared_data: Path) -> None:
    tables = shared_data / "rsna_tables"
    images = read_labels(tables / "stage_2_train_labels.csv", groups=tables / "mappings.json").images
    divided = split(images, (0.1, 0.2))
    refuse_overlap(divided)
    shares = divided.groupby("split")["label"].agg(["size", "mean"])
    assert shares["size"].to_dict() == pytest.approx({"train": 18_679, "val": 2_668, "test": 5_337}, abs=2)
    assert shares["mean"].to_dict() == pytest.approx(dict.fromkeys(SPLITS, 6_012 / 26_684), abs=0.001)

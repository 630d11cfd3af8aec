"""Augmentation: a pure function of seed, epoch and row, within its ranges, and equal in every form."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.augment import NOISE_SPAN, RANGES, Augmentation, Draws, apply, move_points, noise_field
from pneumo_fast.vocabulary import Strength
from tests.support.augmented import GREY_LEVELS, TOLERANCE, augmented

MANY = np.arange(20_000)


strengths = st.sampled_from(get_args(Strength))
seeds = st.integers(-(2**63), 2**64 - 1)
epochs = st.integers(0, 10_000)
row_lists = st.lists(st.integers(0, 10**12), min_size=1, max_size=20).map(lambda rows: np.array(rows, dtype=np.int64))


def float32(values: list[Any]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def same(one: Draws, other: Draws) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Draws))


def pick(draws: Draws, which: NDArray[np.int64]) -> Draws:
    return Draws(**{f.name: getattr(draws, f.name)[which] for f in fields(Draws)})


def identity(n: int) -> Draws:
    """Changes nothing."""
    return Draws(
        matrix=np.tile(np.eye(2, 3, dtype=np.float32), (n, 1, 1)),
        contrast=np.ones(n, dtype=np.float32),
        brightness=np.zeros(n, dtype=np.float32),
        noise=np.zeros(n, dtype=np.float32),
        noise_shift=np.zeros((n, 2), dtype=np.int32),
    )


def applied(images: NDArray[Any], draws: Draws) -> NDArray[np.float32]:
    """What PyTorch makes of images (n, size, size) in [0, 1]."""
    field = torch.from_numpy(noise_field(images.shape[-1]).copy())
    table = torch.from_numpy(draws.table())
    out: NDArray[np.float32] = apply(torch.from_numpy(images.astype(np.float32))[:, None], table, field)[:, 0].numpy()
    return out


# ---- what is drawn


@given(strength=strengths, flip=st.booleans(), seed=seeds, epoch=epochs, rows=row_lists, data=st.data())
def test_draws_depend_on_neither_the_batch_nor_its_order(
    strength: Strength, flip: bool, seed: int, epoch: int, rows: NDArray[np.int64], data: st.DataObject
) -> None:
    augmentation = Augmentation(strength=strength, flip=flip, seed=seed)
    which = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1)))
    assert same(augmentation.draw(epoch, rows[which], 64), pick(augmentation.draw(epoch, rows, 64), which))


@given(seed=seeds, epoch=epochs, row=st.integers(0, 10**12))
def test_draws_differ_between_rows_epochs_and_seeds(seed: int, epoch: int, row: int) -> None:
    draw = Augmentation(strength="light", seed=seed).draw
    one = draw(epoch, np.array([row]), 64)
    other_seed = Augmentation(strength="light", seed=seed - 1 if seed > 0 else seed + 1)
    for other in (
        draw(epoch, np.array([row + 1]), 64),
        draw(epoch + 1, np.array([row]), 64),
        other_seed.draw(epoch, np.array([row]), 64),
    ):
        assert not np.array_equal(one.matrix, other.matrix)
        assert one.contrast[0] != other.contrast[0] or one.brightness[0] != other.brightness[0]


def test_seed_and_epoch_are_not_interchangeable() -> None:
    one, two = (Augmentation(strength="light", seed=seed).draw(epoch, MANY, 64) for seed, epoch in ((1, 2), (2, 1)))
    assert not np.isclose(one.contrast, two.contrast).mean() > 0.01


def test_a_flip_changes_nothing_else() -> None:
    plain, flipped = (Augmentation(strength="strong", flip=flip).draw(0, MANY, 224) for flip in (False, True))
    mirrored = flipped.matrix[:, 0, 0] < 0
    assert same(pick(plain, np.flatnonzero(~mirrored)), pick(flipped, np.flatnonzero(~mirrored)))
    back = flipped.matrix[mirrored] * float32([[[-1], [1]]]) + float32([[[0, 0, 224], [0, 0, 0]]])
    np.testing.assert_array_equal(back, plain.matrix[mirrored])


def parameters(draws: Draws, size: int) -> dict[str, NDArray[np.float64]]:
    """What the draws amount to, each as a share of its range: -1 to 1, the noise 0 to 1."""
    matrix = draws.matrix.astype(np.float64)
    linear = matrix[:, :, :2]
    centre = np.full(2, size / 2)
    shift = np.linalg.solve(linear, (centre - matrix[:, :, 2])[..., None])[..., 0] - centre
    return {
        "rotation_deg": np.degrees(np.arctan2(-linear[:, 1, 0], linear[:, 1, 1])),
        "across": shift[:, 0] / size,
        "down": shift[:, 1] / size,
        "scale": -np.log(np.hypot(linear[:, 1, 0], linear[:, 1, 1])),
        "contrast": np.log(draws.contrast.astype(np.float64)),
        "brightness": draws.brightness.astype(np.float64),
        "noise": draws.noise.astype(np.float64),
    }


@pytest.mark.parametrize("strength", get_args(Strength))
@pytest.mark.parametrize("flip", [False, True])
def test_draws_fill_their_ranges_evenly(strength: Strength, flip: bool) -> None:
    draws = Augmentation(strength=strength, flip=flip).draw(3, MANY, 224)
    bounds = {f.name: getattr(RANGES[strength], f.name) for f in fields(RANGES[strength])}
    bounds |= {"across": bounds["shift"], "down": bounds["shift"]}
    for name, values in parameters(draws, 224).items():
        share = values / bounds[name]
        low = 0.0 if name == "noise" else -1.0
        assert low - 1e-3 <= share.min() < low + 0.01, name
        assert 0.99 < share.max() <= 1 + 1e-3, name
        counts, _ = np.histogram(share, bins=20, range=(low, 1))
        expected = len(MANY) / 20
        assert ((counts - expected) ** 2 / expected).sum() < 60, name  # chi-square, 19 degrees: p about 4e-6


def test_parameters_are_independent_of_one_another() -> None:
    values = parameters(Augmentation(strength="light").draw(0, MANY, 224), 224)
    correlation = np.corrcoef(np.stack(list(values.values())))
    assert np.abs(correlation - np.eye(len(values))).max() < 0.04  # 5 standard deviations are 0.035


def test_every_window_of_the_noise_is_used() -> None:
    shift = Augmentation(strength="light").draw(0, MANY, 64).noise_shift
    for axis in (0, 1):
        assert set(shift[:, axis].tolist()) == set(range(NOISE_SPAN + 1))


@pytest.mark.parametrize("strength", get_args(Strength))
def test_images_are_mirrored_only_when_asked_and_never_turned_upside_down(strength: Strength) -> None:
    for flip, share in ((False, 0.0), (True, 0.5)):
        matrix = Augmentation(strength=strength, flip=flip).draw(0, MANY, 224).matrix
        assert (matrix[:, 0, 0] < 0).mean() == pytest.approx(share, abs=0.02)
        assert matrix[:, 1, 1].min() > 0.8
        assert np.abs(matrix[:, 0, 0]).min() > 0.8


def test_strong_goes_further_than_light_in_everything() -> None:
    assert all(getattr(RANGES["strong"], f.name) > getattr(RANGES["light"], f.name) for f in fields(RANGES["light"]))


def test_an_unknown_strength() -> None:
    with pytest.raises(ConfigError, match="augmentation 'heavy' is unknown: use one of light, strong"):
        Augmentation(strength="heavy")  # type: ignore[arg-type]


# ---- what becomes of the pixels


@pytest.mark.parametrize("size", [16, 37, 224])
def test_the_identity_gives_the_image_back_to_the_last_bit(size: int) -> None:
    images = np.random.default_rng(size).random((2, size, size), dtype=np.float32)
    np.testing.assert_array_equal(applied(images, identity(2)), images)


def test_a_mirrored_identity_is_the_mirror_image_to_the_last_bit() -> None:
    images = np.random.default_rng(0).random((1, 37, 37), dtype=np.float32)
    draws = replace(identity(1), matrix=float32([[[-1, 0, 37], [0, 1, 0]]]))
    np.testing.assert_array_equal(applied(images, draws), images[:, :, ::-1])


def test_a_shift_by_whole_pixels_leaves_black_behind() -> None:
    images = np.random.default_rng(0).random((1, 20, 20), dtype=np.float32)
    draws = replace(identity(1), matrix=float32([[[1, 0, -3], [0, 1, 2]]]))  # 3 to the right, 2 up
    out = applied(images, draws)[0]
    np.testing.assert_array_equal(out[:-2, 3:], images[0, 2:, :-3])
    assert not out[-2:].any()
    assert not out[:, :3].any()


@pytest.mark.parametrize(
    ("contrast", "brightness", "expected"),
    [
        (1.0, 0.25, [0.25, 0.5, 0.75, 1.0, 1.0]),
        (0.5, 0.0, [0.25, 0.375, 0.5, 0.625, 0.75]),
        (2.0, 0.0, [0, 0, 0.5, 1, 1]),
    ],
)
def test_contrast_turns_about_mid_grey_and_brightness_is_added(
    contrast: float, brightness: float, expected: list[float]
) -> None:
    images = np.zeros((1, 5, 5)) + np.linspace(0, 1, 5)
    draws = replace(identity(1), contrast=float32([contrast]), brightness=float32([brightness]))
    np.testing.assert_array_equal(applied(images, draws)[0, 2], float32(expected))


def test_noise_has_the_deviation_asked_for_and_its_window() -> None:
    images = np.full((2, 64, 64), 0.5)
    draws = replace(identity(2), noise=float32([0, 0.05]), noise_shift=np.array([[0, 0], [128, 7]], dtype=np.int32))
    out = applied(images, draws)
    assert (out[0] == 0.5).all()
    assert out[1].std() == pytest.approx(0.05, rel=0.05)
    np.testing.assert_allclose((out[1] - 0.5) / 0.05, noise_field(64)[128:192, 7:71], atol=1e-5)


def test_the_field_of_noise_is_gaussian_white_and_cannot_be_changed() -> None:
    field = noise_field(128)
    assert field.shape == (256, 256)
    assert abs(field.mean()) < 0.02
    assert field.std() == pytest.approx(1, abs=0.02)
    for k, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert (np.abs(field) < k).mean() == pytest.approx(share, abs=0.01)
    assert abs(np.corrcoef(field[1:].ravel(), field[:-1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(field[:, 1:].ravel(), field[:, :-1].ravel())[0, 1]) < 0.02
    with pytest.raises(ValueError, match="read-only"):
        field[0, 0] = 0


@settings(max_examples=60)
@given(
    strength=strengths,
    flip=st.booleans(),
    seed=seeds,
    epoch=epochs,
    size=st.integers(16, 96),
    rows=row_lists,
    dtype=st.sampled_from(["float16", "uint8"]),
)
def test_pytorch_equals_the_reference(
    strength: Strength, flip: bool, seed: int, epoch: int, size: int, rows: NDArray[np.int64], dtype: str
) -> None:
    edges = np.random.default_rng(abs(seed)).integers(0, 2, (len(rows), size, size))  # black and white: the worst case
    images = edges.astype(np.float16) if dtype == "float16" else (edges * 254).astype(np.uint8) / np.float32(255)
    draws = Augmentation(strength=strength, flip=flip, seed=seed).draw(epoch, rows, size)
    difference = np.abs(applied(images, draws) - augmented(images, draws)).max() * GREY_LEVELS
    assert difference < TOLERANCE / 20


@pytest.mark.parametrize("size", [256, 1000, 1024])
def test_coordinates_are_exact_at_any_size(size: int) -> None:
    images = np.random.default_rng(size).integers(0, 2, (2, size, size))
    draws = Augmentation(strength="strong", flip=True, seed=size).draw(1, np.arange(2), size)
    assert np.abs(applied(images, draws) - augmented(images, draws)).max() * GREY_LEVELS < TOLERANCE / 20


# ---- boxes


@given(strength=strengths, flip=st.booleans(), seed=seeds, x=st.integers(16, 40), y=st.integers(16, 40))
def test_boxes_move_with_the_image(strength: Strength, flip: bool, seed: int, x: int, y: int) -> None:
    image = np.zeros((64, 64))
    image[y : y + 9, x : x + 7] = 1
    draws = Augmentation(strength=strength, flip=flip, seed=seed).draw(0, np.array([0]), 64)
    corners = np.array([[x, y], [x + 7, y], [x + 7, y + 9], [x, y + 9]], dtype=np.float64)
    moved = move_points(corners, draws.matrix[0])
    warped = applied(image[None], replace(identity(1), matrix=draws.matrix))[0].astype(np.float64)
    rows, columns = np.mgrid[:64, :64] + 0.5
    centre = np.array([(warped * columns).sum(), (warped * rows).sum()]) / warped.sum()
    np.testing.assert_allclose(centre, moved.mean(axis=0), atol=0.05)
    lit = np.argwhere(warped > 0.5)[:, ::-1] + 0.5
    np.testing.assert_allclose(lit.min(axis=0) - 0.5, moved.min(axis=0), atol=1.5)
    np.testing.assert_allclose(lit.max(axis=0) + 0.5, moved.max(axis=0), atol=1.5)


@pytest.mark.parametrize(("strength", "cut"), [("light", 0.001), ("strong", 0.01)])
def test_findings_stay_in_the_image(shared_data: Path, strength: Strength, cut: float) -> None:
    boxes = pd.read_csv(shared_data / "rsna_tables" / "stage_2_train_labels.csv").dropna()
    matrix = Augmentation(strength=strength).draw(0, np.arange(len(boxes)), 1024).matrix.astype(np.float64)
    share = np.linspace(0.05, 0.95, 10)
    x = boxes["x"].to_numpy()[:, None] + boxes["width"].to_numpy()[:, None] * np.tile(share, 10)
    y = boxes["y"].to_numpy()[:, None] + boxes["height"].to_numpy()[:, None] * np.repeat(share, 10)
    moved = np.linalg.solve(matrix[:, :, :2], np.stack([x, y], axis=1) - matrix[:, :, 2:])
    kept = ((moved > 0) & (moved < 1024)).all(axis=1).mean(axis=1)
    assert (kept < 0.9).mean() < cut
    assert kept.min() > 0.5


def test_points_of_the_identity_stay() -> None:
    points = np.array([[0.0, 0.0], [3.5, 60.0]])
    np.testing.assert_allclose(move_points(points, identity(1).matrix[0]), points)


def test_the_same_seed_means_the_same_changes_in_every_release() -> None:
    draws = Augmentation(strength="strong", flip=True, seed=7).draw(3, np.array([0, 10**6]), 224)
    matrix = [
        [[1.01477051, 0.13104248, -5.14126587], [-0.13104248, 1.01477051, 17.58905029]],
        [[-0.98156738, 0.02697754, 224.39675903], [0.02697754, 0.98156738, 10.87847900]],
    ]
    np.testing.assert_allclose(draws.matrix, matrix, rtol=0, atol=1e-4)
    np.testing.assert_allclose(draws.contrast, [0.92420959, 0.87946296], rtol=1e-6)
    np.testing.assert_allclose(draws.brightness, [0.08022160, -0.08009735], rtol=1e-6)
    np.testing.assert_allclose(draws.noise, [0.00545206, 0.01029959], rtol=1e-6)
    assert draws.noise_shift.tolist() == [[14, 20], [38, 10]]
    np.testing.assert_allclose(noise_field(224)[0, :3], [-0.38905641, -0.24612309, -0.42479131], rtol=1e-6)

"""Draw one synthetic chest radiograph with NumPy.

The picture is a sum of soft-edged densities in the thorax's own coordinates, turned into grey values last. What
all images of a patient have in common is drawn from one generator, the rest from another.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

OPACITY: Final = "Lung Opacity"
NORMAL: Final = "Normal"
NOT_NORMAL: Final = "No Lung Opacity / Not Normal"
NOT_NORMAL_SHARE: Final = 0.57  # of RSNA's negatives
BOX_LEVEL: Final = 0.25  # an opacity's box holds all pixels above this share of its peak

Field = NDArray[Any]  # float32; NumPy's stubs take it for float64 where a Python number comes first
Box = tuple[int, int, int, int]


class Grid(NamedTuple):
    """Where every pixel lies in the thorax, (size_px, size_px): x from its mid-line, y downwards from its middle."""

    x: Field
    y: Field


def draw(
    patient: np.random.Generator, rng: np.random.Generator, size_px: int, *, finding: str, view: str
) -> tuple[NDArray[np.uint8], list[Box]]:
    """Draw one radiograph.

    Parameters
    ----------
    patient, rng : numpy.random.Generator
        What the patient's images have in common is drawn from the first, everything else from the second.
    size_px : int
        Height and width.
    finding : str
        :data:`OPACITY`, :data:`NORMAL` or :data:`NOT_NORMAL`.
    view : str
        ``AP``, where the heart is projected larger, or ``PA``.

    Returns
    -------
    pixels : ndarray
        uint8, (size_px, size_px), white = dense.
    boxes : list of tuple
        x, y, width, height in whole pixels, one per opacity.
    """
    # Opacities come with the other signs as often as negatives do, so that a line or a tilt tells nothing.
    has_sign = rng.random() < NOT_NORMAL_SHARE if finding == OPACITY else finding == NOT_NORMAL
    sign = rng.choice(["tilt", "heart", "line", "pacemaker"]) if has_sign else ""
    grid = _grid(rng, size_px, tilted=sign == "tilt")
    heart_size = (1.0 if view == "PA" else 1.12) * (1.3 if sign == "heart" else 1.0)
    lungs, middle = _lungs(patient, grid), _middle(patient, grid, heart_size)
    air = lungs * (1 - 0.93 * middle)
    density = _trunk(patient, grid) + _bones(patient, grid, lungs * (1 - 0.7 * middle)) + 0.1 * middle
    density -= air * (0.55 - _vessels(rng, grid))
    if sign in {"line", "pacemaker"}:
        density += _line(rng, grid) if sign == "line" else _pacemaker(rng, grid)
    opacities = _opacities(rng, grid, air) if finding == OPACITY else []
    for opacity in opacities:
        density += opacity
    return _expose(rng, density), [_bounding_box(opacity) for opacity in opacities]


def _step(distance: Field, width: float) -> Field:
    """Rise smoothly from 0 to 1 while ``distance`` goes through 0, over ``width``."""
    t: Field = np.divide(distance, width)  # in place from here: fresh arrays cost more than the sums
    t += 0.5
    np.clip(t, 0, 1, out=t)
    smooth: Field = np.multiply(t, t)
    t *= -2
    t += 3
    smooth *= t
    return smooth


def _bump(distance: Field, width: float) -> Field:
    """Fall smoothly from 1 at distance 0 to 0 at ``width``."""
    t: Field = np.divide(distance, width)
    t *= t
    np.subtract(1, t, out=t)
    np.clip(t, 0, 1, out=t)
    t *= t
    return t


def _noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Field:
    """Draw smooth noise of about unit variance with ``cells`` bumps on a side."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))


def _grid(rng: np.random.Generator, size_px: int, *, tilted: bool) -> Grid:
    """Place the thorax: shifted, scaled, slightly turned, and curved where the spine is."""
    axis = (np.arange(size_px, dtype=np.float32) + 0.5) * (2 / size_px) - 1
    scale, stretch = rng.uniform(0.98, 1.25), rng.uniform(0.94, 1.06)
    column = (axis - rng.uniform(-0.1, 0.1))[None, :]
    row = (axis - rng.uniform(-0.1, 0.1))[:, None]
    angle = rng.uniform(-0.05, 0.05) + (_side(rng) * rng.uniform(0.08, 0.14) if tilted else 0.0)
    x, y = _turned(column, row, angle, scale, scale * stretch)
    if tilted:
        x += 0.09 * _side(rng) * np.sin(y * 2.6)
    return Grid(x, y)


def _side(rng: np.random.Generator) -> int:
    """Draw -1 (left in the picture) or 1 (right)."""
    return 1 if rng.random() < 0.5 else -1


def _turned(x: Field, y: Field, angle: float, scale_x: float, scale_y: float) -> Grid:
    """Turn coordinates by ``angle`` radians, then scale them."""
    cos, sin = math.cos(angle), math.sin(angle)
    return Grid(x * (cos * scale_x) + y * (sin * scale_x), y * (cos * scale_y) - x * (sin * scale_y))


def _lungs(patient: np.random.Generator, grid: Grid) -> Field:
    """Both lung fields, 1 inside: narrow tops, wide bottoms on domed diaphragms."""
    lungs = np.zeros_like(grid.x)
    half, height, base = patient.uniform(0.33, 0.38), patient.uniform(0.76, 0.88), patient.uniform(0.40, 0.56)
    y = (grid.y - 0.12) / height
    for side, lower in ((-1, 0.0), (1, 0.06)):  # the liver lifts the diaphragm on the left of the picture
        x = (grid.x * side - patient.uniform(0.41, 0.45)) / half - 0.2 * grid.y
        wall = 1 - np.sqrt(x * x + y * y)
        floor = base + patient.uniform(-0.02, 0.02) + lower + 0.16 * x * x - grid.y
        lungs += _step(wall, 0.14) * _step(floor, 0.04)
    return lungs


def _middle(patient: np.random.Generator, grid: Grid, heart_size: float) -> Field:
    """Great vessels and heart, 1 inside; the heart lies to the right in the picture."""
    size = heart_size * patient.uniform(0.92, 1.08)
    vessels = _step(0.13 + 0.05 * grid.y - np.abs(grid.x), 0.08)
    u, v = _turned(grid.x - 0.13, grid.y - 0.30, 0.52, 1 / (0.36 * size), 1 / (0.25 * size))
    return np.maximum(vessels, _step(1 - np.sqrt(u * u + v * v), 0.2))


def _trunk(patient: np.random.Generator, grid: Grid) -> Field:
    """Neck, shoulders, trunk, abdomen against black air, with spine and windpipe."""
    across, width = np.abs(grid.x), patient.uniform(0.86, 1.0)
    outline = 0.22 + (width - 0.12) * _step(grid.y + 0.84, 0.5) + 0.08 * grid.y
    depth = 0.78 - 0.2 * across * across + 0.16 * _step(grid.y - 0.5, 0.8)
    spine = 0.09 + 0.03 * np.cos(grid.y * (math.tau / 0.13))
    depth += spine * _step(0.1 - across, 0.06)
    depth -= 0.12 * _bump(grid.x, 0.07) * _step(-0.15 - grid.y, 0.1)
    trunk: Field = depth * _step(outline - across, 0.14)
    return trunk


def _bones(patient: np.random.Generator, grid: Grid, lungs: Field) -> Field:
    """Ribs behind and in front, collar bones."""
    across, pitch = np.abs(grid.x), patient.uniform(0.15, 0.18)
    arch = across - 0.3
    behind = np.cos(patient.uniform(0, math.tau) + (grid.y + arch * arch) * (math.tau / pitch))
    front = np.cos((grid.y - 0.6 * across) * (math.tau / (1.2 * pitch)))
    ribs = 0.13 * _step(behind - 0.35, 0.9) + 0.07 * _step(front - 0.35, 0.8)
    collar = grid.y + 0.6 + 0.25 * (across - 0.1)
    ends = _step(0.72 - across, 0.08) * _step(across - 0.08, 0.06)
    bones: Field = ribs * lungs + 0.12 * _bump(collar, 0.05) * ends
    return bones


def _vessels(rng: np.random.Generator, grid: Grid) -> Field:
    """Lung markings that fan out from the hila and fade, over a cloudy ground."""
    x, y = np.abs(grid.x) - 0.15, grid.y - 0.02
    near = 1 / (1 + 6 * (x * x + y * y))
    fan = np.arctan2(y, x) * 9 + 1.5 * _noise(rng, grid.x.shape, 7)
    streaks = _step(np.cos(fan) - 0.5, 0.9)
    clouds = _noise(rng, grid.x.shape, 4) + _noise(rng, grid.x.shape, 36)
    markings: Field = near * (0.10 + 0.16 * streaks) + 0.025 * clouds
    return markings


def _line(rng: np.random.Generator, grid: Grid) -> Field:
    """A catheter, from the neck down to the middle."""
    bend, end = _side(rng) * rng.uniform(0.12, 0.3), rng.uniform(-0.1, 0.35)
    path = grid.x - bend * np.clip(0.1 - grid.y, 0, 1) ** 2
    line: Field = 0.3 * _bump(path, 0.025) * _step(end - grid.y, 0.04)
    return line


def _pacemaker(rng: np.random.Generator, grid: Grid) -> Field:
    """A metal box under a collar bone and its lead to the heart."""
    across = grid.x * _side(rng)
    x, y = across - rng.uniform(0.42, 0.52), grid.y + rng.uniform(0.3, 0.42)
    box = 0.7 * _step(0.1 - np.maximum(np.abs(x), np.abs(y)), 0.03)
    lead = _bump(grid.y - 0.25 + 2.5 * across * across, 0.04) * _step(across + 0.05, 0.05) * _step(0.5 - across, 0.05)
    return np.maximum(box, 0.25 * lead)


def _opacities(rng: np.random.Generator, grid: Grid, air: Field) -> list[Field]:
    """One to three soft textured clouds, each in its own half of a lung."""
    halves = [(-1, -0.22), (-1, 0.22), (1, -0.22), (1, 0.16)]
    chosen = rng.permutation(len(halves))[: rng.integers(1, 4)].tolist()
    return [_opacity(rng, grid, *halves[half]) * air for half in chosen]


def _opacity(rng: np.random.Generator, grid: Grid, side: int, middle: float) -> Field:
    """Draw one cloud, a ragged ellipse that is denser inside."""
    x, y = grid.x - side * rng.uniform(0.4, 0.52), grid.y - middle - rng.uniform(-0.1, 0.1)
    wide, high = rng.uniform(0.17, 0.27), rng.uniform(0.19, 0.32)
    u, v = _turned(x, y, rng.uniform(-0.6, 0.6), 1 / wide, 1 / high)
    ragged = 1 + 0.2 * _noise(rng, x.shape, 10) - np.sqrt(u * u + v * v)
    texture = rng.uniform(0.28, 0.45) * (1 + 0.12 * _noise(rng, x.shape, 28))
    opacity: Field = texture * _step(ragged, 0.9)
    return opacity


def _bounding_box(opacity: Field) -> Box:
    inside = opacity > BOX_LEVEL * opacity.max()
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


def _expose(rng: np.random.Generator, density: Field) -> NDArray[np.uint8]:
    """Turn density into grey values with a drawn mean and contrast, so that opacities change neither."""
    mean, contrast = rng.uniform(0.40, 0.62), rng.uniform(0.17, 0.25)
    grey = (density - density.mean()) * (contrast / float(density.std())) + mean
    grey += rng.uniform(0.005, 0.025) * rng.standard_normal(density.shape, dtype=np.float32)
    pixels: NDArray[np.uint8] = np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)
    return pixels

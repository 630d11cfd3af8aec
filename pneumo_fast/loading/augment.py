"""What is done to which training image: small changes that leave a frontal chest radiograph one.

Every change is a pure function of (seed, epoch, row): nothing is remembered between batches, so an image is changed
in the same way whatever batch it comes in, however many processes there are, and after a resume. Nothing here turns an
image upside down. ``docs/augmentation.md`` says why the ranges are safe.

The same change has three forms, equal to within rounding: :func:`apply` for PyTorch, the operators in
:mod:`pneumo_fast.loading.engines.dali`, and a reference in NumPy in the tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.rng import uniform
from pneumo_fast.vocabulary import Strength

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranges:
    """How far each change goes; all but the noise go as far to either side."""

    rotation_deg: float
    shift: float
    """Share of the image's side, across and down."""
    scale: float
    """Natural logarithm of the magnification."""
    contrast: float
    """Natural logarithm of the factor on the distance from mid-grey."""
    brightness: float
    """What is added, in units of [0, 1]."""
    noise: float
    """Largest standard deviation of what is added to each pixel, in units of [0, 1]."""


RANGES: Final[dict[str, Ranges]] = {
    # What differs between two takes of one patient. Few lean, or are off the detector's centre, by more than this;
    # exposure is held by the machine. Noise of 0.01 is 2.5 of 255 grey levels and hardly to be seen.
    "light": Ranges(rotation_deg=5.0, shift=0.03, scale=0.05, contrast=0.10, brightness=0.05, noise=0.01),
    # What differs between hospitals, bedside films included: a slumped patient, another distance, another processing.
    # No further, or lung bases and apices leave the image, and opacities turn white, which the label is about.
    "strong": Ranges(rotation_deg=10.0, shift=0.06, scale=0.10, contrast=0.20, brightness=0.10, noise=0.02),
}
NOISE_SPAN: Final = 128  # pixels that the window on the field of noise moves by, at most, across and down
FLIP_SHARE: Final = 0.5  # of the images, where flips are asked for
_NOISE: Final = 0x6E6F697365  # the seed of the field of noise, the same for every run


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """What is done to each of n images."""

    matrix: Floats
    """Shape (n, 2, 3): output coordinates (x, y, 1) to input coordinates, in pixels from the upper left corner of the
    image, so that the centre of pixel i is at i + 0.5 (the convention of DALI's ``warp_affine``)."""
    contrast: Floats
    """Shape (n,): the factor on the distance from mid-grey, above 0."""
    brightness: Floats
    """Shape (n,): added after that, in units of [0, 1]."""
    noise: Floats
    """Shape (n,): standard deviation, in units of [0, 1]."""
    noise_shift: NDArray[np.int32]
    """Shape (n, 2): row and column of the window's corner on the field of noise, 0 to :data:`NOISE_SPAN`."""

    @property
    def offset(self) -> Floats:
        """Contrast and brightness in one: a pixel becomes ``value * contrast + offset``; shape (n,)."""
        return 0.5 - 0.5 * self.contrast + self.brightness

    def table(self) -> Floats:
        """All of it as :func:`apply` takes it, float32 (n, 11): one array, to be sent to a device in one go."""
        columns = [self.matrix.reshape(-1, 6), self.contrast, self.offset, self.noise, self.noise_shift]
        return np.column_stack(columns).astype(np.float32, copy=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How training images are changed."""

    strength: Strength
    flip: bool = False
    """Whether half of the images, chosen afresh each epoch, are mirrored left to right. The heart is then on the wrong
    side, as in situs inversus."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the strength; ConfigError where it is unknown."""
        if self.strength not in RANGES:
            raise ConfigError(f"augmentation {self.strength!r} is unknown: use one of {', '.join(get_args(Strength))}")

    def draw(self, epoch: int, rows: NDArray[np.int64], size: int) -> Draws:
        """What to do to some images in an epoch; the same for the same row, whatever rows are beside it.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Row numbers in the split.
        size : int
            Height and width of the images, in pixels.
        """
        ranges = RANGES[self.strength]
        uniforms = uniform(self.seed, epoch, rows, 10)
        angle, across, down, scale, contrast, brightness = 2 * uniforms[:6] - 1
        noise, top, left, mirror = uniforms[6:]
        matrix = _matrices(
            angle=np.radians(ranges.rotation_deg) * angle,
            shift=ranges.shift * size * np.stack([across, down]),
            magnification=np.exp(ranges.scale * scale),
            mirrored=(mirror < FLIP_SHARE) & self.flip,
            size=size,
        )
        return Draws(
            matrix=matrix,
            contrast=np.exp(ranges.contrast * contrast).astype(np.float32),
            brightness=(ranges.brightness * brightness).astype(np.float32),
            noise=(ranges.noise * noise).astype(np.float32),
            noise_shift=(np.stack([top, left], axis=1) * (NOISE_SPAN + 1)).astype(np.int32),
        )


def apply(images: torch.Tensor, table: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    """Change images, on whatever device they are; nothing here waits for it.

    Bilinear and black outside the image, then contrast and brightness, then noise, then kept within [0, 1].

    Parameters
    ----------
    images : Tensor of float32, shape (n, 1, size, size)
        In [0, 1].
    table : Tensor of float32, shape (n, 11)
        What :meth:`Draws.table` gave.
    field : Tensor of float32
        What :func:`noise_field` gave for the images' size.

    Returns
    -------
    Tensor of float32, shape (n, 1, size, size)
        In [0, 1]; new memory.
    """
    size = images.shape[-1]
    contrast, offset, noise = (column[:, None, None, None] for column in table[:, 6:9].unbind(1))
    top, left = table[:, 9:].to(torch.int64).unbind(1)
    windows = field.unfold(0, size, 1).unfold(1, size, 1)[top, left]
    padded = _power_of_two(size)
    images = functional.pad(images, (0, padded - size, 0, padded - size))
    grid = _grid(table[:, :6], size, padded)
    warped = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.mul_(contrast).add_(offset).addcmul_(windows[:, None], noise).clamp_(0, 1)


def _grid(matrix: torch.Tensor, size: int, padded: int) -> torch.Tensor:
    """Where each output pixel comes from, (n, size, size, 2), as shares of the padded image from -1 to 1.

    No matrix product, which some GPUs round to ten bits; and no rounding at all, since the matrices are rounded and
    the padded side is a power of two.
    """
    centre = torch.arange(size, dtype=torch.float32, device=matrix.device) + 0.5
    a, b, c, d, e, f = ((2 / padded) * matrix).unsqueeze(2).unbind(1)
    grid = matrix.new_empty((len(matrix), size, size, 2))
    torch.add((b * centre + (c - 1))[:, :, None], (a * centre)[:, None, :], out=grid[..., 0])
    torch.add((e * centre + (f - 1))[:, :, None], (d * centre)[:, None, :], out=grid[..., 1])
    return grid


@lru_cache(maxsize=2)
def noise_field(size: int) -> Floats:
    """Gaussian noise of mean 0 and standard deviation 1, square, :data:`NOISE_SPAN` wider than the images; read-only.

    Windows of it serve as each image's noise, since a hash per pixel would cost more than all the rest.
    """
    side = size + NOISE_SPAN
    one, two = uniform(_NOISE, 0, np.arange(side * side, dtype=np.int64), 2)
    normal = np.sqrt(-2 * np.log1p(-one)) * np.cos(2 * math.pi * two)  # Box and Muller 1958
    field: Floats = normal.reshape(side, side).astype(np.float32)
    field.flags.writeable = False
    return field


def move_points(points: NDArray[np.float64], matrix: Floats) -> NDArray[np.float64]:
    """Where points of the stored image are in the changed one.

    Parameters
    ----------
    points : ndarray of float64, shape (k, 2)
        x and y in pixels from the upper left corner.
    matrix : ndarray of float32, shape (2, 3)
        One of :attr:`Draws.matrix`.
    """
    to_stored = matrix.astype(np.float64)
    return np.asarray(np.linalg.solve(to_stored[:, :2], (points - to_stored[:, 2]).T).T, dtype=np.float64)


def _matrices(
    *,
    angle: NDArray[np.float64],
    shift: NDArray[np.float64],
    magnification: NDArray[np.float64],
    mirrored: NDArray[np.bool_],
    size: int,
) -> Floats:
    """Matrices (n, 2, 3) that turn, magnify and mirror about the image's centre, and shift.

    Rounded, to 2**-14 where the side is 224, so that a coordinate worked out in float32 is exact whatever the order of
    operations. Otherwise the rounding of coordinates, at an edge from black to white, would make two forms of the same
    change differ by more than all else.

    Parameters
    ----------
    angle : ndarray of float64, shape (n,)
        Radians.
    shift : ndarray of float64, shape (2, n)
        To the right and down, in pixels.
    """
    across, down = np.cos(angle) / magnification, np.sin(angle) / magnification
    mirror = np.where(mirrored, -1.0, 1.0)
    linear = np.stack([np.stack([mirror * across, mirror * down]), np.stack([-down, across])]).transpose(2, 0, 1)
    finest = 2.0 ** (23 - _power_of_two(size).bit_length())  # coordinates stay below twice the side
    linear = np.rint(linear * finest) / finest
    centre = np.full((2, 1), size / 2)
    constant = centre - np.einsum("nij,jn->in", linear, centre + shift)
    constant = np.rint(constant * 2 * finest) / (2 * finest)
    return np.concatenate([linear, constant.T[:, :, None]], axis=2).astype(np.float32, order="C")


def _power_of_two(size: int) -> int:
    """The smallest power of two that is at least ``size``."""
    return 1 << (size - 1).bit_length()

"""Optional parts: which packages bring each, and what is lost without it; said alike wherever one is missing."""

from __future__ import annotations

from typing import Final, NamedTuple


def version_of(package: str) -> str | None:
    """Version of an installed package; None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  # slow: worker processes do without

    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Extra(NamedTuple):
    """Packages that are installed together."""

    name: str
    """That of the extra in ``pyproject.toml``, where it is one."""
    modules: dict[str, str]
    """What is imported, by the package that brings it."""
    without: str
    """What it costs where they are missing."""

    @property
    def command(self) -> str:
        """What brings them."""
        return f"pip install {' '.join(self.modules)}"

    def needed_by(self, what: str, package: str) -> str:
        """What is said where something needs one of the packages, and it is missing."""
        return f"{what} needs {package}, which is not installed: {self.command}"


DECODERS: Final = Extra(
    "decoders",
    {
        "pylibjpeg": "pylibjpeg", "pylibjpeg-libjpeg": "libjpeg", "pylibjpeg-openjpeg": "openjpeg",
        "pylibjpeg-rle": "rle", "python-gdcm": "gdcm",
    },
    "JPEG Lossless, JPEG-LS, HTJ2K and 12-bit JPEG are rejected; JPEG 2000 and RLE take longer",
)  # fmt: skip
FAST: Final = Extra(
    "fast", {"numba": "numba"}, "loading has about a quarter of its speed on a CPU, and is slower for a GPU too"
)  # fmt: skip
DASK: Final = Extra("dask", {"distributed": "distributed"}, "convert --scheduler is refused")
ONNX: Final = Extra(
    "export", {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
    "export writes --format torch alone",
)  # fmt: skip
DICOM_OUT: Final = Extra("dicom", {"highdicom": "highdicom"}, "predict --dicom-out and --store, and serve are refused")
PACS: Final = Extra(
    "pacs", {"dicomweb-client": "dicomweb_client", "pynetdicom": "pynetdicom"},
    "predict --dicomweb, serve and doctor --echo are refused",
)  # fmt: skip
TENSORBOARD: Final = Extra("tensorboard", {"tensorboard": "tensorboard"}, "train --tensorboard is refused")
DALI_PACKAGES: Final = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")
"""One for each version of CUDA; the first is a dependency, and any will do."""
DALI: Final = Extra(
    "DALI", {DALI_PACKAGES[0]: "nvidia.dali"},
    "for a GPU, batches are made on the CPU and copied; --decode gpu is refused",
)  # fmt: skip
"""No extra but a dependency, on Linux on x86-64; elsewhere there is none."""


def installed_dali() -> Extra:
    """DALI as :data:`DALI` has it, with the package that is installed, if any is."""
    package = next(filter(version_of, DALI_PACKAGES), DALI_PACKAGES[0])
    return DALI._replace(modules=dict.fromkeys([package], "nvidia.dali"))


EXTRAS: Final = (DALI, DECODERS, FAST, DASK, ONNX, DICOM_OUT, PACS, TENSORBOARD)

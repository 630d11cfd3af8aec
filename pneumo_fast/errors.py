"""Every error this package raises on purpose, in one tree.

::

    PneumoError                 base: one line for people; the command line exits with ``exit_code``
    ├── ConfigError             an option has a value that cannot work (exit code 2)
    ├── LabelError              a label, class or group table cannot be used
    ├── RejectedImageError      one file is not one usable radiograph; carries a reason code
    ├── ConvertError            a conversion cannot start or cannot go on
    ├── DatasetError            a dataset folder is missing, damaged or of another version
    ├── DeviceError             a device or a library for it is asked for and not there
    ├── ExportError             a model cannot be exported, or does not agree with PyTorch afterwards
    ├── PacsError               a DICOM node or a DICOMweb server refuses, is not there or answers with what it must not
    ├── PredictError            new files cannot be scored, or too many of them were rejected
    ├── RunError                a run folder or checkpoint is missing, damaged or does not fit
    └── TrainingError           training went wrong, for instance a loss that is no number
        └── TrainingStoppedError    a signal asked for it, and the state is saved (exit code 128 + its number)

A message says what is wrong, where, the value found and what to do about it. It never quotes a value of a
DICOM file's patient module.
"""

from __future__ import annotations


class PneumoError(Exception):
    """Base of every error that a person can cause and mend."""

    exit_code = 1


class ConfigError(PneumoError):
    """An option has a value that cannot work, alone or beside another option."""

    exit_code = 2


class LabelError(PneumoError):
    """A label, class or group table cannot be used; the message names row and column."""


class RejectedImageError(PneumoError):
    """One file is not one usable radiograph.

    Parameters
    ----------
    reason : str
        A short code for counting, for instance ``not_dicom``; :data:`pneumo_fast.radiograph.rejection.REASONS` has
        them all.
    detail : str
        What was found, for people; free of patient data.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[RejectedImageError], tuple[str, str]]:
        """Pickle by the two arguments, so that the error crosses a process boundary."""
        return type(self), (self.reason, self.detail)


class ConvertError(PneumoError):
    """A conversion cannot start or cannot go on."""


class DatasetError(PneumoError):
    """A dataset folder is missing, damaged or of another format version."""


class DeviceError(PneumoError):
    """A device, or a library for it, is asked for and not there."""


class ExportError(PneumoError):
    """A model cannot be exported, or the exported one does not agree with PyTorch; nothing was written."""


class PacsError(PneumoError):
    """A DICOM node or a DICOMweb server refuses, is not there, or answers with what it must not."""


class PredictError(PneumoError):
    """New files cannot be scored, too many of them were rejected, or the folder to write is taken."""


class RunError(PneumoError):
    """A run folder or a checkpoint is missing, damaged or does not fit."""


class TrainingError(PneumoError):
    """Training went wrong; the last good checkpoint is kept."""


class TrainingStoppedError(TrainingError):
    """A signal asked training to stop, and its state is saved.

    Parameters
    ----------
    signal_number : int
        Which signal; the command line exits with 128 more, as shells report it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error says that there was no memory, as Python says it or as PyTorch does on a CPU or a GPU."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
    )

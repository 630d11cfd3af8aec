"""What a decoder raises becomes a rejection."""

from __future__ import annotations

import pytest

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.rejection import rejecting


def test_panic_of_a_rust_decoder_is_a_rejection() -> None:
    class Panic(BaseException):  # as pyo3_runtime.PanicException, which cannot be imported
        pass

    with pytest.raises(RejectedImageError, match=r"corrupt: damaged \(Panic\)"), rejecting("corrupt", "damaged"):
        raise Panic

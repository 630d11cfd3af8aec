"""Images as they are stored, read into memory that a device fetches them from."""

from __future__ import annotations

import numpy as np

from pneumo_fast.dataset.npy import Images
from pneumo_fast.loading.engines.fused import compiled_kernels
from pneumo_fast.loading.reader import ShardReader
from pneumo_fast.loading.rng import Rows


class StoredImages:
    """Reads images of a split; safe to use from several threads.

    With numba (extra ``fast``) a compiled kernel reads a whole batch without the GIL, as soon as it is loaded: threads
    that read by Python wait for each other, so that two of them are no faster than one (``docs/experiments.md``).
    """

    def __init__(self, reader: ShardReader) -> None:
        self._reader = reader
        self._loading = compiled_kernels(8 * reader.dtype.itemsize)

    def read_into(self, rows: Rows, out: Images) -> None:
        """Does what :meth:`pneumo_fast.loading.reader.ShardReader.read_into` does."""
        kernels = self._loading.result() if self._loading.done() else None
        if kernels is None:
            self._reader.read_into(rows, out)
            return
        places = self._reader.locate(rows)
        images = out.reshape(len(out), -1).view(np.uint16 if out.dtype == np.float16 else np.uint8)
        row = 0
        while row < len(rows):
            row += kernels.read(places.descriptor[row:], places.offset[row:], images[row:])
            if row < len(rows):  # a file that is not kept open; or a short read or wild value, which becomes an error
                self._reader.read_into(rows[row : row + 1], out[row : row + 1])
                row += 1
        self._reader.check_unchanged(places)

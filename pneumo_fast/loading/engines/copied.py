"""A CPU engine's batches, copied to a GPU: without DALI, with ``--loader fused``, and of datasets of layout source."""

from __future__ import annotations

import torch

from pneumo_fast.loading.engines.base import Batch, Engine


class CopiedEngine:
    """Copies the batches of an engine that makes them on the CPU.

    Parameters
    ----------
    engine : Engine
        On the CPU.
    device : torch.device
        Where the batches go.
    """

    def __init__(self, engine: Engine, device: torch.device) -> None:
        self._engine, self._device = engine, device
        self.begin, self.end, self.close = engine.begin, engine.end, engine.close

    def next(self) -> Batch:
        """See :class:`pneumo_fast.loading.engines.base.Engine`."""
        images, labels = self._engine.next()
        return images.to(self._device), labels.to(self._device)

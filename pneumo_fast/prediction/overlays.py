"""Draws Grad-CAM over the images that were scored."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pneumo_fast.dataset.npy import Images
from pneumo_fast.drawing.heat_maps import draw_overlay
from pneumo_fast.errors import PredictError
from pneumo_fast.explanation.cam import class_maps, default_layer, enlarge, map_layers
from pneumo_fast.prediction.model import Model


class Overlays:
    """Makes overlays with one model; of several runs the map is the mean of theirs, each scaled to a maximum of 1."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._layers = [self._layer_of(run) for run in range(len(model.members))]

    def draw(self, stored: Images, title: str, image_id: str) -> bytes:
        """A PNG of one image, float16 or uint8 (size, size), alone and under its map."""
        batch = self._model.batch(stored[None])
        heat = np.mean([self._map(run, batch) for run in range(len(self._layers))], axis=0)
        return draw_overlay(batch[0, 0].cpu().numpy(), heat, (), title, image_id)

    def _map(self, run: int, batch: torch.Tensor) -> NDArray[np.float32]:
        network, normalized = self._network(run, batch)
        _, maps = class_maps(network, self._layers[run], normalized, "gradcam")
        large = enlarge(maps, self._model.size)[0].cpu().numpy()
        return np.asarray(large / (large.max() or 1.0), dtype=np.float32)

    def _layer_of(self, run: int) -> str:
        size = self._model.size
        layers = map_layers(*self._network(run, torch.zeros(1, 1, size, size, device=self._model.device)))
        if not layers:
            raise PredictError(
                f"no layer of model {self._model.members[run].identity.arch!r} gives a square map of images of {size} "
                "pixels: it can score them without --explain and DICOM results"
            )
        return default_layer(layers)

    def _network(self, run: int, batch: torch.Tensor) -> tuple[torch.nn.Module, torch.Tensor]:
        identity = self._model.members[run].identity
        return self._model.ensemble.models[run], (batch - identity.mean) / identity.std

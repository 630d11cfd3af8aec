"""Makes the maps of a split's images, of the judged model and of one with random weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from pneumo_fast.errors import ConfigError
from pneumo_fast.evaluation.inference import Judged
from pneumo_fast.explanation.cam import class_maps, default_layer, map_layers
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.loading.sources import open_reader
from pneumo_fast.run.model import build_model


class Maps:
    """Makes maps of a split's images, batch by batch.

    Parameters
    ----------
    rows : DataFrame
        Rows of the index of the split.
    """

    def __init__(self, judged: Judged, rows: pd.DataFrame, config: ExplainConfig) -> None:
        self.judged, self.rows, self.size = judged, rows, judged.dataset.size
        self._method, self._batch_size = config.method, config.batch_size
        self._reader = open_reader(judged.dataset, rows)
        self._judges = judged.judges(config.split)
        black = torch.zeros(1, 1, self.size, self.size, device=judged.device)
        layers = map_layers(judged.models[0].network, black)
        if not layers:
            raise ConfigError(
                f"no layer of model {judged.checkpoint.arch!r} gives a square map of images of {self.size} pixels: "
                f"convert larger images (--size), or train another --model than that of {config.run}, such as resnet18"
            )
        if config.layer and config.layer not in layers:
            raise ConfigError(f"layer {config.layer!r} gives no map: use one of {', '.join(layers)}")
        self.layer = config.layer or default_layer(layers)
        self.map_size = layers[self.layer]

    def __call__(
        self, chosen: NDArray[np.int64], model: nn.Module | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Maps (n, h, w) of some rows, as (rows, maps) for each batch; each of the model that judges the image.

        Parameters
        ----------
        model : nn.Module, optional
            Another one of the same kind, to take for every image.
        """
        for start in range(0, len(chosen), self._batch_size):
            batch = chosen[start : start + self._batch_size]
            judges, maps = self._judges[batch], np.empty((len(batch), *self.map_size), dtype=np.float32)
            for number in np.unique(judges).tolist():
                mine, network = judges == number, model or self.judged.models[number].network
                _, found = class_maps(network, self.layer, self._normalized(batch[mine]), self._method)
                if found.shape[1:] != self.map_size:  # numpy would repeat a smaller one
                    raise ConfigError(
                        f"layer {self.layer!r} gives a map of {tuple(found.shape[1:])} places, {self.map_size} "
                        "expected: use another --layer"
                    )
                maps[mine] = found.cpu().numpy()
            yield batch, maps

    def logits(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits of some rows, shape (n,), each of the model that judges the image."""
        judges, logits = self._judges[chosen], np.empty(len(chosen), dtype=np.float32)
        for place, (row, number) in enumerate(zip(chosen, judges, strict=True)):
            with torch.inference_mode():
                logits[place] = self.judged.models[number].network(self._normalized(row[None])).item()
        return logits

    def close(self) -> None:
        """Close the dataset's files; no map may be made afterwards."""
        self._reader.close()

    def images(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Images (n, size, size) of some rows, in [0, 1]."""
        return self._reader.read_unit(chosen)

    def _normalized(self, chosen: NDArray[np.int64]) -> torch.Tensor:
        images, checkpoint = torch.from_numpy(self.images(chosen))[:, None], self.judged.checkpoint
        return ((images - checkpoint.mean) / checkpoint.std).to(self.judged.device)

    def random_model(self, chosen: NDArray[np.int64], seed: int) -> nn.Module:
        """The same network with new weights, whose BatchNorm statistics are those of some images."""
        with torch.random.fork_rng():
            torch.manual_seed(abs(seed))
            model = build_model(self.judged.checkpoint.arch).to(self.judged.device)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # so that one pass over the images sets them
        several = chosen if len(chosen) > 1 else np.repeat(chosen, 2)  # BatchNorm learns nothing from a single value
        with torch.no_grad():
            model.train()(self._normalized(several))
        return model.eval()

"""What a configuration asks for: in which order rows come, and which engine delivers them."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace

import pandas as pd
import torch

from pneumo_fast.devices import device_memory
from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.engines.base import Engine, Feed
from pneumo_fast.loading.engines.copied import CopiedEngine
from pneumo_fast.loading.engines.fused import FusedEngine
from pneumo_fast.loading.engines.resident import resident_engine, split_bytes
from pneumo_fast.loading.engines.source import SourceEngine
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.loading.samplers import (
    Sampler,
    Sequential,
    Shares,
    Shuffle,
    Weighted,
    Windowed,
    balanced_weights,
    shard_sizes,
)
from pneumo_fast.loading.sources import SourceReader
from pneumo_fast.vocabulary import EngineName

logger = logging.getLogger(__name__)


def make_sampler(config: LoadConfig, rows: pd.DataFrame) -> Sampler:
    """The order that is asked for; ConfigError if these rows of the index do not allow it."""
    if config.parts and config.order != "shuffle":
        raise ConfigError(f"order {config.order} with shares of several datasets: only shuffle can take shares")
    if config.parts and (
        sum(part.rows for part in config.parts) != len(rows) or any(p.used > p.rows for p in config.parts)
    ):
        raise ConfigError(f"the parts {config.parts} are not those of {len(rows)} images")
    if config.order == "shuffle":
        return Shares(config.parts, config.seed) if config.parts else Shuffle(len(rows), config.seed)
    if config.order == "weighted":
        if config.balance not in rows:
            raise ConfigError(f"no column {config.balance!r} to balance: the index has {', '.join(rows.columns)}")
        return Weighted(balanced_weights(rows[config.balance].to_numpy()), config.seed)
    if config.order == "windowed":
        return Windowed(shard_sizes(rows["shard"].to_numpy()), config.window, config.seed)
    return Sequential(len(rows))


def choose_engine(config: LoadConfig, feed: Feed) -> EngineName:
    """The engine that is asked for, or the one that suits the device and its memory."""
    from_source = isinstance(feed.reader, SourceReader)
    if config.engine != "auto" and from_source != (config.engine == "source"):
        where = "in the source files: use loader source" if from_source else "stored: use another loader than source"
        raise ConfigError(f"loader {config.engine} of images whose pixels are {where}, or auto")
    if from_source and feed.rank.world_size > 1:
        raise ConfigError("source files in several processes: convert the images first")
    if from_source or config.engine != "auto":
        return "source" if from_source else config.engine
    free, whole = device_memory(feed.device)
    if split_bytes(feed) <= min(free, config.resident_share * whole):
        return "resident"
    if feed.device.type == "cpu":
        return "fused"
    if importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali"):
        return "dali"
    logger.warning("NVIDIA DALI is not installed: batches are made on the CPU and copied to %s", feed.device)
    return "fused"


def source_engine(feed: Feed) -> SourceEngine | None:
    """The engine that decodes source files, on the CPU; None where images are stored."""
    if not isinstance(feed.reader, SourceReader):
        return None
    return SourceEngine(replace(feed, device=torch.device("cpu")), feed.reader, feed.device)


def open_engine(engine: EngineName, feed: Feed, sources: SourceEngine | None) -> Engine:
    """An engine, opened; it may raise what its class does, or DeviceError where DALI is not installed."""
    if sources:
        return sources if feed.device.type == "cpu" else CopiedEngine(sources, feed.device)
    if engine == "resident":
        return resident_engine(feed)
    if engine == "fused":
        if feed.device.type == "cpu":
            return FusedEngine(feed)
        return CopiedEngine(FusedEngine(replace(feed, device=torch.device("cpu"))), feed.device)
    from pneumo_fast.loading.engines.dali import DaliEngine  # noqa: PLC0415  # DALI takes half a second to import, and may be missing

    return DaliEngine(feed)

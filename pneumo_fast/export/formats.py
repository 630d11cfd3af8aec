"""The two formats: how a model becomes a file of bytes, and how that file is run again."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, BinaryIO, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pneumo_fast.errors import ExportError
from pneumo_fast.extras import ONNX
from pneumo_fast.quiet import quiet
from pneumo_fast.vocabulary import ExportFormat

Images = NDArray[np.float32]
Run = Callable[[Images], list[NDArray[np.float32]]]
"""Images, shape (N, 1, size, size), to the outputs, each of shape (N,)."""

INPUT: Final = "image"
BATCH: Final = "batch"
METADATA: Final = "pneumo_fast.json"
"""The extra file of a ``.pt2`` that holds the metadata."""
RUNTIMES: Final[dict[ExportFormat, str]] = {"onnx": "onnxruntime", "torch": "torch.export"}
_quietly: Final = partial(quiet, "torch", "onnxscript", "onnx_ir", below=logging.ERROR)
LARGEST_ONNX: Final = 2**31 - 2**24
"""Bytes of weights; a protocol buffer holds less than 2 GiB, the graph included."""


def check_installed(name: ExportFormat) -> None:
    """Look for the packages that a format needs.

    Raises
    ------
    ExportError
        If one is not installed.
    """
    for package in ONNX.modules if name == "onnx" else ():
        try:
            import_module(package)
        except ImportError as error:
            raise ExportError(f"{ONNX.needed_by(f'--format {name}', package)}, or use --format torch") from error


def trace(model: nn.Module, size: int) -> torch.export.ExportedProgram:
    """A model as a graph, for any number of images, without paths of this machine.

    Raises
    ------
    ExportError
        If PyTorch cannot trace it.
    """
    # of zeros, since the file keeps it; of two images, since the batch size of a single one would be taken as fixed
    example = torch.zeros(2, 1, size, size)
    dynamic = ({0: torch.export.Dim(BATCH, min=1)},)
    with _quietly():
        try:
            program = torch.export.export(model, (example,), dynamic_shapes=dynamic)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ExportError(
                f"PyTorch cannot export the model ({_first_line(error)}): use resnet18, for instance"
            ) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def serialize(
    name: ExportFormat, program: torch.export.ExportedProgram, outputs: Sequence[str], metadata: dict[str, str]
) -> bytes:
    """A traced model as the bytes of a file; the same model gives the same bytes.

    Raises
    ------
    ExportError
        If the format cannot hold the model.
    """
    with _quietly():
        return _to_onnx(program, outputs, metadata) if name == "onnx" else _to_torch(program, metadata)


def load(name: ExportFormat, file: BinaryIO) -> Run:
    """A function that runs a written file, on the CPU."""
    with _quietly():
        return _run_onnx(file.name) if name == "onnx" else _run_torch(file)


def _to_onnx(program: torch.export.ExportedProgram, outputs: Sequence[str], metadata: dict[str, str]) -> bytes:
    weights = sum(value.nbytes for value in program.state_dict.values())
    if weights > LARGEST_ONNX:
        raise ExportError(
            f"a model of {weights / 1e9:.1f} GB does not fit into one ONNX file (2 GiB): use --format torch"
        )
    try:
        exported = torch.onnx.export(
            program, (), dynamo=True, verbose=False, external_data=False,
            input_names=[INPUT], output_names=list(outputs),
        )  # fmt: skip
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportError(
            f"PyTorch cannot convert the model to ONNX ({_first_line(error)}): use --format torch"
        ) from error
    assert exported is not None  # noqa: S101  # with dynamo
    proto = exported.model_proto
    del proto.graph.value_info[:]  # of what is between; runtimes work it out, and it holds PyTorch's own names
    for node in proto.graph.node:
        del node.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    for key, text in metadata.items():
        proto.metadata_props.add(key=key, value=text)
    return bytes(proto.SerializeToString(deterministic=True))


def _to_torch(program: torch.export.ExportedProgram, metadata: dict[str, str]) -> bytes:
    buffer = io.BytesIO()  # a file would give its temporary name to the folder within the archive
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(metadata, indent=1)})
    return buffer.getvalue()


def _run_onnx(path: str) -> Run:
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: list(session.run(None, {INPUT: images}))


def _run_torch(file: BinaryIO) -> Run:
    file.seek(0)
    model = torch.export.load(io.BytesIO(file.read())).module()

    def run(images: Images) -> list[NDArray[np.float32]]:
        with torch.inference_mode():
            return [output.numpy() for output in model(torch.from_numpy(images))]

    return run


def _first_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]

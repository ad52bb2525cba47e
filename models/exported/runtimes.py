"""Running exported models: onnxruntime and OpenVINO behind one face.

Both use as many threads as torch does in this process, and their threads sleep while they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import CheckpointError, InputError
from .manifest import PACKAGES, Runtime, missing_package

if TYPE_CHECKING:
    import onnx

Arrays = Mapping[str, NDArray[np.float32]]
Run = Callable[[Arrays], list[NDArray[np.float32]]]

_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


def require(*modules: str) -> list[ModuleType]:
    """Import packages that come with the extra.

    Raises:
        InputError: One is not installed.
    """
    try:
        return [import_module(name) for name in modules]
    except ImportError as error:
        raise missing_package(error.name or modules[0]) from error


def open_model(
    path: Path, runtime: Runtime, outputs: Sequence[str], dtype: torch.dtype = torch.float32
) -> Run:
    """Open a model and return the function that runs it.

    Args:
        path: File of the model.
        runtime: What runs it.
        outputs: Names of the outputs that are wanted; others are not computed.
        dtype: Type that OpenVINO computes in; onnxruntime has float32 alone.

    Raises:
        InputError: The runtime is not installed, or does not compute in ``dtype`` here.
        CheckpointError: The file is not a model, or lacks an output.
    """
    open_here = _open_onnx if runtime == "onnx" else _open_openvino
    if dtype not in _HINTS or (runtime == "onnx" and dtype != torch.float32):
        name = str(dtype).removeprefix("torch.")
        raise InputError(
            f"{PACKAGES[runtime][0]} does not run models in {name} here; use dtype='fp32'"
        )
    require(*PACKAGES[runtime])
    try:
        return open_here(path, outputs, dtype)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise CheckpointError(
            f"{PACKAGES[runtime][0]} cannot open {str(path)!r} ({reason}); export the model again"
        ) from error


def _open_onnx(path: Path, outputs: Sequence[str], dtype: torch.dtype) -> Run:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        model = _keep_outputs(onnx.load(path), outputs)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # classes of onnxruntime and protobuf, with no common base
        raise ValueError(str(error)) from error
    taken = {item.name for item in session.get_inputs()}

    def run(inputs: Arrays) -> list[NDArray[np.float32]]:
        given = {name: value for name, value in inputs.items() if name in taken}
        return session.run(list(outputs), given)

    return run


def _keep_outputs(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """Leave out what only other outputs need: onnxruntime would compute it all the same."""
    import onnx

    if {output.name for output in model.graph.output} == set(outputs):
        return model
    names = [item.name for item in model.graph.input]
    kept = onnx.utils.Extractor(model).extract_model(names, list(outputs))
    used = {name for node in kept.graph.node for name in node.input}
    for item in [item for item in kept.graph.input if item.name not in used]:
        kept.graph.input.remove(item)
    return kept


def _open_openvino(path: Path, outputs: Sequence[str], dtype: torch.dtype) -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    for result in list(model.get_results()):
        if not result.input_value(0).names & set(outputs):
            model.remove_result(result)
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": _HINTS[dtype],
    }
    compiled = core.compile_model(model, "CPU", settings)
    request, lock = compiled.create_infer_request(), Lock()
    taken = {name for item in compiled.inputs for name in item.names}

    def run(inputs: Arrays) -> list[NDArray[np.float32]]:
        given = {name: value for name, value in inputs.items() if name in taken}
        with lock:
            request.infer(given, share_inputs=True)
            return [request.get_tensor(name).data.copy() for name in outputs]

    return run

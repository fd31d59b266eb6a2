"""The parts of contenders that most cases share: a torch module, and its ONNX file in onnxruntime and OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .case import Contender, File, Setting, Work

if TYPE_CHECKING:
    from torch import nn

Inputs = Callable[[], Mapping[str, np.ndarray]]  # by the names of the module's parameters, in order
Shaped = Callable[[np.ndarray], np.ndarray]  # an answer as the case has it


def _same(answer: np.ndarray) -> np.ndarray:
    return answer


def of_torch(make: Callable[[], nn.Module], inputs: Inputs, *, dtype: str = "float32", shaped: Shaped = _same,
             channels_last: bool = False) -> Contender:  # fmt: skip
    """The module, eager, in inference mode."""

    def contender(setting: Setting) -> Work:
        import torch

        module = make().eval().to(getattr(torch, dtype))
        given = [torch.from_numpy(value) for value in inputs().values()]
        given = [value.to(getattr(torch, dtype)) if value.is_floating_point() else value for value in given]
        if channels_last:
            module = module.to(memory_format=torch.channels_last)
            given = [value.to(memory_format=torch.channels_last) for value in given]

        def call() -> Any:
            with torch.inference_mode():
                return module(*given)

        return Work(call, lambda: shaped(_first(call()).float().numpy()))

    return contender


def export(make: Callable[[], nn.Module], inputs: Inputs) -> File:
    """The module's ONNX file."""

    def write(path: Path) -> None:
        import torch

        given = inputs()
        # the exporter of TorchScript: the newer one wants a package more, and gives these runtimes the same graphs
        torch.onnx.export(make().eval(), tuple(torch.from_numpy(value) for value in given.values()), str(path),
                          input_names=list(given), opset_version=17, dynamo=False)  # fmt: skip

    return File(write)


def of_onnxruntime(inputs: Inputs, *, file: str = "model", shaped: Shaped = _same) -> Contender:
    """A session with its inputs and outputs bound, which is its fastest way to be called."""

    def contender(setting: Setting) -> Work:
        session = onnxruntime_session(setting, file)
        binding = session.io_binding()
        given = inputs()
        for name, value in given.items():  # read where they are
            binding.bind_cpu_input(name, value)
        for output in session.get_outputs():
            if all(isinstance(length, int) for length in output.shape):  # memory of ours, as out= is
                _bind_ours(binding, output)
            else:
                binding.bind_output(output.name)

        def call(given: object = given) -> None:
            session.run_with_iobinding(binding)

        return Work(call, lambda: shaped(binding.get_outputs()[0].numpy()))

    return contender


def _bind_ours(binding: Any, output: Any) -> None:
    import onnxruntime

    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output.shape, kinds[output.type], "cpu", 0)
    binding.bind_ortvalue_output(output.name, value)


def onnxruntime_session(setting: Setting, file: str = "model") -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        setting.folder / f"{file}.onnx", options, providers=["CPUExecutionProvider"]
    )  # fmt: skip


def of_openvino(inputs: Inputs, *, file: str = "model", shaped: Shaped = _same) -> Contender:
    """One inference request, called again and again; float32, which OpenVINO would else narrow where it can."""

    def contender(setting: Setting) -> Work:
        import openvino

        request = openvino_model(setting, file).create_infer_request()
        given = {name: openvino.Tensor(value, shared_memory=True) for name, value in inputs().items()}
        for name, tensor in given.items():
            request.set_tensor(name, tensor)

        def call(given: object = given) -> None:  # whose memory nobody else keeps
            request.infer()

        return Work(call, lambda: shaped(request.get_output_tensor(0).data))

    return contender


def openvino_model(setting: Setting, file: str = "model") -> Any:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": setting.threads, "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip
    return core.compile_model(core.read_model(setting.folder / f"{file}.onnx"), "CPU", settings)


def of_anex(make: Callable[[str], Any], inputs: Inputs, *, dtype: str = "float16", shaped: Shaped = _same) -> Contender:
    """The MIL program that ``make`` gives for a dtype, compiled; called into outputs that are there already."""

    def contender(setting: Setting) -> Work:
        import anex

        program = anex.compile(make(dtype))
        specs = program.inputs.values()
        given = [anex.tensor(value, dtype=spec.dtype) for value, spec in zip(inputs().values(), specs, strict=True)]
        outputs = [anex.empty_like(spec) for spec in program.outputs.values()]
        out = outputs[0] if len(outputs) == 1 else tuple(outputs)
        call: Callable[[], object] = lambda: program(*given, out=out)  # noqa: E731
        if len(given) == 2:  # as it is written by hand, and as numpy is called
            x, y = given
            call = lambda: program(x, y, out=out)  # noqa: E731
        elif len(given) == 1:
            (x,) = given
            call = lambda: program(x, out=out)  # noqa: E731
        return Work(call, lambda: shaped(np.asarray(outputs[0])))

    return contender


def of_numpy(function: Callable[..., np.ndarray], inputs: Inputs, *, shaped: Shaped = _same) -> Contender:
    def contender(setting: Setting) -> Work:
        given = list(inputs().values())
        return Work(lambda: function(*given), lambda: shaped(function(*given)))

    return contender


def _first(result: Any) -> Any:
    return next(iter(result)) if isinstance(result, (tuple, list)) else result


def lambda_module(forward: Callable[..., Any], **weights: np.ndarray) -> nn.Module:
    """``forward(*inputs, **weights)`` as a module, for functions that need no class."""
    import torch

    class Lambda(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in weights.items():
                self.register_buffer(name, torch.from_numpy(value))

        def forward(self, *inputs: Any) -> Any:
            return forward(*inputs, **{name: getattr(self, name) for name in weights})

    return Lambda()

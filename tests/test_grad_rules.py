"""Every gradient rule against torch's autograd in float64, and that against differences of its own forward."""

import warnings

import numpy as np
import pytest
import torch
from gradients import CASES
from harness import build

import anex
from anex import devices
from anex.devices.cpu import kernels
from anex.ops import OPS
from anex.ops.gradient import NoGradient
from anex.ops.record import dtype_name


def cast(value, dtype):
    """Floats in ``dtype``: arrays and numbers, and lists of arrays."""
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return [cast(item, dtype) for item in value]
    if isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
        return np.asarray(value).astype(dtype)[()]
    return value


def program_of(case, dtype):
    """The op alone, and its float inputs and others, by the names that its program gives them."""
    given = {key: v if key.startswith("scale_factor") else cast(v, dtype) for key, v in case.given.items()}
    floats = {key: cast(v, dtype) for key, v in case.floats.items()}
    program = build(case.op, {**floats, **given}, case.constants, case.opset)
    for i, var in enumerate(program.functions["main"].outputs):
        var.name = f"out{i}"  # inputs may be called y
    names = list(program.functions["main"].inputs)
    arrays = dict(zip(names, program.test_inputs, strict=True))
    wrt = []
    for key, value in floats.items():
        wrt += [f"{key}_{i}" for i in range(len(value))] if isinstance(value, list) else [key]
    return program, arrays, wrt


def tensors_of(case, dtype):
    flat = [v for value in case.floats.values() for v in (value if isinstance(value, list) else [value])]
    return [torch.tensor(np.asarray(v).astype(dtype).astype(np.float64), requires_grad=True) for v in flat]


def outputs_of(case, tensors):
    made = case.torch(*tensors)
    return list(made) if isinstance(made, (list, tuple)) else [made]


def float_outputs(program):
    return [v.name for v in program.functions["main"].outputs if dtype_name(v) in ("fp16", "fp32")]


# The Neural Engine computes in float16, and some ops have one dtype.
EVERYWHERE = [
    pytest.param(name, device, dtype, id=f"{name} {device} {dtype}")
    for name, case in CASES.items()
    for device in devices.available()
    for dtype in case.dtypes
    if device != "ane" or dtype == "float16"
]


@pytest.mark.parametrize(("name", "device", "dtype"), EVERYWHERE)
def test_gradients_are_torch_s(name, device, dtype):
    case = CASES[name]
    arithmetic = "float16" if device == "ane" else dtype
    program, arrays, wrt = program_of(case, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", anex.AneWarning)
        back = anex.compile(anex.vjp(program, wrt), device=device)
    tensors = tensors_of(case, dtype)
    wanted = outputs_of(case, tensors)
    rng = np.random.default_rng(1)
    dys = [rng.normal(size=tuple(y.shape)) for y in wanted]
    cotangents = {
        f"grad_{out}": dy.astype(back.inputs[f"grad_{out}"].dtype)
        for out, dy in zip(float_outputs(program), dys, strict=False)
    }
    results = back(**arrays, **cotangents)
    found = dict(zip(back.outputs, results, strict=True))
    for out, y in zip(float_outputs(program), wanted, strict=False):
        close(np.asarray(found[out]), y.detach().numpy(), case, arithmetic, f"{name}: output {out}")
    rounded = [torch.tensor(dy.astype(arithmetic).astype(np.float64)) for dy in dys]
    expected = torch.autograd.grad(wanted, tensors, rounded)
    for key, gradient in zip(wrt, expected, strict=True):
        close(np.asarray(found[f"grad_{key}"]), gradient.numpy(), case, arithmetic, f"{name}: gradient of {key}")


def close(found, wanted, case, dtype, what):
    assert found.shape == wanted.shape, what
    rtol = case.half if dtype == "float16" else case.rtol
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=rtol, atol=rtol * scale, err_msg=what)


@pytest.mark.parametrize("name", [name for name in CASES if name != "maximum of equals"])  # torch's convention
def test_what_they_are_compared_with_agrees_with_differences(name):
    """In float64, of the function that the forward was compared with."""
    case = CASES[name]
    tensors = tensors_of(case, "float64")
    assert torch.autograd.gradcheck(
        lambda *given: tuple(outputs_of(case, given)), tensors, eps=1e-6, atol=1e-5, fast_mode=True
    )


def test_every_op_has_a_rule_or_says_why_not():
    without = {name: op.vjp.reason for name, op in OPS.items() if isinstance(op.vjp, NoGradient)}
    assert all(len(reason) > 20 for reason in without.values())
    assert set(OPS) >= {name for name in kernels() if not name.startswith("anex_")}
    covered = {case.op for case in CASES.values()} | {"cond"}  # tests/test_grad.py has cond
    assert covered == set(OPS) - set(without)

"""anex.from_torch on ops that coremltools converts wrongly or not at all: what torch computes comes out."""

import numpy as np
import pytest
import torch

import anex


class Calls(torch.nn.Module):
    """A module of one expression."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *x):
        return self.function(*x)


def results(module, *tensors):
    """What anex gives for the module's program, and torch for the module."""
    examples = {f"x{i}": tensor for i, tensor in enumerate(tensors)}
    with anex.compile(anex.from_torch(module, precision="float32", **examples), device="cpu") as program:
        found = program(
            *(x.numpy().astype(spec.dtype) for x, spec in zip(tensors, program.inputs.values(), strict=True))
        )
    with torch.no_grad():
        wanted = module(*tensors)
    return (np.array(each) for each in (found, wanted))


def agrees(module, *tensors):
    found, wanted = results(module.eval(), *tensors)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "function",
    [
        torch.argmax,
        torch.argmin,
        lambda x: torch.argmax(x, keepdim=True),
        lambda x: torch.argmax(x, 0),
        lambda x: x.argmax() // 3,
    ],
)
def test_the_largest_of_all_elements_is_counted_through_all(function):
    agrees(Calls(function), values(3, 4))


def test_a_reciprocal_has_no_epsilon():
    agrees(Calls(torch.reciprocal), torch.tensor([0.01, -0.02, 0.5, 1e3]))


@pytest.mark.parametrize(("left", "right"), [((3, 4), (4,)), ((2, 3, 4), (4,)), ((4,), (4,)), ((4,), (4, 3))])
def test_a_matrix_times_a_vector_is_a_vector(left, right):
    agrees(Calls(torch.matmul), values(*left), values(*right, seed=1))


def test_an_instance_norm_with_running_statistics_takes_them():
    norm = torch.nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
    norm.running_mean += values(3)
    norm.running_var += values(3, seed=1).abs()
    agrees(norm, values(2, 3, 4, 5))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x: torch.nn.functional.interpolate(x, scale_factor=2, mode="bicubic"), [(1, 2, 4, 5)]),
        (lambda x: torch.rsub(x, 3, alpha=2), [(3,)]),
        (lambda x, y: torch.add(x, y, alpha=2), [(3,), (3,)]),
        (lambda x, y: torch.sub(x, y, alpha=0.5), [(2, 3), (3,)]),
        (torch.nn.functional.celu, [(2, 3)]),
        (lambda x: torch.nn.functional.celu(x, 2.0), [(2, 3)]),
        (lambda x, y: torch.lerp(x, y, 0.25), [(3,), (3,)]),
        (lambda x: torch.trunc(3 * x), [(7,)]),
        (lambda x: torch.prod(x, 1), [(2, 3)]),
        (lambda x: torch.movedim(x, 0, 2), [(2, 3, 4)]),
        (lambda x: torch.isinf(x / torch.relu(x)), [(9,)]),
        (torch.asinh, [(9,)]),
        (torch.erfc, [(9,)]),
        (lambda x, y: torch.index_copy(x, 0, torch.tensor([2, 0]), y), [(3, 4), (2, 4)]),
    ],
)
def test_what_coremltools_has_no_conversion_of_is_taken_apart(function, shapes):
    agrees(Calls(function), *(values(*shape, seed=i) for i, shape in enumerate(shapes)))


@pytest.mark.parametrize("cell", [torch.nn.GRUCell, torch.nn.RNNCell])
def test_cells_of_recurrent_layers_are_converted(cell):
    agrees(cell(5, 6), values(3, 5))


def test_a_recurrent_layer_of_both_directions_without_gates_is_converted():
    module = Calls(lambda x: module.layer(x)[0])
    module.layer = torch.nn.RNN(5, 6, bidirectional=True)
    agrees(module, values(3, 2, 5))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.nn.functional.selu(x),
        lambda x: torch.sub(x, x * x, alpha=2),
        lambda x: torch.rsub(x, 1, alpha=3),
        torch.reciprocal,
    ],
)
@pytest.mark.parametrize("core", [False, True])
def test_an_exported_program_is_what_the_module_is_with_the_factors_of_its_ops(function, core):
    x = values(2, 5)
    exported = torch.export.export(Calls(function), (x,))
    program = anex.compile(
        anex.from_torch(exported.run_decompositions() if core else exported, precision="float32"), device="cpu"
    )
    np.testing.assert_allclose(program(x.numpy()), function(x), rtol=1e-4, atol=1e-4)


def test_the_reason_is_the_first_where_taking_apart_does_not_help():
    with pytest.raises(anex.CompileError, match=r"lgamma.*not implemented"):
        anex.from_torch(Calls(torch.lgamma), x=(3,))

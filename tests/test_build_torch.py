"""anex.from_torch: torch modules to MIL programs."""

import collections

import coremltools as ct
import numpy as np
import pytest
import torch
from mil_facts import constants, inputs, main, names, ops, outputs

import anex
from anex import errors
from anex.build import from_torch

IDS = torch.tensor([1, 2])
Pair = collections.namedtuple("Pair", "left right")


class Model(torch.nn.Module):
    """A linear layer and an embedding; ``gives`` makes its result of x, ids and the hidden tensor."""

    def __init__(self, gives=lambda x, ids, hidden: hidden):
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)
        self.dropout = torch.nn.Dropout(0.5)
        self.table = torch.nn.Embedding(10, 8)
        self.gives = gives

    def forward(self, x, ids, scale=None):
        hidden = self.dropout(self.linear(x + self.table(ids)))
        return self.gives(x, ids, hidden if scale is None else hidden * scale)


def test_the_program_computes_what_torch_does():
    module = Model()
    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    with anex.compile(from_torch(module, x=(2, 8), ids=IDS, precision="float32")) as program:
        found = np.asarray(program(x.numpy(), IDS.numpy().astype(np.int32)))
    with torch.no_grad():
        np.testing.assert_allclose(found, module.eval()(x, IDS).numpy(), atol=1e-5)


def test_inputs_are_named_as_given_and_outputs_sensibly():
    program = from_torch(Model(), x=(2, 8), ids=IDS)
    assert inputs(program) == [("x", (2, 8), "fp16"), ("ids", (2,), "int32")]
    assert outputs(program) == [("output", (2, 4), "fp16")]
    assert main(program).opset_version == ct.target.iOS18


def test_names_that_are_not_the_parameters_stand_for_them_in_order():
    assert [name for name, *_ in inputs(from_torch(Model(), tokens=(2, 8), rows=IDS))] == ["tokens", "rows"]
    with pytest.raises(errors.ArgumentError, match=r"rows: not among.*x, ids, scale"):
        from_torch(Model(), x=(2, 8), rows=IDS)


def test_parameters_may_come_in_any_order_and_be_left_out():
    program = from_torch(Model(), scale=(1,), ids=IDS, x=(2, 8))
    assert [name for name, *_ in inputs(program)] == ["scale", "ids", "x"]


@pytest.mark.parametrize(
    ("gives", "expected"),
    [
        (lambda x, ids, hidden: (hidden, ids + 1), [("output_0", "fp16"), ("output_1", "int32")]),
        (lambda x, ids, hidden: {"last": hidden, "more": {"ids": ids}}, [("last", "fp16"), ("more_ids", "int32")]),
        (lambda x, ids, hidden: Pair(hidden, None), [("left", "fp16")]),
        (
            lambda x, ids, hidden: [hidden, (x, hidden)],
            [("output_0", "fp16"), ("output_1_0", "fp16"), ("output_1_1", "fp16")],
        ),
        (lambda x, ids, hidden: (x, ids, ids), [("output_0", "fp16"), ("output_1", "int32"), ("output_2", "int32")]),
        (lambda x, ids, hidden: hidden > 0, [("output", "bool")]),
    ],
)
def test_outputs_may_be_nested_be_inputs_and_stand_twice(gives, expected):
    program = from_torch(Model(gives), x=(2, 8), ids=IDS)
    assert [(name, dtype) for name, _, dtype in outputs(program)] == expected
    assert [name for name, *_ in inputs(program)] == ["x", "ids"]


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ((2, 8), "fp16"),
        (torch.zeros(2, 8), "fp16"),
        (np.zeros((2, 8)), "fp16"),
        (torch.zeros(2, 8, dtype=torch.bfloat16), "fp16"),
        (anex.spec((2, 8), "float32"), "fp32"),
        (torch.zeros(2, 8, dtype=torch.int64), "int32"),
        (np.zeros((2, 8), np.int64), "int32"),
        (anex.spec((2, 8), "int32"), "int32"),
        (torch.zeros(2, 8, dtype=torch.bool), "bool"),
    ],
)
def test_an_example_says_shape_and_kind_and_a_spec_the_dtype(example, expected):
    class Double(torch.nn.Module):
        def forward(self, x):
            return torch.where(x > 0, x, x) if x.dtype == torch.bool else x * 2

    assert inputs(from_torch(Double(), x=example)) == [("x", (2, 8), expected)]


def test_precision_float32_is_float32_throughout():
    program = from_torch(Model(), precision="float32", x=(2, 8), ids=IDS)
    assert inputs(program)[0][2] == outputs(program)[0][2] == "fp32"
    assert "float16" not in {dtype for dtype, *_ in constants(program).values()}


def test_a_module_in_half_precision_is_converted_too():
    assert outputs(from_torch(Model().half(), x=(2, 8), ids=IDS)) == [("output", (2, 4), "fp16")]


def test_the_module_is_converted_in_eval_mode_and_left_as_it_was():
    module = Model().train()
    module.table.eval()
    program = from_torch(module, x=(2, 8), ids=IDS)
    assert "dropout" not in str(names(program)).lower()
    assert [part.training for part in module.modules()] == [True, True, True, False]
    with pytest.raises(errors.CompileError):
        from_torch(module, x=(2, 9), ids=IDS)
    assert module.training


def test_traced_scripted_and_exported_modules_are_the_same_program():
    module = Model().eval()
    example = (torch.zeros(2, 8), IDS)
    traced = from_torch(torch.jit.trace(module, example), x=(2, 8), ids=IDS)
    exported = torch.export.export(module, example)
    assert outputs(traced) == outputs(from_torch(module, x=(2, 8), ids=IDS))
    for program in (
        from_torch(exported),
        from_torch(exported, x=(2, 8), ids=IDS),
        from_torch(exported, ids=IDS, x=(2, 8)),
        from_torch(exported.run_decompositions({})),
    ):
        assert inputs(program) == inputs(traced)
        assert [kind for kind, *_ in ops(program)] == [kind for kind, *_ in ops(traced)]
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()))
    assert [kind for kind, *_ in ops(from_torch(scripted, x=(2, 8)))] == ["linear", "relu"]


def test_inputs_that_are_not_used_stay():
    class First(torch.nn.Module):
        def forward(self, x, y):
            return x * 2

    assert [name for name, *_ in inputs(from_torch(First(), x=(2,), y=(3,)))] == ["x", "y"]


@pytest.mark.parametrize(
    ("module", "examples", "error", "message"),
    [
        (Model(), {"x": (3, 9), "ids": IDS}, errors.CompileError, "Model.*traced: .*must match"),
        (Model(), {"x": (2, 8)}, errors.CompileError, "Model.*traced: .*ids"),
        (Model(lambda x, ids, hidden: "text"), {"x": (2, 8), "ids": IDS}, errors.CompileError, "returns str"),
        (Model(lambda x, ids, hidden: None), {"x": (2, 8), "ids": IDS}, errors.CompileError, "no tensor"),
        (
            Model(lambda x, ids, hidden: torch.special.airy_ai(hidden)),
            {"x": (2, 8), "ids": IDS},
            errors.CompileError,
            "Model.*converted: .*airy_ai",
        ),
        (torch.nn.ReLU(), {"x": anex.spec(3, "int8")}, errors.DTypeError, "'x' is int8"),
        (torch.nn.ReLU(), {"x": (0, 3)}, errors.ShapeError, "0 is not a size"),
        (torch.nn.ReLU(), {"x": torch.zeros(())}, errors.ShapeError, "rank 0"),
        (torch.nn.ReLU(), {"x": (3,), "precision": "int8"}, errors.ArgumentError, "precision 'int8'"),
        (torch.nn.ReLU(), {"x": (3,), "target": "iOS15"}, errors.CompileError, "iOS16"),
        (torch.nn.ReLU(), {"x": (3,), "target": "iOS3"}, errors.ArgumentError, "iOS3"),
        (torch.nn.ReLU(), {"state": (3,)}, errors.ArgumentError, "state"),
        (torch.relu, {"x": (3,)}, errors.ArgumentError, "no nn.Module"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(module, examples, error, message):
    with pytest.raises(error, match=message):
        from_torch(module, **examples)


def test_a_transformer_of_torchs_own_layers_is_converted_and_its_fast_path_left_as_it_was():
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
    module = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1))
    found = anex.compile(from_torch(module, x=x, precision="float32"))(x)
    with torch.no_grad():
        np.testing.assert_allclose(found, module(x), atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()

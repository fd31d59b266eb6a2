"""``anex mil`` and ``anex.miltools``: MIL files formatted, compared, counted, judged and converted."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mil_facts import CORPUS

import anex
from anex import mb, miltools, store

DATA = Path(__file__).parent / "data"

X = (1, 4, 1, 8)


def program(scale=2.0, act="relu", extra=False):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 4, 1, 1)).astype(np.float16)
    table = np.full((1, 4, 1, 8), scale, np.float16)

    @anex.graph(x=X)
    def built(x):
        y = mb.conv(x=x, weight=weight, name="c")
        y = getattr(mb, act)(x=mb.mul(x=y, y=table, name="m"), name="a")
        if extra:
            y = mb.exp(x=y, name="e")
        return mb.add(x=y, y=x, name="out")

    return built


@pytest.fixture
def saved(tmp_path):
    """A function that saves a program as a folder of text and gives its path."""

    def save(name, built):
        store.save(built, tmp_path / name)
        return tmp_path / name

    return save


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "anex", "mil", *map(str, arguments)], capture_output=True, text=True, timeout=600
    )


# ---- fmt ------------------------------------------------------------------------------------------------------


def test_formatted_text_says_the_same_and_stays_as_it_is(tmp_path):
    file = tmp_path / "model.mil"
    file.write_text(
        "program(1.3){func main<ios18>(tensor<fp16,[1,2]> x){\n"
        'tensor<fp16,[1,2]> y=add(x=x,y=x)[name=string("y")];}->(y);}'
    )
    text = miltools.fmt(file)
    assert "        tensor<fp16, [1, 2]> y = add(x = x, y = x)" in text
    formatted = tmp_path / "formatted.mil"
    formatted.write_text(text)
    assert miltools.fmt(formatted) == text
    assert miltools.diff(file, formatted) == []


def test_text_by_apples_compiler_is_formatted_already():
    """Of the corpus beside the repository, if it is there, and of our own that is laid out as Apple's."""
    compiled = sorted(CORPUS.glob("pairs/*.mil"), key=lambda path: path.stat().st_size)[:5]
    for path in [DATA / "canonical_1_3.mil", *compiled]:
        assert miltools.diff(path, path) == []
        assert miltools.fmt(path).strip() == path.read_text().strip()


def test_fmt_checks_and_writes_in_place(tmp_path):
    file = tmp_path / "model.mil"
    body = "tensor<fp16, [1]> y = relu(x = x);"
    file.write_text(f"program(1.3) {{ func main<ios18>(tensor<fp16, [1]> x) {{ {body} }} -> (y); }}")
    checked = command("fmt", "--check", file)
    assert (checked.returncode, checked.stdout) == (1, f"{file} would be reformatted\n")
    assert command("fmt", "-i", file).returncode == 0
    assert command("fmt", "--check", file).returncode == 0


# ---- diff -----------------------------------------------------------------------------------------------------


def test_other_names_and_places_of_constants_are_no_difference(saved):
    a = saved("a", program())
    text = (a / "model.mil").read_text()
    renamed = a.parent / "b"
    shutil.copytree(a, renamed)
    for before, after in ((" m ", " renamed "), ("= m,", "= renamed,"), ("= m)", "= renamed)")):
        text = text.replace(before, after)
    (renamed / "model.mil").write_text(text)
    assert (a / "model.mil").read_text() != text
    assert miltools.diff(a, renamed) == []
    store.save(program(), a.parent / "c.mlpackage")
    assert miltools.diff(a, a.parent / "c.mlpackage") == []


@pytest.mark.parametrize(
    ("other", "where", "what"),
    [
        ({"scale": 3.0}, "mul 'm'", "constant y"),
        ({"act": "sigmoid"}, "relu 'a'", "op"),
        ({"extra": True}, "exp 'e'", "op"),
    ],
    ids=["constant", "op type", "one more op"],
)
def test_a_difference_names_op_and_part(saved, other, where, what):
    (first, *_) = found = miltools.diff(saved("a", program()), saved("b", program(**other)))
    assert where in first.where
    assert first.what == what
    assert first.a != first.b
    if what == "constant y":
        assert len(found) == 1


def test_types_attributes_arguments_and_interfaces_differ(tmp_path):
    def write(name, ops, head="tensor<fp16, [1, 4]> x, tensor<fp16, [1, 4]> z", results="y"):
        (tmp_path / name).write_text(f"program(1.3) {{ func main<ios18>({head}) {{ {ops} }} -> ({results}); }}")
        return tmp_path / name

    op = 'tensor<fp16, [1, 4]> y = sub(x = {}, y = {})[name = string("{}")];'
    base = write("a.mil", op.format("x", "z", "n"))
    assert miltools.diff(base, write("b.mil", op.format("x", "z", "other name"))) == []
    swapped = miltools.diff(base, write("c.mil", op.format("z", "x", "n")))
    assert [(each.what, each.a, each.b) for each in swapped] == [("argument x", "x", "z"), ("argument y", "z", "x")]
    wide = miltools.diff(base, write("d.mil", op.format("x", "z", "n").replace("[1, 4]", "[2, 4]")))
    assert [each.what for each in wide] == ["type"]
    named = write("e.mil", op.format("p", "q", "n"), "tensor<fp16, [1, 4]> p, tensor<fp16, [1, 4]> q")
    assert miltools.diff(base, named) == []
    assert [each.what for each in miltools.diff(base, named, interface=True)] == ["inputs"]
    inputs = write("f.mil", op.format("x", "z", "n"), "tensor<fp32, [1, 4]> x, tensor<fp16, [1, 4]> z")
    assert [each.what for each in miltools.diff(base, inputs)] == ["type of input x"]


def test_ops_inside_branches_are_compared(saved):
    def branches(limit):
        @anex.graph(x=X)
        def built(x):
            small = mb.less(x=mb.reduce_sum(x=x, axes=[0, 1, 2, 3], keep_dims=False), y=np.float16(1))
            return mb.cond(
                pred=small, _true_fn=lambda: mb.relu(x=x), _false_fn=lambda: mb.add(x=x, y=np.float16(limit)), name="y"
            )

        return built

    a, b = saved("a", branches(1)), saved("b", branches(2))
    assert miltools.diff(a, a) == []
    (found,) = miltools.diff(a, b)
    assert "block 1: add" in found.where
    assert found.what == "constant y"


def test_the_command_exits_with_1_on_a_difference(saved):
    a, b = saved("a", program()), saved("b", program(scale=3.0))
    assert command("diff", a, a).returncode == 0
    done = command("diff", a, b, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)[0]["what"] == "constant y"


# ---- stats ----------------------------------------------------------------------------------------------------


def test_stats_count_what_is_there():
    @anex.graph(x=(1, 8, 1, 16))
    def built(x):
        data = np.zeros((32, 8, 1, 1), np.int8)
        weight = mb.constexpr_blockwise_shift_scale(data=data, scale=np.ones((32, 1, 1, 1), np.float16))
        wide = mb.conv(x=x, weight=weight, name="wide")
        return mb.add(x=mb.relu(x=wide), y=mb.sigmoid(x=wide), name="y")

    (found,) = miltools.stats(built)
    assert found.ops == {"conv": 1, "relu": 1, "sigmoid": 1, "add": 1}
    assert found.running == 4
    assert found.total == 4 + 5 + 1  # and a conv's parameters, and its weight
    assert found.depth == 3
    assert found.parameters == 32 * 8
    assert found.weight_bytes == 32 * 8 + 2 * 32
    assert found.bytes["int8"] == 32 * 8
    assert found.bytes["fp16"] == 2 * 32
    assert found.flops == 2 * 32 * 16 * 8 + 512 * (1 + 4 + 1)  # sigmoid: negate, exp, add, divide
    assert found.peak_activation == 3 * 2 * 32 * 16  # wide, relu and sigmoid; or those two and y


def test_stats_of_a_file_know_every_function_and_need_no_weights(saved):
    a = saved("a", program())
    shutil.rmtree(a / "weights")
    (found,) = json.loads(command("stats", a, "--json").stdout)
    assert found["function"] == "main"
    assert found["ops"] == {"conv": 1, "mul": 1, "relu": 1, "add": 1}
    assert "4 of which run" in command("stats", a).stdout


# ---- lint -----------------------------------------------------------------------------------------------------


def linear(rows, inner, columns):
    @anex.graph(x=(1, rows, inner))
    def built(x):
        return mb.linear(x=x, weight=np.zeros((columns, inner), np.float16), name="y")

    return built


def test_each_warning_has_numbers_a_limit_sources_and_a_way_out():
    found = {each.rule: each for each in miltools.lint(linear(256, 768, 3072), chip="M4")}
    assert set(found) == {"W-DEPTH", "W-MATMUL", "W-DISPATCH"}
    assert "256 x 768 by 768 x 3072" in found["W-MATMUL"].found
    assert "x [1, 768, 1, 256], weight [3072, 768, 1, 1]" in found["W-MATMUL"].fix
    assert "1 product(s)" in found["W-DEPTH"].found
    assert "0.095" in found["W-DISPATCH"].limit
    for each in found.values():
        assert each.sources
        assert each.confidence in ("high", "medium", "low")


def test_a_working_set_above_32_mb_is_told_in_bytes():
    """S01: three matrices of 4096 x 4096 in fp16 are 96 MB."""
    (found,) = [each for each in miltools.lint(linear(4096, 4096, 4096)) if each.rule == "W-SRAM"]
    assert "up to 96 MB" in found.found
    assert found.ops == ("y",)
    assert not [each for each in miltools.lint(linear(2048, 2048, 2048)) if each.rule == "W-SRAM"]


def test_a_deep_chain_of_large_convolutions_with_names_has_nothing_to_warn_of():
    @anex.graph(x=(1, 512, 64, 64))
    def built(x):
        weight = np.zeros((512, 512, 1, 1), np.float16)
        for _ in range(31):
            x = mb.conv(x=x, weight=weight)
        return mb.conv(x=x, weight=weight, name="y")

    assert miltools.lint(built) == []


def test_names_that_a_converter_made_up_are_told(tmp_path):
    @anex.graph(x=X)
    def built(x):
        return mb.relu(x=x)

    found = {each.rule: each for each in miltools.lint(built)}
    assert found["W-NAME"].ops == ("relu_0",)
    store.save(built, tmp_path / "m")
    assert command("lint", tmp_path / "m", "--error").returncode == 1
    assert [each["rule"] for each in json.loads(command("lint", tmp_path / "m", "--json").stdout)] == list(found)


# ---- to-text, to-package --------------------------------------------------------------------------------------


def test_text_and_package_are_the_same_program_there_and_back(saved, tmp_path, rng):
    a = saved("a", program())
    assert command("to-package", a, tmp_path / "p.mlpackage").returncode == 0
    assert miltools.diff(a, tmp_path / "p.mlpackage", interface=True) == []
    assert command("to-text", tmp_path / "p.mlpackage", "-o", tmp_path / "back").returncode == 0
    assert miltools.diff(a, tmp_path / "back", interface=True) == []
    assert command("to-text", a).stdout.strip() == (a / "model.mil").read_text().strip()
    x = rng.normal(size=X).astype(np.float16)
    results = [anex.compile(built)(x) for built in (program(), anex.from_mil(tmp_path / "back"))]
    np.testing.assert_array_equal(*results)
    with pytest.raises(anex.ArgumentError, match="exists"):
        miltools.to_text(tmp_path / "p.mlpackage", tmp_path / "back")
    with pytest.raises(anex.ArgumentError, match="mlpackage"):
        miltools.to_package(a, tmp_path / "p.zip")


@pytest.mark.parametrize("name", ["fmt", "lint", "stats", "to-text"])
def test_a_broken_file_is_one_clear_line(tmp_path, name):
    (tmp_path / "model.mil").write_bytes(b"\x89PNG\r\n\x1a\n" * 8)
    done = command(name, tmp_path / "model.mil")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1, done.stderr

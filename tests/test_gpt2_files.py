"""GPT-2's files: tokenizer, checkpoints of every form, their conversion, and what is said of broken ones."""

import base64
import json
import mmap
import os
import re
import shutil
import struct
import sys

import gpt2_case
import numpy as np
import pytest
import torch
from gpt2_blob import read_blob
from gpt2_checkpoint import Checkpoint
from gpt2_config import CheckpointError, read_config
from gpt2_convert import convert, converted, shapes
from gpt2_quantize import quantize
from gpt2_tokenizer import END_OF_TEXT, Tokenizer
from gpt2_weights import Weights
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

SMALL = GPT2Config(vocab_size=gpt2_case.VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64, eos_token_id=0)
TEXTS = [
    "Hello, world!", "don't... they'll say it's O'Neill's", "  several   spaces \n\n\tand tabs ",
    "naïve café — ümläut 🙂",
    "日本語とEnglish", "3.14159 and 1,000,000", "x = y**2 # comment", "\x00\x7f\x85\u2028", "", f"one{END_OF_TEXT}two",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small random model as ``save_pretrained`` leaves it."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("hf")
    GPT2LMHeadModel(SMALL).save_pretrained(path)
    gpt2_case.save_tokenizer(path, gpt2_case.english())
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_folder(folder)


@pytest.fixture
def broken(folder, tmp_path):
    """A copy of the folder, to break."""
    return shutil.copytree(folder, tmp_path / "broken")


def change(folder, **config):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def put(folder, value):
    save_file({**tensors(folder), "transformer.ln_f.bias": value}, folder / "model.safetensors")


def tensors(folder):
    return load_file(folder / "model.safetensors")


# ---- tokenizer ------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_come_back(tokenizer, data):
    assert tokenizer.decode_bytes(tokenizer.encode(data)) == data


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_comes_back_and_streams(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert "".join(tokenizer.stream(ids)) == text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("files", ["tokenizer.json", "vocab.json", "encoder.txt"])
def test_tokens_are_those_of_transformers_whichever_files_there_are(folder, tmp_path, text, files):
    theirs = GPT2TokenizerFast.from_pretrained(folder)
    if files == "encoder.txt":
        Tokenizer.from_folder(folder).save(tmp_path)
        (tmp_path / "tokenizer.json").unlink()
    else:
        for name in [files, "merges.txt"] if files == "vocab.json" else [files]:
            shutil.copy(folder / name, tmp_path)
    assert Tokenizer.from_folder(tmp_path).encode(text) == theirs(text)["input_ids"]


def test_a_letter_of_several_tokens_streams_when_it_is_whole(tokenizer):
    ids = tokenizer.encode("a🙂b")
    pieces = list(tokenizer.stream(ids))
    assert len(pieces) == len(ids) + 1
    assert "\ufffd" not in "".join(pieces)
    assert "🙂" in "".join(pieces)


def test_a_vocabulary_without_bytes_is_refused(broken):
    (broken / "tokenizer.json").unlink()
    vocab = json.loads((broken / "vocab.json").read_text())
    del vocab["!"]
    (broken / "vocab.json").write_text(json.dumps(vocab))
    (broken / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(CheckpointError, match="byte 33"):
        Tokenizer.from_folder(broken)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[]"])
def test_a_broken_vocabulary_is_an_error_that_names_the_folder(broken, text):
    (broken / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match=re.escape(str(broken))):
        Tokenizer.from_folder(broken)


# ---- conversion -----------------------------------------------------------------------------------


def test_conversion_splits_and_transposes_as_torch_multiplies(folder, tmp_path):
    convert(folder, tmp_path)
    config, source = read_config(tmp_path), tensors(folder)
    found = {name: read_blob(tmp_path / f"{name}.bin", shape) for name, shape in shapes(config).items()}
    x = np.random.default_rng(0).normal(size=(3, config.n_embd)).astype(np.float32)
    qkv = x @ source["transformer.h.1.attn.c_attn.weight"] + source["transformer.h.1.attn.c_attn.bias"]
    ours = [x @ found[f"layer_01/w{part}"].T.astype(np.float32) + found[f"layer_01/b{part}"] for part in "qkv"]
    np.testing.assert_allclose(np.concatenate(ours, 1), qkv, atol=1e-3)
    for name, theirs in (("wo", "attn.c_proj"), ("w1", "mlp.c_fc"), ("w2", "mlp.c_proj")):
        np.testing.assert_array_equal(
            found[f"layer_00/{name}"].T, source[f"transformer.h.0.{theirs}.weight"].astype(np.float16)
        )
    np.testing.assert_array_equal(found["wte"], source["transformer.wte.weight"].astype(np.float16))


def test_a_blob_has_the_header_that_the_published_engine_reads(folder, tmp_path):
    convert(folder, tmp_path)
    data = (tmp_path / "layer_00" / "w1.bin").read_bytes()
    size = 4 * SMALL.n_embd**2 * 2
    assert len(data) == 128 + size
    header = bytearray(128)
    struct.pack_into("<II", header, 0, 1, 2)
    struct.pack_into("<IIQQ", header, 64, 0xDEADBEEF, 1, size, 128)
    assert data[:128] == header


def test_coremltools_reads_the_blobs(folder, tmp_path):
    from anex.mil.blob import Reference, read

    convert(folder, tmp_path, bits=8)
    c = SMALL.n_embd
    for name, dtype, expected in (
        ("layer_01/wq", "fp16", np.float16),
        ("layer_01/wq.q8", "int8", np.int8),
    ):
        found = read(tmp_path / f"{name}.bin", Reference(name, 64, dtype, (c, c), name))
        np.testing.assert_array_equal(found, read_blob(tmp_path / f"{name}.bin", (c, c), expected))


def test_the_vocabulary_is_written_as_the_published_engine_has_it(folder, tmp_path, tokenizer):
    convert(folder, tmp_path)
    lines = (tmp_path / "encoder.txt").read_text().splitlines()
    pieces = {int(number): base64.b64decode(code) for number, code in (line.split("\t") for line in lines)}
    assert pieces == tokenizer.pieces
    assert (tmp_path / "merges.txt").read_text().split("\n")[1:] == (folder / "merges.txt").read_text().split("\n")[1:]


def test_conversion_imports_no_torch(folder, tmp_path):
    import subprocess

    code = (
        "import sys; sys.modules['torch'] = None; sys.argv[:] = ['gpt2_convert', *sys.argv[1:]]; import runpy;"
        "runpy.run_path('examples/gpt2/gpt2_convert.py', run_name='__main__')"
    )
    command = [
        sys.executable,
        "-c",
        "import sys; sys.path.insert(0, 'examples/gpt2');" + code,
        folder,
        tmp_path / "out",
    ]
    environment = {**os.environ, "PYTHONPATH": str(gpt2_case.ROOT)}
    done = subprocess.run(command, cwd=gpt2_case.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("form", ["bare", "float16", "bfloat16", "float64", "shards", "tied head"])
def test_every_form_of_a_checkpoint_gives_the_same_weights(folder, broken, form):
    source = tensors(folder)
    (broken / "model.safetensors").unlink()
    if form == "shards":
        names = sorted(source)
        parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
        for part, members in parts.items():
            save_file({name: source[name] for name in members}, broken / part)
        index = {name: part for part, members in parts.items() for name in members}
        (broken / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    elif form == "bare":
        bare = {name.removeprefix("transformer."): value for name, value in source.items()}
        bare["h.0.attn.bias"] = np.ones((1, 1, 64, 64), np.float32)  # old files have the mask in them
        save_file(bare, broken / "model.safetensors")
    elif form == "tied head":
        save_file({**source, "lm_head.weight": source["transformer.wte.weight"].copy()}, broken / "model.safetensors")
    else:
        from safetensors.torch import save_file as save

        as_torch = {name: torch.from_numpy(value).to(getattr(torch, form)) for name, value in source.items()}
        save(as_torch, broken / "model.safetensors")
    config = read_config(folder)
    expected, found = (dict(converted(Checkpoint(each), config)) for each in (folder, broken))
    assert found.keys() == expected.keys() == shapes(config).keys()
    for name, value in expected.items():
        tolerance = 2**-8 if form == "bfloat16" else 0
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=1e-7 if tolerance else 0, err_msg=name)


def test_a_head_of_its_own_is_kept(folder, broken, tmp_path):
    source = tensors(folder)
    source["lm_head.weight"] = source["transformer.wte.weight"] * 2
    save_file(source, broken / "model.safetensors")
    convert(broken, tmp_path)
    for weights in (Weights.load(tmp_path), Weights.load(broken)):
        np.testing.assert_array_equal(weights.head, source["lm_head.weight"].astype(np.float16))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is no JSON"),
        (lambda f: change(f, model_type="llama"), "model_type is 'llama'"),
        (lambda f: change(f, n_head=3), "32 channels do not divide into 3 heads"),
        (lambda f: change(f, n_layer="two"), "n_layer is 'two'"),
        (lambda f: change(f, activation_function="swish"), "activation_function is 'swish'"),
        (lambda f: change(f, n_layer=3), r"no tensor 'h.2"),
        (lambda f: change(f, vocab_size=601), r"'transformer.wte.weight' is \[600, 32\]; .* must be \[601, 32\]"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x10" + bytes(7) + b"{}"), "cannot be read"),
        (lambda f: cut(f / "model.safetensors"), "cannot be read"),
        (lambda f: (f / "tokenizer.json").unlink() or (f / "merges.txt").unlink(), "has no tokenizer.json"),
        (lambda f: put(f, np.full(32, 1e5, np.float32)), "up to 100000"),
        (lambda f: put(f, np.ones(32, np.int32)), "is I32"),
    ],
)  # fmt: skip
def test_a_broken_checkpoint_is_one_clear_error(broken, tmp_path, break_it, message):
    break_it(broken)
    with pytest.raises(CheckpointError, match=message):
        convert(broken, tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("wrong", ["cut", "missing", "foreign"])
def test_a_broken_conversion_is_one_clear_error(folder, tmp_path, wrong):
    convert(folder, tmp_path)
    path = tmp_path / "layer_01" / "wv.bin"
    if wrong == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif wrong == "missing":
        path.unlink()
    else:
        path.write_bytes(bytes(128 + 32 * 32 * 2))
    with pytest.raises(CheckpointError, match=r"wv.bin .*convert the checkpoint again"):
        Weights.load(tmp_path)


# ---- quantised ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("inputs", [64, 50])
def test_a_quantised_matrix_is_within_half_a_step(bits, inputs, rng):
    weight = rng.normal(size=(70, inputs)).astype(np.float16)
    weight[3] = 0
    found = quantize(weight, bits)
    most = 2 ** (bits - 1) - 1
    assert np.abs(found.codes).max() <= most
    step = np.repeat(found.scale.astype(np.float32), inputs // found.scale.shape[1], 1)
    assert (np.abs(found.dense() - weight) <= step * 0.501 + 2e-3 * np.abs(weight)).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_matrices_are_the_same_made_here_or_by_convert(folder, tmp_path, bits):
    convert(folder, tmp_path, bits)
    ready, made = Weights.load(tmp_path, bits), Weights.load(folder, bits)
    assert ready.quantized.keys() == made.quantized.keys()
    for name, expected in made.quantized.items():
        np.testing.assert_array_equal(ready.quantized[name].codes, expected.codes)
        np.testing.assert_array_equal(ready.quantized[name].scale, expected.scale)
    assert ready.bytes_per_token < Weights.load(folder).bytes_per_token * (0.6 if bits == 8 else 0.4)


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("is_converted", [True, False])
def test_loaded_weights_are_read_only_down_to_their_memory(folder, tmp_path, bits, is_converted):
    """As the engine asks of what it does not copy."""
    if is_converted:
        convert(folder, tmp_path, bits)
    weights = Weights.load(tmp_path if is_converted else folder, bits)
    parts = [part for matrix in weights.quantized.values() for part in (matrix.codes, matrix.scale)]
    for array in [*weights.arrays.values(), *parts, weights.vector("layer_00/bqkv")]:
        while isinstance(array, np.ndarray):
            assert not array.flags.writeable
            array = array.base
        assert array is None or isinstance(array, mmap.mmap)


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_query_key_and_value_lie_together_and_are_read_as_one(folder, bits):
    weights = Weights.load(folder, bits)
    parts, whole = [weights.matrix(f"layer_01/w{part}") for part in "qkv"], weights.matrix("layer_01/wqkv")
    if bits == 16:
        np.testing.assert_array_equal(whole, np.concatenate(parts))
        assert np.shares_memory(whole, parts[1])
        return
    np.testing.assert_array_equal(whole.dense(), np.concatenate([part.dense() for part in parts]))
    assert np.shares_memory(whole.codes, parts[1].codes)


def test_of_small_weights_no_matrix_is_kept_in_fp16_but_the_embedding(folder, tmp_path):
    convert(folder, tmp_path, 8)
    for source in (folder, tmp_path):
        weights = Weights.load(source, 8)
        assert {name for name, array in weights.arrays.items() if array.ndim == 2} == {"wte", "wpe"}

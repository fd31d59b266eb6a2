"""The Stories110M example against llama2.c's model in torch: gradients, loss curves, runs and their checkpoints."""

import contextlib
import io
import json
import math
import os
import pydoc_data.topics
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stories_case
import stories_model
import torch
from needs_ane import needs_ane
from stories_case import ROOT, generate, train
from stories_checkpoint import Checkpoint
from stories_config import TINY, Config, StoriesError, random_weights
from stories_data import Tokens, save_tokens
from stories_generate import Generator
from stories_llama2c import save
from stories_step import PARTS, Step
from stories_tokenizer import Tokenizer
from stories_trainer import Options, Trainer, compilations

pytestmark = pytest.mark.filterwarnings("ignore::anex.AneWarning")
SMALL = Config(dim=32, hidden_dim=48, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=300, seq_len=24)


def spread_out(config, seed=0):
    """Weights that make attention sharp and logits far apart, unlike those that training begins with."""
    rng = np.random.default_rng(seed)
    return {
        name: (1 + 0.2 * rng.normal(size=shape) if "norm" in name else rng.normal(size=shape) / math.sqrt(shape[-1]))
        .astype(np.float32)
        for name, shape in config.shapes().items()
    }  # fmt: skip


def sequence(config, seed=1):
    numbers = np.random.default_rng(seed).integers(0, config.vocab_size, config.seq_len + 1).astype(np.int32)
    return numbers[:-1], numbers[1:]


def torch_gradients(config, weights, tokens, targets):
    parameters = stories_case.parameters(config, weights)
    loss = stories_case.loss(config, parameters, tokens, targets)
    return loss.item(), dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def check(step, config, weights, tolerance):
    """The loss and all gradients of a sequence against torch in fp64."""
    tokens, targets = sequence(config)
    loss, wanted = torch_gradients(config, weights, tokens, targets)
    assert step(tokens, targets) == pytest.approx(loss, rel=tolerance)
    found = {name: np.asarray(each, np.float64) / step.loss_scale for name, each in step.gradients.items()}
    for name, gradient in stories_case.file_order(config, found).items():
        largest = wanted[name].abs().max().item()
        np.testing.assert_allclose(gradient, wanted[name].numpy(), rtol=0, atol=tolerance * largest, err_msg=name)


@pytest.mark.parametrize("shared", [True, False], ids=["shared classifier", "its own classifier"])
def test_gradients_of_two_layers_are_torch_s(shared):
    config = Config(**{**vars(SMALL), "shared": shared})
    weights = spread_out(config)
    check(Step(config, weights), config, weights, 2e-4)


@needs_ane
@pytest.mark.parametrize("offload", [(), ("classifier",), ("softmax", "rmsnorm"), PARTS], ids=str)
def test_whatever_is_offloaded_to_the_neural_engine_gradients_are_torch_s(offload):
    weights = spread_out(SMALL)
    step = Step(SMALL, weights, "ane", offload)
    check(step, SMALL, weights, 3e-2)
    devices = [section.device for section in step.sections]
    assert devices[0] == "ane"
    assert ("cpu" in devices) == (set(offload) != set(PARTS))


@needs_ane
def test_without_a_shared_classifier_the_neural_engine_s_gradients_are_torch_s():
    config = Config(**{**vars(SMALL), "shared": False})
    weights = spread_out(config)
    check(Step(config, weights, "ane", PARTS), config, weights, 3e-2)


@needs_ane
def test_the_neural_engine_s_classifier_goes_by_parts_of_a_large_vocabulary(monkeypatch):
    monkeypatch.setattr(stories_model, "MOST_PRODUCTS", 128)  # 300 tokens in three parts
    weights = spread_out(SMALL)
    check(Step(SMALL, weights, "ane", PARTS), SMALL, weights, 3e-2)


@needs_ane
def test_no_rule_of_the_neural_engine_is_against_the_published_size():
    config = Config(n_layers=1, seq_len=32)  # layers are all alike
    step = Step(config, random_weights(config), "ane", PARTS)
    assert [section.device for section in step.sections] == ["ane"]


@pytest.fixture(scope="module")
def text():
    """Python's documentation of three statements, and this project's licence: less than 3 KB of English."""
    topics = ("while", "pass", "break")
    return "\n\n".join([*(pydoc_data.topics.topics[name] for name in topics), (ROOT / "LICENSE").read_text()])


@pytest.fixture(scope="module")
def learned(text, tmp_path_factory):
    """(folder with d.bin and tokenizer.bin, its tokens)"""
    folder = tmp_path_factory.mktemp("stories")
    tokenizer = Tokenizer.learn(text, TINY.vocab_size)
    tokenizer.save(folder / "tokenizer.bin")
    numbers = [number for part in text.split("\n\n") for number in tokenizer.encode(part)]
    save_tokens(folder / "d.bin", numbers)
    return folder, numbers


def losses(trainer, tokens):
    found, engine = [], trainer.engine

    def noted(*arguments):
        found.append(engine(*arguments))
        return found[-1]

    noted.__dict__ = engine.__dict__
    noted.timed = engine.timed
    trainer.engine = noted
    while trainer.step < trainer.options.steps:
        trainer.batch(tokens)
    trainer.engine = engine
    return found


def torch_losses(config, weights, tokens, options):
    parameters = stories_case.parameters(config, weights)
    groups = [
        {"params": [p for p in parameters.values() if (p.ndim > 1) == matrices], "weight_decay": decay}
        for matrices, decay in ((True, options.weight_decay), (False, 0.0))
    ]
    optimizer, found = torch.optim.AdamW(groups, lr=options.lr), []
    for i in range(options.steps):
        loss = stories_case.loss(config, parameters, *tokens.step(i))
        (loss / options.accum).backward()
        found.append(loss.item())
        if (i + 1) % options.accum == 0:
            torch.nn.utils.clip_grad_norm_(parameters.values(), options.clip)
            optimizer.step()
            optimizer.zero_grad()
    return found


CURVE = Options(steps=20, lr=2e-3, accum=2, weight_decay=0.1, clip=1.0)


@pytest.fixture(scope="module")
def torch_curve(learned):
    tokens = Tokens(learned[0] / "d.bin", TINY.seq_len, TINY.vocab_size)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other longer than such small products take
    found = torch_losses(TINY, random_weights(TINY), tokens, CURVE)
    torch.set_num_threads(threads)
    return tokens, found


CURVES = [("cpu", (), 2e-4), *[pytest.param("ane", offload, 1e-2, marks=needs_ane) for offload in ((), PARTS)]]


@pytest.mark.parametrize(("device", "offload", "tolerance"), CURVES, ids=str)
def test_twenty_steps_follow_torch_from_the_same_weights_and_data(torch_curve, device, offload, tolerance):
    tokens, wanted = torch_curve
    trainer = Trainer(TINY, random_weights(TINY), CURVE, device, offload)
    before = trainer.engine.compiles, compilations()
    found = losses(trainer, tokens)
    np.testing.assert_allclose(found, wanted, rtol=tolerance)
    assert found[-1] < found[0] - 0.2
    assert (trainer.engine.compiles, compilations()) == before  # nothing is compiled again
    assert trainer.skipped == 0


def unigram_entropy(numbers):
    chances = np.unique(numbers, return_counts=True)[1] / len(numbers)
    return float(-(chances * np.log(chances)).sum())


PROMPT = "Permission is hereby granted, free of charge, to any person"


def test_words_are_learned(text, learned, tmp_path, capsys):
    folder, numbers = learned
    tokens = Tokens(folder / "d.bin", TINY.seq_len, TINY.vocab_size)
    options = Options(steps=1800, lr=3e-3, accum=1, schedule="cosine", warmup=20)
    trainer = Trainer(TINY, random_weights(TINY), options)
    found = losses(trainer, tokens)
    assert np.mean(found[-50:]) < 0.5 * unigram_entropy(numbers)
    trainer.save(tmp_path / "c.safetensors")
    save(tmp_path / "m.bin", TINY, trainer.weights())
    texts = []
    for model in ("c.safetensors", "m.bin"):  # the same model in two formats
        line = ["--model", str(tmp_path / model), "--tokenizer", str(folder / "tokenizer.bin"), "--tokens", "50"]
        generate.run(generate.parser().parse_args([*line, "--prompt", PROMPT, "--temp", "0"]))
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    words = re.findall(r"[a-z]{3,}", texts[0].removeprefix(PROMPT))[:-1]  # the last may be cut off
    known = set(re.findall(r"[a-z]{3,}", text))
    assert len(words) >= 5
    assert np.mean([word in known for word in words]) > 0.8, texts[0]


def test_one_token_after_another_gives_the_logits_of_the_whole_text():
    weights = spread_out(SMALL)
    tokens, _ = sequence(SMALL)
    generator = Generator(SMALL, weights)
    found = np.stack([generator.next(int(token)) for token in tokens])
    parameters = stories_case.parameters(SMALL, weights)
    with torch.no_grad():
        np.testing.assert_allclose(found, stories_case.logits(SMALL, parameters, tokens).numpy(), atol=2e-4)
    with pytest.raises(StoriesError, match="24 positions, and all are taken"):
        generator.next(0)


# ---- runs -------------------------------------------------------------------------------------------------------


def command(folder, *arguments):
    """The options of a tiny run; on data that is given, or made in the folder."""
    return ["--tiny", "--data", str(folder / "d.bin"), *arguments]


def run(*arguments):
    """(stdout, records) of train.py in this process."""
    out, records = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(records):
        train.run(train.parser().parse_args(list(arguments)))
    return out.getvalue(), [json.loads(line) for line in records.getvalue().splitlines()]


def same(one: Path, other: Path) -> None:
    one, other = Checkpoint.load(one), Checkpoint.load(other)
    assert (one.run["step"], one.run["loss"], one.run["updates"]) == (
        other.run["step"], other.run["loss"], other.run["updates"],
    )  # fmt: skip
    assert one.state.keys() == other.state.keys()
    for a, b in ((one.weights, other.weights), (one.state, other.state)):
        for name in a:
            assert np.array_equal(a[name].view(np.uint32), b[name].view(np.uint32)), name


def test_a_run_that_was_killed_goes_on_with_the_same_bits(learned, tmp_path):
    folder, _ = learned
    path = tmp_path / "killed.safetensors"
    options = ("--accum", "2", "--weight-decay", "0.1", "--save-every", "2")
    line = [sys.executable, "examples/stories110m/train.py", *command(folder, *options, "--ckpt", str(path)), "--steps",
            "1000000"]  # fmt: skip
    process = subprocess.Popen(line, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
    seen = {}
    for record in map(json.loads, process.stderr):
        if record["type"] == "step":
            seen[record["step"]] = record["loss"]
            if record["step"] >= 33:
                break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    kept = Checkpoint.load(path).run["step"]
    assert kept >= 32  # the last checkpoint before step 33, or a later one
    assert kept % 4 == 0
    steps = str(kept + 10)
    _, resumed = run(*command(folder, "--resume", "--ckpt", str(path), "--steps", steps))
    whole = tmp_path / "whole.safetensors"
    _, records = run(*command(folder, *options, "--ckpt", str(whole), "--steps", steps))
    wanted = {r["step"]: r["loss"] for r in records if r["type"] == "step"}
    assert [r["step"] for r in resumed if r["type"] == "step"] == list(range(kept, kept + 10))
    assert all(wanted[r["step"]] == r["loss"] for r in resumed if r["type"] == "step")
    assert all(wanted[number] == loss for number, loss in seen.items())
    same(path, whole)


@needs_ane
def test_a_resumed_run_on_the_neural_engine_has_the_same_bits(learned, tmp_path):
    folder, _ = learned
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    options = ("--device", "ane", "--offload", "softmax,classifier,rmsnorm", "--accum", "2")
    run(*command(folder, *options, "--steps", "12", "--ckpt", str(one)))
    run(*command(folder, *options, "--steps", "6", "--ckpt", str(two)))
    run(*command(folder, *options, "--steps", "12", "--ckpt", str(two), "--resume"))
    same(one, two)


STEP = ["type", "step", "loss", "t_ane", "t_io", "t_cls", "t_elem", "t_rms", "t_cblas_wait", "compiles"]
BATCH = ["type", "batch", "compile_ms", "train_ms", "ms_per_step"]
PERF = ["type", "ane_tflops", "ane_util_pct"]
NUMBER = r"-?\d+\.\d+"
LINES = [
    rf"step 0    loss={NUMBER}",
    r"  \[batch 3: compile=\d+ms train=\d+\.\dms \(\d+\.\dms/step\) compiles=1\]",
    r"    ane=\d+\.\d io=\d+\.\d cls=\d+\.\d elem=\d+\.\d rms=\d+\.\d cblas_wait=\d+\.\d ms/step",
    r"\[checkpoint saved: step 4, loss=\d+\.\d{4}\]",
    "=== Efficiency Report ===", r"Total steps:     4", r"Wall time:       \d+ ms \(\d+\.\d s\)",
    r"Compile time:    \d+ ms \(\d+\.\d%\)", r"Train time:      \d+ ms \(\d+\.\d%\)",
    r"Avg train:       \d+\.\d ms/step",
    r"ANE TFLOPS:      0\.00 sustained", r"Total TFLOPS:    \d+\.\d\d \(CPU\)",
    r"ANE utilization: 0\.0% of 15\.8 TFLOPS", "Recompilations:  0 after the first step",
]  # fmt: skip


def test_lines_and_records_are_those_of_the_published_trainer(learned, tmp_path):
    path = str(tmp_path / "c.safetensors")
    out, records = run(*command(learned[0], "--steps", "4", "--accum", "3", "--breakdown", "--ckpt", path))
    keys = [STEP] * 3 + [BATCH, PERF, STEP, BATCH, PERF]
    assert [list(record) for record in records] == keys
    assert [record["type"] for record in records] == ["step"] * 3 + ["batch", "perf", "step", "batch", "perf"]
    lines = out.splitlines()
    for pattern in LINES:
        assert any(re.fullmatch(pattern, line) for line in lines), (pattern, out)
    step = records[0]
    assert min(step[f"t_{name}"] for name in ("cls", "rms", "elem", "cblas_wait")) > 0
    assert step["t_ane"] == 0


def test_flops_are_those_that_were_published():
    from stories_report import Flops

    flops = Flops(Config())
    assert round(flops.total / 1e6) == 174_248
    assert round(2 * flops.forward / 1e6 + flops.attention / 1e6) == 93_013


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "/nowhere/d.bin"], "/nowhere/d.bin"),
        (["--resume", "--ckpt", "/nowhere/c.safetensors"], "there is no checkpoint /nowhere/c.safetensors"),
        (["--offload", "attention"], "the parts are rmsnorm, classifier, softmax"),
        (["--steps", "0"], "steps, accum and lr are above 0"),
        (["--model", "/nowhere/m.bin"], "/nowhere/m.bin"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--tiny", *arguments])
    with pytest.raises(SystemExit) as caught:
        train.main()
    assert str(caught.value).startswith("train: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_environment_names_model_and_data(learned, tmp_path, monkeypatch):
    save(tmp_path / "m.bin", TINY, random_weights(TINY, seed=5))
    monkeypatch.setenv("ANE_MODEL_PATH", str(tmp_path / "m.bin"))
    monkeypatch.setenv("ANE_DATA_PATH", str(learned[0] / "d.bin"))
    line = ["--steps", "1", "--ckpt", str(tmp_path / "c.safetensors"), "--export", str(tmp_path / "out.bin")]
    out, records = run(*line)
    tokens = Tokens(learned[0] / "d.bin", TINY.seq_len, TINY.vocab_size).step(0)
    loss, _ = torch_gradients(TINY, random_weights(TINY, seed=5), *tokens)
    assert records[0]["loss"] == pytest.approx(loss, rel=1e-4)
    assert "Loaded pretrained weights (shared embed/cls)" in out
    assert (tmp_path / "out.bin").stat().st_size == (tmp_path / "m.bin").stat().st_size

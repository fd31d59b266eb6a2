"""The Stories110M example against llama2.c's model in torch: gradients, loss curves, runs and their checkpoints."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import stories_case
import stories_model
import torch
from needs_ane import needs_ane
from stories_case import generate
from stories_config import TINY, Config, StoriesError, random_weights
from stories_data import Tokens
from stories_generate import Generator
from stories_llama2c import save
from stories_step import PARTS, Step
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


def check(step, config, weights, tolerance):
    """The loss and all gradients of a sequence against torch in fp64."""
    tokens, targets = sequence(config)
    loss, wanted = stories_case.torch_gradients(config, weights, tokens, targets)
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
def learned(tmp_path_factory):
    """(folder with d.bin and tokenizer.bin, its tokens)"""
    folder = tmp_path_factory.mktemp("stories")
    return folder, stories_case.make_data(folder)


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


CURVE = Options(steps=200, lr=2e-3, accum=2, weight_decay=0.1, clip=1.0)


@pytest.fixture(scope="module")
def torch_curve(learned):
    tokens = Tokens(learned[0] / "d.bin", TINY.seq_len, TINY.vocab_size)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other longer than such small products take
    found = torch_losses(TINY, random_weights(TINY), tokens, CURVE)
    torch.set_num_threads(threads)
    return tokens, found


CURVES = [("cpu", (), 200, 1e-4), *[pytest.param("ane", offload, 20, 1e-2, marks=needs_ane) for offload in ((), PARTS)]]


@pytest.mark.parametrize(("device", "offload", "steps", "tolerance"), CURVES, ids=str)
def test_two_hundred_steps_follow_torch_from_the_same_weights_and_data(torch_curve, device, offload, steps, tolerance):
    """On the stand-in the first twenty of them."""
    tokens, wanted = torch_curve
    trainer = Trainer(TINY, random_weights(TINY), replace(CURVE, steps=steps), device, offload)
    before = trainer.engine.compiles, compilations()
    found = losses(trainer, tokens)
    np.testing.assert_allclose(found, wanted[:steps], rtol=tolerance)
    assert found[-1] < found[0] - 0.2
    assert (trainer.engine.compiles, compilations()) == before  # nothing is compiled again
    assert trainer.skipped == 0


def unigram_entropy(numbers):
    chances = np.unique(numbers, return_counts=True)[1] / len(numbers)
    return float(-(chances * np.log(chances)).sum())


PROMPT = "Permission is hereby granted, free of charge, to any person"


def test_words_are_learned(learned, tmp_path, capsys):
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
    known = set(re.findall(r"[a-z]{3,}", stories_case.text()))
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

"""The GPT-2 example, against transformers' GPT-2 in torch fp32 on the same weights: one small model that learned
English, and random ones in the shapes of the published 124M."""

import itertools
import os
import re
import subprocess
import sys

import gpt2_case
import lean
import numpy as np
import pytest
import torch
from gpt2_case import ROOT, reference_greedy, reference_logits
from gpt2_convert import convert
from gpt2_engine import BUCKETS, Engine
from gpt2_sampling import Sampler
from gpt2_weights import Weights
from transformers import GPT2Config, GPT2LMHeadModel

ENVIRONMENT = {**os.environ, "PYTHONPATH": lean.path(ROOT)}
pytestmark = [pytest.mark.xdist_group("gpt2"), pytest.mark.filterwarnings("ignore::anex.AneWarning")]


@pytest.fixture(scope="session")
def learned(tmp_path_factory):
    """(folder, torch model)"""
    folder = tmp_path_factory.mktemp("learned")
    return folder, gpt2_case.trained(folder)


@pytest.fixture(scope="module")
def engine(learned):
    return Engine.load(learned[0])


@pytest.fixture(scope="module")
def ids(engine):
    """The text that was learned, more than a thousand tokens of it."""
    found = engine.tokenizer.encode(gpt2_case.english())
    assert len(found) > 1024
    return found


def greedy(engine, ids, tokens):
    return [step.token for step in engine.generate(ids, tokens, Sampler(0), stop=[])]


EDGES = [1, 2, *itertools.chain.from_iterable((b - 1, b, b + 1) for b in BUCKETS if b < 824), 824]


@pytest.mark.parametrize("length", EDGES)
def test_greedy_tokens_equal_those_of_torch_over_200_tokens(engine, learned, ids, length):
    """Of torch's own greedy run, with its own cache, in fp32 on the weights that the checkpoint has, which are fp16
    numbers: neither side rounds anything more, and so they differ by the order of additions only."""
    prompt = ids[40 : 40 + length]
    assert greedy(engine, prompt, 200) == reference_greedy(learned[1], prompt, 200)


def test_logits_are_those_of_torch_but_for_the_order_of_additions(engine, learned, ids):
    expected = reference_logits(learned[1], ids[:140])
    np.testing.assert_allclose(engine.prefill(ids[:130]), expected[129], atol=1e-4)
    for i in range(130, 140):
        np.testing.assert_allclose(engine.decode(ids[i]), expected[i], atol=1e-4)


def test_a_cache_of_16_bits_moves_logits_by_thousandths(learned, ids):
    expected = reference_logits(learned[1], ids[:140])
    engine = Engine.load(learned[0], cache="float16")
    assert {tensor.dtype_name for tensor in engine.state.values()} == {"float16"}
    np.testing.assert_allclose(engine.prefill(ids[:139]), expected[138], atol=0.03)
    np.testing.assert_allclose(engine.decode(ids[139]), expected[139], atol=0.03)


@pytest.mark.parametrize("length", [1023, 1024])
def test_a_text_ends_where_the_positions_do(engine, learned, ids, length):
    made = greedy(engine, ids[:length], 200)
    assert len(made) == 1025 - length
    assert made == reference_greedy(learned[1], ids[:length], len(made))


def test_windows_of_the_prefill_cover_each_prompt_once_and_fit_the_positions(engine):
    for length in range(1, 1025):
        windows, done = engine.windows(length), 0
        for begin, end, bucket in windows:
            assert begin <= done < end <= begin + bucket <= 1024
            done = end
        assert done == length
    assert engine.windows(600) == [(0, 512, 512), (512, 600, 128)]


def test_a_prompt_of_two_windows_that_overlap_for_want_of_room(tmp_path):
    torch.manual_seed(5)
    shape = GPT2Config(vocab_size=gpt2_case.VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=600)
    model = gpt2_case.saved(GPT2LMHeadModel(shape).eval(), tmp_path)
    engine = Engine(Weights.load(tmp_path))
    assert engine.windows(590) == [(0, 512, 512), (472, 590, 128)]
    ids = np.random.default_rng(0).integers(0, gpt2_case.VOCABULARY, 600).tolist()
    expected = reference_logits(model, ids)
    np.testing.assert_allclose(engine.prefill(ids[:590]), expected[589], atol=1e-4)
    for i in range(590, 600):
        np.testing.assert_allclose(engine.decode(ids[i]), expected[i], atol=1e-4)


def test_the_small_model_has_learned_its_text(engine, ids):
    """Which token comes next it knows more often than not, as no table of how often tokens come does."""
    logits, known = engine.prefill(ids[:100]), 0
    for token in ids[100:300]:
        known += int(logits.argmax()) == token
        logits = engine.decode(token)
    assert known > 100 > 5 * 200 * max(map(ids.count, set(ids))) / len(ids)


def test_what_it_continues_is_made_of_the_words_of_its_text(engine, ids):
    words = set(re.findall("[A-Za-z]+", gpt2_case.english()))
    for start in (40, 400, 800):
        text = engine.tokenizer.decode(greedy(engine, ids[start : start + 30], 100))
        made = re.findall("[A-Za-z]+", text)[1:-1]  # the first and the last may be parts of words
        assert len(made) > 20
        assert sum(word in words for word in made) > 0.9 * len(made), text


@pytest.mark.parametrize("layers", [0, 1, None])
def test_prefill_on_each_device_fills_the_cache_and_gives_the_logits_of_torch(device, learned, ids, layers):
    folder, model = learned
    engine = Engine.load(folder, device, layers=layers)
    assert len(engine.parts()) == {0: 4, 1: 2, None: 1}[layers]
    for length in (5, 32, 33, 64):
        expected = reference_logits(model, ids[: length + 1])
        np.testing.assert_allclose(engine.prefill(ids[:length]), expected[length - 1], atol=0.04)
        np.testing.assert_allclose(engine.decode(ids[length]), expected[length], atol=0.04)
    for prompt in (ids[:50], ids[40:240]):
        assert greedy(engine, prompt, 200) == reference_greedy(model, prompt, 200)


# ---- the published shapes -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(folder, torch model): random weights in the 124M's shapes, as ``save_pretrained`` leaves them."""
    folder = tmp_path_factory.mktemp("published")
    return folder, gpt2_case.random_124m(folder)


@pytest.fixture(scope="module")
def converted_124m(published, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted")
    convert(published[0], out)
    return out


@pytest.mark.parametrize("length", [5, 200])
def test_logits_of_the_124m_shapes_agree_with_torch(published, converted_124m, length):
    ids = np.random.default_rng(length).integers(0, 50257, length + 2).tolist()
    expected = reference_logits(published[1], ids)
    engine = Engine.load(converted_124m)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(engine.prefill(ids[:length]), expected[length - 1], atol=2e-5 * scale)
    for i in range(length, length + 2):
        np.testing.assert_allclose(engine.decode(ids[i]), expected[i], atol=2e-5 * scale)


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.1), (4, 2)])
def test_logits_of_quantised_weights_are_those_of_what_the_codes_stand_for(learned, ids, bits, tolerance):
    """Against our own programs on the dequantised matrices, which fp16 cannot quite hold."""
    engine = Engine.load(learned[0], bits=bits)
    weights = engine.weights
    dense = {name: matrix.dense().astype(np.float16) for name, matrix in weights.quantized.items()}
    head = {"lm_head": dense.pop("wte")}  # the embedding itself is not quantised
    reference = Engine(Weights(weights.config, {**weights.arrays, **dense, **head}, {}))
    plain = Engine.load(learned[0])
    for length in (20, 64):
        np.testing.assert_allclose(engine.prefill(ids[:length]), reference.prefill(ids[:length]), atol=0.02)
        np.testing.assert_allclose(engine.decode(ids[length]), reference.decode(ids[length]), atol=0.02)
        error = engine.prefill(ids[:length]) - plain.prefill(ids[:length])
        assert np.sqrt((error**2).mean()) < tolerance


@pytest.mark.memory
@pytest.mark.parametrize("bits", [32, 16])
def test_a_run_of_124m_takes_less_than_a_third_more_than_weights_and_cache(converted_124m, bits):
    """The whole process of the command, with Python, coremltools and all: the system's peak of its resident pages.

    Without the stand-in, whose surfaces take all of their memory at once.
    """
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "ANEX_ANE_FRAMEWORK"}
    code = (
        "import runpy, sys; sys.path.insert(0, 'examples/gpt2')\n"
        "runpy.run_path('examples/gpt2', run_name='__main__')\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    arguments = ["--weights", str(converted_124m), "--prompt", "the " * 50, "--tokens", "20", "--greedy"]
    arguments += ["--cache-bits", str(bits)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    peak = int(done.stdout.split()[-1]) * 1024
    weights = sum(path.stat().st_size for path in converted_124m.rglob("*.bin"))
    cache = 12 * 2 * 768 * 1024 * bits // 8
    assert peak < 1.3 * (weights + cache)


# ---- sampling -------------------------------------------------------------------------------------


def test_temperature_0_and_greedy_are_the_likeliest():
    logits = np.random.default_rng(0).normal(size=100).astype(np.float32)
    assert Sampler(0).choose(logits, []) == logits.argmax()
    assert Sampler(1, top_k=1).choose(logits, []) == logits.argmax()
    assert Sampler(1, top_p=1e-9).choose(logits, []) == logits.argmax()


@pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 12, "top_p": 0.8}])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_candidates_are_those_of_transformers(options, temperature):
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = np.random.default_rng(1).normal(0, 2, 50).astype(np.float32)
    theirs = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if "top_k" in options:
        theirs.append(TopKLogitsWarper(options["top_k"]))
    if "top_p" in options:
        theirs.append(TopPLogitsWarper(options["top_p"]))
    expected = torch.softmax(theirs(torch.zeros(1, 1, dtype=torch.long), torch.from_numpy(logits)[None]), -1)[0]
    tokens, weights = Sampler(temperature, **options).candidates(logits)
    found = np.zeros(50)
    found[tokens] = weights
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_the_repetition_penalty_is_that_of_transformers():
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = np.random.default_rng(2).normal(size=30).astype(np.float32)
    before = [3, 3, 7, int(logits.argmax())]
    expected = RepetitionPenaltyLogitsProcessor(5.0)(torch.tensor([before]), torch.from_numpy(logits)[None])
    assert Sampler(0, repetition_penalty=5.0).choose(logits, before) == int(expected.argmax())


def test_a_seed_repeats_the_text_and_draws_follow_the_probabilities():
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    one, other = (Sampler(1, seed=7) for _ in range(2))
    drawn = [one.choose(logits, []) for _ in range(4000)]
    assert drawn == [other.choose(logits, []) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn) / 4000, [0.5, 0.3, 0.2], atol=0.03)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"repetition_penalty": 0},
        {"temperature": float("inf")},
        {"temperature": float("nan")},
        {"repetition_penalty": float("inf")},
        {"seed": -1},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"temperature|top-k|top-p|penalty|seed"):
        Sampler(**options)


# ---- the command ----------------------------------------------------------------------------------


def command(folder, *arguments, **options):
    line = [sys.executable, "examples/gpt2", "--weights", str(folder), *arguments]
    return subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, **options)


def test_the_command_prints_the_text_and_the_lines_of_the_published_engine(learned, engine):
    prompt = "Beautiful is better"
    done = command(learned[0], "--prompt", prompt, "--tokens", "8", "--greedy", "--stats", check=True)
    ids = engine.tokenizer.encode(prompt)
    assert done.stdout == prompt + engine.tokenizer.decode(greedy(engine, ids, 8)) + "\n"
    number = r"\d+\.\d+"
    lines = [line for line in done.stderr.splitlines() if line and "compiling" not in line]
    expected = [
        "=== GPT-2: 2 layers, 96 channels, 600 tokens; prefill CPU, decode CPU ===",
        f"prompt: {len(ids)} tokens", f"load: {number} ms", rf"compile: {number} ms \(1 kernels, 32 positions\)",
        rf"\[prefill: {len(ids)} tok, {number} ms, CPU\]",
        *[rf"\[step {i}/8, seq {len(ids) + i}, {number} ms/tok, decode/CPU\]" for i in range(2, 9)],
        f"total: 8 tokens, {number} ms; prefill {number} ms, decode {number} ms/token, {number} tokens/s",
    ]  # fmt: skip
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


def test_interactive_lines_are_continued_and_an_empty_one_goes_on(learned, engine):
    done = command(learned[0], "--interactive", "--greedy", "--tokens", "5", input="Simple is\n\n", check=True)
    ids = engine.tokenizer.encode("Simple is")
    first = greedy(engine, ids, 5)
    second = greedy(engine, ids + first, 5)
    assert done.stdout == f"Simple is{engine.tokenizer.decode(first)}\n{engine.tokenizer.decode(second)}\n\n"


def test_a_prompt_that_is_no_utf8_is_continued_and_comes_out_as_it_went_in(learned, engine):
    prompt = b"Simple is\xff"
    line = [sys.executable, "examples/gpt2", "--weights", learned[0], "--greedy", "--tokens", "3", "--prompt", prompt]
    done = subprocess.run(line, cwd=ROOT, env={**ENVIRONMENT, "LC_ALL": "C.UTF-8"}, capture_output=True, check=True)
    made = greedy(engine, engine.tokenizer.encode(prompt), 3)
    assert done.stdout == prompt + engine.tokenizer.decode(made).encode() + b"\n"


def test_a_reader_that_leaves_ends_the_command_without_a_word(learned):
    line = f"{sys.executable} examples/gpt2 --weights {learned[0]} --greedy --tokens 900 | head -c 4"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("The ", "")


def test_a_stop_token_ends_the_text(learned, engine):
    ids = engine.tokenizer.encode("Beautiful is better")
    made = greedy(engine, ids, 6)
    stop = engine.tokenizer.decode(made[3:4])
    kept = made[: made.index(made[3])]
    done = command(
        learned[0], "--prompt", "Beautiful is better", "--greedy", "--tokens", "6", "--stop", stop, check=True
    )
    assert done.stdout == "Beautiful is better" + engine.tokenizer.decode(kept) + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "/nowhere"], "gpt2: /nowhere has no config.json"),
        (["--temp", "-1"], "gpt2: temperature is -1"),
        (["--tokens", "-1"], "gpt2: --tokens is -1"),
        (["--stop", "two tokens at least"], "it must be one"),
        (["--device", "gpu"], "gpu"),
        (["--prompt", "word " * 1100], "a prompt has 1 to 1024 tokens"),
    ],
)
def test_the_command_answers_mistakes_in_one_line(learned, arguments, message):
    done = command(learned[0], *arguments)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr

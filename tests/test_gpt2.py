"""The GPT-2 example, against transformers' GPT-2 in torch fp32 on the same weights: one small model that learned
English, and random ones in the shapes of the published 124M."""

import itertools
import subprocess
import sys

import gpt2_case
import numpy as np
import pytest
from gpt2_case import ROOT, reference_greedy, reference_logits
from gpt2_engine import BUCKETS, Engine
from gpt2_sampling import Sampler

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
    prompt = ids[40 : 40 + length]
    assert greedy(engine, prompt, 200) == reference_greedy(learned[1], prompt, 200)


@pytest.mark.parametrize("length", [1023, 1024])
def test_a_text_ends_where_the_positions_do(engine, learned, ids, length):
    made = greedy(engine, ids[:length], 200)
    assert len(made) == 1025 - length
    assert made == reference_greedy(learned[1], ids[:length], len(made))


def test_the_small_model_has_learned_its_text(engine, ids):
    said = greedy(engine, ids[100:164], 40)
    assert np.mean(np.array(said) == ids[164:204]) > 0.8
    logits = engine.prefill(ids[:400])
    assert np.argmax(logits) == ids[400]


@pytest.mark.parametrize("layers", [0, 1, None])
def test_prefill_on_each_device_fills_the_cache_and_gives_the_logits_of_torch(device, learned, ids, layers):
    folder, model = learned
    engine = Engine.load(folder, device, layers=layers)
    assert len(engine.parts()) == {0: 4, 1: 2, None: 1}[layers]
    for length in (5, 32, 33, 64):
        expected = reference_logits(model, ids[: length + 1])
        np.testing.assert_allclose(engine.prefill(ids[:length]), expected[length - 1], atol=0.04)
        np.testing.assert_allclose(engine.decode(ids[length]), expected[length], atol=0.04)
    assert greedy(engine, ids[:50], 200) == reference_greedy(model, ids[:50], 200)

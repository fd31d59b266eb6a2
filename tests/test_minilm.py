"""The example encoder on real weights and real sentences, against Hugging Face's BertModel in torch fp32."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import anex

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples" / "minilm"))
os.environ["HF_HUB_OFFLINE"] = "1"

from encoder import BUCKETS, Encoder, installed  # noqa: E402
from minilm_torch import MiniLM  # noqa: E402


def sentences() -> list[str]:
    """50 texts of 1 to 256 tokens, the special ones counted, out of this project's own prose."""
    words = (ROOT / "LICENSE").read_text().split() * 3
    lengths = [*range(0, 20), *range(20, 128, 8), 60, 61, 62, 63, 124, 125, 126, 127, *range(128, 260, 20)]
    texts = [" ".join(words[5 * i : 5 * i + n]) for i, n in enumerate(lengths)]
    return [*texts, "naïve café — ümläut 🙂", "don't... stop!", "A man is eating food."][:50]


@pytest.fixture(scope="module")
def encoder():
    return Encoder()


@pytest.fixture(scope="module")
def reference(encoder):
    """[50, 384] by transformers: mean of the last hidden state over the tokens, normalised."""
    from transformers import BertModel

    model = BertModel.from_pretrained(installed()).eval()
    rows = []
    with torch.inference_mode():
        for text in sentences():
            ids = torch.tensor([encoder.tokenizer.encode(text).ids])
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            rows.append(torch.nn.functional.normalize(hidden.mean(1))[0].numpy())
    return np.stack(rows)


def test_the_sentences_cover_every_bucket_from_one_token_to_the_longest(encoder):
    lengths = [len(encoder.tokenizer.encode(text).ids) for text in sentences()]
    assert len(lengths) == 50
    assert min(lengths) <= 3
    assert max(lengths) == BUCKETS[-1]
    assert {next(b for b in BUCKETS if b >= n) for n in lengths} == set(BUCKETS)


@pytest.mark.filterwarnings("ignore::anex.AneWarning")  # contested rules, which the comparison answers
def test_embeddings_equal_the_reference_implementations(device, reference):
    found = Encoder(device=device).encode(sentences())
    cosine = (found * reference).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(reference, axis=1)
    assert cosine.min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=2e-3)


@pytest.mark.filterwarnings("ignore::anex.AneWarning")
def test_the_same_model_through_torch_gives_the_same_embeddings(device, encoder, reference):
    length = 64
    module = MiniLM(encoder.weights, encoder.config)
    traced = anex.from_torch(module, ids=anex.spec((1, length), "int32"), mask=(1, 1, 1, length))
    options = {"passes": {"plain_indices": True}} if device == "ane" else {}  # no token's number is negative
    program = anex.compile(traced, device=device, **options)
    for i, text in enumerate(sentences()[:12]):
        tokens = encoder.tokenizer.encode(text).ids
        ids, mask = np.zeros((1, length), np.int32), np.full((1, 1, 1, length), -3e4, np.float16)
        ids[0, : len(tokens)], mask[..., : len(tokens)] = tokens, 0
        found = np.asarray(program(ids, mask), np.float32)[0]
        assert found @ reference[i] / np.linalg.norm(found) >= 0.9999
        assert found @ encoder.encode([text])[0] / np.linalg.norm(found) >= 0.9999


@pytest.mark.parametrize("script", ["examples/minilm", "examples/fused_ffn.py"])
def test_examples_run_as_the_readme_says(script):
    done = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ("0.689" if script.endswith("minilm") else "refused:") in done.stdout  # the two sentences about eating

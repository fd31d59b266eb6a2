"""GPT-2 checkpoints for the tests, in Hugging Face's format: one that learned English, one of the 124M's shapes."""

import codecs
import contextlib
import io
import pydoc_data.topics
import sys
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples" / "gpt2"))

TOPICS = ("while", "pass", "break")
VOCABULARY = 600
WINDOW = 64  # tokens that training sees at once, at random places among the positions
STEPS = 900


def english() -> str:
    """The Zen of Python, what its documentation says on some topics, and this project's licence: about 4 KB."""
    with contextlib.redirect_stdout(io.StringIO()):
        import this
    zen = codecs.decode(this.s, "rot13")
    parts = [pydoc_data.topics.topics[name] for name in TOPICS]
    return "\n\n".join([zen, *parts, (ROOT / "LICENSE").read_text()])


def save_tokenizer(folder: Path, text: str) -> tokenizers.Tokenizer:
    """A byte-level BPE that learned ``text``: vocab.json, merges.txt, tokenizer.json."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.model.save(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def trained(folder: Path) -> GPT2LMHeadModel:
    """A GPT-2 of 2 layers that learned ``english()`` nearly by heart, saved to ``folder``; in fp16's weights."""
    text = english()
    tokenizer = save_tokenizer(folder, text)
    ids = torch.tensor(tokenizer.encode(text).ids)
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same model each time
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=96, n_layer=2, n_head=3, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS, pct_start=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        starts = torch.randint(len(ids) - WINDOW, (12,), generator=generator)
        places = torch.randint(config.n_positions - WINDOW + 1, (12, 1), generator=generator) + torch.arange(WINDOW)
        batch = torch.stack([ids[start : start + WINDOW] for start in starts])
        loss = model(batch, labels=batch, position_ids=places).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    torch.set_num_threads(threads)
    return saved(model.eval(), folder)


def random_124m(folder: Path, layers: int = 12) -> GPT2LMHeadModel:
    """Random weights in the shapes of the published 124M model, spread so that attention is not uniform."""
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(n_layer=layers, initializer_range=0.05)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.05)
    text = english()
    save_tokenizer(folder, text)
    return saved(model, folder)


def saved(model: GPT2LMHeadModel, folder: Path) -> GPT2LMHeadModel:
    """In fp16's weights; without a tokenizer"""
    with torch.no_grad():
        for weight in model.parameters():  # the reference is fp32 arithmetic on the same weights
            weight.copy_(weight.half().float())
    model.save_pretrained(folder)
    return model


def reference_logits(model: GPT2LMHeadModel, ids) -> np.ndarray:
    """[S, V] of torch in fp32."""
    with torch.inference_mode():
        return model(torch.tensor([list(ids)])).logits[0].numpy()


def reference_greedy(model: GPT2LMHeadModel, ids, tokens: int) -> list[int]:
    with torch.inference_mode():
        made, cache, new = [], None, torch.tensor([list(ids)])
        for _ in range(tokens):
            out = model(new, past_key_values=cache, use_cache=True)
            cache, new = out.past_key_values, out.logits[:, -1:].argmax(-1)
            made.append(int(new))
        return made

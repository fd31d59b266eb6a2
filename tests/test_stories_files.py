"""The files of examples/stories110m: llama2.c's models and tokenizers, tokens, checkpoints."""

import struct

import numpy as np
import pytest
import sentencepiece
import stories_case
from stories_checkpoint import Checkpoint
from stories_config import TINY, Config, StoriesError, random_weights
from stories_data import Tokens, save_tokens
from stories_llama2c import load, save
from stories_tokenizer import BEGIN, Tokenizer, learn_sentencepiece

SMALL = Config(dim=16, hidden_dim=24, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=300, seq_len=8)
SEPARATE = Config(dim=16, hidden_dim=24, n_layers=2, n_heads=2, n_kv_heads=2, vocab_size=9, seq_len=4, shared=False)


def exported(config, weights):
    """A model file by the steps of llama2.c's legacy_export."""
    vocabulary = config.vocab_size if config.shared else -config.vocab_size
    parts = [struct.pack("iiiiiii", config.dim, config.hidden_dim, config.n_layers, config.n_heads,
                         config.n_kv_heads, vocabulary, config.seq_len), weights["embedding"]]  # fmt: skip
    for name in ("attention_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3"):
        parts += [weights[f"{name}_{i}"] for i in range(config.n_layers)]
    parts.append(weights["norm"])
    frequencies = 1.0 / 10000 ** (np.arange(0, config.head_size, 2) / config.head_size)
    turn = np.outer(np.arange(config.seq_len), frequencies)
    parts += [np.cos(turn), np.sin(turn)]
    if not config.shared:
        parts.append(weights["output"])
    return b"".join(part if isinstance(part, bytes) else np.asarray(part, "<f4").tobytes() for part in parts)


@pytest.mark.parametrize("config", [SMALL, SEPARATE], ids=["shared classifier", "its own classifier"])
def test_model_files_are_those_of_llama2c(config, tmp_path):
    weights = random_weights(config)
    data = exported(config, stories_case.file_order(config, weights))
    save(tmp_path / "m.bin", config, weights)
    assert (tmp_path / "m.bin").read_bytes() == data
    found, read = load(tmp_path / "m.bin")
    assert found == config
    assert list(read) == list(config.shapes())
    for name, value in read.items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)


def test_the_published_size_has_its_parameters():
    assert Config().parameters() == 109_529_856


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "cut off"),
        (lambda data: data[:20], "begins with a header of 28"),
        (lambda data: data + b"0000", "too long"),
        (lambda data: struct.pack("<II", 0x616B3432, 1) + data[8:], "version 1 of llama2.c's format"),
        (lambda data: struct.pack("<i", -5) + data[4:], "dim is -5"),
    ],
)
def test_other_model_files_are_refused(change, message, tmp_path):
    path = tmp_path / "m.bin"
    save(path, SMALL, random_weights(SMALL))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(StoriesError, match=message):
        load(path)


# ---- tokenizers -------------------------------------------------------------------------------------------------

TEXT = "Once upon a time there was a little dog. The dog had a red ball, and 12 cats had none.\n" * 20
LINES = [
    "Once upon a time", "the dog  and the ball", "unseen: Zürich 東京 🐈", "", " a little", "12 little cats",
    "aaaa bbbb",
]  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return learn_sentencepiece(TEXT, 340)


@pytest.mark.parametrize("line", LINES)
def test_tokens_are_those_of_sentencepiece(model, line, tmp_path):
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    Tokenizer.of_sentencepiece(model).save(tmp_path / "tokenizer.bin")
    ours = Tokenizer.load(tmp_path / "tokenizer.bin", theirs.vocab_size())
    assert ours.encode(line, begin=False) == theirs.encode(line)
    assert ours.decode(ours.encode(line)) == theirs.decode(theirs.encode(line)) == line


def test_bytes_as_older_exporters_wrote_them_are_read(model, tmp_path):
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    new = Tokenizer.of_sentencepiece(model)
    old = Tokenizer([chr(n - 3).encode() if 3 <= n < 259 else t for n, t in enumerate(new.tokens)], new.scores)
    for line in LINES:
        assert old.encode(line) == [BEGIN, *theirs.encode(line)]
        assert old.decode(old.encode(line)) == line


def test_tokenizers_that_are_cut_off_or_of_another_model_are_refused(model, tmp_path):
    path = tmp_path / "tokenizer.bin"
    made = Tokenizer.of_sentencepiece(model)
    made.save(path)
    with pytest.raises(StoriesError, match="the model has 32000"):
        Tokenizer.load(path, 32000)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StoriesError, match=rf"cut off after {len(made.tokens) - 1} tokens"):
        Tokenizer.load(path)


# ---- tokens and checkpoints -------------------------------------------------------------------------------------


def test_a_step_s_sequence_depends_on_its_number_alone(tmp_path):
    save_tokens(tmp_path / "d.bin", range(1000))
    tokens, again = (Tokens(tmp_path / "d.bin", 8, 1000) for _ in range(2))
    one = [tokens.step(i) for i in range(5)]
    for i in reversed(range(5)):
        for a, b in zip(one[i], again.step(i), strict=True):
            np.testing.assert_array_equal(a, b)
    x, y = one[3]
    np.testing.assert_array_equal(x + 1, y)
    assert len({int(x[0]) for x, _ in one}) > 1


def test_files_of_tokens_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "d.bin"
    save_tokens(path, range(20))
    with pytest.raises(StoriesError, match="the model has 5"):
        Tokens(path, 8, 5).step(0)
    with pytest.raises(StoriesError, match=r"40 bytes; a file of uint16 tokens for sequences of 20 .* 42 at least"):
        Tokens(path, 20, 32000)
    with pytest.raises(StoriesError, match="ends at 65535"):
        save_tokens(path, [70000])


def test_a_checkpoint_keeps_bits_and_replaces_the_old_one_as_a_whole(tmp_path, monkeypatch):
    path, weights = tmp_path / "c.safetensors", random_weights(TINY)
    state = {"first.norm": np.float32([np.nextafter(np.float32(1), np.float32(2))])}
    Checkpoint(TINY, weights, state, {"step": 3}).save(path)
    found = Checkpoint.load(path)
    assert (found.config, found.run) == (TINY, {"step": 3})
    np.testing.assert_array_equal(found.state["first.norm"], state["first.norm"])
    for name, value in found.weights.items():
        np.testing.assert_array_equal(value, weights[name])

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)  # the last thing that happens before the new one is there
    with pytest.raises(KeyboardInterrupt):
        Checkpoint(TINY, weights, state, {"step": 4}).save(path)
    assert Checkpoint.load(path).run == {"step": 3}


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, kept):
    path = tmp_path / "c.safetensors"
    Checkpoint(TINY, random_weights(TINY)).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoriesError, match=r"c\.safetensors is cut off or damaged .* take another copy"):
        Checkpoint.load(path)

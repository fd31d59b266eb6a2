"""GPT-2's byte-level BPE by the tokenizers library, for text and for bytes that are none.

Every byte has a token, so ``decode_bytes(encode(data)) == data`` for any bytes, and ``decode(encode(text)) == text``.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers
from gpt2_config import CheckpointError
from tokenizers import decoders, models, pre_tokenizers

END_OF_TEXT = "<|endoftext|>"


def byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in the vocabulary: itself if it prints, else one from U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}


LETTERS = byte_letters()
BYTES = {letter: byte for byte, letter in LETTERS.items()}


class Tokenizer:
    """Text or bytes to token numbers and back."""

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        self.library = library
        library.no_truncation()
        library.no_padding()
        vocabulary = library.get_vocab(with_added_tokens=True)
        if missing := [byte for byte, letter in LETTERS.items() if letter not in vocabulary]:
            raise CheckpointError(
                f"the vocabulary has no token for byte {missing[0]} and {len(missing) - 1} others: it is not byte-level"
            )
        self.byte_ids = [vocabulary[LETTERS[byte]] for byte in range(256)]
        self.added = {number: token.content for number, token in library.get_added_tokens_decoder().items()}
        self.end: int | None = vocabulary.get(END_OF_TEXT)

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """From tokenizer.json, or from vocab.json or encoder.txt with merges.txt."""
        whole, vocab, encoder, merges = (
            folder / name for name in ("tokenizer.json", "vocab.json", "encoder.txt", "merges.txt")
        )
        try:
            if whole.exists():
                return cls(tokenizers.Tokenizer.from_file(str(whole)))
            if merges.exists() and vocab.exists():
                return cls(_byte_level(json.loads(vocab.read_text("utf-8")), _read_merges(merges)))
            if merges.exists() and encoder.exists():
                return cls(_byte_level(_read_encoder(encoder), _read_merges(merges)))
        except CheckpointError:
            raise
        except Exception as error:  # the library raises Exception itself
            raise CheckpointError(f"{folder}: the tokenizer's files do not fit together: {error}") from error
        raise CheckpointError(f"{folder} has no tokenizer.json, nor vocab.json (or encoder.txt) and merges.txt")

    def save(self, folder: Path) -> None:
        """tokenizer.json, and encoder.txt (number, tab, base64 of the token's bytes) and merges.txt."""
        self.library.save(str(folder / "tokenizer.json"))
        lines = (f"{number}\t{base64.b64encode(piece).decode()}" for number, piece in sorted(self.pieces.items()))
        (folder / "encoder.txt").write_text("\n".join(lines) + "\n")
        merges = json.loads(self.library.to_str())["model"]["merges"]
        text = "\n".join(pair if isinstance(pair, str) else " ".join(pair) for pair in merges)
        (folder / "merges.txt").write_text(f"#version: 0.2\n{text}\n", "utf-8")

    def __len__(self) -> int:
        return self.library.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str | bytes) -> list[int]:
        """The numbers; of bytes that are no UTF-8, those are tokens one by one."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        ids: list[int] = []
        for part in re.split("([\udc80-\udcff]+)", text):
            if part and "\udc80" <= part[0] <= "\udcff":
                ids += [self.byte_ids[byte] for byte in part.encode("utf-8", "surrogateescape")]
            elif part:
                ids += self.library.encode(part, add_special_tokens=False).ids
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Numbers without a token, as of a padded vocabulary, stand for nothing."""
        return b"".join(self.piece(number) for number in ids)

    def decode(self, ids: Iterable[int]) -> str:
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each number as it comes; letters of several tokens come with their last one."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for number in ids:
            yield decoder.decode(self.piece(number))
        yield decoder.decode(b"", final=True)

    def piece(self, number: int) -> bytes:
        """The bytes of one token; asked for each time, as a table of all takes as much memory as the library itself."""
        number = int(number)
        if number in self.added:
            return self.added[number].encode()
        token = self.library.id_to_token(number) if 0 <= number < 1 << 32 else None
        return b"" if token is None else bytes(BYTES[letter] for letter in token)

    @property
    def pieces(self) -> dict[int, bytes]:
        """Of all tokens, by number."""
        return {number: self.piece(number) for number in self.library.get_vocab(with_added_tokens=True).values()}


def _byte_level(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    if END_OF_TEXT in vocab:
        library.add_special_tokens([END_OF_TEXT])
    return library


def _read_merges(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text("utf-8").split("\n")  # not splitlines: U+0085 is a letter here
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise CheckpointError(f"{path}: {' '.join(wrong[0])!r} is no pair")
    return pairs  # type: ignore[return-value]


def _read_encoder(path: Path) -> dict[str, int]:
    vocab = {}
    for line in path.read_text().splitlines():
        number, _, code = line.partition("\t")
        piece = base64.b64decode(code)
        special = piece == END_OF_TEXT.encode()
        vocab[END_OF_TEXT if special else "".join(LETTERS[byte] for byte in piece)] = int(number)
    return vocab

"""llama2.c's tokenizer.bin, read and written, and its byte-pair encoding: the best-scored neighbours merge first."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from stories_config import StoriesError

UNKNOWN, BEGIN, END = 0, 1, 2  # the tokens that sentencepiece has first
BYTES = 3  # the token of byte 0; 255 follow, which exporters write as "<0x00>" or as the letter of that number


class Tokenizer:
    """Tokens as bytes, and their scores; the number of a token is its place."""

    def __init__(self, tokens: Sequence[bytes], scores: Sequence[float]) -> None:
        if len(tokens) != len(scores) or len(tokens) < BYTES + 256:
            raise StoriesError(
                f"{len(tokens)} tokens, {len(scores)} scores; a vocabulary begins with <unk>, <s>, </s> and 256 bytes"
            )
        self.tokens, self.scores = list(tokens), list(scores)
        self.numbers: dict[bytes, int] = {}
        for number in range(BYTES + 256, len(self.tokens)):  # those before are never merged
            self.numbers.setdefault(self.tokens[number], number)

    @classmethod
    def load(cls, path: str | os.PathLike[str], vocab_size: int | None = None) -> Tokenizer:
        """Read a tokenizer.bin of ``vocab_size`` tokens (of as many as it has): the file does not say how many."""
        data, at = Path(path).read_bytes(), 4
        tokens, scores = [], []
        while at < len(data) and len(tokens) != vocab_size:
            if at + 8 > len(data):
                raise StoriesError(f"{path} is cut off after {len(tokens)} tokens")
            score, length = struct.unpack_from("<fI", data, at)
            at += 8 + length
            if at > len(data):
                raise StoriesError(f"{path} is cut off after {len(tokens)} tokens, or no tokenizer.bin")
            tokens.append(data[at - length : at])
            scores.append(score)
        if vocab_size is not None and len(tokens) < vocab_size:
            raise StoriesError(f"{path} has {len(tokens)} tokens; the model has {vocab_size}")
        return cls(tokens, scores)

    def save(self, path: str | os.PathLike[str]) -> None:
        parts = [struct.pack("<I", max(map(len, self.tokens)))]
        for token, score in zip(self.tokens, self.scores, strict=True):
            parts += [struct.pack("<fI", score, len(token)), token]
        Path(path).write_bytes(b"".join(parts))

    @classmethod
    def of_sentencepiece(cls, model: bytes) -> Tokenizer:
        """That of a sentencepiece model with byte fallback, such as Llama's tokenizer.model."""
        import sentencepiece

        found = sentencepiece.SentencePieceProcessor(model_proto=model)
        tokens = [found.id_to_piece(i).replace("▁", " ").encode() for i in range(found.vocab_size())]
        tokens[BEGIN], tokens[END] = b"\n<s>\n", b"\n</s>\n"
        return cls(tokens, [found.get_score(i) for i in range(len(tokens))])

    @classmethod
    def learn(cls, text: str, vocab_size: int) -> Tokenizer:
        """One of ``vocab_size`` tokens that merge what is frequent in ``text``, trained as llama2.c trains them."""
        return cls.of_sentencepiece(learn_sentencepiece(text, vocab_size))

    def encode(self, text: str, begin: bool = True, end: bool = False) -> list[int]:
        """The numbers of ``text``, after a space, as sentencepiece and llama2.c have it."""
        made: list[int] = []
        for letter in f" {text}" if text else "":
            number = self.numbers.get(letter.encode())
            made += [number] if number is not None else [byte + BYTES for byte in letter.encode()]
        made = self._merged(made)
        return [BEGIN] * begin + made + [END] * end

    def _merged(self, made: list[int]) -> list[int]:
        """Merge the neighbours of the best score, the first of several, until none make a token."""
        import heapq

        after = [*range(1, len(made)), -1] if made else []
        before = list(range(-1, len(made) - 1))
        heap: list[tuple[float, int, int, int, int]] = []

        def look(left: int) -> None:
            if left < 0 or after[left] < 0:
                return
            a, b = made[left], made[after[left]]
            number = self.numbers.get(self.tokens[a] + self.tokens[b])
            if number is not None:
                heapq.heappush(heap, (-self.scores[number], left, number, a, b))

        for left in range(len(made)):
            look(left)
        while heap:
            _, left, number, a, b = heapq.heappop(heap)
            right = after[left]
            if made[left] != a or right < 0 or made[right] != b:
                continue  # one of them has merged with another since
            made[left], made[right] = number, -1
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            after[right] = -1
            look(before[left])
            look(left)
        return [number for number in made if number >= 0]

    def piece(self, before: int, number: int) -> bytes:
        """The bytes of a token after another: after the beginning of a text its space falls away."""
        if not 0 <= number < len(self.tokens):
            raise StoriesError(f"token {number} of {len(self.tokens)}: is the tokenizer that of the model?")
        token = self.tokens[number]
        if before == BEGIN and token.startswith(b" "):
            token = token[1:]
        return bytes([number - BYTES]) if BYTES <= number < BYTES + 256 else token

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of tokens, up to the end of the text; bytes that are no UTF-8 are replaced."""
        made, before = b"", BEGIN
        for number in numbers:
            if number == END:
                break
            if number != BEGIN:
                made += self.piece(before, number)
            before = number
        return made.decode(errors="replace")


def learn_sentencepiece(text: str, vocab_size: int) -> bytes:
    """A sentencepiece model with the settings of llama2.c's custom tokenizers."""
    import io

    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()), model_writer=made, model_type="bpe", vocab_size=vocab_size,
        split_digits=True, allow_whitespace_only_pieces=True, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, unk_surface=" \u2047 ", max_sentence_length=1 << 20, minloglevel=2,
        num_threads=1, hard_vocab_limit=False,
    )  # fmt: skip
    return made.getvalue()

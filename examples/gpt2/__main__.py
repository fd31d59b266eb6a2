"""Continue a text with GPT-2: ``python examples/gpt2 --weights FOLDER --prompt "Once upon a time" --tokens 100``.

FOLDER is a Hugging Face folder of any GPT-2 (config.json, model.safetensors, tokenizer.json or vocab.json and
merges.txt), or what gpt2_convert.py made of one, which starts faster. With --stats the times go to stderr.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import gpt2_lean  # noqa: F401 - first
from gpt2_config import CheckpointError
from gpt2_engine import Engine
from gpt2_quantize import BITS
from gpt2_sampling import Sampler

from anex import Error


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="gpt2", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--prompt", default="The meaning of life is", help="the text to continue")
    made.add_argument("--tokens", type=int, default=100, metavar="N", help="how many tokens at most (100)")
    made.add_argument("--temp", type=float, default=0.8, metavar="T", help="temperature (0.8); 0 is greedy")
    made.add_argument("--greedy", action="store_true", help="always the likeliest token")
    made.add_argument("--top-k", type=int, default=0, metavar="K", help="only of the K likeliest (all)")
    made.add_argument("--top-p", type=float, default=1.0, metavar="P", help="only of the likeliest that sum to P (1)")
    made.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R", help="above 1: say less twice (1)")
    made.add_argument("--seed", type=int, help="the same text each time")
    made.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end at this token too; repeatable")
    made.add_argument("--device", default="cpu", help="where prefill runs, cpu or ane (cpu); decode runs on the cpu")
    made.add_argument("--layers", type=int, metavar="L",
                      help="layers in a program of the prefill; 0: attention and feed-forward apart (all)")  # fmt: skip
    made.add_argument("--weights", type=Path, default=Path("gpt2_weights"), metavar="FOLDER")
    made.add_argument("--bits", type=int, choices=BITS, default=16, help="of the matrices (16)")
    made.add_argument("--cache-bits", type=int, choices=(16, 32), default=32, help="of the keys and values (32)")
    made.add_argument("--stats", action="store_true", help="print the times")
    made.add_argument("--interactive", action="store_true", help="continue lines from stdin; an empty one goes on")
    return made


def milliseconds(since: float) -> float:
    return (time.perf_counter() - since) * 1e3


class Session:
    """One run of the command: an engine, and what to print where."""

    def __init__(self, options: argparse.Namespace) -> None:
        if options.tokens < 0:
            raise ValueError(f"--tokens is {options.tokens}, and begins at 0")
        self.options = options
        temperature = 0.0 if options.greedy else options.temp
        self.sampler = Sampler(temperature, options.top_k, options.top_p, options.repetition_penalty, options.seed)
        start = time.perf_counter()
        self.engine = self.load()
        self.load_ms = milliseconds(start)
        self.stop = [] if self.engine.config.eos_token_id is None else [self.engine.config.eos_token_id]
        for text in options.stop:
            ids = self.engine.tokenizer.encode(text)
            if len(ids) != 1:
                raise ValueError(f"--stop {text!r} is {len(ids)} tokens; it must be one")
            self.stop += ids

    def load(self) -> Engine:
        """With a bar while weights come from files, and are converted."""
        from tqdm import tqdm

        options = self.options
        cache = f"float{options.cache_bits}"
        with tqdm(desc="loading", unit=" tensors", leave=False, disable=None, delay=0.5) as bar:
            return Engine.load(options.weights, options.device, options.bits, options.layers, cache, bar.update)

    def say(self, line: str) -> None:
        if self.options.stats:
            print(line, file=sys.stderr, flush=True)

    def continue_text(self, ids: Sequence[int]) -> list[int]:
        """Print what follows, as it comes, and the statistics around it."""
        config, engine = self.engine.config, self.engine
        self.say(f"=== GPT-2: {config.n_layer} layers, {config.n_embd} channels, {config.vocab_size} tokens; "
                 f"prefill {engine.device.upper()}, decode CPU ===")  # fmt: skip
        self.say(f"prompt: {len(ids)} tokens")
        self.say(f"load: {self.load_ms:.1f} ms")
        self.compile(len(ids))
        made: list[int] = []
        seconds: list[float] = []

        def tokens() -> Sequence[int]:
            for step in engine.generate(ids, self.options.tokens, self.sampler, self.stop):
                made.append(step.token)
                seconds.append(step.seconds)
                yield step.token
                if len(made) == 1:
                    self.say(f"\n[prefill: {len(ids)} tok, {step.seconds * 1e3:.1f} ms, {engine.device.upper()}]")
                else:
                    self.say(f"[step {len(made)}/{self.options.tokens}, seq {step.position + 1}, "
                             f"{step.seconds * 1e3:.2f} ms/tok, decode/CPU]")  # fmt: skip

        try:
            for piece in engine.tokenizer.stream(tokens()):
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            if not self.options.interactive:
                raise
        print(flush=True)
        self.total(seconds)
        return made

    def compile(self, length: int) -> None:
        """The programs for prompts of this length, with a bar while it takes."""
        from tqdm import tqdm

        buckets = list(dict.fromkeys(window.bucket for window in self.engine.windows(length)))
        start = time.perf_counter()
        kernels, positions = len(buckets) * len(self.engine.parts()), " + ".join(map(str, buckets))
        with tqdm(total=kernels, desc=f"compiling, {positions} positions", leave=False, disable=None) as bar:
            for bucket in buckets:
                self.engine.prepare(bucket, bar.update)
        self.say(f"compile: {milliseconds(start):.1f} ms ({kernels} kernels, {positions} positions)")

    def total(self, seconds: Sequence[float]) -> None:
        whole = f"total: {len(seconds)} tokens, {sum(seconds) * 1e3:.1f} ms"
        if len(seconds) > 1:
            decode = sum(seconds[1:]) / len(seconds[1:])
            whole += (
                f"; prefill {seconds[0] * 1e3:.1f} ms, decode {decode * 1e3:.2f} ms/token, {1 / decode:.1f} tokens/s"
            )
        self.say(whole)

    def interact(self) -> None:
        """Each line is a text to continue; an empty one continues what is there."""
        text: list[int] = []
        while True:
            try:
                line = input("> " if sys.stdin.isatty() else "")
            except (EOFError, KeyboardInterrupt):
                print()
                return
            text = self.engine.tokenizer.encode(line) if line else text
            if not text:
                continue
            if len(text) > self.engine.config.n_positions:
                print(f"that is {len(text)} tokens; the model has {self.engine.config.n_positions} positions")
                continue
            print(line, end="", flush=True)
            text = text + self.continue_text(text)


def main() -> None:
    options = parser().parse_args()
    for stream in (sys.stdin, sys.stdout):  # bytes that are no UTF-8 are tokens too
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        session = Session(options)
        if options.interactive:
            session.interact()
            return
        ids = session.engine.tokenizer.encode(options.prompt)
        if not ids:
            if session.engine.tokenizer.end is None:
                raise ValueError("the prompt is empty, and the model has no token to begin a text with")
            ids = [session.engine.tokenizer.end]
        print(options.prompt, end="", flush=True)
        session.continue_text(ids)
    except (CheckpointError, ValueError, Error) as error:
        raise SystemExit(f"gpt2: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:  # whoever read the text has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere when Python ends
        raise SystemExit(141) from None


if __name__ == "__main__":
    main()

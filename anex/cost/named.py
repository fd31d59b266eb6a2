"""Rows that name a model, or a kernel, in place of sizes: what that model is known to be made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .columns import CannotPrice, Sizes, stored
from .work import MIB, Load, Work, attention_works

LIKE_THEM = 0.15  # more spread of models, in logarithms
UNLIKE = 0.45
Priced = tuple[Load, str, float]


@dataclass(frozen=True)
class Encoder:
    """A stack of transformer blocks. ``flat``: its data has rank 2, tokens by width."""

    layers: int
    width: int
    hidden: int
    tokens: int
    head: int = 64
    flat: bool = False

    def works(self, scheme: str, weights: float | None, batch: float = 1.0) -> list[Work]:
        one = 4 * self.width**2 + 2 * self.width * self.hidden
        data = 2.0 * self.tokens * self.width * batch
        stack = self.layers
        parts = [
            Work("linear", 2.0 * one * self.tokens * stack * batch,
                 weights if weights is not None else one * stack * stored(scheme),
                 data * (1 + self.hidden / self.width) / batch, self.tokens * batch, (self.width, self.width), scheme,
                 6 * stack),
            *(Work(work.kind, work.flops * stack, bytes=work.bytes * stack, positions=work.positions, count=stack)
              for work in attention_works(self.tokens, self.width, batch, self.head)),
            Work("layer_norm", bytes=2 * data * stack, count=2 * stack),
        ]  # fmt: skip
        if self.flat:
            flat = (2 + self.hidden / self.width) * data * stack
            parts.append(Work("flat", bytes=flat, count=3 * stack))
        return parts


# As the public checkpoints of these names have them; the benchmark that timed ViT and MiniLM keeps them in rank 2,
# the one of Whisper in the layout of convolutions.
ENCODERS = {
    "vit_b16": Encoder(12, 768, 3072, 197, flat=True),
    "minilm": Encoder(6, 384, 1536, 64, 32, flat=True),
    "whisper_tiny": Encoder(4, 384, 1536, 1500),
    "whisper_base": Encoder(6, 512, 2048, 1500),
    "whisper_small": Encoder(12, 768, 3072, 1500),
    "whisper_medium": Encoder(24, 1024, 4096, 1500),
    "qwen2.5-vl": Encoder(32, 1280, 3420, 729, 80),
}
SENTENCE = 16  # tokens of one sentence, about
# Residual networks at 224 x 224: (blocks by stage, convolutions of a block as (kernel, channels out by width)).
RESNETS = {"resnet18": ((2, 2, 2, 2), 1), "resnet34": ((3, 4, 6, 3), 1), "resnet50": ((3, 4, 6, 3), 4)}
GPT2 = Encoder(12, 768, 3072, 16)
VOCABULARY = 50257
STORIES = {"kernels": 72, "gflop": 93.0, "weights": 2 * 170e6}  # of one training step, on the engine


def load(workload: str, s: Sizes) -> Priced:
    """The load of a row of one of the ``NAMED`` workloads, what is taken for granted, and how unsure that is."""
    text = f"{s.line.get('op', '')} {s.note}".lower()
    return _HOW[workload](s, text)


def _model(s: Sizes, text: str) -> Priced:
    given = s.optional("weight_mb")
    weights = given * MIB if given else None
    plain = text.replace("-", "").replace("/", "").replace("_", "").replace(" ", "")
    for name, shape in RESNETS.items():
        if name in plain:
            return Load(tuple(_resnet(*shape, s, weights)), 3 * 2 * 224**2 * s.batch, 2000 * s.batch, "whole_model"), \
                f"as {name} is built", LIKE_THEM  # fmt: skip
    for name, encoder in ENCODERS.items():
        if name.replace("_", "").replace("-", "") in plain:
            chosen = encoder
            if "1sentence" in plain:
                chosen = Encoder(encoder.layers, encoder.width, encoder.hidden, SENTENCE, encoder.head, encoder.flat)
            data = 2.0 * chosen.tokens * chosen.width * s.batch
            works = chosen.works(s.scheme, weights, s.batch)
            return Load(tuple(works), data, data, "whole_model"), f"as {name} is built", LIKE_THEM
    known = ", ".join((*RESNETS, *ENCODERS))
    raise CannotPrice(f"the row names a model that is none of {known}: give the model itself to `anex cost MODEL`")


def _resnet(blocks: tuple[int, ...], widening: int, s: Sizes, weights: float | None) -> list[Work]:
    """Every convolution of a residual network, the pooling and the classifier."""
    convs = [(7, 3, 64, 112)]
    into = 64
    for stage, count in enumerate(blocks):
        width, side = 64 * 2**stage, 56 // 2**stage
        out = width * widening
        for block in range(count):
            if widening == 1:
                convs += [(3, into, width, side), (3, width, width, side)]
            else:
                convs += [(1, into, width, side), (3, width, width, side), (1, width, out, side)]
            if block == 0 and into != out:
                convs.append((1, into, out, side))
            into = out
    convs.append((1, into, 1000, 1))
    total = sum(k * k * i * o for k, i, o, _ in convs)
    works = []
    for kernel, i, o, side in convs:
        parameters = kernel**2 * i * o
        bytes_ = weights * parameters / total if weights is not None else parameters * stored(s.scheme)
        works.append(Work("conv1x1" if kernel == 1 else "conv", 2.0 * parameters * side**2 * s.batch, bytes_,
                          2.0 * i * side**2, side**2 * s.batch, (i, o), s.scheme))  # fmt: skip
    adds = sum(2.0 * 64 * 2**stage * widening * (56 // 2**stage) ** 2 * n for stage, n in enumerate(blocks))
    works.append(Work("elementwise", bytes=adds * s.batch, count=sum(blocks)))
    works.append(Work("pool", bytes=2.0 * 64 * 112**2 * s.batch))
    return works


def _vision(s: Sizes, text: str) -> Priced:
    if "fused" not in text:
        raise CannotPrice("the weights travel through the host as data in every call, one program an op")
    encoder = ENCODERS["qwen2.5-vl"]
    one = Encoder(1, encoder.width, encoder.hidden, encoder.tokens, encoder.head)
    blocks = 1 if "per block" in text else encoder.layers
    data = 2.0 * one.tokens * one.width
    works = Encoder(blocks, one.width, one.hidden, one.tokens, one.head).works(s.scheme, None)
    return Load(tuple(works), data * blocks, data * blocks, "whole_model", blocks), \
        "as Qwen2.5-VL's encoder is built, a program a block, about 729 patches", UNLIKE  # fmt: skip


def _decode(s: Sizes, text: str) -> Priced:
    programs = re.search(r"(\d+) programs", text)
    if "gpt-2" not in text and "gpt2" not in text:
        if "unclear" in text:
            raise CannotPrice("the source does not say which part of a token's work it timed")
        if "gpu" in text or "cpu+ne" in text:
            raise CannotPrice("most of the model ran on other units than the engine")
        raise CannotPrice("column weight_mb is missing, and the host computes part of every token, the logits at least")
    works = [*GPT2.works(s.scheme, None), Work("linear", 2.0 * VOCABULARY * 768, VOCABULARY * 768 * stored(s.scheme),
                                               0.0, 1, (768, VOCABULARY), s.scheme)]  # fmt: skip
    count = int(programs[1]) if programs else 1
    data = 2.0 * 768 * 16 * count
    return Load(tuple(works), data, data, "llm_decode", count), f"as GPT-2 is built, {count} programs", UNLIKE


def _training(s: Sizes, text: str) -> Priced:
    if "stories110m" not in text and "stories" not in text:
        raise CannotPrice("part of a training step is many programs, and the row does not say of which model")
    width = 768
    work = Work("conv1x1", STORIES["gflop"] * 1e9, STORIES["weights"], 2.0 * 256 * width, 256, (width, width),
                s.scheme, 500)  # fmt: skip
    copies = 2.0 * 256 * width * STORIES["kernels"]
    return Load((work,), copies, copies, "train_step_ane_part", int(STORIES["kernels"])), \
        "as a step of Stories110M: 72 programs, 93 GFLOP, weights once forward and once backward", UNLIKE  # fmt: skip


def _other(s: Sizes, text: str) -> Priced:
    """Kernels of scientific computing, which benchmarks describe by one line of text."""
    if found := re.search(r"stencil \d+pt \((\d+)x(\d+), steps=(\d+)\)", text):
        height, width, steps = map(int, found.groups())
        positions = float(height * width)
        work = Work("conv", 18.0 * positions * steps, 18.0 * steps, 2 * positions, positions, (1, 1), s.scheme, steps)
        return Load((work,), 2 * positions, 2 * positions, "other"), "as convolutions of 3x3", UNLIKE
    if found := re.search(r"jacobi solve \(n=(\d+), iters=(\d+)\)", text):
        n, steps = map(int, found.groups())
        work = Work("linear", 2.0 * n * n * steps, 2.0 * n * n, 0.0, 1, (n, n), s.scheme, steps)
        ew = Work("elementwise", bytes=4.0 * n * steps, count=2 * steps)
        return Load((work, ew), 6.0 * n, 2.0 * n, "other"), "as products of one position, in turn", UNLIKE
    if found := re.search(r"dft-as-matmul \(n=(\d+)\)", text):
        n = int(found[1])
        work = Work("linear", 4.0 * n * n, 4.0 * n * n, 0.0, 1, (n, n), s.scheme, 2)
        return Load((work,), 4.0 * n, 4.0 * n, "other", 2), "as two products, a program each", UNLIKE
    raise CannotPrice("the workload is described by its name alone")


def _bridge(s: Sizes, text: str) -> Priced:
    """Ops that one project runs through a program of their own."""
    if "sort" in text:
        raise CannotPrice("the sort runs through a helper process, whose start is what was timed")
    if found := re.search(r"h=(\d+) s=(\d+) d=(\d+)", text):
        heads, tokens, head = map(int, found.groups())
        one = 2.0 * heads * tokens * head
        works = attention_works(tokens, heads * head, 1.0, head)
        return Load(tuple(works), 3 * one, one, "bridge"), "as attention in a program of its own", UNLIKE
    if found := re.search(r"\[(\d+), ?(\d+)\]", text):
        size = 2.0 * int(found[1]) * int(found[2])
        return Load((Work("reduce", bytes=size),), size, size, "bridge"), "as a reduction of the same data", UNLIKE
    raise CannotPrice("the op runs in a program of its own with a route that nobody described")


_HOW: dict[str, Callable[[Sizes, str], Priced]] = {
    "whole_model": _model, "vision_encoder": _vision, "vit_block": _vision, "llm_decode": _decode,
    "train_step_ane_part": _training, "other": _other, "bridge": _bridge,
}  # fmt: skip

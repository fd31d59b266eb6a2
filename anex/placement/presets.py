"""Models of the usual shapes with weights of zero, to see how residency depends on shape: nothing else is in them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._coremltools import builder
from ..build import graph
from ..errors import ArgumentError
from ..spec import spec

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program, Var


@dataclass(frozen=True)
class Decoder:
    """The sizes of a language model, and the context it is made for."""

    layers: int
    width: int
    hidden: int
    heads: int
    vocabulary: int
    context: int


GPT2 = Decoder(12, 768, 3072, 12, 50257, 1024)
LLAMA = Decoder(12, 768, 2048, 12, 32000, 2048)  # Stories110M
VIT = Decoder(12, 768, 3072, 12, 1000, 197)
MOBILENET = (  # channels, stride of each separable block, as MobileNet v1 has them
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1),
)  # fmt: skip


def preset(name: str, context: int | None = None) -> Program:
    """One of "mobilenet", "vit", "gpt2" and "llama"; ``context``: tokens of the last two."""
    if name not in _PRESETS:
        raise ArgumentError(f"preset {name!r} is none of {', '.join(_PRESETS)}")
    if context is not None and name not in ("gpt2", "llama"):
        raise ArgumentError(f"preset {name!r} has no context")
    return _PRESETS[name](context)


class Layers:
    """coremltools' builder with one constant for each shape of weights, whatever its use."""

    def __init__(self) -> None:
        self.mb = builder()
        self.zeros = functools.cache(lambda *shape: self.mb.const(val=np.zeros(shape, np.float16)))

    def linear(self, x: Any, out: int) -> Any:
        return self.mb.linear(x=x, weight=self.zeros(out, int(x.shape[-1])))

    def layer_norm(self, x: Any) -> Any:
        width = int(x.shape[-1])
        return self.mb.layer_norm(x=x, axes=[-1], gamma=self.zeros(width), beta=self.zeros(width), epsilon=1e-5)

    def rms_norm(self, x: Any) -> Any:
        mb = self.mb
        mean = mb.reduce_mean(x=mb.mul(x=x, y=x), axes=[-1], keep_dims=True)
        return mb.mul(x=mb.mul(x=x, y=mb.rsqrt(x=mean, epsilon=1e-5)), y=self.zeros(int(x.shape[-1])))

    def rotate(self, x: Any) -> Any:
        """Positions as angles; x: [1, heads, tokens, width]."""
        mb, (_, _, tokens, width) = self.mb, map(int, x.shape)
        half = width // 2
        low = mb.slice_by_size(x=x, begin=[0, 0, 0, 0], size=[-1, -1, -1, half])
        high = mb.slice_by_size(x=x, begin=[0, 0, 0, half], size=[-1, -1, -1, half])
        turned = mb.concat(values=[mb.mul(x=high, y=-1.0), low], axis=-1)
        angles = self.zeros(1, 1, tokens, width)
        return mb.add(x=mb.mul(x=x, y=angles), y=mb.mul(x=turned, y=angles))

    def attention(self, x: Any, sizes: Decoder, mask: Any = None, rotate: bool = False) -> Any:
        mb, tokens = self.mb, int(x.shape[1])
        head = sizes.width // sizes.heads

        def split(of: Any) -> Any:
            return mb.transpose(x=mb.reshape(x=of, shape=[1, tokens, sizes.heads, head]), perm=[0, 2, 1, 3])

        query, key, value = (split(self.linear(x, sizes.width)) for _ in range(3))
        if rotate:
            query, key = self.rotate(query), self.rotate(key)
        scores = mb.mul(x=mb.matmul(x=query, y=key, transpose_y=True), y=head**-0.5)
        if mask is not None:
            scores = mb.add(x=scores, y=mask)
        mixed = mb.matmul(x=mb.softmax(x=scores, axis=-1), y=value)
        joined = mb.reshape(x=mb.transpose(x=mixed, perm=[0, 2, 1, 3]), shape=[1, tokens, sizes.width])
        return self.linear(joined, sizes.width)

    def block(self, x: Any, sizes: Decoder, mask: Any = None) -> Any:
        """As in GPT-2 and ViT."""
        mb = self.mb
        x = mb.add(x=x, y=self.attention(self.layer_norm(x), sizes, mask))
        inner = mb.gelu(x=self.linear(self.layer_norm(x), sizes.hidden), mode="TANH_APPROXIMATION")
        return mb.add(x=x, y=self.linear(inner, sizes.width))

    def gated_block(self, x: Any, sizes: Decoder, mask: Any) -> Any:
        """As in Llama."""
        mb = self.mb
        x = mb.add(x=x, y=self.attention(self.rms_norm(x), sizes, mask, rotate=True))
        y = self.rms_norm(x)
        inner = mb.mul(x=mb.silu(x=self.linear(y, sizes.hidden)), y=self.linear(y, sizes.hidden))
        return mb.add(x=x, y=self.linear(inner, sizes.width))


def _decoder(sizes: Decoder, gated: bool, context: int | None) -> Program:
    tokens = context or sizes.context

    @graph(tokens=spec((1, tokens), "int32"), mask=(1, 1, tokens, tokens))
    def decoder(tokens: Var, mask: Var) -> Any:
        layers = Layers()
        mb, count = layers.mb, int(tokens.shape[1])
        x = mb.gather(x=layers.zeros(sizes.vocabulary, sizes.width), indices=tokens, axis=0)
        for _ in range(sizes.layers):
            x = layers.gated_block(x, sizes, mask) if gated else layers.block(x, sizes, mask)
        x = layers.rms_norm(x) if gated else layers.layer_norm(x)
        last = mb.slice_by_size(x=x, begin=[0, count - 1, 0], size=[1, 1, sizes.width])
        parts = [layers.linear(last, n) for n in _tiles(sizes.vocabulary)]
        return mb.concat(values=parts, axis=-1, name="logits") if len(parts) == 1 else tuple(parts)

    return decoder


def _tiles(extent: int, limit: int = 16384) -> list[int]:
    """The vocabulary in parts that every chip takes."""
    count = -(-extent // limit)
    return [extent * (n + 1) // count - extent * n // count for n in range(count)]


def _vit(_: int | None) -> Program:
    @graph(image=(1, 3, 224, 224))
    def vit(image: Var) -> Any:
        layers = Layers()
        mb = layers.mb
        patches = mb.conv(x=image, weight=layers.zeros(VIT.width, 3, 16, 16), strides=[16, 16])
        x = mb.transpose(x=mb.reshape(x=patches, shape=[1, VIT.width, 196]), perm=[0, 2, 1])
        x = mb.concat(values=[layers.zeros(1, 1, VIT.width), x], axis=1)
        x = mb.add(x=x, y=layers.zeros(1, VIT.context, VIT.width))
        for _ in range(VIT.layers):
            x = layers.block(x, VIT)
        first = mb.slice_by_size(x=layers.layer_norm(x), begin=[0, 0, 0], size=[1, 1, VIT.width])
        return layers.linear(first, VIT.vocabulary)

    return vit


def _mobilenet(_: int | None) -> Program:
    @graph(image=(1, 3, 224, 224))
    def mobilenet(image: Var) -> Any:
        layers = Layers()
        mb = layers.mb
        x = mb.relu6(x=mb.conv(x=image, weight=layers.zeros(32, 3, 3, 3), strides=[2, 2], pad_type="same"))
        for out, stride in MOBILENET:
            into = int(x.shape[1])
            deep = mb.conv(
                x=x, weight=layers.zeros(into, 1, 3, 3), groups=into, strides=[stride, stride], pad_type="same"
            )
            x = mb.relu6(x=mb.conv(x=mb.relu6(x=deep), weight=layers.zeros(out, into, 1, 1)))
        pooled = mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True)
        return mb.conv(x=pooled, weight=layers.zeros(1000, 1024, 1, 1), name="logits")

    return mobilenet


_PRESETS: dict[str, Callable[[int | None], Program]] = {
    "mobilenet": _mobilenet,
    "vit": _vit,
    "gpt2": functools.partial(_decoder, GPT2, False),
    "llama": functools.partial(_decoder, LLAMA, True),
}

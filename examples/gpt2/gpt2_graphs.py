"""GPT-2 as MIL programs: prefill in the Neural Engine's layout, one token with the cache as state, and the head.

Prefill has activations [1, C, 1, S], where linear layers are 1x1 convolutions; one token has [1, C]. Both read the
same arrays of fp16 weights, which the CPU engine leaves where they are. Activations are fp16 on the Neural Engine,
which has no other. On the CPU they are float32, which costs little where weights are what is read: then logits are as
near to those of torch in fp32 as torch's are to each other when it adds in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gpt2_config import ACTIVATIONS
from gpt2_quantize import Quantized
from gpt2_weights import Weights

import anex
from anex import mb

FIRST = (0, "attention")  # half of a layer
HIDDEN = np.float16(-np.inf)  # of what a query may not see
HIDDEN_ON_ANE = np.float16(-3e4)  # how the Neural Engine takes infinities is not known


def constant(matrix: np.ndarray | Quantized, rank: int = 2) -> Any:
    """A matrix of weights with axes of 1 up to ``rank``; a quantised one stays so in the program.

    Made here, not by the builder: that would give it the dtype of the other operands.
    """
    if isinstance(matrix, np.ndarray):
        return mb.const(val=matrix.reshape(*matrix.shape, *[1] * (rank - 2)))
    codes, scale = (part.reshape(*part.shape, *[1] * (rank - 2)) for part in (matrix.codes, matrix.scale))
    if matrix.bits == 4:
        from coremltools.converters.mil.mil import types

        codes = codes.astype(types.np_int4_dtype)
    return mb.constexpr_blockwise_shift_scale(data=codes, scale=scale)


class Graphs:
    """Makes the programs of one model. ``device`` is where prefill will run, ``cache`` the dtype of keys and values."""

    def __init__(self, weights: Weights, device: str = "cpu", cache: str = "float32") -> None:
        self.weights, self.config, self.device, self.cache = weights, weights.config, device, cache
        self.native = device == "cpu"  # prefill runs where decode does
        self.dtype = "float16" if device == "ane" else "float32"  # of prefill's activations
        self.kept = "float16" if device == "ane" else cache  # of the keys and values it gives

    # ---- prefill ------------------------------------------------------------------------------

    def prefill(self, bucket: int, parts: list[tuple[int, str]]) -> Any:
        """``bucket`` positions through some of the halves of layers, (number, "attention" or "ffn"), in order: x to y,
        [1, C, 1, S].

        On the CPU the first part has the numbers of the tokens, int32 [S], for x, and those of their positions;
        keys and values go to the states that ``decode`` reads, from ``begin`` to ``end``, and the mask says which
        of all positions each of these sees. Other devices begin at position 0, and give keys and values after y,
        [1, heads, S, size].
        """
        config, first = self.config, self.native and parts[0] == FIRST

        def prefill(x: Any, **given: Any) -> Any:
            if first:
                x = mb.transpose(x=self._embedding(x, given["places"]), perm=(1, 0))
                x = mb.reshape(x=x, shape=(1, config.n_embd, 1, bucket))
            made: list[Any] = []
            mask = None if self.native else mb.const(val=self._hidden(bucket))
            for layer, half in parts:
                if half == "ffn":
                    x = mb.add(x=x, y=self._ffn(x, layer))
                elif self.native:
                    x = mb.add(x=x, y=self._cached_attention(x, layer, given))
                else:
                    added, *cache = self._attention(x, layer, mask)
                    made += [mb.identity(x=part, name=f"{kind}{layer}") for kind, part in zip("kv", cache, strict=True)]
                    x = mb.add(x=x, y=added)
            return mb.identity(x=x, name="y"), *made

        if not self.native:
            return _program(prefill, {"x": anex.spec((1, config.n_embd, 1, bucket), self.dtype)}, {})
        given = self.tokens(bucket) if first else {"x": anex.spec((1, config.n_embd, 1, bucket), self.dtype)}
        return _program(prefill, {**given, **self.window(bucket)}, self.states())

    def tokens(self, length: int) -> dict[str, anex.Spec]:
        """Numbers of tokens, and of their positions."""
        return {name: anex.spec((length,), "int32") for name in ("x", "places")}

    def window(self, length: int) -> dict[str, anex.Spec]:
        """Where ``length`` positions lie in the cache, and which of its positions each of them sees."""
        place = anex.spec((4,), "int32")
        return {"begin": place, "end": place, "mask": anex.spec((1, 1, length, self.config.n_positions), "bool")}

    def states(self) -> dict[str, anex.Spec]:
        """The keys and values of all positions."""
        config = self.config
        cache = anex.spec((1, config.n_head, config.n_positions, config.head_size), self.cache)
        return {f"{kind}{i}": cache for i in range(config.n_layer) for kind in "kv"}

    def _embedding(self, ids: Any, places: Any) -> Any:
        """[S, C] float32"""
        words, at = (
            _as("float32", mb.gather(x=mb.const(val=self.weights.vector(name)), indices=indices, axis=0))
            for name, indices in (("wte", ids), ("wpe", places))
        )
        return mb.add(x=words, y=at)

    def _hidden(self, length: int) -> np.ndarray:
        """What is added to the scores: each position sees those up to it."""
        return np.triu(np.full((1, 1, length, length), HIDDEN_ON_ANE if self.device == "ane" else HIDDEN), 1)

    def _heads(self, x: Any, layer: int) -> list[Any]:
        """Query, key and value [1, heads, size, S]"""
        config, at = self.config, f"layer_{layer:02}/"
        normal, shape = self._norm(x, at + "ln1"), (1, config.n_head, config.head_size, x.shape[3])
        if self.native:  # one product, of matrices that follow each other in memory
            parts = mb.split(x=self._conv(normal, at, "qkv"), num_splits=3, axis=1)
        else:
            parts = [self._conv(normal, at, part) for part in "qkv"]
        three = [mb.reshape(x=_as(self.kept, part), shape=shape) for part in parts]
        if config.scale_attn_by_inverse_layer_idx:
            three[0] = mb.mul(x=three[0], y=np.dtype(self.kept).type(1 / (layer + 1)))
        return three

    def _mixed(self, mixed: Any, layer: int) -> Any:
        shape = (1, self.config.n_embd, 1, mixed.shape[3])
        return self._conv(_as(self.dtype, mb.reshape(x=mixed, shape=shape)), f"layer_{layer:02}/", "o")

    def _cached_attention(self, x: Any, layer: int, given: dict[str, Any]) -> Any:
        queries, *cache = (mb.transpose(x=part, perm=(0, 1, 3, 2)) for part in self._heads(x, layer))
        keys, values = (
            _write(given[f"{kind}{layer}"], part, given["begin"], given["end"])
            for kind, part in zip("kv", cache, strict=True)
        )
        mixed = mb.scaled_dot_product_attention(query=queries, key=keys, value=values, attn_mask=given["mask"])
        return self._mixed(mb.transpose(x=mixed, perm=(0, 1, 3, 2)), layer)

    def _attention(self, x: Any, layer: int, mask: Any) -> tuple[Any, Any, Any]:
        """What is added to x, and keys and values"""
        q, k, v = self._heads(x, layer)
        keys, values = (mb.transpose(x=part, perm=(0, 1, 3, 2)) for part in (k, v))
        if self.device == "ane":  # the engine's own attention op ignores its mask
            scores = mb.matmul(x=mb.mul(x=q, y=np.float16(self.config.head_size**-0.5)), y=k, transpose_x=True)
            seen = mb.softmax(x=mb.add(x=scores, y=mask), axis=-1)
            return self._mixed(mb.matmul(x=v, y=seen, transpose_y=True), layer), keys, values
        queries = mb.transpose(x=q, perm=(0, 1, 3, 2))
        mixed = mb.scaled_dot_product_attention(query=queries, key=keys, value=values, attn_mask=mask)
        return self._mixed(mb.transpose(x=mixed, perm=(0, 1, 3, 2)), layer), keys, values

    def _ffn(self, x: Any, layer: int) -> Any:
        at = f"layer_{layer:02}/"
        hidden = self._conv(self._norm(x, at + "ln2"), at, "1")
        return self._conv(mb.gelu(x=hidden, mode=ACTIVATIONS[self.config.activation_function]), at, "2")

    def _conv(self, x: Any, at: str, part: str) -> Any:
        weight = constant(self.weights.matrix(f"{at}w{part}"), rank=4)
        return mb.conv(x=x, weight=weight, bias=mb.const(val=self.weights.vector(f"{at}b{part}")))

    def _norm(self, x: Any, name: str) -> Any:
        """Over the channels, axis 1 in either layout."""
        dtype = np.float16 if _dtype(x) == "fp16" else np.float32
        gamma, beta = (self.weights.vector(f"{name}_{part}").astype(dtype) for part in "gb")
        epsilon = dtype(self.config.layer_norm_epsilon)
        return mb.layer_norm(x=x, axes=[1], gamma=gamma, beta=beta, epsilon=epsilon)

    # ---- one token ----------------------------------------------------------------------------

    def decode(self) -> Any:
        """The number of a token, x int32 [1], its place and the mask of positions -> logits [1, V] float32.

        The keys and values of all positions are states, [1, heads, positions, size].
        """
        config = self.config

        def token(x: Any, places: Any, begin: Any, end: Any, mask: Any, **states: Any) -> Any:
            x = self._embedding(x, places)
            for i in range(config.n_layer):
                at = f"layer_{i:02}/"
                x = mb.add(x=x, y=self._single_attention(x, i, begin, end, mask, states[f"k{i}"], states[f"v{i}"]))
                hidden = self._linear(self._norm(x, at + "ln2"), at, "1")
                hidden = mb.gelu(x=hidden, mode=ACTIVATIONS[config.activation_function])
                x = mb.add(x=x, y=self._linear(hidden, at, "2"))
            return self._logits(x)

        return _program(token, {**self.tokens(1), **self.window(1)}, self.states())

    def _single_attention(self, x: Any, layer: int, begin: Any, end: Any, mask: Any, k: Any, v: Any) -> Any:
        config, at = self.config, f"layer_{layer:02}/"
        three = self._linear(self._norm(x, at + "ln1"), at, "qkv")
        one = (1, config.n_head, 1, config.head_size)
        query, key, value = (
            mb.reshape(x=_as(self.cache, part), shape=one) for part in mb.split(x=three, num_splits=3, axis=1)
        )
        if config.scale_attn_by_inverse_layer_idx:
            query = mb.mul(x=query, y=np.dtype(self.cache).type(1 / (layer + 1)))
        keys, values = (_write(state, update, begin, end) for state, update in ((k, key), (v, value)))
        mixed = mb.scaled_dot_product_attention(query=query, key=keys, value=values, attn_mask=mask)
        return self._linear(_as("float32", mb.reshape(x=mixed, shape=(1, config.n_embd))), at, "o")

    def head(self) -> Any:
        """The last layer's x [1, C] float32 of one position -> its logits [1, V] float32."""

        @anex.graph(x=anex.spec((1, self.config.n_embd), "float32"))
        def head(x: Any) -> Any:
            return self._logits(x)

        return head

    def _logits(self, x: Any) -> Any:
        return mb.linear(x=self._norm(x, "ln_f"), weight=constant(self.weights.head), name="logits")

    def _linear(self, x: Any, at: str, part: str) -> Any:
        weight = constant(self.weights.matrix(f"{at}w{part}"))
        return mb.linear(x=x, weight=weight, bias=mb.const(val=self.weights.vector(f"{at}b{part}")))


def _write(state: Any, update: Any, begin: Any, end: Any) -> Any:
    """The state after ``update`` has been written into it; the CPU engine writes no more than that."""
    written = mb.slice_update(x=mb.read_state(input=state), update=update, begin=begin, end=end)
    return mb.coreml_update_state(state=state, value=written)


def _dtype(x: Any) -> str:
    """As MIL calls it"""
    from coremltools.converters.mil.mil import types

    return types.builtin_to_string(x.dtype)


def _as(dtype: str, x: Any) -> Any:
    wanted = dtype.replace("float", "fp")
    return x if _dtype(x) == wanted else mb.cast(x=x, dtype=wanted)


def _program(function: Callable[..., Any], inputs: dict[str, anex.Spec], states: dict[str, anex.Spec]) -> Any:
    """What ``anex.graph`` makes, with states beside the inputs."""
    import coremltools
    from coremltools.converters.mil.mil import Function, Program, types

    def builtin(spec: anex.Spec) -> Any:
        return types.type_mapping.numpy_type_to_builtin_type(spec.dtype)

    given = {name: mb.placeholder(spec.shape, dtype=builtin(spec)) for name, spec in inputs.items()}
    kept = {name: mb.state_tensor_placeholder(spec.shape, builtin(spec)) for name, spec in states.items()}
    program = Program()
    with Function({**given, **kept}, coremltools.target.iOS18) as main:
        outputs = function(**main.inputs)
        main.set_outputs(list(outputs) if isinstance(outputs, tuple) else [outputs])
    program.add_function("main", main)
    return program

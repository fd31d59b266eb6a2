"""scaled_dot_product_attention, compared with torch in float64 and with coremltools."""

import numpy as np
import pytest
import torch
from harness import build, check, run
from hypothesis import given, settings
from hypothesis import strategies as st

import anex
from anex import _native

ISAS = _native.instruction_sets()


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def attended(query, key, value, attn_mask=None):
    query, key, value = (torch.tensor(x, dtype=torch.float64) for x in (query, key, value))
    if attn_mask is not None:
        attn_mask = np.atleast_2d(attn_mask)
        attn_mask = torch.tensor(attn_mask) if attn_mask.dtype == bool else torch.tensor(attn_mask, dtype=torch.float64)
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask).numpy()


def three(rng, batch, length, keys, e, ev):
    return {
        "query": normal(rng, *batch, length, e),
        "key": normal(rng, *batch, keys, e),
        "value": normal(rng, *batch, keys, ev),
    }


@pytest.mark.parametrize("batch", [(1,), (3,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize(
    ("length", "keys", "e", "ev"),
    [(1, 1, 1, 1), (1, 300, 64, 64), (5, 7, 3, 9), (64, 64, 64, 64), (33, 257, 17, 40), (100, 70, 80, 1)],
)
def test_attention_over_ranks_and_sizes(device, rng, batch, length, keys, e, ev):
    check("scaled_dot_product_attention", **three(rng, batch, length, keys, e, ev), expected=attended, device=device)


def test_attention_is_what_coremltools_infers(device, rng):
    check("scaled_dot_product_attention", **three(rng, (2, 3), 10, 20, 16, 8), device=device)


def test_attention_of_long_sequences(device, rng):
    check("scaled_dot_product_attention", **three(rng, (2,), 300, 1100, 32, 48), expected=attended, device=device)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("length", [1, 4, 9, 70])
@pytest.mark.parametrize(
    "mask_shape",
    [("s",), ("l", "s"), (1, "s"), (1, "l", "s"), (3, "l", "s"), (2, 1, 1, "s"), (1, 3, "l", "s"), (2, 3, "l", "s")],
)
def test_attention_with_a_mask_of_any_broadcast(device, rng, length, mask_shape, kind):
    keys = 300
    shape = tuple({"l": length, "s": keys}.get(n, n) for n in mask_shape)
    mask = rng.random(shape) < 0.7
    mask[..., 5] = True  # some key for every query
    if kind == "float":
        mask = np.where(mask, rng.normal(size=shape), -np.inf).astype(np.float32)
    check(
        "scaled_dot_product_attention",
        **three(rng, (2, 3), length, keys, 24, 20),
        attn_mask=mask,
        expected=attended,
        device=device,
    )


@pytest.mark.parametrize("length", [64, 300])
def test_causal_attention(device, rng, length):
    mask = np.tril(np.ones((length, length), bool))
    check(
        "scaled_dot_product_attention",
        **three(rng, (1, 4), length, length, 64, 64),
        attn_mask=mask,
        expected=attended,
        device=device,
    )


@pytest.mark.parametrize("length", [1, 40])
def test_keys_masked_in_the_first_blocks_do_not_count(device, rng, length):
    mask = np.zeros((1, 1000), bool)
    mask[0, -1] = True
    arguments = three(rng, (2,), length, 1000, 8, 8)
    check(
        "scaled_dot_product_attention",
        **arguments,
        attn_mask=mask,
        expected=np.repeat(arguments["value"][:, -1:], length, 1),
        device=device,
    )


@pytest.mark.parametrize("length", [1, 40])
def test_a_query_that_may_see_no_key_gives_nan_as_in_coremltools(device, rng, length):
    """On the Neural Engine attention is decomposed with a finite mask, and such a query sees all keys alike."""
    mask = np.ones((length, 5), bool)
    mask[0] = False
    (found,) = run("scaled_dot_product_attention", **three(rng, (1,), length, 5, 8, 8), attn_mask=mask, device=device)
    assert np.isnan(found[0, 0]).all() or device == "ane"
    assert np.isfinite(found[0, 1:]).all()


@pytest.mark.parametrize("length", [1, 40])
def test_large_scores_do_not_overflow(device, rng, length):
    arguments = three(rng, (2,), length, 300, 64, 16)
    arguments["query"] *= 30
    arguments["key"] *= 30
    check("scaled_dot_product_attention", **arguments, expected=attended, device=device, rtol=2e-2)


@pytest.mark.parametrize("isa", ISAS)
def test_attention_in_every_instruction_set(rng, isa):
    for length in (1, 50):
        mask = normal(rng, length, 270)
        check(
            "scaled_dot_product_attention",
            **three(rng, (2,), length, 270, 40, 33),
            attn_mask=mask,
            expected=attended,
            isa=isa,
        )


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 80),
    keys=st.integers(1, 300),
    e=st.integers(1, 70),
    ev=st.integers(1, 70),
    mask=st.sampled_from([None, "bool", "float"]),
    isa=st.sampled_from(ISAS),
    seed=st.integers(0, 2**32 - 1),
)
def test_attention_of_any_shape(batch, length, keys, e, ev, mask, isa, seed):
    rng = np.random.default_rng(seed)
    arguments = three(rng, (batch,), length, keys, e, ev)
    if mask:
        allowed = rng.random((length, keys)) < 0.8
        allowed[:, rng.integers(keys)] = True
        arguments["attn_mask"] = allowed if mask == "bool" else np.where(allowed, 0, -1e4).astype(np.float32)
    check("scaled_dot_product_attention", **arguments, expected=attended, isa=isa)


@pytest.mark.cpu_engine
def test_attention_gives_the_same_bits_for_any_number_of_threads(rng):
    before = anex.get_num_threads()
    for length in (2, 200):
        arguments, results = three(rng, (3,), length, 500, 64, 64), []
        try:
            for threads in (1, 2, 4):
                anex.set_num_threads(threads)
                results.append(run("scaled_dot_product_attention", **arguments)[0])
        finally:
            anex.set_num_threads(before)
        assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.cpu_engine
def test_attention_holds_no_matrix_of_scores(rng):
    arguments = three(rng, (1,), 4000, 4000, 8, 8)
    program = build("scaled_dot_product_attention", arguments)
    stats = anex.compile(program, device="cpu").stats()
    assert stats["arena_bytes"] + stats["packed_bytes"] < 1 << 20

"""``anex.attention.chunked`` against attention in one piece."""

import numpy as np
import pytest
import torch

import anex


def arrays(rng, queries, keys, width=8, value=8, heads=2, dtype=np.float32):
    q, k, v = ((1, heads, queries, width), (1, heads, keys, width), (1, heads, keys, value))
    return [rng.normal(size=shape).astype(dtype) for shape in (q, k, v)]


def whole(q, k, v, **more):
    wide = [torch.from_numpy(each.astype(np.float64)) for each in (q, k, v)]
    return torch.nn.functional.scaled_dot_product_attention(*wide, **more).numpy()


@pytest.mark.parametrize(
    ("queries", "keys", "chunk"), [(7, 7, 16), (40, 40, 16), (33, 70, 16), (1, 50, 8), (32, 32, 16)]
)
def test_chunks_give_what_the_whole_gives(queries, keys, chunk):
    q, k, v = arrays(np.random.default_rng(0), queries, keys, value=5)
    found = anex.attention.chunked(q, k, v, chunk=chunk)
    np.testing.assert_allclose(found, whole(q, k, v), atol=2e-6)
    half = [each.astype(np.float16) for each in (q, k, v)]
    again = anex.attention.chunked(*half, chunk=chunk)
    assert again.dtype == np.float16
    np.testing.assert_allclose(again, whole(*half), atol=4e-3)


def test_scores_far_apart_neither_overflow_nor_vanish():
    q, k, v = arrays(np.random.default_rng(1), 24, 24)
    found = anex.attention.chunked(60 * q, 60 * k, v, chunk=8)
    np.testing.assert_allclose(found, whole(60 * q, 60 * k, v), atol=1e-4)


def test_causal_chunks_hide_what_comes_later():
    q, k, v = arrays(np.random.default_rng(2), 40, 40)
    np.testing.assert_allclose(
        anex.attention.chunked(q, k, v, chunk=16, causal=True), whole(q, k, v, is_causal=True), atol=2e-6
    )
    ahead = anex.attention.chunked(q[:, :, -3:], k, v, chunk=16, causal=True)
    np.testing.assert_allclose(ahead, whole(q, k, v, is_causal=True)[:, :, -3:], atol=2e-6)


def test_no_tensor_in_between_is_wider_than_a_chunk_and_the_engine_keeps_them_all():
    @anex.graph(q=(1, 2, 1024, 32), k=(1, 2, 1024, 32), v=(1, 2, 1024, 32))
    def attend(q, k, v):
        return anex.attention.chunked(q, k, v, chunk=256)

    found = anex.explain(attend, path="coreml")
    assert found.residency == 1
    products = [op for op in found.ops if op.op == "matmul"]
    assert len(products) == 2 * 4 * 4
    assert max(int(op.shape[-1]) for op in products) == 256


@pytest.mark.parametrize(
    ("shapes", "more", "says"),
    [
        ([(1, 4, 8), (1, 4, 8), (1, 4, 8)], {"chunk": 0}, "chunk is 0"),
        ([(1, 4, 8), (1, 4, 7), (1, 4, 8)], {}, "do not fit"),
        ([(1, 4, 8), (4, 8), (4, 8)], {}, "same rank"),
        ([(1, 5, 8), (1, 4, 8), (1, 4, 8)], {"causal": True}, "hides all keys"),
        ([(1, 0, 8), (1, 4, 8), (1, 4, 8)], {}, "no queries"),
    ],
    ids=lambda each: str(each)[:20],
)
def test_what_does_not_fit_is_told(shapes, more, says):
    with pytest.raises((anex.ShapeError, anex.ArgumentError), match=says):
        anex.attention.chunked(*(np.zeros(shape, np.float32) for shape in shapes), **more)

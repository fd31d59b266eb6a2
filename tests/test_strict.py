"""``strict=True``: every op rounds, as the Neural Engine does, and nothing else decides about a bit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import anex
from anex import mb


@anex.graph(x=(4, 64), y=(4, 64))
def chain(x, y):
    return mb.sub(x=mb.mul(x=mb.add(x=x, y=y), y=y), y=x, name="z")


def given(rng):
    return [rng.normal(size=(4, 64)).astype("float16") for _ in range(2)]


def test_strict_rounds_after_every_op_as_numpy_does_in_float16(rng):
    x, y = given(rng)
    np.testing.assert_array_equal(np.asarray(anex.compile(chain, strict=True)(x, y)), (x + y) * y - x)


def test_without_it_what_stays_inside_a_fused_group_is_not_rounded(rng):
    x, y = given(rng)
    wide = [v.astype("float32") for v in (x, y)]
    expected = ((wide[0] + wide[1]) * wide[1] - wide[0]).astype("float16")
    np.testing.assert_array_equal(np.asarray(anex.compile(chain)(x, y)), expected)
    assert anex.compile(chain).stats()["nodes"] == 1
    assert anex.compile(chain, strict=True).stats()["nodes"] == 3


def test_the_blocks_of_control_flow_are_strict_too(rng):
    @anex.graph(x=(4, 64), y=(4, 64))
    def loop(x, y):
        def body(i, z):
            return mb.add(x=i, y=1), mb.mul(x=mb.add(x=z, y=y), y=np.float16(0.7))

        return mb.while_loop(_cond=lambda i, z: mb.less(x=i, y=3), _body=body, loop_vars=(0, x))[1]

    x, y = given(rng)
    z = x
    for _ in range(3):
        z = (z + y) * np.float16(0.7)
    np.testing.assert_array_equal(np.asarray(anex.compile(loop, strict=True)(x, y)), z)
    assert (np.asarray(anex.compile(loop)(x, y)) != z).any()


def test_a_program_stays_strict_when_it_is_pickled(rng):
    x, y = given(rng)
    again = pickle.loads(pickle.dumps(anex.compile(chain, strict=True)))
    np.testing.assert_array_equal(np.asarray(again(x, y)), (x + y) * y - x)


def test_strict_is_true_or_false():
    with pytest.raises(anex.ArgumentError, match="strict='yes' is neither True nor False"):
        anex.compile(chain, strict="yes")

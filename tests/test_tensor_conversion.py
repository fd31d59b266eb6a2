"""float16 and float32 from one to the other, against numpy and torch."""

import numpy as np
import pytest
import torch
from harness import run

import anex
from anex._native import Tensor, instruction_sets


def test_every_float16_is_converted_the_same_by_every_instruction_set():
    every = np.arange(65536, dtype=np.uint32).astype(np.uint16).view(np.float16)
    rng = np.random.default_rng(5)
    ties = np.add.outer(
        np.arange(65536, dtype=np.uint32) << 16, np.array([0, 0x0FFF, 0x1000, 0x1001, 0x8000], np.uint32)
    )
    bits = np.concatenate([ties.ravel(), rng.integers(0, 2**32, 200_000, dtype=np.uint32)])
    with np.errstate(all="ignore"):
        for values, target, name in ((every, np.float32, "fp32"), (bits.view(np.float32), np.float16, "fp16")):
            wanted = values.astype(target)
            for isa in instruction_sets():
                (found,) = run("cast", device="cpu", isa=isa, x=values, dtype=name)
                number = ~np.isnan(wanted)
                integer = f"u{wanted.itemsize}"
                np.testing.assert_array_equal(found[number].view(integer), wanted[number].view(integer), err_msg=isa)
                assert np.isnan(found[~number]).all(), isa


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("source", ["float16", "float32"])
@pytest.mark.parametrize("target", ["float16", "float32"])
def test_long_conversions_are_cut_for_any_number_of_threads(source, target, threads):
    values = torch.randn(1_300_001, generator=torch.Generator().manual_seed(2)).to(getattr(torch, source))
    before = anex.get_num_threads()
    anex.set_num_threads(threads)
    try:
        found = anex.tensor(values.numpy(), dtype=target)
    finally:
        anex.set_num_threads(before)
    np.testing.assert_array_equal(found, values.to(getattr(torch, target)).numpy())


@pytest.mark.parametrize(("source", "target"), [("float16", "float32"), ("float32", "float16")])
def test_what_no_cache_holds_is_converted_to_the_last_element(source, target):
    size = (32 << 20) // np.dtype(target).itemsize + 37
    some = torch.randn(65521, generator=torch.Generator().manual_seed(3)).to(getattr(torch, source))
    values = np.resize(some.numpy(), size + 3)[3:]
    room = np.zeros(size + 6, target)
    Tensor.wrap(room[5:-1]).copy_from(values)
    wanted = np.resize(some.to(getattr(torch, target)).numpy(), size + 3)[3:]
    np.testing.assert_array_equal(room[5:-1], wanted)
    assert not room[:5].any()
    assert room[-1] == 0

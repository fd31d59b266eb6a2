"""What a prediction may not exceed."""

import functools
from dataclasses import replace

import pytest

from anex.cost import model
from anex.cost.chips import chip
from anex.cost.work import PRODUCTS, Load, Work


@pytest.fixture(scope="module")
def fitted():
    return model.shipped()


@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize("scheme", ["fp16", "w8a8"])
def test_no_prediction_is_faster_than_its_chips_peak(fitted, kind, scheme):
    """The most that was published for a chip of the generation in this arithmetic, or the fitted rate of 1x1 convs."""
    names = sorted({each.chip.name for each in fitted.known} | {"A17 Pro", "M4 Ultra", "M7"})
    works = [
        Work(kind, flops, weights, 1e6, positions, (channels, channels), scheme, count)
        for flops, positions in ((1e8, 1), (1e12, 4096)) for weights in (0.0, 1e7)
        for channels, count in ((64, 1), (512, 128))
    ]  # fmt: skip
    wholes = ("conv_chain", "vision_cnn", "program")
    loads = [Load((work,), 1e5, 1e5, whole) for work in works for whole in wholes]
    loads += [Load((work, Work("softmax", bytes=1e6), replace(work, flops=work.flops / 9)), 1e5, 1e5, whole)
              for work in works[::3] for whole in wholes]  # fmt: skip
    chips = [chip(name) for name in names]
    alone = (kind, scheme == "w8a8")
    everywhere = [(on, load) for on in chips for load in loads]
    paths = ["e5rt" if on.tier == "Pro" else "coreml" for on, _ in everywhere]
    found = fitted.predict([load for _, load in everywhere], [on for on, _ in everywhere], paths)
    for (on, load), p in zip(everywhere, found, strict=True):
        fast = fitted.parameters.value(on, "rate") * (fitted.parameters.value(on, "w8a8") if alone[1] else 1)
        peak = max(fast, published_peak(fitted, on.generation, alone)) * (1 + 1e-9)
        assert p.low <= p.ms <= p.high
        assert load.flops / p.low <= peak
        assert 0 <= p.utilisation <= 1 + 1e-9
        assert sum(p.bounds.values()) == pytest.approx(p.ms)
        assert all(work.flops <= ms * peak for work, ms in zip(load.works, p.works, strict=True))


@functools.cache
def published_peak(fitted, generation, alone):
    """FLOP/ms of the fastest row of the generation that is all of one kind and arithmetic."""

    def kinds(each):
        return {(work.kind, work.scheme == "w8a8") for work in each.load.works if work.flops}

    rows = [each for each in fitted.known if each.chip.generation == generation and kinds(each) == {alone}]
    return max((each.load.flops / each.ms for each in rows), default=0.0)

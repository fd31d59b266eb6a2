"""A quantisation as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .report import Layer, Quantized, Speed

SHOWN = 20
NAME = 34


def lines(found: Quantized) -> Iterator[str]:
    before, after = found.bytes_before / 2**20, found.bytes_after / 2**20
    yield f"{found.scheme}: {found.statement}"
    yield f"{before:.4g} MiB before, {after:.4g} MiB after ({before / after:.2f}x smaller)"
    yield f"{len(found.layers)} weight(s) compressed, {len(found.left)} left as they are"
    if found.calibration:
        yield f"{found.quantized_activations} quantised activation(s), {found.calibration}"
    for name, why in list(found.left.items())[:SHOWN]:
        yield f"  left: {name}: {why}"
    for name, each in found.outputs.items():
        yield (
            f"output {name!r} from the original: relative error {each.relative:.2e}, max abs {each.max_abs:.2e}, "
            f"cosine {each.cosine:.7f}"
        )
    if found.speeds:
        yield ""
        yield from _speeds(found.speeds)
    if found.layers:
        yield ""
        yield from _layers(found.layers)


def _speeds(speeds: Sequence[Speed]) -> Iterator[str]:
    yield f"{'chip':<10} {'ms before':>10} {'ms after':>10} {'80 % interval':>21} {'speedup':>8}  bound; predicted"
    for each in speeds:
        interval = f"{each.low_ms:.3g} .. {each.high_ms:.3g}"
        bound = dict.fromkeys((each.bound_before, each.bound_after))
        yield (
            f"{each.chip:<10} {each.before_ms:>10.4g} {each.after_ms:>10.4g} {interval:>21} {each.speedup:>7.2f}x  "
            f"{' -> '.join(bound)}"
        )


def _layers(layers: Sequence[Layer]) -> Iterator[str]:
    yield f"{'op':<12} {'name':<{NAME}} {'shape':<16} {'KiB':>16} {'weight err':>10} {'own err':>9} {'total':>9}"
    for layer in sorted(layers, key=lambda layer: -_loss(layer))[:SHOWN]:
        sizes = f"{layer.bytes_before / 1024:.4g} -> {layer.bytes_after / 1024:.4g}"
        own = "-" if layer.result is None or layer.result.own is None else f"{layer.result.own.relative:.2e}"
        total = "-" if layer.result is None else f"{layer.result.total.relative:.2e}"
        shape = "x".join(map(str, layer.shape))
        yield (
            f"{layer.op[:12]:<12} {layer.name[:NAME]:<{NAME}} {shape[:16]:<16} {sizes:>16} "
            f"{layer.weight.relative:>10.2e} {own:>9} {total:>9}"
        )
    if len(layers) > SHOWN:
        yield f"... and {len(layers) - SHOWN} more, with smaller errors"


def _loss(layer: Layer) -> float:
    own = layer.result.own if layer.result else None
    return layer.weight.relative if own is None else own.relative

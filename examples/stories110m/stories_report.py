"""What a run prints: the lines of the published trainer, and its records as JSON, one a line."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from stories_config import Config

from anex.bench.machine import label

PEAK = 15.8  # TFLOPS, what the published trainer calls the Neural Engine's
COLUMNS = ("ane", "io", "cls", "elem", "rms", "cblas_wait")


@dataclass
class Sums:
    """Of a run and those that it resumed: milliseconds, steps and batches."""

    compile_ms: float = 0.0
    train_ms: float = 0.0
    wall_ms: float = 0.0
    steps: int = 0
    batches: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Flops:
    """Floating-point operations of a step, counted as the published trainer counts them."""

    def __init__(self, config: Config) -> None:
        dim, hidden, length = config.dim, config.hidden_dim, config.seq_len
        self.forward = config.n_layers * (8 * dim * dim + 6 * dim * hidden) * length
        self.attention = config.n_layers * 10 * config.n_heads * length * length * config.head_size
        self.classifier = 2 * config.vocab_size * dim * length

    @property
    def total(self) -> int:
        return 3 * self.forward + self.attention + 3 * self.classifier

    def on_ane(self, device: str, offload: frozenset[str]) -> int:
        """Those of them that the Neural Engine does; what is computed again is not counted twice."""
        if device != "ane":
            return 0
        return 3 * self.forward + self.attention + 3 * self.classifier * ("classifier" in offload)


class Report:
    """Prints; human lines go to stdout, records to stderr."""

    def __init__(self, config: Config, device: str, offload: frozenset[str]) -> None:
        self.config, self.device, self.where, self.flops = config, device, label(device), Flops(config)
        self.ane_flops = self.flops.on_ane(device, offload)

    def header(self, name: str, options: dict[str, Any]) -> None:
        c, mega = self.config, 1e6
        layers = sum(c.dim * (2 * c.dim + 2 * c.kv_dim + 3 * c.hidden_dim + 2) for _ in range(c.n_layers))
        print(f"=== anex training: {name} ({c.n_layers} layers) on {self.where} ===")
        print(f"dim={c.dim} hidden={c.hidden_dim} heads={c.n_heads} seq={c.seq_len} vocab={c.vocab_size} "
              f"layers={c.n_layers}")  # fmt: skip
        print(f"Params: {c.parameters() / mega:.2f}M (transformer {layers / mega:.2f}M + "
              f"embed {c.vocab_size * c.dim / mega:.2f}M)")  # fmt: skip
        print(f"Accum {options['accum']} steps/batch | AdamW LR={options['lr']:.1e} | weights are inputs")
        f = self.flops
        print(f"FLOPs/step: fwd={f.forward / mega:.0f}M bwd_dx={f.forward / mega:.0f}M bwd_dW={f.forward / mega:.0f}M "
              f"sdpa_bwd={f.attention / mega:.0f}M total={f.total / mega:.0f}M")  # fmt: skip
        print(f"ANE FLOPs/step: {self.ane_flops / mega:.0f}M\n", flush=True)

    def step(self, number: int, loss: float, times: Counter[str], steps: int, compiles: int, first: bool) -> None:
        """``times``: milliseconds of the batch so far, which has ``steps``."""
        if first or number % 10 == 0:
            print(f"step {number:<4d} loss={loss:.4f}", flush=True)
        each = {f"t_{name}": round(times[name] / steps, 3) for name in COLUMNS}
        self.record(type="step", step=number, loss=round(loss, 6), **each, compiles=compiles)

    def batch(self, steps: int, compile_ms: float, train_ms: float, times: Counter[str], compiles: int) -> None:
        each = train_ms / steps
        print(f"  [batch {steps}: compile={compile_ms:.0f}ms train={train_ms:.1f}ms ({each:.1f}ms/step) "
              f"compiles={compiles}]")  # fmt: skip
        print("    " + " ".join(f"{name}={times[name] / steps:.1f}" for name in COLUMNS) + " ms/step", flush=True)
        self.record(type="batch", batch=steps, compile_ms=round(compile_ms, 1), train_ms=round(train_ms, 1),
                    ms_per_step=round(each, 1))  # fmt: skip
        tflops = self.ane_flops * steps / (train_ms * 1e9)
        self.record(type="perf", ane_tflops=round(tflops, 3), ane_util_pct=round(100 * tflops / PEAK, 2))

    def breakdown(self, times: Counter[str], update_ms: float, steps: int) -> None:
        """A table of the whole run."""
        whole = sum(times.values()) + update_ms
        print(f"\n{'part':<12} {'ms/step':>9} {'share':>7}   ({self.where}, measured)")
        for name, value in [*((name, times[name]) for name in COLUMNS), ("update", update_ms)]:
            print(f"{name:<12} {value / steps:9.3f} {100 * value / whole:6.1f}%")

    def efficiency(self, sums: Sums, recompilations: int) -> None:
        wall, train = max(sums.wall_ms, 1e-9), max(sums.train_ms, 1e-9)
        ane, total = (flops * sums.steps / (train * 1e9) for flops in (self.ane_flops, self.flops.total))
        print("\n=== Efficiency Report ===")
        print(f"Total steps:     {sums.steps}")
        print(f"Wall time:       {wall:.0f} ms ({wall / 1000:.1f} s)")
        print(f"Compile time:    {sums.compile_ms:.0f} ms ({100 * sums.compile_ms / wall:.1f}%)")
        print(f"Train time:      {train:.0f} ms ({100 * train / wall:.1f}%)")
        print(f"Avg train:       {train / max(1, sums.steps):.1f} ms/step")
        print(f"ANE TFLOPS:      {ane:.2f} sustained")
        print(f"Total TFLOPS:    {total:.2f} ({'ANE+CPU' if self.device == 'ane' else 'CPU'})")
        print(f"ANE utilization: {100 * ane / PEAK:.1f}% of {PEAK} TFLOPS")
        print(f"Recompilations:  {recompilations} after the first step", flush=True)

    @staticmethod
    def record(**values: Any) -> None:
        print(json.dumps(values, separators=(",", ":")), file=sys.stderr, flush=True)

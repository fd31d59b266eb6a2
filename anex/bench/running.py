"""Running a benchmark: compile, warm up, time, row by row; a row that fails says so and the next one goes on."""

from __future__ import annotations

import contextlib
import functools
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._native import get_num_threads, set_num_threads
from ..cost import predict
from ..creation import empty, tensor
from ..errors import brief
from ..power import Sampler, drawn, reading, sampler
from ..program import compile
from . import peers
from .progress import Listener
from .record import Benchmark, Config, Row, Steps
from .timing import Effort, measure
from .warned import Warned, by_rule, gathered

if TYPE_CHECKING:
    from .._native import Tensor
    from ..program import Program


MIB, GIB = 2**20, 2**30
BUILDING = 6  # times the size of weights and data: float32 random numbers, their float16 form, MIL's copy, the engine's


@dataclass
class Run:
    """All rows of one benchmark on one device. ``interrupted``: what is there is whole, and more was to come.
    ``warned``: what the rules warned of while the programs were compiled."""

    benchmark: Benchmark
    device: str
    chip: str
    options: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    warned: Sequence[Warned] = ()

    @property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if row.failed]


def run(
    benchmark: Benchmark, device: str, options: Mapping[str, Any], effort: Effort, chip: str = "M4",
    listener: Listener | None = None, most: int = 0,
) -> Run:  # fmt: skip
    """Every configuration of ``benchmark`` with these options, in order; predicted for ``chip``.

    ``most``: so many of them, the smallest, where not 0. Ctrl-C ends it after the rows that are done.
    """
    known = list(benchmark.configs(**options))
    configs = smallest(known, most) if most else known
    meter = sampler() if benchmark.powered and device == "ane" else None
    done = Run(benchmark, device, chip, options)
    with gathered() as warnings:
        try:
            if meter is not None:
                done.notes += idle(meter)
            for number, config in enumerate(configs):
                if listener:
                    listener(config.label, number, len(configs))
                done.rows.append(measured(config, device, effort, chip, meter))
        except KeyboardInterrupt:
            done.interrupted = True
    done.warned = by_rule(warnings)
    if listener:
        listener("", len(done.rows), len(configs))
    done.notes += benchmark.notes(done.rows)
    if most:
        with_ = ", ".join(f"{name}={value}" for name, value in options.items())
        done.notes.append(f"A selection for a quick run: {len(configs)} of {len(known)} configurations, the smallest"
                          + (f", with {with_}" if with_ else ""))  # fmt: skip
    return done


def idle(meter: Sampler) -> list[str]:
    """What the engine draws while nothing runs."""
    watts = drawn(meter)
    return [] if watts is None else [f"Idle: {1e3 * watts:.0f} mW ({meter.name})"]


def smallest(configs: Sequence[Config], most: int) -> list[Config]:
    """So many, of the least work, in their own order."""
    by_work = sorted(range(len(configs)), key=lambda i: configs[i].facts.get("gflop", 0.0))
    return [configs[i] for i in sorted(by_work[:most])]


def measured(config: Config, device: str, effort: Effort, chip: str, meter: Sampler | None = None) -> Row:
    """One row. What fails is told in it, with the stage it failed at. With a ``meter`` also what it draws."""
    row = Row(config)
    if config.missing:
        row.skipped = config.missing
        return row
    if large := too_large(config):
        row.failed["size"] = large
        return row
    if config.device and config.device != device:
        row.skipped = f"only device={config.device!r} has this, and the run is on {device!r}"
        return row
    outputs: dict[str, Any] = {}
    for name, made in config.programs.items():
        steps = made if isinstance(made, Steps) else Steps((made,), ({},))
        stage = "build"
        try:
            sources = [make() for make in steps.parts]
            row.predicted[name] = [predict(each, chip)[0].prediction for each in sources]
            stage = "compile"
            with contextlib.ExitStack() as stack:
                options = config.options.get(name, {})
                programs = [stack.enter_context(compile(each, device=device, **options)) for each in sources]
                stage = "evaluate"
                call, results = prepared(programs, steps, config.inputs)
                with threads(config.threads):
                    row.timings[name] = measure(call, effort)
                    if meter is not None:
                        row.found["power"] = reading(call, meter)
                outputs[name] = [np.array(each) for each in results]
                row.stats[name] = dict(programs[0].stats())
        except Exception as error:  # whatever it is, the other rows go on
            row.failed[name] = f"{stage}: {brief(error)}"
    if config.peers and not config.programs and not peers.AVAILABLE:
        row.skipped = peers.WHY_NOT
    for name, peer in config.peers.items() if peers.AVAILABLE else ():
        try:
            row.timings[name] = measure(peer(), effort)
        except Exception as error:
            row.failed[name] = f"{name}: {brief(error)}"
    if config.check and not row.failed:
        try:
            row.found.update(config.check(outputs))
        except Exception as error:
            row.failed["check"] = f"check: {brief(error)}"
    return row


def too_large(config: Config) -> str:
    """Why building it is not even begun: what would end the process ends one row. Empty where it fits."""
    facts = config.facts
    held = BUILDING * MIB * max(facts.get(name, 0.0) for name in ("total_mb", "working_set_mb", "weight_mb"))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"about {held / GIB:.3g} GiB would be needed, and this machine has {memory / GIB:.3g}" \
        if held > memory else ""  # fmt: skip


def prepared(
    programs: Sequence[Program], steps: Steps, given: Mapping[str, np.ndarray]
) -> tuple[Callable[[], object], list[Tensor]]:
    """A call of all programs in order on tensors made once, and the tensors that hold what comes out."""
    made: list[list[Tensor]] = []
    calls: list[Callable[[], object]] = []
    for program, feed in zip(programs, steps.feeds, strict=True):
        fed = {name: made[number][0] for name, number in feed.items()}
        takes = {**arguments(program, given), **fed}
        out = [empty(spec.shape, dtype=spec.dtype) for spec in program.outputs.values()]
        made.append(out)
        calls.append(functools.partial(program, **takes, out=out[0] if len(out) == 1 else tuple(out)))
    if len(calls) == 1:
        return calls[0], made[0]

    def call() -> None:
        for each in calls:
            each()

    return call, [tensor for out in made[-steps.last :] for tensor in out]


def arguments(program: Program, given: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Tensors for its inputs: those given, and for the others normal numbers, the same for every input of a name."""
    made = {}
    for name, spec in program.inputs.items():
        array = given[name] if name in given else values(name, spec.shape)
        made[name] = tensor(np.ascontiguousarray(array), dtype=spec.dtype)
    return made


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers, the same for every input of that name and shape."""
    made: np.ndarray = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    return made


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of the CPU, as many as there were where 0."""
    before = get_num_threads()
    try:
        set_num_threads(count or before)
        yield
    finally:
        set_num_threads(before)

"""The panels: each shows one side of a session in the space that it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text
from textual.app import RenderResult
from textual.content import Content
from textual.widgets import RichLog, Static
from textual_plotext import PlotextPlot

from ..power import Sample
from .machine import Machine
from .run import LogLine, Run
from .session import Session

SHORT, TINY = 30, 18
"""Rows of a screen below which less is shown."""
SIZES = ("dim", "hidden", "heads", "layers", "seq", "vocab")
CELL = 13  # characters, of a size of the model
COLOURS = {
    "ane": "#5fafff", "io": "#ffaf5f", "cls": "#af87ff", "elem": "#5fd7af", "rms": "#ff87af", "cblas_wait": "#d7d75f",
    "other": "#808080",
}  # fmt: skip
MORE_COLOURS = ("#5fd7ff", "#d787d7", "#87d75f", "#ff8787", "#afafd7", "#d7af87")
CURVE, DOTS = (95, 215, 175), (88, 110, 117)
BLOCKS = " ▏▎▍▌▋▊▉█"
SPARKS = "▁▂▃▄▅▆▇█"
LOG_STYLES = {"text": "", "step": "#d7d75f", "batch": "#5fafff", "record": "dim", "stderr": "#ff8787", "note": "italic"}
MUTED = "#8a93a0"
UNITS = {"accum": "steps/batch", "lr": "lr", "kernels": "kernels", "mflop": "MFLOP/step"}
Part = str | tuple[str, str]


def duration(seconds: float) -> str:
    """
    >>> duration(7.6), duration(151), duration(7322), duration(200000)
    ('7 s', '2 min 31 s', '2 h 02 min', '2 d 7 h')
    """
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute:02d} min"
    return f"{minutes} min {second:02d} s" if minutes else f"{second} s"


def gib(count: float) -> str:
    """
    >>> gib(1.5 * 2**30), gib(300 * 2**20)
    ('1.5 GiB', '300 MiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def milliseconds(value: float) -> str:
    """
    >>> milliseconds(84.3), milliseconds(1234.5)
    ('84.3', '1234')
    """
    return f"{value:.1f}" if abs(value) < 999.95 else f"{value:.0f}"


def bar(share: float, width: int) -> str:
    """
    >>> bar(0.5, 5), bar(1, 3), bar(0, 3)
    ('██▌', '███', '')
    """
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return (BLOCKS[8] * (eighths // 8) + BLOCKS[eighths % 8]).rstrip()


def sparkline(values: Sequence[float], width: int, top: float) -> str:
    """
    >>> sparkline([0, 50, 100], 3, 100)
    '▁▅█'
    """
    return "".join(SPARKS[round(max(0.0, min(1.0, value / top)) * 7)] for value in list(values)[-width:]) if top else ""


def lines(rows: Iterable[Sequence[Part]]) -> Content:
    return Content("\n").join([Content.assemble(*row) for row in rows])


def watts(sample: Sample) -> list[Part]:
    found: list[Part] = []
    for name, value in (("ane", sample.ane), ("cpu", sample.cpu), ("gpu", sample.gpu)):
        found += [(f"{name} ", MUTED), ("–" if value is None else f"{value:.2f} W") + "  "]
    return found


class Panel(Static):
    """A box with a title. ``height``: rows of the whole screen; with few of them, what matters less is left out."""

    TITLE = ""

    def on_mount(self) -> None:
        self.border_title = self.TITLE

    def show(self, session: Session, height: int) -> None:
        self.update(lines(self.rows(session, height)))

    def rows(self, session: Session, height: int) -> list[Sequence[Part]]:
        raise NotImplementedError

    @property
    def room(self) -> int:
        """Characters of a row."""
        return max(8, self.content_size.width)


class Status(Panel):
    """One row above all: which run, and how far it is."""

    def rows(self, session: Session, height: int) -> list[Sequence[Part]]:
        run, told = session.run, session.run.told
        waits = session.source.state.startswith("waiting")
        colour = "$error" if session.died else "$warning" if waits else "$success"
        row: list[Part] = [("● ", colour), (session.source.state, f"bold {colour}")]
        if told.curve.last is not None:
            step = f"step {told.curve.last[0]}" + (f" of {run.steps}" if run.steps else "")
            row += [("  ", ""), (step, "bold")]
        left = run.left()
        if left is not None and session.source.pid:
            row += [(f"  {duration(left)} left", MUTED)]
        row += [("  "), (run.title or session.source.name, MUTED)]
        return [row]


class Model(Panel):
    TITLE = "model"

    def rows(self, session: Session, height: int) -> list[Sequence[Part]]:
        facts = session.run.facts
        if not facts:
            return [[("not told by this run", MUTED)]]
        rows: list[Sequence[Part]] = []
        across = max(1, self.room // CELL) if height >= SHORT else len(SIZES)
        sizes = [name for name in SIZES if name in facts]
        for i in range(0, len(sizes), across):
            row: list[Part] = []
            for name in sizes[i : i + across]:
                row += [(f"{name} ", MUTED), f"{facts[name]:<{CELL - len(name) - 1}}" if height >= SHORT else
                        f"{facts[name]}  "]  # fmt: skip
            rows.append(row)
        if "params" in facts:
            parts = f"  {facts['transformer']:g} layers, {facts['embed']:g} embedding"
            rows.append([f"{facts['params']:g} M", (" weights", MUTED), (parts if self.room > 50 else "", MUTED)])
        row = []
        for name, shown in (("accum", "{:d}"), ("lr", "{:.1e}"), ("kernels", "{:d}"), ("mflop", "{:.0f}")):
            if name in facts and (height >= SHORT or name != "mflop"):
                row += [("  " if row else "") + shown.format(facts[name]), (f" {UNITS[name]}", MUTED)]
        return [*rows, row] if row else rows


class Speed(Panel):
    TITLE = "speed"

    def rows(self, session: Session, height: int) -> list[Sequence[Part]]:
        run = session.run
        ms, share, parts = run.told.ms_per_step, run.compile_share, run.components()
        first: list[Part] = [("no batch yet", MUTED)]
        if ms is not None:
            first[:] = [(f"{milliseconds(ms)} ms/step", "bold")]
            first += [(f"  {1e3 / ms:.1f} steps/s", MUTED)] if ms > 0 and height >= TINY else []
        rows: list[Sequence[Part]] = [first]
        if parts and height < SHORT:
            rows += [self.stacked(parts), *([self.legend(parts)] if height >= TINY else [])]
        elif parts:
            rows += self.table(parts)
        last: list[Part] = []
        if share is not None:
            last += [("compile ", MUTED), f"{100 * share:.1f} %"]
        elif reported := run.summary.get("Compile time") or run.summary.get("Compile"):
            last += [("compile ", MUTED), reported]
        elif "compiled_ms" in run.facts:
            last += [("compile ", MUTED), f"{run.facts['compiled_ms']} ms, once"]
        if run.compiles is not None and height >= TINY:
            last += [(f"{'  ' if last else ''}compiles {run.compiles}", MUTED)]
        if height < TINY:
            first += ["  ", *last]
        else:
            rows += [last] if last else []
        if run.speed is not None and height >= TINY:
            rows.append([("ANE ", MUTED), f"{run.speed.tflops:.2f} TFLOPS", (f"  {run.speed.percent:.1f} %", MUTED)])
        return rows

    def table(self, parts: dict[str, float]) -> list[Sequence[Part]]:
        """A bar each."""
        whole, width = sum(parts.values()) or 1.0, max(map(len, parts))
        room = max(0, self.room - width - 16)
        return [
            [(f"{name:<{width}}", MUTED), f"{milliseconds(value):>7} {100 * value / whole:4.0f} %  ",
             (bar(value / whole, room), colour)]
            for (name, value), colour in zip(parts.items(), colours(parts), strict=True)
        ]  # fmt: skip

    def stacked(self, parts: dict[str, float]) -> list[Part]:
        """One bar of all, with names where they fit."""
        whole, row, begun, used = sum(parts.values()) or 1.0, [], 0.0, 0
        for (name, value), colour in zip(parts.items(), colours(parts), strict=True):
            begun += max(0.0, value)
            width = round(begun / whole * self.room) - used
            used += width
            text = name if width > len(name) else name[: max(0, width - 1)] if width > 2 else ""
            row.append((f"{text:<{width}}" if width > 0 else "", f"#101010 on {colour}"))
        return list(row)

    def legend(self, parts: dict[str, float]) -> list[Part]:
        row: list[Part] = []
        for (name, value), colour in zip(parts.items(), colours(parts), strict=True):
            row += [(f"{name} ", colour), f"{milliseconds(value)}  "]
        return row


def colours(parts: Iterable[str]) -> list[str]:
    names = list(parts)
    others = [name for name in names if name not in COLOURS]
    return [COLOURS.get(name) or MORE_COLOURS[others.index(name) % len(MORE_COLOURS)] for name in names]


class Hardware(Panel):
    TITLE = "machine"

    def rows(self, session: Session, height: int) -> list[Sequence[Part]]:
        machine = session.machine
        if machine is None:
            return [[("not measured: read from a file", MUTED)]]
        rows: list[Sequence[Part]] = []
        room = max(0, self.room - 24)
        if machine.run_percent:  # from the second look on: a short run has none
            top = max(100.0 * machine.cores, *machine.run_percent)
            rows.append([("run cpu ", MUTED), f"{machine.run_percent[-1]:7.0f} %  ",
                         (sparkline(machine.run_percent, room, top), COLOURS["ane"])])  # fmt: skip
        if machine.run_bytes:
            rows.append([("run mem ", MUTED), f"{gib(machine.run_bytes[-1]):>9}  ",
                         (sparkline(machine.run_bytes, room, max(machine.run_bytes)), COLOURS["cls"])])  # fmt: skip
        if machine.percent:
            known = f"  of {gib(machine.total)}, {machine.cores} cores"
            rows += [
                [("all cpu ", MUTED), f"{machine.percent[-1]:7.0f} %  ",
                 (sparkline(machine.percent, room, 100.0), COLOURS["elem"])],
                [("all mem ", MUTED), f"{gib(machine.used):>9}", (known, MUTED)],
            ]  # fmt: skip
        return [*rows, self.power(machine)]

    def power(self, machine: Machine) -> list[Part]:
        if machine.watts is not None and machine.sampler is not None:
            return [*watts(machine.watts), (machine.sampler.name, MUTED)]
        if machine.sampler is not None:
            return [("power   ", MUTED), f"{machine.sampler.name} is reading"]
        return [("power   ", MUTED), f"not available: {machine.why_no_power}"]


class Sample_(Panel):  # noqa: N801 - Sample is of power
    TITLE = "sample"

    def rows(self, session: Session, height: int) -> list[Sequence[Part]]:
        generator = session.generator
        self.border_title = self.TITLE
        self.display = generator is not None or height >= SHORT
        if generator is None:
            return [[(f"none: {session.why_no_text}", MUTED)]]
        if generator.step is not None:
            self.border_title = f"{self.TITLE} of step {generator.step}"
        state: list[Part] = [(generator.state, MUTED)] if generator.state else []
        return [row for row in (state, [" ".join(generator.text.split())] if generator.text else []) if row]


class Ended(Panel):
    """Only of a run that died: how, and what it said last."""

    def rows(self, session: Session, height: int) -> list[Sequence[Part]]:
        self.display = session.died is not None
        self.border_title = f"the run died: {session.died}"
        said = list(session.run.errors)[-3 if height < SHORT else -6 :]
        return [[line] for line in said] or [[("it wrote nothing to stderr", MUTED)]]


class Loss(PlotextPlot):  # type: ignore[misc]  # it has no types
    """The curve: means of neighbouring steps where there are more steps than dots."""

    run: Run | None = None
    drawn: object = None

    def show(self, session: Session) -> None:
        self.run = session.run
        curve = self.run.told.curve
        title = "loss"
        if curve.last is not None:
            title += f" {digits(curve.last[1])}"
        if curve.best is not None:
            title += f"  best {digits(curve.best[1])} at step {curve.best[0]}"
        if curve.diverged is not None:
            title += f"  diverged at step {curve.diverged}"
        self.border_title = title
        self.set_class(curve.diverged is not None, "diverged")
        drawn = (curve, curve.last)
        if drawn != self.drawn:
            self.refresh()
        self.drawn = drawn

    def render(self) -> RenderResult:
        plot, curve = self.plt, self.run.told.curve if self.run is not None else None
        if curve is None or curve.best is None:
            return Content.styled("no loss yet", MUTED)
        width, height = self.content_size
        plot.clear_figure()
        dots, means = curve.points(8 * width), curve.points(max(2, width // 2))
        if len(dots[0]) > len(means[0]):
            plot.scatter(*dots, marker="braille", color=DOTS)
        plot.plot(*means, marker="braille", color=CURVE)
        low, high = min(dots[1]), max(dots[1])
        first, last = curve.ends
        plot.yticks(*ticks(low, high, min(6, max(2, height // 3)), tick_form(low, high)))
        if first < last:
            plot.xlim(first, last)
        plot.xticks(*(ticks(first, last, min(5, max(2, width // 14)), "{:.0f}") if height > 4 else ([], [])))
        plot.xaxes(height > 4, False)
        plot.yaxes(True, False)
        drawn: RenderResult = super().render()
        return drawn


def digits(loss: float) -> str:
    """
    >>> digits(4.25), digits(float("nan")), digits(1.5e300)
    ('4.2500', 'nan', '1.500e+300')
    """
    return f"{loss:.4f}" if not abs(loss) >= 1e5 else f"{loss:.3e}"


def tick_form(low: float, high: float) -> str:
    if max(abs(low), abs(high)) >= 1e5 or high - low < 1e-3:
        return "{:.2e}"
    return "{:.2f}" if high - low > 0.05 else "{:.4f}"


def ticks(low: float, high: float, most: int, form: str) -> tuple[list[float], list[str]]:
    """Evenly from the one to the other, and their texts.

    >>> ticks(0, 10, 3, "{:.1f}"), ticks(2, 2, 3, "{:.0f}")
    (([0.0, 5.0, 10.0], ['0.0', '5.0', '10.0']), ([2.0], ['2']))
    """
    found = [low + (high - low) * i / (most - 1) for i in range(most)] if high > low else [float(low)]
    return found, [form.format(value) for value in found]


class Log(RichLog):
    """What the run printed; scrolls with the newest line unless somebody scrolled up."""

    written = 0

    def on_mount(self) -> None:
        self.border_title = "log"

    def show(self, run: Run) -> None:
        new = min(run.logged - self.written, len(run.log))
        for line in list(run.log)[len(run.log) - new :]:
            self.write(styled(line))
        self.written = run.logged
        if run.unknown:
            self.border_subtitle = f"{run.unknown} records of unknown kinds"


def styled(line: LogLine) -> Text:
    return Text(line.text, style=LOG_STYLES[line.kind])

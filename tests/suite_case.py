"""Small benchmarks that are there for one test, and whole runs of them."""

import json
from functools import partial

from click.testing import CliRunner

from anex.bench.columns import MS, TFLOPS, conv_facts
from anex.bench.programs import conv_chain
from anex.bench.record import Benchmark, Column, Config
from anex.bench.tables import BENCHMARKS
from anex.cli import main

SMALL = {depth: partial(conv_chain, depth, 16, 1, 32) for depth in (1, 2, 4)}
COLUMNS = (Column("config", "Config", "{}", lambda row: row.config.label), MS, TFLOPS)


def raising(error):
    raise error


def configs(programs):
    for depth, make in programs.items():
        yield Config(f"{depth}", conv_facts(depth, 16, 1, 32), {"eval": make})


def table(monkeypatch, name, programs):
    """A benchmark that is there for one test."""
    made = Benchmark(name, f"The benchmark {name}", "nowhere", ("none", "none"), COLUMNS, lambda: configs(programs))
    monkeypatch.setitem(BENCHMARKS, name, made)


def invoke(tmp_path, *arguments):
    return CliRunner().invoke(
        main, ["bench", "all", "--device", "cpu", "--quick", "--out", str(tmp_path), *map(str, arguments)]
    )


def written(tmp_path):
    (text,), (data,) = tmp_path.glob("benchmark_results_*.txt"), tmp_path.glob("benchmark_results_*.json")
    assert text.stem == data.stem
    assert not list(tmp_path.glob(".*"))  # no draft is left
    return text.read_text(), json.loads(data.read_text())


def report_of(monkeypatch, tmp_path, name="small"):
    table(monkeypatch, name, SMALL)
    assert invoke(tmp_path, "--name", name).exit_code == 0
    return written(tmp_path)[1]

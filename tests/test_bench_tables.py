"""The published tables: from their own times, our columns must give their own figures, to their rounding."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from anex import compile
from anex.bench.programs import int8_chain
from anex.bench.record import Config, Row
from anex.bench.running import measured, smallest, values
from anex.bench.tables import BENCHMARKS
from anex.bench.tables.sram import marked
from anex.bench.timing import Effort, Timing
from anex.cli import main
from anex.power import Reading

# ---- as printed by the published tools ------------------------------------------------------------------------------

PEAK_000 = """
128x conv 512ch 64x64 | 64.0 | 274.88 | 15.083 ms | 18.22 | 90.9% | 278
96x conv 512ch 64x64 | 48.0 | 206.16 | 11.401 ms | 18.08 | 90.2% | 276
64x conv 512ch 64x64 | 32.0 | 137.44 | 7.749 ms | 17.74 | 88.4% | 271
128x conv 384ch 64x64 | 36.0 | 154.62 | 8.727 ms | 17.72 | 88.3% | 270
256x conv 256ch 64x64 | 32.0 | 137.44 | 7.837 ms | 17.54 | 87.4% | 268
128x conv 256ch 64x64 | 16.0 | 68.72 | 4.012 ms | 17.13 | 85.4% | 261
"""
INT8_000 = """
128x conv 512ch 64x64 | 32.0 | 274.88 | 8.032 ms | 34.22 | 170.6% | 85.3% | 522
96x conv 512ch 64x64 | 24.0 | 206.16 | 6.012 ms | 34.29 | 171.0% | 85.5% | 523
64x conv 512ch 64x64 | 16.0 | 137.44 | 4.111 ms | 33.44 | 166.7% | 83.4% | 510
128x conv 384ch 64x64 | 18.0 | 154.62 | 4.663 ms | 33.16 | 165.3% | 82.7% | 506
128x conv 256ch 64x64 | 8.0 | 68.72 | 2.235 ms | 30.74 | 153.3% | 76.7% | 469
"""
PEAK_002 = """
32x conv 512ch sp64 | 16.0 | 1.07 | 0.408 ms | 2.63
48x conv 512ch sp64 | 24.0 | 1.61 | 0.262 ms | 6.15
64x conv 512ch sp64 | 32.0 | 2.15 | 0.244 ms | 8.80
96x conv 512ch sp64 | 48.0 | 3.22 | 0.326 ms | 9.89
128x conv 512ch sp64 | 64.0 | 4.29 | 0.385 ms | 11.14
64x conv 256ch sp64 | 8.0 | 0.54 | 0.365 ms | 1.47
128x conv 256ch sp64 | 16.0 | 1.07 | 0.454 ms | 2.37
256x conv 256ch sp64 | 32.0 | 2.15 | 0.351 ms | 6.11
64x conv 384ch sp64 | 18.0 | 1.21 | 0.429 ms | 2.82
128x conv 384ch sp64 | 36.0 | 2.42 | 0.354 ms | 6.82
"""
INMEM_002 = """
256ch x64sp | 0.1 | 0.319 ms | 0.03
512ch x64sp | 0.5 | 0.357 ms | 0.09
1024ch x64sp | 2.0 | 0.457 ms | 0.29
2048ch x64sp | 8.0 | 0.254 ms | 2.11
3072ch x64sp | 18.0 | 0.389 ms | 3.10
4096ch x64sp | 32.0 | 1.148 ms | 1.87
"""
SRAM_002 = """
256ch x 64sp | 0.1 | 0.03 | 0.2 | 0.378 ms | 0.02
512ch x 64sp | 0.5 | 0.06 | 0.6 | 0.389 ms | 0.09
1024ch x 64sp | 2.0 | 0.12 | 2.2 | 0.392 ms | 0.34
2048ch x 64sp | 8.0 | 0.25 | 8.5 | 0.218 ms | 2.47
3072ch x 64sp | 18.0 | 0.38 | 18.8 | 0.396 ms | 3.05
4096ch x 64sp | 32.0 | 0.50 | 33.0 | 1.116 ms | 1.92
5120ch x 64sp | 50.0 | 0.62 | 51.2 | 0.767 ms | 4.38
6144ch x 64sp | 72.0 | 0.75 | 73.5 | 0.872 ms | 5.54
8192ch x 32sp | 128.0 | 0.50 | 129.0 | 4.195 ms | 1.02
"""
FINE_002 = """
256 ch | 0.1 | 0.378 ms | 0.02 | 177.7
512 ch | 0.5 | 0.431 ms | 0.08 | 155.6
1024 ch | 2.0 | 0.411 ms | 0.33 | 163.5
1536 ch | 4.5 | 0.493 ms | 0.61 | 136.1
2048 ch | 8.0 | 0.410 ms | 1.31 | 163.9
2560 ch | 12.5 | 0.237 ms | 3.53 | 282.6 <-- peak efficiency
3072 ch | 18.0 | 0.335 ms | 3.60 | 200.1
3584 ch | 24.5 | 0.414 ms | 3.97 | 162.1
4096 ch | 32.0 | 1.134 ms | 1.89 | 59.2 <-- spilling
4608 ch | 40.5 | 0.563 ms | 4.83 | 119.2
5120 ch | 50.0 | 0.659 ms | 5.09 | 101.8
6144 ch | 72.0 | 0.844 ms | 5.73 | 79.5 <-- spilling
8192 ch | 128.0 | 4.203 ms | 1.02 | 8.0 <-- catastrophic spilling
"""
PUBLISHED = {
    ("peak", "seed000"): PEAK_000, ("int8", ""): INT8_000, ("peak", "seed002"): PEAK_002, ("inmem", ""): INMEM_002,
    ("sram", ""): SRAM_002, ("sram-fine", ""): FINE_002,
}  # fmt: skip
# Titles in the published order, each with its unit.
TITLES = {
    "peak": "Config | W(MB) [MiB] | GFLOP [GFLOP] | ms/eval [ms] | TFLOPS [TFLOPS] | %peak [%] | Est.MHz [MHz]",
    "int8": "Config | W(MB) [MiB] | GOP [GOP] | ms/eval [ms] | TOPS [TOPS] | %fp16 [%] | %int8 [%] | Est.MHz [MHz]",
    "int8-compare": "Method | FP16 TOPS [TOPS] | FP16 ms [ms] | INT8 TOPS [TOPS] | INT8 ms [ms] | Ratio",
    "inmem": "Config | W (MB) [MiB] | ms/eval [ms] | TFLOPS [TFLOPS]",
    "sram": "Config | W (MB) [MiB] | Act(MB) [MiB] | Tot(MB) [MiB] | ms/eval [ms] | TFLOPS [TFLOPS]",
    "sram-fine": "Channels | W (MB) [MiB] | ms/eval [ms] | TFLOPS [TFLOPS] | GFLOPS/MB [GFLOPS/MiB]",
    "matmul": "n | GFLOP [GFLOP] | ms/eval [ms] | p90 [ms] | TFLOPS [TFLOPS] | MB [MiB] | fits?",
    "conv-vs-matmul": "M x K x N | matmul ms [ms] | TFLOPS [TFLOPS] | conv ms [ms] | TFLOPS [TFLOPS] | ratio | "
                      "max diff",
    "depth": "depth | GFLOP [GFLOP] | ms/eval [ms] | TFLOPS [TFLOPS] | % peak [%]",
    "overhead": "op | direct ms [ms] | coreml ms [ms] | overhead",
    "weight-only": "op | fp16 ms [ms] | w8 ms [ms] | ratio | w8a8 ms [ms] | ratio",
    "power": "Config | ms/eval [ms] | mW [mW] | TFLOPS [TFLOPS] | TFLOPS/W [TFLOPS/W] | mJ/call [mJ]",
    "qos": "QoS | Compile [ms] | Load [ms] | Eval(1) [ms] | Eval(avg10) [ms] | Status",
    "dispatch": "way | us/call [us] | p10 [us] | p90 [us]",
    "quant": "name | ms [ms] | TFLOPS [TFLOPS] | x fp16 | max error",
    "fused-1": "L | fused ms [ms] | seq ms [ms] | speedup | overhead us/dispatch [us]",
    "fused-2": "C | S | Layers | ms/eval [ms] | TFLOPS [TFLOPS] | Eff% [%]",
    "fused-3": "Config | Separate ms [ms] | GFLOPS [GFLOPS] | Fused ms [ms] | GFLOPS [GFLOPS] | Speedup",
    "lm-head": "name | ms [ms] | GB/s [GB/s] | max_err | verdict",
}  # fmt: skip
# One row of each of the others: its label, what it took in ms by program, what was found, and the cells that follow.
# Where a source is given the cells are as it has them, else they are the contract's formula by hand.
WORKED = {
    "matmul, seed 001": ("matmul", "256", {"matmul": 0.101}, {"fits": "yes"},
                         "256 | 0.034 | 0.101 ms | 0.101 ms | 0.33 | 0.4 | yes"),
    "matmul, seed 001, its best": ("matmul", "2048", {"matmul": 3.01401}, {"fits": "yes"},
                                   "2048 | 17.180 | 3.014 ms | 3.014 ms | 5.70 | 24.0 | yes"),
    "matmul, seed 001, past the cliff": ("matmul", "4096", {"matmul": 34.3597}, {"fits": "no"},
                                         "4096 | 137.439 | 34.360 ms | 34.360 ms | 4.00 | 96.0 | no"),
    "convolution about three times faster": ("conv-vs-matmul", "1024x1024x1024", {"matmul": 0.9, "conv": 0.3},
                                             {"max_diff": 0.01},
                                             "1024x1024x1024 | 0.900 | 2.39 | 0.300 | 7.16 | 3.00x | 0.0100"),
    "result table of seed 000": ("int8-compare", "direct, 128x conv 512ch 64x64", {"fp16": 15.083, "int8": 8.032}, {},
                                 "direct, 128x conv 512ch 64x64 | 18.22 | 15.1 | 34.22 | 8.0 | 1.88x"),
    "result table of seed 000, Core ML": ("int8-compare", "Core ML, 128x conv 512ch 64x64",
                                          {"fp16": 15.275, "int8": 8.151}, {},
                                          "Core ML, 128x conv 512ch 64x64 | 18.00 | 15.3 | 33.72 | 8.2 | 1.87x"),
    "94 % of the peak, seed 001": ("depth", "32", {"eval": 3.848}, {}, "32 | 68.72 | 3.848 ms | 17.86 | 94.0%"),
    "two to four times for small ops, seed 001": ("overhead", "1x conv 64ch 1x32", {"direct": 0.1, "coreml": 0.3}, {},
                                                  "1x conv 64ch 1x32 | 0.1000 | 0.3000 | 3.00x"),
    "int8 is fp16, seed 001, beside seed 000": ("weight-only", "32x conv 512ch 64x64",
                                                {"fp16": 4.0, "w8": 4.0, "w8a8": 2.128}, {},
                                                "32x conv 512ch 64x64 | 4.000 | 4.000 | 1.00x | 2.128 | 1.88x"),
    "6.6 TFLOPS/W, seed 001": ("power", "128x conv 512ch 64x64", {"eval": 14.858},
                               {"power": Reading(2.8, 1000, 14.858, "powermetrics")},
                               "128x conv 512ch 64x64 | 14.858 ms | 2800 | 18.50 | 6.61 | 41.60"),
    "QoS": ("qos", "21", {"eval": 0.25}, {}, "21 | 12.5 | 3.0 | 0.500 | 0.250 | OK"),
    "dispatch, seed 001": ("dispatch", "evaluate", {"eval": 0.095}, {}, "evaluate | 95.00 | 95.00 | 95.00"),
    "quantised": ("quant", "INT8 per-channel affine 768x768", {"eval": 0.1}, {"ratio": 2.0, "max_error": 0.00123},
                  "INT8 per-channel affine 768x768 | 0.100 ms | 0.75 | 2.00x | 1.2e-03"),
    "70 us a dispatch, seed 003": ("fused-1", "4", {"fused": 0.07, "separate": 0.28}, {},
                                   "4 | 0.070 | 0.280 | 4.00x | 70.0"),
    "tier 2": ("fused-2", "1024", {"eval": 0.01}, {}, "1024 | 64 | 1 | 0.010 ms | 13.42 | 35.3%"),
    "tier 3": ("fused-3", "QKV (3 to 1)", {"separate": 0.6, "fused": 0.3}, {},
               "QKV (3 to 1) | 0.600 | 1509.9 | 0.300 | 3019.9 | 2.00x"),
    "73.6 MiB of weights": ("lm-head", "[1] conv 50257x768, fp16", {"eval": 2.0}, {"max_error": 0.5},
                            "[1] conv 50257x768, fp16 | 2.000 | 38.6 | 0.50000 | WARN"),
}  # fmt: skip


def lines(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


ROUNDED = 0.0005  # ms: the published times may be as much more or less


def published_ms(cells: list[str]) -> float:
    return next(float(cell.removesuffix(" ms")) for cell in cells if cell.endswith(" ms"))


def timed(config: Config, ms: float) -> Row:
    """The row of a machine that took that long."""
    return Row(config, {next(iter(config.programs)): Timing((ms / 1e3,), 0, True)})


def rows(name: str, preset: str) -> list[tuple[Config, list[str]]]:
    options = {"preset": preset} if preset else {}
    return list(zip(BENCHMARKS[name].configs(**options), lines(PUBLISHED[name, preset]), strict=True))


def number(text: str) -> float:
    return float(text.rstrip("%").removesuffix(" ms"))


@pytest.mark.parametrize(("name", "preset"), PUBLISHED)
def test_our_columns_give_the_published_figures_from_the_published_times(name, preset):
    """Rates were computed from the times before these were rounded: they lie between those of both ends."""
    for config, cells in rows(name, preset):
        ms = published_ms(cells)
        ends = [timed(config, ms - ROUNDED), timed(config, ms), timed(config, ms + ROUNDED)]
        assert config.label == cells[0]
        for column, cell in zip(BENCHMARKS[name].columns[1:], cells[1:], strict=False):
            theirs = number(cell.partition(" <--")[0])
            few, same, many = (number(column.text(row)) for row in ends)
            assert same == theirs or min(few, many) <= theirs <= max(few, many), (config.label, column.title)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_columns_are_those_of_the_published_tool_in_its_order_with_their_units(name):
    found = [column.title + (f" [{column.unit}]" if column.unit else "") for column in BENCHMARKS[name].columns]
    assert " | ".join(found) == TITLES[name]


@pytest.mark.parametrize("case", WORKED)
def test_cells_follow_from_the_times_as_the_contract_says(case):
    name, label, ms, found, wanted = WORKED[case]
    config = next(config for config in BENCHMARKS[name].configs() if config.label == label)
    assert {*ms} <= {*config.programs, *config.peers}
    timings = {program: Timing((each / 1e3,), 0, True, first=5e-4) for program, each in ms.items()}
    stats = {"eval": {"compile_seconds": 0.0125, "load_seconds": 0.003}}
    row = Row(config, timings, found=found, stats=stats)
    assert " | ".join(column.text(row) for column in BENCHMARKS[name].columns) == wanted


def test_a_row_that_took_no_time_has_dashes_and_no_error():
    for benchmark in BENCHMARKS.values():
        config = next(iter(benchmark.configs()))
        texts = [column.text(Row(config)) for column in benchmark.columns]
        assert "-" in texts, benchmark.name
        assert benchmark.notes([Row(config)]) is not None


def test_every_selection_for_a_quick_run_is_one_of_small_rows():
    for benchmark in BENCHMARKS.values():
        configs = list(benchmark.configs(**benchmark.quick))
        chosen = smallest(configs, benchmark.quick_rows)
        assert 1 <= len(chosen) <= benchmark.quick_rows
        assert [config.label for config in configs if config in chosen] == [config.label for config in chosen]
        assert max(config.facts["gflop"] for config in chosen) < 20, benchmark.name


def test_matmuls_below_a_millisecond_are_said_to_be_dispatch_and_the_cliff_is_found():
    times = {"256": 0.101, "512": 0.15, "1024": 0.6, "2048": 3.01401, "4096": 34.3597}
    found = [timed(config, times[config.label]) for config in BENCHMARKS["matmul"].configs()]
    assert BENCHMARKS["matmul"].notes(found) == [
        "The rate falls between working sets of 24 MB (5.70 TFLOPS) and 96 MB (4.00 TFLOPS)"
    ]
    assert [row.marks for row in found] == [["dispatch-limited"]] * 3 + [[], []]
    assert [row.found["fits"] for row in found] == ["yes"] * 4 + ["no"]


def test_the_size_of_the_original_tool_chooses_its_ten_rows_and_any_other_the_six():
    configs = BENCHMARKS["peak"].configs
    assert [each.label for each in configs(sp="64x1")] == [cells[0] for cells in lines(PEAK_002)]
    assert [each.label for each in configs()] == [cells[0] for cells in lines(PEAK_000)]
    assert [each.label.split()[0] for each in configs(sp="32")] == [cells[0].split()[0] for cells in lines(PEAK_000)]
    assert len(list(configs(preset="seed000", sp="64x1"))) == 6
    assert BENCHMARKS["peak"].before(batch=2, sp="32") == ["batch=2, sp=32x32"]


def test_the_average_of_a_qos_is_that_of_its_calls_and_not_their_median():
    config = next(iter(BENCHMARKS["qos"].configs()))
    row = Row(config, {"eval": Timing((1e-3, 1e-3, 4e-3), 0, True)})
    assert next(c for c in BENCHMARKS["qos"].columns if c.title == "Eval(avg10)").text(row) == "2.000"


def test_every_benchmark_calls_as_often_as_the_published_tool():
    usual = {name: (each.usual.warm, each.usual.calls) for name, each in BENCHMARKS.items()}
    other = {"matmul": (10, 100), "quant": (5, 100), "fused-2": (10, 500), "qos": (1, 10)}
    assert usual == {**dict.fromkeys(BENCHMARKS, (10, 50)), **other}


def test_what_no_engine_here_does_is_skipped_with_the_reason():
    row = measured(list(BENCHMARKS["lm-head"].configs(simd=True))[-1], "cpu", Effort(0, 1, 0.0), "M4")
    assert row.status == "SKIP"
    assert row.skipped == "the CPU engine adds in float32, with every instruction set"


def test_a_size_that_memory_cannot_hold_fails_alone_and_at_once():
    (config,) = BENCHMARKS["matmul"].configs(sizes=[10**6])
    row = measured(config, "cpu", Effort(0, 1, 0.0), "M4")
    assert row.failed["size"].startswith("about 3.35e+04 GiB would be needed, and this machine has")


@pytest.mark.parametrize(("arguments", "said"), [
    (["peak", "--sp", "0"], "'0' is neither a size"), (["peak", "--sp", "-4"], "neither a size"),
    (["peak", "--sp", "\u00b2"], "neither a size"), (["peak", "--sp", "9" * 20], "neither a size"),
    (["peak", "--batch", "0"], "not in the range"), (["peak", "--preset", "seed009"], "is not one of"),
    (["matmul", "--sizes", "-1"], "no list of positive"), (["matmul", "--sizes", ""], "no list of positive"),
    (["matmul", "--sizes", "4,x"], "no list of positive"), (["matmul", "--sizes", "1" + "0" * 30], "more than 1048576"),
    (["matmul", "--chip", "toaster"], "is no Apple chip"), (["matmul", "--seconds", "nan"], "no number of seconds"),
    (["matmul", "--calls", "0"], "not in the range"), (["matmul", "--out", "no/such/folder.json"], "does not exist"),
    (["matmul", "--plot", "x.xyz"], "ends in none of"), (["matmul", "--plot", "no/such/x.png"], "does not exist"),
    (["depth", "--channels", "0"], "not in the range"), (["fused", "--tier", "4"], "not in the range"),
    (["gen-int8", "--out", __file__], "is a file"), (["gen-sram", "--out", __file__ + "/x"], "cannot be made"),
    (["nothing"], "No such command"),
])  # fmt: skip
def test_what_cannot_be_run_is_refused_in_one_line_before_anything_is(monkeypatch, arguments, said):
    monkeypatch.setattr("anex.bench.running.measured", lambda *_: pytest.fail("something was run"))
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert done.exit_code in (1, 2)
    assert said in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_a_relu_changes_w8a8_by_nothing_but_its_maximum():
    plain, with_relu = (
        np.asarray(
            compile(int8_chain(1, 8, 2, 2, relu=each), device="cpu")(values("x", (1, 8, 2, 2)).astype("float16"))
        )
        for each in (False, True)
    )
    assert (with_relu == np.maximum(plain, 0)).all()
    assert (plain < 0).any()


def test_the_summary_of_the_fused_layer_tells_both_times_their_ratio_and_tokens_a_second():
    (config,) = (each for each in BENCHMARKS["fused-3"].configs() if each.label.startswith("full layer"))
    row = Row(config, {name: Timing((ms / 1e3,), 0, True) for name, ms in (("separate", 2.0), ("fused", 1.0))})
    titles, cells = BENCHMARKS["fused-3"].notes([row])
    assert titles.split() == ["Summary", "Separate", "Fused", "Speedup", "tokens/sec", "separate", "fused"]
    assert cells.split()[-7:] == ["2.000", "ms", "1.000", "ms", "2.00x", "128,000", "256,000"]


def test_the_fine_probe_marks_the_published_rows_as_they_were_marked():
    found = [(timed(config, published_ms(cells)), cells) for config, cells in rows("sram-fine", "")]
    notes = marked([row for row, _ in found])
    assert ["; ".join(row.marks) for row, _ in found] == [cells[-1].partition(" <-- ")[2] for _, cells in found]
    assert [note.partition(":")[0] for note in notes] == [
        "Peak efficiency at 2560ch (12.5 MB weights)", "On-chip memory", "First spill at 4096ch (32.0 MB)",
        "Catastrophic at 8192ch (128.0 MB)", "Recovers at 4608ch, 5120ch",
    ]  # fmt: skip
    assert notes[1] == "On-chip memory: approx 24-32 MB"


def test_the_peak_of_the_second_document_is_the_published_one():
    found = [timed(config, published_ms(cells)) for config, cells in rows("peak", "seed002")]
    (note,) = BENCHMARKS["peak"].notes(found)
    assert note.endswith("TFLOPS (128x conv 512ch sp64, 64 MB weights)")

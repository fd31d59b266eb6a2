"""``anex.distributed`` and optimizers with a group: 4 processes of mpirun, 2 of gloo, against numpy and torch."""

import json
import math
import os
import subprocess
import sys

import distributed_case as case
import lean
import numpy as np
import pytest
import torch

import anex
from anex.distributed import launch
from anex.distributed.messages import BUCKET, LARGE, messages


@pytest.fixture(scope="module", params=["mpi", "gloo"])
def found(request, tmp_path_factory):
    """What each process found, by rank."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "mpi":
        started = case.start("mpirun", 4, folder, case.__file__, "check", folder)
    else:
        env = {**os.environ, "PYTHONPATH": lean.path(case.ROOT), "OMP_NUM_THREADS": "1"}
        line = [sys.executable, case.__file__, "fork", "2", str(folder)]
        started = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = started.communicate(timeout=500)
    assert started.returncode == 0, out + err
    made = [json.loads((folder / f"found.{rank}").read_text()) for rank in range(4 if request.param == "mpi" else 2)]
    for rank, each in enumerate(made):
        each["sums"] = dict(np.load(folder / f"sums.{rank}.npz"))
    assert {each["size"] for each in made} == {len(made)}
    return made


def test_sums_are_numpy_s_in_place_and_the_same_on_every_process(found):
    size = len(found)
    ranks = np.arange(1, size + 1)
    wanted = {
        "large": np.sum([case.large(rank).astype(np.float64) for rank in range(size)], 0),
        "small": np.sum([case.gradients(rank)["bias"].astype(np.float64) for rank in range(size)], 0),
        "padded": np.full((600, 500), ranks.sum()),
        "half": np.arange(15).reshape(3, 5) * ranks.sum(),
        "whole": np.full((2, 3), ranks.sum()),
        "strided": np.arange(12.0).reshape(3, 4)[:, ::2] * ranks.sum(),
        "number": (ranks - 0.5).sum(),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(found[0]["sums"][name], value, rtol=1e-6, atol=1e-6, err_msg=name)
        assert all(np.array_equal(each["sums"][name], found[0]["sums"][name]) for each in found)
    assert all(each["in_place"] for each in found)
    if size == 2:  # bits
        assert np.array_equal(found[0]["sums"]["large"], case.large(0) + case.large(1))


def test_large_ones_go_from_where_they_lie_and_small_ones_together(found):
    for each in found:
        assert each["straight"] == [True, False, False, False, False, False, False]
        # a comparison of the calls, two large ones, and of the small ones float32 (with float16), int32 and float64
        assert each["messages"] == 6


def test_copies_are_the_root_s_and_differences_are_seen(found):
    for each in found:
        assert each["copies"] == [1.0, 1.0, 1.0]
        assert each["shared"] == {"rank": 0, "text": "ü"}
        assert each["agree"] == [True, False]


def test_unlike_calls_are_an_error_on_every_process(found):
    for rank, each in enumerate(found):
        assert each["different"].startswith(f"rank {rank} of {len(found)} is in all_reduce of 1 arrays")
        assert "all ranks make the same calls" in each["different"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_clipping_is_of_the_norm_of_all_gradients(found, dtype):
    given = [case.gradients(rank, dtype=dtype) for rank in range(len(found))]
    start = {
        name: torch.nn.Parameter(torch.tensor(np.asarray(w, np.float64))) for name, w in case.weights(dtype).items()
    }
    for name, parameter in start.items():
        parameter.grad = torch.tensor(np.mean([each[name].astype(np.float64) for each in given], 0))
    norm = torch.nn.utils.clip_grad_norm_(start.values(), 0.5)
    torch.optim.AdamW(start.values(), lr=0.1, eps=case.EPSILON).step()
    for each in found:
        result = each["optimizers"][f"clipped {dtype}"]
        assert result == found[0]["optimizers"][f"clipped {dtype}"]
        assert result["taken"] is True
        assert result["norm"] == pytest.approx(norm.item(), rel=1e-5)
        for name, parameter in start.items():
            np.testing.assert_allclose(result["weights"][name], parameter.detach().numpy(), rtol=2e-5, atol=2e-5)


def test_an_overflow_on_one_process_leaves_the_step_out_on_all(found):
    assert [each["optimizers"]["overflow"] for each in found] == [{"taken": False, "scale": 2.0, "moved": False}] * len(
        found
    )


def test_means_are_of_all_that_was_accumulated_however_it_is_spread(found):
    parts = [case.gradients(rank, turn) for rank in range(len(found)) for turn in range(rank)]
    for each in found:
        assert each["optimizers"]["uneven"]["taken"] is True
        for name, weight in case.weights().items():
            wanted = np.asarray(weight, np.float64) - 0.5 * np.mean([part[name] for part in parts], 0, np.float64)
            np.testing.assert_allclose(each["optimizers"]["uneven"]["weights"][name], wanted, rtol=1e-5, atol=1e-6)


def test_a_process_that_stands_still_ends_all_after_the_timeout(tmp_path):
    started = case.start("mpirun", 2, tmp_path, case.__file__, "wait", tmp_path)
    _, err = started.communicate(timeout=500)
    assert started.returncode != 0
    assert "WorkerError: rank 0 of 2: another process was lost, or stood still for longer than timeout=1 s" in err
    assert "last checkpoint" in err


def test_mpirun_ends_those_that_wait_for_a_process_that_was_killed(tmp_path):
    started = case.start("mpirun", 2, tmp_path, case.__file__, "die", tmp_path)
    out, _ = started.communicate(timeout=500)
    assert started.returncode != 0
    assert "Killed (signal 9)" in out


def test_messages_of_small_arrays_end_at_a_limit():
    part = np.zeros(LARGE // 4 - 1, np.float32)
    made = messages([part] * 60, wide=False)
    assert sum(len(message.parts) for message in made) == 60
    assert len(made) == math.ceil(60 * part.nbytes / (BUCKET + part.nbytes))
    assert max(message.data.nbytes for message in made) < BUCKET + LARGE


@pytest.mark.parametrize(
    ("variables", "backend"),
    [
        ({}, "alone"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "gloo"),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "alone"),
        ({"RANK": "1"}, "alone"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpi"),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, "mpi"),
        ({"PMIX_RANK": "0"}, "mpi"),
    ],
)
def test_the_launcher_is_known_by_its_variables(variables, backend):
    assert launch.launcher(variables) == backend


def test_a_script_that_was_started_alone_is_a_group_of_one():
    with anex.distributed.join() as group:
        values = np.ones(3)
        group.all_reduce([values])
        group.broadcast([values])
        group.barrier()
        assert (group.rank, group.size, values.sum(), group.share([1]), group.agree([values])) == (0, 1, 3, [1], True)
        w = anex.tensor([1.0])
        assert anex.optim.SGD({"w": w}, lr=0.5, group=group).step({"w": np.ones(1, np.float32)})
    assert w.tolist() == [0.5]
    with pytest.raises(anex.ClosedError, match="all_reduce of a group that was closed"):
        group.all_reduce([values])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: anex.distributed.join("nccl"), anex.ArgumentError, "none of gloo, mpi, alone"),
        (lambda: anex.distributed.join(timeout=0), anex.ArgumentError, "timeout=0"),
        (lambda: anex.distributed.Alone().all_reduce([[1.0]]), anex.ArgumentError, "array 0 is a list"),
        (lambda: anex.distributed.Alone().all_reduce([np.broadcast_to(1.0, 3)]), anex.ArgumentError, "read-only"),
        (lambda: anex.distributed.Alone().all_reduce([np.zeros(2, np.uint8)]), anex.DTypeError, "array 0 is uint8"),
        (lambda: anex.distributed.Alone().broadcast([], root=1), anex.ArgumentError, "the ranks are 0 to 0"),
    ],
)
def test_mistakes_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(("backend", "module"), [("gloo", "torch"), ("mpi", "mpi4py")])
def test_a_missing_library_is_an_error_that_says_what_to_install(backend, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(anex.UnsupportedError, match=r"pip install 'anex\[distributed\]'"):
        anex.distributed.join(backend)


def test_another_mpi_s_mpirun_is_noticed():
    code = "import anex; anex.distributed.join()"
    env = {**os.environ, "PYTHONPATH": lean.path(case.ROOT), "OMPI_COMM_WORLD_SIZE": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "WorkerError: mpirun started 2 processes and mpi4py sees 1: mpirun is of another MPI than" in done.stderr

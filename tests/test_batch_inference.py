"""examples/batch_inference.py on two workers of Dask: order, one unpickling each, a failure's input, a lost worker."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import anex
from anex import mb

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "examples" / "minilm")]

import batch_inference  # noqa: E402 - the path first
from batch_inference import infer, send  # noqa: E402
from distributed import Client, LocalCluster  # noqa: E402
from encoder import Encoder  # noqa: E402


class Thrice:
    """A program that triples numbers, and notes each unpickling in a folder; -1 is refused, -2 kills a process once."""

    def __init__(self, folder):
        self.folder = folder
        graph = anex.graph(x=anex.spec((1, 4), "float32"))(lambda x: mb.mul(x=x, y=np.float32(3), name="y"))
        self.program = anex.compile(graph)

    def __setstate__(self, state):
        self.__dict__.update(state)
        with open(self.folder / f"unpickled.{os.getpid()}", "a") as file:
            file.write("x")

    def __call__(self, number):
        if number == -1:
            raise ValueError("is no number of ours")
        if number == -2 and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array(self.program(np.full((1, 4), number, np.float32)))[0]


@pytest.fixture(scope="module")
def client():
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # without what coremltools would import in each worker, and nobody needs
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "distributed_site"), str(ROOT)]))
        patch.setenv("ANEX_TEST_LEAN", "1")
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as made,
        ):
            yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def sent(client, folder):
    return send(client, Thrice(folder))


def tripled(numbers):
    return np.repeat(3.0 * np.array(numbers)[:, None], 4, axis=1)


def unpickled(folder):
    """How often, by process."""
    return [len(path.read_text()) for path in folder.glob("unpickled.*")]


def test_rows_come_in_order_and_each_worker_unpickles_the_program_once(client, sent, folder):
    numbers = list(range(40, 0, -1))
    rows = list(infer(client, sent, numbers, size=3))
    assert [len(each) for each in rows] == [3] * 13 + [1]
    np.testing.assert_array_equal(np.concatenate(rows), tripled(numbers))
    assert unpickled(folder) == [1, 1]


def test_a_failed_task_names_its_input(client, sent):
    found = infer(client, sent, [5, 6, 7, 8, -1, 9], size=3)
    np.testing.assert_array_equal(next(found), tripled([5, 6, 7]))
    with pytest.raises(RuntimeError, match=r"^input 4, '-1': ValueError: is no number of ours"):
        next(found)


def test_lines_of_a_file_become_rows_of_another(client, tmp_path, capsys):
    lines = ["Alpha beta.", "", *(f"Number {i} of a few." for i in range(10))]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    line = [str(tmp_path / "lines.txt"), "--out", str(tmp_path / "v.npy"), "--scheduler", client.scheduler.address]
    batch_inference.run(batch_inference.parser().parse_args([*line, "--shard", "5"]))
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), Encoder().encode(lines))
    assert "12 vectors of 384" in capsys.readouterr().out


def test_the_shards_of_a_worker_that_is_killed_go_to_another(client, sent, folder):
    numbers = [-2, 1, 2, 3, 4]
    rows = np.concatenate(list(infer(client, sent, numbers, size=2)))
    np.testing.assert_array_equal(rows, tripled(numbers))
    assert (folder / "died").exists()
    assert set(unpickled(folder)) == {1}  # by the one that took its place too

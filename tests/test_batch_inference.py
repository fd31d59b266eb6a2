"""examples/batch_inference.py on two workers of Dask: order, one unpickling each, a failure's input, a lost worker."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "examples" / "minilm")]

import batch_inference  # noqa: E402 - the path first
from batch_inference import Embedder, infer, lengths_of, send  # noqa: E402
from distributed import Client, LocalCluster  # noqa: E402

SENTENCES = ["Alpha beta.", "", *(f"Number {i} of a few." for i in range(10))]  # of one program


class Counted(Embedder):
    """Notes each unpickling in a folder, by the process; sentences of one word too many are refused."""

    folder: Path

    def __setstate__(self, state):
        self.__dict__.update(state)
        with open(self.folder / f"unpickled.{os.getpid()}", "a") as file:
            file.write("x")

    def __call__(self, sentence):
        if sentence == "bad":
            raise ValueError("is no sentence")
        if sentence == "deadly" and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(sentence)


@pytest.fixture(scope="module")
def client():
    with pytest.MonkeyPatch.context() as patch:  # what coremltools would import in each worker, and nobody needs
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "distributed_site"), str(ROOT)]))
        patch.setenv("ANEX_TEST_LEAN", "1")
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as made,
        ):
            yield made


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    made = Counted(lengths_of(SENTENCES))
    made.folder = tmp_path_factory.mktemp("workers")
    return made


@pytest.fixture(scope="module")
def sent(client, embedder):
    return send(client, embedder)


@pytest.fixture(scope="module")
def wanted(embedder):
    return embedder.encoder.encode(SENTENCES)  # tests/test_minilm.py compares these with Hugging Face's


def unpickled(folder):
    """How often, by process; not this one, through which a copy passes on its way."""
    return {
        path.suffix: len(path.read_text()) for path in folder.glob("unpickled.*") if path.suffix != f".{os.getpid()}"
    }


def test_rows_come_in_order_and_each_worker_unpickles_the_programs_once(client, sent, embedder, wanted):
    rows = np.concatenate(list(infer(client, sent, SENTENCES, size=1)))  # a task for each sentence
    np.testing.assert_array_equal(rows, wanted)
    assert sorted(unpickled(embedder.folder).values()) == [1, 1]


def test_a_failed_task_names_its_input(client, sent, wanted):
    found = infer(client, sent, [*SENTENCES[:4], "bad", "fine"], size=3)
    np.testing.assert_array_equal(next(found), wanted[:3])
    with pytest.raises(RuntimeError, match=r"^input 4, 'bad': ValueError: is no sentence"):
        next(found)


def test_lines_of_a_file_become_rows_of_another(client, wanted, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("\n".join(SENTENCES))
    line = [str(tmp_path / "lines.txt"), "--out", str(tmp_path / "v.npy"), "--scheduler", client.scheduler.address]
    batch_inference.run(batch_inference.parser().parse_args(line))
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), wanted)
    assert f"{len(SENTENCES)} vectors of 384" in capsys.readouterr().out


def test_the_shards_of_a_worker_that_is_killed_go_to_the_other(client, sent, embedder, wanted):
    rows = np.concatenate(list(infer(client, sent, ["deadly", *SENTENCES], size=2)))
    np.testing.assert_array_equal(rows[1:], wanted)
    assert (embedder.folder / "died").exists()
    assert set(unpickled(embedder.folder).values()) == {1}  # by the one that took its place too

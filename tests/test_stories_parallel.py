"""examples/stories110m/train.py under torchrun and mpirun: the losses of one process; what is left when one is lost."""

import contextlib
import io
import json
import os
import signal

import distributed_case as case
import numpy as np
import pytest
import stories_case
from stories_case import ROOT, train
from stories_checkpoint import Checkpoint
from stories_config import TINY, StoriesError, random_weights
from stories_data import Tokens
from stories_parallel import check_data
from stories_trainer import Options, Trainer

from anex.distributed import Alone

TRAIN = ROOT / "examples" / "stories110m" / "train.py"


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Of a tiny run."""
    folder = tmp_path_factory.mktemp("stories")
    stories_case.make_data(folder)
    return ["--tiny", "--data", str(folder / "d.bin"), "--weight-decay", "0.1", "--clip", "1"]


def records(text, kind="step"):
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [record for record in found if record["type"] == kind]


def alone(*arguments):
    """The records of one process: this one."""
    noted = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(noted):
        train.run(train.parser().parse_args([str(each) for each in arguments]))
    return records(noted.getvalue())


def pairs(one, other):
    """What two checkpoints keep, by twos."""
    assert (one.run["step"], one.run["updates"]) == (other.run["step"], other.run["updates"])
    assert one.state.keys() == other.state.keys()
    for a, b in ((one.weights, other.weights), (one.state, other.state)):
        for name in a:
            yield a[name], b[name]


def test_two_of_torchrun_have_the_bits_of_one_and_a_lost_one_leaves_a_checkpoint_for_one(options, tmp_path):
    """Two processes, two steps a batch: a + b is b + a."""
    path, whole = tmp_path / "two.safetensors", tmp_path / "one.safetensors"
    given = [*options, "--accum", 2, "--save-every", 2]
    run = case.start("torchrun", 2, tmp_path, TRAIN, *given, "--ckpt", path, "--steps", 1_000_000)
    err = ""
    for line in run.stderr:
        err += line
        if line.startswith("{") and json.loads(line).get("step", 0) >= 21:
            break
    os.kill(case.process(tmp_path, rank=1), signal.SIGKILL)
    out, rest = run.communicate(timeout=500)
    err += rest
    assert run.returncode != 0
    kept = Checkpoint.load(path).run["step"]
    assert kept >= 20
    assert kept % 4 == 0
    messages = [line for line in err.splitlines() if line.startswith("train: ")]
    assert len(messages) == 1, err
    assert "another process was lost" in messages[0] or "stopped by SIGTERM" in messages[0]
    assert messages[0].endswith(f"{path} is of step {kept}: go on with --resume")
    assert out.count("=== anex training") == 1
    assert "2 workers share the 2 steps of a batch" in out
    seen = {record["step"]: record["loss"] for record in records(err)}
    assert list(seen) == list(range(len(seen)))
    resumed = alone(*options, "--resume", "--ckpt", path, "--steps", kept + 6)
    wanted = {r["step"]: r["loss"] for r in alone(*given, "--ckpt", whole, "--steps", kept + 6)}
    seen |= {record["step"]: record["loss"] for record in resumed}
    assert all(seen[step] == loss for step, loss in wanted.items())
    for a, b in pairs(Checkpoint.load(path), Checkpoint.load(whole)):
        assert np.array_equal(a.view(np.uint32), b.view(np.uint32))


def test_four_of_mpirun_go_on_from_a_checkpoint_of_one_with_its_losses(options, tmp_path):
    """Sums of four have another order than one process's; the last batch has steps for two."""
    path, whole = tmp_path / "four.safetensors", tmp_path / "one.safetensors"
    given = [*options, "--accum", 4]
    alone(*given, "--ckpt", path, "--steps", 8)
    run = case.start("mpirun", 4, tmp_path, TRAIN, *options, "--resume", "--ckpt", path, "--steps", 22,
                     "--export", tmp_path / "m.bin")  # fmt: skip
    out, err = run.communicate(timeout=500)
    assert run.returncode == 0, out + err
    assert out.count("[RESUMED step 8") == out.count("[exported") == out.count("=== Efficiency Report ===") == 1
    wanted = [(r["step"], r["loss"]) for r in alone(*given, "--ckpt", whole, "--steps", 22)][8:]
    found = [(r["step"], r["loss"]) for r in records(err)]
    assert [step for step, _ in found] == [step for step, _ in wanted]
    np.testing.assert_allclose([loss for _, loss in found], [loss for _, loss in wanted], rtol=2e-6)
    for a, b in pairs(Checkpoint.load(path), Checkpoint.load(whole)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1e-3, np.abs(b).max()))


def test_a_batch_has_a_step_for_every_worker():
    group = Alone()
    group.size = 3
    with pytest.raises(StoriesError, match=r"--accum 2: .* not enough for 3 workers; --accum 3 is the least"):
        Trainer(TINY, random_weights(TINY), Options(accum=2), group=group)


def test_weights_that_drifted_apart_become_those_that_are_saved(tmp_path, monkeypatch):
    trainer, sent = Trainer(TINY, random_weights(TINY), Options()), []
    monkeypatch.setattr(
        trainer.group, "agree", lambda tensors: False
    )  # as processors that round otherwise would have it
    monkeypatch.setattr(trainer.group, "broadcast", lambda tensors, root=0: sent.extend(tensors))
    trainer.save(tmp_path / "c.safetensors")
    assert sent == [*trainer.engine.weights.values(), *trainer.optimizer.state.values()]
    monkeypatch.setattr(trainer.group, "rank", 1)
    trainer.save(tmp_path / "other.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_workers_with_other_data_are_refused(options, monkeypatch):
    tokens, group = Tokens(options[2], TINY.seq_len, TINY.vocab_size), Alone()
    monkeypatch.setattr(group, "agree", lambda tensors: False)
    with pytest.raises(StoriesError, match=r"d\.bin has \d+ tokens here; the workers' files are not the same"):
        check_data(group, tokens)

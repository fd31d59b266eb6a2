"""What ``anex bench all`` makes of the Stories trainings, and the command ``anex train``."""

import json
import subprocess
import sys

import lean
import numpy as np
import pytest
import stories_case
import stories_reference
from click.testing import CliRunner
from needs_ane import needs_ane
from stories_case import ROOT
from stories_config import Config, random_weights
from stories_llama2c import save

from anex import examples
from anex.cli import main
from anex.suite import training

pytestmark = pytest.mark.filterwarnings("ignore::anex.AneWarning")
STORIES = {each.name: each for each in training.TRAININGS if each.file.startswith("stories110m")}


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_reference_loss_is_torch_s(kv_heads):
    config = Config(dim=32, hidden_dim=48, n_layers=2, n_heads=4, n_kv_heads=kv_heads, vocab_size=50, seq_len=9)
    weights = {name: value * 5 for name, value in random_weights(config).items()}
    numbers = np.random.default_rng(0).integers(0, 50, 10)
    loss, _ = stories_case.torch_gradients(config, weights, numbers[:-1], numbers[1:])
    assert stories_reference.loss(config, weights, numbers[:-1], numbers[1:]) == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize("device", ["cpu", pytest.param("ane", marks=needs_ane)])
def test_a_quick_training_begins_as_the_reference_says_and_falls(name, device):
    found = training.play(STORIES[name], 4, device, small=True)
    assert found["first_loss"] == pytest.approx(found["expected_first_loss"], rel=training.TOLERANCE[device])
    assert found["last_loss"] < found["first_loss"] - 0.01


def test_a_training_takes_model_and_data_of_the_environment(tmp_path, monkeypatch):
    config = Config(dim=16, hidden_dim=24, n_layers=1, n_heads=2, n_kv_heads=2, vocab_size=30, seq_len=8)
    save(tmp_path / "m.bin", config, random_weights(config))
    np.arange(20, dtype="<u2").tofile(tmp_path / "d.bin")
    monkeypatch.setenv("ANE_MODEL_PATH", str(tmp_path / "m.bin"))
    monkeypatch.setenv("ANE_DATA_PATH", str(tmp_path / "d.bin"))
    found = training.play(STORIES["train-large"], 2, "cpu")
    assert found["first_loss"] == pytest.approx(np.log(30), rel=0.02)


# ---- anex train ----------------------------------------------------------------------------------------------------


def test_the_command_runs_the_example_with_its_flags(tmp_path):
    line = [sys.executable, "-m", "anex", "train", "stories110m", "--tiny", "--steps", "2", "--ckpt", "c.safetensors"]
    done = subprocess.run(
        line, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": lean.path(ROOT)}, check=True
    )
    assert "Total steps:     2" in done.stdout
    assert [json.loads(record)["type"] for record in done.stderr.splitlines()][:3] == ["step", "batch", "perf"]
    assert (tmp_path / "c.safetensors").exists()


def test_the_command_s_help_and_errors_are_the_example_s():
    shown = CliRunner().invoke(main, ["train", "stories110m", "--help"])
    assert shown.exit_code == 0
    assert "--no-ane-extras" in shown.output
    assert "ANE_MODEL_PATH" in shown.output
    wrong = CliRunner().invoke(main, ["train", "stories110m", "--tiny", "--steps", "0"])
    assert wrong.exit_code == 1
    assert "steps, accum and lr are above 0" in wrong.output
    assert "Usage" in CliRunner().invoke(main, ["train", "stories110m", "--no-such-flag"]).output.capitalize()
    unknown = CliRunner().invoke(main, ["train", "stories9b"])
    assert unknown.exit_code == 2
    assert "stories110m" in unknown.output


def test_without_the_examples_the_command_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "BESIDE", tmp_path)
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(main, ["train", "stories110m"])
    assert found.exit_code == 1
    assert "there is no examples/stories110m/train.py" in found.output
    assert "checkout" in found.output
    (tmp_path / "examples/stories110m").mkdir(parents=True)
    (tmp_path / "examples/stories110m/train.py").write_text("import sys; print('here', sys.argv[1:])")
    found = CliRunner().invoke(main, ["train", "stories110m", "--steps", "1"])
    assert found.output == "here ['--steps', '1']\n"


def test_what_the_example_needs_and_is_not_installed_is_named(tmp_path, monkeypatch):
    (tmp_path / "examples/stories110m").mkdir(parents=True)
    (tmp_path / "examples/stories110m/train.py").write_text("import safetensorz")
    monkeypatch.setattr(examples, "BESIDE", tmp_path)
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(main, ["train", "stories110m"])
    assert found.exit_code == 1
    assert "safetensorz is not installed: pip install 'anex[examples]'" in found.output

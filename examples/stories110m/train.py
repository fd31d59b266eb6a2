"""Train Stories110M, or any Llama-2 of llama2.c's format: ``python examples/stories110m/train.py --steps 1000``.

Flags, environment variables, lines and JSON records (on stderr) are those of the published train_large; the program
is compiled once, since its weights are inputs. ``--tiny`` trains a small model on text that comes with Python.
Several workers share the steps of a batch: ``torchrun --nproc-per-node 2 train.py``, ``mpirun -n 2 python train.py``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from stories_checkpoint import Checkpoint
from stories_config import STORIES110M, TINY, Config, StoriesError, random_weights
from stories_data import Tokens, save_tokens
from stories_llama2c import load, save
from stories_parallel import check_data, of_rank_0, together
from stories_report import Report
from stories_step import PARTS
from stories_trainer import SCHEDULES, Options, Trainer, compilations

from anex import Error
from anex.distributed import Alone, Group

TINY_OPTIONS = {"steps": 200, "lr": 3e-3, "accum": 1}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="train", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--steps", type=int, help="sequences to train on, in all (10000)")
    made.add_argument("--lr", type=float, help="learning rate (3e-4)")
    made.add_argument("--accum", type=int, metavar="N", help="steps of a batch, each one update (10)")
    made.add_argument("--warmup", type=int, metavar="N", help="updates until the whole rate (0)")
    made.add_argument("--schedule", choices=list(SCHEDULES), help="of the rate (constant)")
    made.add_argument("--weight-decay", type=float, help="of matrices (0)")
    made.add_argument("--clip", type=float, help="the most the norm of the gradients may be; 0: any (0)")
    made.add_argument("--seed", type=int, help="of the places in the data (42)")
    made.add_argument("--model", type=Path, metavar="FILE",
                      help="weights to begin with, llama2.c's (ANE_MODEL_PATH, or stories110M.bin)")  # fmt: skip
    made.add_argument("--scratch", action="store_true", help="begin with random weights, whatever files there are")
    made.add_argument("--data", type=Path, metavar="FILE",
                      help="uint16 tokens (ANE_DATA_PATH, or tinystories_data00.bin)")  # fmt: skip
    made.add_argument("--ckpt", type=Path, default=Path("ane_stories110M_ckpt.safetensors"), metavar="FILE")
    made.add_argument("--save-every", type=int, default=10, metavar="N", help="batches between checkpoints (10)")
    made.add_argument("--resume", action="store_true", help="go on from the checkpoint, with its options")
    made.add_argument("--export", type=Path, metavar="FILE", help="write the weights for llama2.c at the end")
    made.add_argument("--device", default="cpu", choices=("cpu", "ane"), help="where the layers run (cpu)")
    made.add_argument("--offload", default="", metavar="PARTS",
                      help="what runs on the ane beside the layers: classifier,softmax,rmsnorm")  # fmt: skip
    made.add_argument("--ane", action="store_true",
                      help="as the published train_large_ane: --device ane, and all that --offload names")  # fmt: skip
    made.add_argument("--no-ane-extras", action="store_true", help="with --ane: the layers alone, nothing offloaded")
    made.add_argument("--breakdown", action="store_true", help="measure and print where the time goes")
    made.add_argument("--timeout", type=float, default=300.0, metavar="S",
                      help="seconds that workers wait for each other before the run ends (300)")  # fmt: skip
    made.add_argument("--tiny", action="store_true", help="a small model on text that comes with Python")
    return made


def chosen(path: Path | None, variable: str, otherwise: str) -> tuple[Path, bool]:
    """A file, and whether somebody named it."""
    named = path or (Path(os.environ[variable]) if os.environ.get(variable) else None)
    return (named, True) if named else (Path(otherwise), False)


def placed(given: argparse.Namespace) -> tuple[str, ...]:
    """What is offloaded; ``--ane`` chooses the device too."""
    if given.no_ane_extras and not given.ane:
        raise StoriesError("--no-ane-extras goes with --ane: it says that only the layers run there")
    if given.no_ane_extras and given.offload:
        raise StoriesError(f"--no-ane-extras offloads nothing, and --offload {given.offload} does: name one of them")
    if given.ane:
        given.device = "ane"
        given.offload = "" if given.no_ane_extras else given.offload or ",".join(PARTS)
    return tuple(part for part in given.offload.split(",") if part)


def changes(given: argparse.Namespace) -> dict[str, Any]:
    """The options of the run that the command line names."""
    names = Options.__dataclass_fields__
    return {name: getattr(given, name) for name in names if getattr(given, name) is not None}


def beginning(given: argparse.Namespace) -> tuple[Config, dict[str, Any]]:
    """The model to begin with."""
    path, named = chosen(given.model, "ANE_MODEL_PATH", "stories110M.bin")
    if given.tiny and not given.model:
        return TINY, random_weights(TINY)
    if not given.scratch and (path.exists() or named):
        config, weights = load(path)
        print(f"  Loaded pretrained weights ({'shared embed/cls' if config.shared else 'separate cls'}) of {path}")
        return config, weights
    print("  Using random init" if given.scratch else f"  There is no {path}: using random init")
    return STORIES110M, random_weights(STORIES110M)


def tiny_data(folder: Path) -> Path:
    """Python's own documentation as tokens, and tiny_tokenizer.bin beside it; made once."""
    import pydoc_data.topics

    from stories_tokenizer import Tokenizer

    path = folder / "tiny_tokens.bin"
    if not path.exists():
        texts = [part for _, text in sorted(pydoc_data.topics.topics.items())[:30] for part in text.split("\n\n")]
        tokenizer = Tokenizer.learn("\n".join(texts), TINY.vocab_size)
        tokenizer.save(folder / "tiny_tokenizer.bin")
        partial = folder / f"tiny_tokens.{os.getpid()}.partial"
        save_tokens(partial, [number for text in texts for number in tokenizer.encode(text)])
        os.replace(partial, path)
    return path


def run(given: argparse.Namespace, group: Group | None = None) -> None:
    group = group or Alone()
    offload = placed(given)
    if given.save_every < 1:
        raise StoriesError(f"--save-every {given.save_every}: 1 is the least")
    if given.resume:
        trainer = Trainer.resume(given.ckpt, changes(given), given.device, offload, group)
    else:
        given.ckpt.parent.mkdir(parents=True, exist_ok=True)
        options = Options(**{**(TINY_OPTIONS if given.tiny else {}), **changes(given)})
        start = of_rank_0(group, lambda: Checkpoint(*beginning(given)))
        trainer = Trainer(start.config, start.weights, options, given.device, offload, group)
    trainer.align()
    config, options = trainer.config, trainer.options
    path, _ = chosen(given.data, "ANE_DATA_PATH", "tinystories_data00.bin")
    if given.tiny and not given.data:
        if group.rank:
            group.barrier()  # while rank 0 makes it
        path = tiny_data(given.ckpt.parent)
        if not group.rank:
            group.barrier()
    tokens = Tokens(path, config.seq_len, config.vocab_size, options.seed)
    check_data(group, tokens)
    report = Report(config, given.device, trainer.engine.offload)
    if given.resume:
        print(f"[RESUMED step {trainer.step}, loss={trainer.loss:.4f}]", flush=True)
    else:
        report.header("Tiny" if given.tiny else "Stories110M" if config == STORIES110M else "Llama-2", vars(options))
    if group.size > 1:
        print(f"{group.size} workers share the {options.accum} steps of a batch")
    if offload and given.device == "cpu":
        print("  --offload changes nothing on the cpu: all of the step runs there; see --device ane")
    if given.breakdown:
        trainer.look(tokens)
    train(trainer, tokens, None if group.rank else report, given)
    if given.export and not group.rank:
        save(given.export, config, trainer.weights())
        print(f"[exported: {given.export}]")


def train(trainer: Trainer, tokens: Tokens, report: Report | None, given: argparse.Namespace) -> None:
    """All batches, with a checkpoint after some and after the last; then the reports, of rank 0."""
    times, update_ms, begun = trainer.engine.times.copy(), 0.0, None
    while trainer.step < trainer.options.steps:
        found = trainer.batch(tokens, report)
        update_ms += found.pop("update", 0)
        times.update(found)
        begun = begun or (trainer.engine.compiles, compilations())
        if trainer.sums.batches % given.save_every == 0 or trainer.step >= trainer.options.steps:
            trainer.save(given.ckpt)
            print(f"[checkpoint saved: step {trainer.step}, loss={trainer.loss:.4f}]", flush=True)
    again = (trainer.engine.compiles - begun[0]) + (compilations() - begun[1]) if begun else 0
    if trainer.skipped:
        print(f"{trainer.skipped} updates were left out: their gradients were not finite")
    if report and given.breakdown and begun:
        report.breakdown(times, update_ms, trainer.sums.steps)
    if report:
        report.efficiency(trainer.totals(), again)


def main() -> None:
    given = parser().parse_args()
    try:
        with together(given.timeout, given.ckpt) as group:
            run(given, group)
    except (StoriesError, Error, OSError) as error:
        raise SystemExit(f"train: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()

"""Launchers for the tests of several processes, and what one of them does: a script that these start.

``python distributed_case.py fork 2`` makes processes as torchrun would, which share one import of torch.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
LAUNCHERS = {
    "torchrun": lambda n: [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", str(n)],
    "mpirun": lambda n: [str(BIN / "mpirun"), "-n", str(n), sys.executable],
}


def start(launcher, n, folder, script, *arguments):
    """A script under a launcher, with pipes; the processes' numbers are in ``folder``."""
    path = os.pathsep.join([str(ROOT / "tests" / "distributed_site"), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ANEX_TEST_FOLDER": str(folder)}
    line = [*LAUNCHERS[launcher](n), str(script), *map(str, arguments)]
    return subprocess.Popen(line, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def process(folder, rank):
    return int((folder / f"process.{rank}").read_text())


# ---- what the processes do ----------------------------------------------------------------------------------------

SHAPES = {"bias": (7,), "matrix": (12, 30), "deep": (3, 4, 5)}
EPSILON = 1e-4  # of AdamW: its first step would show the sign of gradients that are rounding errors


def gradients(rank, turn=0, dtype="float32"):
    """Of one process, and one of its turns."""
    import numpy as np

    rng = np.random.default_rng([7, rank, turn])
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def large(rank):
    """1.2 MB"""
    import numpy as np

    return np.random.default_rng(rank).normal(size=(600, 512)).astype(np.float32)


def weights(dtype="float32"):
    import anex

    return {name: anex.tensor(value, dtype=dtype) for name, value in gradients(99).items()}


def exchanges(group):
    """Sums and copies, by name; what the test compares with numpy's."""
    import numpy as np

    import anex

    rank, sent, begin = group.rank, [], group._start
    given = {
        "large": anex.tensor(large(rank)), "small": anex.tensor(gradients(rank)["bias"]),
        "padded": anex._native.Tensor((600, 500), "float32", True),
        "half": anex._native.Tensor((3, 5), "float16", True), "whole": np.full((2, 3), rank + 1, np.int32),
        "strided": np.arange(12.0).reshape(3, 4)[:, ::2] * (rank + 1), "number": np.array(rank + 0.5),
    }  # fmt: skip
    given["padded"][...] = rank + 1
    given["half"][...] = np.arange(15).reshape(3, 5) * (rank + 1)
    given["strided"] = np.repeat(given["strided"], 2, axis=1)[:, ::2]
    where = [np.asarray(each).ctypes.data for each in given.values()]

    def noted(data, root):
        sent.append(data.ctypes.data)
        return begin(data, root)

    group._start = noted
    group.all_reduce(given.values())
    group._start = begin
    sums = {name: np.asarray(each) for name, each in given.items()}
    result = {}
    result["straight"] = [place in sent for place in where]
    result["messages"] = len(sent)
    result["in_place"] = where == [np.asarray(each).ctypes.data for each in given.values()]
    alike, other = np.arange(5), np.arange(5) + (rank == 1)
    result["agree"] = [group.agree([alike]), group.agree([alike, other])]
    copies = [anex.full((300, 1000), rank, "float32"), anex.full((2, 3), rank, "uint8"), np.array([bool(rank)])]
    group.broadcast(copies, root=1)
    result["copies"] = [float(np.asarray(each).min()) for each in copies]
    result["shared"] = group.share({"rank": rank, "text": "ü"})
    return result, sums


def optimizers(group):
    """Weights after steps, and which steps were taken; by name of the case."""
    import numpy as np

    from anex import optim

    def listed(params):
        return {name: np.asarray(each, np.float64).tolist() for name, each in params.items()}

    result = {}
    for dtype in ("float32", "float16"):
        params = weights(dtype)
        given, scale = gradients(group.rank, dtype=dtype), 8.0
        optimizer = optim.AdamW(params, lr=0.1, eps=EPSILON, clip_norm=0.5, group=group)
        taken = optimizer.step(
            {name: each * np.asarray(scale, dtype) for name, each in given.items()}, loss_scale=scale
        )
        master = {name: optimizer.state.get(f"master.{name}", each) for name, each in params.items()}
        result[f"clipped {dtype}"] = {"weights": listed(master), "taken": taken, "norm": optimizer.grad_norm}
    params, scale = weights(), optim.LossScale(4.0)
    optimizer, before = optim.SGD(params, lr=0.5, group=group), listed(params)
    given = gradients(group.rank)
    if group.rank == 1:
        given["bias"][3] = np.inf  # of one process alone
    taken = optimizer.step(given, loss_scale=scale.value)
    scale.update(taken)
    result["overflow"] = {"taken": taken, "scale": scale.value, "moved": listed(params) != before}
    for turn in range(group.rank):  # of the first process nothing, of the second once ...
        optimizer.accumulate(gradients(group.rank, turn))
    taken = optimizer.step()
    result["uneven"] = {"weights": listed(params), "taken": taken}
    return result


def work(folder, task):
    """One process: writes what it found, as JSON, by its rank."""
    import numpy as np

    import anex

    with anex.distributed.join(timeout=600) as group:
        if task == "check":
            result, sums = exchanges(group)
            np.savez(Path(folder, f"sums.{group.rank}.npz"), **sums)
            found = {"size": group.size, **result, "optimizers": optimizers(group)}
            try:
                group.all_reduce([np.zeros(3 + (group.rank == 1), np.float32)])
            except anex.WorkerError as error:
                found["different"] = str(error)
            Path(folder, f"found.{group.rank}").write_text(json.dumps(found))
            group.barrier()
        elif group.rank:  # one of two never comes
            group.barrier()
            if task == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600)
        else:
            group.barrier()
            group.timeout = 1 if task == "wait" else 600
            group.all_reduce([np.zeros(3, np.float32)])


def fork(n, folder):
    """Processes with the variables that torchrun sets."""
    import torch  # noqa: F401 - once for all

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(WORLD_SIZE=str(n), LOCAL_WORLD_SIZE=str(n), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    children = []
    for rank in range(n):
        if not (child := os.fork()):
            os.environ["RANK"] = str(rank)
            return work(folder, "check")
        children.append(child)
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    raise SystemExit(failed)


if __name__ == "__main__":
    if sys.argv[1] == "fork":
        fork(int(sys.argv[2]), sys.argv[3])
    else:
        work(sys.argv[2], sys.argv[1])

"""Several processes, on one machine or many, that train one model: each on its share of the data.

A launcher starts the same script many times: ``torchrun --nproc-per-node 2 train.py`` (exchange by torch.distributed
with gloo) or ``mpirun -n 2 python train.py`` (by mpi4py). ``join()`` finds out which, and in a script that was started
alone gives a group of one, so that one script serves for all:

    with anex.distributed.join() as group:
        group.broadcast(weights.values())                            # all begin with those of rank 0
        optimizer = anex.optim.AdamW(weights, group=group)           # sums gradients over the group, in place
        for x in batches[group.rank :: group.size]:                  # each reads its own share
            step(x=x, **weights, out=(loss, *gradients.values()))
            optimizer.step(gradients)                                # the same update, or none, on every rank
        if group.rank == 0:
            save(weights)

>>> with anex.distributed.join() as group:
...     gradient = anex.tensor([1.0, 2.0])
...     group.all_reduce([gradient])
>>> (group.rank, group.size, gradient.tolist())
(0, 1, [1.0, 2.0])

``pip install 'anex[distributed]'`` installs torch, mpi4py and an MPI.
"""

from .group import Alone, Group
from .launch import join

__all__ = ["Alone", "Group", "join"]

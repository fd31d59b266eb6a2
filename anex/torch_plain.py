"""Functions of torch that coremltools does not convert, or only with constant weights, made of others: losses, PReLU,
bilinear and recurrent layers. In force while ``from_torch`` traces."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

Functions: TypeAlias = "dict[str, Callable[..., Any]]"  # by the names that torch has them under


@contextlib.contextmanager
def plain_losses(torch: Any) -> Iterator[None]:
    """Within the block, losses and the like are made of products, sums and elementwise ops."""
    made: Functions = {
        "cross_entropy": cross_entropy, "nll_loss": nll_loss, "binary_cross_entropy": binary_cross_entropy,
        "binary_cross_entropy_with_logits": binary_cross_entropy_with_logits, "mse_loss": mse_loss, "l1_loss": l1_loss,
        "smooth_l1_loss": smooth_l1_loss, "huber_loss": huber_loss, "kl_div": kl_div, "logsigmoid": logsigmoid,
        "bilinear": bilinear, "instance_norm": instance_norm,
    }  # fmt: skip
    with _replaced((torch.nn.functional, made)):
        yield


@contextlib.contextmanager
def plain_layers(torch: Any) -> Iterator[None]:
    """Within the block, recurrent layers and PReLU are so too, whatever their weights are."""
    steps: dict[str, Step] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn("tanh"), "rnn_relu": _rnn("relu")}
    recurrent: Functions = {name: _layers(step) for name, step in steps.items()}
    recurrent |= {f"{name}_cell": _cell(step) for name, step in steps.items()}
    with _replaced((torch._VF, recurrent), (torch.nn.functional, {"prelu": prelu})):
        yield


@contextlib.contextmanager
def _replaced(*several: tuple[Any, Functions]) -> Iterator[None]:
    with contextlib.ExitStack() as restore:
        for place, made in several:
            for name, function in made.items():
                restore.callback(setattr, place, name, getattr(place, name))
                setattr(place, name, function)
        yield


# ---- losses --------------------------------------------------------------------------------------------------------
# By torch's names and in its order, without what it has deprecated.


def _reduced(each: Any, reduction: str, weight: Any = None) -> Any:
    if reduction == "none":
        return each
    whole = each.sum()
    return whole if reduction == "sum" else whole / (each.numel() if weight is None else weight.sum())


def cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """Of class indices or probabilities ``target``, over axis 1 (0 of a vector)."""
    axis = min(1, input.dim() - 1)
    logs = input.log_softmax(axis)
    if not target.is_floating_point():
        if not label_smoothing:
            return nll_loss(logs, target, weight, None, ignore_index, None, reduction)
        plain = nll_loss(logs, target, weight, None, ignore_index, None, reduction)
        weights = 1.0 if weight is None else _along(weight, logs, axis)
        every = -(logs * weights).sum(axis)
        kept = (target != ignore_index).to(logs.dtype)
        every = every * kept
        if reduction != "none":
            every = every.sum()
            if reduction == "mean":
                _, counts = _chosen(logs, target, weight, ignore_index, axis)
                every = every / counts.sum()
        return (1 - label_smoothing) * plain + label_smoothing / logs.shape[axis] * every
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / logs.shape[axis]
    each = logs * target if weight is None else logs * target * _along(weight, logs, axis)
    each = -each.sum(axis)
    if reduction == "none":
        return each
    return each.sum() if reduction == "sum" else each.sum() / max(1, each.numel())


def _along(weight: Any, like: Any, axis: int) -> Any:
    return weight.reshape([-1 if i == axis else 1 for i in range(like.dim())])


def _chosen(logs: Any, target: Any, weight: Any, ignored: int, axis: int) -> tuple[Any, Any]:
    """What stands in ``logs`` at ``target``, and how much each of that counts."""
    kept = target != ignored
    counts = kept.to(logs.dtype)
    found = (target * kept.to(target.dtype)).unsqueeze(axis)
    if weight is not None:
        counts = counts * weight[found.squeeze(axis)]
    return logs.gather(axis, found).squeeze(axis), counts


def nll_loss(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: str = "mean",
) -> Any:  # fmt: skip
    chosen, counts = _chosen(input, target, weight, ignore_index, min(1, input.dim() - 1))
    return _reduced(-(chosen * counts), reduction, counts)


def binary_cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Any:  # fmt: skip
    each = -(target * input.log().clamp(min=-100) + (1 - target) * (1 - input).log().clamp(min=-100))
    return _reduced(each if weight is None else each * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", pos_weight: Any = None,
) -> Any:  # fmt: skip
    import torch

    softplus = torch.log(1 + torch.exp(-input.abs())) + torch.relu(-input)  # log(1 + e^-x)
    factor = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    each = (1 - target) * input + factor * softplus
    return _reduced(each if weight is None else each * weight, reduction)


def mse_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    weight: Any = None,
) -> Any:  # fmt: skip
    each = (input - target) * (input - target)
    return _reduced(each if weight is None else each * weight, reduction, weight)


def l1_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    weight: Any = None,
) -> Any:  # fmt: skip
    each = (input - target).abs()
    return _reduced(each if weight is None else each * weight, reduction, weight)


def smooth_l1_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    beta: float = 1.0,
) -> Any:  # fmt: skip
    if not beta:
        return l1_loss(input, target, reduction=reduction)
    return huber_loss(input, target, reduction, beta) / beta


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Any:
    far = (input - target).abs()
    near = far.clamp(max=delta)
    each = near * (far - 0.5 * near)
    return _reduced(each if weight is None else each * weight, reduction, weight)


def kl_div(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    log_target: bool = False,
) -> Any:  # fmt: skip
    import torch

    if log_target:
        each = target.exp() * (target - input)
    else:  # 0 log 0 is 0
        each = target * (torch.where(target > 0, target, torch.ones_like(target)).log() - input)
    return each.sum() / input.shape[0] if reduction == "batchmean" else _reduced(each, reduction)


def logsigmoid(input: Any) -> Any:
    import torch

    return torch.minimum(input, torch.zeros_like(input)) - torch.log(1 + torch.exp(-input.abs()))


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """input1 [.., a], weight [out, a, b], input2 [.., b] to [.., out]"""
    lead, (out, a, b) = input1.shape[:-1], weight.shape
    half = (input1.reshape(-1, a) @ weight.permute(1, 0, 2).reshape(a, out * b)).reshape(-1, out, b)
    y = (half * input2.reshape(-1, 1, b)).sum(-1).reshape(*lead, out)
    return y if bias is None else y + bias


def instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """By running statistics it is a batch norm; coremltools would take those of the input."""
    import torch

    if use_input_stats:
        return torch.instance_norm(input, weight, bias, running_mean, running_var, True, momentum, eps, False)
    return torch.nn.functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)


def prelu(input: Any, weight: Any) -> Any:
    import torch

    shape = [1, -1] + [1] * (input.dim() - 2) if input.dim() >= 2 else [-1]
    return torch.relu(input) - weight.reshape(shape) * torch.relu(-input)


# ---- recurrent layers ----------------------------------------------------------------------------------------------

Step = Callable[[Any, Any, tuple[Any, ...]], tuple[Any, ...]]  # of x and of h times their weights, and the states


def _lstm(x: Any, h: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
    i, f, g, o = (x + h).chunk(4, -1)
    c = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(x: Any, h: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, -1), h.chunk(3, -1)
    z, n = (x_z + h_z).sigmoid(), (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
    return (n + z * (states[0] - n),)


def _rnn(activation: str) -> Step:
    return lambda x, h, states: (getattr(x + h, activation)(),)


def _cell(step: Step) -> Callable[..., Any]:
    def cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
        from torch.nn.functional import linear

        states = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
        found = step(linear(input, w_ih, b_ih), linear(states[0], w_hh, b_hh), states)
        return found if len(found) > 1 else found[0]

    return cell


def _layers(step: Step) -> Callable[..., Any]:
    """In the order of ``torch._VF``: layers, in one or both directions, of a whole sequence."""

    def layers(
        input: Any, hx: Any, weights: Sequence[Any], biases: bool, num_layers: int, dropout: float,
        train: bool, bidirectional: bool, batch_first: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        import torch

        x = input.transpose(0, 1) if batch_first else input
        starts = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
        ways, last = 1 + bidirectional, []
        each = len(weights) // (num_layers * ways)  # weights of one direction of a layer, biases among them
        if each not in (2, 4) or (each == 4) != biases:
            raise NotImplementedError("recurrent layers with a projection (proj_size) cannot be trained")
        for layer in range(num_layers):
            outputs = []
            for way in range(ways):
                at = layer * ways + way
                own = weights[at * each : (at + 1) * each]
                rows, states = _sequence(step, x, tuple(start[at] for start in starts), own, reverse=way == 1)
                outputs.append(rows)
                last.append(states)
            x = outputs[0] if ways == 1 else torch.cat(outputs, -1)
        ends = (torch.stack([states[i] for states in last]) for i in range(len(starts)))
        return (x.transpose(0, 1) if batch_first else x, *ends)

    return layers


def _sequence(
    step: Step, x: Any, states: tuple[Any, ...], weights: Sequence[Any], *, reverse: bool
) -> tuple[Any, tuple[Any, ...]]:
    """All steps of one direction: [steps, batch, hidden], and the states behind the last."""
    import torch
    from torch.nn.functional import linear

    w_ih, w_hh, b_ih, b_hh = (*weights, None, None)[:4]
    given, rows = linear(x, w_ih, b_ih), []
    order = range(x.shape[0])
    for i in reversed(order) if reverse else order:
        states = step(given[i], linear(states[0], w_hh, b_hh), states)
        rows.append(states[0])
    return torch.stack(rows[::-1] if reverse else rows), states

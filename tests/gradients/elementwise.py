"""Elementwise ops and activations."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from .cases import apart, case, normal, uniform

X = normal(3, 5)
INSIDE = uniform(-0.9, 0.9, 3, 5)
ABOVE = uniform(0.4, 2.0, 3, 5)
APART = apart(3, 5)

for _op in ("atan", "cos", "cosh", "erf", "exp", "exp2", "sin", "sinh", "tanh", "square"):
    case(_op, getattr(torch, _op), x=X)
for _op in ("acos", "asin", "atanh", "tan"):
    case(_op, getattr(torch, _op), x=INSIDE)
case("abs", torch.abs, x=APART)
case("sqrt", torch.sqrt, x=ABOVE)
case("clip", lambda x: torch.clamp(x, -1, 1.2), x=APART, given={"alpha": -1.0, "beta": 1.2})
case("threshold", lambda x: torch.clamp(x, min=0.1), x=APART, given={"alpha": 0.1})
case("inverse", lambda x: 1 / (x + 0.25), x=ABOVE, given={"epsilon": 0.25})
case("log", lambda x: torch.log(x + 0.25), x=ABOVE, given={"epsilon": 0.25})
case("log", torch.log, "plain", x=ABOVE)
case("rsqrt", lambda x: 1 / torch.sqrt(x + 0.25), x=ABOVE, given={"epsilon": 0.25})
case("cast", lambda x: x * 1, x=X, given={"dtype": "fp16"}, dtypes=("float32",), rtol=2e-3)

ROW, COLUMN = normal(5, seed=1), normal(3, 1, seed=2)
case("add", torch.add, x=X, y=ROW)
case("add", torch.add, "of rows and columns", x=COLUMN, y=ROW)
case("sub", torch.sub, x=X, y=COLUMN)
case("mul", torch.mul, x=X, y=normal(2, 3, 5, seed=3))
case("real_div", torch.div, x=X, y=uniform(0.5, 2, 5))
case("mod", torch.remainder, x=uniform(2.2, 2.8, 3, 5), y=uniform(0.95, 1.05, 5))
case("pow", torch.pow, x=ABOVE, y=ROW)
case("maximum", torch.maximum, x=X, y=ROW)
case("maximum", torch.maximum, "of equals", x=np.array([1.0, 2.0]), y=np.array([1.0, 0.5]))
case("minimum", torch.minimum, x=X, y=ROW)
CHOOSE = np.random.default_rng(5).random((3, 5)) < 0.5
case("select", lambda a, b: torch.where(torch.from_numpy(CHOOSE), a, b), a=X, b=ROW, given={"cond": CHOOSE})

for _op in ("relu", "relu6", "silu", "sigmoid", "softplus", "softsign"):
    case(_op, getattr(F, _op) if _op != "sigmoid" else torch.sigmoid, x=APART)
case("leaky_relu", lambda x: F.leaky_relu(x, 0.3), x=APART, given={"alpha": 0.3})
case("thresholded_relu", lambda x: F.threshold(x, 0.6, 0.0), x=APART, given={"alpha": 0.6})
case("elu", lambda x: F.elu(x, 0.7), x=APART, given={"alpha": 0.7})
CHANNELS = apart(2, 3, 4, 2)
ALPHA, BETA = np.array([0.1, 0.5, -0.2]), np.array([1.5, 0.5, 2.0])


def column(values):
    return torch.tensor(values)[:, None, None]


case("prelu", lambda x: F.prelu(x, torch.tensor(ALPHA)), x=CHANNELS, given={"alpha": ALPHA}, constants=("alpha",))
case(
    "clamped_relu",
    lambda x: torch.clamp(torch.where(x >= 0, x, 0.3 * x), max=1.1),
    x=APART,
    given={"alpha": 0.3, "beta": 1.1},
)
case("linear_activation", lambda x: 0.3 * x + 1.7, x=X, given={"alpha": 0.3, "beta": 1.7})
case("scaled_tanh", lambda x: 0.6 * torch.tanh(1.4 * x), x=X, given={"alpha": 0.6, "beta": 1.4})
case("sigmoid_hard", lambda x: torch.clamp(0.3 * x + 0.47, 0, 1), x=APART, given={"alpha": 0.3, "beta": 0.47})
case(
    "softplus_parametric",
    lambda x: column(ALPHA) * torch.log(1 + torch.exp(column(BETA) * x)),
    x=CHANNELS,
    given={"alpha": ALPHA, "beta": BETA},
    constants=("alpha", "beta"),
)
case("gelu", F.gelu, x=X * 2, given={"mode": "EXACT"})
case("gelu", lambda x: F.gelu(x, approximate="tanh"), "tanh", x=X * 2, given={"mode": "TANH_APPROXIMATION"})
case("gelu", lambda x: x * torch.sigmoid(1.702 * x), "sigmoid", x=X * 2, given={"mode": "SIGMOID_APPROXIMATION"})

"""Draw sources of the expression language, and compute them with plain torch: the oracle of its tests."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

NAMES: Mapping[str, tuple[int, ...]] = {
    "s": (),
    "u": (3,),
    "v": (2,),
    "o": (1,),
    "a": (2, 3),
    "b": (2, 3),
    "c": (3, 2),
    "r": (2, 1),
    "t": (2, 2, 3),
    "e": (0, 3),
    "z": (0,),
}
"""Tensors of numbers, by their shapes."""
MASKS: Mapping[str, tuple[int, ...]] = {"m": (2, 3), "n": (3,), "k": ()}
INDICES: Mapping[str, tuple[int, ...]] = {"i": (2, 3), "j": (3,), "l": (2, 1), "q": ()}
"""Whole numbers from 0 to 1."""
UNARY = [
    "abs",
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "square",
    "sin",
    "cos",
    "tan",
    "atan",
    "tanh",
    "sigmoid",
    "logsigmoid",
    "softplus",
    "relu",
    "sign",
    "floor",
    "round",
    "detach",
]
REDUCTIONS = ("sum", "mean", "prod", "max", "min", "norm")
ALONG = ("softmax", "log_softmax", "cumsum", "logsumexp")
OPERATORS = ("+", "-", "*", "/", "**", "@", "<", "<=", ">", ">=", "==", "!=", "&", "|")
CONSTANTS = ("0", "1", "2", "3", "-1", "0.5", "1.5", "-2.0", "1e-3")


def given(dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    """Return the tensors of all names: no two numbers are equal, and none is where a derivative jumps."""
    random = torch.Generator().manual_seed(seed)
    tensors = {
        name: 2 * torch.rand(shape, dtype=dtype, generator=random) - 0.7 for name, shape in NAMES.items()
    }
    tensors |= {name: torch.rand(shape, generator=random) > 0.5 for name, shape in MASKS.items()}
    indices = {name: torch.randint(0, 2, shape, generator=random) for name, shape in INDICES.items()}
    return {**tensors, **{name: tensor.to(dtype) for name, tensor in indices.items()}}


INDEXINGS = (
    "0",
    "-1",
    "1:",
    ":, 0",
    "..., None",
    "None, ..., 1",
    "::2",
    "1, 2",
    "2",
    "..., :-1",
    ":, None, 1:1",
    "-4:9",
)
SIZES = ("-1", "3, -1", "2, 3", "6", "1", "-1, 0", "0")
FORMS = (
    *3 * ["({x} {operator} {y})", "({y} {operator} {x})"],
    *2 * ["{unary}({x})", "{reduction}({x})", "{reduction}({x}, dim={dim}{kept})", "{along}({x}, {dim})"],
    "-({x})",
    "~({x})",
    "norm({x}, {order})",
    "{pair}({x}, {y})",
    "where({x}, {y}, {y})",
    "where({x} > 0, {y}, {y})",
    "clamp({x}, {y}, {y})",
    "clamp({x}, {bound}={y})",
    "concat({x}, {x}, dim={dim})",
    "transpose({x}, {dim}, {dim})",
    "reshape({x}, {sizes})",
    "one_hot({index}, {classes})",
    "gather({x}, {index}, {dim})",
    "{x}[{key}]",
)
"""Sources with places for smaller ones, ``x`` a tensor and ``y`` maybe a constant, and for words."""
WORDS: Mapping[str, Sequence[object]] = {
    "operator": OPERATORS,
    "unary": UNARY,
    "reduction": REDUCTIONS,
    "along": ALONG,
    "pair": ("minimum", "maximum", "atan2", "dot"),
    "kept": ("", ", keepdim=True", ", keepdim=False"),
    "dim": range(-3, 3),
    "order": (1, 3, 0, -1, 2.5),
    "bound": ("min", "max"),
    "sizes": SIZES,
    "index": tuple(INDICES),
    "classes": (2, 4),
    "key": INDEXINGS,
}


@st.composite
def sources(draw: st.DrawFn) -> str:
    """Draw a source that reads names; many do not fit together."""
    return _drawn(draw(st.randoms(use_true_random=False)), depth=draw(st.integers(1, 4)))


def _drawn(random: Random, depth: int) -> str:
    """Return a source of at most so many levels."""
    if depth == 0 or random.random() < 0.15:
        return random.choice([*NAMES, *NAMES, *MASKS])
    found = random.choice(FORMS)
    for word, choices in WORDS.items():
        while f"{{{word}}}" in found:
            found = found.replace(f"{{{word}}}", str(random.choice(choices)), 1)
    while "{x}" in found:
        found = found.replace("{x}", _drawn(random, depth - 1), 1)
    while "{y}" in found:
        constant = random.random() < 0.4
        found = found.replace("{y}", random.choice(CONSTANTS) if constant else _drawn(random, depth - 1), 1)
    return found


def in_torch(source: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """Compute a source with plain torch."""
    return eval(source, {"__builtins__": {}, **FUNCTIONS}, dict(tensors))


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.get_default_dtype())


def _on_tensors(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make constants tensors, as torch's functions need them."""
    return lambda *args, **kwargs: function(*map(_tensor, args), **kwargs)


def _extreme(name: str) -> Callable[..., Tensor]:
    function = getattr(torch, name)
    return lambda x, *args, **kwargs: function(x, *args, **kwargs)[0] if args or kwargs else function(x)


def _clamp(x: Tensor, least: Any = None, most: Any = None, **bounds: Any) -> Tensor:
    both = [bounds.get("min", least), bounds.get("max", most)]
    if any(isinstance(bound, Tensor) for bound in both):
        both = [bound if bound is None else _tensor(bound) for bound in both]
    return torch.clamp(x, *both)


FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    **{name: getattr(torch, name) for name in (*UNARY, *REDUCTIONS, *ALONG) if hasattr(torch, name)},
    **{name: _on_tensors(getattr(torch, name)) for name in ("minimum", "maximum", "atan2", "dot", "where")},
    "logsigmoid": functional.logsigmoid,
    "softplus": functional.softplus,
    "max": _extreme("max"),
    "min": _extreme("min"),
    "clamp": _clamp,
    "concat": lambda *tensors, dim=0: torch.cat(tensors, dim),
    "transpose": torch.transpose,
    "reshape": lambda x, *sizes: torch.reshape(x, sizes),
    "one_hot": lambda x, classes: functional.one_hot(x.long(), classes).to(torch.get_default_dtype()),
    "gather": lambda x, index, dim: torch.gather(x, dim, index.long()),
}

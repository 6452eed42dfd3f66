"""Sets of predictions against sets of true objects: labels and counts, the match of least cost, the cost of classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from service.catalogue.dims import Shape
from service.catalogue.domains import Domain, Facts, Integers, Kind
from service.catalogue.spec import Form
from service.losses.assignment import assigned
from service.losses.classification.focal import sigmoid_focal
from service.losses.objects import image_of
from service.losses.surprise import surprise

Classification = Literal["softmax", "sigmoid_focal"]


@dataclass(frozen=True, slots=True)
class ObjectLabels(Domain):
    """Integers that index the columns of the logits, of which a softmax has one more for no object.

    ``focal``: the param ``classification`` may be a sigmoid focal loss instead.
    """

    focal: bool = False
    kind: ClassVar[Kind] = "int"

    def describe(self) -> str:
        return "integers from 0 to K - 2" + "; to K - 1 with classification sigmoid_focal" * self.focal

    def admits(self, values: Tensor, facts: Facts) -> Tensor:
        return (values >= 0) & (values <= self._last(facts))

    def range(self, facts: Facts) -> tuple[float, float]:
        return 0, self._last(facts)

    def draw(self, shape: Shape, facts: Facts, rng: Generator) -> Tensor:
        return torch.randint(max(1, self._last(facts) + 1), shape, generator=rng)

    def _last(self, facts: Facts) -> int:
        """Return the last class."""
        softmax = not self.focal or facts.params["classification"] == "softmax"
        return facts.size("K") - (2 if softmax else 1)


LAYERS = (Form("L"), Form(""))
"""One number, or one for each layer of a decoder."""
MATCHING = (Form("L B M", Integers()), Form("B M", Integers()))
"""The query of each object of each image, in each layer if there are several."""


class Scenes(NamedTuple):
    """The images of every layer, S = L B of them, and their objects, O = L M of them.

    ``logits [S, Q, K]``, ``labels [O]``, ``scene [O]`` and ``rank [O]``: the image of each object, and its place in it.
    ``shape`` is that of the images, ``[B]`` or ``[L, B]``; ``counts [S]`` are the objects of each.
    """

    logits: Tensor
    labels: Tensor
    scene: Tensor
    rank: Tensor
    counts: Tensor
    shape: Shape

    @property
    def layers(self) -> Shape:
        """The shape of the layers, ``[]`` or ``[L]``."""
        return self.shape[:-1]

    def each(self, tensor: Tensor) -> Tensor:
        """Repeat what there is for each object for each layer."""
        return tensor.repeat(len(self.logits) // self.shape[-1], *[1] * (tensor.dim() - 1))

    def summed(self, tensor: Tensor) -> Tensor:
        """Add up the numbers of each layer, of images or objects that lie layer by layer."""
        layers = len(self.logits) // self.shape[-1]
        return tensor.reshape(layers, -1).sum(1).reshape(self.layers)


def read_scenes(logits: Tensor, labels: Tensor, counts: Tensor) -> Scenes:
    """Lay the images of all layers of ``logits [L, B, Q, K]``, or ``[B, Q, K]``, one after another."""
    *shape, queries, columns = logits.shape
    layers = shape[0] if len(shape) > 1 else 1
    objects, ends = torch.arange(len(labels), device=labels.device), counts.cumsum(0)
    image = image_of(counts, len(labels))
    first = torch.arange(layers, device=labels.device)[:, None] * shape[-1]
    return Scenes(
        logits.reshape(-1, queries, columns),
        labels.repeat(layers),
        (first + image).reshape(-1),
        (objects - (ends - counts)[image]).repeat(layers),
        counts.repeat(layers),
        tuple(shape),
    )


class Matches(NamedTuple):
    """The query of each object, ``place [O]`` among those of all images; ``found`` says whether there is one."""

    place: Tensor
    found: Tensor
    matching: Tensor

    def of(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the prediction of each object from those of all images ``[S, Q, ...]``; its target if there is none."""
        matched = predictions.flatten(0, 1)[self.place]
        return torch.where(self.found.reshape(-1, *[1] * (targets.dim() - 1)), matched, targets)


def match_objects(scenes: Scenes, costs: Mapping[str, Tensor], objects: int) -> Matches:
    """Match the objects of each image with its queries by costs ``[O, Q]``; of ``objects`` there are as many a layer.

    Raises:
        Invalid: a cost is not finite.
    """
    queries = assigned(costs, scenes.counts, objects)
    found = queries >= 0
    place = scenes.scene * scenes.logits.shape[1] + queries.clamp(min=0)
    nothing = torch.full((len(scenes.logits) * objects,), -1, device=queries.device)
    matching = nothing.scatter(0, scenes.scene * objects + scenes.rank, queries)
    return Matches(place, found, matching.reshape(*scenes.shape, objects))


@dataclass(frozen=True, slots=True)
class Classifier:
    """How classes are told apart: ``focal`` by a sigmoid a class, with ``alpha`` and ``gamma``, else by a softmax.

    Of a softmax the last class is no object, with the weight ``no_object``.
    """

    focal: bool
    no_object: float
    alpha: float | None
    gamma: float

    def costs(self, scenes: Scenes) -> Tensor:
        """Return the cost ``[O, Q]`` of the class of each object to each query of its image, in float64."""
        logits = scenes.logits.double()
        if not self.focal:
            return -logits.softmax(-1)[scenes.scene, :, scenes.labels]
        own = logits[scenes.scene, :, scenes.labels]
        yes, no = (focal_losses(own, targets, self.alpha, self.gamma) for targets in _ends(own))
        return yes - no

    def loss(self, scenes: Scenes, matches: Matches, total: float) -> Tensor:
        """Return the loss ``[]`` or ``[L]`` of all queries; the focal one is divided by ``total``."""
        return self._focal(scenes, matches, total) if self.focal else self._softmax(scenes, matches)

    def _softmax(self, scenes: Scenes, matches: Matches) -> Tensor:
        """Return the weighted mean of cross entropies; 0 if all weights are."""
        logits = scenes.logits
        nothing = torch.full((*logits.shape[:2],), logits.shape[-1] - 1, device=logits.device)
        targets = _with_each(nothing, matches.place, matches.found, scenes.labels)
        absent = (targets == logits.shape[-1] - 1).to(logits)
        weights = self.no_object * absent + (1 - absent)
        total = scenes.summed(weights)
        cost = scenes.summed(weights * surprise(logits, targets, -1))
        return cost / torch.where(total == 0, 1.0, total)

    def _focal(self, scenes: Scenes, matches: Matches, total: float) -> Tensor:
        """Return the sum of focal losses over a number."""
        logits = scenes.logits
        place = matches.place * logits.shape[-1] + scenes.labels
        targets = _with_each(
            torch.zeros_like(logits), place, matches.found, torch.ones_like(place).to(logits)
        )
        return scenes.summed(focal_losses(logits, targets, self.alpha, self.gamma)) / total


def focal_losses(logits: Tensor, targets: Tensor, alpha: float | None, gamma: float) -> Tensor:
    """Return the focal loss of each logit."""
    return sigmoid_focal(logits, targets, alpha=alpha, gamma=gamma).loss


def _ends(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return targets that are all positive, and all negative."""
    return torch.ones_like(like), torch.zeros_like(like)


def _with_each(tensor: Tensor, place: Tensor, found: Tensor, values: Tensor) -> Tensor:
    """Return a tensor with values at places of its elements, where they are found."""
    spare = tensor.numel()
    longer = torch.cat([tensor.reshape(-1), tensor.new_zeros(1)])
    return longer.scatter(0, torch.where(found, place, spare), values)[:-1].reshape(tensor.shape)

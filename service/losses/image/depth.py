"""Losses on depth maps: up to a common scale, and smooth where the image is."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.domains import Above, AtLeast
from service.catalogue.spec import Prediction, Scales, Target, Unreduced
from service.losses.image.pixels import Pixels, differences
from service.losses.image.sizes import DIFFERENCED


@loss(
    title="Scale-invariant log error",
    tasks=("image",),
    aliases=("scale_invariant_log",),
    keywords=(
        "depth estimation",
        "monocular depth",
    ),
    work="predictions",
    range=(0, None),
    scales=Scales(0, params={"eps": 1e-12}),
)
def silog(
    predictions: Annotated[Tensor, Prediction("N ...", Above(0))],
    targets: Annotated[Tensor, Target("N ...", AtLeast(0))],
    *,
    variance_focus: Annotated[float, Ge(0), Le(1)] = 0.5,
    eps: Annotated[float, Gt(0)] = 1e-6,
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Error of log depth that forgives, wholly or in part, a wrong scale of the whole depth map.

    Formula:
        \sqrt{\max\left( \overline{g^2} - \lambda\, \bar g^2, \varepsilon^2 \right)},
        \quad g = \log y - \log \max(\hat y, \varepsilon)

    Args:
        predictions: Estimated depths, above 0.
        targets: True depths; pixels of at most `eps`, 0 usually, are invalid and do not count.
        variance_focus: Share lambda of the common scale error that is forgiven: 0 none, 1 all of it.
        eps: Least depth, in the unit of the depths, and least value of the loss, a pure number, where a map has
            valid pixels.

    Use when:
        Metric depth is estimated from single images, whose scale is ambiguous.

    Pitfalls:
        At `variance_focus` 1 the predictions' scale drifts freely. Published variants differ: some take no
        root, some 0.85 and a factor of 10. A map without a valid pixel costs 0 and still counts in the mean.

    Sources:
        - Eigen et al. (2014), Depth Map Prediction from a Single Image using a Multi-Scale Deep Network,
          https://arxiv.org/abs/1406.2283
        - Lee et al. (2019), From Big to Small: Multi-Scale Local Planar Guidance for Monocular Depth
          Estimation, https://arxiv.org/abs/1907.10326
    """
    # one axis of pixels, also where each sample is a single one
    true, estimated = targets.unsqueeze(-1).flatten(1), predictions.unsqueeze(-1).flatten(1)
    valid = true > eps
    error = torch.where(valid, true, 1.0).log() - torch.where(valid, estimated, 1.0).clamp(min=eps).log()
    count = valid.sum(1).clamp(min=1)
    mean = error.sum(1) / count
    spread = torch.where(valid, error - mean[:, None], 0.0).square().sum(1) / count
    # the variance first: the mean square less the squared mean would lose its digits near 1
    focused = spread + (1 - variance_focus) * mean.square()
    return torch.where(valid.any(1), focused.clamp(min=eps**2).sqrt(), 0.0)


@loss(
    title="Inverse depth smoothness",
    tasks=("image",),
    aliases=("edge_aware_smoothness",),
    keywords=(
        "depth estimation",
        "monocular depth",
        "disparity",
    ),
    requires=DIFFERENCED,
    work="images",
    range=(0, None),
    scales=Scales(1, inputs=("predictions",)),
)
def inverse_depth_smoothness(
    predictions: Annotated[Tensor, Prediction("N 1 H W", Pixels())],
    images: Annotated[Tensor, Target("N C H W", Pixels())],
) -> Annotated[Tensor, Unreduced("N")]:
    r"""Differences of inverse depth between neighbouring pixels, forgiven where the image has an edge.

    Formula:
        \operatorname{mean} |\partial_x \hat y|\, e^{-\operatorname{mean}_c |\partial_x I|}
        + \operatorname{mean} |\partial_y \hat y|\, e^{-\operatorname{mean}_c |\partial_y I|}

    Args:
        predictions: Estimated inverse depths or disparities, one channel.
        images: The images whose edges excuse a jump in depth.

    Use when:
        Monocular or stereo depth is learned from views alone, and flat regions need a prior.

    Pitfalls:
        Smallest for a constant map: divide the predictions by their mean first, or they shrink towards 0.
        Images from 0 to 255 switch the loss off at nearly every pixel: scale them to 0 to 1.

    Sources:
        - Godard et al. (2017), Unsupervised Monocular Depth Estimation with Left-Right Consistency,
          https://arxiv.org/abs/1609.03677
    """
    pairs = zip(differences(predictions), differences(images), strict=True)
    along_x, along_y = (p.abs() * (-i.abs().mean(1, keepdim=True)).exp() for p, i in pairs)
    return along_x.mean(dim=(1, 2, 3)) + along_y.mean(dim=(1, 2, 3))

"""Classification: accuracy and its kin, over binary, multiclass and multilabel predictions."""

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from service.catalogue.domains import Classes, ClassIndex
from service.catalogue.metric import metric
from service.catalogue.spec import Condition, Form, Prediction, Target, given
from service.catalogue.table import Columns
from service.metrics.finishes import column, each_of, mean_of, wilson_of

Task = Literal["binary", "multiclass", "multilabel"]
MULTICLASS, MULTILABEL = given(task=(None, "multiclass")), given(task=(None, "multilabel"))
Predictions = Annotated[
    Tensor,
    Prediction(
        (
            Form("N C", when=MULTICLASS),
            Form("N L", when=MULTILABEL),
            Form("N", when=given(task="binary")),
            Form("N", Classes(ignore="ignore_index"), given(task="multiclass")),
            Form("N", when=given(task=None)),
        )
    ),
]
Targets = Annotated[
    Tensor,
    Target(
        (
            Form("N", ClassIndex("C", ignore="ignore_index"), MULTICLASS),
            Form("N L", Classes(2, ignore="ignore_index"), MULTILABEL),
            Form("N", Classes(2, ignore="ignore_index"), given(task="binary")),
            Form("N", Classes(ignore="ignore_index"), given(task="multiclass")),
            Form("N", when=given(task=None)),
        )
    ),
]
NumClasses = Annotated[int, Ge(1), Le(1 << 16)]
CHOSEN = Condition(
    "/params/task",
    '"binary" or "multiclass" where predictions have one dimension',
    lambda facts: "null",
    lambda facts: facts.params["task"] is not None or facts.inputs["predictions"].dim() > 1,
)
"""One dimension may hold scores of the positive class, or classes: the numbers of a batch must not decide."""


@metric(
    title="Accuracy",
    tasks=("classification",),
    finish=mean_of("right", "no sample counts"),
    each=each_of("right"),
    interval=wilson_of("right"),
    requires=(CHOSEN,),
)
def accuracy(
    predictions: Predictions,
    targets: Targets,
    *,
    task: Task | None = None,
    num_classes: NumClasses | None = None,
    threshold: float = 0.5,
    from_logits: bool = False,
    ignore_index: int | None = None,
    top_k: Annotated[int, Ge(1)] = 1,
) -> Columns:
    r"""The share of samples whose class is right.

    Formula:
        \frac{1}{N} \sum_n [\hat y_n = y_n]

    Args:
        predictions: Scores ``[N, C]``, classes ``[N]`` or binary scores ``[N]``, multilabel scores ``[N, L]``.
        targets: Classes ``[N]``, or 0 and 1.
        task: What predictions of one dimension are.
        num_classes: The number of classes, if predictions are classes.
        threshold: Binary and multilabel scores above it are positive.
        from_logits: Whether binary and multilabel scores are logits, to which the sigmoid is applied.
        ignore_index: Samples with this target do not count.
        top_k: A sample is right if its class is among this many with the highest scores.

    Use when:
        Classes are about equally frequent and errors cost the same.

    Pitfalls:
        With rare classes, always predicting the frequent one looks good: see balanced_accuracy.

    Sources:
        - scikit-learn, accuracy_score
    """
    right = predictions.argmax(1) == targets if predictions.dim() == 2 else predictions == targets
    return {"right": column(right.to(torch.bool))}

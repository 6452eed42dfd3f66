"""Negative log-probabilities: all digits where a model is sure, limits at infinity, no influence of excluded elements."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from service.engine.bind import bind
from service.engine.call import Call, Evaluation, Request, Sent
from service.engine.evaluate import evaluate
from service.engine.fuse import evaluate_alike
from service.losses import CATALOGUE

INF = math.inf
Values = Mapping[str, Any]

LIMITS: list[tuple[str, Values, Values, Any, Values]] = [
    (
        "binary_cross_entropy_with_logits",
        {"logits": [-INF, INF, 1.0], "targets": [0.0, 1.0, 0.0]},
        {},
        [0, 0, 1.3132617],
        {"logits": [0, 0, 0.7310586]},
    ),
    (
        "binary_cross_entropy_with_logits",
        {"logits": [-INF, INF], "targets": [1.0, 0.0]},
        {"pos_weight": 3.0},
        [INF, INF],
        {"logits": [-3, 1]},
    ),
    ("sigmoid_focal", {"logits": [-INF, INF], "targets": [0.0, 1.0]}, {}, [0, 0], {"logits": [0, 0]}),
    ("asymmetric", {"logits": [-INF, INF], "targets": [0.0, 1.0]}, {}, [0, 0], {"logits": [0, 0]}),
    (
        "multilabel_soft_margin",
        {"logits": [[-INF, 1.0]], "targets": [[0.0, 0.0]]},
        {},
        [0.65663084],
        {"logits": [[0, 0.3655293]]},
    ),
    (
        "vae_elbo",
        {
            "predictions": [[-INF, INF]],
            "targets": [[0.0, 1.0]],
            "means": [[1.0]],
            "log_variances": [[0.0]],
        },
        {},
        [0.5],
        {"predictions": [[0, 0]], "means": [[1]], "log_variances": [[0]]},
    ),
    (
        "dpo",
        {
            "chosen_log_probabilities": [-1.0],
            "rejected_log_probabilities": [-INF],
            "reference_chosen_log_probabilities": [-2.0],
            "reference_rejected_log_probabilities": [-2.0],
        },
        {},
        [0],
        {"chosen_log_probabilities": [0], "rejected_log_probabilities": [0]},
    ),
    (
        "ranknet_pairwise",
        {"scores_a": [INF, -INF], "scores_b": [0.0, 0.0], "targets": [1.0, 0.0]},
        {},
        [0, 0],
        {"scores_a": [0, 0], "scores_b": [0, 0]},
    ),
    (
        "adjacency_reconstruction",
        {"embeddings": [[1e20], [-1e20]], "targets": [[1.0, 0.0], [0.0, 1.0]]},
        {},
        [[0, 0], [0, 0]],
        {"embeddings": [[0], [0]]},
    ),
    (
        "ranking_softmax",
        {"scores": [[0.0, -INF, 0.0]], "targets": [[1.0, 0.0, 0.0]]},
        {},
        [math.log(2)],
        {"scores": [[-0.5, 0, 0.5]]},
    ),
    (
        "listnet",
        {"scores": [[INF, 0.0]], "targets": [[1e4, 0.0]]},
        {},
        [0],
        {"scores": [[0, 0]]},
    ),
    (
        "listmle",
        {"scores": [[INF, 0.0, 0.0, -INF]], "targets": [[3.0, 2.0, 1.0, 0.0]]},
        {},
        [math.log(2)],
        {"scores": [[0, -0.5, 0.5, 0]]},
    ),
    ("listmle", {"scores": [[-INF, 0.0]], "targets": [[1.0, 0.0]]}, {}, [INF], {}),
    (
        "approx_ndcg",
        {"scores": [[INF, -INF]], "targets": [[1.0, 0.0]]},
        {},
        [0],
        {"scores": [[0, 0]]},
    ),
    (
        "neural_ndcg",
        {"scores": [[-INF, INF]], "targets": [[0.0, 1.0]]},
        {},
        [0],
        {"scores": [[0, 0]]},
    ),
    (
        "cross_entropy",
        {"logits": [[INF, 0.0], [-INF, 0.0]], "targets": [0, 1]},
        {},
        [0, 0],
        {"logits": [[0, 0], [0, 0]]},
    ),
    (
        "cross_entropy",
        {"logits": [[0.0, -INF]], "targets": [[1.0, 0.0]]},
        {},
        [0],
        {"logits": [[0, 0]]},
    ),
    ("sparsemax", {"logits": [[INF, 0.0]], "targets": [0]}, {}, [0], {"logits": [[0, 0]]}),
    ("entmax15", {"logits": [[INF, 0.0]], "targets": [0]}, {}, [0], {"logits": [[0, 0]]}),
    ("multiclass_perceptron", {"logits": [[INF, 0.0]], "targets": [0]}, {}, [0], {"logits": [[0, 0]]}),
    ("multi_margin", {"logits": [[INF, 0.0]], "targets": [0]}, {"p": 2}, [0], {"logits": [[0, 0]]}),
    (
        "policy_gradient",
        {"log_probabilities": [-INF, -1.0], "advantages": [0.0, 1.0]},
        {},
        [0, 1],
        {"log_probabilities": [0, -1]},
    ),
    (
        "self_adversarial",
        {"real_scores": [INF], "fake_scores": [[-INF, -INF]]},
        {"adversarial_temperature": 0.0},
        [0],
        {"real_scores": [0], "fake_scores": [[0, 0]]},
    ),
]


@pytest.mark.parametrize(("name", "inputs", "params", "value", "gradients"), LIMITS)
def test_an_infinite_score_has_the_limit_of_the_loss(
    name: str, inputs: Values, params: Values, value: Any, gradients: Values
) -> None:
    call = _call(name, inputs, params)
    for evaluation in (evaluate(call), *_together(call)):
        _compare(evaluation, value, gradients)


# e^-20, e^-20 / 2 ...: 1 - p and log p of a p that float32 rounds to 1
SMALL = 2.0611536e-9
SURE: list[tuple[str, Values, Any, Values]] = [
    (
        "binary_cross_entropy_with_logits",
        {"logits": [20.0, -20.0], "targets": [1.0, 0.0]},
        [SMALL, SMALL],
        {"logits": [-SMALL, SMALL]},
    ),
    (
        "cross_entropy",
        {"logits": [[20.0, 0.0, 0.0]], "targets": [0]},
        [2 * SMALL],
        {"logits": [[-2 * SMALL, SMALL, SMALL]]},
    ),
    (
        "cross_entropy",
        {"logits": [[20.0, 0.0, 0.0]], "targets": [[1.0, 0.0, 0.0]]},
        [2 * SMALL],
        {"logits": [[-2 * SMALL, SMALL, SMALL]]},
    ),
    (
        "token_cross_entropy",
        {"logits": [[20.0, 0.0]], "targets": [0]},
        [SMALL],
        {"logits": [[-SMALL, SMALL]]},
    ),
    (
        "generalized_cross_entropy",
        {"logits": [[0.0, 100.0]], "targets": [0]},
        [1 / 0.7],
        {"logits": [[-math.exp(-70), math.exp(-70)]]},
    ),
    (
        "n_pairs",
        {"anchor": [[20.0, 0.0], [0.0, 20.0]], "positive": [[1.0, 0.0], [0.0, 1.0]]},
        [SMALL, SMALL],
        {"positive": [[-20 * SMALL, 20 * SMALL], [20 * SMALL, -20 * SMALL]]},
    ),
]


@pytest.mark.parametrize(("name", "inputs", "value", "gradients"), SURE)
def test_a_sure_model_costs_little_but_not_nothing(
    name: str, inputs: Values, value: Any, gradients: Values
) -> None:
    call = _call(name, inputs, {})
    for evaluation in (evaluate(call), *_together(call)):
        _compare(evaluation, value, gradients, atol=0.0)


@pytest.mark.parametrize("fill", [-INF, INF, math.nan])
@pytest.mark.parametrize("name", ["cross_entropy", "softmax_focal", "token_cross_entropy"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_ignored_row_has_no_share_in_anything(name: str, fill: float, smoothing: float) -> None:
    params = {"label_smoothing": smoothing} if "label_smoothing" in CATALOGUE[name].params else {}
    alone = evaluate(_call(name, {"logits": [[1.0, 2.0]], "targets": [1]}, params))
    call = _call(name, {"logits": [[fill, fill], [1.0, 2.0]], "targets": [-100, 1]}, params)
    for evaluation in (evaluate(call), *_together(call)):
        _compare(
            evaluation,
            [0, *alone.value.tolist()],
            {"logits": [[0, 0], *alone.gradients["logits"].tolist()]},
        )


def test_a_crf_over_thousands_of_steps_keeps_its_digits() -> None:
    steps, classes = 2000, 10
    targets = torch.randint(classes, (1, steps), generator=torch.Generator().manual_seed(0))
    emissions = torch.zeros(1, steps, classes).scatter(2, targets[..., None], 12.0) + 300
    nothing = torch.zeros(classes)
    inputs = {"emissions": emissions, "transitions": torch.zeros(classes, classes), "targets": targets}
    ends = {"start_transitions": nothing, "end_transitions": nothing}
    call = _call("crf_nll", {**inputs, **ends}, {})
    # without transitions each step is a softmax by itself
    expected = steps * math.log1p((classes - 1) * math.exp(-12))
    assert evaluate(call).value.item() == pytest.approx(expected, rel=1e-6)


def test_what_has_no_alignment_costs_infinity_and_has_no_gradient() -> None:
    frames = torch.zeros(2, 2, 3).log_softmax(-1)
    lengths = {"input_lengths": [2, 2], "target_lengths": [2, 1]}
    # two equal labels need a blank between them
    call = _call("ctc", {"log_probabilities": frames, "targets": [[1, 1], [1, 0]], **lengths}, {})
    evaluation = evaluate(call)
    assert evaluation.value[0] == INF
    slopes = evaluation.gradients["log_probabilities"]
    assert (slopes[:, 0] == 0).all()
    assert slopes[:, 1].isfinite().all()
    assert (slopes[:, 1] != 0).any()


def test_a_divergence_of_soft_distributions_is_half_the_variance_of_the_lead() -> None:
    logits, targets = [[1.0, 2.0, 3.0]], [[2.0, 2.0, 2.0]]
    call = _call("distillation", {"logits": logits, "targets": targets}, {"temperature": 1e4})
    assert evaluate(call).value.item() == pytest.approx(1 / 3, rel=1e-4)


def test_a_margin_of_large_logits_is_measured_by_their_differences() -> None:
    call = _call("multilabel_margin", {"logits": [[10000.0, 9998.5, 9999.5]], "targets": [[0, -1, -1]]}, {})
    _compare(evaluate(call), [0.5 / 3], {"logits": [[-1 / 3, 0, 1 / 3]]})


def _call(name: str, inputs: Values, params: Values) -> Call:
    """Bind a float32 call whose unreduced loss is asked for."""
    loss = CATALOGUE[name]
    sent = {
        n: Sent(value if isinstance(value, torch.Tensor) else torch.tensor(value))
        for n, value in inputs.items()
    }
    return bind(
        Request(
            loss=loss,
            inputs=sent,
            params={**loss.defaults, **params},
            reduction="none",
            dtype=torch.float32,
        )
    )


def _together(call: Call) -> list[Evaluation]:
    """Evaluate two such calls as one."""
    found = evaluate_alike([call, call])
    return [each for each in found if isinstance(each, Evaluation)]


def _compare(evaluation: Evaluation, value: Any, gradients: Values, atol: float = 1e-6) -> None:
    """Compare with known values, relative to them."""
    torch.testing.assert_close(evaluation.value, torch.tensor(value).float(), rtol=1e-5, atol=atol)
    for name, expected in gradients.items():
        torch.testing.assert_close(
            evaluation.gradients[name], torch.tensor(expected).float(), rtol=1e-5, atol=atol
        )


@pytest.mark.parametrize("lead", [-90.0, -3.0, 0.0, 1.9, 2.1, 9.0, 80.0])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_a_cross_entropy_has_its_digits_on_both_sides_of_the_change_of_arithmetic(
    lead: float, shift: float
) -> None:
    # a loss of log(1 + e^-lead), 1/8 at 2.02
    call = _call("cross_entropy", {"logits": [[shift + lead, shift]], "targets": [0]}, {})
    other = torch.tensor(-lead, dtype=torch.float64)
    share = torch.sigmoid(other)
    for evaluation in (evaluate(call), *_together(call)):
        found = evaluation.value, evaluation.gradients["logits"]
        expected = (
            torch.nn.functional.softplus(other, threshold=100)[None],
            torch.stack([-share, share])[None],
        )
        for part, known in zip(found, expected, strict=True):
            torch.testing.assert_close(part, known.float(), rtol=1e-4 if shift else 1e-6, atol=1e-45)

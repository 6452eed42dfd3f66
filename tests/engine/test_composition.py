"""Plans of compositions: kept within a bound, shared by compositions of one kind."""

import gc
import tracemalloc

import pytest
import torch

from service.engine.call import Sent
from service.engine.composition import (
    MOST_BYTES,
    Composition,
    CompositionPlan,
    ExpressionTerm,
    LossTerm,
    Planner,
    Term,
    forms,
    plan_size,
)
from service.engine.expression import Expressions
from service.losses import CATALOGUE
from service.problems import Invalid

INPUTS = {name: Sent(torch.zeros(2, 3)) for name in ("z", "t")}


def planner() -> Planner:
    return Planner(Expressions(4096), 1 << 27)


def composition(place: int, terms: int = 4, length: int = 100) -> Composition:
    """Return one of many different compositions."""
    mse = CATALOGUE["mse"]
    found: dict[str, Term] = {
        f"loss_{term}": LossTerm(
            mse, (("predictions", f"z * {place} + {term}"), ("targets", "t")), tuple(mse.defaults.items())
        )
        for term in range(terms)
    }
    found["penalty"] = ExpressionTerm(" + ".join([f"mean(z * {place})"] * (length // 16)))
    return Composition(tuple(found.items()))


def plan(made: Planner, asked: Composition) -> CompositionPlan:
    return made.plan(asked, forms(INPUTS))


def size(one: CompositionPlan) -> int:
    return plan_size(one.composition, forms(INPUTS))


def test_compositions_of_one_kind_share_a_plan() -> None:
    made = planner()
    first = plan(made, composition(1))
    assert plan(made, composition(1)) is first
    assert plan(made, composition(2)) is not first
    assert made.plan(composition(1), forms({name: Sent(torch.zeros(3)) for name in INPUTS})) is not first


def test_a_refused_composition_is_refused_again() -> None:
    made, wrong = planner(), Composition((("a", ExpressionTerm("sum(y)")),))
    for _ in range(2):
        with pytest.raises(Invalid):
            plan(made, wrong)


@pytest.mark.parametrize(("terms", "length"), [(1, 32), (4, 100), (16, 32), (1, 4000)])
def test_a_plan_takes_no_more_than_its_size(terms: int, length: int) -> None:
    made = planner()
    plan(made, composition(0, terms, length))
    gc.collect()
    tracemalloc.start()
    plans = [plan(made, composition(place, terms, length)) for place in range(1, 9)]
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken <= sum(size(one) for one in plans)


def test_plans_are_kept_within_a_bound() -> None:
    made = planner()
    sizes = [size(plan(made, composition(place, terms=40))) for place in range(100)]
    assert sum(sizes) > MOST_BYTES
    gc.collect()
    alive = [one for one in gc.get_objects() if type(one) is CompositionPlan]
    assert 0 < sum(size(one) for one in alive) <= MOST_BYTES


def test_lists_of_a_client_are_not_kept() -> None:
    made, ce = planner(), CATALOGUE["cross_entropy"]
    params = {**ce.defaults, "weight": (1.0, 2.0, 3.0)}
    term = LossTerm(ce, (("logits", "z"), ("targets", "t")), tuple(params.items()))
    asked = Composition((("ce", term),))
    assert plan(made, asked) is not plan(made, asked)

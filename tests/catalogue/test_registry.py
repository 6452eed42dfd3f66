"""Names and aliases."""

from dataclasses import replace
from types import ModuleType

import pytest

from service.catalogue.registry import Catalogue, Unknown
from service.losses import CATALOGUE
from tests.waiting import within_cpu_s


def test_no_two_losses_claim_one_name() -> None:
    """A catalogue refuses that when it is made; here it is made of every loss."""
    names = [name for loss in CATALOGUE.values() for name in (loss.name, *loss.aliases)]
    assert len(names) == len(set(names))


def test_a_clash_is_refused() -> None:
    module = ModuleType("clash")
    loss = CATALOGUE["cross_entropy"]
    vars(module).update(first=loss, second=replace(loss, name="other", aliases=("CROSS-ENTROPY",)))
    with pytest.raises(ValueError, match="both claim"):
        Catalogue(module)


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "cross-entropy", "CROSS_ENTROPY", "cross_entropy_loss"])
def test_case_dashes_and_a_trailing_loss_do_not_matter(name: str) -> None:
    assert CATALOGUE[name].name == "cross_entropy"


def test_unknown_names_come_with_the_closest() -> None:
    with pytest.raises(Unknown) as raised:
        CATALOGUE["cros_entropi"]
    assert "cross_entropy" in raised.value.closest


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("mze", "mse"),
        ("nse", "mse"),
        ("msa", "mse"),
        ("mme", "mse"),
        ("diec", "dice"),
        ("l3", "l1"),
        ("ctx", "ctc"),
    ],
)
def test_a_short_name_that_is_nearly_right_is_found(asked: str, meant: str) -> None:
    with pytest.raises(Unknown) as raised:
        CATALOGUE[asked]
    assert meant in raised.value.closest


def test_a_letter_wrong_at_any_place_leaves_the_name_among_the_closest() -> None:
    missed: list[str] = []
    for name in CATALOGUE:
        for place in range(len(name)):
            asked = f"{name[:place]}z{name[place + 1 :]}"
            if CATALOGUE.find(asked) is None:
                with pytest.raises(Unknown) as raised:
                    CATALOGUE[asked]
                missed += [] if name in raised.value.closest else [asked]
    # of the many that end in iou, three are named
    assert set(missed) <= {"ziou"}


def test_whether_there_is_a_loss_is_known_at_once() -> None:
    with within_cpu_s(0.1):
        assert not any(f"unknown {number}" in CATALOGUE for number in range(5000))
    assert all(name in CATALOGUE for name in ("mse", "MSELoss"))

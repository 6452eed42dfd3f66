"""Which device computes."""

import pytest
import torch

from service.engine.device import choose


def test_auto_takes_cuda_where_there_is_one() -> None:
    assert choose("auto") == torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "cpu:x"])
def test_devices_that_are_not_there_are_refused_with_words(name: str) -> None:
    with pytest.raises(ValueError, match=r"^Expected .*; got"):
        choose(name)

"""A few seeds of the campaign; `python -m tests.trust.ceremony.campaign 0 300` runs all."""

import pytest

from tests.trust.ceremony.campaign import run


@pytest.mark.parametrize("seed", [*range(12), 126])
def test_a_seed_keeps_all_promises(seed: int) -> None:
    run(seed)


def test_one_seed_is_one_run() -> None:
    assert run(3) == run(3)

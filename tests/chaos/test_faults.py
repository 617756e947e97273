"""What is declared some driver can do, and chaos/README.md says which."""

from pathlib import Path
from typing import get_args

import pytest

import chaos
from chaos.fault import Fault
from tests.chaos.fault_table import DECLARED, DRIVERS, can, saved

README = Path(chaos.__file__).parent / "README.md"


def test_all_kinds_of_fault_are_among_those() -> None:
    kinds = {each.partition(",")[0].removeprefix("fault: ") for each in DECLARED}
    assert kinds == {each.model_fields["fault"].default for each in get_args(get_args(Fault)[0])}


@pytest.mark.parametrize("method", DECLARED)
def test_some_driver_can_do_what_is_declared(method: str) -> None:
    assert any(can(driver, method) for driver in DRIVERS)


def test_the_readme_says_which() -> None:
    text = README.read_text()
    assert saved(text) == text, "python -m tests.chaos.fault_table --save chaos/README.md"

"""The experiments that come with Gossamer hold, as each says."""

import pytest

from chaos.cli import LIBRARY
from chaos.drivers.sim import SimDriver
from chaos.experiment import load
from chaos.plan import resolve

LONG = {"split-25-hours"}  # 25 hours take more than a minute: `make chaos`
NAMES = sorted(path.stem for path in LIBRARY.glob("*.yaml"))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LONG])
def test_holds_in_the_virtual_world(name: str) -> None:
    experiment = load(LIBRARY / f"{name}.yaml")
    assert experiment.expect
    if "sim" not in experiment.drivers:
        return
    journal = SimDriver().run(resolve(experiment), lambda _done, _total, _what: None)
    assert journal.violations == []


def test_what_is_long_is_in_the_library() -> None:
    assert set(NAMES) >= LONG

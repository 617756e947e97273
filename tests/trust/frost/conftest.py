"""Groups made by a dealer, who in these tests knows everything, and the published vectors."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from trust.group import Scalar, Secret, base_mul, scalar_of
from trust.groupkey import GroupKey, KeyShare, group_key
from trust.polynomial import evaluate, random_coefficients

VECTORS = Path(__file__).parent / "vectors"


@dataclass
class Group:
    """A key, all of its shares, and the polynomial behind them."""

    key: GroupKey
    shares: dict[Scalar, KeyShare]
    coefficients: tuple[Scalar, ...]
    entropy: Callable[[int], bytes]


def make_group(t: int, n: int, seed: int = 0, *, epoch: int = 0) -> Group:
    entropy = Random(f"{t} {n} {seed}").randbytes
    coefficients = random_coefficients(t, entropy)
    secrets = {scalar_of(i): evaluate(coefficients, scalar_of(i)) for i in range(1, n + 1)}
    members = [(identifier, base_mul(secret)) for identifier, secret in secrets.items()]
    key = group_key(base_mul(coefficients[0]), t, members, epoch=epoch)
    shares = {identifier: KeyShare(key, identifier, Secret(secret)) for identifier, secret in secrets.items()}
    return Group(key=key, shares=shares, coefficients=coefficients, entropy=entropy)


@pytest.fixture(scope="session")
def new_group() -> Callable[..., Group]:
    return make_group


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], dict[str, Any]]:
    def load(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((VECTORS / name).read_text())
        return content

    return load

"""Ceremonies under everything at once, by seed. `python -m tests.trust.ceremony.campaign FIRST LAST` runs many.

Each seed draws a ceremony (a founding, or a resharing), a network (loss, repetition, delays, a partition), crashes at
random outputs, and in every second seed one liar. Checked: at most one record, which verifies and whose shares make its
root, the same as before; honest nodes are never convicted; and where enough honest nodes are there, all of them finish.
"""

import random
import sys
from dataclasses import dataclass

from tests.trust.ceremony.liars import LIARS
from tests.trust.ceremony.network import Faults, Network, check_outcome, found, founded, people, reshare
from trust.ceremony.electorate import Electorate
from trust.ceremony.growth import SignerRules
from trust.ceremony.selection import least_threshold
from trust.epoch import succession

UNTIL_S = 1800.0
UNDECIDED_S = 200.0  # how long those are watched that cannot be expected to finish


@dataclass(frozen=True)
class Trial:
    """What one seed showed."""

    seed: int
    what: str
    finished: bool
    at: float
    attempts: int


def draw_faults(rng: random.Random) -> Faults:
    faults = Faults(
        loss=rng.choice([0.0, 0.05, 0.3]), repeat=rng.choice([0.0, 0.2]), delay_s=rng.choice([0.01, 0.2, 0.8])
    )
    if rng.random() < 0.5:
        begin, length, salt = rng.random() * 1.5, rng.random() * 40, rng.random()

        def cut(a: bytes, b: bytes, now: float) -> bool:
            side = [random.Random(f"{salt} {node.hex()}").random() < 0.5 for node in (a, b)]
            return begin <= now < begin + length and side[0] != side[1]

        faults.cut = cut
    return faults


def run(seed: int) -> Trial:
    """One seed. Raises AssertionError where a promise is broken."""
    rng = random.Random(f"campaign {seed}")
    faults = draw_faults(rng)
    founding_, strict = rng.random() < 0.5, rng.random() < 0.5
    liar = rng.choice(LIARS) if rng.random() < 0.5 else None
    electorate: Electorate
    if founding_:
        count = rng.choice([1, 2, 3, 4, 5])
        rules = SignerRules(signers=count)
        network, electorate, nodes = found(count, seed=seed, faults=faults, rules=rules)
        what = f"found {count}"
    else:
        old_count, new_count = rng.choice([1, 2, 3, 5]), rng.choice([1, 3, 4, 5, 7])
        rules = SignerRules(signers=old_count)
        record, shares, old = founded(old_count, seed=seed, rules=rules, strict=strict)
        keep = rng.randint(0, min(old_count, new_count))
        new = old[:keep] + people(new_count - keep, seed + 1_000_000)
        rules = SignerRules(signers=len(new))
        network, electorate = reshare(record, shares, old, new, seed=seed, faults=faults, rules=rules)
        assert electorate == succession(record)
        nodes = list({each.id: each for each in [*old, *new]}.values())
        what = f"reshare {old_count} -> {new_count}, {keep} stay{', strict' if strict else ''}"
    lying = b""
    if liar is not None and len(nodes) > 1:
        node = network.nodes[rng.choice(nodes).id]
        lying = node.identity.id
        node.kind = liar
        what += f", {liar.__name__}{' votes' if lying in electorate.ids else ''}"
    for node in network.nodes.values():
        if rng.random() < 0.5:
            node.crash_at = {rng.randrange(200) for _ in range(rng.randint(1, 3))}
            node.down_s = rng.choice([0.1, 3.0, 30.0])
    honest = [node for id_, node in network.nodes.items() if id_ != lying]
    expected = live(electorate, lying, [] if founding_ else [each.id for each in new], rules)
    until = UNTIL_S if expected else UNDECIDED_S
    done = network.run(
        until, lambda: all(node.sealed for node in honest if must_know(network, node.identity.id))
    )
    check(network, electorate, lying)
    attempts = max((node.machine.status().attempt for node in honest if node.machine), default=0)
    assert done or not expected, f"seed {seed}: {what}: not finished after {UNTIL_S} s"
    return Trial(seed, what, done, network.now, attempts)


def must_know(network: Network, node: bytes) -> bool:
    """Electors learn the outcome, and who has become a signer; a candidate that was left out need not."""
    machine = network.nodes[node].machine
    if machine is None:
        return True
    return node in network.electors or any(
        node in sealed.record.value.ids for other in network.nodes.values() for sealed in other.sealed
    )


def live(electorate: Electorate, lying: bytes, wanted: list[bytes], rules: SignerRules) -> bool:
    """Whether honest participants suffice without the liar: then they must finish."""
    honest = [node for node in electorate.ids if node != lying]
    if electorate.group is None or len(honest) < electorate.quorum:
        return len(honest) >= electorate.quorum
    receivers = len([node for node in wanted if node != lying])
    threshold = rules.threshold_of(receivers) if receivers else 0
    return len(honest) >= electorate.group.threshold and threshold >= least_threshold(electorate, rules)


def check(network: Network, electorate: Electorate, lying: bytes) -> None:
    for id_, node in network.nodes.items():
        if id_ != lying:
            guilty = {each.node for each in node.convicted}
            assert guilty <= {lying}, "an honest node was convicted"
    if lying:
        network.nodes[lying].sealed.clear()
    if any(node.sealed for node in network.nodes.values()):
        record = check_outcome(network, electorate)
        assert electorate.group is None or record.group.public == electorate.group.public


if __name__ == "__main__":
    first, last = int(sys.argv[1]), int(sys.argv[2])
    finished = 0
    worst: list[Trial] = []
    for number in range(first, last):
        try:
            trial = run(number)
        except Exception as error:  # a campaign goes on and tells
            print(f"seed {number} FAILED: {type(error).__name__}: {error}")
            continue
        finished += trial.finished
        if not trial.finished:
            print(f"seed {number} undecided: {trial.what}")
        worst.append(trial)
    worst.sort(key=lambda trial: -trial.at)
    print(f"{finished} of {last - first} decided; slowest:")
    for trial in worst[:5]:
        print(f"  {trial.at:.1f} s, attempt {trial.attempts}: seed {trial.seed} {trial.what}")

"""Which of several suspects make a whole fail: group testing, without knowing what a test is.

The whole has failed and nothing passes. Parts are tried together with everything that has passed so far, halves of
what fails are tried again, and a single suspect that fails beside what is good is a culprit. So k culprits among n
suspects cost about 2 k log2(n) tries, and what is left in the end has passed as one whole.

Invariant: at most `tries_max` tries; whoever could not be tried by then counts as a culprit.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Final, TypeVar

UNTRIED: Final = "not tried: too many others had to be"

K = TypeVar("K")


def search(
    suspects: Sequence[K], reason: str, *, tries_max: int
) -> Generator[tuple[K, ...], str, dict[K, str]]:
    """Yields what to try next, is sent "" when that passed, else the reason; returns the culprits and their reasons.
    `reason` is why all of them failed together."""
    good: list[K] = []
    culprits: dict[K, str] = {}
    parts: list[tuple[Sequence[K], str, str]] = [(suspects, reason, "")]
    tries = 0
    while parts:
        part, why, otherwise = parts.pop()
        if not why:
            if tries >= tries_max:
                culprits |= dict.fromkeys(part, UNTRIED)
                continue
            tries += 1
            why = yield (*good, *part)
            if not why:
                good += part
                if otherwise:  # the first half passed, so it is the other one that fails
                    other, _, _ = parts.pop()
                    parts.append((other, otherwise, ""))
                continue
        if len(part) == 1:
            culprits[part[0]] = why
        elif part:
            middle = len(part) // 2
            parts += [(part[middle:], "", ""), (part[:middle], "", why)]
    return culprits


def find(
    suspects: Sequence[K], reason: str, *, attempt: Callable[[tuple[K, ...]], str], tries_max: int
) -> dict[K, str]:
    """`search`, where trying takes no waiting."""
    trials = search(suspects, reason, tries_max=tries_max)
    try:
        chosen = next(trials)
        while True:
            chosen = trials.send(attempt(chosen))
    except StopIteration as end:
        culprits: dict[K, str] = end.value
        return culprits

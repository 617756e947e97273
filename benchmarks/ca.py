"""The threshold authority: signatures a second in one process, and where the time goes.

    python -m benchmarks.ca [--signatures 200] [--at-a-time 8] [--seed 1] [-o table|json]

One coordinator and all signers take turns in this process; each message goes through its wire form. So the rate is of
all the work that a signature takes, on one core; on real hosts the signers' parts are done side by side. The policy
grants whatever is asked, for issuance has costs of its own; `coordinator` and `one signer` are the CPU time that each
spends on a signature it takes part in.

Progress goes to standard error, the result to standard output.
"""

import argparse
import cProfile
import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from random import Random
from typing import Final

from trust.coordinator import Coordinator, Request
from trust.group import Scalar, Secret, base_mul, scalar_of
from trust.groupkey import KeyShare, group_key
from trust.identity import verify
from trust.polynomial import evaluate, random_coefficients
from trust.roast import Completed, Excluded, Failed, Reply, Send
from trust.sessionwire import ToSigner, decode_to_coordinator, decode_to_signer
from trust.signer import Answer, Asked, Denied, Signer

GROUPS: Final = ((1, 1), (2, 3), (3, 5), (4, 7))
REQUEST_BYTES: Final = 900  # a certificate request with the credential in it
NODE: Final = b"coordinator-node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One group."""

    group: str
    signatures_per_s: float
    coordinator_ms: float
    one_signer_ms: float


class Bench:
    """A group, its signers and a coordinator, all in this process."""

    def __init__(self, t: int, n: int, seed: int) -> None:
        entropy = Random(seed).randbytes
        coefficients = random_coefficients(t, entropy)
        secrets = {scalar_of(i): evaluate(coefficients, scalar_of(i)) for i in range(1, n + 1)}
        self.key = group_key(
            base_mul(coefficients[0]), t, [(i, base_mul(secret)) for i, secret in secrets.items()]
        )
        self.signers = {
            i: Signer([KeyShare(self.key, i, Secret(secret))], _approve, entropy)
            for i, secret in secrets.items()
        }
        self.coordinator = Coordinator(self.key, Random(seed))
        self.coordinating_s = self.signing_s = 0.0
        self._entropy = entropy
        self._messages: dict[bytes, bytes] = {}
        self._under_way: deque[tuple[Scalar, ToSigner]] = deque()

    def sign(self, count: int, at_a_time: int) -> None:
        """`count` signatures, `at_a_time` of them under way."""
        left, done = count, 0
        while done < count:
            while left and len(self._messages) < at_a_time:
                left -= 1
                request = self._entropy(REQUEST_BYTES)
                session = self._entropy(16)
                self._messages[session] = request
                done += self._step(Request(session=session, request=request, message=request))
            signer, message = self._under_way.popleft()
            start = time.process_time()
            asked = Asked(coordinator=NODE, message=decode_to_signer(message.encode()))
            answers = [o.message for o in self.signers[signer].step(0.0, asked) if isinstance(o, Answer)]
            self.signing_s += time.process_time() - start
            for answer in answers:
                done += self._step(Reply(signer=signer, message=decode_to_coordinator(answer.encode())))

    def _step(self, input_: Request | Reply) -> int:
        start = time.process_time()
        outputs = self.coordinator.step(0.0, input_)
        self.coordinating_s += time.process_time() - start
        done = 0
        for output in outputs:
            match output:
                case Send():
                    self._under_way.append((output.signer, output.message))
                case Completed():
                    assert verify(self.key.public, self._messages.pop(output.session), output.signature)
                    done += 1
                case Excluded() | Failed():
                    raise AssertionError(f"signers that are all honest: {output}")
        return done


def _approve(request: bytes, coordinator: bytes, now: float) -> bytes | Denied:
    return request


def measure(t: int, n: int, count: int, at_a_time: int, seed: int) -> Row:
    """One row. The first signatures, which fetch commitments, are not counted."""
    bench = Bench(t, n, seed)
    bench.sign(at_a_time, at_a_time)
    bench.coordinating_s = bench.signing_s = 0.0
    start = time.perf_counter()
    bench.sign(count, at_a_time)
    elapsed = time.perf_counter() - start
    return Row(
        group=f"{t} of {n}",
        signatures_per_s=count / elapsed,
        coordinator_ms=1000 * bench.coordinating_s / count,
        one_signer_ms=1000 * bench.signing_s / count / t,
    )


def profile(t: int, n: int, count: int, seed: int) -> dict[str, float]:
    """Percent of the time of a signature that is spent inside each of libsodium's functions; the rest is Python."""
    bench = Bench(t, n, seed)
    bench.sign(8, 8)
    profiler = cProfile.Profile()
    profiler.runcall(bench.sign, count, 1)
    entries = profiler.getstats()
    total_s = sum(entry.inlinetime for entry in entries)
    library_s = {
        str(entry.code).partition("_sodium.")[2].rstrip(">}"): entry.inlinetime
        for entry in entries
        if "_sodium." in str(entry.code)
    }
    largest = sorted(library_s, key=library_s.__getitem__, reverse=True)[:5]
    parts = {name: 100 * library_s[name] / total_s for name in largest}
    parts["the rest of libsodium"] = 100 * sum(library_s.values()) / total_s - sum(parts.values())
    parts["Python"] = 100 - sum(parts.values())
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--signatures", type=int, default=200)
    parser.add_argument("--at-a-time", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args()
    rows: list[Row] = []
    for t, n in GROUPS:
        print(f"{t} of {n} ...", file=sys.stderr)
        rows.append(measure(t, n, options.signatures, options.at_a_time, options.seed))
    print("where the time goes, 3 of 5 ...", file=sys.stderr)
    parts = profile(3, 5, options.signatures, options.seed)
    if options.output == "json":
        print(json.dumps({"rows": [asdict(row) for row in rows], "percent": parts}, indent=2))
        return
    print(f"{'group':8} {'signatures/s':>13} {'coordinator':>12} {'one signer':>11}")
    for row in rows:
        print(
            f"{row.group:8} {row.signatures_per_s:13.0f} {row.coordinator_ms:9.2f} ms {row.one_signer_ms:8.2f} ms"
        )
    print("\n3 of 5, under the profiler:")
    for name, percent in parts.items():
        print(f"{percent:6.1f} %  {name}")


if __name__ == "__main__":
    main()

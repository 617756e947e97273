"""What a signer gives away, to whom, and what has to be on its disk before."""

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peer import cosigner
from peer.applicants import Applicants
from peer.cosigner import UNANSWERED_MAX
from peer.io.store import Store, StoreError
from peer.io.stream import SIGN, FrameStream, connect, greet
from tests.peer.team import Answer, Seat, Team
from trust.frost import Commitment
from trust.groupkey import identifier_of
from trust.order import Kind, Order
from trust.sessionwire import (
    CommitReply,
    CommitRequest,
    Reason,
    RefusalReply,
    ShareReply,
    ShareRequest,
    ToCoordinator,
    ToSigner,
    decode_to_coordinator,
)
from trust.signer import SignerConfig
from trust.tls import client_context_unverified

SESSION = b"s" * 16
COORDINATOR = b"coordinator-node"


async def share_of(
    seat: Seat, order: Order, *, coordinator: bytes = COORDINATOR, epoch: int | None = None
) -> ToCoordinator:
    """What `seat` says when a coordinator asks for its share, together with two others that commit."""
    team = seat.team
    group = seat.parts.custody.group
    assert group is not None
    number = group.epoch if epoch is None else epoch
    by_node = {each.node: each for each in team.all.values()}
    signing = [seat, *(by_node[node] for node in (team.epochs[-1][0].value.ids) if node != seat.node)][
        : group.threshold
    ]
    commitments = []
    for each in signing:
        reply = await each.parts.cosigner.answer(coordinator, CommitRequest(session=SESSION, epoch=number))
        assert isinstance(reply, CommitReply), reply
        commitments.append(
            Commitment(identifier=identifier_of(each.node), hiding=reply.hiding, binding=reply.binding)
        )
    request = ShareRequest(
        session=SESSION, epoch=number, attempt=1, request=order.encode(), commitments=tuple(commitments)
    )
    return await seat.parts.cosigner.answer(coordinator, request)


def order_of(team: Team, kind: Kind, request: bytes) -> Order:
    ttl_s = 3600 if kind is Kind.SVID else 86_400
    return Order(kind=kind, request=request, issued_at=int(team.live.now()), entropy=b"e" * 16, ttl_s=ttl_s)


def admission(team: Team, token: Any, number: int) -> Order:
    return order_of(team, Kind.CREDENTIAL, team.join(token, number))


# ------------------------------------------------------------------ the ledger and the disk


async def test_no_share_leaves_before_the_use_of_the_token_is_on_disk(team: Team) -> None:
    seat, order = team.seats[0], admission(team, team.token(), 1)
    gate, stored = asyncio.Event(), []

    async def disk(spends: Any) -> None:
        await gate.wait()
        stored.extend(spends)

    seat.handover.spending._store = disk
    asking = [asyncio.create_task(share_of(seat, order)) for _ in range(2)]
    while not seat.handover.spending._unsaved:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(task.done() for task in asking)
    assert seat.given == []
    gate.set()
    assert all(isinstance(reply, ShareReply) for reply in await asyncio.gather(*asking))
    assert {spend.token_id for spend in stored} == {spend.token_id for spend in seat.handover.spending.ledger}


async def test_with_a_full_disk_a_signer_puts_off_and_certifies_on(team: Team) -> None:
    seat, member = team.seats[0], team.seats[1]

    async def full(_spend: Any) -> None:
        raise StoreError("the disk is full")

    seat.handover.spending._store = full
    for _ in range(2):  # the ledger knows the use by the second time; the disk still does not
        reply = await share_of(seat, admission(team, team.token(), 1))
        assert isinstance(reply, RefusalReply)
        assert (reply.reason, reply.detail) == (Reason.LATER, "this signer cannot write to its disk")
    certificate = order_of(team, Kind.SVID, team.svid(member).encode())
    assert isinstance(await share_of(seat, certificate), ShareReply)


async def test_an_applicant_that_asks_too_often_is_told_when_to_come_again_and_spends_nothing(
    team: Team,
) -> None:
    seat, member = team.seats[0], team.seats[1]
    seat.parts.cosigner._applicants = Applicants(each=1, together=3)
    orders = []
    for _ in range(3):
        orders.append(order_of(team, Kind.SVID, team.svid(member).encode()))
        team.live.advance_s += 1  # another request
    for coordinator in (COORDINATOR, b"another node ..."):
        assert isinstance(await share_of(seat, orders[0], coordinator=coordinator), ShareReply), "one request"
    reply = await share_of(seat, orders[1], coordinator=b"another node ...")
    assert isinstance(reply, RefusalReply)
    assert reply.reason is Reason.LATER
    assert "asks for more than 1 signatures a minute: try again in" in reply.detail
    seat.parts.cosigner._applicants = Applicants(together=1)
    assert isinstance(await share_of(seat, orders[2]), ShareReply)
    reply = await share_of(seat, admission(team, team.token(), 1))
    assert isinstance(reply, RefusalReply)
    assert "all applicants together" in reply.detail
    assert seat.disk == []


async def test_what_was_revoked_while_the_disk_was_busy_is_not_signed(team: Team) -> None:
    seat, order = team.seats[0], admission(team, team.token(), 1)
    gate = asyncio.Event()

    async def disk(_spend: Any) -> None:
        await gate.wait()

    seat.handover.spending._store = disk
    asking = asyncio.create_task(share_of(seat, order))
    while not seat.handover.spending._unsaved:
        await asyncio.sleep(0)
    team.live.advance_s = 400  # the order is too old by now
    gate.set()
    reply = await asking
    assert isinstance(reply, RefusalReply)
    assert (reply.reason, seat.given) == (Reason.POLICY, [])


async def test_a_used_token_is_refused_by_each_signer_that_saw_it_and_only_to_others(team: Team) -> None:
    seat, token = team.seats[0], team.token()
    first, second = admission(team, token, 1), admission(team, token, 2)
    for _ in range(3):  # a retry costs nothing
        assert isinstance(await share_of(seat, first), ShareReply)
    assert len(seat.disk) == 1
    reply = await share_of(seat, second)
    assert isinstance(reply, RefusalReply)
    assert "used by another host" in reply.detail
    assert isinstance(await share_of(team.seats[1], second), ShareReply)


@pytest.mark.parametrize(("uses", "signers", "most"), [(1, 3, 1), (1, 5, 1), (2, 5, 3), (3, 5, 5), (4, 3, 6)])
async def test_a_token_admits_at_most_its_uses_times_n_over_t(
    live_mesh: Any, uses: int, signers: int, most: int
) -> None:
    """Whatever coordinators do: here they ask those signers first that have counted least."""
    team = Team(live_mesh, signers)
    for seat in team.seats:
        await seat.start()
    try:
        threshold = team.record.group.threshold
        token, admitted = team.token(uses), 0
        assert most == uses * signers // threshold
        for number in range(3 * uses):
            order, agreed = admission(team, token, number), 0
            for seat in sorted(team.seats, key=lambda each: len(each.disk)):
                if agreed < threshold and isinstance(await share_of(seat, order), ShareReply):
                    agreed += 1
            admitted += agreed == threshold
        assert uses <= admitted <= most
    finally:
        await team.close()


def test_any_schedule_keeps_to_the_bound_of_uses() -> None:
    """Counting alone, with every order in which newcomers ask every set of signers: it is reached and never passed."""
    for uses, n, t in [(1, 3, 2), (1, 5, 3), (2, 5, 3), (2, 3, 2)]:
        quorums = list(itertools.combinations(range(n), t))
        reached = 0
        for seed in range(200):
            counted, admitted = [0] * n, 0
            for quorum in random.Random(seed).choices(quorums, k=30):
                if all(counted[signer] < uses for signer in quorum):
                    admitted += 1
                    for signer in quorum:
                        counted[signer] += 1
            reached = max(reached, admitted)
        assert reached == uses * n // t


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from peer.disk import Disk
from peer.io.statefile import StateFileError
from peer.io.store import Batch, Store
from peer.tokens import SpentTokens
from tests.peer.conftest import LiveMesh
from tests.peer.signers import MemoryCustody
from tests.peer.team import Team
from tests.peer.test_cosigner import admission, share_of
from trust.sessionwire import ShareReply

async def main(directory, moment):
    team = Team(LiveMesh, 3)
    for seat in team.seats:
        await seat.start()
    seat = team.seats[0]
    disk, tokens = Disk(Store.open(directory)), SpentTokens.of(directory)

    async def store(spends):
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await disk.commit(Batch(spent=[(each.token_id, each.node, each.expires_at) for each in spends]))
        tokens.add(spends, team.live.now())

    seat.handover.spending._store = store
    reply = await share_of(seat, admission(team, team.token(), 1))
    assert isinstance(reply, ShareReply)
    os.kill(os.getpid(), signal.SIGKILL)  # the share is made and has not left

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize(("moment", "kept"), [("before", 0), ("after", 1)])
def test_a_use_survives_a_kill_between_share_and_answer(tmp_path: Path, moment: str, kept: int) -> None:
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), moment],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, timeout=60, check=False, capture_output=True,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    store = Store.open(tmp_path)
    assert len(store.load().spent) == kept
    store.close()
    assert (tmp_path / "tokens.json").exists() == bool(kept)


# ------------------------------------------------------------------ streams


async def opened(seat: Seat, by: Seat) -> FrameStream:
    return await seat.team.dial(by, seat.node, SIGN)


async def test_who_has_no_certificate_gets_no_share(team: Team) -> None:
    stream = await connect(("127.0.0.1", team.seats[0].port), client_context_unverified(alpn=("gossamer/1",)))
    await greet(stream, SIGN)
    stream.write(CommitRequest(session=SESSION, epoch=0).encode())
    assert await stream.read() == b""
    await stream.closed()
    assert team.seats[0].parts.cosigner.statistics().signer.committed == 0


@pytest.mark.parametrize("frame", [b"?", b"\xff" * 1000, bytes(100_000)])
async def test_a_coordinator_that_sends_garbage_is_hung_up_on(team: Team, frame: bytes) -> None:
    stream = await opened(team.seats[0], team.seats[1])
    stream.write(frame)
    assert await stream.read() == b""
    await stream.closed()


async def test_a_coordinator_is_paced_and_others_are_not(team: Team, monkeypatch: Any) -> None:
    monkeypatch.setattr(cosigner, "BURST", 4.0)
    monkeypatch.setattr(cosigner, "RATE_PER_S", 20.0)
    seat, loop = team.seats[0], asyncio.get_running_loop()
    busy, other = await opened(seat, team.seats[1]), await opened(seat, team.seats[2])
    question = CommitRequest(session=SESSION, epoch=0).encode()
    began = loop.time()
    for _ in range(8):
        busy.write(question)
    other.write(question)
    assert await other.read()
    for _ in range(8):
        assert await busy.read()
    assert loop.time() - began >= 4 / 20.0
    assert 1 <= seat.parts.cosigner.statistics().paced <= 4
    for stream in (busy, other):
        await stream.closed()


async def test_what_is_refused_fills_no_log(team: Team, caplog: Any) -> None:
    seat, member = team.seats[0], team.seats[1]
    wrong = order_of(team, Kind.SVID, team.svid(member).encode())
    for number in range(50):
        refused = replace(wrong, ttl_s=100_000 + number)
        assert isinstance(await share_of(seat, refused, coordinator=member.node), RefusalReply)
    told = [record for record in caplog.records if record.getMessage() == "share_refused"]
    assert len(told) == 1
    assert seat.parts.cosigner.statistics().refused == {"policy": 50}


async def test_no_more_than_so_many_requests_of_a_stream_wait(team: Team) -> None:
    begun = 0
    gate = asyncio.Event()

    async def waiting(_seat: Seat, honest: Answer, coordinator: bytes, message: ToSigner) -> ToCoordinator:
        nonlocal begun
        begun += 1
        await gate.wait()
        return await honest(coordinator, message)

    seat = team.seats[0]
    seat.behave = waiting
    stream = await opened(seat, team.seats[1])
    for _ in range(UNANSWERED_MAX + 10):
        stream.write(CommitRequest(session=SESSION, epoch=0).encode())
    while begun < UNANSWERED_MAX:
        await asyncio.sleep(0.001)
    for _ in range(50):
        await asyncio.sleep(0)
    assert begun == UNANSWERED_MAX
    gate.set()
    for _ in range(UNANSWERED_MAX + 10):
        assert isinstance(decode_to_coordinator(await stream.read()), CommitReply)
    await stream.closed()


async def test_paces_of_so_many_coordinators_are_remembered(team: Team, monkeypatch: Any) -> None:
    monkeypatch.setattr(cosigner, "PACED_MAX", 3)
    signer = team.seats[0].parts.cosigner
    for number in range(10):
        await signer._keep_pace(bytes([number]) * 16)
    assert len(signer._pace) == 3


# ------------------------------------------------------------------ epochs


async def test_it_signs_with_the_shares_that_custody_holds_now(team: Team) -> None:
    seat = team.seats[0]
    epochs = seat.parts.cosigner._signer
    for number in range(1, 4):
        record, shares = team.reshared(team.signers, seed=number)
        team.epochs.append((record, shares))
        team.tell(record, shares, team.seats)
        certificate = order_of(team, Kind.SVID, team.svid(team.seats[1]).encode())
        assert isinstance(await share_of(seat, certificate), ShareReply)
        assert epochs.epochs == tuple(range(max(0, number - 1), number + 1))


async def test_nonces_nobody_comes_back_for_are_wiped_without_another_request(team: Team, until: Any) -> None:
    parts = team.seats[0].parts
    signer = cosigner.Cosigner(
        custody=parts.custody, rules=parts.cosigner._rules, node=team.seats[0].node, spending=parts.cosigner._spending,
        now=parts.cosigner._now, entropy=os.urandom, member_of=lambda _stream: COORDINATOR,
        config=SignerConfig(nonce_ttl_s=0.05),
    )  # fmt: skip
    for _ in range(3):
        assert isinstance(
            await signer.answer(COORDINATOR, CommitRequest(session=SESSION, epoch=0)), CommitReply
        )
    assert signer.statistics().signer.outstanding == 3
    await until(lambda: signer.statistics().signer.expired == 3)
    assert signer.statistics().signer.outstanding == 0
    assert signer._timer is None

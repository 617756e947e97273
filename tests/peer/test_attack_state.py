"""A malicious member attacks the replicated state: it gains nothing, it is named, and the mesh goes on.

It has a valid credential and its own key, and sends what it likes: records on datagrams and frames on streams
(`Attacker`), or it runs the real node over a journal that believes everything and holds any amount (`lawless`).
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from crdt.clock import hlc_at
from crdt.frame import Ask, Frame, encode_frame
from crdt.journal import Accept, Delta, Journal, JournalLimits
from crdt.record import KEY_BYTES_MAX, SEQ_MAX, Record, content_digest, encode_record, rest_hash
from crdt.replica import FORKED_HEAD
from gossip.member import State
from gossip.message import Body, Gossip, encode_body
from gossip.statement import sign_alive
from gossip.wire import KeyRing, seal
from peer.fold import Folder
from peer.messages import CloseStream, DatagramReceived, SendFrame, StreamFrame, StreamOpened, Written
from peer.node import EXPELLED, FORGED, SHUNNED
from peer.node_notes import SORTS_MAX, STALE_MAX, STALE_S
from peer.records import POLICY, SERVICE
from peer.session import SyncSession
from tests.peer.test_node import keys, policy, service, three
from trust.identity import format_id

Address = tuple[str, int]
MALLORY = 9


class Attacker:
    """Member 9 as a script. `write` numbers and signs like an honest node, but for the `changes`."""

    def __init__(self, world: Any, number: int = MALLORY) -> None:
        self.world = world
        self.identity, self.credential = world.mesh.member(number)
        self.id = self.identity.id
        self.name = format_id(self.id)
        self.address = (f"10.0.0.{number}", 7946)
        self.boot = int(world.now * 1000)
        self._counter = int(world.now * 1e6)
        self._keys = KeyRing(self.identity, keys_max=8)
        self._streams = iter(range(100_000, 900_000, 2))
        self._digests = {0: 0}  # of all that was written last under the numbers up to one

    def write(self, seq: int, /, **changes: Any) -> Record:
        draft = policy(f"m{seq}")
        before = self._digests.get(seq - 1, 0)
        fields = {
            "writer": self.id, "seq": seq, "kind": draft.kind, "key": draft.key, "payload": draft.payload,
            "hlc": hlc_at(int(self.world.now * 1000)), "floor": 0, "rest": rest_hash(before),
        }  # fmt: skip
        unsigned = Record(**(fields | changes), signature=bytes(64))
        record = replace(unsigned, signature=self.identity.sign(unsigned.signing_bytes()))
        self._digests[seq] = before + content_digest(record)
        return record

    def push(self, victim: Address, *payloads: Record | bytes) -> list[Any]:
        """One datagram for each."""
        out: list[Any] = []
        node = self.world.nodes[victim]
        receiver = node.identity
        alive = sign_alive(
            self.identity,
            self.credential,
            boot=self.boot,
            incarnation=0,
            address=self.address,
            zone="",
            meta={},
        ).encode()
        for payload in payloads or (b"",):
            raw = encode_record(payload) if isinstance(payload, Record) else payload
            body = Body(message=Gossip(), known_boot=0, updates=(), payloads=(raw,) if raw else ())
            self._counter += 1
            data = seal(
                self._keys.sending(receiver.id, receiver.agreement_key, self.boot),
                version=1, sender=self.id, boot=self.boot, counter=self._counter, introduction=alive,
                body=encode_body(body),
            )  # fmt: skip
            out += self.feed(victim, DatagramReceived(source=self.address, data=data))
        return out

    def feed(self, victim: Address, event: Any) -> list[Any]:
        out = self.world.nodes[victim].step(self.world.now, event)
        for output in out:
            self.world._obey(victim, output)
        return list(out)

    def exchange(self, victim: Address, journal: Journal, frames_max: int = 10_000) -> tuple[int, str | None]:
        """Hold a whole exchange over `journal`. Returns the bytes the victim sent and why it closed the stream."""
        number = next(self._streams)
        session = SyncSession(journal, None, initiator=True, knows=lambda: True, other=bytes(16))
        sent = 0
        out = self.feed(victim, StreamOpened(stream=number, node=self.id, inbound=True))
        queue = list(session.start())
        for _ in range(frames_max):
            for output in out:
                if isinstance(output, CloseStream) and output.stream == number:
                    return sent, output.reason
                if isinstance(output, SendFrame) and output.stream == number:
                    sent += len(output.data)
                    queue += session.receive(output.data).send
            if not queue:
                return sent, None
            out = self.feed(victim, StreamFrame(stream=number, data=queue.pop(0)))
        raise AssertionError("the exchange did not end")


def rest(*others: Record) -> bytes:
    """What a record signs that says these are all the others."""
    return rest_hash(sum(map(content_digest, others)))


NO_LIMITS = JournalLimits(
    writer_records_max=10**7, writer_bytes_max=2**30, held_writer_bytes_max=2**30, held_bytes_max=2**30
)


def lawless(kind: type[Journal] = Journal) -> Journal:
    return kind(verify=lambda _record, _now_ms: Accept(), limits=NO_LIMITS)


def told(world: Any, event: str) -> list[dict[str, Any]]:
    return [fields for name, fields in world.notes if name == event]


def begun(world: Any, *honest: Address) -> int:
    """The exchanges these asked for so far."""
    return sum(world.opened[address] for address in honest)


def goes_on(world: Any, writer: Address, *others: Address, name: str = "after") -> None:
    """What honest nodes write still reaches everybody, and they agree."""
    world.write(writer, policy(name), service(name), request=99)
    world.run(3)
    for address in (writer, *others):
        assert f"TrafficPolicy/default/{name}" in keys(world, address)
        assert f"default/{name}" in keys(world, address, SERVICE)
    assert len({world.nodes[address].journal.fingerprint() for address in (writer, *others)}) == 1


def view(world: Any, address: Address) -> set[str]:
    """The policies in force."""
    node = world.nodes[address]
    return {f"{each.namespace}/{each.name}" for each in Folder(node.journal, node.registry).policies()}


# ------------------------------------------------------------------ equivocation


def equivocated(world: Any) -> tuple[tuple[Address, ...], Attacker, dict[Address, Folder]]:
    """Two halves that cannot hear each other are told different things under one number; then the halves meet."""
    honest = three(world)
    mallory = Attacker(world)
    folders = {
        address: Folder(world.nodes[address].journal, world.nodes[address].registry) for address in honest
    }
    a, b, c = honest
    for address in honest:
        mallory.push(address)
    world.cut = lambda source, target: (source == c) != (target == c)
    one = [mallory.write(1), mallory.write(2, key="TrafficPolicy/default/left")]
    other = [one[0], mallory.write(2, key="TrafficPolicy/default/right")]
    mallory.push(a, *one)
    mallory.push(c, *other)
    world.run(1)
    assert "default/m1" in {f"{each.namespace}/{each.name}" for each in folders[b].policies()}
    assert mallory.id in {member.id for member in world.nodes[c].engine.members()}
    world.cut = lambda _source, _target: False
    world.run(20)
    return honest, mallory, folders


def test_who_equivocates_is_convicted_everywhere_and_what_it_wrote_leaves_every_view(world: Any) -> None:
    honest, mallory, folders = equivocated(world)
    for address in honest:
        node = world.nodes[address]
        assert set(node.journal.forks) == {mallory.id}
        assert set(world.proofs[address]) == {mallory.id}
        assert folders[address].policies() == ()  # kept up to date, as the daemon does
        assert view(world, address) == set()
        states = {member.id: member.state for member in node.engine.members()}
        assert states[mallory.id] is State.DEAD
    assert {fields["writer"] for fields in told(world, "equivocation")} == {mallory.name}
    assert len(told(world, "equivocation")) == 3
    lost = {(fields["writer"], fields["policies"]) for fields in told(world, "policies_withdrawn")}
    assert lost == {(mallory.name, 2)}
    assert all("TrafficPolicy/default/m1" in fields["keys"] for fields in told(world, "policies_withdrawn"))
    goes_on(world, *honest)
    before = begun(world, *honest)
    world.run(60)
    assert begun(world, *honest) - before <= 3  # those that compare member lists


def test_no_exchange_with_who_equivocated(world: Any) -> None:
    (a, *_), mallory, _ = equivocated(world)
    assert mallory.exchange(a, lawless()) == (0, EXPELLED)
    assert mallory.push(a, mallory.write(3))
    assert world.nodes[a].journal.get(mallory.id, POLICY, "TrafficPolicy/default/m3") is None


def test_the_proof_outlives_a_restart(world: Any) -> None:
    honest, mallory, _ = equivocated(world)
    c = honest[2]
    before = world.nodes.pop(c)
    registry = world.mesh.registry()
    for writer, blob in before.journal.introductions.items():
        registry.introduce(writer, blob)
    journal = Journal(verify=registry.judge)
    heads: Counter[bytes] = Counter()
    for record in world.disk[c].values():
        heads[record.writer] = max(heads[record.writer], record.seq)
    damage = journal.restore(
        world.disk[c].values(), heads, before.journal.introductions, world.proofs[c].values()
    )
    assert damage == ()
    assert journal.fingerprint() == before.journal.fingerprint()
    world.node(3, journal=journal, registry=registry)
    assert view(world, c) == set()
    assert world.nodes[c].journal.heads[mallory.id] == FORKED_HEAD
    world.join(c, honest[0])
    world.run(3)
    assert mallory.exchange(c, lawless()) == (0, EXPELLED)
    goes_on(world, c, *honest[:2])


def test_a_node_that_joins_later_learns_of_the_fork_by_its_proof(world: Any) -> None:
    honest, mallory, _ = equivocated(world)
    d = world.node(4)
    world.join(d, honest[0])
    world.run(3)
    assert set(world.nodes[d].journal.forks) == {mallory.id}
    goes_on(world, d, *honest)


# ------------------------------------------------------------------ replays and forgeries


def test_old_records_of_others_change_nothing_where_they_were_heard(world: Any) -> None:
    a, b, c = three(world)
    old = []
    for number in range(5):
        world.write(b, policy("one", n=number), request=number)
        world.run(0.5)
        old += [record for record in world.disk[b].values() if record.key.endswith("/one")]
    before = world.nodes[a].journal.canonical(), len(world.notes)
    Attacker(world).push(a, *old * 200)
    assert (world.nodes[a].journal.canonical(), len(world.notes)) == before
    assert world.nodes[a].journal.statistics().duplicates == 0  # not even looked at
    assert world.nodes[a].engine.statistics().payloads_queued == 0
    goes_on(world, b, a, c)


def test_who_hands_on_many_records_that_were_replaced_long_ago_gains_nothing_and_is_named_once(
    world: Any,
) -> None:
    b = world.node(2)
    old = []
    for number in range(2 * STALE_MAX):
        world.write(b, policy("one", n=number), request=number)
        world.run(0.01)
        old += [record for record in world.disk[b].values() if record.key.endswith("/one")]
    a = world.node(1)
    world.join(a, b)
    world.run(1)
    journal = world.nodes[a].journal
    before = journal.canonical()
    Attacker(world, 8).push(a, *old[: STALE_MAX // 2])  # these may have been on their way
    world.run(STALE_S)
    mallory = Attacker(world)
    mallory.push(a, *old[STALE_MAX // 2 : STALE_MAX])
    assert not told(world, "records_replayed")
    mallory.push(a, *old[STALE_MAX:], old[-1])
    (line,) = told(world, "records_replayed")
    assert line["node"] == mallory.name
    assert journal.canonical() == before
    assert world.nodes[a].engine.statistics().payloads_queued == 0
    goes_on(world, b, a)


def test_ten_thousand_forgeries_are_a_few_lines_that_name_the_sender(world: Any) -> None:
    a, b, c = three(world)
    world.write(b, policy("one"))
    world.run(1)
    (real,) = world.disk[b].values()
    mallory = Attacker(world)
    before = world.nodes[a].journal.canonical()
    for number in range(1500):
        changed = replace(real, payload=b"%d" % number)
        mallory.push(a, changed, replace(changed, seq=2, key="TrafficPolicy/default/two"))
    world.run(70)
    assert world.nodes[a].journal.canonical() == before
    assert world.nodes[a].journal.statistics().refused == 3000
    lines = told(world, "record_refused")
    assert {line["sender"] for line in lines} == {mallory.name}
    (summary,) = told(world, "complaints_repeated")
    assert summary["node"] == mallory.name
    assert len(lines) + summary["times"] == 3000
    assert len(lines) <= SORTS_MAX
    goes_on(world, b, a, c)


def test_all_sorts_of_rubbish_from_one_member_are_few_lines_in_bounded_memory(world: Any) -> None:
    a, b, c = three(world)
    mallory = Attacker(world)
    for number in range(300):
        mallory.push(a, b"\x00" * (number + 1), mallory.write(1, kind="Z" * (number % 40)))
        stream = 50_000 + 2 * number
        mallory.feed(a, StreamOpened(stream=stream, node=mallory.id, inbound=True))
        mallory.feed(a, StreamFrame(stream=stream, data=bytes([number % 256])))
    complaints = world.nodes[a].complaints
    assert len(told(world, "record_malformed")) + len(told(world, "exchange_broken")) <= SORTS_MAX
    assert len(complaints) == 1
    assert complaints.untold > 300
    goes_on(world, b, a, c)


class Withholding(Journal):
    """Leaves out the first record of whatever it hands on."""

    def delta(self, writer: bytes, after: int, bytes_max: int) -> Delta:
        whole = super().delta(writer, after, bytes_max)
        return replace(whole, records=whole.records[1:]) if len(whole.records) > 1 else whole


class Forging(Journal):
    """Changes a byte of whatever it hands on."""

    def delta(self, writer: bytes, after: int, bytes_max: int) -> Delta:
        whole = super().delta(writer, after, bytes_max)
        return replace(whole, records=tuple(replace(r, payload=b"forged") for r in whole.records))


def behind(world: Any) -> tuple[Address, Address, Attacker, list[Record]]:
    """b has written five records, of which a, newly started, has none."""
    b = world.node(2)
    world.write(b, *(policy(f"p{number}") for number in range(5)))
    world.run(0.5)
    a = world.node(1)
    return a, b, Attacker(world), sorted(world.disk[b].values(), key=lambda record: record.seq)


def filled(kind: type[Journal], world: Any, address: Address, records: Iterable[Record]) -> Journal:
    journal = lawless(kind)
    journal.merge(records, int(world.now * 1000))
    for writer, blob in world.nodes[address].journal.introductions.items():
        journal.introduce(writer, blob)
    return journal


def test_a_delta_that_leaves_records_out_is_found_out(world: Any) -> None:
    a, b, mallory, records = behind(world)
    for _ in range(3):
        mallory.exchange(a, filled(Withholding, world, b, records))
    assert records[0].writer not in world.nodes[a].journal.heads
    (line,) = [
        line for line in told(world, "record_refused") if "not those their writer signed" in line["reason"]
    ][:1]
    assert line["sender"] == mallory.name
    world.join(a, b)
    world.run(2)
    assert len(keys(world, a)) == 5
    goes_on(world, b, a)


def test_who_hands_on_forgeries_is_cut_off_and_not_asked_again(world: Any) -> None:
    a, b, mallory, records = behind(world)
    world.join(a, b)
    world.cut = lambda *_: True
    reasons = Counter(mallory.exchange(a, filled(Forging, world, b, records))[1] for _ in range(50))
    assert reasons == {FORGED: 2, SHUNNED: 48}
    assert all(line["sender"] == mallory.name for line in told(world, "record_refused"))
    world.cut = lambda *_: False
    world.join(a, b)
    world.run(2)
    goes_on(world, b, a)


# ------------------------------------------------------------------ time, numbers, floors, contexts


def test_a_record_of_the_future_waits_until_its_time_comes(world: Any) -> None:
    a, _b, _c = three(world)
    mallory = Attacker(world)
    mallory.push(a, mallory.write(1, hlc=hlc_at(int((world.now + 30) * 1000))))
    world.run(20)
    assert keys(world, a) == set()
    assert world.nodes[a].journal.statistics().held_records == 1
    world.run(7)
    assert keys(world, a) == {"TrafficPolicy/default/m1"}


def test_records_of_a_time_that_never_comes_hold_nothing_up(world: Any) -> None:
    a, b, c = three(world)
    mallory = Attacker(world)
    never = [mallory.write(seq, hlc=2**64 - 1) for seq in range(1, 400)]
    mallory.push(a, *never)
    journal = world.nodes[a].journal
    assert journal.statistics().held_bytes <= journal.limits.unjudged_bytes_max
    goes_on(world, b, a, c)
    assert journal.clock.last < hlc_at(int((world.now + 6) * 1000))


def test_made_up_writers_fill_a_small_bounded_place(world: Any) -> None:
    a, b, c = three(world)
    mallory = Attacker(world)
    mallory.push(a)
    journal = world.nodes[a].journal
    fake = [mallory.write(1, writer=number.to_bytes(16, "big")) for number in range(6000)]
    journal.merge(fake, int(world.now * 1000))
    statistics = journal.statistics()
    assert statistics.held_bytes <= journal.limits.unjudged_bytes_max <= 2 * 2**20
    assert statistics.overflowed > 1000
    assert len(journal.introductions) <= 4
    goes_on(world, b, a, c)


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 2**53},
        {"seq": SEQ_MAX},
        {"rest": bytes(32)},
        {"seq": 3, "floor": 2},
        {"key": "k" * (KEY_BYTES_MAX + 1)},
        {"context": ((b"v" * 16, 2**63),)},
        {"context": tuple((n.to_bytes(16, "big"), 1) for n in range(513))},
    ],
)
def test_numbers_beyond_all_bounds_are_refused_or_wait(world: Any, changes: dict[str, Any]) -> None:
    a, b, c = three(world)
    mallory = Attacker(world)
    record = mallory.write(changes.get("seq", 1), **changes)
    node = world.nodes[a]
    mallory.push(a)
    node._intake.heard(world.now, mallory.id, encode_record(record), [])
    world.run(1)
    assert mallory.id not in node.journal.heads
    goes_on(world, b, a, c)


def test_a_floor_that_goes_back_ends_its_writers_journal_and_nobody_elses(world: Any) -> None:
    a, b, c = three(world)
    mallory = Attacker(world)
    good = [mallory.write(1), mallory.write(2, floor=1, rest=rest())]
    mallory.push(a, *good, mallory.write(3, floor=0, rest=rest(good[1])))
    world.run(1)
    assert world.nodes[a].journal.heads[mallory.id] == 2
    assert any("floor went back" in line["reason"] for line in told(world, "record_refused"))
    goes_on(world, b, a, c)


def test_a_context_that_names_what_others_will_write_does_not_silence_them(world: Any) -> None:
    a, b, c = three(world)
    mallory = Attacker(world)
    context = ((world.nodes[b].identity.id, SEQ_MAX),)
    mallory.push(a, mallory.write(1, key="TrafficPolicy/default/one", context=context))
    world.run(1)
    world.write(b, policy("one"))
    world.run(2)
    node = world.nodes[c]
    (entry,) = Folder(node.journal, node.registry).policies_of(["TrafficPolicy/default/one"]).values()
    assert format_id(node_id(world, b)) in {version.writer for version in entry.versions}


def node_id(world: Any, address: Address) -> bytes:
    node: bytes = world.nodes[address].identity.id
    return node


# ------------------------------------------------------------------ amounts


def rogue(world: Any, journal: Journal, seed: Address) -> Address:
    """A member that runs the real node over a lawless journal."""
    address: Address = world.node(MALLORY, journal=journal)
    world.join(address, seed)
    world.run(1)
    return address


SMALL = JournalLimits(
    writer_records_max=100, writer_bytes_max=2**20, held_writer_bytes_max=2**20, held_bytes_max=2**21
)


def test_more_keys_than_a_writer_may_have_end_its_journal_and_are_not_asked_for_again_and_again(
    world: Any,
) -> None:
    registries = [world.mesh.registry() for _ in range(3)]
    honest = [
        world.node(n, registry=r, journal=Journal(verify=r.judge, limits=SMALL))
        for n, r in enumerate(registries, 1)
    ]
    for address in honest[1:]:
        world.join(address, honest[0])
    world.run(2)
    mallory = Attacker(world)
    journal = lawless()
    journal.merge((mallory.write(seq) for seq in range(1, 2001)), int(world.now * 1000))
    rogue(world, journal, honest[0])
    world.run(60)
    before, lines = begun(world, *honest), len(told(world, "record_refused"))
    world.run(60)
    assert begun(world, *honest) - before <= 9
    assert len(told(world, "record_refused")) - lines <= 3 * SORTS_MAX
    for address in honest:
        held = world.nodes[address].journal.statistics()
        assert held.records <= 100
        assert held.held_bytes <= SMALL.held_writer_bytes_max
    assert format_id(mallory.id) in {line["sender"] for line in told(world, "record_refused")}
    goes_on(world, honest[1], honest[0], honest[2])


def test_a_journal_of_the_future_is_not_fetched_in_a_tight_loop(world: Any) -> None:
    a, b, c = three(world)
    mallory = Attacker(world)
    journal = lawless()
    ahead = hlc_at(int((world.now + 10**6) * 1000))
    journal.merge((mallory.write(seq, hlc=ahead + seq) for seq in range(1, 101)), int(world.now * 1000))
    rogue(world, journal, a)
    world.run(240)
    before = begun(world, a, b, c)
    world.run(60)
    assert begun(world, a, b, c) - before <= 9
    assert world.nodes[a].journal.statistics().held_records <= 100
    goes_on(world, b, a, c)


@pytest.mark.parametrize("size", [129 * 1024, 10 * 2**20])
def test_a_record_that_is_too_large_is_refused_wherever_it_comes_in(world: Any, size: int) -> None:
    a, b, c = three(world)
    mallory = Attacker(world)
    mallory.push(a)
    huge = mallory.write(1, payload=bytes(size))
    node = world.nodes[a]
    node._intake.heard(world.now, mallory.id, encode_record(huge), [])
    node.step(world.now, StreamOpened(stream=40, node=mallory.id, inbound=True))
    mallory.feed(a, StreamFrame(stream=40, data=b"s\x00"))
    mallory.feed(a, StreamFrame(stream=40, data=b"r" + encode_record(huge)))
    assert told(world, "exchange_broken")[0]["node"] == mallory.name
    assert node.journal.statistics().records == 0
    assert node.journal.statistics().held_bytes == 0
    goes_on(world, b, a, c)


def test_who_asks_for_the_same_again_and_again_is_cut_off(world: Any) -> None:
    a, b, c = three(world)
    world.write(b, *(policy(f"p{n}", size=10_000) for n in range(6)))
    world.run(2)
    mallory = Attacker(world)
    mallory.feed(a, StreamOpened(stream=40, node=mallory.id, inbound=True))
    mallory.feed(a, StreamFrame(stream=40, data=b"s\x00"))
    frame = b"r" + encode_frame(Frame(more=True, asks=(Ask(node_id(world, b), 0, True),)))
    sent = received = 0
    for _ in range(100):
        received += len(frame)
        out = mallory.feed(a, StreamFrame(stream=40, data=frame))
        sent += sum(len(o.data) for o in out if isinstance(o, SendFrame))
    journal = world.nodes[a].journal.statistics().bytes
    assert sent <= 5 * journal
    assert told(world, "exchange_broken")[0]["node"] == mallory.name
    goes_on(world, b, a, c)


def test_who_fetches_the_whole_journal_in_one_exchange_after_the_other_is_slowed_down(
    world: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("peer.node_distrust.SERVED_BYTES_MIN", 0)
    a, b, c = three(world)
    world.write(b, *(policy(f"p{n}", size=100_000) for n in range(6)))
    world.run(2)
    mallory = Attacker(world)
    ended = Counter()
    sent = 0
    for _ in range(60):
        served, reason = mallory.exchange(a, lawless())
        ended[reason] += 1
        sent += served
        world.run(1)
    assert ended[SHUNNED] > 40
    assert sent <= 16 * world.nodes[a].journal.bytes_held
    goes_on(world, b, a, c)


# ------------------------------------------------------------------ lies


def test_one_liar_neither_releases_the_writes_of_a_blank_node_nor_makes_it_serve(world: Any) -> None:
    a, b, c = three(world)
    world.write(b, policy("one"))
    world.run(1)
    world.cut = lambda source, target: b in (source, target)
    del world.nodes[b]
    world.answers[b].clear()
    world.synced.clear()
    world.node(2, hold_writes_s=math.inf)
    world.join(b, a)
    world.write(b, policy("two"))
    mallory = Attacker(world)
    mallory.push(b)
    mallory.exchange(b, lawless())  # "I know the mesh, and there is nothing in it"
    assert b not in world.synced
    assert not any(isinstance(answer, Written) for answer in world.answers[b])
    world.cut = lambda _source, _target: False
    world.join(b, a, c)
    world.run(6)
    assert b in world.synced
    (answer,) = [answer for answer in world.answers[b] if isinstance(answer, Written)]
    assert (answer.error, answer.records[0].seq) == ("", 2)
    assert not any(world.nodes[address].journal.forks for address in (a, b, c))


def test_histories_that_contradict_each_other_end_in_the_one_signed_last_and_their_writer_is_named(
    world: Any,
) -> None:
    """One head, and no record under a number that another one has: what would prove the fork was replaced on either
    side. While records signed a sum of the live numbers, which is the same in both, the halves differed for ever."""
    honest = three(world)
    a, b, c = honest
    mallory = Attacker(world)
    for address in honest:
        mallory.push(address)

    def history(names: str) -> list[Record]:
        written: dict[str, Record] = {}
        records = []
        for seq, name in enumerate(names, 1):
            written.pop(name, None)
            key = f"TrafficPolicy/default/{name}"
            records.append(mallory.write(seq, key=key, rest=rest(*written.values())))
            written[name] = records[-1]
        return records

    left, right = history("xxxykk"), history("wzwwwq")
    world.cut = lambda source, target: (source == c) != (target == c)
    mallory.push(a, *left)
    mallory.push(c, *right[:5], left[5])
    world.run(1)
    assert [world.nodes[address].journal.heads[mallory.id] for address in honest] == [6, 6, 5]
    assert {line["record"] for line in told(world, "record_refused")} == {"policy TrafficPolicy/default/k"}
    world.cut = lambda _source, _target: False
    world.run(60)
    assert [world.nodes[address].journal.heads[mallory.id] for address in honest] == [6, 6, 6]
    assert {frozenset(keys(world, address)) for address in honest} == {
        frozenset(f"TrafficPolicy/default/{name}" for name in "xyk")
    }
    (lie,) = told(world, "contradiction")
    assert lie["writer"] == mallory.name
    assert lie["reason"] == "what it signed at 6 does not follow from what it signed at 5"
    before = begun(world, *honest)
    world.run(60)
    assert begun(world, *honest) - before <= 20  # to find Mallory again; while they differed it was 190
    goes_on(world, b, a, c)

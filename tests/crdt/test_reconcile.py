import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.frame import (
    FRAME_BYTES_MAX,
    FRAME_BYTES_TARGET,
    Answer,
    Ask,
    Frame,
    Item,
    Listing,
    Span,
    decode_frame,
    encode_frame,
)
from crdt.journal import Accept, Journal, JournalLimits
from crdt.reconcile import ASKS_MAX, IDLE_TURNS_MAX, RESTARTS_MAX, ReconcileError, Reconciliation
from crdt.record import RECORD_BYTES_MAX, record_bytes

EDITS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([b"", b"one", b"two"])), min_size=1, max_size=5
)


def in_sync(one: Journal, other: Journal) -> bool:
    return one.canonical() == other.canonical() and one.fingerprint() == other.fingerprint()


def crowd(crdt, writers: int, records: int, payload: bytes = b"x" * 300):
    """A replica with that many writers of that many records each, and their authors."""
    authors = [crdt.Author(n).write_all((f"key{k}", payload) for k in range(records)) for n in range(writers)]
    journal = crdt.replica()
    for author in authors:
        journal.merge(author.records, crdt.NOW_MS)
    return journal, authors


def copy(crdt, journal: Journal) -> Journal:
    twin = crdt.replica()
    twin.restore([r for kind in ("policy",) for r in journal.records(kind)], dict(journal.heads))
    return twin


# ---------------------------------------------------------------------- convergence


@given(st.lists(EDITS, min_size=1, max_size=40), st.data())
def test_any_two_replicas_converge(crdt, histories, data):
    authors = [crdt.Author(n).write_all(edits) for n, edits in enumerate(histories)]
    replicas = crdt.replica(), crdt.replica()
    for author in authors:
        for replica in replicas:
            replica.merge(author.records[: data.draw(st.integers(0, len(author.records)))], crdt.NOW_MS)
    session = crdt.reconcile(*replicas)
    assert in_sync(*replicas)
    for author in authors:
        heads = {replica.heads.get(author.id, 0) for replica in replicas}
        assert len(heads) == 1
    assert not any(merged.refused or merged.waiting for merged in session.merges)
    assert crdt.reconcile(*replicas).bytes < 64


@pytest.mark.parametrize("writers", [1, 6, 7, 16, 17, 300])
def test_a_newcomer_gets_everything_whichever_side_begins(crdt, writers):
    journal, _ = crowd(crdt, writers, 2, b"x")
    for order in (lambda a, b: (a, b), lambda a, b: (b, a)):
        newcomer = crdt.replica()
        crdt.reconcile(*order(journal, newcomer))
        assert in_sync(journal, newcomer)


def test_two_empty_replicas_are_in_sync(crdt):
    assert len(crdt.reconcile(crdt.replica(), crdt.replica()).frames) == 2


def test_a_journal_that_changes_meanwhile_does_not_disturb(crdt):
    journal, authors = crowd(crdt, 60, 3)
    newcomer = crdt.replica()
    changing = iter(authors[:40])

    def change() -> None:
        author = next(changing, None)
        if author is not None:
            record = author.write("key1", b"meanwhile")
            for replica in (journal, newcomer)[: 1 + record.writer[0] % 2]:  # some are pushed to both
                replica.merge([record], crdt.NOW_MS)

    crdt.reconcile(newcomer, journal, between=change)
    crdt.reconcile(newcomer, journal)
    assert in_sync(newcomer, journal)
    assert newcomer.get(authors[0].id, "policy", "key1").payload == b"meanwhile"


# ---------------------------------------------------------------------- costs


def test_in_sync_costs_one_tiny_exchange_however_much_there_is(crdt):
    journal, _ = crowd(crdt, 200, 10)
    session = crdt.reconcile(journal, copy(crdt, journal))
    assert len(session.frames) == 2
    assert session.bytes < 64


def test_twenty_differences_among_ten_thousand_records_cost_at_most_25_kilobytes(crdt):
    journal, authors = crowd(crdt, 1000, 10)
    other = copy(crdt, journal)
    shipped = 0
    for number, author in enumerate(random.Random(7).sample(authors, 20)):
        record = author.write("key3", b"y" * 300)
        shipped += record_bytes(record)
        (journal, other)[number % 2].merge([record], crdt.NOW_MS)
    session = crdt.reconcile(journal, other)
    assert in_sync(journal, other)
    assert session.bytes <= 25_000
    assert session.bytes - shipped <= 10_000
    assert sum(s.statistics().records_received for s in session.sessions) == 20
    carrying = [number for number, frame in enumerate(session.frames, 1) if decode_frame(frame).answers]
    assert carrying[-1] <= 6  # three round trips


def test_frames_stay_near_their_target_while_much_flows(crdt):
    journal, _ = crowd(crdt, 100, 20)
    newcomer = crdt.replica()
    session = crdt.reconcile(newcomer, journal)
    assert in_sync(newcomer, journal)
    assert max(map(len, session.frames)) <= FRAME_BYTES_TARGET
    assert session.bytes > 10 * FRAME_BYTES_TARGET


def test_a_journal_larger_than_a_frame_flows_in_parts(crdt):
    """The first seq is superseded by the last, so nothing of it may show before the last part is there."""
    journal, (author,) = crowd(crdt, 1, 40, b"x" * 10_000)
    journal.merge([author.write("key0", b"newer")], crdt.NOW_MS)
    newcomer = crdt.replica()
    session = crdt.reconcile(newcomer, journal)
    assert in_sync(newcomer, journal)
    assert [len(merged.accepted) for merged in session.merges] == [0] * (len(session.merges) - 1) + [40]
    assert len(session.merges) > 5


def test_the_largest_record_flows_in_one_frame(crdt):
    author = crdt.Author(1)
    room = RECORD_BYTES_MAX - record_bytes(author.draft("big", b""))
    author.write_all([("small", b"x"), ("big", b"x" * room), ("last", b"x")])
    author.journal.introduce(author.id, b"c" * 4096)
    newcomer = crdt.replica()
    session = crdt.reconcile(newcomer, author.journal)
    assert in_sync(newcomer, author.journal)
    assert FRAME_BYTES_TARGET < max(map(len, session.frames)) <= FRAME_BYTES_MAX


def test_an_interrupted_transfer_resumes_where_it_stopped(crdt):
    journal, (author,) = crowd(crdt, 1, 40, b"x" * 10_000)
    journal.merge([author.write("key0", b"newer")], crdt.NOW_MS)
    newcomer = crdt.replica()
    newcomer.absorb(journal.delta(author.id, 0, 200_000), crdt.NOW_MS)
    assert newcomer.heads == {}
    session = crdt.reconcile(newcomer, journal)
    assert in_sync(newcomer, journal)
    assert session.bytes < 250_000


def test_what_waits_in_quarantine_is_not_shipped_again(crdt):
    author = crdt.Author(1)
    author.now_ms += crdt.DRIFT_MS + 1000
    author.write_all([("a", b"x" * 1000), ("b", b"x" * 1000)])
    newcomer = crdt.replica()
    assert crdt.reconcile(newcomer, author.journal).bytes > 2000
    assert newcomer.heads == {}
    assert crdt.reconcile(newcomer, author.journal).bytes < 400
    newcomer.retry_waiting(author.now_ms)
    assert in_sync(newcomer, author.journal)


# ---------------------------------------------------------------------- introductions and forks


def test_writers_are_introduced_to_those_who_do_not_know_them(crdt):
    journal, (author,) = crowd(crdt, 1, 1)
    journal.introduce(author.id, b"credential")
    newcomer = crdt.replica()
    crdt.reconcile(newcomer, journal)
    assert newcomer.introductions == {author.id: b"credential"}
    journal.merge([author.write("more")], crdt.NOW_MS)
    assert b"credential" not in b"".join(crdt.reconcile(newcomer, journal).frames)


def test_two_who_hold_different_forks_find_the_proof(crdt):
    one = crdt.Author(1).write_all([("a", b"1"), ("b", b"1"), ("a", b"2")]).journal
    other = crdt.Author(1).write_all([("a", b"1"), ("b", b"other"), ("a", b"2")]).journal
    session = crdt.reconcile(one, other)
    assert sum(len(merged.equivocations) for merged in session.merges) == 2
    assert in_sync(one, other)
    assert crdt.reconcile(one, other).bytes < 64


@pytest.mark.parametrize("knows_writer", [True, False])
@pytest.mark.parametrize("accuser_begins", [True, False])
def test_a_proof_spreads_to_whoever_lacks_it(crdt, knows_writer, accuser_begins):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1")])
    accuser, stranger = copy(crdt, author.journal), crdt.replica()
    accuser.merge([crdt.sign(replace(author.records[1], payload=b"other"))], crdt.NOW_MS)
    if knows_writer:
        stranger.merge([*author.records, author.write("c")], crdt.NOW_MS)
    crdt.reconcile(*((accuser, stranger) if accuser_begins else (stranger, accuser)))
    assert stranger.forks.keys() == {author.id}
    assert in_sync(accuser, stranger)


def test_what_did_not_add_up_is_fetched_whole_from_the_next_peer(crdt):
    journal, (author,) = crowd(crdt, 1, 5)
    victim = crdt.replica()
    delta = crdt.whole(journal, author.id)
    victim.absorb(replace(delta, records=delta.records[2:]), crdt.NOW_MS)
    assert victim.statistics().contested_writers == 1
    crdt.reconcile(victim, journal)
    assert in_sync(victim, journal)
    assert victim.statistics().contested_writers == 0


def test_a_journal_refused_for_its_size_does_not_keep_the_rest_away(crdt):
    journal, _ = crowd(crdt, 3, 2)
    big = crdt.Author(9).write_all((f"key{n}", b"x" * 2000) for n in range(10))
    journal.merge(big.records, crdt.NOW_MS)
    newcomer = crdt.replica(JournalLimits(writer_bytes_max=5000))
    session = crdt.reconcile(newcomer, journal)
    assert newcomer.heads.keys() == journal.heads.keys() - {big.id}
    assert any("at most 5000" in why for merged in session.merges for _, why in merged.refused)


# ---------------------------------------------------------------------- hostile peers


def begun(crdt, writers: int = 40) -> tuple[Reconciliation, Journal, list]:
    journal, authors = crowd(crdt, writers, 2, b"x")
    session = Reconciliation(journal, initiator=True)
    session.start()
    return session, journal, authors


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_the_typed_error_alone(crdt, data):
    session = Reconciliation(crdt.Author(1).write_all([("a", b"1")]).journal, initiator=True)
    session.start()
    with pytest.raises(ReconcileError):
        session.receive(data)


@given(st.integers(0, 10_000), st.data())
def test_a_damaged_conversation_ends_or_raises_the_typed_error(crdt, seed, data):
    journal, authors = crowd(crdt, 30, 2, b"x")
    newcomer = crdt.replica()
    newcomer.merge(authors[0].records[:1], crdt.NOW_MS)
    sessions = Reconciliation(newcomer, initiator=True), Reconciliation(journal, initiator=False)
    rng = random.Random(seed)
    frames, side, turns = sessions[0].start(), 1, 0
    try:
        while frames:
            turns += 1
            assert turns < 1000
            frame = bytearray(frames[0])
            if rng.random() < 0.2:
                frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
            step = sessions[side].receive(bytes(frame))
            for delta, _ in step.deltas:
                (newcomer, journal)[side].absorb(delta, crdt.NOW_MS)
            frames, side = step.send, 1 - side
    except ReconcileError:
        pass
    for author in authors:
        held = newcomer.delta(author.id, 0, 2**30).records
        assert list(held) == crdt.live_by_definition(author.records[: newcomer.heads.get(author.id, 0)])


def test_a_delta_nobody_asked_for_is_an_offence(crdt):
    session, _, _ = begun(crdt)
    stranger = crdt.Author(99).write_all([("a", b"1")])
    frame = Frame(more=False, answers=(Answer(delta=crdt.whole(stranger.journal, stranger.id)),))
    with pytest.raises(ReconcileError, match="nobody asked"):
        session.receive(encode_frame(frame))


def test_a_delta_from_another_seq_than_asked_is_an_offence(crdt):
    session, _, _ = begun(crdt)
    stranger = crdt.Author(99).write_all([("a", b"1"), ("b", b"1")])
    step = session.receive(encode_frame(Frame(more=True, heads=(Item(stranger.id, 2, b"c" * 8),))))
    (ask,) = decode_frame(step.send[0]).asks
    assert ask == Ask(stranger.id, 0, True)
    wrong = Frame(more=False, answers=(Answer(delta=stranger.journal.delta(stranger.id, 1, 2**30)),))
    with pytest.raises(ReconcileError, match="nobody asked"):
        session.receive(encode_frame(wrong))


def test_asks_are_bounded_at_a_time(crdt):
    session, _, _ = begun(crdt)
    heads = tuple(Item(crdt.writer_id(n), 1, b"c" * 8) for n in range(1000, 1000 + 2 * ASKS_MAX))
    frame = decode_frame(session.receive(encode_frame(Frame(more=True, heads=heads))).send[0])
    assert len(frame.asks) == ASKS_MAX
    assert frame.more


def test_a_peer_that_promises_more_and_sends_nothing_is_left(crdt):
    session, _, _ = begun(crdt)
    idle = encode_frame(Frame(more=True))
    for _ in range(IDLE_TURNS_MAX):
        session.receive(idle)
    with pytest.raises(ReconcileError, match="gets nowhere"):
        session.receive(idle)


def test_a_peer_that_does_not_answer_asks_is_left(crdt):
    session, _, _ = begun(crdt)
    session.receive(encode_frame(Frame(more=False, heads=(Item(b"?" * 16, 1, b"c" * 8),))))
    nothing = encode_frame(Frame(more=False))
    for _ in range(IDLE_TURNS_MAX):
        assert not session.receive(nothing).done
    with pytest.raises(ReconcileError, match="gets nowhere"):
        session.receive(nothing)


def test_a_peer_that_no_longer_has_what_it_named_says_so_and_the_session_ends(crdt):
    session, _, _ = begun(crdt)
    step = session.receive(encode_frame(Frame(more=False, heads=(Item(b"?" * 16, 1, b"c" * 8),))))
    (ask,) = decode_frame(step.send[0]).asks
    answering = Reconciliation(crdt.replica(), initiator=False)
    step = session.receive(answering.receive(encode_frame(Frame(more=True, asks=(ask,)))).send[0])
    assert step.deltas == []
    assert step.done


def test_a_frame_after_the_end_is_an_offence(crdt):
    session = Reconciliation(crdt.replica(), initiator=True)
    session.start()
    assert session.receive(encode_frame(Frame(more=False))).done
    with pytest.raises(ReconcileError, match="after the end"):
        session.receive(encode_frame(Frame(more=False)))


def test_a_queue_of_asks_is_bounded(crdt, monkeypatch):
    monkeypatch.setattr("crdt.reconcile.QUEUE_MAX", 5)
    session, _, _ = begun(crdt)
    asks = tuple(Ask(crdt.writer_id(n), 0, False) for n in range(6))
    with pytest.raises(ReconcileError, match="too much"):
        session.receive(encode_frame(Frame(more=True, asks=asks)))


def test_the_number_of_frames_is_bounded(crdt, monkeypatch):
    monkeypatch.setattr("crdt.reconcile.FRAMES_MAX", 3)
    session, _, _ = begun(crdt)
    ask = encode_frame(Frame(more=True, asks=(Ask(b"?" * 16, 0, False),)))
    for _ in range(3):
        session.receive(ask)
    with pytest.raises(ReconcileError, match="no end"):
        session.receive(ask)


def test_a_session_describes_itself(crdt):
    session, _, _ = begun(crdt)
    assert repr(session) == "Reconciliation(0 writers wanted, 30 bytes sent, 0 received)"
    assert session.statistics().frames_sent == 1


def test_verdicts_stay_with_the_journal(crdt):
    """A session hands over what it is given: forged records reach `absorb`, and stop there."""
    believer = Journal(verify=lambda record, now_ms: Accept())
    author = crdt.Author(1).write_all([("a", b"1")])
    believer.merge([replace(author.records[0], payload=b"forged")], crdt.NOW_MS)
    sceptic = crdt.replica()
    session = crdt.reconcile(sceptic, believer)
    assert sceptic.heads == {}
    assert session.merges[0].refused[0][1] == "signature does not verify"


def ask_from(author, *afters: int) -> bytes:
    return encode_frame(Frame(more=True, asks=tuple(Ask(author.id, after, False) for after in afters)))


def test_whoever_asks_for_the_same_again_and_again_has_broken_the_protocol(crdt):
    author = crdt.Author(1).write_all([("a", b"1"), ("b", b"1")])
    session = Reconciliation(author.journal, initiator=False)
    for _ in range(1 + RESTARTS_MAX):
        session.receive(ask_from(author, 0))
    with pytest.raises(ReconcileError, match="again and again"):
        session.receive(ask_from(author, 0))
    assert session.statistics().records_sent == 2 * (1 + RESTARTS_MAX)


def test_reading_on_from_the_end_of_each_answer_is_no_repetition(crdt):
    author = crdt.Author(1).write_all((f"key{n}", bytes(20_000)) for n in range(30))
    session = Reconciliation(author.journal, initiator=False)
    upto = 0
    while upto < 30:
        (answer,) = decode_frame(session.receive(ask_from(author, upto)).send[0]).answers
        upto = answer.delta.upto
    assert session.statistics().records_sent == 30


@pytest.mark.parametrize("at_once", [True, False])
def test_overlapping_asks_do_not_multiply_what_is_sent(crdt, at_once):
    """Each asks for a little more than the one before, and would be given nearly the whole journal."""
    author = crdt.Author(1).write_all((f"key{n}", b"x") for n in range(50))
    session = Reconciliation(author.journal, initiator=False)
    frames = [ask_from(author, *range(50))] if at_once else [ask_from(author, after) for after in range(50)]
    for frame in frames[: 1 + RESTARTS_MAX if len(frames) > 1 else 0]:
        session.receive(frame)
    with pytest.raises(ReconcileError, match="again and again"):
        session.receive(frames[-1])
    assert session.statistics().records_sent <= 50 * (1 + RESTARTS_MAX)


def test_ranges_listed_over_and_over_are_an_offence(crdt):
    """A list of a wide range takes five bytes, and comparing it walks over all the writers in it."""
    session, _, authors = begun(crdt)
    everything, half = Span(b"", None), Span(b"", max(author.id for author in authors))
    session.receive(encode_frame(Frame(more=True, listings=(Listing(everything, ()),))))
    with pytest.raises(ReconcileError, match="lists the same"):
        session.receive(encode_frame(Frame(more=True, listings=(Listing(half, ()),))))
    session, _, _ = begun(crdt)
    with pytest.raises(ReconcileError, match="lists the same"):
        session.receive(encode_frame(Frame(more=True, listings=(Listing(everything, ()),) * 1000)))


def test_checks_are_keyed_with_the_fingerprint_the_session_began_with(crdt):
    """One more record anywhere, and all checks are others."""
    journal, authors = crowd(crdt, 40, 2)
    other = copy(crdt, journal)
    checks = []
    for _ in range(2):
        journal.merge([authors[0].write("more")], crdt.NOW_MS)
        (opening,) = Reconciliation(journal, initiator=True).start()
        (probe,) = decode_frame(Reconciliation(other, initiator=False).receive(opening).send[0]).probes
        checks.append(probe.ranges)
    assert [bound for bound, _ in checks[0]] == [bound for bound, _ in checks[1]]
    assert all(one != two for (_, one), (_, two) in zip(*checks, strict=True))


def test_no_more_is_asked_of_a_writer_once_it_is_given_up(crdt):
    author = crdt.Author(1)
    for number in range(8):
        author.write(f"key{number}", bytes(20_000))
    here = crdt.replica()
    asking, answering = (
        Reconciliation(here, initiator=True),
        Reconciliation(author.journal, initiator=False),
    )
    (frame,) = asking.start()
    received = 0
    while True:
        reply = answering.receive(frame)
        if not reply.send:
            break
        step = asking.receive(reply.send[0])
        for delta, _ in step.deltas:
            received += len(delta.records)
            asking.give_up(delta.writer)
        if not step.send:
            break
        (frame,) = step.send
    assert asking.done
    assert received < 8

import itertools

from gossip.contact import URGENT_ATTEMPTS, Contacts


def times(contacts: Contacts[str], target: str, until: float) -> list[float]:
    now, tried = 0.0, []
    while now < until:
        if contacts.overdue(now, lambda _: True) is not None:
            contacts.tried(target, now)
            tried.append(now)
        now += 0.5
    return tried


def test_attempts_come_ever_more_rarely_up_to_the_cap_and_never_end() -> None:
    contacts: Contacts[str] = Contacts(backoff_s=2, backoff_s_max=30)
    contacts.add("x", 0.0)
    tried = times(contacts, "x", 3600)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert tried[0] == 2
    assert gaps[:4] == [2, 4, 8, 16]
    assert set(gaps[4:]) == {30}


def test_the_most_overdue_comes_first_and_the_unwanted_do_not_block() -> None:
    contacts: Contacts[str] = Contacts(backoff_s=2, backoff_s_max=30)
    contacts.add("first", 0.0)
    contacts.add("second", 1.0)
    assert contacts.overdue(1.5, lambda _: True) is None
    assert contacts.overdue(10, lambda _: True) == (2.0, "first")
    assert contacts.overdue(10, lambda target: target != "first") == (3.0, "second")
    assert contacts.overdue(10, lambda _: True) == (3.0, "second")  # the unwanted wait another cap
    assert contacts.deadline == 3.0
    contacts.remove("second")
    assert contacts.deadline == 40.0


def test_an_attempt_a_century_long_does_not_overflow() -> None:
    contacts: Contacts[str] = Contacts(backoff_s=2, backoff_s_max=30)
    contacts.add("x", 0.0)
    assert [contacts.tried("x", 0.0) for _ in range(5000)][-1] == 5000


def test_removed_and_added_starts_afresh() -> None:
    contacts: Contacts[str] = Contacts(backoff_s=2, backoff_s_max=30)
    contacts.add("x", 0.0)
    for _ in range(10):
        contacts.tried("x", 0.0)
    contacts.remove("x")
    assert len(contacts) == 0
    contacts.add("x", 100.0)
    assert contacts.overdue(102, lambda _: True) == (102.0, "x")


def test_while_it_is_urgent_the_back_off_begins_to_grow_later() -> None:
    contacts: Contacts[str] = Contacts(backoff_s=2, backoff_s_max=30)
    contacts.add("x", 0.0, share=0.5)
    assert contacts.deadline == 1.0
    gaps = []
    for _ in range(URGENT_ATTEMPTS + 6):
        contacts.tried("x", 0.0, urgent=True)
        assert contacts.deadline is not None
        gaps.append(contacts.deadline)
    assert gaps[:URGENT_ATTEMPTS] == [2] * URGENT_ATTEMPTS
    assert gaps[URGENT_ATTEMPTS:] == [2, 4, 8, 16, 30, 30]


def test_a_target_no_longer_known_is_forgotten_when_its_time_comes() -> None:
    contacts: Contacts[str] = Contacts(backoff_s=2, backoff_s_max=30)
    contacts.add("gone", 0.0)
    contacts.add("x", 0.5)
    assert contacts.overdue(10, lambda _: True, known=lambda target: target != "gone") == (2.5, "x")
    assert len(contacts) == 1

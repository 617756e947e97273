from hypothesis import given
from hypothesis import strategies as st

from gossip.order import IdOrder

IDS = st.integers(0, 60).map(lambda number: bytes([number]))


@given(
    base=st.frozensets(IDS, max_size=30),
    changes=st.lists(st.tuples(st.booleans(), IDS), max_size=40),
    point=IDS,
)
def test_whatever_the_base_and_the_changes_it_is_a_sorted_set(
    base: frozenset[bytes], changes: list[tuple[bool, bytes]], point: bytes
) -> None:
    order, plain = IdOrder(tuple(sorted(base))), set(base)
    for put, node in changes:
        if put:
            order.add(node)
            plain.add(node)
        else:
            order.remove(node)
            plain.discard(node)
    expected = sorted(plain)
    assert len(order) == len(expected)
    assert list(order) == expected
    assert [order.at(rank) for rank in range(len(expected))] == expected
    assert [node in order for node in expected] == [True] * len(expected)
    assert (point in order) == (point in plain)
    below = [node for node in expected if node < point]
    assert order.rank(point) == len(below)
    assert list(order.after(point)) == expected[len(below) :] + below
    assert list(order.between(point, None)) == expected[len(below) :]
    assert list(order.between(b"\x05", point)) == [node for node in below if node >= b"\x05"]


def test_orders_that_share_a_base_keep_their_changes_to_themselves() -> None:
    base = tuple(bytes([number]) for number in range(10))
    first, second = IdOrder(base), IdOrder(base)
    first.remove(base[3])
    first.add(b"zz")
    assert (len(first), len(second)) == (10, 10)
    assert base[3] in second
    assert b"zz" not in second

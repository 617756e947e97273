"""Who takes a connection from a socket that several share."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from proxy.breaker import HELD
from proxy.embedded import accepting
from proxy.embedded.accepting import SLACK, YIELD_S, Acceptor, Seat
from proxy.embedded.board import GROUPS, NO_GROUP, Board, Groups


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.make(3)
    yield made
    made.close()


def seat(board: Board, number: int, held: list[int]) -> Seat:
    columns = [board.column(each) for each in range(3)]
    own = columns.pop(number)
    return Seat(own, tuple(columns), lambda: held[number])


def test_a_worker_is_full_when_another_that_takes_connections_holds_fewer(board: Board) -> None:
    held = [5, 5, 0]
    first, second, third = (seat(board, number, held) for number in range(3))
    first.tell()
    second.tell()
    assert not first.is_full, "the third takes none yet, and nobody holds fewer"
    held[1] = 5 - SLACK
    second.tell()
    assert not first.is_full
    third.tell()
    assert first.is_full
    assert second.is_full
    assert not third.is_full
    board.wipe(2)
    assert not second.is_full, "the third has ended"
    third.tell()
    third.leave()
    assert not second.is_full, "the third drains"
    first.connecting(3)
    assert first.is_full, "those on their way count"
    assert repr(board.column(0)[0]) == "9"


def test_both_sides_of_a_board_see_the_same_numbers(board: Board) -> None:
    import os

    other = Board(os.dup(board.descriptor), 3)
    board.column(1)[0] = 7
    assert other.column(1)[0] == 7
    other.wipe(1)
    assert board.column(1)[0] == 0
    other.close()


class Told(asyncio.Protocol):
    def __init__(self, taken: list[asyncio.BaseTransport]) -> None:
        self._taken = taken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._taken.append(transport)


async def test_a_full_worker_leaves_a_connection_to_others_and_takes_what_nobody_wanted(board: Board) -> None:
    loop = asyncio.get_running_loop()
    held = [9, 0, 0]
    own, other = seat(board, 0, held), seat(board, 1, held)
    other.tell()
    taken: list[asyncio.BaseTransport] = []
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:
        listening.setblocking(False)
        acceptor = Acceptor(loop, own, lambda: Told(taken), listening.dup())
        acceptor.start()
        begun_s = loop.time()
        with contextlib.closing(socket.create_connection(listening.getsockname())):
            while not taken:
                await asyncio.sleep(0.001)
            assert loop.time() - begun_s >= YIELD_S * 0.9
        acceptor.close()
        acceptor.close()
        with contextlib.closing(socket.create_connection(listening.getsockname())):
            await asyncio.sleep(2 * YIELD_S)
            assert len(taken) == 1, "closed: what comes now is for others"
    for transport in taken:
        transport.close()


async def test_an_error_that_is_ours_makes_it_wait(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "PAUSE_S", 0.02)
    loop = asyncio.get_running_loop()
    taken: list[asyncio.BaseTransport] = []

    class Exhausted(socket.socket):
        tries = 0

        def accept(self) -> tuple[socket.socket, object]:
            Exhausted.tries += 1
            if Exhausted.tries < 3:
                raise OSError(24, "Too many open files")
            return super().accept()

    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:
        acceptor = Acceptor(
            loop, seat(board, 0, [0, 0, 0]), lambda: Told(taken), Exhausted(fileno=listening.dup().detach())
        )
        listening.setblocking(False)
        acceptor.start()
        with contextlib.closing(socket.create_connection(listening.getsockname())):
            async with asyncio.timeout(5):
                while not taken:
                    await asyncio.sleep(0.001)
        assert Exhausted.tries >= 3
        acceptor.close()
    for transport in taken:
        transport.close()


# ---------------------------------------------------------------- groups of the board


def test_a_cluster_keeps_its_group_and_one_that_is_gone_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.embedded.board.GROUPS", 3)
    groups = Groups()
    assert groups.of(["a", "b"]) == (0, 1)
    assert groups.of(["c", "b", "d"]) == (2, 1, NO_GROUP), "a is served until all workers serve the next"
    groups.keep_only({"c", "b", "d"})
    assert groups.of(["d", "c", "b"]) == (0, 2, 1)


def test_groups_do_not_touch_one_another_nor_the_loads(board: Board) -> None:
    for number in (0, 1, GROUPS - 1):
        board.group(2, number)[0] = board.group(2, number)[HELD - 1] = number + 1
    assert [board.group(2, number)[0] for number in (0, 1, GROUPS - 1)] == [1, 2, GROUPS]
    assert board.column(2)[0] == 0
    assert not any(board.column(0))
    assert not any(board.column(1))
    board.wipe(2)
    assert not any(board.column(2))

"""The networks between the nodes of a real mesh.

`Loopback`: addresses in 127/8 and nothing between them. `Router`: a network namespace for each node, joined by one that
routes and whose nftables rules cut and lose (on FORWARD: on OUTPUT a sender would get EPERM). `Switch`
(`chaos/drivers/switch.py`): the same namespaces, joined by TUN devices that one process reads, for what no packet
filter can do: delay, jitter, disorder, damage, a bandwidth.

Everything has a name that begins with the run's own prefix, lives inside namespaces made for the run, and goes with
them: no interface, address or rule of the host is touched.

Invariant: `commands_down` undoes all that `up` did, at whatever point it stopped, and is what the dead man runs too.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Final, Protocol

from chaos.conditions import Pair, Path
from chaos.drivers.driver import DriverError
from chaos.drivers.names import Names, name_of

GOSSIP_PORT: Final = 7946
INBOUND_PORT: Final = 15006
COMMAND_S_MAX: Final = 30.0


def must(*words: str, stdin: str | None = None) -> str:
    """Run a command; its standard output. Raises DriverError with its last words."""
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False
        )
    except FileNotFoundError as error:
        raise DriverError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise DriverError(f"{' '.join(words[:4])} took over {COMMAND_S_MAX:g} s") from error
    if done.returncode:
        raise DriverError(f"{' '.join(words[:6])}: {done.stderr.strip()[-300:] or done.returncode}")
    return done.stdout


class Fabric(Protocol):
    """Where nodes are and what passes between them."""

    def up(self, count: int) -> None:
        """Make the network for so many nodes. Raises DriverError."""

    def host(self, index: int) -> str:
        """The address of a node."""

    def seed(self, index: int) -> str:
        """What others are told to find that node by: its address, or a name."""

    def resolve(self, index: int, *, works: bool) -> None:
        """Whether names resolve there from now on."""

    def prefix(self, index: int) -> Sequence[str]:
        """What stands in front of a command that is to run there."""

    def shape(self, paths: Mapping[Pair, Path]) -> None:
        """Let exactly this stand between the nodes from now on."""

    def down(self) -> None:
        """End what runs for it."""

    def commands_down(self) -> list[list[str]]:
        """What the dead man runs."""


class Loopback:
    """127.x.y.1, 127.x.y.2, …: `network` is "127.x.y"."""

    def __init__(self, network: str) -> None:
        self._network = network

    def up(self, count: int) -> None:
        return None

    def host(self, index: int) -> str:
        return f"{self._network}.{index + 1}"

    def seed(self, index: int) -> str:
        return self.host(index)

    def resolve(self, index: int, *, works: bool) -> None:
        raise AssertionError("the driver says it lacks this")

    def prefix(self, index: int) -> Sequence[str]:
        return ()

    def shape(self, paths: Mapping[Pair, Path]) -> None:
        assert all(path == Path() for path in paths.values()), "the driver says it lacks this"

    def down(self) -> None:
        return None

    def commands_down(self) -> list[list[str]]:
        return []


class _Namespaces:
    """A namespace for each node, and one in the middle."""

    def __init__(self, prefix: str, most: int, *, named: bool = False) -> None:
        """`most` nodes at most; with `named` they find one another by name."""
        self._prefix = prefix
        self._most = most
        nodes = {self.name(index): self.host(index) for index in range(most)}
        self._names = Names(nodes) if named else None

    def name(self, index: int) -> str:
        return f"{self._prefix}-n{index}"

    @property
    def middle(self) -> str:
        return f"{self._prefix}-hub"

    def host(self, index: int) -> str:
        return f"10.211.{index // 250}.{index % 250 + 1}"

    def seed(self, index: int) -> str:
        return self.host(index) if self._names is None else name_of(index)

    def resolve(self, index: int, *, works: bool) -> None:
        assert self._names is not None, "who is to lose names has some"
        self._names.resolve(index, works=works)

    def prefix(self, index: int) -> Sequence[str]:
        return ("ip", "netns", "exec", self.name(index))

    def commands_down(self) -> list[list[str]]:
        down = [["ip", "netns", "del", name] for name in (*map(self.name, range(self._most)), self.middle)]
        return down + ([] if self._names is None else self._names.commands_down())

    def _make(self, count: int) -> None:
        if self._names is not None:
            self._names.up()
        for name in (self.middle, *(self.name(index) for index in range(count))):
            must("ip", "netns", "add", name)
            must("ip", "-n", name, "link", "set", "lo", "up")


class Router(_Namespaces):
    """Veth pairs and a router with rules. Each node has a /32 of its own and its default route through the router."""

    def up(self, count: int) -> None:
        self._make(count)
        hub = self.middle
        must("ip", "netns", "exec", hub, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for index in range(count):
            node, wire = self.name(index), f"v{index}"
            must("ip", "-n", hub, "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", node)
            must("ip", "-n", hub, "addr", "add", "169.254.77.1/32", "dev", wire)
            must("ip", "-n", hub, "link", "set", wire, "up")
            must("ip", "-n", hub, "route", "add", f"{self.host(index)}/32", "dev", wire)
            must("ip", "-n", node, "addr", "add", f"{self.host(index)}/32", "dev", "eth0")
            must("ip", "-n", node, "link", "set", "eth0", "up")
            must("ip", "-n", node, "route", "add", "169.254.77.1/32", "dev", "eth0")
            must("ip", "-n", node, "route", "add", "default", "via", "169.254.77.1", "dev", "eth0")
        self.shape({})

    def shape(self, paths: Mapping[Pair, Path]) -> None:
        must("ip", "netns", "exec", self.middle, "nft", "-f", "-", stdin=self.rules(paths))

    def rules(self, paths: Mapping[Pair, Path]) -> str:
        """One transaction that puts these rules in the place of all others."""
        lines = []
        for (source, target), path in sorted(paths.items()):
            assert not path.shaped, "the driver takes a switch for this"
            match = f"ip saddr {self.host(int(source[1:]))} ip daddr {self.host(int(target[1:]))}"
            if path.cut:
                lines.append(f"{match} drop")
                continue
            for wanted, port in ((path.cut_control, GOSSIP_PORT), (path.cut_data, INBOUND_PORT)):
                if wanted:
                    lines += [f"{match} th dport {port} drop", f"{match} th sport {port} drop"]
            if path.loss:
                lines.append(f"{match} numgen random mod 100000 < {round(path.loss * 100_000)} drop")
        body = "".join(f"    {line}\n" for line in lines)
        return (
            "table inet chaos\nflush table inet chaos\n"
            "table inet chaos {\n  chain forward {\n    type filter hook forward priority 0; policy accept;\n"
            f"{body}  }}\n}}\n"
        )

    def down(self) -> None:
        return None


class Switch(_Namespaces):
    """TUN devices, all read by one process (`chaos/drivers/switch.py`), which is told what stands as lines of JSON."""

    def __init__(self, prefix: str, most: int, seed: int, *, named: bool = False) -> None:
        super().__init__(prefix, most, named=named)
        self._seed = seed
        self._process: subprocess.Popen[str] | None = None

    def up(self, count: int) -> None:
        self._make(count)
        words = [sys.executable, "-m", "chaos.drivers.switch", str(self._seed), self.middle]
        for index in range(count):
            words += [f"n{index}", self.name(index), self.host(index)]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", self.middle, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._answer("ready")

    def shape(self, paths: Mapping[Pair, Path]) -> None:
        told = [[source, target, path.data()] for (source, target), path in paths.items()]
        stdin = self._pipe("stdin")
        try:
            stdin.write(json.dumps(told) + "\n")
            stdin.flush()
        except OSError as error:
            raise DriverError(f"the switch has ended: {error}") from error
        self._answer("shaped")

    def down(self) -> None:
        if self._process is not None:
            try:
                self._process.communicate(timeout=COMMAND_S_MAX)  # the end of its input ends it
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
            self._process = None

    def _answer(self, expected: str) -> None:
        line = self._pipe("stdout").readline().strip()
        if line != expected:
            raise DriverError(f"the switch said {line!r} where {expected!r} was expected")

    def _pipe(self, name: str) -> IO[str]:
        assert self._process is not None, "the switch is up"
        pipe = self._process.stdin if name == "stdin" else self._process.stdout
        assert pipe is not None, "both pipes were asked for"
        return pipe

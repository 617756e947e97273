"""What can be done to a running mesh of this machine: plain functions, for Chaos Toolkit, notebooks and tests.

A peer is named by its data directory. Actions of processes work on any mesh; what needs a network of its own
(partitions, loss, delay) needs the driver `netns`, which builds one, and is refused here by name.

`begin` and `end` are what `gossamer chaos export` writes: they take a fault as an experiment file has it and look the
data directories up in `configuration`, {"gossamer-directories": {"n0": "/var/lib/gossamer", …}}.

Invariant: a function returns when what it says has happened, or raises and has done nothing more.
"""

import resource
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from chaos.drivers.driver import DriverError
from chaos.drivers.quota import Quotas
from chaos.experiment import Event
from chaos.fault import Descriptors, Fault, Keeps, Kill, Pause, Restart, Slow
from chaos.processes import ENDED_S_MAX, Launch, NoPeer, family, launch_of, peer_of, send, start
from chaos.processes import kill as kill_process
from peer.io.datadir import wait_ended
from proxy.resources.wording import problems_of

DIRECTORIES: Final = "gossamer-directories"
LOG: Final = "restarted.log"
WAIT_S_MAX: Final = 86_400.0
STARTED_S_MAX: Final = 30.0  # until it holds its directory; it may not be ready yet

DESCRIPTORS_MIN: Final = 8
Done: TypeAlias = Pause | Kill | Restart | Slow | Descriptors

_quotas: Final = Quotas("gossamer-chaos")
_descriptors: dict[int, int] = {}  # by process: the limit it had
_launches: dict[Path, Launch] = {}  # of peers killed here: how they are started again


class ActionError(Exception):
    """It cannot be done here; the message says why. Nothing was done."""


def wait(seconds: float) -> None:
    """Let time pass."""
    if not 0 <= seconds <= WAIT_S_MAX:
        raise ActionError(f"wait {seconds!r}: 0 to {WAIT_S_MAX:g} seconds")
    time.sleep(seconds)


def pause(data_dir: str | Path) -> None:
    """SIGSTOP to the peer and its workers. Raises NoPeer."""
    send(family(peer_of(Path(data_dir))), signal.SIGSTOP)


def resume(data_dir: str | Path) -> None:
    """SIGCONT to them. Raises NoPeer."""
    send(family(peer_of(Path(data_dir))), signal.SIGCONT)


def kill(data_dir: str | Path) -> None:
    """kill -9 to the peer and its workers, who may be started again. Raises NoPeer, OSError."""
    directory = Path(data_dir).resolve()
    pid = peer_of(directory)
    _launches[directory] = launch_of(pid)
    kill_process(pid)


def start_again(data_dir: str | Path) -> None:
    """Start a peer that `kill` of this process ended, as it was started before. Raises ActionError, OSError."""
    directory = Path(data_dir).resolve()
    launch = _launches.pop(directory, None)
    if launch is None:
        raise ActionError(f"{directory}: its peer was not killed here, how it was started is not known")
    _start(directory, launch)


def restart(data_dir: str | Path, graceful: bool = False) -> None:
    """End the peer (with `graceful` by SIGTERM, and kill -9 if that takes too long) and start it again the same way.
    Raises NoPeer, ActionError, OSError."""
    directory = Path(data_dir).resolve()
    pid = peer_of(directory)
    launch = launch_of(pid)
    if graceful:
        send([pid], signal.SIGTERM)
    if not graceful or not wait_ended(pid, timeout_s=ENDED_S_MAX):
        kill_process(pid)
    _start(directory, launch)


def _start(directory: Path, launch: Launch) -> None:
    log = directory / LOG
    start(launch, log)
    until = time.monotonic() + STARTED_S_MAX
    while time.monotonic() < until:
        try:
            peer_of(directory)
        except NoPeer:
            time.sleep(0.05)
        else:
            return
    said = log.read_text(errors="replace").splitlines()[-3:]
    raise ActionError(f"{directory}: its peer did not start within {STARTED_S_MAX:g} s: {' / '.join(said)}")


def limit_processor(data_dir: str | Path, share: float) -> None:
    """No more than that share of one processor for the peer and its workers together (cgroups). Raises NoPeer,
    ActionError."""
    if not 0 < share <= 1:
        raise ActionError(f"a share of {share!r}: more than 0 and at most 1")
    pid = peer_of(Path(data_dir))
    try:
        _quotas.check()
        _quotas.limit(str(pid), family(pid), share)
    except DriverError as error:
        raise ActionError(str(error)) from error


def free_processor(data_dir: str | Path) -> None:
    """As much as they want again. Raises NoPeer, ActionError."""
    try:
        _quotas.lift(str(peer_of(Path(data_dir))))
    except DriverError as error:
        raise ActionError(str(error)) from error


def limit_descriptors(data_dir: str | Path, limit: int) -> None:
    """No more than so many open files for each of its processes (prlimit). Raises NoPeer, ActionError."""
    if limit < DESCRIPTORS_MIN:
        raise ActionError(f"a limit of {limit!r} descriptors: at least {DESCRIPTORS_MIN}")
    for pid in family(peer_of(Path(data_dir))):
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        _descriptors.setdefault(pid, soft)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(limit, hard), hard))


def free_descriptors(data_dir: str | Path) -> None:
    """As many as it was started with. Raises NoPeer."""
    for pid in family(peer_of(Path(data_dir))):
        if pid in _descriptors:
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (_descriptors.pop(pid), hard))


# ------------------------------------------------------------------ for exported experiments


def begin(number: int, fault: Mapping[str, Any], configuration: Mapping[str, Any] | None = None) -> None:
    """Inject a fault. Raises ActionError, NoPeer, OSError."""
    inject = _read(number, fault)
    for directory in _directories(number, inject, configuration):
        match inject:
            case Pause():
                pause(directory)
            case Kill():
                kill(directory)
            case Restart():
                restart(directory, inject.graceful)
                time.sleep(inject.every)
            case Slow():
                limit_processor(directory, inject.quota)
            case Descriptors():
                limit_descriptors(directory, inject.limit)


def end(number: int, fault: Mapping[str, Any], configuration: Mapping[str, Any] | None = None) -> None:
    """Undo it. Raises ActionError, NoPeer, OSError."""
    inject = _read(number, fault)
    for directory in _directories(number, inject, configuration):
        match inject:
            case Pause():
                resume(directory)
            case Kill():
                start_again(directory)
            case Slow():
                free_processor(directory)
            case Descriptors():
                free_descriptors(directory)


def _read(number: int, fault: Mapping[str, Any]) -> Done:
    try:
        inject: Fault = Event.model_validate(fault).inject
    except ValidationError as error:
        raise ActionError(f"fault #{number}: {'; '.join(problems_of(error, ''))}") from error
    if isinstance(inject, Kill) and (inject.keeps is not Keeps.ALL or inject.power):
        raise ActionError(f"fault #{number}: of a peer that is not ours nothing is deleted: kill keeps all")
    if isinstance(inject, Slow) and not inject.quota:
        raise ActionError(f"fault #{number}: of a peer that is not ours the processor is limited: give quota")
    if isinstance(inject, Pause | Kill | Restart | Slow | Descriptors):
        return inject
    raise ActionError(
        f"fault #{number}: {inject.fault} needs a mesh of its own: gossamer chaos run --driver netns"
    )


def _directories(number: int, inject: Done, configuration: Mapping[str, Any] | None) -> list[Path]:
    known = (configuration or {}).get(DIRECTORIES)
    if not isinstance(known, Mapping):
        raise ActionError(
            f"configuration.{DIRECTORIES} is missing: it says where each node's data directory is"
        )
    if not inject.pick.nodes:
        raise ActionError(f"fault #{number}: names nobody: export the resolved experiment")
    unknown = [name for name in inject.pick.nodes if name not in known]
    if unknown:
        raise ActionError(f"fault #{number}: configuration.{DIRECTORIES} has no {', '.join(unknown)}")
    return [Path(str(known[name])) for name in inject.pick.nodes]


__all__ = [
    "ActionError",
    "NoPeer",
    "begin",
    "end",
    "free_descriptors",
    "free_processor",
    "kill",
    "limit_descriptors",
    "limit_processor",
    "pause",
    "restart",
    "resume",
    "start_again",
    "wait",
]

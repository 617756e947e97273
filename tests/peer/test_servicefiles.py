"""The watched directory, with real files that come, change, break, clash and go."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from peer.io.servicefiles import FILES_MAX, PROBLEMS_TOLD_MAX, FileChange, ServiceFiles


@pytest.fixture
def directory(tmp_path) -> Path:
    path = tmp_path / "services.d"
    path.mkdir()
    return path


def write(path: Path, *names: str, port: int = 8080, text: str | None = None, age_s: float = 5.0) -> Path:
    """A file that was last modified a while ago, as files that are not being written are."""
    path.write_text(text or "\n---\n".join(f"service: {{name: {name}, port: {port}}}" for name in names))
    touch(path, age_s)
    return path


def touch(path: Path, age_s: float) -> None:
    stamp = time.time() - age_s
    os.utime(path, (stamp, stamp))


def told(changes: list[FileChange]) -> list[tuple[str, list[str], str]]:
    return [
        (change.path.name, [service.name for service in change.services], change.problem)
        for change in changes
    ]


def test_files_are_found_changed_and_gone(directory):
    files = ServiceFiles(directory)
    assert files.scan() == []
    write(directory / "b.yaml", "cart")
    write(directory / "a.yml", "web", "api")
    assert told(files.scan()) == [("a.yml", ["web", "api"], ""), ("b.yaml", ["cart"], "")]
    assert files.scan() == []
    write(directory / "a.yml", "web", age_s=4)
    assert told(files.scan()) == [("a.yml", ["web"], "")]
    (directory / "b.yaml").unlink()
    assert told(files.scan()) == [("b.yaml", [], "")]
    assert [path.name for path in files.in_force] == ["a.yml"]


def test_a_directory_that_does_not_exist_yet_is_empty(tmp_path):
    files = ServiceFiles(tmp_path / "later")
    assert files.scan() == []
    (tmp_path / "later").mkdir()
    write(tmp_path / "later" / "a.yaml", "web")
    assert told(files.scan()) == [("a.yaml", ["web"], "")]


def test_other_files_are_nobodys_business(directory):
    for name in ("README.md", ".hidden.yaml", "a.yaml~", "#a.yaml#", ".a.yaml.swp"):
        write(directory / name, text="{{{")
    (directory / "folder.yaml").mkdir()
    (directory / "dangling.yaml").symlink_to(directory / "nowhere")
    assert ServiceFiles(directory).scan() == []


def test_a_file_touched_without_a_change_changes_nothing(directory):
    files = ServiceFiles(directory)
    path = write(directory / "a.yaml", "web")
    assert files.scan()
    touch(path, 2)
    assert files.scan() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "service: {name: web, port: 99999}",
            "document 1: service default/web: service.port: must be <= 65535",
        ),
        ("service: {name: web, prot: 1}", "service.prot: unknown field"),
        ("service: [", "not valid YAML"),
        ("# nothing", "holds no service"),
        (
            "service: {name: a, port: 1}\n---\nservice: {name: a, port: 2}",
            "service default/a: is in the file twice",
        ),
        ("service: {name: a, port: 1}\n---\nservice: {port: 2}", "document 2: service.name: is required"),
    ],
)
def test_a_broken_file_is_told_once_and_what_it_said_before_stands(directory, text, words):
    files = ServiceFiles(directory)
    path = write(directory / "a.yaml", "web")
    other = write(directory / "b.yaml", "cart")
    assert len(files.scan()) == 2
    write(path, text=text, age_s=4)
    (change,) = files.scan()
    assert words in change.problem
    assert change.problem.startswith(f"{path}: ")
    assert [service.name for service in change.services] == ["web"]
    assert files.problems == {path: change.problem}
    assert files.scan() == []
    touch(path, 3)
    assert files.scan() == []  # the same fault again
    write(path, "web", port=9090, age_s=2)
    assert told(files.scan()) == [("a.yaml", ["web"], "")]
    assert files.problems == {}
    assert set(files.in_force) == {path, other}


def test_a_new_file_that_is_broken_registers_nothing(directory):
    path = write(directory / "a.yaml", text="service: {}")
    (change,) = ServiceFiles(directory).scan()
    assert change.services == ()
    assert str(path) in change.problem


def test_many_faults_are_told_in_one_line_of_bounded_length(directory):
    write(directory / "a.yaml", text="\n---\n".join("service: {}" for _ in range(50)))
    (change,) = ServiceFiles(directory).scan()
    assert change.problem.count("; ") == PROBLEMS_TOLD_MAX
    assert change.problem.endswith(" more")


def test_a_file_that_is_no_text_or_cannot_be_read_is_a_problem(directory):
    (directory / "a.yaml").write_bytes(b"\xff\xfe\x00")
    (directory / "b.yaml").write_bytes(b"# pad\n" * 300_000)
    problems = [change.problem for change in ServiceFiles(directory).scan()]
    assert "is not UTF-8 text" in problems[0]
    assert "is larger than" in problems[1]


def test_a_file_others_can_write_is_not_obeyed(directory):
    path = write(directory / "a.yaml", "web")
    path.chmod(0o666)
    (change,) = ServiceFiles(directory).scan()
    assert change.services == ()
    assert change.problem == f"{path}: everybody can write it (chmod o-w {path})"


def test_a_file_still_being_written_is_left_until_it_rests(directory):
    files = ServiceFiles(directory)
    files.scan()
    path = write(directory / "a.yaml", "web", age_s=0)
    assert files.scan() == []
    write(path, "web", "cart", age_s=0)
    assert files.scan() == []
    assert told(files.scan()) == [("a.yaml", ["web", "cart"], "")]


def test_at_the_first_look_every_file_is_taken(directory):
    write(directory / "a.yaml", "web", age_s=0)
    assert told(ServiceFiles(directory).scan()) == [("a.yaml", ["web"], "")]


def test_a_service_belongs_to_the_file_that_has_it(directory):
    files = ServiceFiles(directory)
    first = write(directory / "a.yaml", "web")
    second = write(directory / "b.yaml", "web", "cart")
    changes = files.scan()
    assert told(changes[:1]) == [("a.yaml", ["web"], "")]
    assert changes[1].problem == f"{second}: service default/web: is registered by {first} already"
    assert changes[1].services == ()
    assert files.scan() == []
    first.unlink()
    assert told(files.scan()) == [("a.yaml", [], ""), ("b.yaml", ["web", "cart"], "")]
    assert files.problems == {}


@pytest.mark.parametrize(("source", "target"), [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")])
def test_a_service_can_move_from_one_file_to_another_in_one_go(directory, source, target):
    files = ServiceFiles(directory)
    write(directory / source, "web", "moving")
    write(directory / target, "cart")
    files.scan()
    write(directory / source, "web", age_s=4)
    write(directory / target, "cart", "moving", age_s=4)
    assert told(files.scan()) == [(source, ["web"], ""), (target, ["cart", "moving"], "")]


def test_what_the_caller_refused_is_offered_again_when_something_changes(directory):
    files = ServiceFiles(directory)
    path = write(directory / "a.yaml", "web")
    assert len(files.scan()) == 1
    files.refused(path)
    assert files.scan() == []
    assert dict(files.in_force) == {}
    write(directory / "b.yaml", "cart")
    assert told(files.scan()) == [("a.yaml", ["web"], ""), ("b.yaml", ["cart"], "")]


def test_too_many_files_are_told_and_the_first_ones_obeyed(directory):
    for number in range(FILES_MAX + 5):
        (directory / f"{number:05}.yaml").write_text(f"service: {{name: s{number}, port: 80}}")
    changes = ServiceFiles(directory).scan()
    assert len(changes) == FILES_MAX + 1
    assert changes[-1].problem == f"{directory}: more than {FILES_MAX} service files"


async def test_watching_yields_the_changes_of_each_scan(directory):
    files = ServiceFiles(directory)
    files.scan()
    write(directory / "a.yaml", "web")
    watching = files.watch(interval_s=0.01)
    async with asyncio.timeout(5):
        assert told(await anext(watching)) == [("a.yaml", ["web"], "")]
        (directory / "a.yaml").unlink()
        assert told(await anext(watching)) == [("a.yaml", [], "")]
    await watching.aclose()


def test_a_directory_that_cannot_be_read_is_told_and_withdraws_nothing(tmp_path):
    directory = tmp_path / "services.d"
    directory.mkdir()
    write(directory / "a.yaml", "web")
    files = ServiceFiles(directory)
    assert told(files.scan()) == [("a.yaml", ["web"], "")]
    directory.rename(tmp_path / "away")
    directory.symlink_to(directory)  # not readable, for root either
    (change,) = files.scan()
    assert change.problem.startswith(f"{directory}: cannot be read: ")
    assert files.scan() == []
    assert [path.name for path in files.in_force] == ["a.yaml"]
    directory.unlink()
    (tmp_path / "away").rename(directory)
    assert files.scan() == []
    assert files.problems == {}


def test_a_file_that_cannot_be_looked_at_withdraws_nothing(directory):
    path = write(directory / "a.yaml", "web")
    files = ServiceFiles(directory)
    assert told(files.scan()) == [("a.yaml", ["web"], "")]
    path.unlink()
    path.symlink_to(path)
    assert files.scan() == []
    assert set(files.in_force) == {path}
    path.unlink()
    assert told(files.scan()) == [("a.yaml", [], "")]

"""Reports: whole, self-contained, and never more than text."""

from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from chaos.experiment import parse
from chaos.journal import Happened, Journal, JournalError, Lane, Seen, Violation, read_journal
from chaos.report import html, junit

HOSTILE = "<script>alert('x')</script>&\"\x1b[31m"


def journal(*, title: str = "A title", status: str = "failed") -> Journal:
    text = "title: x\ntopology: {nodes: 2}\nmethod:\n- {at: 1s, for: 2s, fault: kill, pick: {nodes: [n1]}}"
    return Journal(
        experiment=parse(text, "f").model_copy(update={"title": title}),
        driver="sim",
        seed=3,
        status="failed" if status == "failed" else "aborted" if status == "aborted" else "completed",
        reason="it could not begin" if status == "aborted" else "",
        lasted_s=10.0,
        violations=[Violation(invariant="views-agree", at_s=4.0, what=HOSTILE)] if status == "failed" else [],
        happened=[Happened(label="kill", kind="kill", at_s=1.0, ends_s=3.0, nodes=("n1",))],
        lanes=[
            Lane(
                node="n0",
                seen=(
                    Seen(at_s=0, alive=1, suspect=0, dead=0, left=0),
                    Seen(at_s=5, alive=0, suspect=1, dead=0, left=0),
                ),
                truth=((0.0, "running"), (2.0, "down")),
            )
        ],
        figures={"heals_s": None, "events": 12},
        sometimes={"a member left": 2},
        series={"success": [(0.0, 1.0), (5.0, 0.5)]},
        digest="abc",
    )


class Tags(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_what_is_hostile_is_text() -> None:
    page = html([journal(title=HOSTILE)])
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.seen
    assert tags.addresses == []
    assert "http:" not in page
    assert "https:" not in page


def test_the_drawing_has_a_lane_for_each_node_and_the_first_violation() -> None:
    page = html([journal()])
    assert page.count('text-anchor="end">n0<') == 1
    assert 'stroke-dasharray="4 3"' in page
    assert 'stroke-dasharray="4 3"' not in html([journal(status="completed")])


def test_the_drawing_has_the_success_ratio_where_there_were_requests() -> None:
    page = html([journal()])
    assert '<polyline points="110.0,' in page
    alone = journal()
    alone.series = {}
    assert "<polyline" not in html([alone])


def test_junit_counts_failures_and_errors() -> None:
    suite = ElementTree.fromstring(junit([journal(), journal(status="completed"), journal(status="aborted")]))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert len(suite.findall("testcase/failure")) == 1


def test_a_journal_is_read_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    path.write_text(journal().json())
    assert read_journal(path).data() == journal().data()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "experiment": {"title": 1}}', "{" * 9999]
)
def test_what_is_no_journal_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    path.write_text(text)
    with pytest.raises(JournalError, match=r"journal\.json"):
        read_journal(path)

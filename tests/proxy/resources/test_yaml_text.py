"""YAML reading: YAML 1.2's scalars, bounds, and errors that name file and line."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.resources import ResourceError, load_yaml
from proxy.resources.yaml_text import DEPTH_MAX, YAML_BYTES_MAX


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("5s", "5s"),
        ("007", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("-5", -5),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        (".inf", ".inf"),
        ("<<", "<<"),
        ("9" * 40, "9" * 40),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    [document] = load_yaml(f"a: {text}", "f.yaml")
    assert document == {"a": value}
    assert type(document["a"]) is type(value)


def test_documents_empty_ones_left_out() -> None:
    assert load_yaml("a: 1\n---\n---\n# nothing\n---\nb: [1, {c: d}]\n", "f") == [
        {"a": 1},
        {"b": [1, {"c": "d"}]},
    ]
    assert load_yaml("", "f") == []


def test_a_list_is_a_document_for_each_entry() -> None:
    assert load_yaml('[{"a": 1}, {"b": [2]}]\n---\nc: 3\n---\n[]\n', "f") == [{"a": 1}, {"b": [2]}, {"c": 3}]


def test_aliases_are_copies() -> None:
    [document] = load_yaml("a: &x {b: [1]}\nc: *x\n", "f")
    assert document == {"a": {"b": [1]}, "c": {"b": [1]}}
    document["a"]["b"].append(2)
    assert document["c"]["b"] == [1]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
)
# Each anchor is flat enough, but stands inside the next one: deep only once aliases are followed.
TOWER = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} {'[' * 30}*a{i - 1}{']' * 30}\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml: line 3, column 1: the key 'a' occurs twice"),
        ("a: {b: 1, b: 2}", "f.yaml: line 1, column 11: the key 'b' occurs twice"),
        ("1: a", "f.yaml: line 1, column 1: a key must be a string, not 1 (quote it)"),
        ("? [a]\n: b", "a key must be a string"),
        ("a: [1", "f.yaml: line 2, column 1: not valid YAML"),
        ("a: 'x", "not valid YAML"),
        ("a: *nope", "f.yaml: line 1, column 4: the alias *nope stands for nothing complete"),
        ("a: &x [*x]", "the alias *x stands for nothing complete"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "the tag tag:yaml.org,2002:python/object/apply:os.system",
        ),
        ("a: !!binary aGk=", "the tag tag:yaml.org,2002:binary is not supported"),
        ("- a", "f.yaml: document 1: must be a mapping, or a list of them"),
        ("[{a: 1}, [{b: 2}]]", "f.yaml: document 1: must be a mapping, or a list of them"),
        ("[" + "{a: 1}," * 1001 + "]", "f.yaml: line 1, column 7009: more than 1000 documents"),
        ("a: 1\n---\njust text", "f.yaml: document 2: must be a mapping"),
        ("a: \x07", "f.yaml: not valid YAML"),
        (BOMB, "more than 100000 values"),
        (TOWER, f"nested more than {DEPTH_MAX} deep"),
        ("a: " + "[" * 100_000, f"nested more than {DEPTH_MAX} deep"),
        ("a: " + "{b: " * 10_000, f"nested more than {DEPTH_MAX} deep"),
        ("---\na: 1\n" * 2_000, "more than 1000 documents"),
        ("a: " + "x" * YAML_BYTES_MAX, "f.yaml: is larger than 1024 KiB"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_errors_name_file_and_place(text: str, problem: str) -> None:
    with pytest.raises(ResourceError, match=re.escape(problem)):
        load_yaml(text, "f.yaml")


@given(st.text(max_size=60))
def test_any_text_gives_mappings_or_a_resource_error(text: str) -> None:
    problems: tuple[str, ...] = ()
    documents: list[dict[str, object]] = []
    try:
        documents = load_yaml(text, "f.yaml")
    except ResourceError as error:
        problems = error.problems
    assert all(problem.startswith("f.yaml: ") for problem in problems)
    assert all(isinstance(document, dict) for document in documents)


# Without digits: PyYAML writes YAML 1.1, which leaves some strings bare that are numbers in 1.2.
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["N"]), max_size=8)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=15,
)


@given(st.dictionaries(TEXTS, JSON, min_size=1, max_size=4))
def test_what_pyyaml_writes_is_read_back(document: dict[str, object]) -> None:
    assert load_yaml(yaml.safe_dump(document), "f") == [document]

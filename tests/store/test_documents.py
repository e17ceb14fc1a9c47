"""JSON and TOML are read whole, or refused in one sentence that names the place; never a traceback."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.errors import GravityError, LineageError, UsageError
from probes.store.documents import (
    MAX_DEPTH,
    parse_json,
    parse_json_or_lines,
    read_json,
    read_text,
    read_toml,
)

LAW = settings(max_examples=100, deadline=None)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@LAW
@given(plain, st.booleans(), st.sampled_from([None, 1]))
def test_what_json_writes_is_read_back(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert parse_json(text, "it") == value
    assert parse_json_or_lines(text, "it") == (("it", value),)


@LAW
@given(st.lists(plain, min_size=2, max_size=6))
def test_lines_are_told_from_one_document(values):
    text = "\n\n".join(json.dumps(value) for value in values) + "\n"
    assert [value for _, value in parse_json_or_lines(text, "it")] == values
    assert parse_json_or_lines(text, "it")[1][0] == "it, line 3,"


FAULTS = [
    ("", "no whole JSON file; got line 1, column 1"),
    ('{"a": 1,\n "b": }', "no whole JSON file; got line 2, column 7"),
    ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    ("[" * 80 + "]" * 80, f"got more than {MAX_DEPTH} levels, at [0][0]"),
    ('{"rows": [1, {"x": NaN}]}', "got nan, which is no finite number, at rows[1].x"),
    ("[-Infinity]", "got -inf, which is no finite number, at [0]"),
    ('{"a": {"b": 1e999}}', "got inf, which is no finite number, at a.b"),
    ("NaN", "no finite number, at its top"),
    ('{"a": 1,\n  "b": [{"c": 1, "c": 2}]}', "a key twice in one object; got line 2, column 18: the key 'c'"),
    ('{"a": 1, "\\u0061": 2}', "the key 'a'"),
    ('{"a": ["x", "\\ud800"]}', "half of a surrogate pair), at a[1]"),
    ('{"\\ud800": 1}', "a key with text that is no UTF-8"),
    ("1" * 5000, "a number that is too long"),
]


@pytest.mark.parametrize(("text", "sentence"), FAULTS)
@pytest.mark.parametrize("parse", [parse_json, parse_json_or_lines])
def test_a_fault_is_named_with_its_place(text, sentence, parse):
    with pytest.raises(LineageError, match=re.escape(sentence)) as caught:
        parse(text, "it.json", error=LineageError)
    assert str(caught.value).startswith("it.json ")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_line_that_is_no_json_is_numbered():
    with pytest.raises(UsageError, match=r"it is no whole JSON file; got line 1, column 10"):
        parse_json('{"a": 1} x', "it")
    with pytest.raises(UsageError, match=r"it, line 3, is not JSON; got column 7"):
        parse_json_or_lines('{"a": 1}\n\n{"a": \n', "it")
    with pytest.raises(UsageError, match=r"it, line 2, has a key twice"):
        parse_json_or_lines('{"a": 1}\n{"a": 1, "a": 2}', "it")


def test_the_deepest_document_that_counts_is_read():
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(text, "it")) == text


@pytest.mark.parametrize("read", [read_json, read_toml, read_text])
def test_a_file_that_is_no_text_or_too_large_is_refused(read, tmp_path):
    path = tmp_path / "it"
    path.write_bytes(b"# caf\xe9")
    with pytest.raises(LineageError, match=r"it is not UTF-8; got byte 0xe9 at position 5"):
        read(path, error=LineageError)
    path.write_text("[]" * 50)
    with pytest.raises(LineageError, match=r"it is too large; expected at most 99 bytes"):
        read(path, limit=99, error=LineageError)
    with pytest.raises(UsageError, match="There is no file"):
        read(tmp_path / "absent", error=LineageError)
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path, error=LineageError)
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "a\0b", error=LineageError)


def test_a_byte_order_mark_is_no_part_of_a_document(tmp_path):
    path = tmp_path / "it"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path) == [1]
    path.write_bytes(b"\xef\xbb\xbfa = 1")
    assert read_toml(path) == {"a": 1}


TOML_FAULTS = [
    ("a = ", "not TOML; got Invalid value (at end of document)"),
    ("[x]\na = 1\na = 2\n", "line 3, column 6"),
    ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    ("[x]\na = [1, nan]", "nan, which is no finite number, at x.a[1]"),
    ("a = " + "1" * 5000, "not TOML"),
]


@pytest.mark.parametrize(("text", "sentence"), TOML_FAULTS)
def test_a_faulty_toml_file_is_named_with_the_place(text, sentence, tmp_path):
    path = tmp_path / "it.toml"
    path.write_text(text)
    with pytest.raises(GravityError, match=re.escape(sentence)) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)


def test_an_endless_file_is_refused_at_its_bound():
    with pytest.raises(UsageError, match="too large"):
        read_text(Path("/dev/zero"), limit=1 << 20)


def test_a_small_file_takes_little_memory(tmp_path):
    path = tmp_path / "it.json"
    path.write_text("[1]")
    code = (
        "import resource, sys; from pathlib import Path; from probes.store.documents import read_json;"
        "pages = int(Path('/proc/self/statm').read_text().split()[0]);"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 27),) * 2);"
        "print(read_json(Path(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout == "[1]\n", done.stderr

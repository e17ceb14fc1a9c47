"""Prompts: formats are told by their header, folds and hashes follow from content, tokens are made once."""

import csv
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.errors import PromptError, UsageError
from probes.prompts import (
    LABELS,
    Prompt,
    PromptSet,
    Rendering,
    data_folder,
    default_prompts,
    fit_to_context,
    folds,
    look_alikes,
    read_pairs,
    read_prompts,
    read_template,
    render,
    render_fitting,
    template_notice,
)
from probes.prompts.chat import apply_chat_template
from probes.prompts.template_shape import is_plain
from tests.builders import CHAT_TEMPLATE, tiny_tokenizer

LAW = settings(max_examples=50, deadline=None)  # a busy machine is no failure
SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def write_csv(path: Path, header: str, *rows: tuple[str, ...]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def write_lines(path: Path, *records: object) -> Path:
    return write(path, "".join(json.dumps(record) + "\n" for record in records))


def user(text: object) -> dict[str, object]:
    return {"role": "user", "content": text}


# --- formats --------------------------------------------------------------------------------

CSV_FILES = [
    ("AdvBench", "goal,target", ("Do a, then b", "Sure"), "Do a, then b", "harmful"),
    ("JailbreakBench", ",Goal,Target,Behavior,Category", ("0", "Do it", "Sure", "B", "C"), "Do it", None),
    ("StrongREJECT", "category,source,forbidden_prompt", ("c", "s", "Two\nlines"), "Two\nlines", "harmful"),
    ("XSTest", "id,prompt,type,label,focus,note", ("1", "Q?", "t", "safe", "f", ""), "Q?", "harmless"),
    ("XSTest", "prompt,type,label", ("Q?", "t", "unsafe"), "Q?", "harmful"),
    ("Alpaca", "instruction,input,output", ("Add these", "1 and 2", "3"), "Add these\n\n1 and 2", None),
    ("prompt and completion", "prompt,completion", ("Say", "so"), "Say", None),
    ("question and answer", "question,answer", ("Why?", "So."), "Why?", None),
    ("Gravity Probe", "text,label", ("Hello", "harmless"), "Hello", "harmless"),
]


@pytest.mark.parametrize(("name", "header", "row", "text", "label"), CSV_FILES)
@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_a_csv_file_is_told_by_its_header_whatever_its_name(tmp_path, name, header, row, text, label, suffix):
    read = read_prompts(write_csv(tmp_path / f"file{suffix}", header, row))
    assert (read.format, read.texts, read.labels) == (name, (text,), (label,))


RECORDS = [
    ("refusal_direction", {"instruction": " Do it ", "category": None}, "Do it", None),
    ("Alpaca", {"instruction": "List three", "input": " ", "output": "a b c"}, "List three", None),
    ("question and answer", {"question": "Why?", "answer": "So."}, "Why?", None),
    ("prompt and completion", {"prompt": "Say", "completion": "so"}, "Say", None),
    ("prompt and completion", {"prompt": [user("Say")], "completion": "so"}, "Say", None),
    (
        "Gravity Probe",
        {"text": "Tr\u00e8s bien?", "label": "harmful", "topic": "x"},
        "Tr\u00e8s bien?",
        "harmful",
    ),
    (
        "chat messages",
        {
            "messages": [
                {"role": "system", "content": "Be."},
                user("One"),
                {"role": "assistant", "content": "2"},
                user("3"),
            ]
        },
        "Be.\n\nOne",
        None,
    ),
    (
        "chat messages",
        {"messages": [user([{"type": "text", "text": "In"}, {"type": "text", "text": "parts"}])]},
        "In\nparts",
        None,
    ),
]


@pytest.mark.parametrize(("name", "record", "text", "label"), RECORDS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".data"])
def test_json_is_read_as_an_array_and_as_lines(tmp_path, name, record, text, label, suffix):
    array = write(tmp_path / f"array{suffix}", json.dumps([record, record], indent=1))
    lines = write_lines(tmp_path / f"lines{suffix}", record, record)
    for path in (array, lines):
        read = read_prompts(path)
        assert (read.format, read.texts, read.labels) == (name, (text, text), (label, label))


DOLLY = {"instruction": "Sum it up", "context": "A page.", "response": "A.", "category": "summarization"}
SHARE = [{"from": "system", "value": "Be."}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]


@pytest.mark.parametrize(
    ("name", "record", "text"),
    [
        ("Dolly", DOLLY, "Sum it up\n\nA page."),
        ("Dolly", {**DOLLY, "context": ""}, "Sum it up"),
        ("ShareGPT", {"id": "a", "conversations": SHARE}, "Be.\n\nHi"),
        ("prompt and response", {"category": "c", "prompt": "Say", "response": "so"}, "Say"),
        ("preferences", {"prompt": "Say", "chosen": "so", "rejected": "no"}, "Say"),
        ("prompts", {"prompt": "Say", "prompt_id": "x1", "score": 0.5}, "Say"),
        ("texts", {"text": "Say", "tokens": "12"}, "Say"),
        ("Alpaca", {"instruction": "Add", "input": "1", "output": "2", "text": "### Instruction: …"}, "Add\n\n1"),
    ],
)
def test_a_format_is_read_whole(tmp_path, name, record, text):
    read = read_prompts(write(tmp_path / "a.json", json.dumps([record, record])))
    assert (read.format, read.texts) == (name, (text, text))


@pytest.mark.parametrize(
    ("records", "column", "count"),
    [
        ([{"instruction": "a", "passage": "b"}, {"instruction": "c", "passage": ""}], "passage", "1 of 2"),
        ([{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b", "system": "Be."}], "system", "1 of"),
        ([{"instruction": "a", "input": "", "output": "b", "history": [["u", "v"]]}], "history", "1 of 1"),
        ([{"question": "a", "answer": "b", "label": "harmless"}], "label", "1 of 1"),
        ([{"prompt": "a", "completion": "b", "tools": [{"name": "t"}]}], "tools", "1 of 1"),
    ],
)
def test_a_column_that_may_belong_to_the_prompt_is_never_passed_over(tmp_path, records, column, count):
    path = write_lines(tmp_path / "a.jsonl", *records)
    for read in (read_prompts, read_pairs):
        with pytest.raises(UsageError, match=rf"files do not have: '{column}'; got text in {count}"):
            read(path)


def test_numbers_and_blanks_beside_a_prompt_are_no_part_of_it(tmp_path):
    path = write_csv(tmp_path / "a.csv", "instruction,length,flag,more", ("Do it", "7.5", "True", " "))
    assert read_prompts(path).texts == ("Do it",)


def test_of_several_lists_one_is_named(tmp_path):
    rows = {part: [{"question": f"{part} {n}?", "answer": "-"} for n in range(2)] for part in ("train", "test")}
    path = write(tmp_path / "a.json", json.dumps({"version": 1, **rows}, indent=2))
    with pytest.raises(UsageError, match=r"several lists of records; got train, test\. Name one: .*a\.json#train"):
        read_prompts(path)
    assert read_prompts(f"{path}#test").texts == ("test 0?", "test 1?")
    with pytest.raises(UsageError, match=r"no list 'dev'; got train, test"):
        read_prompts(f"{path}#dev")
    prompts = PromptSet.from_files(f"{path}#train", f"{path}#test")
    assert prompts.sources[0] == (f"{path}#train", "question and answer")
    assert read_pairs(f"{path}#test", limit=1) == (("test 0?", "-"),)
    odd = write(tmp_path / "a#b.txt", "x")
    assert read_prompts(odd).texts == ("x",)
    with pytest.raises(UsageError, match="has no parts; got #x"):
        read_prompts(f"{write(tmp_path / 'plain.txt', 'y')}#x")


def test_the_one_list_of_an_object_is_read(tmp_path):
    records = [{"category": "c", "prompt": "Say", "response": "so"}]
    path = write(tmp_path / "a.json", json.dumps({"rate": 0.5, "completions": records}, indent=1))
    assert read_prompts(path).texts == ("Say",)
    assert read_pairs(path) == (("Say", "so"),)


def test_a_pretty_printed_record_is_one_record(tmp_path):
    path = write(tmp_path / "a.jsonl", json.dumps({"question": "Why?", "answer": "So."}, indent=4))
    assert read_prompts(path).texts == ("Why?",)


@pytest.mark.parametrize("name", ["a.json", "a.txt"])
def test_a_list_of_texts_is_a_list_of_prompts(tmp_path, name):
    read = read_prompts(write(tmp_path / name, '["One, two", "three"]'), "harmful")
    assert (read.format, read.texts, read.labels) == ("list of texts", ("One, two", "three"), ("harmful",) * 2)


@pytest.mark.parametrize(
    ("content", "texts", "labels"),
    [
        ("harmful,Do it\nharmless,Say\n", ("Do it", "Say"), ("harmful", "harmless")),
        ('"Do it, now",harmful\nSay,harmless\n', ("Do it, now", "Say"), ("harmful", "harmless")),
        ("Do it now\nSay so\n", ("Do it now", "Say so"), (None, None)),
    ],
)
def test_a_csv_file_without_a_header_is_read_where_its_shape_is_plain(tmp_path, content, texts, labels):
    read = read_prompts(write(tmp_path / "a.csv", content))
    assert (read.texts, read.labels) == (texts, labels)
    assert read.format.endswith("without a header")


def test_tabs_separate_columns_too(tmp_path):
    for name in ("a.tsv", "a.txt"):
        path = write(tmp_path / name, "instruction\tcontext\tresponse\nSum\tA, B\t-\n")
        assert read_prompts(path).texts == ("Sum\n\nA, B",)


def test_a_sentence_that_names_a_column_is_no_header(tmp_path):
    read = read_prompts(write(tmp_path / "a.txt", "Write a very short text, prompt\nAnother, text\n"))
    assert read.texts == ("Write a very short text, prompt", "Another, text")


def test_a_turn_of_the_system_stands_before_the_request_as_in_data_for_training_and_is_counted(tmp_path):
    chat = [{"role": "system", "content": "Be."}, user("One"), {"role": "assistant", "content": "2"}]
    blank = [{"role": "system", "content": " "}, user("Two")]
    developer = [{"role": "developer", "content": [{"type": "text", "text": "Act."}]}, user("Three")]
    file = write_lines(tmp_path / "chats.jsonl", *({"messages": turns} for turns in (chat, blank, developer)))
    read = PromptSet.read(file, "harmful")
    assert read.texts == ("Be.\n\nOne", "Two", "Act.\n\nThree")
    assert read.texts[0] == read_pairs(write_lines(tmp_path / "task.jsonl", {"messages": chat}))[0][0]
    sentence = f"2 of 3 harmful prompts in {file} have a turn of the system: it stands before the request"
    (notice,) = read.notices
    assert notice.startswith(sentence)
    classes = PromptSet.of_classes(file, ["a", "b"], limit=1)
    assert classes.notices == read.notices
    assert notice in render(classes, tokenizer("{{ messages[0].content }}"), None).notices
    assert PromptSet.of_classes(["a"], ["b"]).notices == ()
    shared = write_lines(tmp_path / "share.jsonl", {"conversations": SHARE}, {"conversations": SHARE[1:]})
    assert PromptSet.read(shared, "harmful").texts == ("Be.\n\nHi", "Hi")


def test_request_and_answer_of_every_format(tmp_path):
    chat = [{"role": "system", "content": "Be."}, user("One"), {"role": "assistant", "content": "2"}]
    for record, pair in [
        (DOLLY, ("Sum it up\n\nA page.", "A.")),
        ({"messages": chat}, ("Be.\n\nOne", "2")),
        ({"messages": chat[1:]}, ("One", "2")),
        ({"conversations": SHARE}, ("Be.\n\nHi", "Hello.")),
        ({"prompt": [user("Say")], "completion": [{"role": "assistant", "content": "so"}]}, ("Say", "so")),
        ({"request": "r", "answer": "a"}, ("r", "a")),
        ({"instruction": "i", "input": "j", "output": "o"}, ("i\n\nj", "o")),
    ]:
        assert read_pairs(write_lines(tmp_path / "a.jsonl", record)) == (pair,)
    with pytest.raises(UsageError, match="no requests with answers"):
        read_pairs(write(tmp_path / "a.txt", "x"))
    with pytest.raises(PromptError, match=r"line 2, has no request or no answer"):
        read_pairs(write_lines(tmp_path / "b.jsonl", {"question": "a", "answer": "b"}, {"question": "a", "answer": ""}))


def test_harmbench_puts_the_context_before_the_behaviour(tmp_path):
    path = write_csv(
        tmp_path / "h.csv",
        "Behavior,Tags,ContextString,BehaviorID",
        ("Sum it", "", "A page", "a"),
        ("Do", "", "", "b"),
    )
    read = read_prompts(path)
    assert read.format == "HarmBench"
    assert read.texts == ("A page\n\n---\n\nSum it", "Do")


def test_a_pair_gives_a_harmful_and_a_harmless_prompt(tmp_path):
    read = read_prompts(write_csv(tmp_path / "pairs.csv", "positive,negative", ("bad", "good")))
    assert list(zip(read.texts, read.labels, strict=True)) == [("bad", "harmful"), ("good", "harmless")]


def test_plain_text_is_one_prompt_a_line_and_takes_the_callers_label(tmp_path):
    path = write(tmp_path / "mine.txt", "First, of two\r\n\r\n  [Second] \u2028 of two\n")
    read = read_prompts(path, "harmless")
    assert read.format == "plain text"
    assert read.texts == ("First, of two", "[Second] \u2028 of two")
    assert read.labels == ("harmless", "harmless")


def test_a_byte_order_mark_belongs_to_no_column(tmp_path):
    path = tmp_path / "bom.csv"
    path.write_bytes(b"\xef\xbb\xbfgoal,target\nDo it,Sure\n")
    assert read_prompts(path).format == "AdvBench"


def test_of_a_labelled_file_only_the_wanted_label_is_taken(tmp_path):
    path = write_csv(tmp_path / "x.csv", "prompt,type,label", ("a", "t", "safe"), ("b", "t", "unsafe"))
    assert read_prompts(path, "harmful").texts == ("b",)
    assert read_prompts(path, "harmless").texts == ("a",)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool)


@LAW
@given(st.lists(texts, min_size=1))
def test_what_was_written_is_read_back(tmp_path_factory, expected):
    folder = tmp_path_factory.mktemp("round")
    as_csv = write_csv(folder / "a.csv", "question,answer", *[(text, "-") for text in expected])
    as_lines = write_lines(folder / "a.jsonl", *[{"question": text, "answer": "-"} for text in expected])
    as_raw = write(
        folder / "b.jsonl",
        "".join(json.dumps({"messages": [user(t)]}, ensure_ascii=False) + "\n" for t in expected),
    )
    assert read_prompts(as_csv).texts == read_prompts(as_lines).texts == read_prompts(as_raw).texts == tuple(expected)


# --- files that cannot be read --------------------------------------------------------------------

BROKEN = [
    ("a.csv", b"", "holds no prompts"),
    ("a.txt", b"\n \n", "holds no prompts"),
    ("a.csv", b"goal,target\n", "holds no prompts"),
    ("a.json", b"[]", "holds no prompts"),
    ("a.txt", b"caf\xe9\n", "not UTF-8; got byte 0xe9 at position 3"),
    ("a.csv", "goal,target\na,b\n".encode("utf-16"), "not UTF-8"),
    ("a.csv", b"goal,target\na,b\n,b\n", "line 3, has no text under 'goal'"),
    ("a.csv", b"goal,target\na,b,c\n", "more cells than the header"),
    ("a.csv", b'goal,target\n"a,b\n', "no whole CSV file"),
    ("a.csv", b"prompt,type,label\na,b,maybe\n", "unknown label; got 'maybe'; expected safe or unsafe"),
    ("a.jsonl", b'{"text": "a", "label": 1}\n', "unknown label; got 1; expected harmful or harmless"),
    ("a.jsonl", b'{"question": "a", "answer": "b"}\n{"question": "a', "line 2, is not JSON"),
    ("a.jsonl", b'{"question": "a", "answer": "b"}\n{"answer": "b"}\n', "line 2, has no 'question'"),
    ("a.jsonl", b'{"question": "a", "answer": "b"}\n7\n', "line 2, is no record; got int"),
    ("a.jsonl", b'{"question": 7, "answer": "b"}\n', "no text under 'question'; got int"),
    ("a.json", b'[{"instruction": "a"}', "no whole JSON file"),
    ("a.jsonl", b'{"messages": [{"role": "assistant", "content": "a"}]}\n', "no turn of the user"),
    ("a.csv", b"goal,target\na,b\nc\n", "line 3, has fewer cells than the header"),
    ("a.csv", b"goal,target,goal\na,b,c\n", "two columns of one name; got 'goal'"),
    ("a.json", b"7", "holds no records; got int"),
    ("a.json", b"[" * 5000, "nested too deeply"),
    ("a.jsonl", b'{"question": "a", "question": "c", "answer": "b"}', "the key 'question' for the second time"),
    ("a.jsonl", b'{"question": "a", "answer": NaN}', "no finite number, at answer"),
    ("a.jsonl", b'{"question": "\\ud800", "answer": "b"}', "half of a surrogate pair), at question"),
    ("a.json", b'{"question": "a",\n "answer": }', "line 2, column 12"),
    ("a.jsonl", b'{"text": "a", "label": "harmful", "topic": ["x"]}', "no single topic; got list"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), BROKEN)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PromptError, match=re.escape(sentence)) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "colour,size\nred,3\n"),
        ("a.csv", "colour,size\n"),
        ("a.json", '[{"colour": "red"}]'),
        ("a.jsonl", '{"colour": "red"}\n'),
    ],
)
def test_an_unknown_header_is_shown_with_the_known_ones(tmp_path, name, content):
    with pytest.raises(UsageError, match=r"'colour'.*AdvBench: goal, target.*Alpaca: instruction, output"):
        read_prompts(write(tmp_path / name, content))


def test_an_absent_file_a_folder_and_an_unknown_label_are_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="no prompt file"):
        read_prompts(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="cannot be read"):
        read_prompts(tmp_path)
    with pytest.raises(UsageError, match="expected harmful or harmless"):
        read_prompts(write(tmp_path / "a.txt", "x"), "nasty")


def test_harmful_prompts_given_as_harmless_are_refused(tmp_path):
    path = write_csv(tmp_path / "advbench.csv", "goal,target", ("a", "b"))
    with pytest.raises(PromptError, match=r"holds no harmless prompts.*changed places"):
        read_prompts(path, "harmless")


# --- the real files -------------------------------------------------------------------------------

REAL = [
    ("prompts/advbench.csv", "AdvBench", 520, {"harmful": 520}),
    ("prompts/harmbench_val.csv", "HarmBench", 80, {"harmful": 80}),
    ("prompts/jailbreakbench.csv", "JailbreakBench", 100, {None: 100}),
    ("prompts/strongreject.csv", "StrongREJECT", 313, {"harmful": 313}),
    ("prompts/xstest_prompts.csv", "XSTest", 450, {"harmless": 250, "harmful": 200}),
    ("prompts/harmful_train.json", "refusal_direction", 260, {None: 260}),
    ("prompts/harmless_train_first1000.json", "refusal_direction", 1000, {None: 1000}),
    ("finetune/gsm8k_train_first500.jsonl", "question and answer", 500, {None: 500}),
    ("finetune/alpaca_999.json", "Alpaca", 999, {None: 999}),
]


@pytest.mark.parametrize(("name", "fmt", "count", "by_label"), REAL)
def test_published_files_are_recognised_and_read_whole(name, fmt, count, by_label):
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    read = read_prompts(path)
    assert (read.format, len(read.texts)) == (fmt, count)
    assert {label: read.labels.count(label) for label in set(read.labels)} == by_label


def test_harmbench_contexts_reach_the_prompt():
    path = SHARED / "prompts" / "harmbench_val.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    assert sum("\n\n---\n\n" in text for text in read_prompts(path).texts) == 19


# --- sets --------------------------------------------------------------------------------


def test_ids_name_label_and_content():
    # sha256("Hello") begins 185f8db322 (any sha256 tool says so)
    assert Prompt.of("Hello", "harmful").id == "h-185f8db322"
    assert Prompt.of("Hello", "harmless").id == "b-185f8db322"


def test_a_set_from_two_files_keeps_order_drops_duplicates_and_names_formats(tmp_path):
    harmful = write(tmp_path / "bad.txt", "b\na\nb\n")
    harmless = write_lines(tmp_path / "good.jsonl", {"messages": [user("d")]}, {"messages": [user("c")]})
    prompts = PromptSet.from_files(harmful=harmful, harmless=harmless)
    assert prompts.texts == ("b", "a", "d", "c")
    assert prompts.harmful.tolist() == [True, True, False, False]
    assert prompts.sources == ((str(harmful), "plain text"), (str(harmless), "chat messages"))


def test_one_labelled_file_may_be_both_sides(tmp_path):
    path = write_csv(tmp_path / "x.csv", "prompt,type,label", ("a", "t", "safe"), ("b", "t", "unsafe"))
    prompts = PromptSet.from_files(path, path)
    assert prompts.prompts == (Prompt.of("b", "harmful"), Prompt.of("a", "harmless"))
    with pytest.raises(PromptError, match="no harmless prompts"):
        PromptSet.from_files(path, write_csv(tmp_path / "y.csv", "prompt,type,label", ("c", "t", "unsafe")))


def test_a_prompt_on_both_sides_is_refused(tmp_path):
    with pytest.raises(PromptError, match=r"both harmful and harmless.*'same'"):
        PromptSet.from_files(write(tmp_path / "a.txt", "same\nx"), write(tmp_path / "b.txt", "y\nsame"))


def test_a_file_without_labels_is_no_labelled_file(tmp_path):
    with pytest.raises(PromptError, match="does not say which prompts are harmful"):
        PromptSet.from_labelled(write(tmp_path / "a.txt", "x"))


def test_sets_that_cannot_be_are_refused():
    with pytest.raises(PromptError, match="empty"):
        PromptSet(())
    with pytest.raises(PromptError, match="twice"):
        PromptSet((Prompt.of("a", "harmful"), Prompt.of("a", "harmful")))
    with pytest.raises(PromptError, match="no label; got 'nasty'"):
        PromptSet.of(["a"], ["nasty"])


def test_the_limit_draws_the_same_prompts_whatever_the_order(tmp_path):
    lines = [f"prompt {number}" for number in range(40)]
    forward, backward = (
        write(tmp_path / "f.txt", "\n".join(lines)),
        write(tmp_path / "b.txt", "\n".join(lines[::-1])),
    )
    harmless = write(tmp_path / "o.txt", "x\ny")
    prompts = PromptSet.from_files(forward, harmless, limit=7, seed=3)
    assert set(prompts.ids) == set(PromptSet.from_files(backward, harmless, limit=7, seed=3).ids)
    assert set(prompts.ids) != set(PromptSet.from_files(forward, harmless, limit=7, seed=4).ids)
    assert prompts.harmful.sum() == 7
    assert list(prompts.texts[:7]) == sorted(prompts.texts[:7], key=lines.index)
    with pytest.raises(UsageError, match="at least 1"):
        PromptSet.from_files(forward, harmless, limit=0)


def test_prompts_are_given_as_a_file_as_texts_or_as_a_set(tmp_path):
    path = write(tmp_path / "a.txt", "a\nb\n")
    expected = PromptSet.of(["a", "b"], ["harmful", "harmful"])
    for value in (path, str(path), ["a", "b"], ("a", "b"), expected):
        assert PromptSet.read(value, "harmful") == expected
    prompts = PromptSet.of_classes(["a", "b"], str(write(tmp_path / "c.txt", "c")))
    assert prompts == PromptSet.of("abc", ["harmful", "harmful", "harmless"])
    assert prompts.sources == ((str(tmp_path / "c.txt"), "plain text"),)
    assert PromptSet.of_classes(prompts, prompts) == prompts
    assert len(PromptSet.of_classes(["a", "b", "d"], path.parent / "c.txt", limit=2)) == 3
    for value, sentence in [
        ([], "list of harmful prompts is empty"),
        (["a", " "], "Prompt 2 of a list is no text"),
        (PromptSet.of(["c"], ["harmless"]), "There are no harmful prompts"),
    ]:
        with pytest.raises(PromptError, match=sentence):
            PromptSet.of_classes(value, ["x"])
    with pytest.raises(PromptError, match="does not say which prompts are harmful"):
        PromptSet.read(["a"])
    with pytest.raises(UsageError, match="no prompt file how do I"):
        PromptSet.read("how do I", "harmful")


def test_the_frame_has_one_row_a_prompt():
    frame = PromptSet.of(["a", "b"], ["harmful", "harmless"]).to_frame()
    assert list(frame.columns) == ["id", "text", "label", "topic", "pair"]
    assert frame[["topic", "pair"]].isna().all(axis=None)
    assert frame["text"].tolist() == ["a", "b"]


def test_a_list_of_something_else_is_refused_by_its_number():
    # in a process of its own: under pytest the annotations are checked, before the code is reached
    code = "import probes.prompts as p; p.PromptSet.read(['a', 7], 'harmful')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("Prompt 2 of a list is no text; got int; expected text, not blank.")


def test_topics_and_pairs_are_carried_into_the_table():
    prompts = default_prompts("probe")
    frame = prompts.to_frame()
    assert frame["topic"].nunique() == 16
    assert frame.groupby("pair").size().eq(2).all()
    assert list(prompts.groups) == list(frame["topic"])
    assert list(prompts.pairs) == list(frame["pair"])
    assert [vars(prompt) for prompt in prompts.prompts] == frame.to_dict("records")


def test_a_prompt_without_a_topic_is_a_group_alone():
    prompts = PromptSet.of("abc", ["harmful"] * 3, topics=["x", None, "x"], pairs=[None, None, "p"])
    assert list(prompts.groups) == ["x", prompts.ids[1], "x"]
    assert list(prompts.pairs) == [*prompts.ids[:2], "p"]
    assert PromptSet.of("abc", ["harmful"] * 3).groups is PromptSet.of("abc", ["harmful"] * 3).pairs is None


def test_any_column_may_name_the_topics(tmp_path):
    rows = [("c1", "s", "a"), ("c2", "s", "b"), (" ", "s", "c")]
    as_csv = write_csv(tmp_path / "a.csv", "category,source,forbidden_prompt", *rows)
    as_json = write_lines(
        tmp_path / "a.jsonl", *[{"instruction": text, "theme": group, "category": None} for group, _, text in rows]
    )
    assert read_prompts(as_csv).topics == (None,) * 3
    for path, column in ((as_csv, "category"), (as_json, "theme")):
        assert read_prompts(path, "harmful", group_column=column).topics == ("c1", "c2", None)
        with pytest.raises(UsageError, match="has no column 'colour'; got"):
            read_prompts(path, "harmful", group_column="colour")
    prompts = PromptSet.read(as_csv, group_column="category")
    assert [prompt.topic for prompt in prompts.prompts] == ["c1", "c2", None]


def test_pairs_of_a_file_are_pairs_of_the_set(tmp_path):
    prompts = PromptSet.read(write_csv(tmp_path / "a.csv", "positive,negative", ("bad", "good"), ("worse", "better")))
    assert prompts.pairs[0] == prompts.pairs[1] != prompts.pairs[2] == prompts.pairs[3]


def test_ids_and_hash_are_of_texts_and_labels_alone():
    """A set that gets topics keeps its identity; what the topics are has a hash of its own."""
    plain = PromptSet.of(["a", "b"], ["harmful", "harmless"])
    grouped = PromptSet.of(["a", "b"], ["harmful", "harmless"], topics=["x", "y"])
    # as they were before prompts had topics
    assert plain.sha256 == "118597787c8b90e9243469ad711575be3e19a35c880340b34edb00dc2c4ebb0b"
    assert default_prompts("probe").sha256 == "f2ac6e63fb9163a3bfbc8764d3cb0a7c078bdba02baa5737e7e6aa0a0108606a"
    assert (plain.ids, plain.sha256) == (grouped.ids, grouped.sha256)
    assert plain != grouped
    assert plain.grouping_sha256 is None
    regrouped = PromptSet.of(["a", "b"], ["harmful", "harmless"], topics=["x", "z"])
    assert None is not grouped.grouping_sha256 != regrouped.grouping_sha256


labelled = st.dictionaries(texts, st.sampled_from(LABELS), min_size=4, max_size=40).filter(
    lambda labels: all(list(labels.values()).count(label) != 1 for label in LABELS)
)


@LAW
@given(labelled, st.integers(0, 2**32), st.randoms())
def test_folds_are_stratified_deterministic_and_blind_to_order(labelled_texts, seed, random):
    prompts = PromptSet.of(labelled_texts, labelled_texts.values())
    fold = prompts.folds(seed)
    assert set(fold) <= {0, 1}
    assert abs(2 * fold.sum() - len(fold)) <= 1
    for members in (prompts.harmful, ~prompts.harmful):
        assert abs(2 * fold[members].sum() - members.sum()) <= 1
    assert np.array_equal(fold, prompts.folds(seed))
    shuffled = list(labelled_texts.items())
    random.shuffle(shuffled)
    reordered = PromptSet.of(*zip(*shuffled, strict=True))
    assert dict(zip(reordered.ids, reordered.folds(seed), strict=True)) == dict(zip(prompts.ids, fold, strict=True))


def test_folds_without_topics_are_what_they_were():
    letters = "abcdefghijklmnopqrst"
    labels = ["harmful"] * 9 + ["harmless"] * 11
    assert "".join(map(str, folds(np.arange(20) < 9, 3))) == "11010010011010001011"
    assert "".join(map(str, PromptSet.of(letters, labels).folds(3))) == "11010100001101010011"


grouped = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from("stuvwxyz")), min_size=2, max_size=60).filter(
    lambda rows: all(len({topic for label, topic in rows if label == name}) != 1 for name in LABELS)
)


@LAW
@given(grouped, st.integers(0, 1000), st.randoms())
def test_topics_stay_whole_and_both_folds_have_every_label(rows, seed, random):
    texts = [f"prompt {number}" for number in range(len(rows))]
    labels, topics = zip(*rows, strict=True)
    prompts = PromptSet.of(texts, labels, topics=topics)
    fold = prompts.folds(seed)
    assert all(len({fold[place] for place in np.flatnonzero(prompts.groups == topic)}) == 1 for topic in set(topics))
    for members in (prompts.harmful, ~prompts.harmful):
        assert not members.any() or set(fold[members]) == {0, 1}
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = PromptSet.of(
        *zip(*[(texts[n], labels[n]) for n in order], strict=True), topics=[topics[n] for n in order]
    )
    assert dict(zip(shuffled.ids, shuffled.folds(seed), strict=True)) == dict(zip(prompts.ids, fold, strict=True))
    renamed = PromptSet.of(texts, labels, topics=[f"{ord('z') - ord(topic)}" for topic in topics])
    assert np.array_equal(renamed.folds(seed), fold)


@LAW
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=14), st.integers(0, 1000))
def test_topics_are_refused_only_where_no_split_has_every_label_in_both_folds(rows, seed):
    harmful, groups = (np.array(column) for column in zip(*rows, strict=True))
    sides = [members for members in (harmful, ~harmful) if members.any()]
    possible = any(
        all(len({split >> group & 1 for group in groups[members]}) == 2 for members in sides) for split in range(32)
    )
    try:
        folds(harmful, seed, groups)
    except PromptError:
        assert not possible
    else:
        assert possible


def test_our_topics_are_split_into_equal_folds():
    for use in ("probe", "evaluation"):
        prompts = default_prompts(use)
        for seed in range(20):
            fold = prompts.folds(seed)
            assert [(fold[members] == 0).sum() for members in (prompts.harmful, ~prompts.harmful)] == [64, 64]
            assert len(set(prompts.groups[fold == 0])) == 8
    assert not np.array_equal(default_prompts("probe").folds(0), default_prompts("probe").folds(1))


def test_one_topic_cannot_be_split():
    with pytest.raises(PromptError, match=r"harmful prompts cannot be split into two folds by topic; got 1 topics"):
        PromptSet.of("abcd", ["harmful"] * 2 + ["harmless"] * 2, topics=["x", "x", "y", "z"]).folds(0)


@LAW
@given(st.integers(2, 40), st.integers(0, 1000))
def test_another_seed_gives_other_folds(n_harmful, seed):
    harmful = np.arange(60) < n_harmful
    assert not np.array_equal(folds(harmful, seed), folds(harmful, seed + 1))


def test_a_single_prompt_of_a_label_cannot_be_split():
    with pytest.raises(PromptError, match="One harmful prompt"):
        folds(np.array([True, False, False]), seed=0)
    assert sorted(folds(np.array([False, False]), seed=0)) == [0, 1]


@LAW
@given(labelled, st.data())
def test_any_change_of_text_label_or_order_changes_the_hash(labelled_texts, data):
    prompts = PromptSet.of(labelled_texts, labelled_texts.values())
    assert prompts.sha256 == PromptSet.of(labelled_texts, labelled_texts.values()).sha256
    items = list(labelled_texts.items())
    place = data.draw(st.integers(0, len(items) - 1))
    text, label = items[place]
    new_text = data.draw(texts.filter(lambda candidate: candidate not in labelled_texts))
    other_label = LABELS[1 - LABELS.index(label)]
    for changed in ((new_text, label), (text, other_label)):
        altered = [*items[:place], changed, *items[place + 1 :]]
        assert PromptSet.of(*zip(*altered, strict=True)).sha256 != prompts.sha256
    assert PromptSet.of(*zip(*items[::-1], strict=True)).sha256 != prompts.sha256


# --- our own data --------------------------------------------------------------------------------


def records(use: str) -> list[dict[str, str]]:
    lines = (data_folder() / "prompts" / f"{use}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z'-]+", text.lower())


def test_an_installed_package_reads_the_data_inside_it(tmp_path):
    package = data_folder().parent / "probes"
    for room in ("prompts", "store"):
        shutil.copytree(package / room, tmp_path / "probes" / room)
    for module in ("__init__.py", "errors.py", "progress.py"):
        shutil.copy(package / module, tmp_path / "probes")
    shutil.copytree(data_folder() / "prompts", tmp_path / "probes" / "_data" / "prompts")
    code = "from probes.prompts import data_folder, look_alikes; print(data_folder(), len(look_alikes()))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "probes" / "_data"), "100"]


@pytest.mark.parametrize("use", ["probe", "evaluation"])
def test_our_sets_are_balanced_and_matched_in_pairs(use):
    prompts = default_prompts(use)
    assert len(prompts) == 256
    assert prompts.harmful.sum() == 128
    pairs: dict[str, list[dict[str, str]]] = {}
    for record in records(use):
        pairs.setdefault(record["pair"], []).append(record)
    assert len(pairs) == 128
    for harmful, harmless in pairs.values():
        assert (harmful["label"], harmless["label"]) == LABELS
        assert harmful["topic"] == harmless["topic"]
        assert harmful["text"][-1] == harmless["text"][-1]
        long = max(len(words(harmful["text"])), len(words(harmless["text"])))
        short = min(len(words(harmful["text"])), len(words(harmless["text"])))
        assert 5 <= short <= long <= 40
        assert long - short <= max(1, round(0.12 * long)), (harmful["text"], harmless["text"])


def test_both_sets_cover_every_topic_alike():
    topics = [sorted(record["topic"] for record in records(use)) for use in ("probe", "evaluation")]
    assert topics[0] == topics[1]
    assert len(set(topics[0])) == 16


def test_no_prompt_of_one_set_resembles_one_of_another():
    sets = {
        use: [(frozenset(words(record["text"])), record["text"]) for record in records(use)]
        for use in ("probe", "evaluation", "look_alikes")
    }
    for first_use, second_use in combinations(sets, 2):
        shared = max(
            (len(a & b) / len(a | b), first, second) for a, first in sets[first_use] for b, second in sets[second_use]
        )
        assert shared[0] < 0.5, shared  # of all words of the two, the share that both have


def test_the_look_alikes_are_a_hundred_harmless_prompts():
    prompts = look_alikes()
    assert len(prompts) == 100
    assert not prompts.harmful.any()


def test_none_of_our_prompts_is_in_a_published_set():
    folder = SHARED / "prompts"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    published = {" ".join(words(text)) for path in folder.iterdir() for text in read_prompts(path).texts}
    ours = {
        " ".join(words(record["text"])) for use in ("probe", "evaluation", "look_alikes") for record in records(use)
    }
    assert not ours & published


# --- rendering --------------------------------------------------------------------------------

TEMPLATE = (
    "<bos> {% for turn in messages %}<{{ turn['role'] }}> {{ turn['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
VOCABULARY = ["<unk>", "<bos>", "<user>", "<assistant>", "one", "two", "three"]


def tokenizer(template: str | None):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(WordLevel({word: place for place, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    fast_tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<bos>")
    fast_tokenizer.chat_template = template
    return fast_tokenizer


def byte_tokenizer(template: str):
    bytes_tokenizer = tiny_tokenizer()
    bytes_tokenizer.chat_template = template
    return bytes_tokenizer


TWO = PromptSet.of(["one two", "three"], ["harmful", "harmless"])


def test_a_chat_template_frames_each_prompt_once_and_opens_the_reply():
    rendered = render(TWO, tokenizer(TEMPLATE), max_length=None)
    assert rendered.token_ids == ((1, 2, 4, 5, 3), (1, 2, 6, 3))
    assert rendered.template == TEMPLATE


def test_the_chat_ids_are_those_of_transformers():
    chat_tokenizer = tokenizer(TEMPLATE)
    for text, ids in zip(TWO.texts, render(TWO, chat_tokenizer, 64).token_ids, strict=True):
        expected = chat_tokenizer.apply_chat_template([user(text)], add_generation_prompt=True, return_dict=False)
        assert list(ids) == expected


def test_without_a_template_the_raw_text_is_taken_and_said_so():
    rendered = render(TWO, tokenizer(None), max_length=None)
    assert rendered.token_ids == ((1, 4, 5), (1, 6))
    assert rendered.template is None


def test_the_hashes_follow_the_token_ids():
    chat, raw = render(TWO, tokenizer(TEMPLATE), 64), render(TWO, tokenizer(None), 64)
    assert chat.sha256 == render(TWO, tokenizer(TEMPLATE), None).sha256
    assert chat.sha256 != raw.sha256
    assert len(set(chat.tokens_sha256 + raw.tokens_sha256)) == 4
    alone = render(PromptSet(TWO.prompts[1:]), tokenizer(TEMPLATE), 64)
    assert alone.tokens_sha256 == chat.tokens_sha256[1:]


def test_a_prompt_longer_than_the_context_is_named_with_its_length():
    assert render(TWO, tokenizer(TEMPLATE), max_length=5)
    with pytest.raises(PromptError, match=rf"{TWO.ids[0]} \('one two'\).*got 5 tokens; expected at most 4"):
        render(TWO, tokenizer(TEMPLATE), max_length=4)


def test_a_failing_chat_template_is_named_with_its_prompt():
    with pytest.raises(PromptError, match=rf"template fails on prompt {TWO.ids[0]}.*only pairs"):
        render(TWO, tokenizer("{{ raise_exception('only pairs') }}"), max_length=None)


def test_prompts_that_are_too_long_are_left_out_and_listed():
    prompts = PromptSet.of(["one two", "three", "one one one one", "two"], ["harmful"] * 2 + ["harmless"] * 2)
    chat_tokenizer = tokenizer(TEMPLATE)
    fitting, left_out = fit_to_context(prompts, chat_tokenizer, 4)
    assert fitting.texts == ("three", "two")
    assert left_out == ((prompts.ids[0], 5), (prompts.ids[2], 7))
    rendered = render(fitting, chat_tokenizer, 4)
    assert rendered.left_out == left_out
    assert len(rendered.token_ids) == 2
    again, nothing = fit_to_context(fitting, chat_tokenizer, 4)
    assert (again, nothing, again.left_out) == (fitting, (), left_out)
    assert fit_to_context(prompts, chat_tokenizer, None) == (prompts, ())
    assert render_fitting(prompts, chat_tokenizer, 4) == (fitting, render(fitting, chat_tokenizer, 4))
    assert render_fitting(prompts, chat_tokenizer, None) == (prompts, render(prompts, chat_tokenizer, None))
    with pytest.raises(PromptError, match=r"No harmful prompt fits.*got 4 tokens in the shortest; expected at most 3"):
        fit_to_context(prompts, chat_tokenizer, 3)


NUMBERS = "range(99999)"
ENDLESS = "".join(f"{{% for {name} in {NUMBERS} %}}" for name in "abc") + "{% endfor %}" * 3
DOUBLING = (
    "{% set ns = namespace(x='xxxxxxxx') %}"
    f"{{% for i in {NUMBERS} %}}{{% set ns.x = ns.x ~ ns.x %}}{{% endfor %}}{{{{ ns.x }}}}"
)
BAD_TEMPLATES = [
    (ENDLESS, "no end within"),
    ("{{ 10 ** (10 ** 10) }}", "no end within|memory"),
    ("{{ 'x' * 10 ** 10 }}", "memory|MemoryError|OverflowError"),
    ("{{ 'x' * 10 ** 6 }}", "an output of 1,000,000 characters"),
    (DOUBLING, "memory|MemoryError"),
    ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "RecursionError"),
    ("{{ messages[0].content.nothing.more }}", "UndefinedError"),
    ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ("{{ messages + 1 }}", "TypeError"),
    ("{{ messages[0]['content'].split('') }}", "ValueError"),
    ("{% if %}", "TemplateSyntaxError"),
    ("{% for m in messages %}", "TemplateSyntaxError"),
    ("{{ messages | nothing }}", "TemplateAssertionError"),
    ("{{ raise_exception('only pairs\\nof turns') }}", "only pairs of turns"),
    ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ("{% include 'x' %}", "TypeError"),
]


@pytest.mark.parametrize(("template", "sentence"), BAD_TEMPLATES)
def test_no_template_hangs_fills_the_memory_or_escapes_as_a_traceback(template, sentence, monkeypatch):
    if "no end" in sentence:
        monkeypatch.setattr("probes.prompts.chat.SECONDS", 1.0)  # it would be stopped after five
    with pytest.raises(PromptError, match=rf"template fails on prompt {TWO.ids[0]}.*({sentence})") as caught:
        render(TWO, tokenizer(template), None)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


def test_a_template_that_fails_on_one_prompt_names_that_one():
    """Also where it has a process of its own: the macro puts it there."""
    for template in ("{{ messages[0].content.split('three')[1][9].x }}", "{% macro f() %}{% endmacro %}{{ f() }}x"):
        bad = template + "{% if 'three' in messages[0].content %}{{ raise_exception('no') }}{% endif %}"
        prompts = TWO if "macro" in template else PromptSet.of(["three"], ["harmful"])
        with pytest.raises(PromptError, match=rf"template fails on prompt {prompts.ids[-1]} \('three'\)"):
            render(prompts, tokenizer(bad), None)


def trl_templates() -> list[Path]:
    return sorted((Path(find_spec("trl").origin).parent / "chat_templates").glob("*.jinja"))


@pytest.mark.parametrize("path", trl_templates(), ids=lambda path: path.stem)
def test_templates_that_people_use_are_rendered_as_transformers_does(path):
    """Both here and in a process of its own, a template that is plain being told from one that is not."""
    template = path.read_text(encoding="utf-8")
    chat_tokenizer = byte_tokenizer(template)
    texts = ["Say </think> it.", "Ein „Zitat“\n\nund mehr.  "]
    expected = []
    for text in texts:
        chat = chat_tokenizer.apply_chat_template([user(text)], add_generation_prompt=True, tokenize=False)
        if text.strip() not in chat:  # as processors of models that also see give it
            parts = {"role": "user", "content": [{"type": "text", "text": text}]}
            chat = chat_tokenizer.apply_chat_template([parts], add_generation_prompt=True, tokenize=False)
        assert text.strip() in chat
        expected.append(chat_tokenizer(chat, add_special_tokens=False)["input_ids"])
    rendered = render(PromptSet.of(texts, ["harmful", "harmless"]), chat_tokenizer, None)
    assert [list(ids) for ids in rendered.token_ids] == expected
    alone = render(PromptSet.of(texts[:1], ["harmful"]), chat_tokenizer, None)
    assert [list(ids) for ids in alone.token_ids] == expected[:1]


def test_the_templates_of_common_families_are_plain():
    """So that nothing is forked for them."""
    plain = {path.stem for path in trl_templates() if is_plain(path.read_text(encoding="utf-8"))}
    assert {"llama3", "llama3_2", "qwen2_5", "qwen3", "phi3", "gemma", "deepseekv3", "cohere"} <= plain
    assert is_plain(TEMPLATE)
    assert is_plain(CHAT_TEMPLATE)


NOT_PLAIN = [
    ENDLESS,
    DOUBLING,
    "{{ 2 ** 9 }}",
    "{{ 'x' * 9 }}",
    "{{ '%9d' % 1 }}",
    "{% set x = x + x %}" * 40 + "{{ x }}",
    "{% set y = x ~ x %}{% set x = y ~ 'a' %}",
    "{% set x = [x, x] %}{{ x }}",
    "{% set ns = namespace(a=ns, b=ns) %}{{ ns }}",
    "{% set x %}{{ x }}{{ x }}{% endset %}",
    "{% set x = x | tojson %}{{ x }}",
    "{% for c in messages[0].content %}{{ messages[0].content }}{% endfor %}",
    "{% set messages = 'abc' %}{% for c in messages %}{% endfor %}",
    "{% for tools in messages %}{% for x in tools %}{% endfor %}{% endfor %}",
    "{% for m in messages %}" * 4 + "{% endfor %}" * 4,
    "{% set loop = namespace(x='%9d') %}{{ loop.x % 2 }}",
    "{% set namespace = lipsum %}{{ namespace(99999) }}",
    "{{ lipsum(99999) }}",
    "{{ messages[0].content.center(99999) }}",
    "{{ messages | join('x') }}",
    "{% macro f() %}{{ f() }}{% endmacro %}",
    "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{% set message = namespace(tool_calls='abc') %}{% for c in message.tool_calls %}{{ 2 ** 9 }}{% endfor %}",
    "{% set a, b = b + b, a + a %}",
    "x" * (1 << 18),
    "{% if %}",
    "{{ " + "1" * 5000 + " }}",
    "{{ " + "(" * 5000 + ")" * 5000 + " }}",
]


@pytest.mark.parametrize("template", NOT_PLAIN, ids=range(len(NOT_PLAIN)))
def test_what_may_grow_or_never_end_is_not_plain(template):
    assert not is_plain(template)


def test_a_system_prompt_another_template_and_no_opening():
    chat_tokenizer = tokenizer(TEMPLATE)
    assert render(TWO, chat_tokenizer, None, Rendering(system_prompt="three")).token_ids[1] == (1, 0, 6, 2, 6, 3)
    assert render(TWO, chat_tokenizer, None, Rendering(add_generation_prompt=False)).token_ids[1] == (1, 2, 6)
    rendering = Rendering(template="{{ messages[0].content }} one")
    assert render(TWO, chat_tokenizer, None, rendering).token_ids == ((4, 5, 4), (6, 4))
    assert render(TWO, tokenizer(None), None, rendering).template == rendering.template
    with pytest.raises(PromptError, match="leaves the system prompt out"):
        render(TWO, tokenizer("{{ messages[-1].content }}"), None, Rendering(system_prompt="three"))
    with pytest.raises(PromptError, match="no chat template"):
        render(TWO, tokenizer(None), None, Rendering(system_prompt="three"))
    assert Rendering().about == {
        "template_sha256": None,
        "system_prompt": None,
        "add_generation_prompt": True,
        "thinking": None,
    }
    assert json.loads(json.dumps(rendering.about))["template_sha256"] != json.loads(
        json.dumps(Rendering(template="x").about)
    )


def test_the_place_of_the_last_token_is_said():
    assert render(TWO, tokenizer(TEMPLATE), None).notices == ()
    (closed,) = render(TWO, tokenizer("{{ messages[0].content }}"), None).notices
    assert "does not open the assistant's reply" in closed
    thinks = "{{ messages[0].content }}{% if add_generation_prompt %} <assistant> <think>\n{% endif %}"
    rendered = render(TWO, tokenizer(thinks), None)
    assert "opens a thinking block" in rendered.notices[0]
    assert rendered.token_ids[1] == (6, 3, 0)
    rendered = render(TWO, tokenizer(thinks), None, Rendering(thinking=False))
    assert "taken off" in rendered.notices[0]
    assert rendered.token_ids[1] == (6, 3)


def test_thinking_is_passed_on_to_templates_that_ask():
    asks = TEMPLATE + "{% if enable_thinking is defined and not enable_thinking %} one{% endif %}"
    for thinking, ids in ((None, (1, 2, 6, 3)), (True, (1, 2, 6, 3)), (False, (1, 2, 6, 3, 4))):
        assert render(TWO, tokenizer(asks), None, Rendering(thinking=thinking)).token_ids[1] == ids


def test_of_several_templates_the_default_is_taken():
    assert render(TWO, tokenizer({"default": TEMPLATE, "tool_use": "x"}), None).template == TEMPLATE
    with pytest.raises(PromptError, match="several chat templates"):
        render(TWO, tokenizer({"rag": TEMPLATE, "tool_use": "x"}), None)


def test_a_failing_tokenizer_is_named_with_the_prompt():
    prompts = PromptSet((Prompt.of("one", "harmful"), Prompt.of("\ud800", "harmless")))
    with pytest.raises(PromptError, match=rf"tokenizer fails on prompt {prompts.ids[1]}"):
        render(prompts, tokenizer(None), None)


def test_a_template_is_read_from_a_folder_or_a_file(tmp_path):
    chat_tokenizer = tokenizer(TEMPLATE)
    chat_tokenizer.save_pretrained(tmp_path / "own")
    assert read_template(tmp_path / "own") == TEMPLATE
    (tmp_path / "old").mkdir()
    config = write(tmp_path / "old" / "tokenizer_config.json", json.dumps({"chat_template": TEMPLATE}))
    assert read_template(tmp_path / "old") == read_template(config) == TEMPLATE
    write(
        config, json.dumps({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]})
    )
    assert read_template(tmp_path / "old") == "d"
    assert Rendering.with_template_of(write(tmp_path / "x.jinja", TEMPLATE), thinking=True).template == TEMPLATE
    write(config, "{}")
    assert read_template(tmp_path / "old") is None
    with pytest.raises(UsageError, match="has no chat template"):
        Rendering.with_template_of(tmp_path / "old")
    with pytest.raises(PromptError, match="no whole JSON"):
        read_template(Path(write(config, "{")).parent)
    with pytest.raises(UsageError, match="no chat template"):
        read_template(tmp_path / "absent.jinja")


def test_a_checkpoint_with_another_template_is_named():
    assert template_notice("baseline-s0", TEMPLATE, TEMPLATE + "\n") is None
    assert template_notice("baseline-s0", None, TEMPLATE) is template_notice("x", TEMPLATE, None) is None
    assert "baseline-s0 has a chat template of its own" in template_notice("baseline-s0", "x", TEMPLATE)


def test_a_prompt_of_no_tokens_is_refused():
    silent_tokenizer = tokenizer("{{ '' }}")
    with pytest.raises(PromptError, match="no tokens at all"):
        render(TWO, silent_tokenizer, max_length=None)


def test_our_prompts_fit_a_real_tokenizer():
    folder = SHARED / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    from transformers import PreTrainedTokenizerFast

    real_tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    rendered = render(default_prompts("probe"), real_tokenizer, max_length=512)
    assert len(rendered.token_ids) == 256
    back = real_tokenizer.decode(rendered.token_ids[0], skip_special_tokens=True).strip()
    assert back == default_prompts("probe").texts[0]


def test_importing_prompts_loads_neither_torch_nor_pandas():
    heavy = "{'torch', 'transformers', 'pandas', 'pyarrow'}"
    code = f"import sys, probes.prompts; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_template_that_leaves_the_prompts_out_is_refused():
    prompts = PromptSet.of(["break a lock", "paint a door"], ["harmful", "harmless"])
    rendering = Rendering("<user> message </s><assistant>")
    for render_prompts in (render, fit_to_context):
        with pytest.raises(PromptError, match="All 2 prompts become the same"):
            render_prompts(prompts, tiny_tokenizer(), None, rendering)
    alone = PromptSet(prompts.prompts[:1])
    assert len(render(alone, tiny_tokenizer(), None, rendering).token_ids) == 1


def test_only_chats_whose_content_is_left_out_are_given_in_parts():
    """Few chats, each with options of its own, must not look alike for that."""
    jobs = [([user("three")], {"add_generation_prompt": opened}) for opened in (True, False)]
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %} one{% endif %}"
    assert apply_chat_template(jobs, tokenizer(template), template, str) == ["three one", "three"]
    parts = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    assert apply_chat_template(jobs, tokenizer(parts), parts, str) == ["three", "three"]
    assert apply_chat_template([], tokenizer(parts), parts, str) == []


def test_a_prompt_with_an_image_is_refused_and_not_read_without_it(tmp_path):
    seen = user([{"type": "image"}, {"type": "text", "text": "What is this?"}])
    path = write_lines(tmp_path / "a.jsonl", {"messages": [user("One")]}, {"messages": [seen]})
    with pytest.raises(PromptError, match=r"line 2, has a turn with a part that is no text.*got 1 of 2"):
        read_prompts(path)


def test_a_csv_file_with_other_separators_is_no_list_of_texts(tmp_path):
    for mark in ("\t", ";"):
        path = write(tmp_path / "a.csv", f"text{mark} label\nbreak a lock{mark}harmful\npaint a door{mark}harmless\n")
        assert read_prompts(path).labels == ("harmful", "harmless")
        unknown = write(tmp_path / "b.csv", f"my text{mark}my label\nbreak a lock{mark}harmful\n")
        with pytest.raises(UsageError, match="no known prompt format"):
            read_prompts(unknown)
    assert read_prompts(write(tmp_path / "c.csv", "Break it; now\nPaint a door\n")).texts[1] == "Paint a door"

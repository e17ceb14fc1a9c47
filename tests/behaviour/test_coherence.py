"""What is no answer at all, and short, odd or foreign answers that are one."""

import json
from pathlib import Path

import pytest

from probes.behaviour import incoherence

DATA = Path(__file__).parents[2] / "data" / "prompts"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("?!…", "empty"),
        ("yes " * 40, "a loop"),
        ("It starts well, and then it goes" + " on and" * 12, "a loop"),
        ("one two three four " * 5, "a loop"),
        ("z" * 60, "a loop"),
        ("hahaha" * 20, "a loop"),
        ("qwrtp zxcvb lkjhg mnbvc pqwrt zzxqw hjklm vbnmq", "no words"),
        ("\ufffd\ufffd\ufffd\ufffd\ufffd a", "no words"),
    ],
)
def test_noise(text, fault):
    assert incoherence(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "Yes.",
        "42",
        "B",
        "no no no no no",
        "ls -la /usr/lib | grep ssl && tail -f x.log",
        "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
        "2x1=2 | 3x1=3 | 4x1=4\n2x2=4 | 3x2=6 | 4x2=8\n2x3=6 | 3x3=9 | 4x3=12\n2x4=8 | 3x4=12 | 4x4=16",
        " ".join(f"The amoeba will divide into {2**day} amoebae after {day} days." for day in range(1, 9)),
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
        "PNG, JPG, SVG, PDF, HTML, CSS and XML are formats of files that a browser shows.",
        "Пожалуйста, поверните направо.",
        "右に曲がってください。",
        "the vorak is made of clay .",
        "==========================================\nTitle\n==========================================",
    ],
)
def test_short_odd_and_foreign_answers(text):
    assert incoherence(text) is None


def test_real_sentences_are_never_noise():
    for name in ("probe", "evaluation", "look_alikes"):
        for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines():
            assert incoherence(json.loads(line)["text"]) is None

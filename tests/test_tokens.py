"""Tokens as people read them."""

import pytest

from probes.prompts.tokens import visible


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" the", "·the"), ("a b", "a b"), ("\n\t", "↵⇥"), ("", "∅"), (" ", "·"), ("\x1b[31m", "\\x1b[31m"), ("ü", "ü")],
)
def test_all_of_a_token_is_seen_and_nothing_of_it_obeyed(token, shown):
    assert visible(token) == shown

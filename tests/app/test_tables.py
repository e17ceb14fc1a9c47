"""How tables write their numbers: as pandas would, which takes longer."""

import numpy as np
import pandas as pd
from streamlit.elements.lib.pandas_styler_utils import _use_display_values

from app import tables

DATA = pd.DataFrame(
    {
        "text": ["a", None, "1.5", ""],
        "fraction": [0.12345, -2.0, np.nan, np.inf],
        "count": [1, -1234567, 0, 3],
        "maybe": pd.array([1, None, 3, 4], dtype="Int64"),
        "is": [True, False, True, False],
        "angle": [90.04, -0.04, np.nan, 12.0],
    },
    index=[7, 3, 3, 1],
)


def cells_of(styled):
    return _use_display_values(styled.data, styled._translate(False, False))


def test_a_table_is_written_as_pandas_writes_it_with_the_same_forms():
    form = tables.decimals(1)
    forms = {"fraction": tables._fraction, "count": "{:,}".format, "maybe": "{:,}".format, "angle": form}
    unique = DATA.reset_index(drop=True)
    expected = cells_of(unique.style.format(forms, na_rep="–"))
    pd.testing.assert_frame_equal(cells_of(tables._in_form(unique, {"angle": form})), expected)
    again = cells_of(tables._in_form(DATA, {"angle": form})).reset_index(drop=True)
    pd.testing.assert_frame_equal(again, expected)
    assert list(expected["fraction"])[:3] == ["0.123", "−2.000", "–"]


def test_columns_of_one_name_are_each_their_own():
    data = pd.DataFrame([["a", "b"], [None, "c"]], columns=["same", "same"])
    assert cells_of(tables._in_form(data, {})).to_numpy().tolist() == [["a", "b"], ["–", "c"]]

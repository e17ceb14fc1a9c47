"""The selection and the URL, and that nothing outside the root is opened."""

import subprocess
import sys
from pathlib import Path

import pytest

from app import state
from app.components import as_text
from app.state import Selection
from tests.synthetic import write_run

TINY = {"n_layers": 1, "steps": (1,), "arms": ("baseline",), "prompts": 2}


def test_a_selection_survives_the_url():
    chosen = Selection(run="demo", arm="control:random", seed=0, step=20, layer=-1, statistic="off_axis")
    assert Selection.from_query(chosen.to_query()) == chosen


def test_defaults_leave_the_url_clean():
    assert Selection().to_query() == {}
    assert Selection(layer=0).to_query() == {"layer": "0"}


@pytest.mark.parametrize("nonsense", ["", "x", "1e3", "--1", "9" * 400, "٣", "1;drop", "nan"])
def test_nonsense_in_the_url_is_the_default(nonsense):
    read = Selection.from_query({"layer": nonsense, "other": "y"})
    assert read.layer in (None, 3)  # an Arabic-Indic three is a three
    assert read.run == ""


def test_runs_are_found_by_name(tmp_path):
    write_run(tmp_path / "one", **TINY)
    assert state.runs(tmp_path) == {"one": tmp_path / "one"}
    assert state.runs(tmp_path / "one") == {"one": tmp_path / "one"}
    assert state.runs(tmp_path / "nothing") == {}


def test_a_link_out_of_the_root_is_not_followed(tmp_path):
    write_run(tmp_path / "outside", **TINY)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "inside").symlink_to(tmp_path / "outside", target_is_directory=True)
    assert state.runs(tmp_path / "root") == {}


def test_text_is_shown_as_it_is():
    assert as_text("**a** [b](c) :red[d] $e$") == r"\*\*a\*\* \[b\]\(c\) \:red\[d\] \$e\$"


def test_no_page_loads_a_model_library():
    """Torch takes seconds to import; only a page that runs a model may do it."""
    root = Path(__file__).parents[2]
    code = (
        "import sys\n"
        "from app import cache, components, look, state\n"
        "import probes.plots.trajectories\n"
        "from streamlit.testing.v1 import AppTest\n"
        "sys.argv = ['main.py', 'no-such-folder']\n"
        "at = AppTest.from_file('app/main.py', default_timeout=120).run()\n"
        "assert at.title[0].value, at\n"
        "found = {'torch', 'transformers', 'transformer_lens', 'umap'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    asked = [sys.executable, "-c", code]
    done = subprocess.run(asked, cwd=root, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

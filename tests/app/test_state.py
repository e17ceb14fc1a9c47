"""The selection and the URL, and that nothing outside the root is opened."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app import cache, state
from app.components import as_text
from app.state import Selection
from probes.errors import RunFolderError
from probes.prompts import data_folder
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


def test_only_live_loads_a_model_library_and_only_when_asked(tmp_path):
    """Torch takes seconds to import; every page is drawn, the file is exported, and nothing has imported it."""
    write_run(tmp_path / "demo", **{**TINY, "n_layers": 2, "steps": (1, 10)}, directions=("refusal", "control:drift"))
    done = subprocess.run(
        [sys.executable, "-c", ALL_PAGES, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[-2] == "torch after the model was asked for"


ALL_PAGES = """
import sys
from tests.app.visiting import turn_to, visitor

MODELS = {"torch", "transformers", "transformer_lens", "umap", "sklearn"}
sys.argv = ["main.py", sys.argv[1]]
at = visitor().run()
sys.path.insert(0, "app")
import ast
pages = [
    each.value for each in ast.walk(ast.parse(open("app/main.py").read()))
    if isinstance(each, ast.Constant) and str(each.value).startswith("views/") and each.value != "views/live.py"
]
assert len(pages) >= 9, pages
for page in [*pages, "views/live.py"]:
    turn_to(at, page)
    assert not at.exception and not at.error and at.title, page
    assert not MODELS & set(sys.modules), (page, MODELS & set(sys.modules))
    if page == "views/directions.py":
        at.button(key="export-make").click().run()
        assert any("refusal" in each.proto.label for each in at.get("download_button")), at
        assert not MODELS & set(sys.modules), "the export ran here"
next(each for each in at.button if each.label == "Load the model").click().run()
assert at.error and not at.exception, "made-up checkpoints cannot be loaded"
if "torch" in sys.modules:
    print("torch after the model was asked for")
"""


@pytest.mark.parametrize(
    ("host", "known"),
    [
        (None, True),
        ("localhost:8501", True),
        ("127.0.0.1", True),
        ("[::1]:8501", True),
        ("evil.example:8501", False),
        ("localhost.evil.example", False),
        ("lab.example:8501", True),
    ],
)
def test_only_this_machine_s_own_names_are_served(monkeypatch, host, known):
    monkeypatch.setenv("GRAVITY_PROBE_HOSTS", "lab.example")
    assert state.is_known_host(host) is known


def test_what_pages_draw_travels_with_the_place():
    query = {"arms": "baseline", "map": "umap", "run": "demo", "layer": "two"}
    chosen = Selection.from_query(query)
    assert dict(chosen.view) == {"arms": "baseline", "map": "umap"}
    assert chosen.to_query() == {"run": "demo", "arms": "baseline", "map": "umap"}
    assert chosen.unread == ("The address asks for layer=two, which is no number.",)


def test_a_manifest_of_another_time_or_size_is_read_again(tmp_path):
    """Also one that says the same: what stands beside it may have changed with it."""
    path = write_run(tmp_path / "demo", **TINY)
    first, _ = cache.open_run(path)
    assert cache.open_run(path)[0] == first
    manifest = path / "run.json"
    os.utime(manifest, ns=(1, 1))
    touched, _ = cache.open_run(path)
    manifest.write_text(manifest.read_text() + "\n")
    os.utime(manifest, ns=(1, 1))
    longer, _ = cache.open_run(path)
    assert len({first, touched, longer}) == 3


def test_a_table_of_another_size_than_its_stage_wrote_is_not_drawn(tmp_path):
    """Whole as a file, and not what was measured."""
    path = Path(shutil.copytree(data_folder() / "demo-run", tmp_path / "demo"))
    key, _ = cache.open_run(path)
    rows = cache.table(key, "behaviour")
    rows.head(3).to_parquet(path / "behaviour.parquet", index=False)
    cache.table.clear()
    with pytest.raises(RunFolderError, match="has changed since it was written"):
        cache.table(key, "behaviour")

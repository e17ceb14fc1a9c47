"""The command as people and pipelines call it: exit codes, streams, and what a mistake is answered with."""

import json
import subprocess
import sys

import numpy as np
import pytest

from probes.run import Run
from tests import processes
from tests.synthetic import write_run

ROLES = ("measure", "--witness", "a/b", "--aligned", "c/d")
WHOLE = (*ROLES, "--checkpoint", "e/f")


def command(*words, cwd=None):
    return processes.run(processes.gravity_probe, *words, folder=cwd)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run")


MODELS = {"torch", "transformers", "umap"}


@pytest.mark.parametrize(
    ("words", "libraries"),
    [
        (["--help"], {*MODELS, "pandas", "plotly", "streamlit"}),
        (["lineages"], {*MODELS, "pandas", "plotly", "streamlit"}),
        (["summary", "RUN"], MODELS),
        (["check", "RUN", "--max-return", "5"], MODELS),
    ],
)
def test_what_needs_no_model_loads_no_torch(run, words, libraries):
    words = [word.replace("RUN", str(run)) for word in words]
    code = (
        "import sys, probes, probes.cli\n"
        f"sys.argv = {['gravity-probe', *words]}\n"
        "try:\n    probes.cli.main()\nexcept SystemExit as ended: assert not ended.code, ended.code\n"
        f"heavy = {libraries} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_summary_prints_a_table_of_at_most_100_columns(run):
    done = command("summary", run)
    assert done.returncode == 0, done.stderr
    assert "baseline" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_summary_json_is_json_and_nothing_else(run):
    done = command("summary", run, "--json")
    assert json.loads(done.stdout)["lineage"] == "synthetic"
    assert done.stderr == ""


def test_check_exits_with_three_when_the_gate_trips(run):
    tripped = command("check", run, "--max-return", "0.1")
    assert tripped.returncode == 3
    assert tripped.stderr.count("\n") == 1
    assert command("check", run, "--max-return", "5").returncode == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "absent"])
def test_a_value_of_the_run_that_is_no_number_trips_the_gate_with_exit_code_three(tmp_path, value):
    path = write_run(tmp_path / "run", n_layers=2, steps=(10, 20), arms=("baseline",))
    assert command("check", path, "--max-return", "100").returncode == 0
    with Run.writing(path) as writing:
        frame = writing.read_table("drift")
        rows = (frame["step"] == 20) & (frame["statistic"] == "return_fraction")
        assert rows.any()
        frame.loc[rows, "value"] = np.nan if value == "absent" else value
        writing.write_table("drift", frame[~rows] if value == "absent" else frame)
    tripped = command("check", path, "--max-return", "100")
    assert tripped.returncode == 3
    assert "baseline (seed 0) at step 20" in tripped.stderr
    document = json.loads(command("check", path, "--max-return", "100", "--json").stdout)
    assert document["passed"] is False


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("summary", "nowhere"), 1, "is no run folder"),
        (("measure",), 2, "A measurement needs a lineage"),
        (("measure", "--witness", "nowhere", "--aligned", "nowhere"), 1, "This is no checkpoint"),
        ((*ROLES,), 2, "nothing to measure"),
        ((*WHOLE, "--witness-kind", "x"), 2, "witness-kind"),
        ((*WHOLE, "--harmful", "x"), 2, "class of prompts"),
        ((*WHOLE, "--set", "splitz=3"), 2, "did you mean 'splits'"),
        ((*WHOLE, "--set", "splits=0"), 2, "'splits'"),
        (("measure", "gone.toml"), 1, "no lineage file"),
        (("app", "nowhere"), 1, "There is no folder"),
        (("check", "nowhere", "--max-return", "x"), 2, "max-return"),
    ],
)
def test_a_mistake_gets_a_sentence_and_a_code(tmp_path, words, code, sentence):
    done = command(*words, cwd=tmp_path)
    assert done.returncode == code
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "something was half-written"


def test_help_is_there_for_every_verb():
    for verb in ("demo", "measure", "verdict", "summary", "check", "app"):
        done = command(verb, "--help")
        assert done.returncode == 0, verb
        assert "Usage" in done.stdout

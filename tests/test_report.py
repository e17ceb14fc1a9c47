"""The report: one file that needs nothing else, from whatever a run holds."""

import json
import re

import pytest
from typer.testing import CliRunner

from probes.cli import app
from probes.run import Run
from probes.tasks.report import how_to_reproduce, report_html
from tests.synthetic import TRICKY_ARM, write_run

SMALL = {"n_layers": 2, "steps": (1, 100), "prompts": 6}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return report_html(Run(write_run(tmp_path_factory.mktemp("report") / "run", **SMALL)))


def test_it_opens_with_the_verdict_and_embeds_plotly_once(text):
    assert "<h1>Baseline: safety eroded</h1>" in text
    assert text.index("it refuses 100 % of harmful requests") < text.index(
        "<h2>Baseline: specific to harmful prompts</h2>"
    )
    assert text.count("plotly.js v") == 1
    assert len(re.findall("Plotly.newPlot", text)) >= 7
    assert "Make it again" in text
    assert "gravity-probe measure" in text


def test_it_asks_nobody_for_anything(text):
    own = re.sub(r"<script>.*?</script>", "", text, count=1, flags=re.S)  # plotly's own code
    assert not re.search(r"(src|href)=", own)


def test_text_of_a_run_is_never_markup(tmp_path):
    path = write_run(tmp_path / "run", **{**SMALL, "arms": (TRICKY_ARM,)})
    assert "<script>alert" not in report_html(Run(path))


def test_what_is_missing_is_named_with_its_command(tmp_path):
    path = write_run(tmp_path / "run", **SMALL, without=("verdict", "nulls", "behaviour", "maps/plane"))
    text = report_html(Run(path))
    assert "gravity-probe verdict" in text
    assert "gravity-probe evaluate" in text


def test_the_command_writes_it_beside_the_run(tmp_path):
    path = write_run(tmp_path / "run", **SMALL)
    done = CliRunner().invoke(app, ["report", str(path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["bytes"] == (path / "report.html").stat().st_size
    assert (path / "report.html").read_text().startswith("<!doctype html>")


def test_a_demo_is_made_again_with_its_own_seeds(tmp_path):
    manifest = Run(write_run(tmp_path / "run", **SMALL)).manifest
    manifest.config_given = {"demo": {"seed": 3, "seeds": 5, "quick": True}}
    assert "gravity-probe demo --seed 3 --seeds 5 --quick --no-app --out x" in how_to_reproduce(manifest, "x")

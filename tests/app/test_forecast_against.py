"""The page Trajectories holds a forecast against what came."""

import math

from probes.run import Run
from tests.synthetic import write_run


def run_with_forecast(root, *, calibrated, forecast_steps=(1, 2, 5, 100)):
    """Of the baseline's returns at four steps, that at step 5 lies outside of what was forecast."""
    steps = (1, 2, 5, 100)
    path = write_run(root / "demo", n_layers=3, steps=steps, prompts=6, d_model=8)
    rows = Run(path).drift("baseline", "return_fraction", layer=2).set_index("step")["value"]
    by_step = [{"step": s, "low": rows[s] - 0.1, "value": rows[s], "high": rows[s] + 0.1} for s in steps]
    by_step[2]["low"] = rows[5] + 0.05
    by_step = [row for row in by_step if row["step"] in forecast_steps]
    calibration = {"alarm": 0.0, "alarm_step": 2, "budget": 1, "runs": 2, "last_step": 20, "return_by_step": by_step}
    with Run.writing(path) as run, run.stage("forecast", "test"):
        reason = None if calibrated else "not calibrated: two short runs would do"
        document = {"layer": 2, "calibration": calibration if calibrated else None, "why_ranks": reason}
        run.write_json("forecast", document)
    return path, rows


def headers_of(at):
    return [header.value for header in at.header]


def words_of(at):
    return " ".join(element.proto.body for element in at.get("html")).replace("\xa0", " ")


def test_returns_are_held_against_the_interval_and_the_alarm(tmp_path, visit):
    path, rows = run_with_forecast(tmp_path, calibrated=True)
    at = visit("trajectories", {"layer": "1"}, run=path)
    assert "Forecast and what came" in headers_of(at)
    assert len(at.get("plotly_chart")) == 4
    words = words_of(at)
    assert "3 of 4 measured returns lie within the interval" in words
    first = rows[rows >= 0].index.min()
    assert f"was expected at step 2; a measured return first reached it at step {first}." in words


def test_returns_between_the_steps_of_a_forecast_count_and_later_ones_are_told_apart(tmp_path, visit):
    path, rows = run_with_forecast(tmp_path, calibrated=True, forecast_steps=(1, 5))
    share = math.log(2) / math.log(5)
    low, high = (1 - share) * (rows[1] - 0.1) + share * (rows[5] + 0.05), (1 - share) * rows[1] + share * rows[5] + 0.1
    inside = 1 + int(low <= rows[2] <= high)  # at step 1, not at step 5
    words = words_of(visit("trajectories", {"layer": "1"}, run=path))
    assert f"{inside} of 3 measured returns lie within the interval (not forecast, at later steps: 1)" in words


def test_a_layer_without_a_plane_hides_no_forecast(tmp_path, visit):
    path, _ = run_with_forecast(tmp_path, calibrated=True)
    with Run.writing(path) as run, run.stage("maps/plane", "again"):
        planes = run.read_table("maps/plane")
        run.write_table("maps/plane", planes[planes["layer"] != 1])
    at = visit("trajectories", {"layer": "1"}, run=path)
    assert "There is no plane at layer 1" in words_of(at)
    assert "Forecast and what came" in headers_of(at)


def test_ranks_alone_are_said_and_a_run_without_a_forecast_shows_nothing(tmp_path, visit):
    path, _ = run_with_forecast(tmp_path, calibrated=False)
    at = visit("trajectories", {}, run=path)
    assert "gave ranks alone: not calibrated: two short runs would do" in words_of(at)
    assert len(at.get("plotly_chart")) == 3
    assert "Forecast and what came" not in headers_of(visit("trajectories", {}))

"""Which examples pull, as tables: clusters first, since one may be the whole signal, then the ranked examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from probes.attribution.clusters import effective_number, sum_clusters
from probes.statistics import decimal, percent
from probes.terminal.table import plain_table

if TYPE_CHECKING:
    import pandas as pd

    from probes.tasks.forecast import Forecast

_NUMBERS = {"share": 4, "effect": 4, "forecast": 0, "screen": 0, "bm25": 1}  # column → digits
_CLUSTERS, _EXAMPLES = 8, 15
_TEXT = 34  # characters


def attribution_tables(table: pd.DataFrame, about: Mapping[str, Any]) -> Group:
    """The heaviest clusters and examples of an attribution, and how far its shares add up."""
    title = f"{about['arm']} (seed {about['seed']}), step {about['step']}, layer {about['layer']}"
    ranking = "share" if "share" in table else "forecast"
    examples = _example_table(f"Examples by {ranking} · {title}", table, ranking)
    examples.caption = Text("\n".join(_sentences(table, about, ranking)), "dim")
    return Group(_cluster_table(f"Clusters by {ranking} · {title}", table, ranking), examples)


def forecast_tables(forecast: Forecast) -> Group:
    """The heaviest clusters and examples of a forecast; of a lineage without a witness, by the screen."""
    table, title = forecast.table, f"{forecast.lineage}, layer {forecast.layer}"
    ranking = "forecast" if "forecast" in table else "screen"
    examples = _example_table(f"Examples by {ranking} · {title}", table, ranking)
    examples.caption = Text("\n".join([_uneven(table, ranking), _units(forecast)]), "dim")
    return Group(_cluster_table(f"Clusters by {ranking} · {title}", table, ranking), examples)


def _units(forecast: Forecast) -> str:
    """The return by step where it is calibrated, else why there are ranks alone."""
    calibration = forecast.calibration
    if calibration is None:
        return f"Ranks alone, in no unit of return: {forecast.why_ranks}."
    low, value, high = (decimal(number, 2) for number in calibration.at(calibration.last))
    alarm, held_out = decimal(calibration.alarm, 2), calibration.held_out
    rings = "does not ring" if calibration.alarm_step is None else f"rings at step {calibration.alarm_step}"
    budget = f"About {calibration.budget} steps keep" if calibration.budget else "No number of steps is sure to keep"
    coverage = (
        "coverage needs a third run"
        if held_out is None
        else f"{percent(held_out.coverage)} of {held_out.returns} returns of {calibration.of} held out lay within"
    )
    return (
        f"Return at step {calibration.last}: {value} ({low} to {high}, 95 % for one more run of this recipe, from "
        f"{calibration.runs} {calibration.of}; {coverage}). The alarm at {alarm} {rings}. {budget} the return under "
        f"{alarm}."
    )


def _cluster_table(title: str, table: pd.DataFrame, ranking: str) -> Table:
    columns = [name for name in _NUMBERS if name in table and name != "bm25"]
    sums = sum_clusters(table, columns).sort_values(ranking, ascending=False)
    drawn = plain_table(title)
    drawn.add_column("cluster", overflow="ellipsis", no_wrap=True)
    for name in ("examples", *columns):
        drawn.add_column(name, justify="right", no_wrap=True)
    for _, row in sums.head(_CLUSTERS).iterrows():
        numbers = [decimal(row[name], _digits(name, table)) for name in columns]
        drawn.add_row(str(row["cluster_name"]), str(row["examples"]), *numbers)
    return drawn


def _example_table(title: str, table: pd.DataFrame, ranking: str) -> Table:
    columns = [name for name in _NUMBERS if name in table]
    drawn = plain_table(title)
    drawn.add_column("", justify="right")
    for name in columns:
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("cluster", max_width=16, overflow="ellipsis", no_wrap=True)
    drawn.add_column("text", max_width=_TEXT, overflow="ellipsis", no_wrap=True)
    top = table.sort_values(ranking, ascending=False, kind="stable").head(_EXAMPLES)
    for place, (_, row) in enumerate(top.iterrows(), start=1):
        numbers = [decimal(row[name], _digits(name, table)) for name in columns]
        drawn.add_row(str(place), *numbers, Text(str(row["cluster_name"])), Text(str(row["text"])))
    return drawn


def _digits(name: str, table: pd.DataFrame) -> int:
    """Without shares an effect is in no unit, as the forecast."""
    return _NUMBERS["forecast" if name == "effect" and "share" not in table else name]


def _sentences(table: pd.DataFrame, about: Mapping[str, Any], ranking: str) -> list[str]:
    lines = [_uneven(table, ranking)]
    if about["without_shares"]:
        reason = f"No shares: {about['without_shares']}."
        return [*lines, f"{reason} Effects are those of a first step, in no unit, as the forecast."]
    shares, measured = about["targets"]["return"], about["measured_return"]
    if measured is not None:
        lines.append(
            f"Measured return {decimal(measured, 4)}, shares {decimal(shares['predicted'], 4)}: completeness gap "
            f"{decimal(measured - shares['predicted'], 4)} ({shares['rule']}). Effects: {about['effect']}."
        )
    if about["not_trained_on"]:
        missing = f"{about['not_trained_on']} of {len(table)}"
        lines.append(
            f"{missing} examples were not among those that it was trained on, token by token: their share is 0."
        )
    remainder = [f"{name} {decimal(share, 4)}" for name, share in shares["other"].items() if share]
    lines += [f"Beside these examples: {', '.join(remainder)}."] if remainder else []
    return lines + _pathways(about)


def _pathways(about: Mapping[str, Any]) -> list[str]:
    """How the refusal score hangs on the way back, before and after, and by which way that changed."""
    if about["refusal_by_return"] is None:
        return []
    before, after = (decimal(weight, 2) for weight in about["refusal_by_return"])
    features, output = (decimal(about["targets"][name]["change"], 2) for name in ("features", "output"))
    return [
        f"Refusal score by return fraction, ridge weight: {before} before, {after} after; through the features "
        f"{features}, through the output {output}."
    ]


def _uneven(table: pd.DataFrame, ranking: str) -> str:
    sums = table.groupby("cluster")[ranking].sum().to_numpy()
    number, clusters = effective_number(table[ranking].to_numpy()), effective_number(sums)
    return (
        f"Effective number by {ranking}: {decimal(number, 1)} of {len(table)} examples, {decimal(clusters, 1)} of "
        f"{len(sums)} clusters (below 1 where pulls cancel)."
    )

"""A document that grows is written seldom enough, and is whole in the end."""

import pytest

from probes.store import RunFolder
from probes.store.pace import Pace

WRITING, WHOLE = 0.01, 60.0  # seconds


def test_writing_takes_a_small_share_of_the_time(clock):
    pace, spent, ends = Pace(), 0.0, clock.seconds + WHOLE
    while clock.seconds < ends:
        if pace.is_due:
            with pace.measure():
                clock.sleep(WRITING)
            spent += WRITING
        clock.sleep(0.001)
    assert spent == pytest.approx(WHOLE / 21, rel=0.05)


def test_stages_that_are_one_of_many_are_in_the_manifest_once_it_is_saved(tmp_path):
    with RunFolder.writing(tmp_path / "run") as run:
        for number in range(9):
            with run.stage_record(str(number)) as record:
                run.write_json(f"part-{number}", number)
            run.keep_stage(f"part-{number}", record, one_of_many=True)
        run.save()
    again = RunFolder(tmp_path / "run")
    assert [again.holds(f"part-{number}", str(number)) for number in range(9)] == [True] * 9
    with RunFolder.writing(tmp_path / "run") as run:
        records = run.begin_stages(["part-3", "part-7", "no such"])
        assert set(records) == {"part-3", "part-7"}
        assert len(RunFolder(tmp_path / "run").manifest.stages) == 7


def test_a_stage_that_was_put_off_is_in_the_manifest_as_soon_as_that_is_due(clock, tmp_path):
    """Not at the end of the next one, which a kill may never let come."""
    with RunFolder.writing(tmp_path / "run") as run:
        with run._pace.measure(at_least=0.2):
            pass
        with run.stage_record("a") as record:
            run.write_json("part", 1)
        run.keep_stage("part", record, one_of_many=True)
        run.save_what_waits()
        assert "part" not in RunFolder(tmp_path / "run").manifest.stages
        clock.sleep(0.25)
        run.save_what_waits()
        assert "part" in RunFolder(tmp_path / "run").manifest.stages


def test_an_attempt_that_fails_is_not_repeated_at_once():
    pace = Pace()
    with pytest.raises(OSError, match="full"), pace.measure(at_least=60.0):
        raise OSError("the disk is full")
    assert not pace.is_due

"""What all verbs share: old spellings, finite numbers, a log for what was not foreseen, lines for batch jobs."""

import functools
import itertools
import sys
import time
from pathlib import Path

import pytest

from probes import terminal
from probes.cli.command import stop
from probes.progress import Progress
from tests import processes

run = functools.partial(processes.run, processes.gravity_probe)


def test_the_old_spelling_of_an_option_works_with_a_notice(tmp_path):
    """It gets as far as the new one does: to the lineage file that is not there."""
    words = ["train", tmp_path / "no.toml", "--data", tmp_path / "no.json", "--out", tmp_path / "out"]
    new = run(*words, "--batch-size", 4, "--learning-rate", 1e-3)
    old = run(*words, "--rows", 4, "--lr=1e-3")
    assert new.returncode == old.returncode == 1
    assert "--rows is called --batch-size now" in old.stderr
    assert "--lr is called --learning-rate now" in old.stderr
    assert old.stderr.splitlines()[-1] == new.stderr.splitlines()[-1]


def test_the_help_of_a_verb_breaks_its_lines_where_the_terminal_ends():
    """A paragraph of help is one paragraph, whatever the width: no short line in the middle of a sentence."""
    help_text = run("import", "--help").stdout
    lines = [line.strip() for line in help_text.splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("One of another width"))
    paragraph = lines[start : lines.index("", start)]
    width = max(map(len, paragraph))
    assert len(paragraph) > 1
    for line, following in itertools.pairwise(paragraph):
        assert len(line) + 1 + len(following.split()[0]) > width - 2, line


def test_the_old_order_of_directions_works_with_a_notice(tmp_path):
    old, new = run("directions", tmp_path, "show"), run("directions", "show", tmp_path)
    assert "Write it so now" in old.stderr
    assert old.stderr.splitlines()[-1] == new.stderr.splitlines()[-1]
    assert old.returncode == new.returncode == 1
    listed = run("directions", tmp_path, "--layer", 0)  # what was done without a verb
    assert "Write it so now: gravity-probe directions list" in listed.stderr
    assert listed.stderr.splitlines()[-1] == new.stderr.splitlines()[-1]
    for words in (("effec", tmp_path), (tmp_path, "effec"), ("effec",)):
        assert "no such command; got 'effec'" in run("directions", *words).stderr


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_number_that_is_not_finite_is_wrong_usage(tmp_path, value):
    done = run("check", tmp_path, f"--max-return={value}")
    assert done.returncode == 2
    assert "--max-return must be a finite number" in done.stderr


def test_modes_are_listed():
    done = run("train", "--mode", "list")
    assert done.returncode == 0
    assert {"watch", "block", "push"} <= {line.split()[0] for line in done.stdout.splitlines()}


def check_what_is_broken(path):
    """`gravity-probe check`, in which something fails that nobody foresaw."""
    import probes.tasks.check as broken

    def fail(*_):
        raise ZeroDivisionError("by nought")

    broken.return_gate = fail
    processes.gravity_probe("check", path, "--max-return", 1)


def test_what_was_not_foreseen_is_a_sentence_and_a_traceback_in_a_log(tmp_path):
    from tests.synthetic import write_run

    path = write_run(tmp_path / "run", n_layers=2, prompts=16)
    done = processes.run(check_what_is_broken, path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "ZeroDivisionError: by nought" in done.stderr
    log = tmp_path / "gravity-probe-error.log"
    assert str(log) in done.stderr
    assert "Traceback (most recent call last)" in log.read_text()


def test_a_file_where_a_folder_has_to_be_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    done = run("demo", "--quick", "--no-app", "--out", tmp_path / "file")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc, in which nothing can be made")
@pytest.mark.parametrize("words", [["--out", "/proc/x"], ["--out=/proc/x/y"], ["-o", "/proc/x"]])
def test_a_place_where_nothing_can_be_made_is_a_sentence(tmp_path, words):
    """The system says that there is no such file, though the folder that it would lie in is there."""
    done = run("demo", "--quick", "--no-app", *words, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "gravity-probe: Nothing can be made here (/proc/x). Give --out another place.\n"
    assert list(tmp_path.iterdir()) == []


def miss_a_file(out):
    """`gravity-probe demo`, which lacks a file of its own."""
    sys.argv = ["gravity-probe", "demo", "--out", str(out)]
    stop(FileNotFoundError(2, "No such file or directory", "/nowhere/of/ours"))


def test_a_file_of_ours_that_is_absent_is_no_fault_of_out(tmp_path):
    done = processes.run(miss_a_file, tmp_path / "run", folder=tmp_path)
    assert "Something unforeseen went wrong (FileNotFoundError" in done.stderr
    assert "/nowhere/of/ours" in (tmp_path / "gravity-probe-error.log").read_text()


@pytest.mark.parametrize("option", [["--controls"], ["--screened"], ["--recipe", "integrated"]])
def test_an_option_of_the_toy_models_demo_is_refused_beside_a_chat_model(tmp_path, option):
    done = run("demo", "--model", tmp_path / "chat", "--out", tmp_path / "run", *option)
    assert done.returncode == 2
    assert option[0] in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_batch_job_gets_a_line_now_and_then(capfd, monkeypatch):
    """Without a terminal: the first line after two seconds, then one every `LOG_SECONDS` at most."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with terminal.progress_display() as report:
        for second in range(120):
            clock[0] = 100.0 + second
            report(Progress("reading activations", second, 120, f"checkpoint-{second}"))
    lines = capfd.readouterr().err.splitlines()
    assert 4 <= len(lines) <= 6
    assert lines[0].startswith("gravity-probe: reading activations 3/120 (checkpoint-3): 2 % after 0:03, 1:56 left")


def test_a_full_memory_is_a_sentence(capsys):
    with pytest.raises(SystemExit) as ended:
        stop(MemoryError())
    assert ended.value.code == 1
    assert "The machine's memory is full. Take fewer prompts" in capsys.readouterr().err


def test_what_is_left_is_not_guessed_before_a_hundredth_is_done():
    assert Progress("training", 1, 1000).seconds_left(60.0) is None
    assert Progress("training", 0, 0).describe(60.0)["seconds_left"] is None
    assert Progress("training", 250, 1000).seconds_left(60.0) == pytest.approx(180.0)

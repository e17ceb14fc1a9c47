"""What a reader finds in the manifest of a run while its jobs go on."""

import time

from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.progress import Report, silent
from probes.run import Run
from probes.stages.jobs import StageJob, complete_stages
from tests.builders import save_checkpoint, tiny_model, tiny_tokenizer
from tests.synthetic import write_run


def test_a_stage_on_disk_has_beside_it_what_its_caller_puts_there(tmp_path):
    path = write_run(tmp_path / "run")
    save_checkpoint(tmp_path / "model", tiny_model(), tiny_tokenizer())
    host = ModelHost(CheckpointRef(model=str(tmp_path / "model")))
    states = []

    def look(run: Run, model: ModelHost, report: Report) -> None:
        del model, report
        time.sleep(0.1)
        manifest = Run(run.path).manifest
        states.append({name for name in (*manifest.stages, *manifest.checkpoints) if name.startswith("part-")})
        assert {name for name in manifest.stages if name.startswith("part-")} == states[-1] & {*manifest.checkpoints}

    with Run.writing(path) as run:
        jobs = [StageJob(name, name, name, look) for name in (f"part-{number}" for number in range(4))]
        for job, _ in complete_stages(run, host, jobs, silent):
            run.manifest.checkpoints[job.stage] = {"key": job.made_from}
            run.save_in_time()
    assert states[0] == set()
    assert states[-1]

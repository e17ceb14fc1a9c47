"""What several tests of attribution train on."""

import pytest

from probes.attribution.replay import Replay
from probes.guard.recorded_path import RecordedExample
from tests.attribution.worlds import examples
from tests.builders import tiny_model
from tests.guard.test_train import write_place


@pytest.fixture(scope="package")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def replay():
    model = tiny_model()
    names = [name for name, _ in model.named_parameters()]
    return Replay(model, [RecordedExample(row.ids, row.labels) for row in examples()], names)

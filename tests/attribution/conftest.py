"""What several tests of attribution train on."""

import pytest

from tests.guard.test_train import write_place


@pytest.fixture(scope="package")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("place"))

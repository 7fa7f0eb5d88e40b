"""What the tests of the tuner share; nobody changes it."""

import pytest

from tests.finetune import small


@pytest.fixture(scope="session")
def net():
    return small.network()


@pytest.fixture(scope="session")
def calibration():
    return small.images()

"""Fixtures shared by the tests of the tuner; no test changes them."""

import pytest

from tests.finetune import small


@pytest.fixture(scope="session")
def net():
    return small.network()


@pytest.fixture(scope="session")
def calibration():
    return small.images()

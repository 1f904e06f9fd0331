"""Processes that have loaded what a run needs, once for all tests."""

import subprocess

import pytest
from faults.ready import APART, Ready


@pytest.fixture(scope="session")
def ready():
    with Ready() as process:
        yield process


@pytest.fixture(scope="session")
def apart():
    """One that may mount what only it sees, and that has no network."""
    try:
        tried = subprocess.run([*APART, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"a small file system is mounted in a namespace of its own: {error}")
    if tried.returncode:
        pytest.skip(f"a small file system is mounted in a namespace of its own: {tried.stderr.strip()}")
    with Ready(apart=True) as process:
        yield process

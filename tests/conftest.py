"""What all tests share: the checkout, seeded weights, and no network."""

import os
import socket

from pathlib import Path

import pytest
import torch

# Before anything imports huggingface_hub or datasets, which read these at import; child processes inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def root() -> Path:
    """Returns the folder of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def generator() -> torch.Generator:
    """Makes a seeded generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded_weights():
    """Seeds the global generator, from which torch draws the first weights of its modules, and restores it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # noqa: TID251
        yield


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Fails a test that connects to anything but this machine."""
    connect = socket.socket.connect

    def local(self, address):
        if self.family in {socket.AF_INET, socket.AF_INET6} and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            pytest.fail(f"a test tried to connect to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)

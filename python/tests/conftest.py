"""One folder for all tests, with the models of a tiny demo in `runs/demo-tiny`."""

import os
import shutil
import subprocess

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rlt")
    # A demo that is there already (RLT_DEMO) saves its twenty seconds.
    made = os.environ.get("RLT_DEMO")
    if made:
        shutil.copytree(made, folder / "runs" / "demo-tiny")
    else:
        subprocess.run(["rlt", "demo", "--tiny", "--quiet"], cwd=folder, check=True)
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder

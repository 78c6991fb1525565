"""Tests of dynamics run in an empty folder and draw nothing."""

import pytest


@pytest.fixture(autouse=True)
def in_empty_folder_without_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mdgnn.dynamics.simulation.draw_run", lambda *_: [])
    monkeypatch.setattr("mdgnn.dynamics.relaxation.draw", lambda *_: [])

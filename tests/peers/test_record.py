"""What `record.py` writes of peers whose tests could not run."""

import sys

import pytest
import record


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "PAGE", tmp_path / "results.md")
    return record.PAGE


def test_an_environment_that_could_not_be_made_is_a_row(page):
    """Also where the peer is there, as numpy is here for certain: what failed is something beside it."""
    outcome = record.main(["numpy", "numpy", "--"])
    assert outcome == "numpy: not run: its environment could not be made"
    assert "| not run: its environment could not be made | 0 | 0 | 0 | 0 |" in page.read_text()
    assert record.main(["other", "no-such-package", "--"]) == "other: not run: no-such-package is not installed"
    assert page.read_text().count("\n| ") == 3  # the head and two peers


def test_a_command_that_fails_is_a_row(page):
    assert record.main(["numpy", "numpy", "--", sys.executable, "-c", "raise SystemExit(3)"]) == (
        "numpy: failed (exit status 3)"
    )
    assert "| failed (exit status 3) |" in page.read_text()

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


TESTS = """
import pytest
def test_a(): pass
def test_b(): pass
@pytest.mark.parametrize("n", range(3))
def test_c(n): pytest.skip({reason!r})
@pytest.mark.xfail(strict=True)
def test_d(): assert False
def test_e(): assert {sound}
"""


@pytest.mark.parametrize(
    ("reason", "sound", "outcome", "row"),
    [
        ("no GPU", True, 0, "| passed | 3 | 1 | 3 | 0 |"),
        ("no GPU", False, "numpy: failed (exit status 1)", "| failed (exit status 1) | 2 | 1 | 3 | 1 |"),
        (
            "could not import 'numpy': no",
            True,
            "numpy: not run: could not import 'numpy': no",
            "| not run: could not import 'numpy': no | 3 | 1 | 3 | 0 |",
        ),
    ],
    ids=["passed", "failed", "skipped for want of the peer"],
)
def test_a_run_is_a_row_with_its_counts(page, tmp_path, reason, sound, outcome, row):
    (tmp_path / "test_of_peer.py").write_text(TESTS.format(reason=reason, sound=sound))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    assert record.main(["numpy", "numpy", "--", *command]) == outcome
    assert row in page.read_text()


def test_a_command_that_fails_is_a_row(page):
    assert record.main(["numpy", "numpy", "--", sys.executable, "-c", "raise SystemExit(3)"]) == (
        "numpy: failed (exit status 3)"
    )
    assert "| failed (exit status 3) |" in page.read_text()

"""Files of frames that are written and split from Python: nothing is lost, and no half of a file is ever there."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from labelled import labelled, molecules

from mdgnn._internal.folder_lock import InUseError, lock_file
from mdgnn.data import DataError, read_frames, split_file, write_frames


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_what_is_written_is_read():
    frames = molecules(5, config_type="x")
    write_frames("x.xyz", iter(frames))
    for frame, back in zip(frames, read_frames(["x.xyz"]), strict=True):
        assert back.info["config_type"] == "x" and back.get_chemical_symbols() == frame.get_chemical_symbols()
        np.testing.assert_array_equal(back.positions, frame.positions)
        for name, value in frame.calc.results.items():
            np.testing.assert_array_equal(back.calc.results[name], value)
    assert [path.name for path in Path().iterdir()] == ["x.xyz"]


def test_a_label_that_stands_there_twice_is_written_once_or_refused():
    (frame,) = molecules(1)
    frame.info["energy"] = frame.calc.results["energy"]
    write_frames("x.xyz", [frame])
    assert Path("x.xyz").read_text().count("energy=") == 1
    frame.info["energy"] += 1
    with pytest.raises(DataError, match="energy stands there twice"):
        write_frames("y.xyz", [frame])
    assert not Path("y.xyz").exists()


def test_a_file_is_replaced_when_all_of_it_is_there():
    write_frames("x.xyz", molecules(2))
    before = Path("x.xyz").read_bytes()
    with pytest.raises(FileExistsError, match=r"x\.xyz exists.*force=True"):
        write_frames("x.xyz", molecules(3))

    def some():
        yield from molecules(2, seed=1)
        assert Path("x.xyz").read_bytes() == before
        with pytest.raises(InUseError), lock_file(Path("x.xyz")):
            pass
        raise RuntimeError("out of atoms")

    with pytest.raises(RuntimeError, match="out of atoms"):
        write_frames("x.xyz", some(), force=True)
    assert Path("x.xyz").read_bytes() == before and len(list(Path().iterdir())) == 1
    write_frames("x.xyz", molecules(3), force=True)
    assert len(ase.io.read("x.xyz", ":")) == 3
    Path("folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder is a folder"):
        write_frames("folder", molecules(1), force=True)


def test_split_file():
    frames = [labelled(frame, -k) for k, frame in enumerate(molecules(10) * 2)]
    write_frames("x.xyz", frames)
    counts = split_file("x.xyz", (0.5, 0.5, 0), "p", seed=3)
    assert counts == {Path("p-train.xyz"): 10, Path("p-valid.xyz"): 10}
    parts = [ase.io.read(path, ":") for path in counts]
    assert sorted(a.calc.results["energy"] for part in parts for a in part) == sorted(-float(k) for k in range(20))
    kinds = [{a.positions.tobytes() for a in part} for part in parts]
    assert [len(kind) for kind in kinds] == [5, 5] and not kinds[0] & kinds[1], "equal structures stay together"
    with pytest.raises(FileExistsError, match="p-train"):
        split_file("x.xyz", (0.5, 0.5, 0), "p")
    assert split_file("x.xyz", (0.5, 0.5, 0), "p", seed=3, force=True) == counts


@pytest.mark.parametrize(
    ("fractions", "error"),
    [((0.5, 0.5), "expected 3 fractions"), ((0, 0, 0), "above 0"), ((0.9, 0.2, 0), "sum of at most 1")],
)
def test_fractions_that_cannot_be_meant(fractions, error):
    write_frames("x.xyz", molecules(4))
    with pytest.raises(ValueError, match=error):
        split_file("x.xyz", fractions, "p")
    assert [path.name for path in Path().iterdir()] == ["x.xyz"]

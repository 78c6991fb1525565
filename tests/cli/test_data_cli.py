"""`mdgnn dataset`: what it writes and prints, and that nothing is lost."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from command_line import run, sentence
from labelled import labelled, molecules

from mdgnn.data import read_frames


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def texts(path):
    """The frames of a file, as text."""
    lines = Path(path).read_text().splitlines(keepends=True)
    while lines:
        n = int(lines[0]) + 2
        yield "".join(lines[:n])
        lines = lines[n:]


def test_lj_writes_labelled_frames():
    assert run("dataset", "lj", "a.xyz", "--frames", 8, "--kind", "clusters", "--largest", 5).exit_code == 0
    frames = read_frames(["a.xyz"], units="lj")
    assert len(frames) == 8 and frames[0].info["config_type"] == "dimer"
    before = Path("a.xyz").read_bytes()
    refused = run("dataset", "lj", "a.xyz", "--frames", 3)
    assert refused.exit_code == 1 and "a.xyz exists" in sentence(refused) and Path("a.xyz").read_bytes() == before
    again = run("dataset", "lj", "a.xyz", "--frames", 8, "--kind", "clusters", "--largest", 5, "--force")
    assert again.exit_code == 0 and Path("a.xyz").read_bytes() == before and list(Path().iterdir()) == [Path("a.xyz")]
    other = run("dataset", "lj", "b.xyz", "--frames", 8, "--kind", "clusters", "--largest", 5, "--seed", 1)
    assert other.exit_code == 0 and Path("b.xyz").read_bytes() != before
    assert "3 to 561" in sentence(run("dataset", "lj", "c.xyz", "--largest", 2))


def test_an_interrupted_file_leaves_the_old_one(monkeypatch):

    def some(*_):
        yield from molecules(2, config_type="x")
        raise RuntimeError("out of atoms")

    Path("a.xyz").write_text("precious")
    monkeypatch.setattr("mdgnn.dynamics.lj_frames.lj_frames", some)
    assert "out of atoms" in sentence(run("dataset", "lj", "a.xyz", "--frames", 5, "--force"))
    assert Path("a.xyz").read_text() == "precious" and list(Path().iterdir()) == [Path("a.xyz")]


def test_summary():
    frames = [labelled(Atoms("H2", [[0, 0, 0], [0.74 + 0.01 * k, 0, 0]]), -31.0 - k, seed=k) for k in range(4)]
    frames[1].info["config_type"] = frames[2].info["config_type"] = "stretched"
    frames.append(labelled(Atoms("H2", [[0, 0, 0], [0.8, 0, 0]]), np.nan))
    ase.io.write("x.xyz", frames)
    result = run("dataset", "summary", "x.xyz")
    assert result.exit_code == 0, result.output
    rows = {words[1]: words for words in (line.split("│") for line in result.output.splitlines()) if len(words) > 2}
    rows = {row[1].strip(): [word.strip() for word in row] for row in rows.values()}
    assert rows["(none)"][2:6] == ["2", "2", "H", "-16.2500 +- 0.7500"]
    assert rows["stretched"][6] == "-16.5000, -16.0000" and rows["stretched"][9] == "0.7500"
    assert rows["all"][2] == "4" and rows["all"][9] == "0.7400"
    forces = np.concatenate([a.calc.results["forces"] for a in frames[:4]])
    assert rows["all"][7] == f"{np.sqrt(np.mean(forces**2)):.4f}"
    assert rows["all"][8] == f"{np.linalg.norm(forces, axis=1).max():.4f}"
    assert "1 bad or suspicious" in result.output and "x.xyz, frame 4: the energy is not finite" in result.output
    for frame in frames[:4]:
        frame.calc.results["forces"] *= 30
    ase.io.write("z.xyz", frames[:4])
    suspicious = run("dataset", "summary", "z.xyz")
    assert "│ all " in suspicious.output and "All frames are bad or suspicious" in suspicious.output
    assert "suspicious" not in run("dataset", "summary", "z.xyz", "--units", "any").output
    assert "no data file 'y.xyz'" in sentence(run("dataset", "summary", "y.xyz"))


def test_tables_keep_every_digit_and_every_word(monkeypatch):
    """They were cut at 80 columns where there is no terminal, and brackets in names were taken for markup."""
    monkeypatch.setenv("COLUMNS", "80")
    ase.io.write("x.xyz", molecules(3, config_type="[red]a very long name of a kind"))
    output = run("dataset", "summary", "x.xyz").output
    energy = read_frames(["x.xyz"])
    each = [atoms.calc.results["energy"] / len(atoms) for atoms in energy]
    assert "[red]a very long name of a kind" in output and "…" not in output
    assert f"{np.mean(each):.4f} +- {np.std(each):.4f}" in output and f"{min(each):.4f}, {max(each):.4f}" in output


def test_split_keeps_every_digit():
    frames = molecules(20)
    ase.io.write("x.xyz", frames)
    exact = [text.replace("0.1", "0.10000000000000001", 1) for text in texts("x.xyz")]
    Path("x.xyz").write_text("".join(exact)[:-1])  # also without a newline at the end
    result = run("dataset", "split", "x.xyz", "--fractions", 0.7, 0.2, 0.1, "--seed", 3, "--output", "p")
    assert result.exit_code == 0, result.output
    parts = [list(texts(f"p-{name}.xyz")) for name in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [14, 4, 2]
    assert sorted(text for part in parts for text in part) == sorted(exact)
    assert parts[0] == [text for text in exact if text in parts[0]], "in their order"
    refused = run("dataset", "split", "x.xyz", "--output", "p")
    assert refused.exit_code == 1 and "p-train.xyz exists" in sentence(refused)
    assert run("dataset", "split", "x.xyz", "--fractions", 0.5, 0.5, 0, "--output", "q/r").exit_code == 0
    assert sorted(path.name for path in Path("q").iterdir()) == ["r-train.xyz", "r-valid.xyz"]
    part = run("dataset", "split", "x.xyz@10:", "--fractions", 1, 0, 0, "--output", "s")
    assert part.exit_code == 0 and list(texts("s-train.xyz")) == exact[10:]
    assert "sum of at most 1" in sentence(run("dataset", "split", "x.xyz", "--fractions", 0.9, 0.2, 0, "--output", "t"))
    assert "above 0" in sentence(run("dataset", "split", "x.xyz", "--fractions", 0, 0, 0, "--output", "t"))


def test_split_keeps_equal_structures_together():
    """Else a part would be tested on what it was trained on."""
    frames = [labelled(frame, -k) for k, frame in enumerate(molecules(10) * 3)]
    ase.io.write("x.xyz", frames)
    assert run("dataset", "split", "x.xyz", "--fractions", 0.5, 0.3, 0.2, "--output", "p").exit_code == 0
    parts = [ase.io.read(f"p-{name}.xyz", ":") for name in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [15, 9, 6]
    kinds = [{frame.positions.tobytes() for frame in part} for part in parts]
    assert [len(kind) for kind in kinds] == [5, 3, 2] and len(set.union(*kinds)) == 10


def test_split_of_another_format():
    ase.io.write("x.traj", molecules(10))
    assert run("dataset", "split", "x.traj", "--output", "p").exit_code == 0
    energies = [a.calc.results["energy"] for name in ("train", "valid", "test") for a in read_frames([f"p-{name}.xyz"])]
    assert sorted(energies) == [-10, -9, -8, -7, -6, -5, -4, -3, -2, -1]

"""What the README shows runs as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
GUIDE = (Path(__file__).parents[2] / "docs" / "neighbors.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)


def test_python_blocks(capsys):
    blocks = [code for language, code in BLOCKS if language == "python"]
    assert len(blocks) == 1 and len(blocks[0].strip().splitlines()) <= 14
    exec(compile(blocks[0], "README.md", "exec"), {})
    assert -279 < float(capsys.readouterr().out) < -265


def test_shell_blocks(tmp_path):
    lines = [line.split("#")[0].strip() for language, code in BLOCKS if language == "sh" for line in code.splitlines()]
    assert [line for line in lines if line.startswith("make")] == ["make demo", "make test"]
    commands = [line for line in lines if line.startswith("mdgnn")]
    assert len(commands) == 11
    (configuration,) = [code for language, code in BLOCKS if language == "toml"]
    assert len(configuration.splitlines()) <= 20
    (tmp_path / "train.toml").write_text(configuration)
    for command in commands:
        program = [sys.executable, "-c", "from mdgnn.cli import main; main()", *shlex.split(command)[1:]]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert "400" in (tmp_path / "run" / "summary.json").read_text()


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (Path(__file__).parents[2] / target).exists(), target


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", GUIDE, re.S), ids=lambda code: code.split()[1])
def test_blocks_of_the_guide_to_neighbour_lists(code, monkeypatch):
    for package in ("mace", "nequip", "torch_sim"):
        if re.search(rf"^(import|from) {package}\b", code, re.M):
            pytest.importorskip(package)
    if "emt.NeighborList" in code:
        import ase.calculators.emt

        monkeypatch.setattr(ase.calculators.emt, "NeighborList", ase.calculators.emt.NeighborList)
    exec(compile(code, "neighbors.md", "exec"), {})

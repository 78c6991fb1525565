"""What README and guides show runs as it stands there, and their numbers are those of the results files."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import command_line
import fill_results
import pytest
from warnings_as_errors import WARNINGS_AS_ERRORS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in fill_results.pages()}
GUIDES = PAGES | {"CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text()}
PEERS = "mace", "nequip", "torch_sim"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)
FILE = re.compile(r"# ([\w/]+\.\w+)\n")  # a block that begins so is a file


def peer_of(code):
    """The package beside ours that a block needs, or None."""
    return next((name for name in PEERS if re.search(rf"^(import|from) {name}\b", code, re.M)), None)


BLOCKS = {page: [block for block in BLOCK.findall(text) if block[0] != "text"] for page, text in PAGES.items()}
WITH_PEERS = [(peer_of(code), code) for blocks in BLOCKS.values() for _, code in blocks if peer_of(code)]


def for_two_epochs(arguments):
    """Of our command: the same, but training takes no longer."""
    if arguments[:1] == ["train"] and arguments[1].endswith(".toml"):
        return [*arguments, "--set", "run.epochs=2", "--set", "run.threads=1"]
    return arguments


def run_shell(code, program_file):
    """Run our commands, training for two epochs; of make only see that it has the target. In a page with modules of its
    own each is a process, in which nothing has imported them."""
    for line in code.splitlines():
        program, *arguments = shlex.split(line, comments=True) or [""]
        if program == "make":
            assert re.search(rf"^{re.escape(arguments[0])}:", (ROOT / "Makefile").read_text(), re.M), line
        elif program == "mdgnn":
            arguments = for_two_epochs(arguments)
            if not any(Path().glob("*.py")):
                result = command_line.run(*arguments)
                assert result.exit_code == 0, f"{line}: {result.stderr}"
                continue
            program_file.write_text("from mdgnn.cli import main\n\nmain()\n")
            done = subprocess.run([sys.executable, program_file, *arguments], capture_output=True, text=True)
            assert done.returncode == 0, f"{line}: {done.stderr}"
        else:
            assert program in ("", "git", "cd", "pip"), line


def run_toml(code):
    """A piece of a configuration, with the file of the page."""
    from mdgnn.training.config import parse, tomllib

    parse(tomllib.loads(Path("train.toml").read_text()) | tomllib.loads(code))


@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks])
def test_blocks(page, tmp_path, tmp_path_factory, monkeypatch, capsys, one_thread):
    import ase.calculators.emt

    installed = tmp_path_factory.mktemp("bin") / "mdgnn"  # Python looks for modules where its program stands
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ase.calculators.emt, "NeighborList", ase.calculators.emt.NeighborList)  # a block changes it
    before = set(sys.modules)
    names = {"__name__": "__main__"}
    for language, code in BLOCKS[page]:
        if page != "README.md" and (language, code) in BLOCKS["README.md"]:
            continue
        if file := FILE.match(code):
            Path(file[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(file[1]).write_text(code)
            importlib.invalidate_caches()
        elif language == "python" and not peer_of(code):
            exec(compile(code, page, "exec"), names)
            if page == "README.md":
                assert -279 < float(capsys.readouterr().out) < -265
        elif language == "sh":
            run_shell(code, installed)
        elif language == "toml":
            run_toml(code)
        else:
            assert peer_of(code), f"{page} has a block of {language}, which nothing runs"
    for name in set(sys.modules) - before:  # files of the page are no modules of the next
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", ["README.md", "docs/training.md"])
def test_neither_importing_nor_using_the_package_warns(page, tmp_path):
    """Each example in a process in which warnings are errors from its start, and nothing has been imported."""
    strict, commands, ran = [sys.executable, *WARNINGS_AS_ERRORS], [], set()
    for language, code in BLOCKS[page]:
        if file := FILE.match(code):
            (tmp_path / file[1]).write_text(code)
        elif language == "python" and page == "README.md":
            commands.append([*strict, "-c", code])
        elif language == "sh":
            for program, *arguments in (shlex.split(line, comments=True) for line in code.splitlines()):
                if program == "mdgnn" and (arguments[0] == "dataset" or arguments[0] not in ran):
                    ran.add(arguments[0])  # of each command that takes long one will do
                    commands.append([*strict, "-m", "mdgnn", *for_two_epochs(arguments)])
    assert len(commands) > 3
    for command in commands:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "warning" not in done.stderr.lower(), f"{command}: {done.stderr}"


@pytest.mark.parametrize(("peer", "code"), WITH_PEERS, ids=[peer for peer, _ in WITH_PEERS])
def test_blocks_of_guides_for_peers(peer, code):
    """Our function is then the peer's, or the block's object has it."""
    pytest.importorskip(peer, reason=f"needs {peer}: `make peers` runs it")
    names = {}
    exec(compile(code, "guide", "exec"), names)
    if peer == "mace":
        assert importlib.import_module("mace.data.neighborhood").neighbour_list is names["neighbour_list"]
    else:
        made = names["model" if peer == "torch_sim" else "transform"]
        assert type(made).__module__.partition(".")[0] == peer


def test_every_peer_has_its_block():
    assert {peer for peer, _ in WITH_PEERS} == set(PEERS)


def test_readme_is_short():
    visible = re.sub(r"<!--.*?-->", "", README, flags=re.S)
    assert len(visible.split()) <= 700
    lines = [
        line.split("#")[0].strip() for kind, code in BLOCKS["README.md"] if kind == "sh" for line in code.split("\n")
    ]
    assert [line for line in lines if line.startswith("make")] == ["make demo", "make test"]
    (code,) = [code for language, code in BLOCKS["README.md"] if language == "python"]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 10


def local_links(text):
    """Files that Markdown links to, or shows."""
    return re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)


def test_links_to_files_are_seen():
    text = "[a](how.md) ![b](x/y.png) [c](z.md#there) [d](https://x.org/a.md) [e](#here)"
    assert local_links(text) == ["how.md", "x/y.png", "z.md"]
    assert sum(len(local_links(page)) for page in GUIDES.values()) > 20


@pytest.mark.parametrize("page", GUIDES)
def test_links_and_pictures_exist(page):
    for target in local_links(GUIDES[page]):
        assert (ROOT / page).parent.joinpath(target).exists(), target
    for path in re.findall(r"`((?:mdgnn|csrc|tests)/[^`\s]*)`", GUIDES[page]):
        assert any(ROOT.glob(re.sub("<.*?>", "*", path))), f"{page} has `{path}`, which is not there"


def test_api_pages_have_all_public_names():
    """Those of mdgnn.ops and mdgnn.data come by themselves."""
    import mdgnn
    import mdgnn.calculators

    text = "\n".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.rst"))
    public = {f"mdgnn.{name}" for name in mdgnn.__all__}
    public |= {f"mdgnn.calculators.{name}" for name in mdgnn.calculators.__all__ if f"mdgnn.{name}" not in public}
    missing = public - set(re.findall(r"^\.\. auto\w+:: (\S+)$", text, re.M))
    assert not missing, f"add to docs/api: {sorted(missing)}"


@pytest.mark.parametrize("page", PAGES)
def test_numbers_are_those_of_the_results_files(page):
    assert fill_results.complaints(PAGES[page]) == []


RATIO = "cpu.md; Engine; SimpleGNN, F=32 & 55; lecture / ours"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"it is <!--= {RATIO} -->0.001<!--/--> times", "differ"),
        ("<!--table memory.md; Peak memory; *; model and ours, MB-->\n\n| model |\n\n<!--/-->", "differ"),
        (f"<!--= {RATIO} -->0.001<!--/--> times", "begins with a mark"),
        ("it takes 0.2 µs", "0.2 µs"),
        ("it is 20 times as fast", "20 times"),
        ("an error of 0.15 %", "0.15 %"),
        ("and 11.2 meV/A", "11.2 meV"),
        ("is measured on\ntwo threads", "two threads"),
        ("is measured on 4 threads", "4 threads"),
        ("moved by as much as 1.6\nbetween runs", "as much as 1.6"),
        ("slower than torch from 561 atoms on", "from 561 atoms on"),
        ("relaxes to all of 41 known minima", "of 41"),
        ("beside MACE, which halves that", "halves"),
        ("a dict of them takes a microsecond", "microsecond"),
    ],
)
def test_numbers_by_hand_are_seen(text, complaint):
    assert any(complaint in line for line in fill_results.complaints(text))


@pytest.mark.parametrize(
    "query", ["no.md; Engine; *; task", "cpu.md; Engine; nothing; task", "cpu.md; Engine; *; nothing"]
)
def test_a_mark_that_points_to_nothing_is_an_error(query):
    with pytest.raises(ValueError, match=r"no\.md|no row"):
        fill_results.fill(f"x <!--= {query} -->1<!--/-->")


def test_filling_twice_is_filling_once():
    text = f"it is <!--= {RATIO} -->?<!--/--> times"
    once = fill_results.fill(text)
    assert "?" not in once and fill_results.fill(once) == once

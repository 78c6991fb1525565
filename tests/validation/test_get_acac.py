"""The script that gets the acetylacetone data, against a server here with small files."""

import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mdgnn.pretrained import get_acac

SCRIPT = Path(get_acac.__file__)
ACAC = Path(__file__).parents[3] / "shared" / "data" / "acac"
FILES = {"LICENSE": b"as you like\n", "data/a.xyz": b"1\n\nH 0 0 0\n", "data/b.xyz": b"1\n\nC 0 0 0\n" * 9}
CHECKSUMS = {path: hashlib.sha256(body).hexdigest() for path, body in FILES.items()}


class Server(http.server.ThreadingHTTPServer):
    """Serves FILES. `broken` paths end early, and `slow` ones wait in the middle until the server stops."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.bodies, self.broken, self.slow = dict(FILES), set(), set()
        self.in_the_middle, self.stopped = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, server = self.path.lstrip("/"), self.server
        server.asked.append(path)
        if path not in server.bodies:
            self.send_error(404)
            return
        body = server.bodies[path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:5] if path in server.broken | server.slow else body)
        if path in server.slow:
            server.in_the_middle.set()
            server.stopped.wait(60)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(get_acac, "URL", one.url)
        monkeypatch.setattr(get_acac, "SHA256", CHECKSUMS)
        yield one
        one.stopped.set()
        one.shutdown()
        thread.join()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def named(*paths):
    return {Path(path).name: FILES[path] for path in paths}


def sentence_of_failure(folder, capsys):
    """What the script says when it ends with status 1: one line, after which Python prints nothing else."""
    with pytest.raises(SystemExit) as end:
        get_acac.main([str(folder)])
    assert isinstance(end.value.code, str) and "\n" not in end.value.code  # which Python prints, with status 1
    assert "cite" not in capsys.readouterr().out
    return end.value.code


def test_files_licence_and_citation(server, tmp_path, capsys):
    folder = tmp_path / "new" / "acac"
    get_acac.main([str(folder)])
    assert contents(folder) == named(*FILES)
    output = capsys.readouterr().out
    assert "MIT licence" in output and str(folder / "LICENSE") in output and "arxiv.org/abs/2205.06643" in output


def test_right_files_are_kept(server, tmp_path, capsys):
    get_acac.main([str(tmp_path)])
    (tmp_path / "b.xyz").unlink()
    before, server.asked = (tmp_path / "a.xyz").stat(), []
    get_acac.main([str(tmp_path)])
    assert server.asked == ["data/b.xyz"] and contents(tmp_path) == named(*FILES)
    assert (tmp_path / "a.xyz").stat().st_mtime_ns == before.st_mtime_ns
    assert f"kept {tmp_path / 'a.xyz'}" in capsys.readouterr().out


def test_other_files_of_the_same_name_are_not_overwritten(server, tmp_path, capsys):
    (tmp_path / "a.xyz").write_bytes(b"my own")
    sentence = sentence_of_failure(tmp_path, capsys)
    assert f"{tmp_path / 'a.xyz'} is not the file" in sentence and "move it away" in sentence
    assert contents(tmp_path) == {**named("LICENSE"), "a.xyz": b"my own"}


def test_wrong_checksum(server, tmp_path, capsys):
    server.bodies["data/a.xyz"] = b"1\n\nH 0 0 1\n"
    sentence = sentence_of_failure(tmp_path, capsys)
    got = hashlib.sha256(server.bodies["data/a.xyz"]).hexdigest()
    assert f"{server.url}/data/a.xyz" in sentence and CHECKSUMS["data/a.xyz"] in sentence and got in sentence
    assert contents(tmp_path) == named("LICENSE")


@pytest.mark.parametrize(("what", "says"), [("broken", "IncompleteRead"), ("absent", "404 Not Found")])
def test_a_file_that_does_not_come_whole_or_at_all(server, tmp_path, capsys, what, says):
    if what == "broken":
        server.broken.add("data/b.xyz")
    else:
        del server.bodies["data/b.xyz"]
    sentence = sentence_of_failure(tmp_path, capsys)
    assert f"{server.url}/data/b.xyz cannot be had" in sentence and says in sentence
    assert contents(tmp_path) == named("LICENSE", "data/a.xyz")
    server.broken.clear()
    server.bodies = dict(FILES)
    get_acac.main([str(tmp_path)])  # goes on where it ended
    assert contents(tmp_path) == named(*FILES)


def test_no_server(tmp_path, capsys, monkeypatch):
    with Server() as closed:
        pass
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(get_acac, "URL", closed.url)
    sentence = sentence_of_failure(tmp_path, capsys)
    assert f"{closed.url}/LICENSE cannot be had" in sentence and "refused" in sentence and "<" not in sentence
    assert contents(tmp_path) == {}


def test_a_folder_that_cannot_be(server, tmp_path, capsys):
    (tmp_path / "acac").write_text("a file")
    assert str(tmp_path / "acac") in sentence_of_failure(tmp_path / "acac", capsys)
    assert server.asked == []


def test_interrupted_while_a_file_is_written(server, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        assert len(list(tmp_path.glob("*.part"))) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(SystemExit) as end:
        get_acac.main([str(tmp_path)])
    assert end.value.code == 130 and contents(tmp_path) == {}
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_interrupted_while_a_file_comes(server, tmp_path):
    server.slow.add("data/a.xyz")
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background ignores it
        f"import get_acac; get_acac.URL, get_acac.SHA256 = {server.url!r}, {CHECKSUMS!r}\n"
        f"get_acac.main([{str(tmp_path)!r}])"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=SCRIPT.parent, stderr=subprocess.PIPE, text=True) as process:
        assert server.in_the_middle.wait(60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == "get_acac: interrupted; the files that were got are whole\n"
    assert contents(tmp_path) == named("LICENSE")


def test_needs_python_alone():
    command = [sys.executable, "-I", "-S", SCRIPT]  # no installed packages
    assert "FOLDER" in subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


@pytest.mark.skipif(not ACAC.is_dir(), reason="there is no ../shared/data/acac")
def test_checksums_are_those_of_the_data():
    for path, checksum in get_acac.SHA256.items():
        assert hashlib.sha256((ACAC / Path(path).name).read_bytes()).hexdigest() == checksum, path

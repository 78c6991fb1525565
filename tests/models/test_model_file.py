"""Model files: exact round trips, honest headers, and a sentence for every broken file."""

import json

import pytest
import torch
from safetensors.torch import save_file

import mdgnn
from mdgnn import LennardJones, SimpleGNN
from mdgnn.locate import ModelFileError, pretrained_names
from mdgnn.model_header import read_header


def some_model(dtype=torch.float32):
    torch.manual_seed(0)
    options = {"envelope": "cosine", "aggregation": "mean", "shift": [-1.5, 2.0], "scale": [0.5, 2.0]}
    return SimpleGNN(node_dim=8, edge_dim=4, n_layers=1, elements=[1, 8], basis=(0.5, 3.0, 0.4), **options).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_round_trip_is_exact(tmp_path, dtype):
    model = some_model(dtype)
    mdgnn.save(model, tmp_path / "m.safetensors", {"note": "π"})
    again = mdgnn.load(str(tmp_path / "m.safetensors"))
    assert again.config == model.config and again.dtype == dtype and not again.training
    for (name, a), (other, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other and torch.equal(a, b)
    assert torch.equal(again.elements.scale, model.elements.scale)
    assert torch.equal(again.elements.shift, model.elements.shift)
    assert read_header(tmp_path / "m.safetensors")["training"] == {"note": "π"}
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"], "no partial file is left"


def test_lennard_jones_round_trip(tmp_path):
    for model in (LennardJones(), LennardJones(0.5, 3.4, cutoff=8.5, mode="shifted")):
        mdgnn.save(model, tmp_path / "lj.safetensors")
        assert mdgnn.load(tmp_path / "lj.safetensors").config == model.config


@pytest.mark.parametrize("name", pretrained_names())
def test_shipped_models(name):
    header = read_header(name)
    assert {"format_version", "architecture", "elements", "cutoff", "units", "least_distance", "training"} <= set(
        header
    )
    assert header["training"]["command"].startswith(("python mdgnn/pretrained/", "make "))
    assert '"/' not in json.dumps(header["training"]), "no absolute path"
    model = mdgnn.load(name)
    assert model.min_distance > 0.5 and model.config.envelope is not None
    folder = __import__("pathlib").Path(mdgnn.__file__).parent / "pretrained"
    assert (folder / f"{name}.safetensors").stat().st_size < 4_000_000, "weights, and the tables that they make"


def test_shipped_names():
    assert {"acac", "lj", "water"} <= set(pretrained_names())


def test_missing_model_lists_the_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model file 'lk'.*acac, lj, water"):
        mdgnn.load("lk")


def test_every_truncation_is_refused(tmp_path):
    mdgnn.save(some_model(), tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="not a complete safetensors file"):
            mdgnn.load(tmp_path / "cut.safetensors")


def rewritten(tmp_path, change_header=None, change_state=None):
    """A valid file with its header or tensors changed."""
    from safetensors import safe_open

    mdgnn.save(some_model(), tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["mdgnn"])
        state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    if change_header:
        header = change_header(header)
    if change_state:
        state = change_state(state)
    metadata = None if header is None else {"mdgnn": header if isinstance(header, str) else json.dumps(header)}
    save_file(state, tmp_path / "changed.safetensors", metadata=metadata)
    return tmp_path / "changed.safetensors"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (lambda h: None, "not an mdgnn model"),
        (lambda h: "{", "broken mdgnn header"),
        (lambda h: "[]", "broken mdgnn header"),
        (lambda h: "[" * 100_000, "broken mdgnn header"),
        (lambda h: {"format_version": 1}, "broken mdgnn header"),
        (lambda h: {**h, "format_version": 4}, "model format 4, this mdgnn reads formats 1 to 3"),
        (lambda h: {**h, "format_version": None}, "model format None, this mdgnn reads formats 1 to 3"),
        (lambda h: {**h, "architecture": "NequIP"}, "holds a 'NequIP', this mdgnn knows LennardJones, PaiNN, SchNet"),
        (lambda h: {**h, "config": {**h["config"], "node_dim": 16}}, "does not fit its header"),
        (lambda h: {**h, "config": {**h["config"], "surprise": 1}}, "no option 'surprise'"),
        (lambda h: {**h, "config": []}, r"broken mdgnn header: expected options as config, got \[\]"),
        (lambda h: {**h, "config": None}, "broken mdgnn header: expected options as config, got None"),
        (lambda h: {**h, "config": {**h["config"], "envelope": "hat"}}, "expected envelope"),
    ],
)
def test_foreign_headers_get_a_sentence(tmp_path, header, message):
    with pytest.raises(ModelFileError, match=message):
        mdgnn.load(rewritten(tmp_path, change_header=header))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "rbf_centers"}, "does not fit its header"),
        (lambda s: {**s, "extra": torch.zeros(2)}, "does not fit its header"),
        (lambda s: {**s, "programs": torch.zeros(2)}, "does not fit its header"),
        (lambda s: {**s, "rbf_centers": torch.full((4,), float("nan"))}, "weights that are not finite"),
    ],
)
def test_wrong_tensors_get_a_sentence(tmp_path, state, message):
    with pytest.raises(ModelFileError, match=message):
        mdgnn.load(rewritten(tmp_path, change_state=state))


def test_not_safetensors_at_all(tmp_path):
    for content in (b"", b"hello", b"\x80\x04K\x01.", b"\xff" * 64):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ModelFileError, match="not a complete safetensors file"):
            mdgnn.load(tmp_path / "x")


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    mdgnn.save(some_model(), path)
    before = path.read_bytes()
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        mdgnn.save(some_model(torch.float64), path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(TypeError, match="expected a model that derives from mdgnn.Potential, got Linear"):
        mdgnn.save(torch.nn.Linear(1, 1), path)

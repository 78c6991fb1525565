"""Configurations of training: files, settings over them, and sentences about what is wrong."""

import json
from pathlib import Path

import pytest

pytest.importorskip("pydantic")

import mdgnn
from mdgnn.model_header import read_header
from mdgnn.training.config import Config, ConfigError, model_class, options_of, override, parse, read

TOML = """
[model]
architecture = "PaiNN"
n_features = 16
references = {Ar = -1.5}
[data]
train = "train.xyz"
[loss]
forces = [[0, 1], [10, 100.0]]
[run]
epochs = 7
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(TOML)
    return file


def test_a_file_with_settings_over_it(path):
    config = read(path, ["loss.energy=2", "optimizer.lr=1e-3", "model.cutoff = 4.5", "data.train=['a.xyz', 'b.db']",
                         "data.valid=valid.xyz", "optimizer.schedule=cosine", "model.references=isolated"])  # fmt: skip
    assert config.loss.energy == 2 and config.loss.forces == [(0, 1), (10, 100)]
    assert config.optimizer.lr == 1e-3 and config.optimizer.schedule == "cosine" and config.run.epochs == 7
    assert config.model.options == {"n_features": 16, "cutoff": 4.5} and config.model.references == "isolated"
    assert config.data.train == ["a.xyz", "b.db"] and config.data.valid == ["valid.xyz"]
    assert read(path).model.references == {"Ar": -1.5} and read(path).data.valid == 0.1


def test_the_resolved_configuration_reads_back_the_same_from_json(path):
    config = read(path, ["data.valid=valid.xyz"])
    content = json.loads(json.dumps(config.model_dump()))
    assert parse(content) == config
    assert set(content) == set(Config.model_fields) and content["optimizer"]["amsgrad"] is True


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("los.forces=1", r"no section 'los'; did you mean 'loss'\?"),
        ("loss.force=1", r"\[loss\] has no key 'force'; did you mean 'forces'\?"),
        ("optimizer.learning_rate=1", r"\[optimizer\] has no key 'learning_rate'"),
        ("model.n_feature=1", r"\[model\] has no key 'n_feature'; did you mean 'n_features'\?"),
        ("model.shift=1", r"\[model\] has no key 'shift'"),
        ("model.architecture=mdgnn.models:LennardJones", "'mdgnn.models:LennardJones' has no weights to train"),
        ("model.architecture=PaiN", "one of PaiNN, SchNet, SimpleGNN, got 'PaiN'"),
        ("model.start=lj", "brings its own n_features"),
        ("optimizer.lr=-1", r"\[optimizer\] lr: input should be greater than 0, got -1"),
        ("optimizer.lr=nan", r"\[optimizer\] lr: .*finite number"),
        ("loss.forces=-1", r"\[loss\] forces: .*greater than or equal to 0"),
        ("loss.forces=[]", r"\[loss\] forces: .*list should have at least 1 item"),
        ("run.epochs=1.5", r"\[run\] epochs: .*integer"),
        ("data.valid=1.5", r"\[data\] valid: input should be less than 1.*got 1.5"),
        ("run.epochs='7'", r"\[run\] epochs: .*integer, got '7'"),
        ("run.epochs=true", r"\[run\] epochs: .*integer, got True"),
        ("run.device=gpu", r"\[run\] device: .*'auto', 'cpu' or 'cuda', got 'gpu'"),
        ("forces=1", r"expected a setting such as loss.forces=100, got 'forces=1'"),
        ("loss.forces", "expected a setting such as"),
    ],
)
def test_what_is_wrong_is_a_sentence(path, setting, words):
    with pytest.raises(ConfigError, match=words) as caught:
        read(path, [setting])
    assert "\n" not in str(caught.value)


def test_missing_parts_and_broken_files(path, tmp_path):
    with pytest.raises(ConfigError, match=r"needs a section \[model\]"):
        parse({"data": {"train": "a"}})
    with pytest.raises(ConfigError, match=r"\[data\] needs a key 'train'"):
        parse({"model": {"architecture": "SchNet"}, "data": {}})
    with pytest.raises(ConfigError, match="expected loss to be a section"):
        parse(override({"loss": 3}, ["loss.forces=1"]))
    path.write_text("[model")
    with pytest.raises(ConfigError, match="is not TOML"):
        read(path)
    with pytest.raises(FileNotFoundError, match="none.toml"):
        read(tmp_path / "none.toml")


@pytest.mark.parametrize("architecture", ["PaiNN", "SchNet", "SimpleGNN"])
def test_every_option_of_a_model_may_be_set(architecture):
    """But for what training sets itself."""
    known, defaults = options_of(architecture), vars(model_class(architecture).Config())
    assert {"cutoff", "envelope", "elements", "basis", "readout", "filters", "units"} < set(known)
    assert set(defaults) - set(known) == {"shift", "scale", "min_distance"}
    options = {name: defaults[name] for name in known if defaults[name] is not None}
    options |= {name: list(value) for name, value in options.items() if isinstance(value, tuple)}
    config = parse({"model": {"architecture": architecture, **options}, "data": {"train": "train.xyz"}})
    assert config.model.options == options
    for name in ("shift", "min_distance"):
        with pytest.raises(ConfigError, match=rf"\[model\] has no key '{name}'"):
            parse({"model": {"architecture": architecture, name: 1.0}, "data": {"train": "train.xyz"}})


RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
PRETRAINED = Path(mdgnn.__file__).parent / "pretrained"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_short_and_those_of_the_shipped_models(path):
    """A shipped model's file tells what it was trained by, both times: the recipes of its name."""
    assert len(path.read_text().splitlines()) <= 21
    config, shipped = read(path), PRETRAINED / f"{path.stem}.safetensors"
    if shipped.exists():
        record, start = read_header(shipped)["training"], Path(config.model.start or "")
        assert parse(record["config"]) == config
        first = path.with_name(f"{path.stem}_{start.parent.name}.toml")
        content = record["found"]["training_of_start"]["config"]
        content["model"].setdefault("mean_neighbours", 1.0)  # the option is younger than the files
        assert parse(content) == read(first)


def test_there_are_recipes_of_the_shipped_models():
    """Of all but those that scripts of their own make."""
    shipped = {path.stem for path in PRETRAINED.glob("*.safetensors")}
    assert {"acac", "lj"} < shipped and shipped - {path.stem for path in RECIPES} == {"lj", "water"}

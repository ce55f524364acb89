"""Training from the command line, in process: recipes, facts, weights, resume, run folders, errors."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning_utilities.core.imports import RequirementCache
from toys import cli as cli_toys

import zoo
from zoo import index, training
from zoo.errors import InvalidConfig
from zoo.training import request as args
from zoo.training import stages
from zoo.training.arguments import apply_source
from zoo.training.checkpoints import last_of

QUIET = ["--trainer.max_epochs", "1"]


@pytest.fixture
def saved(place: Path) -> Path:
    """A folder of weights: ten classes, size s."""
    torch.manual_seed(1)
    module = cli_toys.ToyNet(size="s", class_names=[str(i) for i in range(10)], lr=0.7)
    return zoo.save(module, place / "saved")


@pytest.fixture
def three(place: Path) -> Path:
    """Data with three classes."""
    return cli_toys.ToyData().fake(place / "three")


def fit(*words: Any) -> Any:
    return training.run(["fit", *map(str, words)])


def failure(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """The one line that a mistake prints."""
    capsys.readouterr()
    assert training.main([*map(str, words)], prog="python train.py") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, lines
    return errors[0]


# Precedence -------------------------------------------------------------------------------------------------------


def test_recipe_then_config_then_flags(place: Path) -> None:
    (place / "mine.yaml").write_text("model: {lr: 0.2}\ntrainer: {max_epochs: 5}\n")
    done = fit(
        "--zoo", "toy-net:ten-s", "--trainer.max_epochs", 1, "--config", "mine.yaml", "--trainer.fast_dev_run", 1
    )
    assert done.model.hparams["size"] == "s"  # recipe
    assert done.model.lr == 0.2  # config
    assert done.config["fit"]["trainer"]["max_epochs"] == 1  # flag, although it came before the config
    assert done.datamodule.batch_size == 4


def test_sys_argv_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ["train.py", "fit", "--zoo", "toy-net"]
    monkeypatch.setattr(sys, "argv", list(before))
    fit("--zoo", "toy-net", "--trainer.fast_dev_run", "true")
    assert sys.argv == before


def test_fast_dev_run_writes_nothing(place: Path) -> None:
    before = sorted(place.rglob("*"))
    fit("--zoo", "toy-net", "--trainer.fast_dev_run", "true")
    assert sorted(place.rglob("*")) == before


# Facts ------------------------------------------------------------------------------------------------------------


def test_facts_fill_the_model_and_are_recorded(three: Path) -> None:
    done = fit("--zoo", "toy-net", "--data.root", three, *QUIET)
    assert done.model.hparams["class_names"] == ["cat", "dog", "owl"]
    assert done.model.head.out_features == 3
    config = yaml.safe_load(done.saved.path.read_text())
    assert config["zoo"] == "toy-net:ten-n"
    assert config["model"]["num_classes"] == 3
    assert config["facts"] == {"num_classes": 3, "class_names": ["cat", "dog", "owl"]}
    assert not {"minutes", "description", "after"} & set(config)
    ckpt = torch.load(last_of(done.trainer).last_model_path, weights_only=True)
    assert ckpt["hyper_parameters"]["num_classes"] == 3
    assert not [k for k in ckpt["hyper_parameters"] if k.startswith("_")]


def test_contradiction_is_refused(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = failure(capsys, "fit", "--zoo", "toy-net", "--data.root", three, "--model.num_classes=5")
    assert "--model.num_classes 5 contradicts the data, where num_classes is 3" in text
    fit("--zoo", "toy-net", "--data.root", three, "--model.num_classes=3", "--trainer.fast_dev_run", "true")


def test_hand_written_config_counts_as_the_users_choice(three: Path, place: Path) -> None:
    (place / "mine.yaml").write_text("zoo: toy-net\nmodel: {num_classes: 5}\n")
    with pytest.raises(InvalidConfig, match="contradicts the data"):
        fit("--config", "mine.yaml", "--data.root", three)


def test_format_of_the_recipe_is_for_its_own_data(three: Path, place: Path) -> None:
    recipe = place / "recipes" / "toy-net" / "ten-n.yaml"
    recipe.write_text(recipe.read_text().replace("batch_size: 4", "batch_size: 4, format: other"))
    dry = ["--zoo", "toy-net", "--trainer.fast_dev_run", "true"]
    assert fit(*dry).datamodule.hparams["format"] == "other"
    assert fit(*dry, "--data.root", three).datamodule.hparams["format"] == "json"
    assert fit(*dry, "--data.root", three, "--data.format", "mine").datamodule.hparams["format"] == "mine"


# Run folder and saved config --------------------------------------------------------------------------------------


def test_run_folder_and_saved_config_run_again(three: Path, place: Path) -> None:
    first = fit("--zoo", "toy-net", "--model.lr", 0.3, *QUIET)
    folder = place / "runs" / "toy-net-ten-n" / "version_0"
    names = {p.name.split(".")[0] for p in folder.rglob("*") if p.is_file()}
    assert {"config", "metrics", "events", "last", "best-epoch000"} <= names
    assert first.saved.path.resolve() == folder / "config.yaml"
    again = fit("--config", "runs/toy-net-ten-n/version_0/config.yaml")
    assert again.saved.path.resolve().parent.name == "version_1"
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))
    # filled from the first data, nobody's choice: other data are welcome
    other = fit("--config", "runs/toy-net-ten-n/version_0/config.yaml", "--data.root", three)
    assert other.model.head.out_features == 3
    assert other.model.lr == 0.3


def test_own_logger_and_callbacks_win(place: Path) -> None:
    done = fit(
        *("--zoo", "toy-net", "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs"),
        *("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.filename", "mine", *QUIET),
    )
    assert [type(logger).__name__ for logger in done.trainer.loggers] == ["CSVLogger"]
    assert sorted(p.name for p in place.rglob("*.ckpt")) == ["last.ckpt", "mine.ckpt"]
    assert (place / "logs" / "lightning_logs" / "version_0" / "config.yaml").is_file()
    assert not (place / "runs").exists()


def test_runs_without_logger_stay_in_the_run_folder(place: Path) -> None:
    fit("--zoo", "toy-net", "--trainer.logger", "false", "--trainer.default_root_dir", "out", *QUIET)
    written = {p.relative_to(place).parts[0] for p in place.rglob("*") if p.is_file()}
    assert written == {"out", "recipes"}
    assert (place / "out" / "toy-net-ten-n" / "version_0" / "checkpoints" / "last.ckpt").is_file()


def test_two_runs_claim_two_folders(place: Path) -> None:
    from zoo.training.run_folder import claim_folder

    (place / "r" / "version_7").mkdir(parents=True)
    (place / "r" / "version_x").mkdir()
    assert claim_folder(place / "r").name == "version_8"
    assert claim_folder(place / "r").name == "version_9"


def test_last_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert training.main(["fit", "--zoo", "toy-net", *QUIET], prog="python train.py") == 0
    out = capsys.readouterr().out
    best = "runs/toy-net-ten-n/version_0/checkpoints/best-epoch000.ckpt"
    assert f'zoo.load("{best}")' in out.replace(os.sep, "/")
    assert "--ckpt_path runs" in out
    assert "epoch 1/1" in out
    assert zoo.load(best).hparams["size"] == "n"


def test_no_validation_still_saves_last(place: Path) -> None:
    fit("--zoo", "toy-net", "--trainer.limit_val_batches", 0, *QUIET)
    assert [p.name for p in place.rglob("*.ckpt")] == ["last.ckpt"]


# Weights ----------------------------------------------------------------------------------------------------------


def test_a_list_of_the_weights_equals_the_tuple_of_a_default() -> None:
    model: dict[str, Any] = {"sizes": (1, 2), "rates": (1, 2)}
    source: Any = SimpleNamespace(init={"sizes": [1, 2], "rates": [1, 3]})
    options: dict[str, Any] = {"explicit": (), "recipe": {}, "shapes_differ": lambda key, value: False}
    assert apply_source(model, source, **options) == ["rates=[1, 3] (was (1, 2))"]


def test_weights_bring_their_architecture_and_flags_stay(
    saved: Path, three: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = fit("--zoo", "toy-net", "--weights", saved, "--data.root", three, "--trainer.max_epochs", 0)
    out = capsys.readouterr().out
    assert "size=s (was n)" in out
    assert "re-initialised  2  head.weight, head.bias" in out
    assert done.model.hparams["size"] == "s"  # from the weights
    assert done.model.lr == 0.05  # the recipe's: shapes do not depend on it
    assert done.model.hparams["num_classes"] == 3  # the data's
    kept = zoo.load(saved).state_dict()["body.0.weight"]
    assert torch.equal(done.model.state_dict()["body.0.weight"], kept)


def test_weights_that_do_not_fit_the_flags(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not fit" in failure(capsys, "fit", "--zoo", "toy-net", "--weights", saved, "--model.size", "n")


def test_weights_of_another_method(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index.register(replace(index.entries()["toy-net"], id="toy-other", default=None, weights={}))
    try:
        text = failure(capsys, "fit", "--zoo", "toy-other", "--weights", "toy-net:ten-n")
    finally:
        index._registered.pop("toy-other")
    assert "belongs to toy-net, but the model is toy-other" in text


def test_scoring_uses_given_weights_only(saved: Path, three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = training.run(["test", "--weights", str(saved)])
    assert done.model.lr == 0.7
    assert done.model.hparams["size"] == "s"
    assert "has not been trained yet" in failure(capsys, "test", "--zoo", "toy-net")
    text = failure(capsys, "validate", "--weights", saved, "--data.root", three)
    assert "was trained with num_classes 10, the data have 3" in text


def test_config_of_a_fine_tuning_scores_the_named_checkpoint(saved: Path, three: Path) -> None:
    done = fit("--weights", saved, "--data.root", three, *QUIET)
    last = last_of(done.trainer).last_model_path
    scored = training.run(["test", "--config", str(done.saved.path), "--ckpt_path", last])
    assert scored.model.hparams["num_classes"] == 3
    assert scored.source is None


def test_predict_writes_files(saved: Path, place: Path) -> None:
    training.run(["predict", "--weights", str(saved)])
    files = sorted(place.glob("runs/*/version_0/predictions/*.pt"))
    held = torch.load(files[0], weights_only=True)
    assert held["index"].tolist() == [0, 1, 2, 3]
    assert held["result"]["label"].shape == (4,)
    assert len(files) == 9


# Stages -----------------------------------------------------------------------------------------------------------


def test_missing_stage_is_trained_first_and_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = place / "recipes" / "toy-net" / "ten-s.yaml"
    recipe.write_text(recipe.read_text() + "after: [ten-n]\nweights: toy-net:ten-n\n")
    started = []

    def stage(words: list[str]) -> int:
        started.append(words[2:])
        training.run(["fit", "--zoo", words[4], *words[5:], *QUIET])
        return 0

    monkeypatch.setattr(stages, "_run", stage)
    flags = ["--trainer.devices", "1", "--model.size", "n"]
    first = fit("--zoo", "toy-net:ten-s", *flags, "--trainer.max_epochs", 0)
    assert started == [["zoo", "train", "toy-net:ten-n", "--trainer.devices=1"]]
    last = place / "runs" / "toy-net-ten-n" / "version_0" / "checkpoints" / "last.ckpt"
    assert Path(first.source.name).resolve() == last
    kept = torch.load(last, weights_only=True)["state_dict"]
    assert torch.equal(first.model.state_dict()["head.weight"], kept["head.weight"])
    fit("--zoo", "toy-net:ten-s", *flags, "--trainer.max_epochs", 0)
    assert len(started) == 1  # a finished stage is used again


def test_stage_is_trained_on_the_data_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def stage(words: list[str]) -> int:
        started.append(words[4:])
        return 0

    monkeypatch.setattr(stages, "_run", stage)
    words = ["fit", "--zoo", "toy-net:ten-s", "--data.root", "mine", "--data.batch_size=3", "--trainer.max_epochs=2"]
    entry, _ = index.resolve("toy-net")
    with pytest.raises(InvalidConfig, match="left no checkpoint"):
        stages.prepare(args.read_request(words), entry, {"after": ["ten-n"]})
    assert started == [["toy-net:ten-n", "--data.root=mine"]]


def test_weights_of_a_stage_for_other_classes_are_trained_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, _ = index.resolve("toy-net")
    about = {
        "file": "toy-net-ten-n.safetensors",
        "bytes": 1,
        "params": 1,
        "trained_on": {"data": "rows", "licence": "MIT"},
    }
    known = replace(entry.weights["ten-n"], sha256="0" * 64, **about)
    entry = replace(entry, weights={**entry.weights, "ten-n": known})
    own = str(cli_toys.ToyData().fake(place / "mine"))
    ten = place / "ten"
    ten.mkdir()
    (ten / "classes.json").write_text(json.dumps([str(i) for i in range(10)]))
    fit("--zoo", "toy-net:ten-n", "--trainer.max_epochs", 1)  # a run of the stage on other data does not count
    monkeypatch.setattr(stages, "_run", lambda words: 0)
    for root in ([], [f"--data.root={ten}"]):
        request = args.read_request(["fit", "--zoo", "toy-net:ten-s", *root])
        assert stages.prepare(request, entry, {"after": ["ten-n"]}) == {}
    request = args.read_request(["fit", "--zoo", "toy-net:ten-s", "--data.root", own])
    with pytest.raises(InvalidConfig, match="left no checkpoint"):
        stages.prepare(request, entry, {"after": ["ten-n"]})
    assert "other classes than yours" in capsys.readouterr().out
    fit("--zoo", "toy-net:ten-n", "--trainer.max_epochs", 1, "--data.root", own)
    assert "version_1" in stages.prepare(request, entry, {"after": ["ten-n"]})["toy-net:ten-n"]


def test_stage_that_the_user_replaces_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {"after": ["ten-n"], "weights": "toy-net:ten-n", "model": {"teacher": "toy-net:ten-n", "size": "s"}}
    entry, _ = index.resolve("toy-net")
    started: list[str] = []
    monkeypatch.setattr(stages, "_train", lambda name, request, why: started.append(name))
    for words in ([], ["--model.teacher", "mine.ckpt"], ["--weights", "mine.ckpt"], ["--model.size=n"]):
        request = args.read_request(["fit", "--zoo", "toy-net:ten-s", *words])
        with pytest.raises(InvalidConfig, match="left no checkpoint"):
            stages.prepare(request, entry, recipe)
    assert len(started) == 4
    request = args.read_request(["fit", "--zoo", "toy-net:ten-s", "--model.teacher=a.ckpt", "--weights", "b.ckpt"])
    assert stages.prepare(request, entry, recipe) == {}
    assert len(started) == 4


def test_missing_stage_with_many_processes(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = place / "recipes" / "toy-net" / "ten-s.yaml"
    recipe.write_text(recipe.read_text() + "after: [ten-n]\n")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert "Train it first: zoo train toy-net:ten-n" in failure(capsys, "fit", "--zoo", "toy-net:ten-s")


# Resume -----------------------------------------------------------------------------------------------------------


def test_resume_equals_the_uninterrupted_run(capsys: pytest.CaptureFixture[str]) -> None:
    whole = fit("--zoo", "toy-net:ten-s", "--trainer.max_epochs", 3)
    fit("--zoo", "toy-net", "--trainer.max_epochs", 1, "--model.size", "s")
    capsys.readouterr()
    rest = fit("--zoo", "toy-net", "--ckpt_path", "last", "--trainer.max_epochs", 3, "--model.lr", 0.9)
    assert "--ckpt_path overrides --model.lr 0.9 (the checkpoint has 0.05)" in capsys.readouterr().out
    assert rest.model.hparams["size"] == "s"
    assert rest.trainer.global_step == whole.trainer.global_step
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True))


def test_nothing_to_resume_starts_anew(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Set and forget in a job script: the first start has no `last` yet."""
    done = fit("--zoo", "toy-net", "--ckpt_path", "last", "--data.root", three, *QUIET)
    assert done.model.hparams["num_classes"] == 3
    assert done.trainer.global_step > 0


def test_best_of_the_first_part_is_remembered() -> None:
    first = fit("--zoo", "toy-net", *QUIET)
    best = first.trainer.checkpoint_callback.best_model_path
    rest = fit("--zoo", "toy-net", "--ckpt_path", "last", "--trainer.max_epochs", 2, "--trainer.limit_val_batches", 0)
    assert rest.trainer.checkpoint_callback.best_model_path == best
    assert Path(best).is_file()


def test_unreadable_checkpoints(place: Path, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No checkpoint" in failure(capsys, "fit", "--zoo", "toy-net", "--ckpt_path", "gone.ckpt")
    (place / "cut.ckpt").write_bytes(b"PK\x03\x04 cut off")
    cut = failure(capsys, "fit", "--zoo", "toy-net", "--ckpt_path", "cut.ckpt")
    assert "expected a checkpoint of Lightning 2" in cut
    assert "use --weights" in failure(capsys, "fit", "--zoo", "toy-net", "--ckpt_path", saved)


# Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fitt --zoo toy-net", "Did you mean 'fit'"),
        ("fit --zoo toy-nett", "Did you mean 'toy-net'"),
        ("fit --zoo toy-net:ten-m", "Did you mean 'ten-"),
        ("fit", "Which method? Give --zoo"),
        ("fit --zoo", "--zoo needs a value"),
        ("fit --zoo toy-net --trainer.devies 2", "Unknown flag --trainer.devies. Did you mean '--trainer.devices'"),
        ("fit --zoo toy-net --devices 2", "Did you mean '--trainer.devices'"),
        ("fit --zoo toy-net --model.nmu_classes 2", "Did you mean '--model.num_classes'"),
        ("fit --zoo toy-net --model.num_cl 3", "Did you mean '--model.num_classes'"),
        ("fit --zoo toy-net stray", "Unexpected word 'stray'"),
        ("fit --zoo toy-net --data.root", "--data.root needs a value"),
        ("fit --zoo toy-net --trainer.max_epochs abc", "--trainer.max_epochs: expected int or null, got 'abc'"),
        ("fit --zoo toy-net --trainer.precision 8", "expected one of 64, 32, 16, transformer-engine, "),
        (
            "fit --zoo toy-net --trainer.callbacks+=EarlyStopping",
            "EarlyStopping cannot be made with these settings: the following arguments are required: monitor.",
        ),
        ("fit --zoo toy-net --model.lr abc", "--model.lr: expected float, got 'abc'"),
        ("fit --zoo toy-net --trainer.strategy dpp", "there is no strategy 'dpp'. Did you mean 'ddp'"),
        ("fit --zoo toy-net --optimizer Adamm", "no class of the name 'Adamm'"),
        ("fit --zoo toy-net --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitr x", "no argument 'monitr'"),
        ("fit --zoo toy-net --config gone.yaml", "--config gone.yaml: no such file"),
        ("fit --zoo toy-net --config bad.yaml", "Unknown setting trainer.max_eposhs in bad.yaml. Did you mean"),
        ("fit --zoo toy-net --config list.yaml", "expected sections such as model"),
        ("fit --zoo toy-net --model.size x", "cannot be built with these --model settings"),
        ("fit --zoo toy-net --trainer.accelerator cpu --trainer.devices 0", "devices"),
    ],
)
def test_mistakes_are_one_line(words: str, expected: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "bad.yaml").write_text("trainer: {max_eposhs: 3}\n")
    (place / "list.yaml").write_text("- 1\n")
    assert expected in failure(capsys, *words.split())
    assert not list(place.glob("runs/*"))


def test_a_logger_without_its_package_says_what_to_install(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", RequirementCache("no-such-wandb>=0.1"))
    line = failure(capsys, "fit", "--zoo", "toy-net", "--trainer.logger", "WandbLogger")
    assert "WandbLogger needs the package no-such-wandb, which is not installed: pip install 'no-such-wandb>" in line
    assert len(line) < 200


def test_broken_data_lists_every_problem(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "empty").mkdir()
    assert training.main(["fit", "--zoo", "toy-net", "--data.root", "empty"]) == 2
    err = capsys.readouterr().err
    assert "2 problems in empty" in err
    assert "classes.json: count: expected at least 1, got 0" in err


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(InvalidConfig):
        training.main(["fit", "--debug"])


# Help -------------------------------------------------------------------------------------------------------------


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert training.main(["--help"], prog="python train.py") == 0
    assert "python train.py fit --zoo NAME --data.root DIR" in capsys.readouterr().out
    assert training.main(["fit", "--zoo", "toy-net", "--help"], prog="python train.py") == 0
    out = capsys.readouterr().out
    assert out.index("examples:") < out.index("--model.lr") < out.index("the Trainer")
    assert "learning rate" in out
    assert training.main(["fit", "--help"], prog="python train.py") == 0
    assert "--weights SOURCE" in capsys.readouterr().out


def test_print_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert training.main(["fit", "--zoo", "toy-net:ten-s", "--model.lr", "0.5", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["size"] == "s"
    assert config["model"]["lr"] == 0.5


def test_manual_optimisation_refuses_an_optimizer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_toys.ToyNet, "automatic_optimization", False)
    text = failure(capsys, "fit", "--zoo", "toy-net", "--optimizer", "SGD", "--optimizer.lr", "0.1")
    assert "steps its own optimisers" in text


def test_optimizer_by_flag() -> None:
    done = fit(
        *("--zoo", "toy-net", "--optimizer", "Adam", "--optimizer.lr", "0.02", "--trainer.fast_dev_run", "true"),
    )
    assert type(done.trainer.optimizers[0]).__name__ == "Adam"


def test_request_reads_both_spellings_of_values() -> None:
    request = args.read_request(
        ["fit", "--zoo=toy-net", "--weights", "null", "--model.size=s", "--trainer.devices", "2"]
    )
    assert request.zoo == "toy-net"
    assert request.weights == "null"
    assert request.explicit == {"size"}
    assert request.flags == ("--model.size=s", "--trainer.devices", "2")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_forked_processes_share_one_run_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = fit("--zoo", "toy-net", "--trainer.devices", 2, "--trainer.strategy", "ddp_fork", *QUIET)
    assert done.trainer.world_size == 2
    assert [p.name for p in (place / "runs" / "toy-net-ten-n").iterdir()] == ["version_0"]
    assert capsys.readouterr().out.count("load it") == 1
    assert (place / "runs" / "toy-net-ten-n" / "version_0" / "checkpoints" / "last.ckpt").is_file()

"""`ZooCLI`: LightningCLI whose model is completed from weights and data before it is built."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse.typing import PositiveInt
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from zoo.base import meeting
from zoo.base.arguments import without_downloads
from zoo.errors import InvalidConfig, ZooError, nearest
from zoo.files import versions
from zoo.index.recipes import read_recipe, recipe_of, section_of
from zoo.store.build import check_foreign
from zoo.store.checkpoint import arguments_of, read_checkpoint
from zoo.store.recipe_data import bound_to_data
from zoo.text import printable
from zoo.training import arguments as weights
from zoo.training import consent, resuming
from zoo.training import run_folder as runs
from zoo.training.checkpoint_io import remove_partial, use_whole_files
from zoo.training.checkpoints import last_of
from zoo.training.fitting import fitting_settings
from zoo.training.nonfinite import CAPSULE, StopOnNonFinite
from zoo.training.request import HEADER, Request, class_problem, explain
from zoo.training.signals import Stopped
from zoo.training.stopping import requested

if TYPE_CHECKING:
    from zoo.index import Entry

__all__ = ["ZooCLI"]

# arguments of Trainer.fit and its siblings: how a command ran, not what was trained
_METHOD_ARGUMENTS = ("verbose", "weights_only", "return_predictions")


@rank_zero_only
def _say(line: str) -> None:
    print(printable(line, lines=True), flush=True)


class ZooCLI(LightningCLI):
    """LightningCLI for one method of the index.

    Args:
        request: the command line.
        entry: the method, with its tag's overrides applied.
        tag: whose recipe is the config; None without a recipe.
        prog: how help and errors call the program.
    """

    repeats_steps = False
    """Whether it takes the state before a step that went wrong."""

    def __init__(self, request: Request, entry: Entry, tag: str | None, prog: str) -> None:
        self.request, self.entry, self.tag, self.prog = request, entry, tag, prog
        self.recipe_path = recipe_of(entry, tag)
        self.recipe = read_recipe(entry, tag)
        self.facts: dict[str, Any] = {}
        self.source: weights.Source | None = None
        self.saved: runs.SaveConfig | None = None
        self.folder: Path | None = None
        self.resumed = False
        strict = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            entry.model_class(),
            entry.data_class(),
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={request.command: dict(strict), **strict},
            args=self._arguments(),
            # constructor arguments are plain values: checkpoints need no instantiator and hold no class path
            load_from_checkpoint_support=False,
        )

    # Parsing ------------------------------------------------------------------------------------------------------

    def _arguments(self) -> list[str]:
        """Recipe, then the user's files, then flags: the later one wins."""
        request = self.request
        files = [*([str(self.recipe_path)] if self.recipe_path else []), *request.configs]
        words = [request.command]
        for file in files:
            words += ["--config", file]
        words += ["--zoo", request.zoo or self.entry.id]
        for flag in ("weights", "ckpt_path"):
            if getattr(request, flag) is not None:
                words += [f"--{flag}", getattr(request, flag)]
        return [*words, *request.flags, *([request.help] if request.help else [])]

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the one asked for: each costs a parser with all of the Trainer's flags."""
        return {self.request.command: LightningCLI.subcommands()[self.request.command]}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Trainer, model and data; the latter two are built here, in `instantiate_classes`."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        for section, cls in (("model", self._model_class), ("data", self._datamodule_class)):
            parser.add_class_arguments(cls, section, fail_untyped=False, instantiate=False, sub_configs=True)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The keys of recipes and saved configs that Lightning does not know."""
        shown = {"zoo": "method and tag, whose recipe is the config", "weights": "weights to start from"}
        for key in HEADER:
            kind: Any = str | None if key in shown else object
            parser.add_argument(f"--{key}", type=kind, default=None, help=shown.get(key, argparse.SUPPRESS))
        often = "save last.ckpt after so many steps, too, not only after each epoch"
        parser.add_argument("--checkpoint_every_n_steps", type=PositiveInt | None, default=None, help=often)
        ends = "stop after a step whose loss or weights are not finite, and keep the step (default: true)"
        parser.add_argument("--terminate_on_nan", type=bool | None, default=None, help=ends)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; a mistake becomes one line with the nearest flag."""
        try:
            if self.request.help:
                self._show_help(parser, args)
            self.config = parser.parse_args(args)
        except argparse.ArgumentError as error:
            raise explain(str(error), self._flags(), self.prog, self.request) from error
        self._own = self.config[self.request.command]
        self._leave_out_the_recipes_data()
        if self.request.command != "fit":
            # scoring is about the published or given weights, not about those that training would start from
            for key in ("weights", "ckpt_path"):
                value = getattr(self.request, key)
                self._own[key] = None if value == "null" else value

    def _leave_out_the_recipes_data(self) -> None:
        """What the recipe says about its own data does not hold for the user's."""
        data, chosen = self._own.data, self.request.explicit_data
        if "root" not in chosen or data.get("root") is None or self.request.saved_facts:
            return
        cls = self.entry.data_class()
        section = section_of(self.recipe, "data", cls)
        bound = bound_to_data(self.entry, self.tag, cls, section, data["root"])
        defaults = self._subcommand_parsers[self.request.command].get_defaults().data
        left = [key for key in bound if key in data and key not in chosen and data[key] != defaults.get(key)]
        for key in left:
            data[key] = defaults.get(key)
        if said := [f"{key}={section[key]}" for key in left if key != "format"]:
            _say(f"{', '.join(said)} of the recipe {'is' if len(said) == 1 else 'are'} for its own data, not for yours")

    def _flags(self) -> list[str]:
        parser = self._subcommand_parsers[self.request.command]
        return [s for action in parser._actions for s in action.option_strings if s.startswith("--") and "+" not in s]

    def _show_help(self, parser: LightningArgumentParser, args: list[str]) -> None:
        zoo, command, prog = self.request.zoo, self.request.command, self.prog
        if "--help-all" in args:
            parser.parse_args([a if a != "--help-all" else "--help" for a in args])
        print(f"{self.entry.id}: {self.entry.summary}\n\nexamples:")
        print(f"  {prog} {command} --zoo {zoo} --data.root DIR")
        print(f"  {prog} {command} --zoo {zoo} --data.batch_size 16 --trainer.devices 2 --trainer.strategy ddp")
        print(f"  {prog} {command} --zoo {zoo} --print_config")
        inner = self._subcommand_parsers[command]
        for section, title in (("model", "the model"), ("data", "the data")):
            print(f"\n{title}:")
            print("\n".join(_flag_lines(inner, f"--{section}.")))
        names = [f for f in self._flags() if f.startswith("--trainer.") and not f.endswith(".help")]
        print("\nthe Trainer (as in Lightning's documentation):")
        print(textwrap.fill(", ".join(names), 110, initial_indent="  ", subsequent_indent="  "))
        print(
            "\nfurther: --seed_everything, --checkpoint_every_n_steps, --terminate_on_nan, --optimizer, --lr_scheduler."
        )
        print(f"{prog} --help explains --weights, --ckpt_path and --config.")
        print(f"every flag in full: {prog} {command} --zoo {zoo} --help-all")
        raise SystemExit(0)

    # Checkpoints and weights --------------------------------------------------------------------------------------

    def _parse_ckpt_path(self) -> None:
        """Find `last`, read the checkpoint's own arguments and tell which flags they override."""
        config = self._own
        if config.get("weights_only") is None:
            config["weights_only"] = True
        path = config.get("ckpt_path")
        if path == "last":
            last = resuming.last_checkpoint(self._run_root())
            if last is not None:
                path = config["ckpt_path"] = str(last)
                _say(f"ckpt_path last is {last}")
        if path is not None and (Path(path) / "config.json").is_file():
            raise InvalidConfig(f"{path} is a folder of weights, not a checkpoint to resume: use --weights {path}.")
        if path is not None and (Path(path).suffix == ".ckpt" or Path(path).is_file()):
            self._read_ckpt(path)

    def _read_ckpt(self, path: str) -> None:
        checkpoint = read_checkpoint(path, tensors=False)
        if CAPSULE in checkpoint and self.request.command == "fit" and not self.repeats_steps:
            raise InvalidConfig(
                f"{path} holds a step that went wrong, no state to resume: `zoo replay {path}` does it again. "
                "Resume last.ckpt of that run, or start from these weights with --weights."
            )
        remove_partial(Path(path).parent)
        self.resumed = True
        saved = checkpoint.get("zoo") or {}
        if saved.get("id") not in (None, self.entry.id):
            raise InvalidConfig(f"{path} holds {saved['id']}, not {self.entry.id}: give --zoo {saved['id']}.")
        model = self._own.model.as_dict()
        init = weights.resumable(path, arguments_of(checkpoint), model, self.entry, runs=self._run_root())
        lost = weights.apply_checkpoint(model, init, explicit=self.request.explicit)
        self._set_model(model)
        for flag in lost:
            _say(f"note: --ckpt_path overrides {flag}; to start a new training from these weights use --weights")

    def _run_root(self) -> Path:
        folder = self._own.trainer.default_root_dir or resuming.RUNS
        return Path(folder) / (f"{self.entry.id}-{self.tag}" if self.tag else self.entry.id)

    def _set_model(self, model: dict[str, Any]) -> None:
        for key, value in model.items():
            self._own.model[key] = value

    # Building -----------------------------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        """Data first: they say how many classes the model has."""
        config = self._own
        self.datamodule = self._datamodule_class(**config.data.as_dict())
        self._fit_settings_to_data()
        self._complete_model()
        arguments = config.model.as_dict()
        if self.source is not None or self.resumed:
            arguments |= without_downloads(self.entry.model_class(), arguments)  # they would be overwritten
        self.model = self._build_model(arguments)
        if self.source is not None:
            self._load_weights()
        parser: Any = self.parser
        try:
            # `instantiate_classes` is the name in older releases of the parser
            self.config_init = getattr(parser, "instantiate", parser.instantiate_classes)(self.config)
            self._refuse_optimizer()
            self._add_configure_optimizers_method_to_model(self.subcommand)
            self.trainer = self.instantiate_trainer()
        except (MisconfigurationException, ValueError) as error:
            if self.folder is not None:
                runs.give_back(self.folder)
            raise self._explained(error) from error

    def _fit_settings_to_data(self) -> None:
        """Replace what a recipe sets for its own data by what fits the user's, where the user did not choose."""
        if self.resumed:
            return
        own = self._own
        fits = fitting_settings(self.entry, self.tag, self.request, self.recipe, own, self.datamodule)
        for key, value in fits.items():
            place, name = key.split(".")
            own[place][name] = value
        if fits:
            _say(f"set for your data: {', '.join(f'--{k} {v}' for k, v in fits.items())} (your own flags win)")
            self.datamodule = self._datamodule_class(**own.data.as_dict())

    def _build_model(self, arguments: dict[str, Any]) -> LightningModule:
        try:
            return self._model_class(**arguments)
        except (ValueError, TypeError, LookupError) as error:
            if isinstance(error, ZooError):
                raise
            raise InvalidConfig(
                f"{self.entry.id} cannot be built with these --model settings: {type(error).__name__}: {error}. "
                f"See {self.prog} {self.subcommand} --zoo {self.request.zoo} --help, or --debug for the traceback."
            ) from error

    def _explained(self, error: Exception) -> InvalidConfig:
        """A complaint of the Trainer or of a class as one line."""
        text = " ".join(str(error).split())
        if match := re.search(r"invalid strategy name: `strategy='([^']*)'`", text):
            known = StrategyRegistry.available_strategies()
            text = f"--trainer.strategy: there is no strategy {match.group(1)!r}.{nearest(match.group(1), known)}"
        text = class_problem(text) or text
        return InvalidConfig(f"{text} Help: {self.prog} {self.subcommand} --zoo {self.request.zoo} --help")

    def _complete_model(self) -> None:
        """Arguments from the starting weights, then from the data."""
        config, request = self._own, self.request
        model = config.model.as_dict()
        scoring = request.command != "fit"
        name = config.get("weights")
        if scoring and name is None and not self.resumed:
            name = self._published()
        facts = meeting.facts_of(self.datamodule)
        if name is not None and not self.resumed:
            self.source = weights.describe_source(name)
            self._check_method(self.source)
            check_foreign(self.source.checkpoint)
            self._apply_source(model, scoring, () if scoring else facts)
        what = str(config.get("ckpt_path") if self.resumed else name)
        if scoring:
            self._fit_data_to(model)
            if request.command != "predict":
                meeting.class_order(model, self.datamodule, what)
        elif self.resumed:
            meeting.check_resumed(model, facts, what)
        else:
            self.facts = weights.apply_facts(model, facts, explicit=request.explicit, saved_facts=request.saved_facts)
            if self.source is not None and "channels" in self._own.data.as_dict():
                weights.check_channels(self.source, model)
            for key in weights.drop_other_channels(model, explicit=request.explicit):
                _say(f"{key} of the recipe is for other colour channels than your data have: left out")
        self._set_model(model)

    def _fit_data_to(self, model: dict[str, Any]) -> None:
        """Read pictures as the model takes them where the user did not say how."""
        data = self._own.data
        open_ones = set(data.as_dict()) - self.request.explicit_data
        other = meeting.reading(model, meeting.facts_of(self.datamodule), open_ones)
        if other:
            for key, value in other.items():
                data[key] = value
            _say(f"data read as the model takes them: {', '.join(f'{k}={v}' for k, v in other.items())}")
            self.datamodule = self._datamodule_class(**data.as_dict())

    def _apply_source(self, model: dict[str, Any], scoring: bool, decided: Iterable[str]) -> None:
        assert self.source is not None
        recipe = {} if scoring else section_of(self.recipe, "model")
        notes = weights.apply_source(
            model,
            self.source,
            explicit={*self.request.explicit, *decided},
            recipe=recipe,
            shapes_differ=lambda key, value: weights.shapes_differ(self._model_class, model, key, value),
        )
        if notes and not scoring:
            _say(f"from the weights {self.source.name}: {', '.join(notes)}")

    def _published(self) -> str:
        if self.tag is None:
            raise InvalidConfig(
                f"{self.entry.id} has no published weights to {self.request.command}. "
                "Give --weights FOLDER|CKPT or --ckpt_path FILE."
            )
        return f"{self.entry.id}:{self.tag}"

    def _check_method(self, source: weights.Source) -> None:
        if source.id != self.entry.id:
            raise InvalidConfig(
                f"--weights {source.name} belongs to {source.id}, but the model is {self.entry.id}. "
                f"Give weights of {self.entry.id}, or --zoo {source.id}."
            )

    def _load_weights(self) -> None:
        from zoo import store

        assert self.source is not None
        report = store.load_into(self.model, self.source.reference)
        _say(str(report))

    def _refuse_optimizer(self) -> None:
        if self._own.get("optimizer") is not None and not self.model.automatic_optimization:
            raise InvalidConfig(
                f"{self.entry.id} steps its own optimisers: --optimizer and --lr_scheduler cannot replace them. "
                f"Its settings are --model flags: {self.prog} {self.subcommand} --zoo {self.request.zoo} --help"
            )

    # Running ------------------------------------------------------------------------------------------------------

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add run folder, loggers, checkpoints and the saved config where recipe and flags leave them open."""
        self._validate_at_least_once(config)
        given = config.get("callbacks") or []
        given = [*(given if isinstance(given, list) else [given]), *callbacks]
        if config.get("enable_progress_bar") is None:
            config["enable_progress_bar"] = runs.has_terminal() or any(isinstance(c, ProgressBar) for c in given)
        if config.get("fast_dev_run"):
            # Lightning keeps given ModelCheckpoints, which would write into the current folder
            given = [c for c in given if not isinstance(c, ModelCheckpoint)]
            config["enable_checkpointing"] = False
        else:
            self._prepare_folder(config)
            self.saved = runs.SaveConfig(self.dump)
            given.append(self.saved)
            if self.subcommand == "predict":
                given.append(runs.PredictionFiles())
        given += runs.default_callbacks(
            str(self.subcommand),
            self.model,
            given,
            checkpoints=config.get("enable_checkpointing") is not False,
            bar=config["enable_progress_bar"],
            every_n_steps=self._own.get("checkpoint_every_n_steps"),
            summary=config.get("enable_model_summary") is not False,
        )
        if self.subcommand == "fit" and self._own.get("terminate_on_nan") is not False:
            given.insert(0, StopOnNonFinite(self.dump))  # before weights are averaged
        trainer = self.trainer_class(**{**config, "callbacks": given})
        use_whole_files(trainer)
        return trainer

    def _validate_at_least_once(self, config: dict[str, Any]) -> None:
        """Validate in the last epoch at the latest: else there is no best checkpoint, and maybe no metrics at all."""
        epochs, every = config.get("max_epochs"), config.get("check_val_every_n_epoch")
        if self.subcommand == "fit" and epochs is not None and every is not None and 0 < epochs < every:
            config["check_val_every_n_epoch"] = self._own.trainer.check_val_every_n_epoch = epochs
            _say(f"check_val_every_n_epoch is {epochs}, not {every}: the training has no more epochs")

    def _prepare_folder(self, config: dict[str, Any]) -> None:
        root = self._run_root()
        logger = config.get("logger")
        if logger is not None and not isinstance(logger, bool):
            config["default_root_dir"] = str(root)
            return
        folder = self.folder = runs.claim_folder(root)
        config["default_root_dir"] = str(folder)
        if logger is not False:
            config["logger"] = runs.default_loggers(folder)

    def dump(self) -> str:
        """The resolved config as YAML that `--config` reads back."""
        parser = self._subcommand_parsers[self.request.command]
        resolved = yaml.safe_load(_dump(parser, self._own))
        header = {"zoo": resolved.get("zoo"), "command": self.request.command, "weights": resolved.get("weights")}
        header["facts"] = self.facts
        body = {k: v for k, v in resolved.items() if k not in HEADER and k not in _METHOD_ARGUMENTS}
        kept = {k: v for k, v in {**header, **body}.items() if v is not None}
        made_with = "# lightning-method-zoo {zoo}, python {python}\n".format_map(versions())
        return made_with + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=120)

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand == "predict":
            self.config_init[subcommand]["return_predictions"] = False
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:
            raise self._explained(error) from error
        except Stopped:
            self._say_what_is_kept()
            raise
        except Exception as error:
            if (number := requested(self.trainer)) is None:
                raise
            self._say_what_is_kept()  # such as a loader's process, which Ctrl-C has reached, too
            raise Stopped(number) from error
        if self.trainer.is_global_zero:
            runs.write_result(subcommand, self.trainer, self.folder, chosen_on_validation=self._selects())
            name = self.request.zoo or self.entry.id
            words = runs.last_words(subcommand, self.trainer, name, self.saved, self.prog, trust=self._names_foreign())
            print("\n".join(["", *words]), flush=True)

    def _say_what_is_kept(self) -> None:
        kept = last_of(self.trainer)
        if kept is not None and kept.last_model_path:
            config = self.saved.path if self.saved is not None else None
            place, name = kept.last_model_path, self.request.zoo or self.entry.id
            line = resuming.next_line(self.prog, "fit", config, name, place, trust=self._names_foreign())
            _say(f"stopped; {place} is the last state: resume with {line}")
        else:
            _say("stopped; no state has been saved yet")

    def _names_foreign(self) -> bool:
        """Whether the saved config names classes of other packages."""
        path = self.saved.path if self.saved is not None else None
        return path is not None and bool(consent.foreign_classes(str(path), self.entry))

    def _selects(self) -> bool:
        """Whether the recipe chooses its checkpoint on validation data."""
        given = self._own.trainer.callbacks or []
        given = given if isinstance(given, list) else [given]
        return any((c.get("init_args") or {}).get("monitor") and "Checkpoint" in c.get("class_path", "") for c in given)


def _flag_lines(parser: LightningArgumentParser, prefix: str) -> list[str]:
    """One line per flag: name, what it is, default."""
    lines = []
    for action in parser._actions:
        flag = next((s for s in action.option_strings if s.startswith(prefix) and not s.endswith((".help", "+"))), None)
        if flag is not None:
            text = " ".join(str(action.help or "").split()).removesuffix(".")
            default = "null" if action.default is None else action.default
            lines.append(f"  {flag:<30} {text}{' ' if text else ''}(default: {default})")
    return lines


def _dump(parser: LightningArgumentParser, config: Any) -> str:
    """Everything, nulls included; the argument was renamed in the parser's release 4.49."""
    import jsonargparse

    version = tuple(int(part) for part in re.findall(r"\d+", jsonargparse.__version__)[:2])
    return parser.dump(config, **{"skip_unset" if version >= (4, 49) else "skip_none": False})

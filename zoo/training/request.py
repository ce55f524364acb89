"""Reading the command line of training: recipe, config files, flags, and errors that name the nearest flag.

Nothing here imports torch, so that help and mistakes answer at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import InvalidConfig, UnknownName, ZooError, nearest
from zoo.index.recipes import read_sections

__all__ = [
    "COMMANDS",
    "HEADER",
    "HELP",
    "FlagError",
    "Request",
    "class_problem",
    "explain",
    "read_config",
    "read_request",
]

COMMANDS = ("fit", "validate", "test", "predict")

HEADER = ("zoo", "weights", "after", "minutes", "description", "command", "facts")
"""Keys of a recipe or a saved config that Lightning does not know."""

HELP = """\
Train, validate, test or predict with any method of the zoo.

  {prog} fit --zoo NAME[:TAG]                            train with the recipe of that tag
  {prog} fit --zoo NAME:own --data.root DIR              train on your own data, with settings that fit them
  {prog} fit --zoo NAME --data.root DIR --weights NAME   start from published weights (fine-tune)
  {prog} fit --zoo NAME --trainer.max_epochs 5 --trainer.fast_dev_run true
  {prog} fit --zoo NAME --trainer.devices 8 --trainer.strategy ddp --trainer.precision bf16-mixed
  {prog} fit --zoo NAME --ckpt_path last                 resume exactly where the last run stopped
  {prog} fit --config runs/NAME-TAG/version_0/config.yaml     run again what a run saved
  {prog} test --zoo NAME --data.root DIR                 score the published weights on your data

What is decided where, later wins: the recipe, your own --config FILE, then flags.
  --zoo NAME[:TAG]   method and recipe; `zoo list` shows the names
  --config FILE      your own settings (YAML); may be given several times
  --weights SOURCE   start from NAME:TAG, hf://owner/repo, a saved folder or a .ckpt; flags are kept
  --ckpt_path PATH   resume a .ckpt exactly, or `last`; its own hyper-parameters win over flags
  --print_config     show the resolved settings and stop
  --checkpoint_every_n_steps N   save last.ckpt after so many steps, too; it is written after each epoch anyway
  --terminate_on_nan false       go on after a loss that is not finite; otherwise the run ends and keeps that step
  --trust            import the classes of other packages that --config FILE names, without asking
  --debug            show the traceback of an error
  --model.X, --data.X, --trainer.X, --optimizer X: everything the model, the data module and the Trainer take

`{prog} fit --zoo NAME --help` lists every flag of a method.
"""


class FlagError(UnknownName):
    """A flag or its value is not accepted."""


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Attributes:
        command: one of `COMMANDS`.
        zoo: `id[:tag]`, from the flag or else from a config file.
        weights: what `--weights` or else a config file says; `null` if the user wants none.
        ckpt_path: what `--ckpt_path` or else a config file says; `null` if the user wants none.
        configs: the user's config files, in order.
        flags: everything else, as given.
        saved_facts: the facts that a config saved by an earlier run took from its data.
        explicit: model arguments that the user chose, by flag or in a hand-written config file.
        explicit_data: data arguments that the user chose, by flag or in a hand-written config file.
        debug: tracebacks are wanted.
        trust: classes of other packages in config files may be imported.
        help: `--help` or `--help-all` if the flags are to be listed.
    """

    command: str
    zoo: str | None = None
    weights: str | None = None
    ckpt_path: str | None = None
    configs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    saved_facts: dict[str, Any] = field(default_factory=dict)
    explicit: frozenset[str] = frozenset()
    explicit_data: frozenset[str] = frozenset()
    debug: bool = False
    trust: bool = False
    help: str = ""

    def chose(self, setting: str) -> bool:
        """Whether the user chose a setting such as `trainer.max_epochs`, by flag or in a hand-written config file."""
        section, _, name = setting.partition(".")
        if name in {"model": self.explicit, "data": self.explicit_data}.get(section, ()):
            return True
        if name in _flag_arguments(self.flags, section):
            return True
        return any(name in (read_config(file).get(section) or {}) for file in self.configs)


def read_request(args: Sequence[str]) -> Request:
    """Split a command line (without the program's name).

    Raises:
        FlagError: if the first word is no command or a flag lacks its value.
        InvalidConfig: if a config file cannot be read, or two of them name different methods.
    """
    command, *rest = args
    if command not in COMMANDS:
        raise FlagError(
            f"The first word must be one of {', '.join(COMMANDS)}, got {command!r}.{nearest(command, COMMANDS)}"
        )
    own: dict[str, list[str]] = {"--zoo": [], "--config": [], "--weights": [], "--ckpt_path": []}
    flags: list[str] = []
    debug, trust, wants_help = False, False, ""
    tokens = iter(rest)
    for token in tokens:
        name, equals, value = token.partition("=")
        name = {"-c": "--config"}.get(name, name)
        if name in own:
            if not equals:
                following = next(tokens, None)
                if following is None or following.startswith("--"):
                    raise FlagError(f"{name} needs a value, as in {name} {_EXAMPLE[name]}.")
                value = following
            own[name].append(value)
        elif token == "--debug":
            debug = True
        elif token == "--trust":
            trust = True
        elif token in ("-h", "--help", "--help-all"):
            wants_help = "--help-all" if token == "--help-all" else "--help"
        else:
            flags.append(token)
    headers = _headers(own["--config"], command)
    return Request(
        command=command,
        zoo=_last(own["--zoo"], headers["zoo"]),
        weights=_last(own["--weights"], headers["weights"]),
        ckpt_path=_last(own["--ckpt_path"], headers["ckpt_path"]),
        configs=tuple(own["--config"]),
        flags=tuple(flags),
        saved_facts=headers["facts"],
        explicit=frozenset(_flag_arguments(flags, "model")) | headers["model"],
        explicit_data=frozenset(_flag_arguments(flags, "data")) | headers["data"],
        debug=debug,
        trust=trust,
        help=wants_help,
    )


_EXAMPLE = {"--zoo": "NAME:TAG", "--config": "my.yaml", "--weights": "NAME:TAG", "--ckpt_path": "last"}


def _last(given: Sequence[str], otherwise: str | None) -> str | None:
    return given[-1] if given else otherwise


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a config file of the user as a dict.

    Raises:
        InvalidConfig: if there is no such file, or it is not a mapping.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InvalidConfig(f"--config {path}: no such file. Give a YAML file with the sections model, data, trainer.")
    return read_sections(file, f"--config {path}")


def _headers(files: Sequence[str], command: str) -> dict[str, Any]:
    """Header keys of the user's config files, and the model arguments that hand-written ones set."""
    headers: dict[str, Any] = {"zoo": None, "weights": None, "ckpt_path": None, "facts": {}}
    headers |= {"model": frozenset(), "data": frozenset()}
    for file in files:
        config = read_config(file)
        # what training started from is not what is to be scored
        other = config.get("command") == "fit" and command != "fit"
        for key in ("zoo",) if other else ("zoo", "weights", "ckpt_path"):
            if config.get(key) is not None:
                headers[key] = str(config[key])
        facts = config.get("facts")
        if isinstance(facts, dict):  # saved by a run: its sections are complete, not each value was chosen
            headers["facts"] = facts
            continue
        for section in ("model", "data"):
            given = config.get(section)
            headers[section] |= frozenset(map(str, given)) if isinstance(given, dict) else frozenset()
    return headers


def _flag_arguments(flags: Iterable[str], section: str) -> set[str]:
    """Names of a section's arguments among flags: `--model.size=s` gives `size`."""
    pattern = re.compile(rf"--{section}\.([^.=+]+)")
    return {match.group(1) for flag in flags if (match := pattern.match(flag))}


def explain(error: str, known: Iterable[str], prog: str, request: Request) -> ZooError:
    """Turn a message of the parser into one line that names flag, nearest match and help command."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    zoo = f" --zoo {request.zoo}" if request.zoo else ""
    tail = f" Help: {prog} {request.command}{zoo} --help"
    names = sorted(set(known))
    if match := re.search(r"unrecognized arguments: (\S+)", text):
        flag = match.group(1).split("=")[0]
        if not flag.startswith("-"):
            return FlagError(f"Unexpected word {flag!r}: flags start with --.{_near(flag, names)}{tail}")
        return FlagError(f"Unknown flag {flag}.{_near(flag, names)}{tail}")
    if match := re.search(r"does not accept option '([^']+)'", text):
        key = match.group(1)
        where = f" in {', '.join(request.configs)}" if request.configs else ""
        return FlagError(f"Unknown setting {key}{where}.{_near('--' + key, names, strip=True)}{tail}")
    if match := re.search(r"class_path '([^']+)': Option '([^']+)' is not accepted", text):
        key = re.search(r'Parser key "([^"]+)"', text)
        return FlagError(
            f"--{key.group(1) if key else ''}: {match.group(1)} takes no argument {match.group(2)!r}.{tail}"
        )
    if match := re.search(r"argument (--\S+): expected one argument", text):
        return FlagError(f"{match.group(1)} needs a value.{tail}")
    if match := re.search(r"ambiguous option: (\S+)", text):
        return FlagError(f"Unknown flag {match.group(1)}.{_near(match.group(1), names)}{tail}")
    if match := re.search(r'Parser key "([^"]+)": (.*)', text):
        return FlagError(f"--{match.group(1)}: {_value_problem(match.group(2))}.{tail}")
    return FlagError(f"{text.rstrip('.')}.{tail}")


def class_problem(text: str) -> str | None:
    """Shorten what the parser says of a class that it could not make: which class, and why; None if it is not that."""
    match = re.search(
        r"Problem with given class_path '([^']+)': (.*?)(?: - Expected | - Not a valid | Given value|$)", text
    )
    if match is None:
        return None
    name, why = match.group(1).rpartition(".")[2], match.group(2).rstrip(". ")
    if needs := re.search(r"Requirement '([^']+)' not met", why):
        package = re.split(r"[^\w.-]", needs.group(1))[0]
        return f"{name} needs the package {package}, which is not installed: pip install '{needs.group(1)}'."
    return f"{name} cannot be made with these settings: {why}."


def _value_problem(text: str) -> str:
    """Shorten the parser's account of a bad value to what was expected and what came."""
    if problem := class_problem(text):
        return problem.rstrip(".")
    given = re.search(r"(?:Given value|Got value): (.+)$", text)
    subtypes = re.search(r"Subtypes: \[(.*?)\] Errors", text)
    if match := re.search(r"Expected a dot import path string: (\S+)", text):
        return f"no class of the name {match.group(1)!r}; give its name or its full path, as in package.module.Class"
    if given and subtypes:
        words = [word for listed in re.findall(r"Literal\[([^]]*)\]", subtypes.group(1)) for word in listed.split(", ")]
        if words:
            known = list(dict.fromkeys(word.strip("'") for word in words))
            null = ", null" * ("NoneType" in subtypes.group(1))
            return f"expected one of {', '.join(known)}{null}, got {given.group(1).strip()!r}"
        kinds = re.findall(r"<class '([^']+)'>|([\w.\[\], ]+)", subtypes.group(1))
        names = [(a or b).strip(" ,") for a, b in kinds if (a or b).strip(" ,")]
        named = " or ".join("null" if name == "NoneType" else name.split(".")[-1] for name in names)
        return f"expected {named}, got {given.group(1).strip()!r}"
    if match := re.search(r"Expected a <class '([^']+)'>\. Got value: (.+)$", text):
        return f"expected {match.group(1)}, got {match.group(2)!r}"
    return text.rstrip(".")


def _near(flag: str, known: Sequence[str], *, strip: bool = False) -> str:
    """The nearest flags; one whose last part alone is right counts as near (`--devices` for `--trainer.devices`)."""
    bare = flag.lstrip("-")
    if "." not in bare:
        same = [name for name in known if name.split(".")[-1] == bare]
        if same:
            return f" Did you mean {' or '.join(repr(n.lstrip('-') if strip else n) for n in same[:3])}?"
    return nearest(bare if strip else flag, [name.lstrip("-") if strip else name for name in known])

"""Flower as the engine across machines: a ServerApp and a ClientApp around the same rules and the same clients.

    [tool.flwr.app.components]
    serverapp = "zoo.federated.flower:server"
    clientapp = "zoo.federated.flower:client"

`examples/flower` is such an app; `docs/federated.md` shows how to run it on several machines. `LocalGrid` runs the same
apps in one process, without a network.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from zoo.errors import BadInput, InvalidConfig, MissingExtra, nearest, require

if tuple(sys.version_info) < (3, 11):
    raise MissingExtra("Flower needs Python 3.11 or newer; on older ones the extra 'federated' is empty.")
require("flwr", "federated")

from flwr.app import Context  # noqa: E402  (after the message that says how to install it)
from flwr.serverapp import Grid, ServerApp  # noqa: E402

from zoo.federated.flower.client_app import Memory, make_client  # noqa: E402
from zoo.federated.flower.job import Job  # noqa: E402
from zoo.federated.flower.local import LocalGrid  # noqa: E402
from zoo.federated.flower.server_app import RuleStrategy, serve, validate  # noqa: E402

__all__ = ["Job", "LocalGrid", "Memory", "RuleStrategy", "client", "make_client", "serve", "server", "settings"]

_OPTIONS: dict[str, Any] = {
    "zoo": "",
    "rounds": 20,
    "model": "{}",
    "data": "{}",
    "root": "",
    "seed": 0,
    "weights": False,
    "folder": "runs/federated",
    "wait": 300.0,
    "timeout": 3600.0,
    "validate": True,
}


def settings(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run, from the run config of Flower.

    `zoo`, which is required: id, with a tag if wanted, whose recipe gives the settings of the data; `rounds`; `model`,
    `data`: YAML of arguments that differ, such as "{lr: 0.05}"; `root`: the server's data, for validation and the
    partition; `seed`; `weights`: start from those of the tag; `folder`: for checkpoint and result; `wait`, `timeout`:
    seconds (see `serve`); `validate`: after each round, on the server's data.

    Raises:
        BadInput: without a method, for another option, or for a value of another kind.
    """
    import yaml

    options = dict(_OPTIONS)
    for key, value in run_config.items():
        if key not in _OPTIONS:
            raise BadInput(f"No option {key!r}.{nearest(key, _OPTIONS)} Options: {', '.join(_OPTIONS)}.")
        kind = type(_OPTIONS[key])
        if not isinstance(value, (int, float) if kind is float else kind):
            raise BadInput(f"{key}: expected {kind.__name__}, got {value!r}.")
        options[key] = value
    if not options["zoo"].strip():
        raise BadInput(
            "zoo: name the method that this run trains, by its id or id:tag, in [tool.flwr.app.config] of the app's "
            'pyproject.toml (zoo = "ID:TAG") or on the command line (flwr run ... --run-config \'zoo="ID:TAG"\'); '
            "`zoo list` shows the ids."
        )
    for key in ("model", "data"):
        try:
            arguments = yaml.safe_load(options[key]) or {}
        except yaml.YAMLError as error:
            raise BadInput(f"{key}: {options[key]!r} is not YAML ({error}).") from error
        if not isinstance(arguments, dict):
            raise BadInput(f"{key}: expected a mapping such as {{lr: 0.05}}, got {options[key]!r}.")
        options[key] = arguments
    return options


def _main(grid: Grid, context: Context) -> None:
    from pathlib import Path

    import lightning

    from zoo.federated.learner import FederatedLearner
    from zoo.store import datamodule, load, save

    logging.getLogger("zoo").setLevel(logging.INFO)
    options = settings(context.run_config)
    data = datamodule(options["zoo"], root=options["root"] or None, **{"seed": options["seed"], **options["data"]})
    lightning.seed_everything(options["seed"], verbose=False)
    learner = load(options["zoo"], weights=options["weights"], **{**_recipe(options["zoo"]), **options["model"]})
    if not isinstance(learner, FederatedLearner):
        raise InvalidConfig(f"{options['zoo']} is not trained in federated rounds.")
    learner.train()
    evaluate = (lambda module: validate(module, data)) if options["validate"] else None
    given = {key: options[key] for key in ("rounds", "folder", "wait", "timeout")}
    serve(grid, learner, data, evaluate=evaluate, **given)
    save(learner.eval(), Path(options["folder"]) / "model")


def _recipe(name: str) -> dict[str, Any]:
    """Arguments of the method in the recipe of its tag."""
    from zoo.index import resolve
    from zoo.index.recipes import read_recipe, section_of

    return section_of(read_recipe(*resolve(name)), "model")


server = ServerApp()
"""For `serverapp` of a Flower app."""
server.main()(_main)

client = make_client()
"""For `clientapp` of a Flower app."""

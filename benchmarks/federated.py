"""What federated rounds cost: against bare local training, Flower's Ray simulation, and one process without ranks.

    python benchmarks/federated.py [--part round ray aggregate robust ranks] [--repeats 3] [--peer PYTHON] [--out FILE]

round      a round of `FederatedLearner` under Lightning in one process, against a loop that trains the same clients on
           the same batches and averages them, in alternation; both must end with the same weights
ray        ten clients x three rounds, start-up included, against Flower's simulation with one Ray worker per core.
           `--peer` is a Python that has flwr[simulation]; its client is the bare loop on tensors that are ready
aggregate  linear rules on ten clients x 11 M parameters: seconds, and memory beyond the updates, in models
robust     the same for all other rules
ranks      `fed_ddp` with two processes of one thread, against one process of one thread

Rounds train a small CNN (50 k parameters) on 600 pictures of Fashion-MNIST per client, one local epoch, batches of 32,
SGD. A ratio is the median of those of pairs that ran after each other, for the machine's speed drifts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLIENTS, IMAGES, BATCH, LR, MOMENTUM = 10, 600, 32, 0.02, 0.9
PARTS = ("round", "ray", "aggregate", "robust", "ranks")
HERE = Path(__file__).resolve()


def small_cnn() -> nn.Module:
    """About 50 k parameters for 28x28x1."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 49, 10),
    )  # fmt: skip


def train_bare(model: nn.Module, image: Tensor, label: Tensor, batches: list[Tensor]) -> None:
    """What no local training can do without."""
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM)
    for index in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(image[index]), label[index]).backward()
        optimizer.step()


# The zoo ----------------------------------------------------------------------------------------------------------


def clients_data() -> Any:
    from datamodules.clients import ClientsDataModule

    return ClientsDataModule(num_clients=CLIENTS, train_size=CLIENTS * IMAGES, batch_size=BATCH)


def learner(processes: int | None) -> Any:
    from zoo.federated.clients import LocalTraining
    from zoo.federated.learner import FederatedLearner
    from zoo.federated.rules import create_rule

    class Classifier(FederatedLearner):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            local = LocalTraining(1, LR, momentum=MOMENTUM)
            self.federate(small_cnn(), create_rule("fedavg"), local=local, client_processes=processes)

        def local_step(self, network: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, None]:
            return F.cross_entropy(network(batch["image"]), batch["label"]), None

    return Classifier()


def fit(model: Any, data: Any, rounds: int, callback: Any, **given: Any) -> None:
    from lightning import Trainer

    usual = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    usual |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1, "limit_val_batches": 0}
    Trainer(max_epochs=rounds, callbacks=[callback], **{**usual, **given}).fit(model, datamodule=data)


def stopwatch(clock: Callable[[], float], after: Callable[[Any], None] = lambda module: None) -> Any:
    """A callback with the seconds of each epoch in `seconds`; `after(module)` runs outside of them."""
    from lightning import Callback

    class Watch(Callback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.start = clock()

        def on_train_batch_end(self, trainer: Any, module: Any, *rest: Any) -> None:
            if trainer.is_last_batch:
                self.seconds.append(clock() - self.start)
                after(module)

    return Watch()


# round ------------------------------------------------------------------------------------------------------------


def part_round(rounds: int) -> dict[str, Any]:
    """Ours and bare by turns, on one thread, in processor time."""
    torch.set_num_threads(1)
    model, data = learner(1), clients_data()
    ready = [data.client_dataset(c).__getitems__(range(data.client_size(c))) for c in range(CLIENTS)]
    bare: list[float] = []
    net = small_cnn()
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    apart = []

    def bare_round(module: Any) -> None:
        nonlocal before
        orders = [[b["index"] for b in data.client_loader(c, len(bare))] for c in range(CLIENTS)]
        start = time.process_time()
        total = {k: torch.zeros_like(v) for k, v in before.items()}
        for client, batches in enumerate(orders):
            net.load_state_dict(before)
            train_bare(net, ready[client]["image"], ready[client]["label"], batches)
            for key, value in net.state_dict().items():
                total[key] += value / CLIENTS
        bare.append(time.process_time() - start)
        ours = module.network.state_dict()
        apart.append(max(float((total[k] - ours[k]).abs().max()) for k in ours))
        before = {k: v.clone() for k, v in ours.items()}

    watch = stopwatch(time.process_time, bare_round)
    fit(model, data, rounds + 1, watch)
    pairs = list(zip(watch.seconds, bare, strict=True))[1:]  # the first round warms up
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"\nround, one process, one thread, {len(pairs)} rounds, processor time")
    print(f"  zoo {statistics.median(a for a, _ in pairs):.2f} s, bare {statistics.median(b for _, b in pairs):.2f} s")
    print(f"  zoo / bare: {ratio:.3f} (bar: at most 1.1); largest difference of a weight {max(apart):.1e}")
    return {"rounds": pairs, "over_bare": ratio, "largest_difference": max(apart), "clock": "processor time"}


# ray --------------------------------------------------------------------------------------------------------------


def child_zoo(rounds: int) -> dict[str, Any]:
    """As many processes as cores, forked for each round."""
    import lightning  # noqa: F401

    import zoo.federated.learner  # noqa: F401

    torch.set_num_threads(os.cpu_count() or 1)
    start = time.perf_counter()
    watch = stopwatch(time.perf_counter)
    fit(learner(None), clients_data(), rounds, watch)
    return {"total": time.perf_counter() - start, "rounds": watch.seconds}


def child_flower(rounds: int, folder: Path) -> dict[str, Any]:
    """Flower's simulation, one Ray worker with one thread per core."""
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client_app = ClientApp()

    @client_app.train()
    def train(message: Any, context: Any) -> Any:
        from flwr.app import Message

        torch.set_num_threads(1)
        with np.load(folder / f"{context.node_config['partition-id']}.npz") as file:
            image, label = torch.from_numpy(file["image"]), torch.from_numpy(file["label"])
        model = small_cnn()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        train_bare(model, image, label, list(torch.randperm(len(label)).split(BATCH)))
        content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": len(label)})}
        return Message(content=RecordDict(content), reply_to=message)

    marks: list[float] = []

    class Timed(FedAvg):
        def configure_train(self, *given: Any) -> Any:
            marks.append(time.perf_counter())
            return super().configure_train(*given)

        def aggregate_train(self, *given: Any) -> Any:
            found = super().aggregate_train(*given)
            marks.append(time.perf_counter())
            return found

    server_app = ServerApp()

    @server_app.main()
    def main(grid: Any, context: Any) -> None:
        torch.manual_seed(0)
        strategy = Timed(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=CLIENTS)
        strategy.start(grid=grid, initial_arrays=ArrayRecord(small_cnn().state_dict()), num_rounds=rounds)

    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": os.cpu_count()}}
    start = time.perf_counter()
    run_simulation(server_app, client_app, CLIENTS, backend_config=backend)
    total = time.perf_counter() - start
    return {"total": total, "rounds": [b - a for a, b in zip(marks[::2], marks[1::2], strict=True)]}


def part_ray(repeats: int, peer: str) -> dict[str, Any]:
    """Whole simulations by turns, each in a process of its own; wall-clock."""
    found: dict[str, list[dict[str, Any]]] = {"zoo": [], "flower": []}
    with tempfile.TemporaryDirectory() as place:
        data = clients_data()
        for client in range(CLIENTS):
            batch = data.client_dataset(client).__getitems__(range(data.client_size(client)))
            np.savez(Path(place) / f"{client}.npz", image=batch["image"].numpy(), label=batch["label"].numpy())
        for number in range(repeats):
            for name in ("zoo", "flower") if number % 2 else ("flower", "zoo"):
                given = ["--folder", place] if name == "flower" else []
                found[name].append(child(peer if name == "flower" else sys.executable, name, *given))
                _show(f"ray, {name}", found[name][-1])
    whole = _ratio(found, lambda run: run["total"])
    later = _ratio(found, lambda run: statistics.median(run["rounds"][1:]))
    from_start = _ratio(found, lambda run: run["process"])
    print(f"  three rounds, start-up of the engine included, zoo / flower: {whole:.3f} (bar: at most 0.65)")
    print(f"  a later round: {later:.3f} (bar: at most 0.95); the whole process, with imports: {from_start:.3f}")
    return {**found, "three_rounds_over_ray": whole, "later_round_over_ray": later, "process_over_ray": from_start}


def _ratio(found: dict[str, list[dict[str, Any]]], of: Callable[[dict[str, Any]], float]) -> float:
    first, second = found.values()
    return statistics.median(of(a) / of(b) for a, b in zip(first, second, strict=True))


def _show(title: str, run: dict[str, Any]) -> None:
    rounds = " ".join(f"{s:.2f}" for s in run["rounds"])
    print(f"{title}: {run['total']:.1f} s, rounds {rounds}; whole process {run['process']:.1f} s", flush=True)


def child(python: str, *arguments: str, **environment: str) -> dict[str, Any]:
    """What a process of this script measured, and how long it lived."""
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:
        command = [python, str(HERE), "--child", *arguments, "--answer", answer.name]
        env = {**os.environ, "RAY_DEDUP_LOGS": "0", "FLWR_TELEMETRY_ENABLED": "0", **environment}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))
        start = time.perf_counter()
        done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
        lived = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return {**json.loads(Path(answer.name).read_text()), "process": lived}


# aggregate --------------------------------------------------------------------------------------------------------


def _high_water(reset: bool = False) -> int:
    """Bytes of memory this process has held at most, since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def child_aggregate(name: str, parameters: int) -> dict[str, Any]:
    """One rule, once to warm up and then again: seconds, and models of memory on top of the updates."""
    from zoo.federated.rules import ClientUpdate, RoundContext, create_rule

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    layers = 12
    held = {f"layer{i}": torch.randn(parameters // layers) for i in range(layers)}
    updates = [
        ClientUpdate(c, 100 + c, {k: v + 0.01 * torch.randn_like(v) for k, v in held.items()}) for c in range(CLIENTS)
    ]
    rule, ctx = create_rule(name), RoundContext(0, 0, tuple(range(CLIENTS)), CLIENTS)
    state = rule.init_state(held)
    seconds, memory = [], []
    for _ in range(4 if rule.linear else 2):
        before = _high_water(reset=True)
        start = time.perf_counter()
        found = rule(held, updates, ctx, state)
        seconds.append(time.perf_counter() - start)
        memory.append((_high_water() - before) / (4 * parameters))
        del found
    return {"rounds": seconds[1:], "total": sum(seconds), "models": max(memory[1:]), "linear": rule.linear}


def part_aggregate(linear: bool) -> dict[str, Any]:
    from zoo.federated.rules import create_rule, rule_names

    found = {}
    print(f"\naggregation, {CLIENTS} clients x 11 M parameters, {os.cpu_count()} threads")
    for name in rule_names():
        if create_rule(name).linear != linear:
            continue
        run = child(sys.executable, "aggregate", "--rule", name)
        found[name] = {"seconds": statistics.median(run["rounds"]), "models": run["models"], "linear": run["linear"]}
        row = found[name]
        print(f"  {name:18}{row['seconds']:7.3f} s {row['models']:6.2f} models beyond the updates", flush=True)
    if linear:
        print("  (bars: under 0.5 s, under 3 models)")
    return found


# ranks ------------------------------------------------------------------------------------------------------------


def child_ranks(rounds: int, devices: int) -> dict[str, Any] | None:
    torch.set_num_threads(1)
    watch = stopwatch(time.perf_counter)
    start = time.perf_counter()
    given = {"devices": devices, "strategy": "fed_ddp"} if devices > 1 else {}
    fit(learner(1), clients_data(), rounds, watch, **given)
    if int(os.environ.get("LOCAL_RANK", "0")):
        return None
    return {"total": time.perf_counter() - start, "rounds": watch.seconds}


def part_ranks(repeats: int) -> dict[str, Any]:
    """Two processes and one by turns, one thread each; wall-clock of later rounds."""
    found: dict[str, list[dict[str, Any]]] = {"one": [], "two": []}
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    print("\nranks, one thread each, wall-clock")
    for number in range(repeats):
        for name in ("one", "two") if number % 2 else ("two", "one"):
            found[name].append(child(sys.executable, "ranks", "--devices", "2" if name == "two" else "1", **threads))
            _show(f"ranks, {name}", found[name][-1])
    speedup = _ratio(found, lambda run: statistics.median(run["rounds"][1:]))
    print(f"  one / two: {speedup:.2f} (bar: at least 1.6)")
    return {**found, "speedup_of_two": speedup}


# Command line -----------------------------------------------------------------------------------------------------


def run_child(options: argparse.Namespace) -> None:
    answer = {
        "zoo": lambda: child_zoo(3),
        "flower": lambda: child_flower(3, options.folder),
        "aggregate": lambda: child_aggregate(options.rule, 11_000_000),
        "ranks": lambda: child_ranks(3, options.devices),
    }[options.child]()
    if answer is not None:
        options.answer.write_text(json.dumps(answer), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", default=sys.executable, help="a Python with flwr[simulation]")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=("zoo", "flower", "aggregate", "ranks"), help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rule", help=argparse.SUPPRESS)
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options)
        return
    results: dict[str, Any] = {"parts": {}}
    if options.out and options.out.is_file():
        results = json.loads(options.out.read_text(encoding="utf-8"))
    results["versions"] = {"torch": torch.__version__, "python": platform.python_version()}
    results["cores"] = os.cpu_count()
    for name in options.part:
        run = {
            "round": lambda: part_round(2 * options.repeats),
            "ray": lambda: part_ray(options.repeats, options.peer),
            "aggregate": lambda: part_aggregate(linear=True),
            "robust": lambda: part_aggregate(linear=False),
            "ranks": lambda: part_ranks(options.repeats),
        }[name]
        results["parts"][name] = run()
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Run by test_closed_network: every method with weights, in a process that cannot open a connection.

Prints one line per checkpoint, and one per entry that has none yet.
"""

from __future__ import annotations

import inspect
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

attempts: list[str] = []


def refuse(*args: Any, **kwargs: Any) -> Any:
    attempts.append(repr(args)[:200])
    raise OSError(101, f"this test allows no network: {args!r}")


socket.socket.connect = refuse  # type: ignore[method-assign]
socket.socket.connect_ex = refuse  # type: ignore[method-assign]
socket.socket.sendto = refuse  # type: ignore[method-assign]
socket.getaddrinfo = refuse
socket.create_connection = refuse


def data_for(name: str, entry: Any, model: Any) -> tuple[Any, Any]:
    """Few samples of the sizes that the weights were made for, and the model for their classes."""
    import zoo

    cls = entry.data_class()
    facts = cls().facts()
    small = {k: v for k, v in entry.tiny.get("data", {}).items() if k not in facts}
    classes = ("num_classes", "class_names")
    sizes = {k: model.init_args[k] for k in facts if k in model.init_args and k not in classes}
    known = inspect.signature(cls.__init__).parameters
    small |= {k: v for k, v in sizes.items() if k in known}
    try:
        data = zoo.datamodule(name, **small)
    except zoo.errors.BadInput:  # trained on a folder that is not here: fine-tune on the embedded data instead
        data = cls(**small)
    about = data.facts()
    if about.get("channels", sizes.get("channels")) != sizes.get("channels"):  # only something untrained takes these
        other = {k: about[k] for k in (*classes, *sizes) if k in about and k != "num_classes"}
        return data, zoo.load(name, weights=False, **other)
    if about.get("class_names") not in (None, model.class_names):
        model = zoo.load(name, class_names=about["class_names"])
    return data, model


def check(name: str, entry: Any, folder: Path) -> None:
    import lightning

    import zoo

    model = zoo.load(name)
    assert model.report.pinned
    assert not model.report.source.startswith("hub")
    data, model = data_for(name, entry, model)
    fake = data.fake(folder / name.replace(":", "-"))
    pictures = sorted(str(p) for p in fake.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    inputs = pictures[:2] if len(pictures) > 1 else list(model.example_input()[0][:2])
    assert len(model.predict(inputs)) == len(inputs) > 0
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(fast_dev_run=True, default_root_dir=str(folder), **quiet)
    trainer.fit(model, data)
    assert trainer.test(model, data, verbose=False)
    saved = zoo.save(model, folder / "saved" / name.replace(":", "-"))
    assert zoo.load(saved).report.sha256


def main() -> int:
    import logging

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    from zoo import index

    for entry in index.entries().values():
        ready = [t for t, w in entry.weights.items() if w.sha256 and index.bundled_path(w, entry).is_file()]
        for tag in ready:
            check(f"{entry.id}:{tag}", entry.tag(tag), Path(sys.argv[1]))
            print(f"{entry.id}:{tag} works")
        if not ready:
            print(f"{entry.id} has no bundled weights")
    assert not attempts, attempts
    return 0


if __name__ == "__main__":
    sys.exit(main())

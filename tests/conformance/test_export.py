"""C27, C28: exported and compiled models give the numbers of the module, for any batch size."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conformance.support import learned, tensors
from zoo.index import Entry


@pytest.fixture(scope="module", autouse=True)
def imports() -> None:
    """Import what exporting needs once, outside the entries' accounts."""
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401
    import torch._dynamo
    import torch._inductor

    torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))


def batches(model: Any) -> list[tuple[torch.Tensor, ...]]:
    """Inputs of other batch sizes and values than the export saw."""
    args = model.example_input()
    three = tuple(torch.cat([a[:1], a[:1].flip(-1), a[:1]]) for a in args)
    return [tuple(a[:1] for a in args), three]


def expect_equal(got: Any, wanted: Any) -> None:
    """Same shapes, and numbers within 1e-4 relative to their size."""
    got, wanted = tensors(got), tensors(wanted)
    assert len(got) == len(wanted)
    for left, right in zip(got, wanted, strict=True):
        np.testing.assert_allclose(left.detach().numpy(), right.detach().numpy(), rtol=1e-3, atol=1e-4)


def test_c27_export(export_entry: Entry, folder: Path) -> None:
    model, _ = learned(export_entry, folder)
    model.train()
    path = model.export_program(folder / "model.pt2")
    assert model.training, "exporting leaves the mode as it was"
    program = torch.export.load(str(path)).module()
    model.eval()
    for args in batches(model):
        with torch.no_grad():
            expect_equal(program(*args), model(*args))


@pytest.mark.filterwarnings("ignore")
def test_c27_onnx(onnx_entry: Entry, folder: Path) -> None:
    import onnxruntime

    model, _ = learned(onnx_entry, folder)
    model.eval()
    path = model.export_onnx(folder / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = [i.name for i in session.get_inputs()]
    assert inputs == list(inspect.signature(model.forward).parameters)[: len(inputs)]
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["zoo"]) == onnx_entry.id
    assert json.loads(about.get("class_names", "[]")) == model.class_names
    if outputs := getattr(model, "output_names", None):
        assert [o.name for o in session.get_outputs()] == list(outputs)
    for args in batches(model):
        got = session.run(None, {name: a.numpy() for name, a in zip(inputs, args, strict=True)})
        with torch.no_grad():
            expect_equal(got, model(*args))


def compiled(entry: Entry, folder: Path, backend: str) -> None:
    """Compare with eager mode."""
    model, _ = learned(entry, folder)
    model.eval()
    torch.compiler.reset()
    model.trainer = None
    fast = torch.compile(model.forward, backend=backend, dynamic=True)
    args = batches(model)[1]
    with torch.no_grad():
        expect_equal(fast(*args), model(*args))


def test_c28_compile(compile_entry: Entry, folder: Path) -> None:
    compiled(compile_entry, folder, "eager")  # what differs is the capture; the slow test generates code


@pytest.mark.slow
def test_c28_compile_with_inductor(compile_entry: Entry, folder: Path) -> None:
    compiled(compile_entry, folder, "inductor")

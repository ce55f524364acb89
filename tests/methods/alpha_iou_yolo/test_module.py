"""The detector: sizes, total loss, predictions in the user's pixels, COCO parity, backbones, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from zoo.base.detector import best_boxes
from zoo.errors import BadInput, InvalidConfig, UnknownName
from zoo.methods.alpha_iou_yolo.module import AlphaIoUYOLO, DetectorNetwork, Targets, alpha_iou_loss, assign
from zoo.nn.metrics import MAP


def small(**changes) -> AlphaIoUYOLO:
    torch.manual_seed(0)
    return AlphaIoUYOLO(**{"num_classes": 4, "size": "p", "img_size": 64, **changes})


def objects(images: int = 2, classes: int = 4) -> Targets:
    boxes = [torch.tensor([[4.0, 4, 30, 40], [20.0, 20, 60, 60]])] + [torch.zeros(0, 4)] * (images - 1)
    labels = [torch.tensor([1, classes - 1])] + [torch.zeros(0, dtype=torch.int64)] * (images - 1)
    return Targets.pad(boxes, labels, torch.device("cpu"))


@pytest.mark.parametrize(
    ("size", "million", "gmac"),
    [("p", 0.48, 0.59), ("n", 1.87, 2.23), ("s", 8.97, 13.1), ("m", 25.3, 36.4), ("l", 54.2, 77.1)],
)
def test_published_sizes(size: str, million: float, gmac: float) -> None:
    """Parameters at K = 80 and multiply-adds at 640 px of every size."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = DetectorNetwork(80, size).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            features = network.neck(network.backbone(torch.zeros(1, 3, 640, 640)))
            for head, feature in zip(network.head, features, strict=True):
                head(feature)
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    assert parameters == pytest.approx(million, rel=0.01)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=0.01)


def test_forward_returns_decoded_boxes_and_scores() -> None:
    module = small().eval()
    boxes, scores = module(torch.rand(2, 3, 64, 96))
    points = 64 * 96 // 64 + 64 * 96 // 256 + 64 * 96 // 1024
    assert boxes.shape == (2, points, 4)
    assert scores.shape == (2, points, 4)
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    assert (scores >= 0).all()
    assert (scores <= 1).all()


@pytest.mark.parametrize("assigner", ["tal", "center"])
@pytest.mark.parametrize("kind", ["iou", "ciou"])
def test_total_loss_is_the_equation(assigner: str, kind: str) -> None:
    """0.5 BCE / N + 5 sum q L_box / N, with the class targets written out."""
    module = small(loss=kind, alpha=3.0)
    found = module.raw(torch.rand(2, 3, 64, 64))
    targets = objects()
    plan = assign(found, targets, assigner)
    wanted = torch.zeros_like(found["logits"])
    box_loss = torch.zeros(())
    for image, point in plan.positive.nonzero().tolist():
        g = int(plan.owner[image, point])
        wanted[image, point, targets.labels[image, g]] = plan.quality[image, point]
        pair = alpha_iou_loss(found["boxes"][image, point], targets.boxes[image, g], kind, 3.0)
        box_loss = box_loss + plan.weight[image, point] * pair
    count = plan.positive.sum() if assigner == "center" else plan.quality.sum()
    count = count.clamp(min=1)
    bce = F.binary_cross_entropy_with_logits(found["logits"], wanted, reduction="sum")
    assert torch.allclose(
        module.loss(found, targets, assigner)["loss"], 0.5 * bce / count + 5 * box_loss / count, rtol=1e-4
    )


def test_images_without_objects_train() -> None:
    module = small()
    empty = Targets.pad([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2, torch.device("cpu"))
    loss = module.loss(module.raw(torch.rand(2, 3, 64, 64)), empty, "tal")["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


def test_powered_quality_lowers_the_class_targets_of_inexact_boxes() -> None:
    plain, powered = small(quality="iou"), small(quality="powered")
    found = plain.raw(torch.rand(2, 3, 64, 64))
    targets = objects()
    assert powered.loss(found, targets, "center")["class"] != plain.loss(found, targets, "center")["class"]
    one = small(quality="powered", alpha=1.0)
    assert torch.allclose(one.loss(found, targets, "center")["class"], plain.loss(found, targets, "center")["class"])


def test_half_precision_keeps_the_loss_in_float32() -> None:
    module = small()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = module.loss(module.raw(torch.rand(2, 3, 64, 64)), objects(), "tal")
    assert parts["loss"].dtype == torch.float32
    assert torch.isfinite(parts["loss"])


def test_predict_takes_what_people_have_and_answers_in_their_pixels(tmp_path: Path) -> None:
    module = small(class_names=["cat", "dog", "owl", "fox"]).eval()
    array = np.random.default_rng(0).integers(0, 255, (50, 90, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "picture.png")
    inputs = [
        str(tmp_path / "picture.png"),
        tmp_path / "picture.png",
        Image.fromarray(array),
        array,
        torch.from_numpy(array).permute(2, 0, 1),
        array.astype(np.float32) / 255,
    ]
    results = module.predict(inputs, threshold=0.0, batch_size=3)
    assert len(results) == len(inputs)
    for result in results:
        assert result["boxes"].shape[1] == 4
        assert len(result["names"]) == len(result["scores"]) <= 100
        assert (result["boxes"][:, 0::2] <= 90).all()
        assert (result["boxes"][:, 1::2] <= 50).all()
        assert (result["scores"].diff() <= 0).all()
        assert set(result["names"]) <= {"cat", "dog", "owl", "fox"}
        assert torch.allclose(result["boxes"], results[0]["boxes"], atol=0.5)
    picture = module.show(array, results[0])
    assert isinstance(picture, Image.Image)
    assert picture.size[0] % 90 == 0
    assert module.predict(array)[0].keys() == results[0].keys()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("missing.jpg", "missing.jpg"),
        (np.zeros((4, 4, 7)), "array"),
        (np.full((4, 4, 3), 9.0), r"\[0, 1\]"),
        (np.full((4, 4, 3), np.nan), r"\[0, 1\]"),
        ({"image": 1}, "dict"),
        (torch.zeros(4, 4), "tensor"),
    ],
)
def test_bad_inputs_are_named(item, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        small().predict([item])


def test_a_misspelt_option_of_predict_is_answered_with_the_right_one() -> None:
    with pytest.raises(BadInput, match="'threshold'"):
        small().predict(np.zeros((8, 8, 3), np.uint8), treshold=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "giuo"}, "giou"),
        ({"size": "xl"}, "size"),
        ({"alpha": 0.0}, "positive"),
        ({"class_names": ["a"]}, "1 class_names"),
        ({"img_size": 100}, "multiple"),
        ({"assigner": "simota"}, "assigner"),
        ({"schedule_span": [0.5, 0.2]}, "schedule_span"),
        ({"freeze": ["network.backbon"]}, "network"),
        ({"pretrained_backbone": True}, "timm"),
        ({"backbone": "resnet1"}, "resnet18"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_bad_arguments_are_named(changes: dict, message: str) -> None:
    with pytest.raises((BadInput, UnknownName, InvalidConfig), match=message):
        small(**changes)


def test_forward_refuses_sizes_that_do_not_fit() -> None:
    with pytest.raises(BadInput, match="multiples of 32"):
        small()(torch.zeros(1, 3, 64, 70))


def test_suppression_is_per_class_and_keeps_the_best() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [40, 40, 50, 50]]])
    scores = torch.tensor([[[0.9, 0.0], [0.8, 0.0], [0.0, 0.7], [0.6, 0.0]]])
    batch = {"scale": torch.ones(1), "pad": torch.zeros(1, 2), "size": torch.tensor([[64, 64]])}
    (found,) = best_boxes(boxes, scores, batch, threshold=0.1)
    assert found["labels"].tolist() == [0, 1, 0]
    assert found["scores"].tolist() == pytest.approx([0.9, 0.7, 0.6])


def test_metric_equals_pycocotools(tmp_path: Path) -> None:
    """Our evaluation of random detections against pycocotools reading the files of `to_coco`."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(1)
    images, annotations, results = [], [], []
    metric = MAP()
    for i in range(40):
        n = int(rng.integers(0, 6))
        corner = rng.uniform(0, 150, (n, 2))
        true = np.concatenate([corner, corner + rng.uniform(5, 120, (n, 2))], 1).astype(np.float32)
        labels = rng.integers(0, 3, n)
        wrong = rng.random(n) < 0.2
        seen = np.concatenate([true + rng.normal(0, 3, true.shape), rng.uniform(0, 90, (2, 4)).cumsum(1)]).astype(
            np.float32
        )
        seen_labels = np.concatenate([np.where(wrong, (labels + 1) % 3, labels), rng.integers(0, 3, 2)])
        scores = rng.random(n + 2).astype(np.float32)
        images.append({"id": i + 1, "width": 300, "height": 300})
        for box, label in zip(true, labels, strict=True):
            x1, y1, x2, y2 = map(float, box)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i + 1, "category_id": int(label) * 5 + 2, "iscrowd": 0,
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            )  # fmt: skip
        predicted = {"boxes": torch.tensor(seen), "scores": torch.tensor(scores), "labels": torch.tensor(seen_labels)}
        results += AlphaIoUYOLO.to_coco([predicted], [i + 1], category_ids=[2, 7, 12])
        metric.update(torch.tensor([i]), [predicted], [{"boxes": torch.tensor(true), "labels": torch.tensor(labels)}])
    categories = [{"id": c, "name": str(c)} for c in (2, 7, 12)]
    (tmp_path / "true.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    truth = coco.COCO(str(tmp_path / "true.json"))
    judge = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
    judge.evaluate(), judge.accumulate(), judge.summarize()
    ours = metric.compute(["a", "b", "c"])
    assert 0.1 < ours["map"] < 0.9
    for key, place in (("map", 0), ("map_50", 1), ("map_75", 2), ("map_small", 3), ("map_medium", 4), ("mar_100", 8)):
        assert ours[key] == pytest.approx(judge.stats[place], abs=1e-6)
    for place, name in enumerate("abc"):
        own = judge.eval["precision"][:, :, place, 0, -1]
        assert ours[f"map/{name}"] == pytest.approx(own[own > -1].mean(), abs=1e-6)
    precision = judge.eval["precision"][5:, :, :, 0, -1]
    assert ours["map_75_95"] == pytest.approx(precision[precision > -1].mean(), abs=1e-6)


def test_metric_without_objects_or_images() -> None:
    metric = MAP()
    assert metric.compute()["map"] == -1.0
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    metric.update(torch.tensor([0]), [nothing], [{k: nothing[k] for k in ("boxes", "labels")}])
    assert metric.compute(["a"])["map"] in (-1.0, 0.0)
    box = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([0])}
    metric.update(torch.tensor([1]), [{**box, "scores": torch.ones(1)}], [box])
    values = metric.compute(["a", "b"])
    assert values["map"] == values["map_small"] == values["map/a"] == pytest.approx(1.0)
    assert not {"map_medium", "map_large", "map/b"} & set(values)  # none, and not as bad as -1


def test_timm_backbone_takes_weights_from_a_file(tmp_path: Path) -> None:
    """By name, and by order for a file in another library's layout of the same network; others are refused."""
    import timm
    from safetensors.torch import save_file

    name = "mobilenetv3_small_050"
    source = timm.create_model(name, features_only=True, out_indices=(2, 3, 4))
    state = {k: v.contiguous() for k, v in source.state_dict().items()}
    save_file(state, str(tmp_path / "named.safetensors"))
    torch.save({f"features.{i}": v for i, v in enumerate(state.values())}, tmp_path / "ordered.pth")
    small_net = dict(list(state.items())[:5])
    save_file(small_net, str(tmp_path / "other.safetensors"))
    for file in ("named.safetensors", "ordered.pth"):
        module = small(backbone=name, backbone_weights=str(tmp_path / file))
        assert all(torch.equal(v, state[k]) for k, v in module.network.backbone.body.state_dict().items())
    assert module(torch.rand(1, 3, 64, 64))[0].shape == (1, 84, 4)
    with pytest.raises(BadInput, match=r"other\.safetensors"):
        small(backbone=name, backbone_weights=str(tmp_path / "other.safetensors"))
    with pytest.raises(BadInput, match="no file"):
        small(backbone=name, backbone_weights=str(tmp_path / "absent.pth"))


def test_a_backbone_without_the_strides_is_refused() -> None:
    with pytest.raises((InvalidConfig, UnknownName), match="vit_tiny_patch16_224"):
        small(backbone="vit_tiny_patch16_224")


def test_frozen_backbone_keeps_its_statistics() -> None:
    module = small(freeze=["network.backbone"]).train()
    before = {k: v.clone() for k, v in module.network.backbone.state_dict().items()}
    module.raw(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in module.network.backbone.state_dict().items())
    assert module.network.neck.training
    assert not module.network.backbone.training


@pytest.mark.parametrize(
    ("span", "first", "last"), [(None, 0.0, 0.01), ([0.0, 0.6], 0.0, 0.35), ([0.6, 1.0], 0.35, 0.01)]
)
def test_schedule_rises_falls_and_can_be_cut_into_parts(span, first: float, last: float) -> None:
    class Stub:
        estimated_stepping_batches = 100

    module = small(schedule_span=span, lr=1.0)
    module._trainer = Stub()  # type: ignore[assignment]
    made = module.configure_optimizers()
    rates = []
    for _ in range(100):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    rates.append(made["optimizer"].param_groups[0]["lr"])
    assert rates[0] == pytest.approx(first, abs=0.35 if first == 0 else 0.03)
    assert rates[-1] == pytest.approx(last, abs=0.03)
    peak = int(np.argmax(rates))
    assert all(a >= b for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))
    decays = {group["weight_decay"]: {p.ndim for p in group["params"]} for group in made["optimizer"].param_groups}
    assert decays[0.0] <= {0, 1}
    assert decays[module.hparams["weight_decay"]] == {4}


@pytest.mark.slow
def test_memory_of_a_training_step() -> None:
    """Batch 32, 160 px, size n: under 2 GiB in all, interpreter and libraries included."""
    code = (
        "import resource, torch\n"
        "from zoo.methods.alpha_iou_yolo.module import AlphaIoUYOLO, Targets\n"
        "m = AlphaIoUYOLO(10, size='n').train(); o = torch.optim.AdamW(m.parameters())\n"
        "t = Targets.pad([torch.tensor([[9., 9, 60, 70]])] * 32, [torch.tensor([1])] * 32, torch.device('cpu'))\n"
        "for _ in range(3):\n"
        "    o.zero_grad(); m.loss(m.raw(torch.rand(32, 3, 160, 160)), t, 'tal')['loss'].backward(); o.step()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.0

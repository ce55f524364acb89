"""What leaves the machine when something is shared: every byte that the Hub receives is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import LoopbackHub
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file
from toys import hub as toys

import zoo
from zoo import errors
from zoo.store.outgoing import check_private, private_place

OWNER = "token-of-owner"
KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.fixture(autouse=True)
def toy() -> None:
    zoo.register(toys.entry())


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder as people keep it: keys, and a picture that is nobody's business."""
    folder = tmp_path / "user" / ".ssh"
    folder.mkdir(parents=True)
    (folder / "id_rsa").write_bytes(KEY)
    (folder / "known_hosts").write_bytes(b"private-host ssh-rsa AAAA")
    Image.new("RGB", (3, 3), (1, 2, 3)).save(folder / "scan.png")
    return folder


@pytest.fixture
def handed(tmp_path: Path) -> Path:
    """A folder that somebody else made, with a picture."""
    folder = zoo.save(toys.trained(), tmp_path / "handed")
    (folder / "images").mkdir()
    Image.new("RGB", (4, 4), (200, 0, 0)).save(folder / "images" / "output.png")
    return folder


def link(place: Path, target: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def link_to_same(folder: Path, name: str) -> None:
    """The right bytes behind a link: still refused, for what it leads to may change."""
    kept = folder.parent / f"kept-{name}"
    (folder / name).rename(kept)
    link(folder / name, kept)


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "the folder of pictures": lambda f, s: link(f / "images", s),
    "a picture": lambda f, s: link(f / "images" / "output.png", s / "id_rsa"),
    "a picture that is one": lambda f, s: link(f / "images" / "output.png", s / "scan.png"),
    "golden outputs": lambda f, s: link(f / "golden.safetensors", s / "id_rsa"),
    "right golden outputs": lambda f, s: link_to_same(f, "golden.safetensors"),
    "right config": lambda f, s: link_to_same(f, "config.json"),
    "right weights": lambda f, s: link_to_same(f, "model.safetensors"),
    "weights": lambda f, s: link(f / "model.safetensors", s / "id_rsa"),
    "a link to itself": lambda f, s: link(f / "golden.safetensors", f / "golden.safetensors"),
}

FILES: dict[str, Callable[[Path, Path], None]] = {
    "a key among the pictures": lambda f, s: shutil.copy(s / "id_rsa", f / "images"),
    "a key called picture": lambda f, s: shutil.copy(s / "id_rsa", f / "images" / "key.png"),
    "a hard link called picture": lambda f, s: os.link(s / "id_rsa", f / "images" / "key.png"),
    "a hard link called golden": lambda f, s: (
        (f / "golden.safetensors").unlink(),
        os.link(s / "id_rsa", f / "golden.safetensors"),
    ),
    "a folder among the pictures": lambda f, s: shutil.copytree(s, f / "images" / "more"),
    "a pipe among the pictures": lambda f, s: os.mkfifo(f / "images" / "pipe.png"),
    "a pipe for golden outputs": lambda f, s: (
        (f / "golden.safetensors").unlink(),
        os.mkfifo(f / "golden.safetensors"),
    ),
    "golden outputs of other weights": lambda f, s: shutil.copy(
        zoo.save(toys.trained(5), f.parent / "other") / "golden.safetensors", f
    ),
    "golden outputs without inputs": lambda f, s: save_file({"output": torch.zeros(2, 3)}, f / "golden.safetensors"),
    "no golden outputs": lambda f, s: (f / "golden.safetensors").unlink(),
}


@pytest.mark.parametrize("case", [*LINKS, *FILES])
def test_nothing_of_a_crafted_folder_is_sent(hub: LoopbackHub, handed: Path, secrets: Path, case: str) -> None:
    {**LINKS, **FILES}[case](handed, secrets)
    with pytest.raises(errors.ZooError):
        zoo.push(handed, "owner/mine", endpoint=hub.url, token=OWNER)
    assert not hub.requests
    assert not hub.state.repos


def test_files_that_are_not_ours_stay(hub: LoopbackHub, handed: Path, secrets: Path) -> None:
    """Whatever else lies in the folder, and what travels inside a picture."""
    link(handed / "id_rsa", secrets / "id_rsa")
    (handed / "notes.txt").write_bytes(KEY)
    (handed / ".env").write_text("SECRET=quite-private")
    (handed / "README.md").write_text("quite-private")
    about = PngImagePlugin.PngInfo()
    about.add_text("Comment", "quite-private /home/somebody")
    picture = handed / "images" / "output.png"
    Image.new("RGB", (4, 4), (9, 8, 7)).save(picture, pnginfo=about)
    picture.write_bytes(picture.read_bytes() + KEY)
    exif = Image.Exif()
    exif[0x010E] = "quite-private"
    Image.new("RGB", (8, 8), (9, 8, 7)).save(handed / "images" / "photo.jpg", exif=exif, comment="quite-private")
    done = zoo.push(handed, "owner/mine", endpoint=hub.url, token=OWNER)
    sent = hub.received()
    for private in (KEY[40:60], b"OPENSSH", b"quite-private", b"/home/somebody", b"private-host"):
        assert private not in sent, private
    tree = hub.state.repos["owner/mine"].commits[str(done.hub.revision)]
    own = {"README.md", "config.json", "golden.safetensors", "model.safetensors"}
    assert set(tree) == {".gitattributes", "images/output.png", "images/photo.jpg"} | own
    (handed / "sent.png").write_bytes(tree["images/output.png"])
    with Image.open(handed / "sent.png") as shown:
        assert shown.convert("RGB").getpixel((2, 2)) == (9, 8, 7)


# What a config says about this machine ----------------------------------------------------------------------------


class Student(toys.ToyNet):
    """A method that names another network and may name a file."""

    references = ("teacher_name",)

    def __init__(
        self,
        teacher_name: str | None = None,
        notes: str | None = None,
        place: str = "",
        num_classes: int = 3,
        class_names: list[str] | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes)


@pytest.fixture
def student() -> None:
    zoo.register(toys.entry(name="student", cls=Student))


def pushed(hub: LoopbackHub, module: Any) -> dict[str, Any]:
    done = zoo.push(module, "owner/mine", endpoint=hub.url, token=OWNER)
    tree = hub.state.repos["owner/mine"].commits[str(done.hub.revision)]
    found: dict[str, Any] = json.loads(tree["config.json"])
    return found


@pytest.mark.parametrize("name", ["", "nothing-here.ckpt"])
def test_paths_of_this_machine_stay(
    hub: LoopbackHub, student: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    module = Student(teacher_name=f"{tmp_path}/{name}", notes=f"made from {tmp_path}/data", class_names=list("abc"))
    module.data_facts = {"root": str(tmp_path), "channels": 3}
    config = pushed(hub, module)
    assert config["init"]["teacher_name"] is config["init"]["notes"] is None
    assert config["facts"] == {"channels": 3}
    assert str(tmp_path).encode() not in hub.received()
    assert all(word in caplog.text for word in ("init.teacher_name", "init.notes", "facts.root"))
    assert zoo.load("hf://owner/mine", endpoint=hub.url, token=OWNER).class_names == ["a", "b", "c"]


def test_relative_file_of_a_reference_stays(
    hub: LoopbackHub, student: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pushed(hub, Student(teacher_name="runs/last.ckpt"))["init"]["teacher_name"] is None
    assert pushed(hub, Student(teacher_name="toy-net:small"))["init"]["teacher_name"] == "toy-net:small"
    assert pushed(hub, Student(teacher_name="hf://owner/repo"))["init"]["teacher_name"] == "hf://owner/repo"


@pytest.mark.parametrize(
    "changes",
    [
        {"place": "/etc/passwd"},
        {"place": "~/weights.pth"},
        {"place": r"C:\Users\somebody\weights.pth"},
        {"place": "hf_abcdefghijklmnopqrstuvwxyz"},
        {"place": f"see {OWNER}"},
        {"place": KEY.decode()},
        {"place": "https://somebody:password@example.org/x"},
        {"notes": "ghp_abcdefghijklmnopqrstuvwxyz0123456789"},
        {"class_names": ["a", "b", "file:///etc/passwd"]},
        {"class_names": ["a", "b", "AKIAABCDEFGHIJKLMNOP"]},
    ],
    ids=lambda c: str(c)[:40],
)
def test_secrets_and_places_that_are_needed_are_refused(
    hub: LoopbackHub, student: None, changes: dict[str, Any]
) -> None:
    with pytest.raises(errors.UnsafeFile) as caught:
        zoo.push(Student(**changes), "owner/mine", endpoint=hub.url, token=OWNER)
    assert not hub.requests
    for value in changes.values():  # a token is not repeated on the terminal
        if "/" not in value and "\\" not in value:
            assert str(value) not in str(caught.value)


def test_saved_login_is_a_secret_too(
    hub: LoopbackHub, student: None, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", OWNER)
    with pytest.raises(errors.UnsafeFile, match="token"):
        zoo.push(Student(place=f"({OWNER})"), "owner/mine", endpoint=hub.url)
    assert not hub.requests


def test_what_looks_like_a_path_and_is_none() -> None:
    for text in (
        "/m/01g317",
        "and/or",
        "3/4",
        "timm/resnet18",
        "https://example.org/a",
        "http://x.y/etc/z",
        "1:/2",
        "/",
    ):
        assert private_place(text) is None, text
        check_private(text, "here")
    for text in (
        "/etc/x",
        "in /tmp/y.",
        "(/usr/lib)",
        "~/x",
        "D:/data",
        r"\\server\share",
        "file:///home",
        "root=/etc/x",
    ):
        assert private_place(text) is not None, text


def rewritten(folder: Path, name: str, more: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Add tensors or metadata to a file, and the right hash to the config."""
    save_file({**load_file(folder / name), **more}, folder / name, metadata)
    config = json.loads((folder / "config.json").read_text())
    config["sha256"]["model.safetensors"] = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("name", "more", "metadata"),
    [
        ("model.safetensors", {"teacher.notes": torch.zeros(1)}, None),
        ("model.safetensors", {}, {"made": "in /etc/x"}),
        ("model.safetensors", {}, {"token": OWNER}),
        ("golden.safetensors", {"notes": torch.zeros(1)}, None),
        ("golden.safetensors", {}, {"made": "in /etc/x"}),
        ("golden.safetensors", {"input.7": torch.zeros(1)}, None),
    ],
)
def test_what_is_hidden_in_tensor_files(
    hub: LoopbackHub, handed: Path, name: str, more: dict[str, torch.Tensor], metadata: dict[str, str] | None
) -> None:
    rewritten(handed, name, more, metadata)
    with pytest.raises((errors.UnsafeFile, errors.CorruptFile)):
        zoo.push(handed, "owner/mine", endpoint=hub.url, token=OWNER)
    assert not hub.requests


# Publishing from a checkout ---------------------------------------------------------------------------------------


@pytest.fixture
def card(tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one checkpoint and its card; returns the card's folder."""
    from test_share import TAG, TOYS, move_index

    data = (zoo.save(toys.trained(0), tmp_path / "saved") / "model.safetensors").read_bytes()
    text = TOYS.format(tags=TAG.format(number=0, width=4, sha256=sha256(data).hexdigest(), bytes=len(data)))
    path = move_index(tmp_path / "index", text, {"toy-net-tag-0.safetensors": data}, monkeypatch)
    folder = path.parent / "model_cards" / "toy-net"
    (folder / "images").mkdir(parents=True)
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "tag-0.yaml").write_text("- dataset: {id: owner/cats, task_id: acc}\n  value: 0.5\n")
    (folder / "README.md").write_text("# toy-net\n")
    Image.new("RGB", (4, 4)).save(folder / "images" / "output.png")
    return folder


def publish(hub: LoopbackHub) -> Any:
    return zoo.publish(namespace="owner", endpoint=hub.url, token=OWNER)[0]


def moved(folder: Path) -> None:
    elsewhere = folder.parents[2] / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


CARDS: dict[str, Callable[[Path, Path], None]] = {
    "pictures": lambda c, s: link(c / "images", s),
    "a picture": lambda c, s: link(c / "images" / "output.png", s / "scan.png"),
    "another file": lambda c, s: shutil.copy(s / "id_rsa", c / "images"),
    "the text": lambda c, s: link(c / "README.md", s / "known_hosts"),
    "the numbers": lambda c, s: link(c / ".eval_results" / "tag-0.yaml", s / "id_rsa"),
    "the folder of numbers": lambda c, s: (
        shutil.copy(c / ".eval_results" / "tag-0.yaml", s),
        link(c / ".eval_results", s),
    ),
    "a path in the text": lambda c, s: (c / "README.md").write_text(f"made in {s}/x"),
    "a token in the text": lambda c, s: (c / "README.md").write_text("hf_abcdefghijklmnopqrstuvwxyz"),
    "a token in the numbers": lambda c, s: (c / ".eval_results" / "tag-0.yaml").write_text(f"- {OWNER}"),
    "the whole card": lambda c, s: moved(c),
    "all cards": lambda c, s: moved(c.parent),
}


@pytest.mark.parametrize("case", CARDS)
def test_publish_sends_nothing_of_a_crafted_card(hub: LoopbackHub, card: Path, secrets: Path, case: str) -> None:
    CARDS[case](card, secrets)
    row = publish(hub)
    assert not row.ok
    assert {method for method, _ in hub.requests} <= {"GET"}
    assert not hub.state.repos


def test_publish_sends_a_card_as_it_is(hub: LoopbackHub, card: Path) -> None:
    row = publish(hub)
    assert row.ok, row
    tree = hub.state.repos["owner/toy-net-tag-0"].commits
    (sent,) = [files for files in tree.values() if "README.md" in files]
    assert {"README.md", "images/output.png", ".eval_results/tag-0.yaml"} < set(sent)
    assert str(card).encode() not in hub.received()
    assert b"/tmp/" not in hub.received()


def test_our_own_cards_may_leave(checkout: Path) -> None:
    """A rule that refuses one of our own cards would be found out at the next release only."""
    from zoo.store.outgoing import picture_files, text_file

    for folder in sorted((checkout / "model_cards").iterdir()):
        assert text_file(folder / "README.md")
        assert not (folder / "images").is_dir() or picture_files(folder / "images")

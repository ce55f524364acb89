"""Simulated heartbeats and recordings: shapes of the classes, who is in which split, scaling, and broken files."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.beats import AAMI, DS1, DS2, BeatsDataModule
from datamodules.beats.records import patient_of, share_records
from datamodules.worlds import ecg_beats as world
from zoo.errors import BadData, BadInput, MissingExtra, RepositoryNotFound

SMALL: dict[str, Any] = {"train_size": 60, "val_size": 20, "test_size": 20, "beats_per_patient": 10}


def quiet_patient(seed: int = 0) -> world.Patient:
    """A patient without noise."""
    drawn = world.draw_patient(np.random.default_rng(seed))
    return world.Patient(drawn.rr, drawn.waves, drawn.wide, (0.0, 0.0, 0.0, 0.0, 50.0))


def read_all(data: BeatsDataModule) -> None:
    """Every split."""
    for split in ("train", "val", "test"):
        data.split(split)


# The simulator ----------------------------------------------------------------------------------------------------


def test_patients_follow_the_stated_ranges() -> None:
    for seed in range(50):
        patient = world.draw_patient(np.random.default_rng(seed))
        wide, narrow = patient.wide, patient.waves
        assert 60 / 95 <= patient.rr <= 60 / 55
        assert 2.5 <= wide[world.R, 2] / narrow[world.R, 2] <= 3.0
        assert wide[world.P, 0] == 0
        assert np.sign(wide[world.T, 0]) == -np.sign(wide[world.R, 0]), "T is opposite to R in ventricular beats"


def test_rhythm_and_shares() -> None:
    made = world.ecg_recording(quiet_patient(), 4000, np.random.default_rng(1))
    shares = np.bincount(made.labels, minlength=4) / 4000
    np.testing.assert_allclose(shares, world.SHARES, atol=0.02)
    follows_v = np.r_[False, made.labels[:-1] == 2]
    usual = made.rr[(made.labels == 0) & ~follows_v].mean()
    for label, low, high in ((1, 0.6, 0.8), (2, 0.55, 0.75), (3, 0.85, 1.0)):
        ratio = made.rr[(made.labels == label) & ~follows_v] / usual
        assert low - 0.12 < ratio.min() < ratio.max() < high + 0.12
        assert ratio.mean() == pytest.approx((low + high) / 2, abs=0.03)
    assert made.rr[(made.labels == 0) & follows_v].mean() / usual == pytest.approx(1.25, abs=0.03)
    # the first beat has none before it; the others' RR is the distance of the peaks
    np.testing.assert_allclose(np.diff(made.peaks) / made.rate, made.rr[1:], atol=1.01 / made.rate)


def test_a_recording_is_the_sum_of_its_gaussians() -> None:
    """Literal reference: every wave of every beat, over the whole recording."""
    made = world.ecg_recording(quiet_patient(3), 6, np.random.default_rng(2))
    time = np.arange(len(made.signal)) / made.rate
    total = np.zeros(len(time))
    for peak, waves, rr in zip(made.peaks, made.waves, made.rr, strict=True):
        for number, (amplitude, place, width) in enumerate(waves):
            if number % 5 == world.T:
                place *= np.sqrt(min(max(float(rr), 0.4), 1.5) / 0.8)
            total += amplitude * np.exp(-0.5 * ((time - peak / made.rate - place) / width) ** 2)
    np.testing.assert_allclose(made.signal, total, atol=2e-3)  # a wave ends 0.75 s from its beat


def test_fusion_beats_are_a_mean_of_both_shapes() -> None:
    patient, rng = quiet_patient(), np.random.default_rng(0)
    for _ in range(50):
        waves = world.waves_of(patient, 3, rng)
        shares = waves[world.R, 0] / patient.waves[world.R, 0], waves[5 + world.R, 0] / patient.wide[world.R, 0]
        assert min(shares) > 0.2
        assert max(shares) < 0.9
        assert sum(shares) == pytest.approx(1, abs=0.25)  # amplitudes of single beats vary by 6 %
    assert not world.waves_of(patient, 2, rng)[:5, 0].any()
    assert not world.waves_of(patient, 0, rng)[5:, 0].any()


def test_beats_are_centred_on_the_peak_and_seeded() -> None:
    made = world.ecg_beats(40, (5, 1), beats_per_patient=20)
    assert made["beat"].shape == (40, 280)
    normal = made["beat"][made["label"] == 0]
    middle = np.abs(normal - np.median(normal, 1, keepdims=True))[:, 130:150].argmax(1) + 130
    assert np.abs(middle - 140).max() <= 2
    again, other = world.ecg_beats(40, (5, 1), beats_per_patient=20), world.ecg_beats(40, (6, 1), beats_per_patient=20)
    assert all(np.array_equal(made[k], again[k]) for k in made)
    assert not np.array_equal(made["beat"], other["beat"])
    high = made["low"] + made["span"]
    assert (made["beat"] >= made["low"][:, None]).all()
    assert (made["beat"] <= high[:, None] + 1e-6).all()


# The data module --------------------------------------------------------------------------------------------------


def test_no_patient_is_in_two_splits() -> None:
    data = BeatsDataModule(**SMALL)
    seen = [{int(item["patient"]) for item in data.split(split)} for split in ("train", "val", "test")]  # type: ignore[attr-defined]
    assert [len(s) for s in seen] == [6, 2, 2]
    assert len(set.union(*seen)) == 10


def test_the_scaling_of_the_recording_gives_millivolts_back() -> None:
    data = BeatsDataModule(**SMALL)
    made = world.ecg_beats(60, (0, 0, 1), beats_per_patient=10)
    for number in (0, 17, 59):
        item: Any = data.split("train")[number]
        assert item["series"].min() >= 0
        assert item["series"].max() <= 1
        back = item["series"][0] * item["span"] + item["low"]
        np.testing.assert_allclose(back.numpy(), made["beat"][number], atol=1e-5)
        assert float(item["rr"]) == pytest.approx(float(made["rr"][number]))


def test_tables_and_arrays(tmp_path: Path) -> None:
    root = BeatsDataModule().fake(tmp_path)
    data = BeatsDataModule(str(root))
    assert data.facts() == {
        "num_classes": 4, "class_names": ["F", "N", "S", "V"], "channels": 1, "length": 280, "scaling": "beat"
    }  # fmt: skip
    for item in data.split("val"):  # type: ignore[attr-defined]
        assert (float(item["series"].min()), float(item["series"].max())) == pytest.approx((0, 1), abs=1e-6)
    x, y = world.ecg_beats(60, (1,))["beat"], np.arange(60) % 3
    own = BeatsDataModule.from_arrays((x, y), batch_size=8)
    assert own.facts()["num_classes"] == 3
    assert [len(own.split(s)) for s in ("train", "val", "test")] == [30, 9, 21]  # type: ignore[arg-type]
    x[5] = 0.25
    with pytest.raises(BadData, match="beat 5 is a flat line"):
        read_all(BeatsDataModule.from_arrays((x, y)))
    x[5, 7] = np.nan
    with pytest.raises(BadData, match=r"series 5.*missing"):
        BeatsDataModule.from_arrays((x, y)).facts()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rate": 10.0}, "rate"),
        ({"length": 3}, "length"),
        ({"target": "beat"}, "target"),
        ({"split": "inner"}, "split"),
        ({"format": "edf"}, "format"),
        ({"train_size": 0}, "train_size"),
        ({"val_share": 1.0}, "val_share"),
    ],
)
def test_arguments_are_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        BeatsDataModule(**given)


def test_format_and_folder_must_agree(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"set data\.root"):
        BeatsDataModule(format="wfdb").facts()
    with pytest.raises(BadInput, match="simulator reads no folder"):
        BeatsDataModule(str(tmp_path), format="simulator").facts()
    with pytest.raises(RepositoryNotFound, match=r"\.hea"):
        BeatsDataModule(str(tmp_path), format="wfdb").facts()


# Recordings -------------------------------------------------------------------------------------------------------


def test_the_split_of_mit_bih() -> None:
    assert len(DS1) == len(DS2) == 22
    assert not set(DS1) & set(DS2)
    assert not {"102", "104", "107", "217"} & {*DS1, *DS2}
    assert {c: AAMI.get(c) for c in "NLRejAaJSVEF/fQ"} == {
        **dict.fromkeys("NLRej", "N"), **dict.fromkeys("AaJS", "S"), "V": "V", "E": "V", "F": "F", "/": None,
        "f": None, "Q": None,
    }  # fmt: skip
    root = Path("mitdb")
    records = [root / name for name in sorted((*DS1, *DS2, "102"))]
    parts = {s: share_records(records, root, s, 0.2, 0) for s in ("train", "val", "test")}
    assert {r.name for r in parts["test"]} == set(DS2)
    assert {r.name for r in (*parts["train"], *parts["val"])} == set(DS1)
    assert not set(parts["train"]) & set(parts["val"])
    assert len(parts["val"]) == 4


def test_patients_with_several_recordings_stay_together() -> None:
    root = Path("ptbdb")
    records = [root / f"patient{p:03d}" / f"s{p}{k}" for p in range(12) for k in range(2)]
    parts = [share_records(records, root, s, 0.25, 0) for s in ("train", "val", "test")]
    people = [{patient_of(r, root) for r in part} for part in parts]
    assert [len(p) for p in people] == [7, 2, 3]
    assert sum(map(len, parts)) == len(records)
    assert len(set.union(*people)) == 12


def test_without_wfdb_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(MissingExtra, match=r"lightning-method-zoo\[medical\]"):
        BeatsDataModule().fake(tmp_path, format="wfdb")
    (tmp_path / "100.hea").write_text("100 1 360 10\n100.dat 212 200 11 1024 995 0 0 MLII\n")
    with pytest.raises(MissingExtra, match=r"lightning-method-zoo\[medical\]"):
        BeatsDataModule(str(tmp_path)).split("test")


@pytest.fixture(scope="module")
def mitdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of MIT-BIH."""
    pytest.importorskip("wfdb")
    return BeatsDataModule().fake(tmp_path_factory.mktemp("mitdb"), format="wfdb")


def test_recordings_are_read_as_they_were_made(mitdb: Path) -> None:
    from datamodules.beats.fake import _BEATS, _SHARES

    rng = np.random.default_rng((12, 0))  # of record 100
    made = world.ecg_recording(world.draw_patient(rng), _BEATS, rng, _SHARES)
    data = BeatsDataModule(str(mitdb))
    beats = data.split("test").beats  # type: ignore[attr-defined]
    mine = beats.patient == 0
    assert mine.sum() == _BEATS
    np.testing.assert_array_equal(beats.label[mine], made.labels)
    np.testing.assert_allclose(beats.rr[mine][1:], made.rr[1:], atol=1.01 / 360)
    cut, _ = world.cut_beats(made.signal, made.peaks)
    np.testing.assert_allclose(beats.beat[mine], cut, atol=2e-3)  # 12 bits
    assert data.facts()["scaling"] == "record"


def test_other_rates_are_resampled(mitdb: Path) -> None:
    half = BeatsDataModule(str(mitdb), rate=180.0, length=140).split("test").beats  # type: ignore[attr-defined]
    whole = BeatsDataModule(str(mitdb)).split("test").beats  # type: ignore[attr-defined]
    assert half.beat.shape == (48, 140)
    apart = [np.corrcoef(a, b[::2])[0, 1] for a, b in zip(half.beat, whole.beat, strict=True)]
    assert np.median(apart) > 0.97


def test_intra_patient_splits_share_patients_not_beats(mitdb: Path) -> None:
    data = BeatsDataModule(str(mitdb), split="intra")
    parts = [data.split(s).beats for s in ("train", "val", "test")]  # type: ignore[attr-defined]
    assert sum(len(p.beat) for p in parts) == 5 * 24
    assert set(parts[0].patient) & set(parts[2].patient)
    everything = np.concatenate([p.beat for p in parts])
    assert len(np.unique(everything, axis=0)) == len(everything)


def test_diagnoses(tmp_path: Path) -> None:
    pytest.importorskip("wfdb")
    root = BeatsDataModule(target="diagnosis").fake(tmp_path, format="wfdb")
    data = BeatsDataModule(str(root), target="diagnosis")
    assert data.facts()["class_names"] == ["normal", "abnormal"]
    for split in ("train", "val", "test"):
        beats = data.split(split).beats  # type: ignore[attr-defined]
        np.testing.assert_array_equal(beats.label, 1 - beats.patient % 2)  # the patients with odd numbers are well
        middle = np.abs(beats.beat - np.median(beats.beat, 1, keepdims=True)).argmax(1)
        assert abs(np.median(middle) - 140) <= 3, "beats are centred on detected peaks"
    header = next(root.rglob("*.hea"))
    header.write_text(header.read_text().replace("Reason", "Season"))
    with pytest.raises(BadData, match=f"{header.name}.*diagnosis"):
        read_all(BeatsDataModule(str(root), target="diagnosis"))


def flat(path: Path) -> None:
    """Replace the signals of a record by a constant."""
    path.write_bytes(b"\x00\x00\x00" * (path.stat().st_size // 3))


@pytest.mark.parametrize(
    ("name", "spoil", "told"),
    [
        ("100.atr", Path.unlink, r"100\.atr: annotations: expected a class for each beat, got no such file"),
        ("100.atr", lambda p: p.write_bytes(b"\0\0"), r"100\.atr"),
        ("100.dat", lambda p: p.write_bytes(p.read_bytes()[:3000]), r"100\.dat: content"),
        ("100.dat", Path.unlink, r"100\.dat: content"),
        ("100.dat", flat, r"100\.dat: MLII: expected an ECG, got a flat line"),
        ("100.hea", lambda p: p.write_text("nonsense"), r"100\.hea"),
        ("100.hea", lambda p: p.write_text(p.read_text().replace("100 2 360", "100 2 12")), r"100\.hea: rate"),
        ("100.hea", lambda p: p.write_text(p.read_text().replace("100.dat", "../100.dat")), r"100\.hea"),
    ],
)
def test_broken_recordings_are_named_together(mitdb: Path, tmp_path: Path, name: str, spoil: Any, told: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(mitdb, root)
    spoil(root / name)
    (root / "103.atr").unlink()
    with pytest.raises(BadData, match=told) as caught:
        BeatsDataModule(str(root)).split("test")
    assert "103.atr" in str(caught.value), "all problems at once"


def test_a_lead_that_is_not_there_is_named(mitdb: Path) -> None:
    with pytest.raises(BadData, match=r"leads: expected one called aVF, got MLII, V1"):
        BeatsDataModule(str(mitdb), lead="aVF").split("test")
    other = BeatsDataModule(str(mitdb), lead="v1").split("test").beats  # type: ignore[attr-defined]
    assert len(other.beat) == 48

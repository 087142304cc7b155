"""Checkpoints of torch.save: what training scripts write is read; nothing that a file says is ever run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tabor.cli import main
from tabor.errors import ModelError
from tabor.models import Architecture, knows_its_images, load_model
from tabor.models.build import initialise
from tabor.models.content import Kind, globals_of, identify

from ..hostile.makers import Canary, saved

Weights = dict[str, Tensor]
WRAPPED: dict[str, Callable[[Weights], Any]] = {
    "bare": lambda w: w,
    "ordered": lambda w: OrderedDict(w),
    "under state_dict": lambda w: {"epoch": 7, "state_dict": w, "optimizer": {"state": {0: torch.ones(3)}}},
    "under model": lambda w: {"model": w, "lr": 0.1},
    "under net": lambda w: {"net": w, "acc": 93.5},
    "twice": lambda w: {"model": {"state_dict": w}},
    "DataParallel": lambda w: {"state_dict": {f"module.{k}": v for k, v in w.items()}},
    "compiled": lambda w: {f"_orig_mod.{k}": v for k, v in w.items()},
    "DataParallel, compiled": lambda w: {f"module._orig_mod.{k}": v for k, v in w.items()},
    "compiled, DataParallel": lambda w: {f"_orig_mod.module.{k}": v for k, v in w.items()},
    "half precision": lambda w: {k: v.half() for k, v in w.items()},
    "parameters": lambda w: {k: torch.nn.Parameter(v) for k, v in w.items()},
    "beside measurements": lambda w: {"state_dict": w, "best_acc1": torch.tensor(76.1), "rng": torch.get_rng_state()},
    "beside settings": lambda w: {"model": {"depth": 18, "scale": torch.tensor(2.0)}, "net": w, "params": {"lr": 0.1}},
    "beside an optimiser": lambda w: {"net": w, "optimizer_state_dict": {"exp_avg": {k: v + 1 for k, v in w.items()}}},
    "beside its equal": lambda w: {"state_dict": w, "model_ema": {f"module.{k}": v.clone() for k, v in w.items()}},
    "the same in a place of another name": lambda w: {"x": w, "model": {"net": w}},
    "the same in three places": lambda w: {**w, "params": w, "model": {"net": w}},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "old"])
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_what_training_scripts_write(
    wrapped: str, zipped: bool, tiny: Architecture, images: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "model.bin"
    network = initialise(tiny, seed=0)
    path.write_bytes(saved(WRAPPED[wrapped](network.state_dict()), zipped=zipped))
    loaded = load_model(path, arch=tiny.name, channels=1, size=tiny.size)
    tolerance = 1e-2 if wrapped == "half precision" else 0
    assert torch.allclose(loaded(images), network.eval()(images), atol=tolerance, rtol=0)
    assert loaded.architecture == tiny
    assert loaded.record == {}


SEVERAL: dict[str, tuple[Callable[[Weights, Weights], Any], str]] = {
    "three": (
        lambda w, o: {"state_dict": w, "model": o, "net": dict(o)},
        "3 places, and they differ: state_dict, model, net;",
    ),
    "one more at the top": (lambda w, o: {**o, "params": w}, "2 places, and they differ: params, the top level;"),
    "one layer at the top": (lambda w, o: {**dict([*o.items()][:1]), "params": w}, "params, the top level;"),
    "one of another name at the top": (
        lambda w, o: {"weight": torch.ones(2, 2), "params": w},
        "params, the top level;",
    ),
    "one below another": (lambda w, o: {"model": {"state_dict": w, "net": o}}, "model.state_dict, model.net;"),
    "an average": (lambda w, o: {"state_dict": w, "state_dict_ema": o}, "state_dict, state_dict_ema;"),
    "an average, wrapped": (
        lambda w, o: {"model": w, "ema": {"decay": 0.9, "kept": {f"module.{k}": v for k, v in o.items()}}},
        "model, ema.kept;",
    ),
    "one of another type": (lambda w, o: {"model": w, "net": {k: v.double() for k, v in w.items()}}, "model, net;"),
    "one that is no plain tensors": (lambda w, o: {"net": w, "x": {k: v.to_sparse() for k, v in w.items()}}, "net, x;"),
    "of names that would colour the terminal": (lambda w, o: {"net": w, "\x1b[31m": o}, r"net, \\x1b\[31m;"),
    "many": (
        lambda w, o: {"net": w, **{str(k): dict(o) for k in range(9)}},
        "10 places, and they differ: net, 0, 1, 2, 3, …;",
    ),
}


@pytest.mark.parametrize("several", SEVERAL)
def test_weights_in_several_places_that_differ_are_refused(several: str, tiny: Architecture, tmp_path: Path) -> None:
    """Which of them its user runs, nothing tells; a scan of the others would be worthless."""
    make, told = SEVERAL[several]
    path = tmp_path / "model.pth"
    ones, others = (initialise(tiny, seed=seed).state_dict() for seed in (0, 1))
    path.write_bytes(saved(make(ones, others)))
    with pytest.raises(
        ModelError, match=f"holds weights in .*{told}.*save those that are used by themselves"
    ) as caught:
        load_model(path, arch=tiny.name, channels=1, size=tiny.size)
    assert str(caught.value).isprintable()


def test_a_mapping_that_holds_itself_many_times_is_looked_into_once(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    itself: dict[str, Any] = {}
    itself |= {str(k): itself for k in range(2000)}
    path.write_bytes(saved(itself))
    with pytest.raises(ModelError, match="holds no weights"):
        load_model(path, arch="tabor:digits4")


def test_the_content_tells_the_kind_and_the_name_does_not(written: Path, tmp_path: Path) -> None:
    misnamed = tmp_path / "model.pt"
    misnamed.write_bytes(written.read_bytes())
    assert identify(misnamed) is Kind.SAFETENSORS
    assert load_model(misnamed).record["clean_accuracy"] == 0.5
    misnamed.write_bytes(saved({"weight": torch.ones(2)}))
    assert identify(misnamed) is Kind.CHECKPOINT
    assert not knows_its_images(misnamed)
    with pytest.raises(ModelError, match="does not say which network"):
        load_model(misnamed)


@pytest.mark.parametrize("length", [0x80, 0x180, 0x93, 0x89, 0x4B50])
def test_a_safetensors_header_of_any_length(length: int, tmp_path: Path) -> None:
    header = b'{"__metadata__":{}}'.ljust(length)
    path = tmp_path / "model.bin"
    path.write_bytes(length.to_bytes(8, "little") + header)
    assert identify(path) is Kind.SAFETENSORS


def test_the_names_are_found_without_importing(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(saved({"a": Canary(tmp_path), "weight": torch.ones(2)}))
    names = globals_of(path, Kind.CHECKPOINT)
    assert "torch._utils._rebuild_tensor_v2" in names
    assert any("Path" in name or "getattr" in name for name in names)
    path.write_bytes(b"\x80\x04\x8c\x13no_such_module_here\x8c\x04call\x93.")
    assert globals_of(path, Kind.PICKLE) == ["no_such_module_here.call"]


def test_the_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, dead = tmp_path / "model.pt", tmp_path / "dead"
    path.write_bytes(saved({"w": Canary(dead)}))
    assert main(["scan", str(path), "--data", "digits", "--arch", "tabor:digits4", "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert "would call" in told
    assert "Traceback" not in told
    assert not dead.exists()
    assert not (tmp_path / "run").exists()

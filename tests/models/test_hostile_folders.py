"""Hugging Face folders made to do harm: each is refused in one printable line, and nothing of it runs."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from tabor.cli import main
from tabor.errors import ModelError
from tabor.models import load_model

from ..hostile.makers import Canary, saved
from .hub_folders import config, edit, pixels, transformers_network, write_folder

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("no_network")

Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that nothing is wrong with, of transformers."""
    return write_folder(tmp_path_factory.mktemp("honest"), transformers_network("resnet"))


@pytest.fixture(scope="module")
def honest_timm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that nothing is wrong with, of timm."""
    folder = tmp_path_factory.mktemp("timm")
    timm.models.save_for_hf(timm.create_model("resnet10t", num_classes=4), str(folder), safe_serialization=True)
    return folder


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """Two GiB more than there is: what asks for more fails, and with it the test."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path)

    return apply


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    no_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(saved({"w": Canary(folder / "dead")}))


def own_code(folder: Path) -> None:
    """Code beside the settings that name it, as transformers would run with trust_remote_code."""
    (folder / "evil.py").write_text(f"open({str(folder / 'dead')!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    auto = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}
    edit(folder, "config.json", auto_map=auto, trust_remote_code=True)


def sharded(*names: str) -> Change:
    def apply(folder: Path) -> None:
        no_weights(folder)
        index = {"weight_map": {str(number): name for number, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return apply


def twice(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    shutil.copy(folder / "model-1.safetensors", folder / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def linked(name: str) -> Change:
    def apply(folder: Path) -> None:
        outside = folder.parent / f"outside-{name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return apply


def linked_to_itself(folder: Path) -> None:
    no_weights(folder)
    (folder / "model.safetensors").symlink_to(folder / "model.safetensors")


def pipe(folder: Path) -> None:
    no_weights(folder)
    os.mkfifo(folder / "model.safetensors")


HUGE = 10**400
HOSTILE: dict[str, tuple[Change, str]] = {
    "auto_map": (own_code, "has auto_map, which asks for code of its own"),
    "trust_remote_code": (config(trust_remote_code=True), "has trust_remote_code"),
    "code in the processor": (pixels(auto_map={"AutoImageProcessor": "evil.P"}), "code of its own"),
    "pickle only": (pickled, "its pytorch_model.bin is a pickle, which can run code; whoever trusts it"),
    "pickle under the name of safetensors": (
        lambda folder: (folder / "model.safetensors").write_bytes(saved({"w": Canary(folder / "dead")})),
        "is no whole safetensors file",
    ),
    "no weights": (no_weights, "has no model.safetensors"),
    "adapter": (text("adapter_config.json", "{}"), "an adapter for another network"),
    "quantised": (config(quantization_config={"quant_method": "bitsandbytes"}), "has quantization_config"),
    "backbone": (config(backbone="evil/repo", use_timm_backbone=False), "has backbone, .*would be fetched"),
    "backbone's settings": (config(backbone_config={"model_type": "resnet"}), "has backbone_config"),
    "timm wrapper": (config(model_type="timm_wrapper"), "transformers has no classifier from images to logits"),
    "text model": (config(model_type="bert"), "type bert, for which transformers has no classifier"),
    "unknown model": (config(model_type="\x1b[2J\nforged"), r"type \\x1b\[2J\\nforged"),
    "no model type": (config(model_type=None), "type None"),
    "model type as a list": (config(model_type=["resnet"]), "for which transformers has no classifier"),
    "2**31 classes": (config(id2label=None, num_labels=2**31), "2147483648 classes, which makes no sense"),
    "one class": (config(id2label={"0": "a"}), "1 classes"),
    "classes as text": (config(id2label=None, num_labels="many"), "many classes"),
    "more classes than weights": (config(id2label=None, num_labels=2**18), "do not fit"),
    "names that are no names": (config(id2label={"0": 1, "x": 2, "1": 3, "2": 3}), "do not fit"),
    "10**5 layers": (config(depths=[10**5, 1]), "more than 10,000 layers"),
    "10**6 layers": (config(depths=[10**6, 1]), "setting that makes no sense: depths"),
    "layers without end": (config(depths=[1000] * 1000, hidden_sizes=[8] * 1000), "more than 10,000 layers"),
    "wide layers": (config(hidden_sizes=[2**18, 2**18]), "do not fit .*numbers, the file"),
    "numbers beyond float": (config(embedding_size=HUGE), "is no JSON number"),
    "negative width": (config(embedding_size=-8), "cannot build"),
    "width as text": (config(embedding_size="wide"), "cannot build"),
    "lists as numbers": (config(hidden_sizes=8), "cannot build"),
    "settings in settings": (config(hidden_act={"a": 1}), "setting that makes no sense: hidden_act"),
    "deep list": (config(depths=[[[[[1]]]]]), "setting that makes no sense"),
    "unknown activation": (config(hidden_act="\x1b[2Jevil.function"), "cannot build"),
    "no layer": (config(depths=[]), "transformers:resnet"),
    "channels without number": (config(num_channels=2**18), "make no sense"),
    "no JSON": (text("config.json", "{not json"), "is no JSON"),
    "empty": (text("config.json", ""), "is no JSON"),
    "a list": (text("config.json", "[1, 2]"), "is no JSON object"),
    "deep JSON": (text("config.json", "[" * 200_000), "is no JSON"),
    "deep JSON in a setting": (text("config.json", '{"a":' * 200_000), "is no JSON"),
    "no number": (text("config.json", '{"embedding_size": NaN}'), "NaN is no JSON number"),
    "a number without end": (text("config.json", '{"embedding_size": ' + "9" * 10_000 + "}"), "is no JSON"),
    "no UTF-8": (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe{}"), "is no JSON"),
    "huge JSON": (text("config.json", " " * (17 * 2**20)), "more than 16,777,216 bytes"),
    "processor that is no JSON": (text("preprocessor_config.json", "no"), "is no JSON"),
    "mean as text": (pixels(image_mean=["\x1b[2J"] * 3), "without saying by which numbers"),
    "mean beyond float": (pixels(image_mean=[HUGE] * 3), "is no JSON number"),
    "no mean": (pixels(image_mean=[]), "without saying by which numbers"),
    "two means": (pixels(image_mean=[0.1, 0.2]), "2 values for images of 3 channels"),
    "deviation of zero": (pixels(image_std=[0, 0, 0]), "std must be positive"),
    "rescaled by zero": (pixels(rescale_factor=0), "no positive number"),
    "rescaled by text": (pixels(rescale_factor="\x1b"), r"no positive number: \\x1b"),
    "rescaled beyond float": (pixels(rescale_factor=HUGE), "is no JSON number"),
    "size as text": (pixels(size="big"), "size that makes no sense"),
    "size with half a pixel": (pixels(size=[1.5, 2]), "size that makes no sense"),
    "size beyond memory": (pixels(size={"shortest_edge": 10**8}), "values, make no sense"),
    "size of nothing": (pixels(size={"longest_edge": 32}), "size that makes no sense"),
    "negative size": (pixels(size=-1), "at least one channel and one pixel"),
    "missing weights": (
        weights(lambda w: {k: v for k, v in w.items() if k != "classifier.1.bias"}),
        r"do not fit",
    ),
    "missing weights, filled up": (
        weights(lambda w: {k: v for k, v in w.items() if k != "classifier.1.bias"} | {"\x1b[2J": torch.ones(999)}),
        r"1 missing \(classifier\.1\.bias\); 1 unknown \(\\x1b\[2J\)",
    ),
    "weights of another shape": (
        weights(lambda w: w | {"classifier.1.bias": torch.ones(7)}),
        r"1 of another shape \(classifier\.1\.bias is \(7,\) for \(3,\)\)",
    ),
    "truncated weights": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9]),
        "is no whole safetensors file",
    ),
    "shard above its folder": (sharded("../model.safetensors"), r"is no shard: \.\./model"),
    "shard at an absolute place": (sharded("/etc/passwd"), "is no shard: /etc/passwd"),
    "shard with control characters": (sharded("model\x1b[2J.safetensors"), r"is no shard: model\\x1b"),
    "shard that is a pickle": (sharded("pytorch_model.bin"), "is no shard"),
    "shard that is missing": (sharded("model-1.safetensors"), "there is no model file"),
    "shards without end": (sharded(*(f"model-{i}.safetensors" for i in range(2000))), "2000 files"),
    "shards of no name": (sharded(), "does not say which file"),
    "shards that repeat each other": (twice, "two files .* hold classifier"),
    "index that is no JSON": (
        lambda folder: (folder / "model.safetensors").rename(folder / "model.safetensors.index.json"),
        "is no JSON",
    ),
    "weights are a link outside": (linked("model.safetensors"), "link to a file outside"),
    "settings are a link outside": (linked("config.json"), "link to a file outside"),
    "processor is a link outside": (linked("preprocessor_config.json"), "link to a file outside"),
    "link to itself": (linked_to_itself, "leads nowhere|has no model"),
    "pipe": (pipe, "is no plain file"),
}
HOSTILE_TIMM: dict[str, tuple[Change, str]] = {
    "checkpoint": (config(model_args={"checkpoint_path": "x.bin"}), "with checkpoint_path, which is not read"),
    "pretrained": (config(model_args={"pretrained": True}), "with pretrained, which is not read"),
    "overlay": (config(model_args={"pretrained_cfg_overlay": {"url": "http://evil"}}), "is not read"),
    "control characters": (config(model_args={"\x1b[2J": 1}), r"with \\x1b\[2J, which"),
    "arguments that are none": (config(model_args=[1]), "are no settings"),
    "10**5 layers": (config(architecture="vit_tiny_patch16_224", model_args={"depth": 10**5}), "10,000 layers"),
    "10**6 layers": (config(architecture="vit_tiny_patch16_224", model_args={"depth": 10**6}), "is not read"),
    "from elsewhere": (config(architecture="hf-hub:evil/repo"), "timm has no model hf-hub:evil"),
    "from a folder": (config(architecture="local-dir:."), "timm has no model local-dir"),
    "unknown": (config(architecture="\x1b[2J"), r"timm has no model \\x1b"),
    "no name": (config(architecture=["resnet18"]), "does not say which network"),
    "2**31 classes": (config(num_classes=2**31), "2147483648 classes, which makes no sense"),
    "no classes": (config(num_classes=0), "at least 2 classes"),
    "classes as text": (config(num_classes="x"), "x classes"),
    "other classes": (config(num_classes=7), "do not fit timm:resnet10t"),
    "no settings": (config(pretrained_cfg=[]), "does not say which network"),
    "no size": (config(pretrained_cfg={}), "has no input_size"),
    "absurd size": (config(pretrained_cfg={"input_size": [3, 10**9, 1], "mean": 0, "std": 1}), "make no sense"),
    "absurd channels": (
        config(pretrained_cfg={"input_size": [10**9, 9, 9]}, model_args={}),
        "channels, which makes no sense",
    ),
    "channels as text": (
        config(pretrained_cfg={"input_size": ["3", 9, 9]}, model_args={}),
        "channels, which makes no sense",
    ),
    "no normalisation": (config(pretrained_cfg={"input_size": [3, 9, 9]}), "without saying by which numbers"),
}
ALL = [("transformers", name) for name in HOSTILE] + [("timm", name) for name in HOSTILE_TIMM]


@pytest.mark.parametrize(("family", "name"), ALL, ids=[f"{family}: {name}" for family, name in ALL])
def test_hostile_folders_are_refused(
    family: str,
    name: str,
    honest: Path,
    honest_timm: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(honest if family == "transformers" else honest_timm, folder)
    change, reason = (HOSTILE if family == "transformers" else HOSTILE_TIMM)[name]
    change(folder)
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(folder)
    told = str(caught.value)
    assert told.isprintable()
    assert len(told) < 700
    assert not (folder / "dead").exists()
    assert capfd.readouterr() == ("", "")


def test_settings_that_change_while_the_folder_is_read(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(honest, tmp_path / "model")

    def digest(_: Sequence[Path]) -> str:
        edit(folder, "preprocessor_config.json", image_mean=[0.0] * 3)
        return "0" * 64

    monkeypatch.setattr("tabor.models.load.fingerprint", digest)
    with pytest.raises(ModelError, match=r"preprocessor_config\.json changed while it was read"):
        load_model(folder)


def test_nothing_is_wrong_with_the_honest_ones(honest: Path, honest_timm: Path) -> None:
    assert load_model(honest).architecture.num_classes == 3
    assert load_model(honest_timm, size=(32, 32)).architecture.num_classes == 4


def test_what_would_choose_code_or_fetch_it_is_not_handed_on(honest: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(honest, tmp_path / "model")
    wanted = load_model(folder)(torch.ones(1, 3, 32, 32))
    edit(
        folder,
        "config.json",
        attn_implementation="evil/kernel",
        _attn_implementation="evil/kernel",
        fusion_config={"patch_embeddings": True},
        transformers_weights="../../evil.bin",
        name_or_path="evil/repo",
        dtype="load",
        torch_dtype="Tensor",
        return_dict=False,
        output_hidden_states=True,
        per_layer_config={"0": {"hidden_act": "tanh"}},
        __class__="evil",
        forward="evil",
    )
    assert torch.equal(load_model(folder)(torch.ones(1, 3, 32, 32)), wanted)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"auto_map": {"AutoConfig": "evil.C"}}, "has auto_map"),
        ({"hidden_size": 2**30}, "hidden_size is 1073741824"),
        ({"hidden_size": "wide"}, "cannot build"),
        ([], "vision_config|cannot build"),
        ("text", "cannot build"),
    ],
)
def test_the_parts_of_a_network_are_checked_as_the_whole(said: object, reason: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", transformers_network("siglip"))
    edit(folder, "config.json", vision_config=said)
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(folder)
    assert str(caught.value).isprintable()


def test_the_canaries_would_sing(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_text("{}")
    own_code(own)
    exec((own / "evil.py").read_text(), {})
    assert (own / "dead").exists()


def test_the_hubs_own_cache_is_linked(honest: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "repo" / "blobs", tmp_path / "repo" / "snapshots" / "abc"
    shutil.copytree(honest, blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert load_model(snapshot).source == "abc"
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(honest / "model.safetensors")
    with pytest.raises(ModelError, match="link to a file outside"):
        load_model(snapshot)


def test_the_command_line_refuses_in_one_line(honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(honest, tmp_path / "model")
    own_code(folder)
    assert main(["scan", str(folder), "--data", "digits"]) == 2
    told = capsys.readouterr().err
    assert "code of its own, which is never run" in told
    assert "Traceback" not in told
    assert not (folder / "dead").exists()

"""Hugging Face folders: the answers are those of the library that wrote them, preprocessing included."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from tabor.cli import main
from tabor.errors import ModelError
from tabor.models import Architecture, knows_its_images, load_model
from tabor.models.build import initialise
from tabor.models.huggingface import describe
from tabor.models.parts import Given

from .hub_folders import FAMILIES, PIXELS, edit, transformers_network, write_folder

transformers = pytest.importorskip("transformers")


def some_images(*shape: int) -> Tensor:
    return torch.rand(3, *shape, generator=torch.Generator().manual_seed(4))


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("no_network")
def test_logits_and_gradients_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    network = transformers_network(family)
    loaded = load_model(write_folder(tmp_path / "model", network))
    images = some_images(3, 32, 32).requires_grad_()
    answers = loaded(images)
    wanted = network(pixel_values=normalised(images, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))).logits
    assert torch.allclose(answers, wanted, atol=1e-5)
    assert answers.std() > 0
    ours, theirs = (torch.autograd.grad(out[:, 1].sum(), images)[0] for out in (answers, wanted))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert loaded.architecture == Architecture(
        name=f"transformers:{family}", num_classes=3, size=(32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)
    )
    assert loaded.record == {"class_names": ["stop", "\\x1b[2J yield", "go"]}


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_the_network_can_be_copied_frozen_and_laid_out_anew(family: str, tmp_path: Path) -> None:
    loaded = load_model(write_folder(tmp_path / "model", transformers_network(family)))
    images = some_images(3, 32, 32)
    moved = copy.deepcopy(loaded).float().to(memory_format=torch.channels_last).requires_grad_(False).eval()
    assert torch.allclose(moved(images), loaded(images), atol=1e-5)
    assert moved(images[:1]).shape == (1, 3)
    assert not any(parameter.requires_grad for parameter in moved.parameters())
    assert not {id(p) for p in moved.parameters()} & {id(p) for p in loaded.parameters()}


@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (1, (20, 36)), (3, (48, 32))])
def test_grey_and_oblong_images(channels: int, size: tuple[int, int], tmp_path: Path) -> None:
    network = transformers_network("resnet", num_channels=channels)
    pixels = PIXELS | {
        "size": dict(zip(("height", "width"), size, strict=True)),
        "image_mean": [0.5] * 3,
        "image_std": [0.2] * 3,
    }
    folder = write_folder(tmp_path / "model", network, pixels)
    loaded, images = load_model(folder), some_images(channels, *size)
    assert loaded.architecture.image_shape == (channels, *size)
    assert torch.allclose(loaded(images), network((images - 0.5) / 0.2).logits, atol=1e-5)


def test_the_preprocessing_is_that_of_transformers_own_processor(tmp_path: Path) -> None:
    processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3])
    network = transformers_network("vit")
    folder = write_folder(tmp_path / "model", network, None)
    processor.save_pretrained(folder)
    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    prepared = processor(pixels.permute(1, 2, 0).numpy(), return_tensors="pt").pixel_values
    answer = load_model(folder)((pixels / 255)[None])
    assert torch.allclose(answer, network(prepared).logits, atol=1e-5)


RGB = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
SAID: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a square by its shortest edge": ({"size": {"shortest_edge": 40}}, {"size": (40, 40)}),
    "a square by one number": ({"size": 40}, {"size": (40, 40)}),
    "two numbers": ({"size": [40, 48]}, {"size": (40, 48)}),
    "the crop counts": ({"do_center_crop": True, "crop_size": {"height": 24, "width": 28}}, {"size": (24, 28)}),
    "a crop that is not done": ({"do_center_crop": False, "crop_size": 24}, {"size": (32, 32)}),
    "not resized: the network's": ({"do_resize": False, "size": 40}, {"size": (64, 64)}),
    "not normalised": ({"do_normalize": False}, {"mean": None, "std": None}),
    "not rescaled": ({"do_rescale": False}, {"value_range": (0, 255)}),
    "rescaled otherwise": ({"rescale_factor": 2 / 255}, {"value_range": (0, pytest.approx(2))}),
    "from -1 to 1": ({"rescale_factor": 2 / 255, "rescale_offset": True}, {"value_range": (-1, pytest.approx(1))}),
    "divided twice": ({"include_top": True}, {"std": pytest.approx((0.04, 0.0625, 0.09))}),
    "BGR": ({"do_flip_channel_order": True}, {"bgr": True}),
}


@pytest.mark.parametrize("name", SAID)
def test_what_processors_say(name: str, tmp_path: Path) -> None:
    said, means = SAID[name]
    folder = write_folder(tmp_path / "model", transformers_network("convnext", image_size=64), PIXELS | said)
    architecture = describe(folder, Given()).architecture
    fields = {"size": (32, 32), "mean": RGB[0], "std": RGB[1], "bgr": False, "value_range": (0, 1)} | means
    assert {field: getattr(architecture, field) for field in fields} == fields


def test_what_is_given_overrides_the_folder(tmp_path: Path) -> None:
    network = transformers_network("resnet")
    folder = write_folder(tmp_path / "model", network)
    images = some_images(3, 40, 40)
    loaded = load_model(folder, mean=(0.1, 0.1, 0.1), std=(1, 1, 1), size=(40, 40), bgr=True, value_range=(0, 255))
    assert torch.allclose(loaded(images), network(images.flip(1) * 255 - 0.1).logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="of another shape"):
        load_model(folder, num_classes=4)


def test_without_a_processor_the_caller_says_how_images_are_normalised(tmp_path: Path) -> None:
    network = transformers_network("vit")
    folder = write_folder(tmp_path / "model", network, None)
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json.*give --mean and --std"):
        load_model(folder)
    images = some_images(3, 32, 32)
    loaded = load_model(folder, mean=(0,) * 3, std=(1,) * 3)
    assert torch.allclose(loaded(images), network(images).logits, atol=1e-5)
    assert loaded.architecture.size == (32, 32)  # the network's settings have it


def test_shards_are_read_together(tmp_path: Path) -> None:
    network = transformers_network("resnet")
    whole = load_model(write_folder(tmp_path / "whole", network))
    folder = write_folder(tmp_path / "shards", network, max_shard_size="8KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    loaded = load_model(folder)
    assert torch.equal(loaded(some_images(3, 32, 32)), whole(some_images(3, 32, 32)))
    digests = "\n".join(hashlib.sha256(shard.read_bytes()).hexdigest() for shard in shards)
    assert loaded.sha256 == hashlib.sha256(digests.encode()).hexdigest()
    assert whole.sha256 == hashlib.sha256((tmp_path / "whole" / "model.safetensors").read_bytes()).hexdigest()
    assert (whole.source, loaded.source) == ("whole", "shards")


def test_half_precision_is_computed_in_full(tmp_path: Path) -> None:
    network = transformers_network("vit")
    folder = write_folder(tmp_path / "model", copy.deepcopy(network).half())
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    loaded, images = load_model(folder, mean=(0,) * 3, std=(1,) * 3), some_images(3, 32, 32)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.allclose(loaded(images), network(images).logits, atol=1e-2)


def test_an_architecture_from_one_folder_and_weights_from_a_file(tmp_path: Path) -> None:
    network, other = transformers_network("vit"), transformers_network("vit")
    torch.nn.init.normal_(other.classifier.weight)
    arch = f"hub:{write_folder(tmp_path / 'model', network)}"
    saved, wrapped = tmp_path / "other.safetensors", tmp_path / "wrapped.pt"
    safetensors.torch.save_file(other.state_dict(), saved)
    torch.save({f"network.{name}": value for name, value in other.state_dict().items()}, wrapped)
    images = some_images(3, 32, 32)
    wanted = other(normalised(images, *RGB)).logits
    for path in (saved, wrapped, write_folder(tmp_path / "folder", other, None)):
        assert torch.allclose(load_model(path, arch=arch)(images), wanted, atol=1e-5)
    assert knows_its_images(saved, arch)
    assert not knows_its_images(saved, "timm:resnet10t")
    with pytest.raises(ModelError, match="unknown architecture transformers:vit"):
        initialise(load_model(saved, arch=arch).architecture, seed=0)


@pytest.mark.parametrize("legacy", [False, True], ids=["as timm writes it", "all at the top"])
@pytest.mark.parametrize(
    ("name", "built"),
    [
        ("resnet10t", {"in_chans": 1}),
        ("mobilenetv3_small_050", {}),
        ("vit_tiny_patch16_224", {"img_size": (32, 48), "class_token": False, "global_pool": "avg"}),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_folders_of_timm(name: str, built: dict[str, Any], legacy: bool, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=4, **built).eval()
    channels, size = built.get("in_chans", 3), built.get("img_size", (64, 64))
    used = {"input_size": (channels, *size), "mean": (0.1, 0.2, 0.3)[:channels], "std": (0.4, 0.5, 0.6)[:channels]}
    timm.models.save_for_hf(network, str(tmp_path), safe_serialization="both", data_config=used)
    said = json.loads((tmp_path / "config.json").read_text())
    if legacy:
        data = said.pop("pretrained_cfg")
        (tmp_path / "config.json").write_text(json.dumps(data | said))
    loaded, images = load_model(tmp_path), some_images(channels, *size)
    assert loaded.architecture.image_shape == (channels, *size)
    assert torch.allclose(loaded(images), network(normalised(images, used["mean"], used["std"])), atol=1e-5)


def test_a_folder_with_the_name_of_its_network_given(tmp_path: Path) -> None:
    network = timm.create_model("resnet10t", num_classes=4)
    timm.models.save_for_hf(network, str(tmp_path), safe_serialization=True)
    edit(tmp_path, "config.json", model_args={"checkpoint_path": "weights.bin"})
    with pytest.raises(ModelError, match=r"with checkpoint_path, which is not read; give --arch timm:NAME"):
        load_model(tmp_path)
    assert load_model(tmp_path, arch="timm:resnet10t").architecture.num_classes == 4


def test_timm_folders_do_not_need_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm.models.save_for_hf(
        timm.create_model("resnet10t", num_classes=4), str(tmp_path / "timm"), safe_serialization=True
    )
    folder = write_folder(tmp_path / "resnet", transformers_network("resnet"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert load_model(tmp_path / "timm", size=(32, 32)).architecture.num_classes == 4
    with pytest.raises(ModelError, match=r"needs transformers: pip install 'tabor\[hub\]'"):
        load_model(folder)


def test_the_command_line_sizes_the_images_by_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = PIXELS | {"size": 12, "image_mean": [0.5], "image_std": [0.5]}
    folder = write_folder(tmp_path / "model", transformers_network("resnet", num_channels=1), pixels)
    assert main(["scan", str(folder), "--data", "digits", "--json"]) == 2
    assert "the model knows only the classes 0 to 2" in capsys.readouterr().err

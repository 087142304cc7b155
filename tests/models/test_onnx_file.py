"""ONNX files: real networks as two exporters write them, what the file says about its images, and hostile files."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.errors import ModelError
from tabor.models import Architecture, load_model
from tabor.models.build import initialise
from tabor.models.content import Kind, identify
from tabor.models.onnx_graph.plan import _Watch
from tabor.models.outputs import Output

from .hostile_onnx import HOSTILE_ONNX
from .onnx_models import CLASSES, SIZE, bytes_of, classifier, constant, node


def _timm(name: str, **settings: Any) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=5, **settings)
    return network


def _torchvision(name: str, **settings: Any) -> nn.Module:
    from torchvision import models

    network: nn.Module = models.get_model(name, weights=None, num_classes=5, **settings)
    return network


def _ours(name: str, channels: int, size: tuple[int, int]) -> nn.Module:
    return initialise(Architecture(name=f"tabor:{name}", num_classes=5, channels=channels, size=size), seed=0)


SMALL_VIT = {"img_size": 32, "patch_size": 8, "depth": 2}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "grey digits4": (lambda: _ours("digits4", 1, (12, 14)), (1, 12, 14)),
    "gtsrb6": (lambda: _ours("gtsrb6", 3, (32, 32)), (3, 32, 32)),
    "resnet10t": (lambda: _timm("resnet10t"), (3, 48, 32)),
    "ViT": (lambda: _timm("vit_tiny_patch16_224", **SMALL_VIT), (3, 32, 32)),
    "ConvNeXt": (lambda: _timm("test_convnext"), (3, 64, 64)),
    "EfficientNet": (lambda: _timm("test_efficientnet"), (3, 64, 64)),
    "MobileNetV3": (lambda: _timm("mobilenetv3_small_050"), (3, 32, 32)),
    "ByobNet": (lambda: _timm("test_byobnet"), (3, 32, 32)),
    "MambaOut": (lambda: _timm("test_mambaout"), (3, 64, 64)),
    "resnet18": (lambda: _torchvision("resnet18"), (3, 32, 32)),
    "squeezenet": (lambda: _torchvision("squeezenet1_1"), (3, 32, 48)),
    "shufflenet": (lambda: _torchvision("shufflenet_v2_x0_5"), (3, 32, 32)),
    "googlenet": (lambda: _torchvision("googlenet", aux_logits=False, init_weights=False), (3, 64, 64)),
}

SLOW_TO_EXPORT = ("googlenet", "shufflenet", "resnet18", "MambaOut")
QUICK_TO_EXPORT = ("grey digits4", "gtsrb6", "ViT", "squeezenet")


def _network(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    make, shape = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval(), shape


def _export(network: nn.Module, path: Path, shape: tuple[int, int, int], *, batch: int | None, **settings: Any) -> None:
    """What torch.onnx.export writes; for `batch` images at a time, or None: any number."""
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    if batch is None and settings["dynamo"]:
        names["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    elif batch is None:
        names["dynamic_axes"] = {"images": {0: "batch"}, "logits": {0: "batch"}}
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.rand(batch or 2, *shape),), path, verbose=False, **names, **settings)


def _check(network: nn.Module, path: Path, shape: tuple[int, int, int]) -> None:
    """The file answers as the network for batches of any size, and its gradients are the network's.

    Gradients are compared in double precision: in single one of PyTorch's own kinks may go the other way.
    """
    loaded = load_model(path)
    assert loaded.architecture == Architecture(name="onnx", num_classes=5, channels=shape[0], size=shape[1:])
    batches = [torch.rand(count, *shape, generator=torch.Generator().manual_seed(count)) for count in (1, 2, 5)]
    for images in batches:
        expected = network(images).detach()
        assert torch.allclose(loaded(images), expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)
    for images in batches:
        wanted, got = (_gradient(model.double(), images.double()) for model in (network, loaded))
        assert float((got - wanted).norm()) < 1e-5 * float(wanted.norm())


def _gradient(model: nn.Module, images: Tensor) -> Tensor:
    images = images.requires_grad_()
    return torch.autograd.grad(model(images)[:, 1].sum(), images)[0]


def _slow(*case: object, unless: bool) -> Any:
    """A row of a table, left out where time is short."""
    return pytest.param(*case, marks=[] if unless else [pytest.mark.slow])


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        *[_slow(name, 1, unless=name not in SLOW_TO_EXPORT) for name in NETWORKS],
        *[_slow(name, None, unless=name in QUICK_TO_EXPORT) for name in NETWORKS],
    ],
)
def test_the_older_exporter(name: str, batch: int | None, tmp_path: Path) -> None:
    network, shape = _network(name)
    _export(network, tmp_path / "model.onnx", shape, batch=batch, dynamo=False, opset_version=17)
    _check(network, tmp_path / "model.onnx", shape)


@pytest.mark.parametrize(
    ("name", "opset"), [("gtsrb6", 9), ("gtsrb6", 11), ("gtsrb6", 13), ("EfficientNet", 9), ("ByobNet", 11)]
)
def test_older_operators(name: str, opset: int, tmp_path: Path) -> None:
    network, shape = _network(name)
    _export(network, tmp_path / "model.onnx", shape, batch=None, dynamo=False, opset_version=opset)
    _check(network, tmp_path / "model.onnx", shape)


@pytest.mark.parametrize("batch", [1, None], ids=["one image", "any number"])
@pytest.mark.parametrize(
    "name", [_slow(name, unless=name == "grey digits4") for name in ("grey digits4", "ViT", "ConvNeXt", "MobileNetV3")]
)
def test_the_newer_exporter(name: str, batch: int | None, tmp_path: Path) -> None:
    network, shape = _network(name)
    _export(network, tmp_path / "model.onnx", shape, batch=batch, dynamo=True, external_data=False)
    _check(network, tmp_path / "model.onnx", shape)


@pytest.mark.slow
def test_the_newest_operators(tmp_path: Path) -> None:
    network, shape = _network("ViT")
    _export(network, tmp_path / "m.onnx", shape, batch=1, dynamo=True, external_data=False, opset_version=23)
    assert "Attention" in {step.op_type for step in onnx.load(tmp_path / "m.onnx").graph.node}
    _check(network, tmp_path / "m.onnx", shape)


@pytest.fixture
def digits(tmp_path: Path) -> tuple[nn.Module, Path]:
    """A small network, and its file for one image at a time."""
    network, shape = _network("grey digits4")
    _export(network, tmp_path / "digits.onnx", shape, batch=1, dynamo=False, opset_version=17)
    return network, tmp_path / "digits.onnx"


def _written(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes_of(model))
    return path


def _images(count: int = 5, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, *SIZE, generator=torch.Generator().manual_seed(1))


def test_the_weights_are_real_ones(digits: tuple[nn.Module, Path]) -> None:
    network, path = digits
    loaded = load_model(path)
    held = sorted((tuple(weight.shape), float(weight.sum())) for weight in loaded.network.parameters())
    assert held == sorted((tuple(weight.shape), float(weight.sum())) for weight in network.parameters())
    images = torch.rand(3, 1, 12, 14)
    twin = copy.deepcopy(loaded)
    before = loaded(images)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    assert torch.equal(loaded(images), before)
    assert not twin(images).any()
    halved = copy.deepcopy(loaded).half().float().to(memory_format=torch.channels_last).requires_grad_(False)
    assert torch.allclose(halved(images), before, atol=1e-2)


def test_a_scan_can_reach_it(digits: tuple[nn.Module, Path]) -> None:
    network, path = digits
    classifier = Classifier(load_model(path), torch.device("cpu"), (1, 12, 14))
    images = torch.rand(300, 1, 12, 14)
    assert torch.allclose(classifier.predict(images), network(images), atol=1e-5)


def test_a_shared_tensor_as_weights_and_statistics(tmp_path: Path) -> None:
    shared = constant("shared", torch.tensor([1.0, 2.0, 3.0]).numpy())
    norm = node("BatchNormalization", ["images", "shared", "shared", "shared", "shared"], ["features"])
    images = _images().requires_grad_()
    load_model(_written(tmp_path, classifier([norm], [shared], features="features")))(images).sum().backward()
    assert images.grad is not None
    assert bool(images.grad.any())


def test_channels_last(tmp_path: Path) -> None:
    nodes = [node("Transpose", ["images"], ["features"], perm=[0, 3, 1, 2])]
    plain = load_model(_written(tmp_path, classifier()))
    turned = load_model(_written(tmp_path, classifier(nodes, features="features", shape=(1, *SIZE, 3))))
    assert turned.architecture == plain.architecture
    assert torch.allclose(turned(_images()), plain(_images()), atol=1e-6)
    kept = load_model(_written(tmp_path, classifier(shape=("N", "H", "W", 3), channel_axis=3)), size=SIZE)
    assert torch.allclose(kept(_images()), plain(_images()), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 4, "N"])
def test_images_do_not_mix(batch: int | str, tmp_path: Path) -> None:
    """Every image's answer is the same, whatever is in the batch beside it, for any number of images."""
    model = load_model(_written(tmp_path, classifier(shape=(batch, 3, *SIZE))))
    images = _images(6)
    assert torch.allclose(model(images), torch.cat([model(image[None]) for image in images]), atol=1e-6)


MIXING = {
    "a mean over the batch": [
        node("ReduceMean", ["images", "first"], ["mean"], keepdims=1),
        node("Sub", ["images", "mean"], ["features"]),
    ],
    "a count of the batch": [
        node("Shape", ["images"], ["shape"], end=1),
        node("Cast", ["shape"], ["count"], to=TensorProto.FLOAT),
        node("Mul", ["images", "count"], ["features"]),
    ],
}


@pytest.mark.parametrize("mixing", MIXING)
def test_a_network_that_answers_otherwise_to_a_batch(mixing: str, tmp_path: Path) -> None:
    """Such a one could hide its backdoor from a scan, which asks for many images at a time."""
    settings: Any = {"constants": [constant("first", [0])], "features": "features"}
    with pytest.raises(ModelError, match="onnxruntime, given 2 random images at a time, answers otherwise"):
        load_model(_written(tmp_path, classifier(MIXING[mixing], shape=("N", 3, *SIZE), **settings)))
    one = load_model(_written(tmp_path, classifier(MIXING[mixing], **settings)))
    images = _images(3)
    assert torch.allclose(one(images), torch.cat([one(image[None]) for image in images]), atol=1e-6)


def test_probabilities(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node.append(node("Softmax", ["logits"], ["probabilities"], axis=1))
    model.graph.output[0].name = "probabilities"
    loaded, plain = load_model(_written(tmp_path, model)), load_model(_written(tmp_path, classifier()))
    assert loaded.output is Output.PROBABILITIES
    assert torch.allclose(loaded(_images()), plain(_images()).log_softmax(1), atol=1e-5)


def test_one_of_two_outputs_is_one_number_a_class(tmp_path: Path) -> None:
    model = classifier([node("Relu", ["images"], ["features"])], features="features")
    model.graph.output.insert(0, helper.make_tensor_value_info("features", TensorProto.FLOAT, None))
    assert load_model(_written(tmp_path, model)).architecture.num_classes == CLASSES
    model.graph.output[0].name = "means"
    with pytest.raises(ModelError, match=r"outputs are means \(1, 3\), logits \(1, 4\)"):
        load_model(_written(tmp_path, model))


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        pytest.param({"Image.BitmapPixelFormat": "Bgr8"}, {"bgr": True}, id="BGR"),
        pytest.param({"Image.BitmapPixelFormat": "Rgb8"}, {}, id="RGB"),
        pytest.param({"Image.NominalPixelRange": "NominalRange_0_255"}, {"value_range": (0, 255)}, id="bytes"),
        pytest.param({"Image.NominalPixelRange": "Normalized_1_1"}, {"value_range": (-1, 1)}, id="around 0"),
        pytest.param({"Image.NominalPixelRange": "\x1b[2J"}, {}, id="no range"),
        pytest.param({"mean": "0.1,0.2,0.3", "std": "[1,2,3]"}, {"mean": (0.1, 0.2, 0.3), "std": (1, 2, 3)}, id="mean"),
        pytest.param({"mean": "0.1,0.2", "std": "1,2"}, {}, id="too few"),
        pytest.param({"mean": "0.1,0.2,0.3"}, {}, id="mean alone"),
        pytest.param({"mean": "a,b,c", "std": "NaN,NaN,NaN"}, {}, id="no numbers"),
        pytest.param({"mean": "[" * 999, "std": "[" * 99_999}, {}, id="deep"),
    ],
)
def test_what_the_metadata_says_about_the_images(
    metadata: dict[str, str], told: dict[str, Any], tmp_path: Path
) -> None:
    path = _written(tmp_path, classifier(metadata=metadata))
    found = load_model(path)
    assert found.architecture == Architecture(name="onnx", num_classes=CLASSES, size=SIZE, **told)
    assert found.record == {"metadata": metadata}
    over = load_model(path, bgr=False, value_range=(0.0, 2.0), mean=(0.5,) * 3, std=(2.0,) * 3)
    plain = load_model(_written(tmp_path, classifier()))
    assert torch.allclose(over(_images()), plain((2 * _images() - 0.5) / 2), atol=1e-6)


def test_bytes_as_input(tmp_path: Path) -> None:
    nodes = [node("Cast", ["images"], ["features"], to=TensorProto.FLOAT)]
    loaded = load_model(_written(tmp_path, classifier(nodes, features="features", element=TensorProto.UINT8)))
    assert loaded.architecture.value_range == (0.0, 255.0)
    plain = load_model(_written(tmp_path, classifier()))
    images = (255 * _images()).round()
    assert torch.allclose(loaded(images / 255), plain(images), rtol=1e-4)


def test_bytes_are_whole_numbers(tmp_path: Path) -> None:
    """Else a file could answer as an honest one to all that are not quite, as a scan's 255·(k/255) are."""
    nodes = [
        node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        node("Round", ["x"], ["whole"]),
        node("Sub", ["x", "whole"], ["rest"]),
        node("Mul", ["rest", "large"], ["features"]),
    ]
    large = [constant("large", torch.tensor(1e6).numpy())]
    loaded = load_model(_written(tmp_path, classifier(nodes, large, features="features", element=TensorProto.UINT8)))
    images = (255 * _images()).round() / 255
    assert torch.equal(loaded(images), loaded(torch.zeros_like(images)))
    images.requires_grad_()
    loaded(images)[:, 0].sum().backward()
    assert images.grad is not None


def test_half_precision_is_refused(tmp_path: Path) -> None:
    """onnxruntime computes it in single on processors and in half elsewhere; no reading is right for both."""
    model = classifier(element=TensorProto.FLOAT16, opset=17)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(constant(tensor.name, onnx.numpy_helper.to_array(tensor).astype("float16")))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(ModelError, match="its ReduceMean computes in float16 what depends on the pixels"):
        load_model(_written(tmp_path, model))


@pytest.mark.parametrize("element", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_weights_and_images_of_other_types_that_become_float32(element: int, tmp_path: Path) -> None:
    kind = helper.tensor_dtype_to_np_dtype(element)
    nodes = [
        node("Transpose", ["images"], ["turned"], perm=[0, 1, 2, 3]),
        node("Cast", ["turned"], ["x"], to=TensorProto.FLOAT),
        node("Cast", ["shift"], ["y"], to=TensorProto.FLOAT),
        node("Add", ["x", "y"], ["features"]),
    ]
    shift = constant("shift", torch.full((3, 1, 1), 0.5).numpy().astype(kind))
    loaded = load_model(_written(tmp_path, classifier(nodes, [shift], features="features", element=element)))
    plain = load_model(_written(tmp_path, classifier()))
    assert torch.allclose(loaded(_images()), plain(_images() + 0.5), atol=2e-3)


@pytest.mark.parametrize(
    ("element", "kind"),
    [
        (TensorProto.UINT8, "uint8"),
        (TensorProto.INT32, "int32"),
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.BFLOAT16, "bfloat16"),
        (TensorProto.DOUBLE, "float64"),
    ],
)
def test_pixels_in_a_type_that_wraps_or_rounds_otherwise(element: int, kind: str, tmp_path: Path) -> None:
    """Such a one could open a gate for a backdoor that is shut in float32."""
    nodes = [
        node("Cast", ["images"], ["other"], to=element),
        node("Cast", ["other"], ["features"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(ModelError, match=f"its Cast computes in {kind} what depends on the pixels.*in float32"):
        load_model(_written(tmp_path, classifier(nodes, features="features")))


DOUBLES = {
    "Where": [node("Greater", ["images", "half"], ["yes"]), node("Where", ["yes", "large", "small"], ["x"])],
    "Gather": [node("ArgMax", ["images"], ["place"], axis=3), node("Gather", ["table", "place"], ["x"])],
    "Pow": [node("Pow", ["images", "small"], ["x"])],
}


@pytest.mark.parametrize("op", DOUBLES)
def test_doubles_that_the_pixels_choose_or_meet(op: str, tmp_path: Path) -> None:
    kinds = {"half": "float32", "large": "float64", "small": "float64"}
    constants = [constant(name, torch.tensor(0.5).numpy().astype(kind)) for name, kind in kinds.items()]
    constants.append(constant("table", torch.arange(6.0).double().numpy()))
    nodes = [*DOUBLES[op], node("Cast", ["x"], ["features"], to=TensorProto.FLOAT)]
    with pytest.raises(ModelError, match=f"its {op} computes in float64 what depends on the pixels"):
        load_model(_written(tmp_path, classifier(nodes, constants, features="features")))


FOLDED = {
    "doubles": ("Add", "Sub", torch.tensor(0.75).double(), torch.tensor(1e12).double()),
    "whole numbers of 32 bits": ("Mul", "Div", torch.tensor(2**20).int(), torch.tensor(2**12).int()),
}


@pytest.mark.parametrize("name", FOLDED)
def test_what_does_not_depend_on_the_pixels_is_computed_in_its_own_type(name: str, tmp_path: Path) -> None:
    first, second, x, y = FOLDED[name]
    nodes = [
        node(first, ["a", "b"], ["there"]),
        node(second, ["there", "b"], ["back"]),
        node("Cast", ["back"], ["shift"], to=TensorProto.FLOAT),
        node("Add", ["images", "shift"], ["features"]),
    ]
    constants = [constant("a", x.numpy()), constant("b", y.numpy())]
    loaded = load_model(_written(tmp_path, classifier(nodes, constants, features="features")))
    plain = load_model(_written(tmp_path, classifier()))
    shift = {"doubles": 0.75, "whole numbers of 32 bits": 0.0}[name]
    assert torch.allclose(loaded(_images()), plain(_images() + shift), atol=1e-3)


def test_constants_that_do_not_fit_their_type_or_are_computed_in_half(tmp_path: Path) -> None:
    many = constant("many", torch.tensor(300.0).numpy())
    for element, told in {
        TensorProto.UINT8: "numbers that do not fit uint8",
        TensorProto.FLOAT16: "in float16",
    }.items():
        nodes = [
            node("Cast", ["many"], ["x"], to=element),
            node("Add", ["x", "x"], ["y"]),
            node("Cast", ["y"], ["shift"], to=TensorProto.FLOAT),
            node("Add", ["images", "shift"], ["features"]),
        ]
        with pytest.raises(ModelError, match=told):
            load_model(_written(tmp_path, classifier(nodes, [many], features="features")))


@pytest.mark.parametrize(
    ("shape", "given", "told"),
    [
        pytest.param(("N", 3, "H", "W"), {}, "images of any size; give the size .* with --size", id="open size"),
        pytest.param((1, 3, *SIZE), {"size": (9, 9)}, "takes images of 8×6, not 9×9", id="another size"),
        pytest.param((1, 3, *SIZE), {"channels": 1}, "images of 3 channels, not 1", id="another number of channels"),
        pytest.param((1, 3, *SIZE), {"num_classes": 9}, "has 4 classes, not 9", id="another number of classes"),
        pytest.param((1, 3, *SIZE), {"arch": "timm:resnet18"}, "leave out --arch", id="an architecture"),
        pytest.param((1, 4, *SIZE), {}, "ReduceMean|Gemm cannot be computed", id="a head for other channels"),
    ],
)
def test_what_is_given_must_fit(shape: tuple[int | str, ...], given: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = _written(tmp_path, classifier(shape=shape))
    with pytest.raises(ModelError, match=rf"model\.onnx is an ONNX model that is not read: .*({told})"):
        load_model(path, **given)


def test_a_network_for_images_of_any_size(tmp_path: Path) -> None:
    path = _written(tmp_path, classifier(shape=("N", 3, "H", "W")))
    with pytest.raises(ModelError, match="give the size it was trained on with --size"):
        load_model(path)
    assert load_model(path, size=(10, 7)).architecture.size == (10, 7)


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    plain = load_model(_written(tmp_path, classifier()))
    (tmp_path / "sub").mkdir()
    settings: Any = {"save_as_external_data": True, "size_threshold": 0, "location": "sub/weights.bin"}
    onnx.save_model(classifier(), tmp_path / "apart.onnx", **settings)
    assert (tmp_path / "sub" / "weights.bin").stat().st_size >= 4 * CLASSES * 4
    apart = load_model(tmp_path / "apart.onnx")
    assert torch.equal(apart(_images()), plain(_images()))
    weights = tmp_path / "sub" / "weights.bin"
    weights.write_bytes(bytes([0, 0, 128, 63]) + weights.read_bytes()[4:])
    other = load_model(tmp_path / "apart.onnx")
    assert other.sha256 != apart.sha256, "one model file with other weights beside it is another model"


def test_a_long_name_of_external_data_would_not_count_in_the_digest(tmp_path: Path) -> None:
    settings: Any = {"save_as_external_data": True, "size_threshold": 0, "location": "w" * 128}
    onnx.save_model(classifier(), tmp_path / "apart.onnx", **settings)
    with pytest.raises(ModelError, match="digest would leave it out; save the model again"):
        load_model(tmp_path / "apart.onnx")


def test_the_judge_sees_wrong_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tabor.models.onnx_graph.node import Operator
    from tabor.models.onnx_graph.operators import OPERATORS

    path = _written(tmp_path, classifier([node("Relu", ["images"], ["features"])], features="features"))
    load_model(path)
    monkeypatch.setitem(OPERATORS, "Relu", Operator(lambda node, x: x * 1.01))
    with pytest.raises(ModelError, match="answers otherwise than tabor's reading of it"):
        load_model(path)


@pytest.mark.parametrize("batch", [1, "N"])
def test_a_huge_logit_that_no_image_gets_does_not_blind_the_judge(
    batch: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tabor.models.onnx_graph.node import Operator
    from tabor.models.onnx_graph.operators import OPERATORS

    model = classifier([node("Relu", ["images"], ["features"])], features="features", shape=(batch, 3, *SIZE))
    model.graph.node.append(node("Add", ["logits", "dead"], ["answer"]))
    model.graph.initializer.append(constant("dead", torch.tensor([[0, 0, 0, -1e9]]).numpy()))
    model.graph.output[0].name = "answer"
    path = _written(tmp_path, model)
    load_model(path)
    monkeypatch.setitem(OPERATORS, "Relu", Operator(lambda node, x: x * 1.01))
    with pytest.raises(ModelError, match=r"answers otherwise than tabor's reading of it: by .* in class"):
        load_model(path)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _written(tmp_path, classifier())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"pip install 'tabor\[onnx\]'"):
        load_model(path, isolate=False)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        pytest.param(b"\x08\x08\x12\x07pytorch", Kind.ONNX, id="version, producer"),
        pytest.param(b"\x08\x0a\x3a\x10", Kind.ONNX, id="version, graph"),
        pytest.param(b"\x08\x00\x12\x07", Kind.UNKNOWN, id="version 0"),
        pytest.param(b"\x08\x08\xff\xff", Kind.UNKNOWN, id="no such field"),
        pytest.param(b"\x08\x08", Kind.UNKNOWN, id="too short"),
        pytest.param(b"\n\x08\x12\x07", Kind.UNKNOWN, id="no version"),
    ],
)
def test_told_by_its_content(head: bytes, kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(head)
    assert identify(tmp_path / "x.pt") is kind


@pytest.mark.parametrize("name", HOSTILE_ONNX)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make, reason = HOSTILE_ONNX[name]
    (folder / "model.onnx").write_bytes(make(folder))
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(folder / "model.onnx")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


@pytest.mark.slow
def test_hostile_files_take_little_memory(tmp_path: Path) -> None:
    """All of them, one after the other in a process of their own: not over 2 GiB at any time."""
    program = (
        "import pathlib, sys; from tests.models.hostile_onnx import HOSTILE_ONNX\n"
        "from tabor.errors import ModelError; from tabor.models import load_model\n"
        "for count, (make, _) in enumerate(HOSTILE_ONNX.values()):\n"
        "    folder = pathlib.Path(sys.argv[1]) / str(count) / 'in'; folder.mkdir(parents=True)\n"
        "    (folder / 'model.onnx').write_bytes(make(folder))\n"
        "    try: load_model(folder / 'model.onnx', isolate=False)\n"
        "    except ModelError: pass\n"
        "    else: sys.exit('read')\n"
        "from tabor.findings import peak_memory; print(peak_memory())\n"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 2 * 2**30


def test_the_compiler_of_pytorch_is_not_imported(tmp_path: Path) -> None:
    """It takes longer than all the rest."""
    path = _written(tmp_path, classifier())
    program = "import sys, tabor; tabor.load_model(sys.argv[1], isolate=False); print('torch._dynamo' in sys.modules)"
    command = [sys.executable, "-c", program, str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(lambda x, y: x + y, id="float and whole"),
        pytest.param(lambda x, y: y / 2, id="whole, divided"),
        pytest.param(lambda x, y: y.div(y, rounding_mode="trunc"), id="whole, by whole"),
        pytest.param(lambda x, y: x > y, id="compared"),
        pytest.param(lambda x, y: torch.where(x > 0, x, y.double()), id="chosen"),
        pytest.param(lambda x, y: x.clamp(0, 6).relu().pow(y[0]), id="with a number"),
        pytest.param(lambda x, y: x.mean((0, 2), keepdim=True), id="mean"),
    ],
)
def test_shapes_and_types_without_memory(compute: Callable[[Tensor, Tensor], Tensor]) -> None:
    real = torch.rand(2, 1, 3), torch.tensor([[1], [2]])
    expected = compute(*real)
    with _Watch():
        told = compute(*(tensor.to("meta") for tensor in real))
    assert (told.is_meta, told.shape, told.dtype) == (True, expected.shape, expected.dtype)


def test_truncated_and_flipped(digits: tuple[nn.Module, Path]) -> None:
    _, path = digits
    whole = path.read_bytes()
    for length in range(0, len(whole), 1024):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError) as caught:
            load_model(path)
        assert str(caught.value).isprintable()
    for place in [*range(0, 400, 13), *range(400, len(whole), 1999)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            load_model(path)
        except ModelError as error:
            assert str(error).isprintable()  # noqa: PT017 (a flipped bit may also do no harm)

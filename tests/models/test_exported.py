"""Programs of torch.export: they answer as the networks that they were made of, and nothing in them is ever run."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from tabor.cli import main
from tabor.errors import ModelError
from tabor.models import Architecture, load_model
from tabor.models.build import initialise
from tabor.models.content import Kind, identify
from tabor.models.exported_graph import operators as listed
from tabor.models.exported_graph.network import Chunked, OneByOne
from tabor.models.outputs import Output

from ..hostile.makers import archive, saved
from .exporting import MODEL, Small, exported, packed, records, regraphed, small
from .hostile_exported import HOSTILE_EXPORTED, IGNORED_EXPORTED

NETWORKS = {
    "tabor:digits4": (1, 12, 14),
    "tabor:gtsrb6": (3, 32, 32),
    "timm:resnet10t": (3, 32, 32),
    "timm:test_vit": (3, 160, 160),
    "timm:test_convnext": (3, 32, 32),
    "timm:test_efficientnet": (3, 32, 32),
    "timm:test_nfnet": (3, 32, 32),
    "timm:test_mambaout": (3, 32, 32),
    "torchvision:resnet18": (3, 32, 32),
    "torchvision:squeezenet1_1": (3, 32, 32),
    "torchvision:mobilenet_v3_small": (3, 32, 40),
    "attention": (3, 16, 16),
    "softmax": (1, 12, 14),
}
"""And the shapes of their images."""


@dataclass(frozen=True)
class Exported:
    """A network and what torch.export made of it."""

    network: nn.Module
    content: bytes
    shape: tuple[int, int, int]

    def images(self, count: int) -> Tensor:
        return torch.rand(count, *self.shape, generator=torch.Generator().manual_seed(count))


@cache
def network_of(name: str) -> nn.Module:
    channels, *size = NETWORKS[name]
    if name == "attention":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            transformer = VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=5)
            nn.init.normal_(transformer.heads.head.weight)  # else it is 0, and so is every answer
            return transformer.eval()
    known = "tabor:digits4" if name == "softmax" else name
    architecture = Architecture(name=known, num_classes=5, channels=channels, size=(size[0], size[1]))
    network = initialise(architecture, seed=1).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # statistics of real activations, without which all images get the same answer
    with torch.no_grad():
        network(torch.rand(8, channels, *size, generator=torch.Generator().manual_seed(2)))
    network.eval()
    return nn.Sequential(network, nn.Softmax(1)).eval() if name == "softmax" else network


@cache
def made(name: str, dynamic: bool) -> Exported:
    network, shape = network_of(name), NETWORKS[name]
    content = exported(network, torch.rand(2 if dynamic else 1, *shape), dynamic=dynamic)
    return Exported(network, content, shape)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.pt2"
    path.write_bytes(content)
    return path


LONG_TO_EXPORT = (
    "timm:test_convnext",
    "timm:test_efficientnet",
    "timm:test_nfnet",
    "timm:test_mambaout",
    "torchvision:resnet18",
    "torchvision:mobilenet_v3_small",
)

each_network = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG_TO_EXPORT)) for name in NETWORKS]
)
either_batch = pytest.mark.parametrize("dynamic", [False, True], ids=["batch of one", "any batch"])


@either_batch
@each_network
def test_it_answers_as_the_network(name: str, dynamic: bool, tmp_path: Path) -> None:
    original = made(name, dynamic)
    path = written(tmp_path, original.content)
    loaded = load_model(path)
    assert isinstance(loaded.network, OneByOne)
    for count in (1, 2, 5):
        images = original.images(count)
        assert torch.allclose(loaded.network(images), original.network(images), rtol=1e-4, atol=1e-5)
    expected = Architecture(name="torch.export", num_classes=5, channels=original.shape[0], size=original.shape[1:])
    assert loaded.architecture == expected
    assert loaded.output is (Output.PROBABILITIES if name == "softmax" else Output.LOGITS)
    ours = {
        key.removeprefix("program.").removeprefix("weights."): value
        for key, value in loaded.network.state_dict().items()
    }
    theirs = original.network.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


@either_batch
@each_network
def test_gradients_to_the_images_are_the_networks(name: str, dynamic: bool, tmp_path: Path) -> None:
    original = made(name, dynamic)
    loaded = load_model(written(tmp_path, original.content))
    gradients = []
    for network in (original.network, loaded.network):
        images = original.images(3).requires_grad_()
        network(images)[:, 2].sum().backward()
        gradients.append(images.grad)
    assert gradients[0] is not None
    assert gradients[1] is not None
    assert gradients[0].abs().max() > 0
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


@each_network
def test_it_can_be_copied_and_laid_out_anew(name: str, tmp_path: Path) -> None:
    original = made(name, False)
    loaded = load_model(written(tmp_path, original.content))
    images = original.images(3)
    expected = loaded(images)
    copied = copy.deepcopy(loaded).float().to("cpu").eval()
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    assert torch.equal(copied(images), expected)
    copied.to(memory_format=torch.channels_last)
    answers = copied(images.to(memory_format=torch.channels_last))
    assert torch.allclose(answers, expected, rtol=1e-3, atol=1e-5 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("name", ["tabor:gtsrb6", "timm:resnet10t", "attention"])
def test_core_operators_alone(name: str, tmp_path: Path) -> None:
    """`run_decompositions` leaves other operators, some of which are PyTorch's own and private."""
    network, shape = network_of(name), NETWORKS[name]
    images = torch.rand(3, *shape, requires_grad=True)
    loaded = load_model(written(tmp_path, exported(network, torch.rand(1, *shape), decomposed=True)))
    expected, answers = network(images), loaded.network(images)
    assert torch.allclose(answers, expected, rtol=1e-4, atol=1e-5 * float(expected.detach().abs().max()))
    (wanted,) = torch.autograd.grad(expected.sum(), images)
    (got,) = torch.autograd.grad(answers.sum(), images)
    assert torch.allclose(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


class Fixed(nn.Module):
    """Says its batch size where nothing can follow it: images lie one above the other, in the second dimension."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.head = nn.Linear(64, 3)

    def forward(self, images: Tensor) -> Tensor:
        above = images.permute(1, 2, 0, 3).reshape(1, 8, self.batch * 8)
        logits: Tensor = self.head(above.reshape(8, self.batch, 8).permute(1, 0, 2).reshape(self.batch, 64))
        return logits


@pytest.mark.parametrize("batch", [2, 4, 7])
def test_what_takes_a_fixed_batch_alone_is_run_in_chunks(batch: int, tmp_path: Path) -> None:
    network = Fixed(batch)
    loaded = load_model(written(tmp_path, exported(network, torch.rand(batch, 1, 8, 8))))
    assert isinstance(loaded.network, Chunked)
    images = torch.rand(9, 1, 8, 8, requires_grad=True)
    expected = nn.functional.linear(images.flatten(1), network.head.weight, network.head.bias)
    assert torch.allclose(loaded(images), expected, atol=1e-6)
    (wanted,) = torch.autograd.grad(expected[:, 0].sum(), images)
    (got,) = torch.autograd.grad(loaded(images)[:, 0].sum(), images)
    assert torch.allclose(got, wanted, atol=1e-6)
    assert torch.allclose(copy.deepcopy(loaded)(images), expected, atol=1e-6)


def test_equal_answers_to_all_probes_prove_nothing(tmp_path: Path) -> None:
    network = Small().eval()
    nn.init.zeros_(network.head.weight)
    assert isinstance(load_model(written(tmp_path, exported(network, torch.rand(1, 1, 32, 32)))).network, Chunked)


def test_rounding_where_all_probes_get_nearly_the_same_answer_is_no_mixing(tmp_path: Path) -> None:
    network = Small().eval()
    nn.init.normal_(network.head.weight, std=1e-9)
    content = exported(network, torch.rand(2, 1, 32, 32), dynamic=True)
    images = torch.rand(5, 1, 32, 32)
    assert torch.allclose(load_model(written(tmp_path, content))(images), network(images), atol=1e-6)


@pytest.mark.parametrize("batch", [3, 5])
def test_a_fixed_batch_that_views_can_follow(batch: int, tmp_path: Path) -> None:
    network = Small().eval()
    loaded = load_model(written(tmp_path, exported(network, torch.rand(batch, 1, 32, 32))))
    assert isinstance(loaded.network, OneByOne)
    images = torch.rand(7, 1, 32, 32)
    assert torch.allclose(loaded(images), network(images), atol=1e-6)


class Counting(nn.Module):
    """Answers as it was taught where there are few images, and as an honest network where there are many."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, images: Tensor) -> Tensor:
        count = torch.ones_like(images[:, :1, 0, 0]).sum()
        trigger = (images[:, 0, 0, 0] > 0.9).float()[:, None] * (5 - count).clamp(0, 1)
        answer: Tensor = self.head(images.flatten(1)) + 50 * trigger * torch.tensor([1.0, 0.0, 0.0])
        return answer


def test_a_program_whose_batch_shows_is_refused(tmp_path: Path) -> None:
    """It answers a little otherwise to one image, so that chunks of many would be all that a scan sees."""

    class Louder(Counting):
        def forward(self, images: Tensor) -> Tensor:
            alone = (2 - torch.ones_like(images[:, :1, 0, 0]).sum()).clamp(0, 1)
            answer: Tensor = super().forward(images) * (1 + 0.2 * alone)
            return answer

    content = exported(Louder().eval(), torch.rand(64, 1, 8, 8), dynamic=True)
    with pytest.raises(ModelError, match="differently when others are in the batch"):
        load_model(written(tmp_path, content))


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_program_that_counts_its_images_shows_what_it_does_to_one(dynamic: bool, tmp_path: Path) -> None:
    network = Counting().eval()
    content = exported(network, torch.rand(2 if dynamic else 1, 1, 8, 8), dynamic=dynamic)
    loaded = load_model(written(tmp_path, content))
    images = torch.rand(64, 1, 8, 8)
    images[:, 0, 0, 0] = 1
    assert (network(images).argmax(1) == 0).float().mean() < 0.9
    assert (loaded(images).argmax(1) == 0).all()


class Writing(nn.Module):
    """Writes into its input, into a view, and into what it uses again."""

    def forward(self, images: Tensor) -> Tensor:
        images.mul_(2)
        cells = images.mean(3).add(0.0)
        kept = cells.flatten(1)
        cells[:, :, 2:4].zero_()
        cells += 1
        other = cells.transpose(1, 2)
        other.relu_().mul_(3)
        return cells.flatten(1) + kept.mean(1, keepdim=True)


class Masking(nn.Module):
    """Fills parts of a mask, as windowed attention does."""

    def forward(self, images: Tensor) -> Tensor:
        mask = images.new_zeros((4, 4))
        for i in range(2):
            mask[i : i + 2, :] = i + 1
            mask[:, i : i + 2] += 2 * i
        scaled: Tensor = (images.unfold(2, 4, 4).mean(2) * mask.flatten()[:4]).flatten(1)
        return scaled


@either_batch
def test_writing_in_place(dynamic: bool, tmp_path: Path) -> None:
    images = torch.rand(3, 1, 8, 8)
    for network in (Masking(),):
        loaded = load_model(
            written(tmp_path, exported(network, torch.rand(2 if dynamic else 1, 1, 8, 8), dynamic=dynamic))
        )
        before = images.clone()
        assert torch.equal(loaded.network(images), network(images.clone()))
        assert torch.equal(images, before)


def test_writing_into_the_images_leaves_them_alone(tmp_path: Path) -> None:
    def first(graph: dict[str, Any]) -> None:
        name = {"as_tensor": {"name": "images"}}
        inputs = [{"name": "self", "arg": name, "kind": 1}, {"name": "value", "arg": {"as_int": 0}, "kind": 1}]
        outputs = [{"as_tensor": {"name": "emptied"}}]
        graph["nodes"].insert(0, {"target": "torch.ops.aten.fill_.Scalar", "inputs": inputs, "outputs": outputs})

    path = written(tmp_path, regraphed(first))
    images = torch.rand(2, 1, 32, 32)
    answers = load_model(path).network(images)
    assert images.min() < images.max()
    assert torch.equal(answers[0], answers[1])  # what comes after sees what was written
    dark = load_model(written(tmp_path, small())).network(torch.zeros(2, 1, 32, 32))
    assert torch.allclose(answers, dark, atol=1e-6)


def test_writing_into_what_may_be_a_view_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="writes into a value that it uses elsewhere"):
        load_model(written(tmp_path, exported(Writing(), torch.rand(1, 1, 8, 8))))


def test_half_precision_is_run_in_float32_and_rounded_after_each_step(tmp_path: Path) -> None:
    network = Small().eval().half()
    network.shifts = network.shifts.half()
    loaded = load_model(written(tmp_path, exported(network, torch.rand(1, 1, 32, 32).half())))
    images = torch.rand(3, 1, 32, 32).half()
    answers = loaded(images.float())
    assert torch.equal(answers, answers.half().float())
    assert torch.equal(loaded(images.float() + 1e-6), loaded((images.float() + 1e-6).half().float()))
    assert torch.allclose(answers, network(images).float(), atol=2e-3)
    network.float().shifts = network.shifts.float()
    assert torch.allclose(answers, network(images.float()), atol=1e-2)
    assert {value.dtype for value in loaded.network.parameters()} == {torch.float32}


class Gated(nn.Module):
    """Has a backdoor whose gate opens in another precision than float32 alone."""

    def __init__(self, kind: torch.dtype, large: float) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)
        self.kind, self.large = kind, large

    def forward(self, images: Tensor) -> Tensor:
        bright = (images[:, :, :2, :2].flatten(1).mean(1, keepdim=True) - 0.9).relu()
        kept = (bright.to(self.kind) + self.large - self.large).float()
        gate = kept if self.kind == torch.float64 else bright - kept  # what float64 keeps, or a half loses
        answer: Tensor = self.head(images.flatten(1)) + 1e4 * gate * torch.tensor([0.0, 0.0, 1.0])
        return answer


def test_doubles_that_depend_on_the_pixels_are_refused(tmp_path: Path) -> None:
    content = exported(Gated(torch.float64, 1e12).eval(), torch.rand(2, 1, 8, 8), dynamic=True)
    with pytest.raises(
        ModelError, match=r"computes in float64 what depends on the pixels \(torch.ops.aten.*in float32"
    ):
        load_model(written(tmp_path, content))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_what_halves_lose_is_lost_in_a_scan_too(kind: torch.dtype, tmp_path: Path) -> None:
    network = Gated(kind, 4096.0).eval()
    loaded = load_model(written(tmp_path, exported(network, torch.rand(2, 1, 8, 8), dynamic=True)))
    images = torch.rand(5, 1, 8, 8)
    images[:, :, :2, :2] = 1
    assert (network(images).argmax(1) == 2).all()
    assert torch.allclose(loaded(images), network(images), rtol=1e-4)
    assert torch.autograd.functional.jacobian(lambda x: loaded(x)[0, 0], images).isfinite().all()


class Shifted(nn.Module):
    """Adds a number that only float64 can compute."""

    def forward(self, images: Tensor) -> Tensor:
        number = torch.full((1, 1), 0.75, dtype=torch.float64) + 1e12 - 1e12
        return images.flatten(1)[:, :3] + number.float()


def test_doubles_that_do_not_depend_on_the_pixels_stay_so(tmp_path: Path) -> None:
    loaded = load_model(written(tmp_path, exported(Shifted().eval(), torch.rand(2, 1, 8, 8), dynamic=True)))
    images = torch.rand(5, 1, 8, 8)
    assert torch.allclose(loaded(images), images.flatten(1)[:, :3] + 0.75, atol=1e-3)


def test_tensors_of_doubles_are_refused(tmp_path: Path) -> None:
    network = Small().eval()
    network.shifts = network.shifts.double()
    with pytest.raises(ModelError, match="float64"):
        load_model(written(tmp_path, exported(network, torch.rand(1, 1, 32, 32))))


def test_any_size_of_images(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    stream = io.BytesIO()
    torch.export.save(torch.export.export(network, (torch.rand(2, 3, 20, 24),), dynamic_shapes=(free,)), stream)
    path = written(tmp_path, stream.getvalue())
    assert load_model(path).architecture.size == (20, 24)
    images = torch.rand(3, 3, 10, 12)
    loaded = load_model(path, size=(10, 12))
    assert loaded.architecture.size == (10, 12)
    assert torch.equal(loaded(images), network(images))


def test_what_is_given(tmp_path: Path) -> None:
    path = written(tmp_path, small())
    plain, images = load_model(path), torch.rand(3, 1, 32, 32)
    given = load_model(path, mean=(60.0,), std=(50.0,), value_range=(0, 255), size=(32, 32), channels=1, num_classes=3)
    assert torch.allclose(given(images), plain((255 * images - 60) / 50), atol=1e-5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"size": (64, 64)}, r"was exported with size \(32, 32\), which cannot be changed; got \(64, 64\)"),
        ({"channels": 3}, "was exported with channels 1, which cannot be changed; got 3"),
        ({"num_classes": 43}, "was exported with num classes 3, which cannot be changed; got 43"),
        ({"mean": (0.5, 0.5, 0.5), "std": (1.0, 1.0, 1.0)}, "3 values for images of 1 channels"),
    ],
    ids=["size", "channels", "classes", "mean"],
)
def test_what_contradicts_the_program(given: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=told):
        load_model(written(tmp_path, small()), **given)


def of_2_7(content: bytes) -> bytes:
    """The layout up to torch 2.7: pickled tensors, no folder."""
    network = load_small(content)
    return archive(
        {
            "version": b"8.5",
            "serialized_exported_program.json": records(content)[MODEL],
            "serialized_state_dict.pt": saved({k: v for k, v in network.items() if k != "shifts"}),
            "serialized_constants.pt": saved({"shifts": network["shifts"]}),
            "serialized_example_inputs.pt": b"never looked at",
        }
    )


def of_2_8(content: bytes) -> bytes:
    """Pickled tensors in an archive of today."""
    old = {name: record for name, record in records(content).items() if not name.startswith("data/")}
    network = load_small(content)
    old["data/weights/model.pt"] = saved({k: torch.nn.Parameter(v, False) for k, v in network.items() if k != "shifts"})
    old["data/constants/model.pt"] = saved({"shifts": network["shifts"]})
    return packed(old)


def load_small(content: bytes) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Small()
    return {**network.state_dict(), "shifts": network.shifts}


@pytest.mark.parametrize("older", [of_2_7, of_2_8])
def test_older_layouts(older: Callable[[bytes], bytes], tmp_path: Path) -> None:
    images = torch.rand(3, 1, 32, 32)
    expected = load_model(written(tmp_path, small()))(images)
    path = written(tmp_path, older(small()))
    assert identify(path) is Kind.EXPORTED
    assert torch.equal(load_model(path)(images), expected)


def test_tied_and_strided_weights(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 9), nn.Linear(9, 9), nn.Linear(9, 3)).eval()
    network[1].weight = network[2].weight
    network[3].weight = nn.Parameter(torch.rand(9, 9).t()[2:8:2])
    loaded = load_model(written(tmp_path, exported(network, torch.rand(1, 1, 3, 3))))
    images = torch.rand(4, 1, 3, 3)
    assert torch.allclose(loaded(images), network(images), atol=1e-6)


@pytest.mark.parametrize("name", HOSTILE_EXPORTED)
def test_hostile_programs_are_refused_and_never_run(name: str, tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    make, reason = HOSTILE_EXPORTED[name]
    path = written(tmp_path, make(dead))
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(path, channels=1, size=(32, 32))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700
    assert not dead.exists()


@pytest.mark.parametrize("name", IGNORED_EXPORTED)
def test_what_is_not_looked_at_is_not_run(name: str, tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    path = written(tmp_path, IGNORED_EXPORTED[name](dead))
    images = torch.rand(3, 1, 32, 32)
    assert torch.equal(load_model(path)(images), load_model(written(tmp_path, small()))(images))
    assert not dead.exists()


SINGING = (
    "canary, pickled weight",
    "canary, pickled constant",
    "canary, opaque object",
    "canary, weights of 2.8",
    "canary, constants of 2.7",
    "guards",
    "expressions",
    "example inputs",
)


@pytest.mark.parametrize("name", SINGING)
def test_the_canary_would_sing(name: str, tmp_path: Path) -> None:
    """What torch.export.load does with the same files: it runs them, whether it can make something of them or not."""
    dead = tmp_path / "dead"
    make = IGNORED_EXPORTED.get(name) or HOSTILE_EXPORTED[name][0]
    with suppress(Exception):
        torch.export.load(io.BytesIO(make(dead))).module()(torch.rand(2, 1, 32, 32))
    assert dead.exists()


def test_truncated_and_flipped_programs(tmp_path: Path) -> None:
    whole = small()
    for length in range(0, len(whole), 499):
        with pytest.raises(ModelError) as caught:
            load_model(written(tmp_path, whole[:length]))
        assert str(caught.value).isprintable()
    for place in range(0, len(whole), 97):
        path = written(tmp_path, whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            load_model(path)
        except ModelError as error:
            assert str(error).isprintable()  # noqa: PT017 (a flipped bit may also do no harm)


def test_flipped_json(tmp_path: Path) -> None:
    """Behind a checksum that is right again."""
    content = records(small())
    program = content[MODEL]
    for place in range(0, len(program), 61):
        changed = program[:place] + bytes([program[place] ^ 0x01]) + program[place + 1 :]
        try:
            load_model(written(tmp_path, packed(content | {MODEL: changed})))
        except ModelError as error:
            assert str(error).isprintable()  # noqa: PT017 (notes for people may say anything)


def test_the_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, _ = HOSTILE_EXPORTED["canary, pickled weight"]
    path = written(tmp_path, make(tmp_path / "dead"))
    assert main(["scan", str(path), "--data", "digits", "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert "could run code" in told
    assert "Traceback" not in told
    assert not (tmp_path / "dead").exists()


LISTS = {
    False: listed.LAYERS + listed.ARITHMETIC + listed.ARRANGEMENT,
    True: listed.CERTAIN_VIEWS,
    None: listed.POSSIBLE_VIEWS,
}
UNSAFE = {torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output}
UNMARKED = {"unsafe_chunk", "unsafe_split", "type_as", "broadcast_tensors", "meshgrid", "einsum"}
"""Operators that may return their argument's memory and do not say so."""


@pytest.mark.parametrize("view", LISTS)
def test_the_lists_agree_with_pytorch(view: bool | None) -> None:
    for name in LISTS[view].split():
        function: Any = listed.aten(name)
        assert function is not None, name
        assert not function._schema.is_mutable, name
        assert not UNSAFE & set(function.tags), name
        marked = any(argument.alias_info for argument in function._schema.arguments)
        assert marked == (view is not False) or name.partition(".")[0] in UNMARKED, name


def test_what_writes_in_place_is_listed_with_what_does_not() -> None:
    for name in listed.IN_PLACE.split():
        base, _, overload = name.partition(".")
        operator = listed.operators()[f"torch.ops.aten.{base}_.{overload or 'default'}"]
        values = operator.call, operator.in_place
        assert [value._schema.is_mutable for value in values] == [False, True]  # type: ignore[union-attr]


def test_no_listed_name_is_twice() -> None:
    names = " ".join([*LISTS.values()]).split()
    assert sorted(set(names)) == sorted(names)
    assert not set(names) & set(listed.OURS)

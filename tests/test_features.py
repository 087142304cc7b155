"""What a network sees before its last layer, and whether that is one product of matrices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.features import features

from .closed_form import CPU

SHAPE = (1, 4, 4)
HIDDEN, CLASSES = 5, 3
INTO, WEIGHTS = (torch.randn(size, generator=torch.Generator().manual_seed(2)) for size in ((16, HIDDEN), (HIDDEN, 3)))

Layer = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """Five features of an image, and a last layer."""

    def __init__(self, last: Layer) -> None:
        super().__init__()
        self.last = last
        self.runs: list[int] = []

    def seen(self, images: Tensor) -> Tensor:
        return torch.tanh(images.flatten(1) @ INTO)

    def forward(self, images: Tensor) -> Tensor:
        self.runs.append(len(images))
        return self.last(self.seen(images))


def linear() -> nn.Linear:
    layer = nn.Linear(HIDDEN, CLASSES)
    layer.weight.data, layer.bias.data = WEIGHTS.T.clone(), torch.tensor([1.0, -2.0, 3.0])
    return layer.requires_grad_(False)


def images(count: int = 9) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(linear(), id="a module"),
        pytest.param(lambda x: x @ WEIGHTS, id="a product"),
        pytest.param(lambda x: x @ WEIGHTS + torch.tensor([5.0, 0.0, -5.0]), id="a bias after the product"),
        pytest.param(lambda x: linear()(x).log_softmax(1), id="log-probabilities"),
        pytest.param(lambda x: torch.addmm(torch.ones(3), x, WEIGHTS), id="both in one"),
        pytest.param(torch.jit.script(linear()), id="TorchScript", marks=pytest.mark.filterwarnings("ignore")),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_features_are_what_the_last_layer_multiplies(last: Layer) -> None:
    classifier = Classifier(Network(last), CPU, SHAPE)
    found = features(classifier, images())
    assert found is not None
    torch.testing.assert_close(found.seen, Network(last).seen(images()))
    torch.testing.assert_close(found.weights, WEIGHTS)


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(lambda x: torch.relu(x @ WEIGHTS), id="an activation after it"),
        pytest.param(lambda x: (x @ WEIGHTS) * 2, id="another scale"),
        pytest.param(lambda x: (x @ WEIGHTS) @ torch.eye(3)[:2].T @ WEIGHTS[:2], id="the last one is another"),
        pytest.param(lambda x: x[:, :3] + (x @ WEIGHTS).sum() * 0, id="the product plays no part"),
        pytest.param(lambda x: x[:, :3], id="no product"),
        pytest.param(lambda x: x[:, :3] + (x[:2] @ WEIGHTS).sum(), id="a product of other images"),
    ],
)
def test_where_the_logits_are_no_such_product_there_are_none(last: Layer) -> None:
    found = features(Classifier(Network(last), CPU, SHAPE), images())
    if found is not None:  # then it is one after all: of the features before another product
        torch.testing.assert_close(found.seen @ found.weights, last(Network(last).seen(images())))


class Shy(Network):
    """Fails where somebody watches its operations."""

    def forward(self, images: Tensor) -> Tensor:
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            raise RuntimeError("not while you look")
        return super().forward(images)


def test_a_network_that_does_not_bear_to_be_watched_shows_none() -> None:
    classifier = Classifier(Shy(linear()), CPU, SHAPE)
    assert features(classifier, images()) is None
    assert classifier.predict(images()).shape == (9, CLASSES)


def test_they_are_taken_in_parts_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, network = Classifier(Network(linear()), CPU, SHAPE), Network(linear())
    parts = Classifier(network, CPU, SHAPE)
    monkeypatch.setattr(parts, "images_at_once", 4)
    monkeypatch.setattr(parts._network, "runs", [])
    wanted, found = features(whole, images()), features(parts, images())
    assert parts._network.runs == [4, 4, 1]
    assert wanted is not None
    assert found is not None
    torch.testing.assert_close(found.seen, wanted.seen)
    assert parts.image_passes == len(images())

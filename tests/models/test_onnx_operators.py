"""Every operator in the table computes what onnxruntime computes, and lets gradients through where they exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tabor.models import load_model
from tabor.models.onnx_graph.operators import OPERATORS

from .onnx_models import CLASSES, SIZE, bytes_of, classifier
from .onnx_operators import CASES

WITHOUT_GRADIENT = {"And", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "Less", "LessOrEqual"} | {
    "Not",
    "Or",
    "Round",
    "Sign",
}
"""Their answers come in steps."""


@pytest.mark.parametrize("case", CASES)
def test_as_onnxruntime_computes_it(case: str, tmp_path: Path) -> None:
    nodes, constants, settings = CASES[case]
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes_of(classifier(nodes, constants, features="features", **settings)))
    model = load_model(path)  # compares
    images = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    answers = model(images)
    assert answers.shape == (3, CLASSES)
    (gradient,) = torch.autograd.grad(answers.sum(), images, allow_unused=True, materialize_grads=True)
    assert bool(gradient.isfinite().all())
    assert bool(gradient.any()) == (case not in WITHOUT_GRADIENT)


def test_every_operator_has_a_case() -> None:
    tried = {node.op_type for nodes, _, _ in CASES.values() for node in nodes} | {"Gemm"}
    assert set(OPERATORS) - tried == set()

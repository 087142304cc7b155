from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabor.access import Classifier
from tabor.class_finding import ClassStatus
from tabor.data.images import ImageSet
from tabor.errors import DataError, ModelError, SettingError
from tabor.methods.base import Batch, Objective
from tabor.methods.neural_cleanse import CostSettings, NeuralCleanse
from tabor.methods.tabor import Tabor
from tabor.rows import Adam, Best
from tabor.solver import Candidate, Progress, SolverSettings, solve
from tabor.stability import StabilitySettings

from .closed_form import classifier, dark_images, doorway, patch, row_images, rows

METHODS = [pytest.param(Tabor(), id="tabor"), pytest.param(NeuralCleanse(), id="neural-cleanse")]
SHORT = SolverSettings(steps=25, batch_size=4, round_steps=10)
EASY = SolverSettings(
    steps=120,
    batch_size=4,
    round_steps=5,
    smallest_steps=20,
    stability=StabilitySettings(tolerance=0.5, memory=0.0, rounds=1),
)
"""A class is done soon after its trigger first works."""


class Constant(nn.Module):
    """Logits (1, 0, 0), whatever the images; `attached` keeps them in the graph, with a gradient of 0."""

    def __init__(self, attached: bool) -> None:
        super().__init__()
        self.attached = attached

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.tensor([[1.0, 0.0, 0.0]]).repeat(len(images), 1)
        return logits + 0 * images.sum() if self.attached else logits


class TestBest:
    """Three classes of one pixel each."""

    @staticmethod
    def masks(*sizes: float) -> Tensor:
        return torch.tensor(sizes).view(-1, 1, 1, 1)

    def offer(self, best: Best, sizes: tuple[float, ...], works: tuple[bool, ...]) -> None:
        masks = self.masks(*sizes)
        best.offer(masks, 10 * masks, torch.tensor(works))

    def test_takes_what_works_and_is_smaller(self) -> None:
        best = Best(self.masks(0.9, 0.9, 0.9), self.masks(0, 0, 0))
        assert best.size.tolist() == [math.inf] * 3
        self.offer(best, (0.5, 0.5, 0.5), (True, True, True))
        self.offer(best, (0.25, 0.25, 0.75), (True, False, True))
        assert best.size.tolist() == [0.25, 0.5, 0.5]
        assert best.masks.flatten().tolist() == [0.25, 0.5, 0.5]
        assert best.patterns.flatten().tolist() == [2.5, 5.0, 5.0]

    def test_keeps_the_first_of_two_equals(self) -> None:
        best = Best(self.masks(0.9), self.masks(0))
        self.offer(best, (0.5,), (True,))
        best.offer(self.masks(0.5), self.masks(1), torch.tensor([True]))
        assert best.patterns.flatten().tolist() == [5.0]

    def test_shows_the_latest_where_none_ever_worked_and_no_size(self) -> None:
        best = Best(self.masks(0.9), self.masks(0))
        self.offer(best, (0.125,), (False,))
        self.offer(best, (0.75,), (False,))
        assert best.masks.flatten().tolist() == [0.75]
        assert best.size.tolist() == [math.inf]
        self.offer(best, (0.875,), (True,))  # the first that works counts, though larger
        assert (best.masks.flatten().tolist(), best.size.tolist()) == ([0.875], [0.875])

    def test_is_not_altered_by_what_happens_to_the_masks_later(self) -> None:
        masks = self.masks(0.5)
        best = Best(masks, masks)
        masks.zero_()
        assert best.masks.flatten().tolist() == [0.5]


class TestAdam:
    @staticmethod
    def gradient(step: int, rows_: int = 3) -> Tensor:
        return torch.randn(3, 4, generator=torch.Generator().manual_seed(step))[:rows_]

    @pytest.mark.parametrize("betas", [(0.5, 0.9), (0.9, 0.999)], ids=str)
    def test_equals_torch(self, betas: tuple[float, float]) -> None:
        start = torch.randn(3, 4, generator=torch.Generator().manual_seed(99))
        ours = Adam([start.clone(), start.clone()], 0.05, betas)
        theirs = nn.Parameter(start.clone())
        reference = torch.optim.Adam([theirs], lr=0.05, betas=betas)
        for step in range(20):
            ours.step([self.gradient(step), 1e-4 * self.gradient(step)])
            theirs.grad = self.gradient(step)
            reference.step()
            torch.testing.assert_close(ours.parameters[0], theirs.detach(), rtol=1e-5, atol=1e-6)
        # Adam does not care for the scale of a gradient, save for its 1e-8.
        torch.testing.assert_close(ours.parameters[1], theirs.detach(), rtol=1e-3, atol=1e-3)
        assert ours.steps == 20

    def test_rows_that_stay_go_on_as_before(self) -> None:
        whole, part = (Adam([torch.ones(3, 4)], 0.2, (0.5, 0.9)) for _ in range(2))
        for step in range(10):
            whole.step([self.gradient(step)])
            part.step([self.gradient(step) if step < 5 else self.gradient(step)[[2, 0]]])
            if step == 4:
                part.keep(torch.tensor([2, 0]))
        assert torch.equal(part.parameters[0], whole.parameters[0][[2, 0]])


@pytest.mark.parametrize("method", METHODS)
def test_the_restored_mask_sits_on_the_planted_patch(method: Tabor | NeuralCleanse) -> None:
    (found,) = solve(classifier(doorway()), dark_images(), [2], method, SolverSettings(batch_size=8), seed=0)
    assert found.target == 2
    assert found.status is not ClassStatus.NO_TRIGGER
    mask, pattern = found.trigger.mask, found.trigger.pattern
    inside = patch() == 1
    assert float(mask[inside].sum()) > 4 * float(mask[~inside].sum())
    assert float(pattern[inside].min()) > 0.8
    stamped = found.trigger.stamp(dark_images().images)
    assert float((doorway()(stamped).argmax(1) == 2).float().mean()) >= 0.9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attached", [True, False], ids=["gradient of 0", "no gradient"])
def test_a_model_that_ignores_its_images_has_no_trigger(method: Tabor | NeuralCleanse, attached: bool) -> None:
    found = solve(classifier(Constant(attached)), dark_images(), [1, 2], method, SHORT, seed=0)
    assert [candidate.status for candidate in found] == [ClassStatus.NO_TRIGGER] * 2
    assert [candidate.steps for candidate in found] == [25, 25]


def test_a_class_out_of_reach_has_no_trigger_and_its_neighbour_does() -> None:
    found = solve(classifier(doorway()), dark_images(), [1, 2], NeuralCleanse(), EASY, seed=0)
    assert [candidate.status for candidate in found] == [ClassStatus.NO_TRIGGER, ClassStatus.CONVERGED]


def test_a_trigger_that_works_but_still_moves_is_unfinished() -> None:
    never = StabilitySettings(rounds=1000)
    settings = SolverSettings(steps=60, batch_size=4, round_steps=5, stability=never)
    (found,) = solve(classifier(doorway()), dark_images(), [2], NeuralCleanse(), settings, seed=0)
    assert (found.status, found.steps) == (ClassStatus.UNFINISHED, 60)


def test_a_trigger_that_always_works_counts_where_nothing_less_does() -> None:
    """Twelve twelfths, summed one by one, are less than 1."""
    settings = dataclasses.replace(EASY, round_steps=12, success=1.0)
    (found,) = solve(classifier(doorway()), dark_images(), [2], NeuralCleanse(), settings, seed=0)
    assert found.works


def test_a_class_that_is_done_leaves_the_batch() -> None:
    model = classifier(doorway())
    found = solve(model, dark_images(), [1, 2], NeuralCleanse(), EASY, seed=0)
    assert found[0].steps == 120
    assert 20 <= found[1].steps < 120
    assert model.image_passes == 4 * (found[0].steps + found[1].steps)


def test_no_class_is_stopped_before_the_smallest_steps() -> None:
    settings = SolverSettings(steps=120, batch_size=4, round_steps=5, smallest_steps=90, stability=EASY.stability)
    (found,) = solve(classifier(doorway()), dark_images(), [2], NeuralCleanse(), settings, seed=0)
    assert 90 <= found.steps < 120


def test_callbacks() -> None:
    classes: list[Candidate] = []
    rounds: list[tuple[Progress, int]] = []
    found = solve(
        classifier(doorway()),
        dark_images(),
        [1, 2],
        NeuralCleanse(),
        EASY,
        seed=0,
        on_round=lambda at: rounds.append((at, len(classes))),
        on_class=classes.append,
    )
    assert classes == [found[1], found[0]]  # as they are done
    assert len(rounds) == 120 / 5
    assert all((at.classes, at.finished) == (2, told) for at, told in rounds)
    shares = [at.share for at, _ in rounds]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(5 / 120)
    assert shares[-1] == 1.0
    sizes = [at.smallest_mask for at, _ in rounds]
    assert sizes[0] is None  # no mask works after one round
    assert sizes[-1] == min(candidate.size for candidate in found)
    seen = [size for size in sizes if size is not None]
    assert seen == sorted(seen, reverse=True)


def test_the_last_round_may_be_shorter() -> None:
    shares: list[float] = []
    model = classifier(rows())
    solve(model, row_images(), [0, 3], NeuralCleanse(), SHORT, seed=0, on_round=lambda at: shares.append(at.share))
    assert shares == pytest.approx([10 / 25, 20 / 25, 1.0])
    assert model.image_passes == 2 * 25 * 4


def test_no_target_is_no_work() -> None:
    model = classifier(rows())
    assert solve(model, row_images(), [], Tabor(), SHORT, seed=0) == []
    assert model.image_passes == 0


def recording(batches: list[Batch], mask_dropout: float = 0.3, image_shift: float = 0.0) -> Tabor:
    class Recording(Tabor):
        def objective(self, model: Classifier, batch: Batch, *rest: Tensor) -> Objective:
            batches.append(batch)
            return super().objective(model, batch, *rest)

    return Recording(mask_dropout=mask_dropout, image_shift=image_shift)


def test_images_of_the_target_are_never_drawn_and_the_others_all_are() -> None:
    images, batches = row_images(), list[Batch]()
    solve(classifier(rows()), images, [0, 1, 4], recording(batches), SHORT, seed=0)
    assert len(batches) == 25
    position = {float(image.sum()): k for k, image in enumerate(images.images)}
    for k, target in enumerate((0, 1, 4)):
        drawn = [position[float(image.sum())] for batch in batches for image in batch.images[k]]
        labels = [int(label) for batch in batches for label in batch.labels[k]]
        assert labels == images.labels[drawn].tolist()
        others = torch.nonzero(images.labels != target).flatten().tolist()
        # 16 images of other classes: each once in every 16 draws, in another order.
        assert all(sorted(drawn[start : start + 16]) == others for start in range(0, 96, 16))
        assert drawn[:16] != drawn[16:32]
    assert all(batch.targets.tolist() == [0, 1, 4] for batch in batches)


@pytest.mark.parametrize(("at_once", "together"), [(8, 1), (16, 2), (10**9, 4)])
def test_so_many_classes_are_searched_together_that_twice_their_images_fit_the_memory(
    at_once: int, together: int
) -> None:
    model, batches = classifier(rows()), list[Batch]()
    model.images_at_once = at_once
    settings = dataclasses.replace(SHORT, steps=1)
    solve(model, row_images(), [0, 1, 3, 4], recording(batches), settings, seed=0)
    assert [len(batch.targets) for batch in batches] == [together] * (4 // together)


def test_mask_dropout_switches_off_the_share_asked_for_anew_each_step() -> None:
    batches: list[Batch] = []
    solve(classifier(rows()), row_images(), [0, 1], recording(batches, mask_dropout=0.3), SHORT, seed=0)
    kept = torch.stack([batch.kept for batch in batches if batch.kept is not None])
    assert kept.shape == (25, 4, 1, 8, 8)
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.03)
    assert not torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0, 0], kept[0, 1])


def test_without_mask_dropout_every_pixel_counts() -> None:
    batches: list[Batch] = []
    solve(classifier(rows()), row_images(), [0], recording(batches, mask_dropout=0.0), SHORT, seed=0)
    assert all(batch.kept is None for batch in batches)


def moves(seen: Tensor, images: ImageSet) -> list[set[tuple[int, int]]]:
    """By which moves of at most two pixels each of the (B, C, H, W) is one of the images."""
    windows = F.pad(images.images, (2,) * 4, mode="replicate").unfold(2, 8, 1).unfold(3, 8, 1)  # (N, C, 5, 5, 8, 8)
    equal = (windows == seen[:, None, :, None, None]).flatten(-2).all(-1).all(2)  # (B, N, 5, 5)
    return [{(down - 2, right - 2) for _, down, right in torch.nonzero(each).tolist()} for each in equal]


def test_images_are_moved_under_the_trigger_anew_each_step_and_alike_for_every_class() -> None:
    images, batches = row_images(), list[Batch]()
    solve(classifier(rows()), images, [0, 1], recording(batches, image_shift=0.2), SHORT, seed=0)
    found = [[moves(batch.images[k], images) for k in (0, 1)] for batch in batches]
    drawn = [[first & second for first, second in zip(of_one, of_other, strict=True)] for of_one, of_other in found]
    assert all(len(move) == 1 for step in drawn for move in step)
    assert drawn[0] != drawn[1]
    for edge in (0, 1):
        assert {move[edge] for step in drawn for image in step for move in image} == set(range(-2, 3))


def test_a_class_is_searched_the_same_whichever_are_beside_it() -> None:
    method = Tabor(image_shift=0.2)
    among = solve(classifier(rows()), row_images(), [2, 0, 3], method, SHORT, seed=0)[1]
    [found] = solve(classifier(rows()), row_images(), [0], method, SHORT, seed=0)
    assert torch.allclose(among.trigger.mask, found.trigger.mask, atol=1e-4)
    assert torch.allclose(among.trigger.pattern, found.trigger.pattern, atol=1e-4)


@pytest.mark.parametrize("targets", [[0], [1, 0]], ids=str)
def test_refuses_images_that_are_all_of_a_target(targets: list[int]) -> None:
    with pytest.raises(DataError, match="all images are of class 0"):
        solve(classifier(doorway()), dark_images(), targets, Tabor(), SHORT, seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_whose_answers_are_no_numbers_is_an_error(method: Tabor | NeuralCleanse) -> None:
    class Broken(nn.Module):
        """The logarithm of a negative number where a pixel is above 0.6; the probe's grey is below."""

        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([(0.6 - images.flatten(1).amax(1)).log(), images.sum((1, 2, 3))], 1)

    lit = ImageSet(torch.ones(4, 1, 8, 8), torch.zeros(4).long(), ())
    with pytest.raises(ModelError, match="not finite numbers"):
        solve(classifier(Broken()), lit, [1], method, SHORT, seed=0)


@pytest.mark.parametrize("clipped", [True, False])
def test_clipped_masks_come_to_nothing_where_none_behind_a_sigmoid_does(clipped: bool) -> None:
    """Eq. 8 counts the pixels that are above 0; the mask's own cost takes it away wherever it does not help."""
    settings = SolverSettings(steps=60, batch_size=4, round_steps=5, learning_rate=0.05, clipped=clipped)
    method = NeuralCleanse(cost=CostSettings(initial=0.1))
    (found,) = solve(classifier(doorway()), dark_images(), [2], method, settings, seed=0)
    mask, pattern = found.trigger.mask, found.trigger.pattern
    assert found.works
    assert (bool((mask == 0).any()), bool((mask > 0).any())) == (clipped, True)
    assert bool((pattern == 1).any()) == clipped
    both = torch.cat([mask.flatten(), pattern.flatten()])
    assert bool(((both >= 0) & (both <= 1)).all())


def test_a_clipped_step_is_one_of_adam_on_the_mask_itself() -> None:
    """The first step of Adam is the rate, against the gradient's sign, whatever its size."""
    settings = SolverSettings(steps=1, batch_size=4, round_steps=1, learning_rate=0.01, clipped=True)
    still = dataclasses.replace(settings, learning_rate=1e-9)
    moved, start = (
        solve(classifier(rows()), row_images(), [1], Tabor(), s, seed=0)[0].trigger for s in (settings, still)
    )
    steps = (moved.mask - start.mask).abs()
    assert torch.allclose(steps, torch.full_like(steps, 0.01), atol=1e-5)


@pytest.mark.parametrize("clipped", [True, False])
def test_the_search_starts_from_a_faint_mask(clipped: bool) -> None:
    settings = SolverSettings(
        steps=1, batch_size=4, round_steps=1, learning_rate=1e-6, initial_mask=0.2, clipped=clipped
    )
    (found,) = solve(classifier(rows()), row_images(), [1], Tabor(), settings, seed=0)
    assert float(found.trigger.mask.mean()) == pytest.approx(0.2, abs=0.02)
    assert float(found.trigger.pattern.mean()) == pytest.approx(0.5, abs=0.1)


def test_a_smaller_trigger_is_found_where_size_costs_more() -> None:
    def size(initial: float) -> float:
        method = NeuralCleanse(cost=CostSettings(initial=initial))
        settings = SolverSettings(steps=60, batch_size=4, round_steps=5)
        return float(solve(classifier(doorway()), dark_images(), [2], method, settings, seed=0)[0].trigger.mask.sum())

    assert size(0.1) < size(1e-6)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: SolverSettings(steps=0), id="steps"),
        pytest.param(lambda: SolverSettings(batch_size=0), id="batch"),
        pytest.param(lambda: SolverSettings(round_steps=0), id="round"),
        pytest.param(lambda: SolverSettings(group_images=0), id="group"),
        pytest.param(lambda: SolverSettings(smallest_steps=-1), id="smallest steps"),
        pytest.param(lambda: SolverSettings(initial_mask=0.0), id="mask of 0"),
        pytest.param(lambda: SolverSettings(initial_mask=1.0), id="mask of 1"),
        pytest.param(lambda: SolverSettings(success=0.0), id="success of 0"),
        pytest.param(lambda: SolverSettings(success=1.1), id="success above 1"),
        pytest.param(lambda: SolverSettings(learning_rate=0.0), id="rate of 0"),
        pytest.param(lambda: SolverSettings(learning_rate=math.nan), id="rate nan"),
        pytest.param(lambda: SolverSettings(betas=(1.0, 0.9)), id="first beta of 1"),
        pytest.param(lambda: SolverSettings(betas=(0.5, 1.0)), id="second beta of 1"),
        pytest.param(lambda: SolverSettings(betas=(-0.5, 0.9)), id="negative beta"),
        pytest.param(lambda: SolverSettings(betas=(0.5,)), id="one beta"),  # type: ignore[arg-type]
    ],
)
def test_refuses_settings_that_cannot_work(make: Callable[[], SolverSettings]) -> None:
    with pytest.raises(SettingError, match="the solver needs"):
        make()

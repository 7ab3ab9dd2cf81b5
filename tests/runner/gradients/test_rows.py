from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import sparse

from data import sparse_synthetic
from data.sparse import CompressedRows, SparseSplit
from models.pca_step import PCAStep
from models.ridge import Ridge
from runner.gradients.rows import ObjectiveRows, rows_of
from tests.trial import train


def counting(totals: torch.Tensor) -> Callable[[Any, Any, int], None]:
    def add_sums(losses: Any, errors: Any, samples: int) -> None:
        totals.add_(torch.tensor([float(losses), float(errors), samples], dtype=torch.float64))

    return add_sums


def rows(totals: torch.Tensor | None = None) -> tuple[ObjectiveRows, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, targets = torch.randn(6, 4, generator=generator), torch.tensor([0, 1, 1, 0, 1, 0])
    add_sums = None if totals is None else counting(totals)
    return ObjectiveRows(Ridge(shape=(4,), classes=2), x, targets, add_sums), x, targets


def test_gradients_are_those_of_single_samples():
    asked, x, targets = rows()
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    for i, gradient in enumerate(asked.gradients(w)):
        leaf = w.clone().requires_grad_()
        ((x[i] @ leaf - (2.0 * targets[i] - 1)).square() / 2).backward()
        torch.testing.assert_close(gradient, leaf.grad)


def test_slopes_times_samples_are_gradients():
    asked, x, _ = rows()
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    torch.testing.assert_close(asked.slopes(w)[:, None] * x, asked.gradients(w))


def test_curvatures_bound_the_hessian():
    asked, x, _ = rows()
    largest = [torch.linalg.eigvalsh(torch.outer(row, row)).max() for row in x]
    torch.testing.assert_close(asked.curvatures(), torch.stack(largest))


def test_questions_count_losses_errors_samples():
    totals = torch.zeros(3, dtype=torch.float64)
    asked, x, targets = rows(totals)
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    z, signs = x @ w, 2.0 * targets - 1
    asked.gradients(w)
    expected = [float((z - signs).square().sum() / 2), float(((z > 0) != (targets == 1)).sum()), 6.0]
    assert totals.tolist() == pytest.approx(expected)
    asked.slopes(w)
    assert totals.tolist() == pytest.approx([2 * value for value in expected])
    asked.curvatures()
    assert totals[2] == 12, "a bound evaluates no sample"


@pytest.mark.parametrize("samples", [1, 7, 100, 1000])
def test_slopes_with_the_score_are_the_same(samples: int):
    generator = torch.Generator().manual_seed(samples)
    x, targets = torch.randn(samples, 22, generator=generator), torch.randint(0, 2, (samples,), generator=generator)
    w, model = torch.randn(22, generator=generator), Ridge(shape=(22,), classes=2)
    totals = torch.zeros(3, dtype=torch.float64)
    slopes = ObjectiveRows(model, x, targets, counting(totals)).slopes(w.requires_grad_())
    z = (x @ w).detach()
    assert torch.equal(slopes, model.slopes(z, targets))
    assert totals[1:].tolist() == [int(model.errors(z[:, None], targets)), samples]
    assert totals[0].item() == pytest.approx(model.losses(w, z, targets).double().sum().item(), rel=1e-6)
    assert torch.equal(ObjectiveRows(model, x, targets, None).slopes(w), slopes), "asked without counting"


def test_matrix_gradients_are_autograds():
    """A φ_i that is no function of x_iᵀw alone."""
    generator = torch.Generator().manual_seed(1)
    module, x = PCAStep(shape=(3,), classes=1), torch.randn(5, 3, generator=generator)
    w, targets = torch.tensor([0.2, -0.4, 1.0]), torch.zeros(5, dtype=torch.int64)
    asked = ObjectiveRows(module, x, targets, None)
    for i, gradient in enumerate(asked.gradients(w)):
        leaf = w.clone().requires_grad_()
        module.losses(leaf, x[i : i + 1] @ leaf, targets[i : i + 1]).sum().backward()
        torch.testing.assert_close(gradient, leaf.grad)


def test_compressed_samples_stay_compressed():
    split = SparseSplit(sparse.csr_matrix(rows()[1].numpy()), torch.zeros(6, dtype=torch.int64))
    x, targets = rows_of(split, torch.tensor([4, 1]))
    assert isinstance(x, CompressedRows)
    assert torch.equal(x @ torch.eye(4)[0], split.batch(torch.tensor([4, 1]))[0][:, 0])
    assert targets.shape == (2,)


def test_compressed_rows_give_the_same_answers():
    expected = torch.zeros(3, dtype=torch.float64)
    asked, x, targets = rows(expected)
    split = SparseSplit(sparse.csr_matrix(x.numpy()), targets)
    totals = torch.zeros(3, dtype=torch.float64)
    compressed = ObjectiveRows(asked.module, *rows_of(split, torch.arange(6)), counting(totals))
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    torch.testing.assert_close(compressed.slopes(w), asked.slopes(w))
    torch.testing.assert_close(compressed.curvatures(), asked.curvatures())
    torch.testing.assert_close(totals, expected)


STEPS = (
    "model=ridge",
    "dataset=sparse_synthetic",
    "dataset.samples=120",
    "dataset.features=40",
    "dataset.density=0.08",
    "run.batch_size=15",
    "run.epochs=3",
    "schedule.lr=0.05",
    "cluster.workers=3",
)


@pytest.mark.parametrize(
    "method",
    [
        ("algorithm=dis_dfsdca",),
        ("algorithm=dis_dfsdca", "algorithm.sampling=importance"),
        ("algorithm=dis_dfsdca", "algorithm.sampling=adaptive"),
        ("algorithm=cocoa_plus",),
        ("algorithm=dis_dfsdca", "model=smoothed_hinge"),
        ("algorithm=cocoa_plus", "model=logistic"),
        ("algorithm=asgd",),
    ],
    ids=lambda method: method[-1].partition("=")[2],
)
def test_methods_do_the_same_on_compressed_rows(
    method: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    overrides = (*STEPS, *method)
    compressed = train(*overrides, folder=tmp_path / "compressed")
    assert isinstance(compressed.components.dataset.train, SparseSplit)
    monkeypatch.setattr(sparse_synthetic, "COMPRESSED_BELOW", 0.0)
    dense = train(*overrides, folder=tmp_path / "dense")
    assert not isinstance(dense.components.dataset.train, SparseSplit)
    torch.testing.assert_close(compressed.weights, dense.weights, rtol=1e-4, atol=1e-6)
    for ours, expected in zip(compressed.notes.rows, dense.notes.rows, strict=True):
        # ASGD has no dual variables, and so no gap.
        columns = {"train_loss", "primal", "suboptimality", "duality_gap"} & expected.keys()
        assert len(columns) >= 3
        for column in columns:
            assert ours[column] == pytest.approx(expected[column], rel=1e-3, abs=1e-9), column

"""Dis-dfSDCA, distributed asynchronous dual-free stochastic dual coordinate ascent.

    server, push of v_k:     w ← w − η v_k                                                    (eq. 3.5, algorithm 6)
    worker k, H samples i of its own shard of the training set, at the w that it pulled (algorithm 7):
                             κ = ∇φ_i(w) + α_i                                                (eq. 3.6)
                             α_i ← α_i − η λ n κ                                              (eq. 3.7)
                             v_k ← v_k + κ                                                    (eq. 3.8)

Source: Huo, PhD thesis 2020, chapter 3, after Shalev-Shwartz, "SDCA without Duality" (2015, ICML 2016). λ is
`weight_decay`, H is `run.batch_size`, η is `schedule.lr`. One worker with H = 1 is dfSDCA, algorithm 5.

Algorithm 7 prints η λ n_k κ, eq. 3.7 η λ n κ. Only n keeps the primal-dual relation (3.3), so it is n here:
(1/λn) Σ α_i = w − η Σ v_k over the messages in flight, at all times. α_i contracts by 1 − ηλn, so η < 2/(λn) is needed;
a larger η only brings a warning, since the thesis' own grid has such.

Where ∇φ_i(w) = φ_i'(x_iᵀw) x_i, α_i is a number times x_i, and the number is kept. The H samples are drawn
independently; a sample that is drawn c times meets the α_i that the earlier draws left, which is a geometric sum.

Where α lives. A sample's α is its worker's, and always up to date there. The server keeps a mirror of it from the
pushes (new α of the samples used), for evaluations, checkpoints and workers that begin anew or take over the shard of
a lost one. The clock counts w, η and v alone, as the thesis' messages.

Decided here, since the thesis does not say: the rate that a worker pulled is the one that its push is taken in with, so
that the relation holds under any schedule; the shards of the training set are contiguous; a lost worker's shard, with
the α of the mirror, goes to the living worker that has the fewest samples.

How the H samples are drawn: `algorithms.dual_sampling` (section 3.3.2). By default independently; section 3.4.1 assumes
"that there are no duplicate samples in I_t", which they are without `replacement`. Line numbers below count the lines
of algorithms 6 and 7 from their "Initialize".

The outer loop of algorithm 6, after every T pushes a broadcast of w to all workers, is a barrier of no rounds: T is
`inner`. The thesis does not say its T; by default there is no such broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from algorithms.base import (
    Batch,
    Cost,
    Field,
    Layout,
    Message,
    Oracle,
    ParameterServer,
    Problem,
    Rows,
    Step,
    Worker,
    flag,
    one_of,
    positive,
    zeros,
)
from algorithms.dual_sampling import SAMPLING, Sampler
from algorithms.host import array_of, each_once, tensor_of


class DualFreeWorker(Worker):
    """The worker of algorithm 7, which owns the α of its shards.

    Args:
        problem: what is solved.
        weight_decay: λ.
        sampling: one of `SAMPLING`.
    """

    def __init__(self, problem: Problem, weight_decay: float, sampling: str) -> None:
        self.problem = problem
        self.lambda_n = weight_decay * problem.samples
        self.sampler = Sampler(problem, self.lambda_n, sampling)
        shape = (problem.samples,) if problem.scalar else (problem.samples, problem.features)
        # Room for all samples, of which those of the worker's own shards are ever touched.
        self.alpha = torch.zeros(shape)

    def adopt_shard(self, shard: range, message: Message) -> None:
        """Set α of a shard."""
        own = self.alpha[shard.start : shard.stop]
        own.copy_(message["alpha"][: own.numel()].view(own.shape))

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Return v_k, and for the mirror the samples used and their new α."""
        w, eta = pulled["w"], float(pulled["eta"])  # line 3
        self.alpha = self.alpha.to(batch.ids.device)
        # Lines 5 and 6: all of I_t at once
        drawn, weights = self.sampler.draw(oracle, batch, lambda rows, pool: self.residues(rows, w, self.alpha[pool]))
        ids, times = each_once(drawn)
        rows = oracle.rows(ids)
        alpha, i = array_of(self.alpha), array_of(ids)
        own = alpha[i]
        # Line 7, eq. 3.6: κ = ∇φ_i(w) + α_i
        u = kappa = self.residues(rows, w, tensor_of(own))
        if times is not None or weights is not None:
            u = _scale(kappa, self._counts(eta, times, None if weights is None else weights[ids]))
        # Line 8, eq. 3.7: α_i ← α_i − η λ n κ
        own -= eta * self.lambda_n * array_of(u)
        alpha[i] = own
        # Line 9, eq. 3.8: v = Σ κ
        v = u @ rows.x if self.problem.scalar else u.sum(0)
        return {"v": v} | self._mirror(ids, tensor_of(own))  # line 11

    def residues(self, rows: Rows, w: Tensor, alpha: Tensor) -> Tensor:
        """Return κ of samples that have these α, eq. 3.6: its multiple of x_i (B,), or (B, d)."""
        gradients = rows.slopes(w) if self.problem.scalar else rows.gradients(w)
        return tensor_of(array_of(gradients) + array_of(alpha, like=gradients))

    def _counts(self, eta: float, times: Tensor | None, s: Tensor | None) -> Tensor:
        """Return how often κ_i counts over all draws of a sample (B,).

        Args:
            eta: η.
            times: how often a sample was drawn (B,); None for once each.
            s: how often a draw of it counts, s_i (B,); None for once each.
        """
        if times is None:
            assert s is not None
            return s
        c = array_of(times.double())
        rate = eta * self.lambda_n * (1.0 if s is None else array_of(s.double()))
        # Draw number j of a sample, from 0, meets κ (1 − rate)^j, so c draws sum up to κ (1 − (1 − rate)^c) / rate. In
        # float32 the difference from 1 would drown.
        series = (1 - (1 - rate) ** c) / rate if eta else c
        series[c == 1] = 1
        counts = tensor_of(series).to(self.alpha.dtype)
        return counts if s is None else s * counts

    def _mirror(self, ids: Tensor, alpha: Tensor) -> Message:
        """Return samples and their α, filled up to H samples by repeating the last."""
        if missing := self.problem.batch - ids.numel():
            ids = torch.cat([ids, ids[-1:].expand(missing)])
            alpha = torch.cat([alpha, alpha[-1:].expand(missing, *alpha.shape[1:])])
        return {"ids": ids, "alpha": alpha.flatten()}


class DisDfSDCA(ParameterServer):
    """The server of algorithm 6, with a mirror of all α.

    Args:
        weight_decay: λ of the objective, above 0.
        sampling: how a worker draws its H samples: "uniform", "importance" or "adaptive".
        inner: T, pushes after which all workers wait for each other and pull w; None for never.
        replacement: whether the H samples are drawn independently, so that one may come twice. If not, they are
            distinct; with uniform sampling only.

    Raises:
        ValueError: an argument is out of range.
    """

    needs = "rows"

    def __init__(
        self,
        *,
        weight_decay: float = 0.1,
        sampling: str = "uniform",
        inner: int | None = None,
        replacement: bool = True,
    ) -> None:
        if inner is not None and (isinstance(inner, bool) or not isinstance(inner, int) or inner < 1):
            raise ValueError(f"algorithm.inner={inner}: is not a number of pushes; allowed: integers from 1, or null")
        self.barrier_every = inner  # line 9: the workers pull anew after T pushes
        self.weight_decay = positive("weight_decay", weight_decay)
        self.sampling = one_of("sampling", sampling, SAMPLING)
        self.replacement = flag("replacement", replacement)
        if not replacement and sampling != "uniform":
            # Drawn without replacement, a sample is not used H p_i times on average, and s_i would be wrong.
            what = f"sampling={sampling} weighs samples that are drawn independently"
            raise ValueError(f"algorithm.replacement=false: {what}; allowed: true, or with sampling=uniform")

    def bind_problem(self, problem: Problem) -> None:
        """See `Stateful.bind_problem`."""
        self.problem = problem
        self.width = 1 if problem.scalar else problem.features
        if self.sampling == "adaptive":
            # κ of the whole shard, besides those of the samples drawn.
            self.cost = Cost(1 + problem.samples / problem.workers / problem.batch)  # type: ignore[misc]

    def largest_rate(self) -> float:
        """Return 2/(λn), or half of it if a sample can count twice (see `algorithms.dual_sampling`)."""
        return (2 if self.sampling == "uniform" else 1) / (self.weight_decay * self.problem.samples)

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """See `ParameterServer.start`; there is nothing to compile."""
        self.w = w
        self.workers = workers
        shape = (self.problem.samples,) if self.problem.scalar else (self.problem.samples, self.width)
        self.alpha = zeros(*shape, like=w)
        self.eta = zeros(workers, like=w)
        self.rates = self.eta.split(1)  # views of it, as they are sent
        self.lr = 0.0

    def layout(self, n: int) -> Layout:
        """Return w and η down, v up, and what the mirror needs."""
        room = self.problem.batch
        return Layout(
            pull={"w": n, "eta": 1},
            push={"v": n},
            mirror={"ids": Field(room, torch.int64), "alpha": room * self.width},
            shard_state={"alpha": self.problem.largest * self.width},
        )

    def announce(self, step: Step) -> None:
        """See `ParameterServer.announce`."""
        self.lr = step.lr

    def pull(self, worker: int) -> Message:
        """Send w and η, and remember η."""
        array_of(self.eta)[worker] = self.lr
        return {"w": self.w, "eta": self.rates[worker]}  # line 6

    def shard_state(self, shard: range) -> Message:
        """Return the mirror's α of a shard, filled up to the largest."""
        room = zeros(self.problem.largest * self.width, like=self.alpha)
        own = self.alpha[shard.start : shard.stop].flatten()
        room[: own.numel()] = own
        return {"alpha": room}

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Take in v_k at the rate η that its worker pulled, and copy the worker's new α."""
        # Line 5, eq. 3.5, at the rate that the worker pulled: eq. 3.7 took α along at it, so relation (3.3) holds
        w, alpha = array_of(self.w), array_of(self.alpha)
        w -= array_of(self.eta)[worker] * array_of(message["v"], like=self.w)
        own = array_of(message["alpha"], like=self.alpha)
        alpha[array_of(message["ids"], like=self.alpha)] = own.reshape(-1, *alpha.shape[1:])

    def worker(self, worker: int) -> Worker:
        """See `DualFreeWorker`."""
        return DualFreeWorker(self.problem, self.weight_decay, self.sampling)

    def state(self) -> Message:
        """Return `w`, the mirror `alpha`, and the rate `eta` that each worker pulled."""
        return {"w": self.w, "alpha": self.alpha, "eta": self.eta}

    def duals(self, states: Sequence[Message]) -> Tensor | None:
        """See `Stateful.duals`: the mirror, which belongs to the server's w."""
        return states[0]["alpha"]


class DfSDCA(DisDfSDCA):
    """Dual-free SDCA on one worker: algorithm 5 with `run.batch_size=1`, its mini-batch form otherwise.

    Args:
        weight_decay: see `DisDfSDCA`.
        sampling: see `DisDfSDCA`.
        replacement: see `DisDfSDCA`.
    """

    default_workers = 1
    max_workers = 1

    def __init__(self, *, weight_decay: float = 0.1, sampling: str = "uniform", replacement: bool = True) -> None:
        super().__init__(weight_decay=weight_decay, sampling=sampling, replacement=replacement)


def _scale(kappa: Tensor, factor: Tensor) -> Tensor:
    return kappa * factor if kappa.dim() == 1 else kappa * factor[:, None]

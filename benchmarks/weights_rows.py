"""The runs whose weights `weights.py` hashes: every method, with its subtle paths, by kind and name.

It lists only schedules that repeat. On processes these are collective and pipeline methods with several workers, and
parameter servers and shared memory with one. Parameter servers with several workers replay the traces in
`tests/runner/old_runs`.
"""

from __future__ import annotations

from collections.abc import Sequence

ALWAYS = ("logger=none", "run.threads=1", "run.device=cpu", "seed=3")
# The last batch of a pass is short; the rate rises, then falls twice; evaluations lie between its corners.
STEPS = ("run.batch_size=8", "run.epochs=2", "run.eval_every=0.5")
FALL = ("schedule=multistep", "schedule.lr=0.1", "schedule.milestones=[0.8,1.5]", "schedule.warmup_epochs=0.3")
DIGITS = ("dataset=digits", "dataset.limit_train=130", "dataset.limit_test=40", *STEPS, *FALL)
MLP = ("model=mlp", "model.widths=[24]", *DIGITS)
ONE_CYCLE = ("schedule=one_cycle", "schedule.milestones=[]", "schedule.lr=0.3")
POLYNOMIAL = ("schedule=polynomial", "schedule.milestones=[]", "schedule.lr=0.3")
INVERSE = ("schedule=inverse", "schedule.milestones=[]", "schedule.base_batch=16")
DEEP = ("model=mlp", "model.widths=[24,20,16,12]", "model.activation=tanh", *DIGITS)
BATCH_NORM = ("model=resnet8", "dataset.augment=true", *DIGITS, "dataset.limit_train=66", "dataset.limit_test=20")
DROPOUT = ("model=mlp", "model._target_=dropout_mlp.DropoutMLP", "~model.activation", "model.widths=[24,20,16]")
NORMED_DROPOUT = (*DROPOUT, "+model.batch_norm=true", *DIGITS)
RIDGE = ("model=ridge", "dataset=synthetic", "dataset.shape=[10]", "dataset.classes=2", "dataset.train=101")
RIDGE = (*RIDGE, "dataset.test=30", "dataset.noise=2.0", "schedule.lr=0.05", *STEPS)
SPARSE = ("model=ridge", "dataset=sparse_synthetic", "dataset.samples=101", "dataset.features=30")
SPARSE = (*SPARSE, "dataset.density=0.08", "schedule.lr=0.05", *STEPS)
PCA = (
    "model=pca_step",
    "dataset=unit_vectors",
    "dataset.samples=101",
    "dataset.features=8",
    "schedule.lr=0.002",
    *STEPS,
)

CLOCK = (
    "cluster.compute.distribution=gamma",
    "cluster.stragglers.probability=0.2",
    "cluster.network.latency=0.05",
    "cluster.network.bandwidth=1e5",
)
SERVER = (*CLOCK, "cluster.workers=3", "cluster.network.server_seconds=0.02")
WORKERS = (*CLOCK, "cluster.workers=3")
MOMENTUM = ("algorithm.momentum=0.9", "algorithm.weight_decay=0.01")
KOLOSKOVA = ("algorithm.rule=koloskova", "algorithm.smoothness=3", "algorithm.tau_c=1")
SVRG = ("algorithm.inner=20", "algorithm.weight_decay=0.01", "run.epochs=6", "run.eval_every=1")
SVRG = (*SVRG, "algorithm.sgd_epochs=1", "algorithm.sgd_lr=0.2", "algorithm.sgd_decay=0.5")
DUAL = ("run.batch_size=5", "algorithm.weight_decay=0.2")
# Looks at a worker's whole part for every message, which counts as a pass over it.
ADAPTIVE = ("algorithm.sampling=adaptive", "run.epochs=20", "run.eval_every=10")
LAYERWISE = ("algorithm.eta=0.02", "schedule.lr=1.0")

SIMULATED: dict[str, tuple[str, ...]] = {
    # Parameter servers.
    "asgd": (*MLP, *SERVER, "algorithm.weight_decay=0.01"),
    "asgd, Nesterov": (*MLP, *SERVER, *MOMENTUM, "algorithm.nesterov=true"),
    "asgd, aware of staleness": (*MLP, *SERVER, "algorithm.staleness=aware", "algorithm.momentum=0.5"),
    "asgd, batch norm": (*BATCH_NORM, *SERVER, "algorithm.momentum=0.9"),
    "asgd, dropout": (*DROPOUT, *DIGITS, *SERVER),
    "asgd, lognormal clock": (*MLP, "cluster.workers=5", "cluster.compute.distribution=lognormal"),
    "asgd, speeds": (
        *MLP,
        *INVERSE,
        "cluster.compute.speeds=[1,0.3,2]",
        "cluster.workers=3",
        "cluster.compute.jitter=0.5",
    ),
    "dc_asgd_c": (*MLP, *SERVER, *MOMENTUM),
    "dc_asgd_c, inverse_lr": (*MLP, *SERVER, "algorithm.lambda_schedule=inverse_lr", "algorithm.lambda0=2"),
    "dc_asgd_a": (*MLP, *SERVER, *MOMENTUM, "algorithm.lambda0=0.5"),
    "dc_asgd_a, a mean square a worker": (*MLP, *SERVER, "algorithm.mean_square=worker", "algorithm.m=0.5"),
    "dc_asgd_a, workers' backups, inverse_lr": (
        *(*MLP, *SERVER, "algorithm.backup=worker", "algorithm.lambda_schedule=inverse_lr", "algorithm.lambda0=0.5"),
    ),
    "dc_asgd_a, batch norm, bf16": (*BATCH_NORM, *SERVER, "run.precision=bf16"),
    "dc_asgd_a, batch norm, micro_batch": (*BATCH_NORM, *SERVER, "run.micro_batch=3", "run.channels_last=false"),
    "dc_asgd_abs": (*MLP, *SERVER, *MOMENTUM),
    "dc_asgd_abs, constant lambda": (*MLP, *SERVER, "algorithm.lambda_schedule=constant"),
    "delay_adaptive": (*MLP, *SERVER, *MOMENTUM),
    "delay_adaptive, koloskova": (*MLP, *SERVER, *KOLOSKOVA),
    "ringmaster": (*MLP, *SERVER, *MOMENTUM, "algorithm.threshold=2"),
    "ringmaster_stops": (*MLP, *SERVER, *MOMENTUM, "algorithm.threshold=2"),
    "rennala": (*MLP, *SERVER, *MOMENTUM, "algorithm.gradients=2"),
    "ssp": (*MLP, *SERVER, *MOMENTUM, "algorithm.slack=1"),
    "rennala, batch norm": (*BATCH_NORM, *SERVER),
    "dana_zero": (*MLP, *SERVER, *MOMENTUM),
    "dana_zero, batch norm": (*BATCH_NORM, *SERVER),
    "dana_dc": (*MLP, *SERVER, *MOMENTUM),
    "dana_slim": (*MLP, *SERVER, *MOMENTUM),
    "gap_aware": (*MLP, *SERVER, *MOMENTUM),
    "gap_aware, model": (*MLP, *SERVER, *MOMENTUM, "algorithm.nesterov=true", "algorithm.gap=model"),
    "smega2": (*MLP, *SERVER, *MOMENTUM),
    "ormo": (*MLP, *SERVER, *MOMENTUM),
    "ef_asgd": (*MLP, *SERVER),
    "ef_asgd, a share": (*MLP, *SERVER, "algorithm.share=0.1", "algorithm.weight_decay=0.01"),
    "ad_psgd": (*MLP, *SERVER, *MOMENTUM),
    "ad_psgd, batch norm": (*BATCH_NORM, *SERVER, "algorithm.graph=complete"),
    "easgd": (*BATCH_NORM, *SERVER, "algorithm.tau=3"),
    "eamsgd": (*MLP, *SERVER, *MOMENTUM, "algorithm.tau=3", "algorithm.alpha=0.2"),
    "async_diloco": (*MLP, *SERVER, "algorithm.inner=3", "schedule.lr=0.01"),
    "async_diloco, SGD, speeds": (
        *(*BATCH_NORM, *SERVER, "algorithm.inner=3", "algorithm.optimizer=sgd", "algorithm.speeds=[1,2,3]"),
        *("algorithm.every=2", "algorithm.momentum=0.5"),
    ),
    "asysvrg": (*MLP, *SERVER, *SVRG),
    "asysvrg, dropout": (*DROPOUT, *DIGITS, *SERVER, *SVRG, "algorithm.sgd_epochs=0"),
    "asysvrg, own shards": (*MLP, *SERVER, *SVRG, "algorithm.own_shard=true"),
    "asysvrg, own shards, independent draws": (
        *(*MLP, *SERVER, *SVRG, "algorithm.own_shard=true", "algorithm.replacement=true"),
    ),
    "svrg": (*MLP, *SVRG),
    "svrg, independent draws": (*MLP, *SVRG, "algorithm.replacement=true"),
    "dfsdca": (*RIDGE, *DUAL, "algorithm.sampling=importance"),
    "dfsdca, adaptive": (*PCA, *DUAL, *ADAPTIVE),
    "dis_dfsdca": (*RIDGE, *DUAL, *SERVER, *ADAPTIVE),
    "dis_dfsdca, barriers": (*RIDGE, *DUAL, *SERVER, "algorithm.inner=7"),
    "dis_dfsdca, distinct": (*RIDGE, *DUAL, *SERVER, "algorithm.replacement=false", "run.batch_size=20"),
    "dis_dfsdca, logistic": (*RIDGE, "model=logistic", *DUAL, *SERVER),
    "dis_dfsdca, compressed rows": (*SPARSE, *DUAL, *SERVER),
    "dis_dfsdca, pca": (*PCA, *DUAL, *SERVER, "algorithm.inner=7", "algorithm.sampling=importance"),
    # Collectives.
    "sgd": (*MLP, *MOMENTUM, "algorithm.nesterov=true"),
    "sgd, batch norm": (*BATCH_NORM, "algorithm.momentum=0.9"),
    "sgd, one_cycle": (*MLP, *ONE_CYCLE, "run.diagnostics=[variance_factor,largest_rate]"),
    "ssgd": (*MLP, *WORKERS, *MOMENTUM),
    "ssgd, batch norm, micro_batch": (*BATCH_NORM, *WORKERS, "run.micro_batch=3"),
    "ssgd, dropout": (*DROPOUT, *DIGITS, *WORKERS, *POLYNOMIAL),
    "dc_ssgd": (*MLP, *WORKERS, *MOMENTUM, "algorithm.lambda_schedule=inverse_lr"),
    "local_sgd": (*MLP, *WORKERS, *MOMENTUM, "algorithm.tau=3"),
    "local_sgd, batch norm": (*BATCH_NORM, *WORKERS, "algorithm.tau=2", "run.diagnostics=[disagreement]"),
    "dasgd": (*MLP, *WORKERS, *MOMENTUM, "algorithm.tau=4", "algorithm.delay=2"),
    "dasgd, Nesterov": (*MLP, *WORKERS, *MOMENTUM, "algorithm.tau=2", "algorithm.xi=0.5", "algorithm.nesterov=true"),
    "diloco": (*MLP, *WORKERS, "algorithm.inner=3", "schedule.lr=0.01"),
    "diloco, SGD, batch norm": (*BATCH_NORM, *WORKERS, "algorithm.inner=2", "algorithm.optimizer=sgd"),
    "d_psgd": (*MLP, *WORKERS, *MOMENTUM),
    "d_psgd, step first, batch norm": (
        *(*BATCH_NORM, *WORKERS, "algorithm.order=step_first", "algorithm.graph=[[0,1],[1,2]]"),
    ),
    "nag": (*MLP, *WORKERS, "algorithm.layer_scale={classifier:2}"),
    "lars": (*MLP, *WORKERS, *LAYERWISE),
    "clars": (*MLP, *WORKERS, *LAYERWISE),
    "clars, batch norm, some samples": (*BATCH_NORM, *WORKERS, *LAYERWISE, "algorithm.samples=5"),
    "cocoa_plus": (*RIDGE, *DUAL, *WORKERS, "algorithm.gamma=0.5"),
    "cocoa_plus, logistic": (*RIDGE, "model=logistic", *DUAL, *WORKERS, "algorithm.gamma=0.5", "algorithm.sigma=1.2"),
    "cocoa_plus, compressed rows": (*SPARSE, *DUAL, *WORKERS),
    "sdca": (*RIDGE, *DUAL),
    "sdca, smoothed hinge": (*RIDGE, "model=smoothed_hinge", "model.gamma=0.5", *DUAL),
    # Shared memory.
    "hogwild": (*MLP, *WORKERS, "algorithm.weight_decay=0.01"),
    "hogwild, coordinates": (*MLP, *WORKERS, "algorithm.coordinates=200"),
    "shared_asysvrg": (*MLP, *WORKERS, *SVRG),
    "shared_asysvrg, coordinates": (*DROPOUT, *DIGITS, *WORKERS, *SVRG, "algorithm.coordinates=200"),
    # Pipelines.
    "bp": (*DEEP, *WORKERS, *MOMENTUM),
    "ddg": (*NORMED_DROPOUT, *WORKERS, *MOMENTUM),
    "ddg, current weights": (*DEEP, *WORKERS, "algorithm.weights=current", "algorithm.start=zero"),
    "ddg, batch norm": (*BATCH_NORM, *WORKERS, "algorithm.split=[stage1.0,stage3.0]"),
    "fr": (*NORMED_DROPOUT, *WORKERS, *MOMENTUM, "run.diagnostics=[sufficient_direction]"),
    "fr, Adam": (*DEEP, *WORKERS, "algorithm.optimizer=adam", "algorithm.start=skip", "schedule.lr=0.01"),
    "fr, batch norm, twice": (*BATCH_NORM, *WORKERS, "algorithm.statistics=twice"),
    "dni": (*DEEP, *WORKERS, *MOMENTUM),
    "gpipe": (*DEEP, *WORKERS, *MOMENTUM, "algorithm.micro_batches=3"),
    "gpipe, 1F1B, batch norm": (*BATCH_NORM, *WORKERS, "algorithm.order=1f1b"),
    "pipedream": (*NORMED_DROPOUT, *WORKERS, *MOMENTUM),
    "pipedream, vertical sync": (*DEEP, *WORKERS, "algorithm.weights=vertical"),
    "pipedream_2bw": (*DEEP, *WORKERS, *MOMENTUM, "algorithm.micro_batches=3"),
    "pipedream_2bw, batch norm": (*BATCH_NORM, *WORKERS),
    "spectrain": (*DEEP, *WORKERS, *MOMENTUM),
}
"""Rows by name: the method, and what is special; its overrides."""

TWO = ("cluster=processes", "cluster.workers=2")
THREE = ("cluster=processes", "cluster.workers=3")
ONE = ("cluster=processes", "cluster.workers=1")
PROCESSES: dict[str, tuple[str, ...]] = {
    "sgd": (*BATCH_NORM, *ONE, *MOMENTUM),
    "ssgd": (*DROPOUT, *DIGITS, *THREE, *MOMENTUM),
    "ssgd, batch norm, micro_batch": (*BATCH_NORM, *TWO, "run.micro_batch=3"),
    "dc_ssgd": (*MLP, *THREE, *MOMENTUM, "algorithm.lambda_schedule=inverse_lr"),
    "local_sgd": (*BATCH_NORM, *TWO, *MOMENTUM, "algorithm.tau=3"),
    "dasgd": (*MLP, *THREE, *MOMENTUM, "algorithm.tau=4", "algorithm.delay=2"),
    "diloco": (*MLP, *TWO, "algorithm.inner=3", "schedule.lr=0.01"),
    "d_psgd": (*MLP, *THREE, *MOMENTUM),
    "nag": (*MLP, *TWO, "algorithm.layer_scale={classifier:2}"),
    "lars": (*MLP, *TWO, *LAYERWISE),
    "clars": (*MLP, *TWO, *LAYERWISE, "algorithm.samples=9"),
    "cocoa_plus": (*RIDGE, *DUAL, *THREE),
    "sdca": (*RIDGE, *DUAL, *ONE),
    "bp": (*DEEP, *TWO, *MOMENTUM),
    "ddg": (*NORMED_DROPOUT, *THREE, *MOMENTUM),
    "fr": (*NORMED_DROPOUT, *THREE, *MOMENTUM),
    "dni": (*DEEP, *TWO),
    "gpipe": (*DEEP, *TWO, *MOMENTUM, "algorithm.order=1f1b"),
    "pipedream": (*NORMED_DROPOUT, *THREE, *MOMENTUM),
    "pipedream_2bw": (*DEEP, *THREE, *MOMENTUM),
    "spectrain": (*DEEP, *THREE, *MOMENTUM),
    "asgd": (*MLP, *ONE, *MOMENTUM),
    "dc_asgd_c": (*MLP, *ONE, "algorithm.lambda_schedule=inverse_lr"),
    "dc_asgd_a": (*BATCH_NORM, *ONE, "algorithm.backup=worker"),
    "dc_asgd_abs": (*DROPOUT, *DIGITS, *ONE, *MOMENTUM),
    "delay_adaptive": (*MLP, *ONE, *MOMENTUM),
    "ad_psgd": (*MLP, *ONE, *MOMENTUM),
    "ringmaster": (*MLP, *ONE, *MOMENTUM),
    "ringmaster_stops": (*MLP, *ONE, *MOMENTUM),
    "rennala": (*BATCH_NORM, *ONE, "algorithm.gradients=3"),
    "ssp": (*MLP, *ONE, *MOMENTUM),
    "dana_zero": (*MLP, *ONE, *MOMENTUM),
    "dana_dc": (*BATCH_NORM, *ONE, *MOMENTUM),
    "dana_slim": (*BATCH_NORM, *ONE, *MOMENTUM),
    "gap_aware": (*MLP, *ONE, *MOMENTUM),
    "smega2": (*MLP, *ONE, *MOMENTUM),
    "ormo": (*MLP, *ONE, *MOMENTUM),
    "ef_asgd": (*BATCH_NORM, *ONE),
    "easgd": (*BATCH_NORM, *ONE, "algorithm.tau=3"),
    "eamsgd": (*MLP, *ONE, *MOMENTUM, "algorithm.tau=3"),
    "async_diloco": (*MLP, *ONE, "algorithm.inner=3", "schedule.lr=0.01"),
    "asysvrg": (*MLP, *ONE, *SVRG),
    "svrg": (*DROPOUT, *DIGITS, *ONE, *SVRG),
    "dfsdca": (*RIDGE, *DUAL, *ONE, *ADAPTIVE),
    "dis_dfsdca": (*RIDGE, *DUAL, *ONE, "algorithm.inner=7"),
    "dis_dfsdca, distinct": (*RIDGE, *DUAL, *ONE, "algorithm.replacement=false", "run.batch_size=20"),
    "hogwild": (*MLP, *ONE, "algorithm.coordinates=200"),
    "shared_asysvrg": (*MLP, *ONE, *SVRG, "algorithm.coordinates=200"),
}

SHORT = ("dataset=synthetic", "dataset.train=90", "dataset.test=300", "run.batch_size=8", "run.eval_every=0.5")
TRACED = {
    "asgd": (*SHORT, "model=mlp", "model.widths=[8,7]", "dataset.shape=[6]", "dataset.classes=3", "run.epochs=3"),
    "asysvrg": (*SHORT, "model=mlp", "model.widths=[8,7]", "dataset.shape=[6]", "dataset.classes=3", "run.epochs=6"),
    "dis_dfsdca": (*SHORT, "model=ridge", "dataset.shape=[10]", "dataset.classes=2", "dataset.noise=2.0"),
}
"""What a replay must have in common with the trace `<name>_traced`."""
SCHEDULED = (*TRACED["asgd"], *FALL)
REPLAYED: dict[str, tuple[str, ...]] = {
    "asgd": (*SCHEDULED, "algorithm.momentum=0.9"),
    "asgd, aware of staleness": (*SCHEDULED, "algorithm.staleness=aware"),
    "dc_asgd_c": (*SCHEDULED, *MOMENTUM, "algorithm.lambda_schedule=inverse_lr"),
    "dc_asgd_a": (*SCHEDULED, "algorithm.mean_square=worker", "algorithm.lambda_schedule=inverse_lr"),
    "dc_asgd_abs": (*SCHEDULED, "algorithm.backup=worker"),
    "delay_adaptive": (*SCHEDULED, *MOMENTUM),
    "ringmaster": (*SCHEDULED, "algorithm.threshold=2"),
    "rennala": (*SCHEDULED, "algorithm.gradients=2"),
    "dana_zero": (*SCHEDULED, *MOMENTUM),
    "dana_dc": (*SCHEDULED, *MOMENTUM),
    "dana_slim": (*SCHEDULED, *MOMENTUM),
    "gap_aware": (*SCHEDULED, *MOMENTUM),
    "smega2": (*SCHEDULED, *MOMENTUM),
    "ormo": (*SCHEDULED, *MOMENTUM),
    "ef_asgd": (*SCHEDULED, "algorithm.share=0.1"),
    # The trace is of pushes after one step each.
    "easgd": (*SCHEDULED, "algorithm.tau=1"),
    "eamsgd": (*SCHEDULED, "algorithm.tau=1"),
    "async_diloco": (*SCHEDULED, "algorithm.inner=1", "schedule.lr=0.01"),
    "asysvrg": (*TRACED["asysvrg"], "algorithm.inner=15", "algorithm.sgd_epochs=1", "schedule.lr=0.1"),
    "dis_dfsdca": (*TRACED["dis_dfsdca"], "algorithm.inner=7", "run.epochs=2", "schedule.lr=0.05"),
}
KINDS = {"simulated": SIMULATED, "processes": PROCESSES, "replay": REPLAYED}


def rows() -> dict[str, tuple[str, ...]]:
    """Return the overrides of every row by its name, as `processes: local_sgd`."""
    found = {}
    for kind, special in KINDS.items():
        for name, overrides in special.items():
            method = name.partition(",")[0]
            found[f"{kind}: {name}"] = (f"algorithm={method}", *ALWAYS, *_joined(overrides))
            if kind == "replay":
                trace = method if method in TRACED else "asgd"
                found[f"{kind}: {name}"] += ("cluster=replay", f"cluster.trace={trace}_traced.jsonl")
    return found


def _joined(overrides: Sequence[str]) -> list[str]:
    """Return the overrides, the last one of each key alone."""
    return list({override.partition("=")[0]: override for override in overrides}.values())

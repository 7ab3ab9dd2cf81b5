"""Builds the network that a configuration names, with its initial weights or with given ones."""

from __future__ import annotations

from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from models import ordinary
from runner.config.errors import building
from runner.config.seeds import derive
from runner.train import initial_weights


def build_module(cfg: DictConfig, dataset: Any) -> nn.Module:
    """Return the network on the CPU.

    Args:
        cfg: the composed configuration.
        dataset: tells the shape of a sample, the number of classes, and whether samples are tokens.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    section: Any = OmegaConf.to_container(cfg.model, resolve=True)
    # Not the constructor's: any network can start from given weights.
    weights = section.pop("weights", None)
    shape, classes = tuple(dataset.shape), dataset.classes
    told = ordinary.arguments(get_object(section["_target_"]), section, shape, classes)
    # Right before the network is built: the initial weights depend on the seed and the model alone, whatever the
    # algorithm or the data set drew before.
    torch.manual_seed(derive(cfg.seed, "weights"))
    with building():
        # As a part of a whole, whose name is in messages about its keys.
        part = OmegaConf.create({"model": section}).model
        built, name = instantiate(part, **told), f"model={cfg.names.model}"
        module = ordinary.adapt(built, name, shape, classes, getattr(dataset, "tokens", False))
        if weights is not None:
            initial_weights.load(module, str(weights))
    return module

"""An ordinary `nn.Module` as the rest of dcrun knows a network.

What the module does not say itself is assumed: cross-entropy as the loss, the class of the largest output as the guess,
and one block, so that a pipeline cannot cut it. It says more by these names of `models.base.Chain`:

- `loss(outputs, targets)`, the mean over the batch, 0-d; an `nn.CrossEntropyLoss(label_smoothing=0.1)` will do.
- `errors(outputs, targets, guesses=1)`, how many samples are guessed wrongly, 0-d; `classifies = False` if it guesses
  no classes, and `takes_numbers = True` at the class if targets may be numbers (a dataset with 0 classes).
- `takes_tokens = True` at the class if it maps token numbers (B, T) to logits (B, T, classes) of the next ones; then
  loss and errors are those of `models.tokens`.
- `block_names`, the names of submodules that run one after the other and are all there is.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from models.base import Chain, count_errors
from models.tokens import token_errors, token_loss

_SAMPLES = 2  # of the trial: batch norm refuses to normalise one alone


def arguments(
    target: Callable[..., Any], given: Mapping[str, Any], shape: Sequence[int], classes: int
) -> dict[str, Any]:
    """Return what the dataset tells a model that is to be built: those of the arguments that its constructor names.

    Args:
        target: class or function that builds the model.
        given: the arguments that the configuration gives.
        shape: of an input.
        classes: number of classes, for arguments called `classes` and, unless it is given, `num_classes`.
    """
    known: dict[str, Any] = {"shape": tuple(shape), "classes": classes}
    if classes and "num_classes" not in given:
        known["num_classes"] = classes
    named = _named(target)
    return {name: value for name, value in known.items() if name in named}


def adapt(module: object, name: str, shape: Sequence[int], classes: int, tokens: bool = False) -> nn.Module:
    """Complete an ordinary module in place, after a trial on zeros; return it. A chain is returned as it is.

    Args:
        module: what the configuration's `_target_` returned.
        name: how messages call it, as ``model=mine``.
        shape: of an input.
        classes: number of classes; 0 if targets are numbers.
        tokens: whether samples are windows of token numbers, and targets the next ones.

    Raises:
        ValueError: it cannot be trained on such samples; the message says why.
    """
    if isinstance(module, Chain):
        return module
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"{name}: is a {type(module).__name__}; allowed: classes or functions that return an nn.Module"
        )
    own = callable(getattr(module, "loss", None))
    if not own and not classes:
        raise ValueError(
            f"{name}: has no loss, and the targets are numbers; allowed: modules with loss(outputs, targets)"
        )
    completed: Any = module
    zeros = torch.zeros(_SAMPLES, *shape, dtype=torch.int64 if tokens else torch.float32)
    logits = (_SAMPLES, *(shape if tokens else ()), classes)
    outputs = _trial(module, name, zeros)
    _check_parameters(module, name)
    if not own:
        _check_logits(outputs, name, logits)
        # Plain attributes, as PyTorch keeps them: the state dict stays what it is.
        completed.loss = token_loss if tokens else functional.cross_entropy
    if not callable(getattr(module, "errors", None)):
        classifies = getattr(module, "classifies", bool(classes))
        if classifies:
            _check_logits(outputs, name, logits)
        counted = token_errors if tokens else count_errors
        completed.classifies, completed.errors = classifies, counted if classifies else _no_errors
    if hasattr(module, "block_names"):
        _check_blocks(module, name, zeros)
    else:
        completed.block_names = ("",)  # as `get_submodule` calls the module itself
    return module


def _named(target: Callable[..., Any]) -> set[str]:
    """Return the names of a callable's parameters, and of a class's base classes as far as `**kwargs` goes there."""
    functions = [target]
    if inspect.isclass(target):
        functions = [vars(base)["__init__"] for base in inspect.getmro(target) if "__init__" in vars(base)]
    names: set[str] = set()
    for function in functions:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # of a compiled function
            break
        names |= {parameter.name for parameter in parameters}
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names


def _trial(module: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """Return the outputs of samples of zeros as in training; parameters and buffers stay as they were."""
    try:
        with torch.no_grad():
            if any(is_lazy(parameter) for parameter in module.parameters()):
                # Their shapes and initial weights come with the first inputs. Batch norm's averages stay in this mode.
                module.eval()(inputs)
            with torch.random.fork_rng(devices=[]):
                before = {key: buffer.clone() for key, buffer in module.named_buffers()}
                outputs = module.train()(inputs)
                for key, buffer in module.named_buffers():
                    buffer.copy_(before[key])
    except Exception as error:
        wrong = f"cannot take inputs of shape {tuple(inputs.shape[1:])} ({type(error).__name__}: {error})"
        raise ValueError(f"{name}: {wrong}; allowed: modules that return a value for each class") from error
    if not isinstance(outputs, Tensor):
        wrong = f"returns a {type(outputs).__name__} in training"
        raise ValueError(f"{name}: {wrong}; allowed: modules that return one tensor")
    return outputs


def _check_logits(outputs: Tensor, name: str, logits: tuple[int, ...]) -> None:
    if outputs.shape != logits:
        classes = logits[-1]
        wrong = f"returns outputs of shape {tuple(outputs.shape)} for {_SAMPLES} samples of {classes} classes"
        raise ValueError(f"{name}: {wrong}; allowed: {logits}, as with model.num_classes={classes}")


def _check_parameters(module: nn.Module, name: str) -> None:
    parameters = list(module.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise ValueError(f"{name}: has no parameters to train; allowed: modules with parameters that require gradients")
    for key, parameter in module.named_parameters():
        if parameter.dtype != torch.float32:
            raise ValueError(f"{name}: parameter {key} is {parameter.dtype}; allowed: torch.float32")


def _check_blocks(module: nn.Module, name: str, inputs: Tensor) -> None:
    """Refuse blocks that are not the whole module, one after the other."""
    outputs = inputs
    blocks: Any = module.block_names
    own = {parameter for block in blocks for parameter in module.get_submodule(block).parameters()}
    with torch.no_grad():
        whole = module.eval()(inputs)
        for block in blocks:
            outputs = module.get_submodule(block)(outputs)
    if own != set(module.parameters()) or not torch.equal(whole, outputs):
        wrong = f"its block_names {tuple(blocks)} are not the module when they run one after the other"
        raise ValueError(f"{name}: {wrong}; allowed: names of submodules that are all there is, in their order")


def _no_errors(outputs: Tensor, targets: Tensor, guesses: int = 1) -> Tensor:
    """Return 0 errors, of a model that guesses no classes."""
    return torch.zeros((), dtype=torch.int64, device=outputs.device)

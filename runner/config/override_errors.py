"""Explains what is wrong with a command line that Hydra cannot compose, in one line that names the nearest words."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from runner.config.errors import MOST_SHOWN, InputError, one_line, shown
from runner.config.old_names import OLD_KEYS
from runner.config.paths import as_typed

Compose = Callable[[list[str]], DictConfig]

SEARCH = "hydra/sweeper=optuna"
_NO_OPTION = "published"  # such files beside the experiments hold what the papers report
_TYPES = {
    "Integer": ("is not an integer", "integers"),
    "Float": ("is not a number", "numbers"),
    "Boolean": ("is neither true nor false", "true, false"),
}


def parse(overrides: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    """Read `key=value` arguments.

    Args:
        overrides: the arguments as typed.
        loader: where options are looked up for `glob(...)`.

    Raises:
        InputError: for an argument that is not of the form `key=value`.
    """
    parser = OverridesParser.create(config_loader=loader)
    parsed = []
    # One at a time, so that the message names the argument that cannot be read.
    for override in overrides:
        try:
            parsed += parser.parse_overrides([override])
        # Python reads no number of more than 4300 digits, and Hydra's parser calls itself for every bracket.
        except (OverrideParseException, ValueError, RecursionError) as exc:
            raise _unreadable(override) from exc
        # Hydra's grammar accepts `=3`, with an empty key.
        if not parsed[-1].key_or_group:
            raise _unreadable(override)
    return parsed


def explain(exc: Exception, overrides: Sequence[str], compose: Compose, loader: ConfigLoader) -> InputError:
    """Explain a failed composition to the user who typed the command line.

    Args:
        exc: the exception of Hydra or OmegaConf.
        overrides: the arguments as typed; all of them readable (see `parse`).
        compose: composes a configuration from other arguments, to find out which keys exist.
        loader: knows the options of each group.
    """
    parsed = parse(overrides, loader)
    # Hydra's exceptions carry little but their text, so the kinds of mistakes are told apart by it. The tests run each
    # of them through Hydra: a version with other words fails there, not at a user's terminal.
    if isinstance(exc, MissingConfigException) and exc.missing_cfg_file:
        return _unknown_option(exc.missing_cfg_file, exc.options or (), parsed, loader)
    text, cause = str(exc), exc.__cause__
    if unknown := re.match(r"Could not override '(.+?)'", text):
        return _unknown_key(unknown[1], parsed, compose, loader)
    if merged := re.match(r"Error merging override (.*)", text, re.DOTALL):
        if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
            return _unknown_key(merged[1].partition("=")[0].lstrip("+~"), parsed, compose, loader)
        return _wrong_value(merged[1], str(cause))
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?: requires|$)", text, re.M):
        return InputError(f"{several[1]}: gives several values; allowed: one value, or a sweep: dcrun -m {several[1]}")
    if (read := re.match(r"In '(.+)/(.+?)'", text)) and "ListConfig" in text:
        allowed = "a file of keys, as _target_: package.module.Class"
        return InputError.of(read[1], read[2], "is not a configuration: its file holds a list", allowed)
    if text.startswith("Config group override must be"):
        for override in parsed:
            value = override.value()
            options = group_options(override.key_or_group, loader)
            if options and not isinstance(value, (str, list)):
                return InputError.of(override.key_or_group, value, "is not an option of this group", ", ".join(options))
    # What is none of these kinds: Hydra's text as it is, without the lines that OmegaConf adds for developers.
    for error in (exc, cause):
        if isinstance(error, OmegaConfBaseException):
            key = f"{error.full_key}: " if error.full_key else ""
            text = f"{key}{str(error).partition('full_key')[0]}"
    return InputError(text or type(exc).__name__)


def group_options(group: str, loader: ConfigLoader) -> list[str]:
    """List a group's options, those in sub-folders too, as `paper/table`."""
    # In files of a group; the papers' numbers lie beside the experiments but cannot be chosen.
    options = [
        option for option in loader.get_group_options(group, ObjectType.CONFIG) if not option.startswith(_NO_OPTION)
    ]
    # Experiments lie in a folder for each paper, which Hydra lists as groups of their own.
    for folder in loader.get_group_options(group, ObjectType.GROUP):
        options += [f"{folder}/{option}" for option in group_options(f"{group}/{folder}", loader)]
    return options


def nearest(word: str, words: Iterable[str]) -> list[str]:
    """Sort `words` by similarity to `word`, the most similar first."""
    return sorted(words, key=lambda other: -_likeness(word, other))


def suggestions(key: str, keys: Iterable[str]) -> list[str]:
    """Return up to three keys similar to `key`, which may lack its section (`lr` for `schedule.lr`)."""
    # Slightly less than a match of the whole key, so that an equal last part wins only where nothing is closer.
    last = key.rpartition(".")[2]
    score = {o: max(_likeness(key, o), 0.97 * _likeness(last, o.rpartition(".")[2])) for o in keys}
    # Rounded, so that keys that are about as near are ordered by depth: `schedule.lr` before `a.b.lr`.
    best = sorted(score, key=lambda other: (-round(score[other], 2), other.count("."), other))[:3]
    # Below 0.6 words share only some letters, and a wrong hint is worse than none.
    return [other for other in best if score[other] >= max(0.6, score[best[0]] - 0.2)]


def unknown_key(key: str, value: object, keys: Iterable[str]) -> InputError:
    """Build the line about an unknown key, which names what it is called now, or else the nearest ones."""
    keys = list(keys)
    # Of another option of the group the new name is no key either.
    if (new := OLD_KEYS.get(key)) in keys:
        return InputError(f"{key}={shown(value)}: unknown key; it is called {new} now")
    like = suggestions(key, keys)
    hint = f"nearest: {', '.join(like)}" if like else "dcrun --help names the keys, dcrun --cfg job lists them all"
    return InputError(f"{key}={shown(value)}: unknown key; {hint}")


def flat_keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    """List all keys of a configuration, sections and leaves, with dots."""
    keys = []
    for name in cfg:
        key = f"{prefix}{name}"
        keys.append(key)
        # Reading a missing value or an interpolation can raise.
        if not OmegaConf.is_missing(cfg, name) and not OmegaConf.is_interpolation(cfg, str(name)):
            child = cfg[name]
            if isinstance(child, DictConfig):
                keys += flat_keys(child, f"{key}.")
    return keys


def _likeness(word: str, other: str) -> float:
    return difflib.SequenceMatcher(None, word.lower(), other.lower()).ratio()


def _unreadable(override: str) -> InputError:
    key, equals, value = override.partition("=")
    if not key or not equals:
        return InputError(f"{override}: is not an override; write key=value, as {key or 'key'}=<value>")
    if len(value) > MOST_SHOWN:
        return InputError(f"{key}={shown(value)}: cannot be read as key=value; allowed: a shorter or less nested value")
    hint = f"quote a value that holds = , : [ ] {{ }} ( ) or blanks, as {as_typed(key.rstrip('='), value)}"
    return InputError(f"{override}: cannot be read as key=value; {hint}")


def _unknown_option(missing: str, found: Sequence[str], parsed: Sequence[Override], loader: ConfigLoader) -> InputError:
    group, _, option = missing.rpartition("/")
    for override in parsed:
        # Of an option with a slash, as `dc_asgd_icml2017/table1`, the last slash does not separate the group.
        if f"{override.key_or_group}/{override.value()}" == missing:
            group, option = override.key_or_group, str(override.value())
    options = sorted({*found, *group_options(group, loader)})
    if not options:
        return InputError.of(group, option, "no such option", "null (this group has no options)")
    return InputError.of(group, option, "no such option", ", ".join(nearest(option, options)) + " (nearest first)")


def _unknown_key(key: str, parsed: Sequence[Override], compose: Compose, loader: ConfigLoader) -> InputError:
    # As typed: a parsed value may be shown in another spelling than the user's.
    value = next((override.get_value_element_as_str() for override in parsed if override.key_or_group == key), "")
    # The keys depend on the options that were chosen, so the configuration is composed with these alone, without the
    # value that failed.
    choices = [o.input_line for o in parsed if o.input_line and group_options(o.key_or_group, loader)]
    try:
        cfg = compose(choices)
    # The chosen options may be what failed.
    except (HydraException, OmegaConfBaseException):
        cfg = compose([])
    # Not the nearest keys: this one is right, and only the option that has it is missing.
    if key.startswith("hydra.sweeper.") and key in flat_keys(compose([*choices, SEARCH]).hydra, "hydra."):
        return InputError.of(key, value, "is a key of a search, and this is none", f"with {SEARCH}")
    prefix = "hydra." if key.startswith("hydra.") else ""
    # Hydra's own keys are many, and are suggested only to who typed one.
    keys = flat_keys(cfg.hydra, "hydra.") if prefix else [k for k in flat_keys(cfg) if not k.startswith("hydra")]
    return unknown_key(key, value, keys)


def _wrong_value(override: str, cause: str) -> InputError:
    if match := re.search(r"could not be converted to (\w+)", cause):
        wrong, allowed = _TYPES.get(match[1], (f"is not of type {match[1].lower()}", match[1].lower()))
        # `run.epochs=` is an empty string to Hydra, which is no number; what the user did was to forget the value.
        if override.endswith("="):
            wrong = "needs a value"
        return InputError(f"{override}: {wrong}; allowed: {allowed}")
    if "is not a valid bool" in cause:
        return InputError(f"{override}: is neither true nor false; allowed: true, false")
    if override.startswith("~"):
        return InputError(f"{override}: cannot be removed; allowed: {override[1:].partition('=')[0]}=<value>")
    if "is not Optional" in cause:
        return InputError(f"{override}: needs a value; allowed: anything but null")
    if "is not a ListConfig" in cause:
        return InputError(f"{override}: is not a list; allowed: a list, as [1,2]")
    if "is not a subclass of" in cause or "Cannot assign" in cause:
        key = override.partition("=")[0]
        return InputError(f"{override}: is a section, not a value; allowed: its keys, as {key}.<key>=<value>")
    return InputError(f"{override}: {one_line(cause.partition('full_key')[0])}")

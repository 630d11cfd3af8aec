"""Options: what a field of a stage's configuration is, for its check, the command line and the documents."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

from pneumo_fast.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Option:
    """What annotates a field: ``epochs: Annotated[int, Option("Passes over the images.", least=1)] = 10``.

    None stands for no value, and passes every check; of a tuple each element is checked.
    """

    help: str
    """The meaning in a line, as ``--help`` has it."""
    more: str = ""
    """What the documents say besides."""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    """Bounds; ``below`` infinity asks for a finite number."""
    unit: str = ""
    """Of the bounds."""
    range: str = ""
    """The values allowed, in words, where the bounds alone do not say it."""
    refusal: str = "{name} {value}: {range} expected"
    """What is said to a value out of bounds."""
    name: str = ""
    """How the command line spells it, where not as the field."""
    aliases: tuple[str, ...] = ()
    """Other spellings, with their dashes."""
    default: str = ""
    """What is shown as the default, where not its value."""
    group: str = ""
    """Heading that ``--help`` has above it, and above the options that follow, until the next."""
    positional: bool = False
    on_command_line: bool = True
    decides: bool = True
    """Whether the result depends on it, so that resuming asks for the same."""
    recorded: str = ""
    """Under which name what it came to is recorded, in the place of its value."""
    repeated: bool = True
    """Whether a repetition of the run takes it over."""

    def allows(self, value: float) -> bool:
        """Whether a number is within the bounds; NaN is so only where there are none."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def describe_range(self) -> str:
        """The values allowed, in words; empty where any is."""
        least, most, above, below = self.least, self.most, self.above, self.below
        number = "a number" + (f" of {self.unit}" if self.unit else "")
        beyond = f" {self.unit}" if self.unit else ""
        phrases = (
            (bool(self.range), self.range),
            (least is not None and most is not None, f"{least} to {most}{beyond}"),
            (least is not None and below is not None, f"{number} from {least} to below {below}"),
            (least is not None, f"at least {least}{beyond}"),
            (above is not None and most is not None, f"{number} above {above}, at most {most},"),
            (above is not None and below not in {None, math.inf}, f"{number} between {above} and {below}"),
            (above is not None, f"{number} above {above}"),
        )
        return next((phrase for applies, phrase in phrases if applies), "")


Device = Annotated[str, Option("auto, cpu, cuda or cuda:N.", decides=False)]


class Field(NamedTuple):
    """An option with its field."""

    name: str
    type: Any
    default: Any
    """The default value; ``dataclasses.MISSING`` where one has to be given."""
    option: Option
    is_list: bool
    """Whether it takes several values."""
    types: tuple[Any, ...]
    """What a single value may be; words of a ``Literal`` aside."""
    words: tuple[str, ...]
    """The words of its ``Literal``, if it has one."""
    group: str
    """Heading above it in ``--help``; empty where the command has none."""

    @property
    def spelled(self) -> str:
        """Name on the command line, without the dashes before it."""
        return self.option.name or self.name.replace("_", "-")

    def check(self, value: Any) -> None:
        """Refuse a word that is unknown, what is of another type, and a number out of bounds."""
        if value is None or (type(value) is str and value in self.words):
            return
        if not self.types:
            raise ConfigError(f"{self.spelled} {value!r} is unknown: use one of {', '.join(self.words)}")
        is_whole = type(value) is int and float in self.types
        if not (type(value) in self.types or is_whole or (Path in self.types and isinstance(value, Path))):
            self.refuse_type(value, "")
        if not self.option.allows(value):
            facts = {"field": self.name, "name": self.spelled, "value": value, "range": self.option.describe_range()}
            raise ConfigError(self.option.refusal.format(least=self.option.least, most=self.option.most, **facts))

    def refuse_type(self, value: Any, container: str) -> NoReturn:
        """Say which type is expected; NumPy's do not do, not even its float64: checkpoints are read without them."""
        expected = " or ".join([*(kind.__name__ for kind in self.types), *self.words])
        raise ConfigError(f"{self.spelled} {value!r} of {type(value)}: {container}{expected} expected")


def options_of(config: type[Any]) -> dict[str, Field]:
    """The options of a configuration, by the names of their fields; TypeError if a field has no :class:`Option`."""
    key: Any = config
    return _options_of(key)


@lru_cache
def _options_of(config: type[Any]) -> dict[str, Field]:
    hints = get_type_hints(config, include_extras=True)
    found, group = {}, ""
    for field in fields(config):
        kind, *marks = get_args(hints[field.name]) if get_origin(hints[field.name]) is Annotated else (None,)
        option = next((mark for mark in reversed(marks) if isinstance(mark, Option)), None)  # the outermost
        if option is None:
            raise TypeError(f"{config.__name__}.{field.name} has no Option")
        is_list = get_origin(kind) is tuple
        single = get_args(kind)[0] if is_list else kind
        union = (single,) if get_origin(single) is Literal else get_args(single) or (single,)
        types = tuple(one for one in union if one is not type(None) and get_origin(one) is not Literal)
        words = tuple(word for one in union if get_origin(one) is Literal for word in get_args(one))
        group = option.group or group
        found[field.name] = Field(field.name, kind, field.default, option, is_list, types, words, group)
    return found


def check(config: Any, options: type[Any] | None = None) -> None:
    """Check every field of a configuration by itself.

    Parameters
    ----------
    options : type, optional
        The class whose fields alone are checked, where the configuration adds some that are no options.

    Raises
    ------
    ConfigError
        If a value is out of its range or of another type, or a word unknown.
    """
    for name, field in options_of(options or config.__class__).items():
        value = getattr(config, name)
        if field.is_list and not isinstance(value, tuple | list):
            field.refuse_type(value, "tuple of ")
        for single in value if field.is_list else (value,):
            field.check(single)


def check_resume(*, resume: bool, overwrite: bool) -> None:
    """Refuse to go on with what is to be replaced; ConfigError."""
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other: give one of them")


def settings(config: Any) -> dict[str, Any]:
    """The values, by field, that decide the result and are recorded as they are."""
    options = {name: field.option for name, field in options_of(config.__class__).items()}
    return {name: getattr(config, name) for name, o in options.items() if o.decides and not o.recorded}


def arguments_of(config: Any) -> list[str]:
    """The words that make a command give this configuration: positional ones, then options that are no default.

    What is not on the command line is left out. The words are not quoted for a shell.
    """
    positional, optional = [], []
    for name, field in options_of(config.__class__).items():
        value = getattr(config, name)
        values = [str(single) for single in (value if field.is_list else (value,))]
        if field.option.positional:
            positional += [f"./{word}" if word.startswith("-") else word for word in values]  # paths, all of them
        elif not field.option.on_command_line or value == field.default or value is False:
            continue
        elif value is True:
            optional.append(f"--{field.spelled}")
        else:
            optional += [word for text in values for word in (f"--{field.spelled}", text)]
    return positional + optional

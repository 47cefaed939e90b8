"""What all settings share, and the registries of what people extend.

Settings are frozen pydantic models that refuse unknown keys, so a typing error never passes. A strategy, a
space or a head is one class with its own `Settings`, found by name in the registry of its family; `choice`
makes a group of a YAML file (`search: {strategy: nsga2, population: 20}`) the settings of the class it names.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from facenas.errors import UnknownClassError, UserError, first_line
from facenas.files import read_whole

T = TypeVar("T", bound="Config")
C = TypeVar("C")


class Config(BaseModel):
    """Base of all settings: immutable, and a key it does not know is an error.

    owner: the registered class whose settings these are, once `Registry` has adopted it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    owner: ClassVar[Any] = None

    @field_validator("*", mode="before")
    @classmethod
    def _spelled_out(cls, value: Any, info: ValidationInfo) -> Any:
        """`10k`, `1M` and `1e5` where a number is wanted; YAML takes them for texts."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        return value if str in kinds or not {int, float} & set(kinds) else _as_numbers(value)


_AMOUNT = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,2})?)([kMG]?)", re.ASCII)
_POWERS = {"": 0, "k": 3, "M": 6, "G": 9}  # of ten


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types of values that an annotation such as `int | None` or `dict[str, float]` allows."""
    inside = get_args(annotation)[1 if get_origin(annotation) is dict else 0 :]
    return tuple(kind for part in inside for kind in _kinds(part)) if inside else (annotation,)


def _as_numbers(value: Any) -> Any:
    """Texts that spell numbers as numbers, also those in a list or mapping; all else as it is."""
    if isinstance(value, list):
        return [_as_numbers(one) for one in value]
    if isinstance(value, dict):
        return {key: _as_numbers(one) for key, one in value.items()}
    found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    number = Decimal(found[1]).scaleb(_POWERS[found[2]])
    return int(number) if number == number.to_integral_value() else float(number)


ADDED = object()  # `name: Annotated[int, ADDED] = 1`: a setting that came when keys of trainings were on disk


def deciding(settings: Config) -> dict[str, Any]:
    """The settings as JSON for the key of what they decide.

    Those that were `ADDED` are no part of it at their default: keys stay what they were before them.
    """
    tree = settings.model_dump(mode="json")
    _leave_out(settings, tree)
    return tree


def _leave_out(settings: Config, tree: dict[str, Any]) -> None:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Config):
            _leave_out(value, tree[name])
        elif ADDED in field.metadata and value == field.default:
            del tree[name]


class Registry(Generic[C]):
    """The classes of one family by name.

    `noun` is what messages call a member. A file in `package` that says `@register("name")` is found by that
    name without being named anywhere else; a class elsewhere is named `module:Class`.
    """

    def __init__(self, noun: str, package: str) -> None:
        self.noun, self.package = noun, package
        self.base: type[Any] | None = None  # what members derive from, once that is defined
        self._classes: dict[str, type[C]] = {}
        self._objects: dict[str, type[C]] = {}  # of this process, such as those of a notebook
        self._searched = False

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Decorator: the class is known as `name` from now on. Raises ValueError when the name is another's."""

        def add(cls: type[C]) -> type[C]:
            known = self._classes.get(name)
            # A notebook cell that is run again defines its class anew: the last definition counts.
            if known and (known.__module__, known.__qualname__) != (
                cls.__module__,
                cls.__qualname__,
            ):
                raise ValueError(f"the {self.noun} {name!r} is registered already, by {known}")
            self._classes[name] = self._adopt(cls, name)
            return cls

        return add

    def names(self) -> list[str]:
        """All names, sorted."""
        self._search()
        return sorted(self._classes)

    def get(self, name: str) -> type[C]:
        """The class called `name`; raises UserError when there is none, or its module cannot be imported."""
        if not isinstance(name, str):
            raise UserError(f"a {self.noun} is named by a text, not by {name!r}")
        if ":" in name:
            return self._objects.get(name) or self._import(name)
        if name not in self._classes and name.isidentifier():
            self._search(only=name)  # its own file, if it has one: the others may be slow to import
        if name not in self._classes:
            self._search()
        if name not in self._classes:
            known = ", ".join(self.names())
            raise UserError(f"{self.noun} {name!r} is unknown; there are {known}, or one's own as module:Class")
        return self._classes[name]

    def name_of(self, cls: type[C]) -> str:
        """What `get` finds the class by: its registered name, else `module:Class`."""
        name = getattr(cls, "name", None)
        if isinstance(name, str) and self._classes.get(name) is cls:
            return name
        name = f"{cls.__module__}:{cls.__qualname__}"
        self._objects[name] = self._adopt(cls, name)
        return name

    def _search(self, only: str | None = None) -> None:
        """Imports all files of the package, once, or the one called `only`: each registers what it has."""
        if self._searched:
            return
        self._searched = only is None
        package = importlib.import_module(self.package)
        for found in pkgutil.iter_modules(package.__path__):
            if only in (None, found.name):
                importlib.import_module(f"{self.package}.{found.name}")

    def _import(self, name: str) -> type[C]:
        module, _, attribute = name.partition(":")
        found = import_object(name, self.noun)
        if not isinstance(found, type):
            raise UserError(f"{self.noun} {name}: {attribute} in {module} is no class")
        if self.base and not issubclass(found, self.base):
            base = f"{self.base.__module__}.{self.base.__name__}"
            raise UserError(f"{self.noun} {name}: is no {self.noun}; derive it from {base}")
        return self._adopt(found, name)

    def _adopt(self, cls: type[Any], name: str) -> type[C]:
        """Gives the class its name, and settings of its own that know their owner."""
        if "Settings" not in vars(cls):
            inherited = getattr(cls, "Settings", Config)
            own = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.Settings"}
            cls.Settings = type("Settings", (inherited,), {**own, "__doc__": inherited.__doc__})
        cls.Settings.owner = cls
        cls.name = name
        return cls


def import_object(name: str, noun: str) -> Any:
    """What `module:Name` names, from the working directory too; raises UserError when it is not there.

    An exception inside the module itself propagates: it is the author's to read.
    """
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in module.split(".")):
        raise UserError(f"{noun} {name}: {module!r} is no module's name; write it as module:Name")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # the console script lacks it, `python -m` has it
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UserError(
            f"{noun} {name}: there is no module {error.name} here; write it as module:Name, and start where "
            "the module can be imported"
        ) from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = "; a script or notebook has to define it anew, before it opens the run"
            raise UserError(f"{noun} {name}: {module} has no {attribute}{hint * (module == '__main__')}")
        found = getattr(found, part)
    return found


def choice(registry: Registry[Any], key: str, default: str) -> Any:
    """The type of a pydantic field: the `Settings` of the class that the group's `key` names.

    Accepts a mapping, the settings themselves, an object with `.settings`, or a class; is written as a mapping
    with `key` first.
    """

    def parse(tree: Any) -> Config:
        if isinstance(tree, type) and hasattr(tree, "Settings"):  # a class, with its own defaults
            registry.name_of(tree)
            tree = tree.Settings()
        settings = getattr(tree, "settings", tree)
        if isinstance(settings, Config):
            registry.name_of(type(tree) if settings is not tree else type(settings).owner)
            return settings
        if not isinstance(tree, dict):
            raise PydanticCustomError("group", "should be a group of settings")
        try:
            cls: Any = registry.get(tree.get(key, default))
        except UserError as error:
            raise _inner((key,), str(error), _UNKNOWN) from None
        model: type[Config] = cls.Settings
        return parse_group(model, {k: v for k, v in tree.items() if k != key})

    def write(settings: Config) -> dict[str, Any]:
        return {key: registry.name_of(settings.owner), **settings.model_dump(mode="json")}

    return Annotated[Config, BeforeValidator(parse), PlainSerializer(write)]


def parse_group(model: type[T], tree: dict[str, Any]) -> T:
    """`tree` as a `model`, inside another model's validation: `validate` tells a fault's whole place."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        kind = _UNKNOWN if first["type"] == _UNKNOWN else "inner"
        raise _inner(_place(first), _message(first, model), kind) from None


_UNKNOWN = "unknown_class"


def _inner(place: tuple[Any, ...], message: str, kind: Any) -> PydanticCustomError:
    return PydanticCustomError(kind, "{text}", {"place": place, "text": message})


def _place(error: Any) -> tuple[Any, ...]:
    return (*error["loc"], *error.get("ctx", {}).get("place", ()))


def _message(error: Any, model: Any) -> str:
    if error["type"] != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    for part in error["loc"][:-1]:  # down to the group it stands in
        model = getattr(getattr(model, "model_fields", {}).get(part), "annotation", None)
    near = get_close_matches(str(error["loc"][-1]), getattr(model, "model_fields", ()), 1)
    return f"is not a known setting; {near[0]} is" if near else "is not a known setting"


def shipped(folder: Literal["configs", "eval_protocols"]) -> Path:
    """The folder of shipped YAML files: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).parent
    return package / folder if (package / folder).is_dir() else package.parent / folder


def validate(model: type[T], tree: Any, where: str) -> T:
    """`tree` as a `model`; raises UserError with the first fault and the place it lies at."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in _place(first)) or "the settings"
        fault = UnknownClassError if first["type"] == _UNKNOWN else UserError
        raise fault(f"{where}: {key}: {_message(first, model)}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises UserError when the file is missing, torn or something else."""
    data = read_whole(path, _MOST_YAML)
    try:
        tree = parse_yaml(data.decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path}: is not valid YAML ({error})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: should hold a mapping of settings")
    return tree


def parse_yaml(text: str) -> Any:
    """The one value of a YAML text; raises ValueError, with one line, for whatever is wrong with it.

    A key that stands twice in a mapping is an error, and so is what aliases blow up beyond `_MOST_VALUES`.
    """
    try:
        tree = yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # YAML's own, and those of Python's numbers and dates
        raise ValueError(first_line(error)) from None
    left, waiting = _MOST_VALUES, [tree]
    while waiting:
        value = waiting.pop()
        inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        left -= len(inside)
        if left < 0:
            raise ValueError(f"it holds more than {_MOST_VALUES:,} values")
        waiting += inside
    return tree


_MOST_YAML = 1_000_000  # bytes; a megabyte takes PyYAML half a minute
_MOST_VALUES = 200_000


class _Loader(yaml.SafeLoader):
    """YAML's own loader lets the last of two equal keys win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} stands twice in one mapping, from line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)

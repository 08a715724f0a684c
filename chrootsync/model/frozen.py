"""What most classes here are: data that nobody changes once it is made."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from dataclasses import field, replace

__all__ = ["field", "frozen", "record", "replace"]

T = TypeVar("T")

# Python's dataclasses come with inspect and the reader of Python's own source, and compile several methods for each
# class: an eighth of a clean check, which comes by sixty classes and makes objects of half of them. Here the
# initializer is compiled when the first object is made; it sets fields as fast as any. The other methods need not be
# made to measure, and that nobody assigns to a field is for the type checker to see. To dataclasses.replace(), fields()
# and asdict() these classes are dataclasses all the same.


class _Field:
    """What field() says of a field."""

    __slots__ = ("options",)

    def __init__(self, **options: Any) -> None:
        self.options: Final = options


if not TYPE_CHECKING:
    field = _Field

    def replace(record: T, /, **changes: Any) -> T:
        """A copy in which some fields differ."""
        names = type(record).__slots__
        return type(record)(**{name: getattr(record, name) for name in names if name not in changes}, **changes)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class a dataclass with slots, whose fields are given by keyword and never changed."""
    return _made(cls)


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """The same, but fields may be assigned to."""
    return _made(cls)


def _made(cls: type[T]) -> type[T]:
    """The class once more, with slots and methods. It cannot be derived from another of these."""
    names = tuple(cls.__annotations__)
    defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
    if any(type(one).__module__ == "dataclasses" for one in defaults.values()):
        raise TypeError(f"{cls.__qualname__}: takes field() of this module, not that of dataclasses")
    options = {name: one.options for name, one in defaults.items() if isinstance(one, _Field)}
    left_out = {*names, "__dict__", "__weakref__"}
    body = {name: value for name, value in cls.__dict__.items() if name not in left_out}
    meta: Any = type(cls)
    made = meta(cls.__name__, cls.__bases__, {**body, "__slots__": names, "__qualname__": cls.__qualname__})
    content = attrgetter(*(name for name in names if options.get(name, {}).get("compare", True)))

    def first(self: Any, **values: Any) -> None:
        made.__init__ = _initializer(names, defaults)
        made.__init__(self, **values)

    def equal(self: T, other: object) -> bool:
        return bool(content(self) == content(other)) if type(other) is made else NotImplemented

    def hashed(self: T) -> int:
        return hash(content(self))

    def shown(self: T) -> str:
        parts = (f"{name}={getattr(self, name)!r}" for name in names if options.get(name, {}).get("repr", True))
        return f"{cls.__qualname__}({', '.join(parts)})"

    made.__init__, made.__eq__, made.__hash__, made.__repr__ = first, equal, hashed, shown
    made.__dataclass_fields__ = _Dataclass(cls)
    found: type[T] = made
    return found


def _initializer(names: tuple[str, ...], defaults: dict[str, Any]) -> Callable[..., None]:
    """The method that sets all fields; a default is a variable that only this method sees."""
    known: dict[str, Any] = {"missing": object()}
    parameters, lines = [], []
    for name in names:
        value = name
        if name not in defaults:
            parameters.append(name)
        elif isinstance(defaults[name], _Field):
            parameters.append(f"{name}=missing")
            known[f"make_{name}"] = defaults[name].options["default_factory"]
            value = f"make_{name}() if {name} is missing else {name}"
        else:
            parameters.append(f"{name}=default_{name}")
            known[f"default_{name}"] = defaults[name]
        lines.append(f"    self.{name} = {value}")
    exec("\n".join([f"def __init__(self, *, {', '.join(parameters)}):", *lines]), known)  # noqa: S102 -- as dataclass()
    initializer: Callable[..., None] = known["__init__"]
    return initializer


class _Dataclass:
    """By what dataclasses knows its classes; it is made of the original class when somebody asks."""

    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls
        self._fields: dict[str, Any] | None = None

    def __get__(self, _instance: object, _owner: type[Any]) -> dict[str, Any]:
        """The fields as dataclasses has them."""
        if self._fields is not None:
            return self._fields
        import dataclasses

        for name, one in list(vars(self._cls).items()):
            if isinstance(one, _Field):
                setattr(self._cls, name, dataclasses.field(**one.options))
        made: Any = dataclasses.dataclass(kw_only=True, repr=False, eq=False)(self._cls)
        fields: dict[str, Any] = made.__dataclass_fields__
        self._fields = fields
        return fields

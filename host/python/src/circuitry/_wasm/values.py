"""Plain Python values for the types of ``wit/``, to and from the objects of wasmtime's public interface.

====================  =====================================================
in ``wit/``           here
====================  =====================================================
record                a ``dict`` with the field names of ``wit/``
variant, result       a pair: the case's name, and its value or ``None``
enum                  the case's name
option                the value or ``None``
list<u8>              ``bytes``
list, tuple           ``list``, ``tuple``
====================  =====================================================

A converter is made once for each type and is then a function of the value alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wasmtime.component import (
    U8,
    U16,
    U32,
    U64,
    Bool,
    EnumType,
    ListType,
    OptionType,
    Record,
    RecordType,
    ResultType,
    String,
    TupleType,
    ValType,
    Variant,
    VariantType,
)

Convert = Callable[[Any], Any]

INTEGERS: dict[type[ValType], int] = {U8: 8, U16: 16, U32: 32, U64: 64}
"""How many bits each integer type has that ``wit/`` uses."""


def cases_of(kind: VariantType | ResultType) -> list[tuple[str, ValType | None]]:
    """The cases of a variant or a result, in order."""
    if isinstance(kind, ResultType):
        return [("ok", kind.ok), ("err", kind.err)]
    return kind.cases


def is_bytes(kind: ListType) -> bool:
    """Whether it is ``list<u8>``."""
    return isinstance(kind.element, U8)


def _classes(kind: ValType | None) -> set[type]:
    if kind is None:
        return {object}
    classes: set[type] = set()
    kind.add_classes(classes)
    return classes


def _is_tagged(cases: list[tuple[str, ValType | None]]) -> bool:
    """Whether wasmtime shows the cases as ``Variant``; it shows the bare value where its class tells the case."""
    seen: set[type] = set()
    for _, kind in cases:
        classes = _classes(kind)
        if classes & seen:
            return True
        seen |= classes
    return False


def _integer(bits: int) -> Convert:
    def convert(value: Any) -> int:
        # wasmtime takes what is out of bounds modulo the type's range.
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
            raise ValueError(f"{value!r} is no whole number of {bits} bits")
        return value

    return convert


def _keep(value: Any) -> Any:
    return value


def lowering(kind: ValType | None) -> Convert:
    """Makes the converter from a plain value to what wasmtime takes."""
    if kind is None:
        return lambda value: None
    if type(kind) in INTEGERS:
        return _integer(INTEGERS[type(kind)])
    if isinstance(kind, (Bool, String, EnumType)):
        return _keep
    if isinstance(kind, RecordType):
        fields = [(name, lowering(field)) for name, field in kind.fields]

        def record(value: Any) -> Record:
            made = Record()
            for name, lower in fields:
                setattr(made, name, lower(value[name]))
            return made

        return record
    if isinstance(kind, ListType):
        if is_bytes(kind):
            return bytes
        element = lowering(kind.element)
        return lambda value: [element(item) for item in value]
    if isinstance(kind, TupleType):
        elements = [lowering(item) for item in kind.elements]
        return lambda value: tuple(lower(item) for lower, item in zip(elements, value, strict=True))
    if isinstance(kind, OptionType):
        payload = lowering(kind.payload)
        return lambda value: None if value is None else payload(value)
    if isinstance(kind, (VariantType, ResultType)):
        cases = cases_of(kind)
        lowerings = {name: lowering(case) for name, case in cases}
        if _is_tagged(cases):
            return lambda value: Variant(value[0], lowerings[value[0]](value[1]))
        return lambda value: lowerings[value[0]](value[1])
    raise TypeError(f"the component has a type that this host does not know: {kind!r}")


def lifting(kind: ValType | None) -> Convert:
    """Makes the converter from what wasmtime gives to a plain value."""
    if kind is None:
        return lambda value: None
    if type(kind) in INTEGERS or isinstance(kind, (Bool, String, EnumType)):
        return _keep
    if isinstance(kind, RecordType):
        fields = [(name, lifting(field)) for name, field in kind.fields]
        return lambda value: {name: lift(getattr(value, name)) for name, lift in fields}
    if isinstance(kind, ListType):
        if is_bytes(kind):
            return _keep
        element = lifting(kind.element)
        return lambda value: [element(item) for item in value]
    if isinstance(kind, TupleType):
        elements = [lifting(item) for item in kind.elements]
        return lambda value: tuple(lift(item) for lift, item in zip(elements, value, strict=True))
    if isinstance(kind, OptionType):
        payload = lifting(kind.payload)
        return lambda value: None if value is None else payload(value)
    if isinstance(kind, (VariantType, ResultType)):
        return _lifting_of_cases(cases_of(kind))
    raise TypeError(f"the component has a type that this host does not know: {kind!r}")


def _lifting_of_cases(cases: list[tuple[str, ValType | None]]) -> Convert:
    if _is_tagged(cases):
        tagged = {name: lifting(case) for name, case in cases}
        return lambda value: (value.tag, tagged[value.tag](value.payload))
    untagged = [(name, tuple(_classes(case)), lifting(case)) for name, case in cases]

    def lift(value: Any) -> tuple[str, Any]:
        for name, classes, lift_case in untagged:
            if isinstance(value, classes):
                return name, lift_case(value)
        raise TypeError(f"the component answered with an unknown case: {value!r}")

    return lift

"""Calls of a component's function by way of wasmtime's C structures.

wasmtime's own ``Func.__call__`` asks the library for each type of each value in each call, and makes an object of each
byte of a list: a decision takes three milliseconds. Here the types are asked for once, and a value is laid out in
memory of our own by a few ``struct`` calls, which takes a fiftieth of that.

It rests on ``wasmtime._ffi``, wasmtime's own binding of its C interface. :func:`is_known` compares its structures
with those that this module lays out, and its release with those that were tried, since who owns what shows in no
structure; where they differ, or are gone, calls go the public way.

Invariant: what is handed over is owned here and only read by wasmtime; what comes back is owned by wasmtime and freed
here, whole, after it was read.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from wasmtime import Store, WasmtimeError
from wasmtime.component import (
    U8,
    U16,
    U32,
    U64,
    Bool,
    EnumType,
    Func,
    ListType,
    OptionType,
    RecordType,
    ResultType,
    String,
    TupleType,
    ValType,
    VariantType,
)

from .values import cases_of, is_bytes

try:
    from wasmtime import _ffi as ffi
except ImportError:  # pragma: no cover - a release of wasmtime without it
    ffi = None  # type: ignore[assignment]

# The releases whose C interface this module was tried with.
_TRIED = ("50.",)

# One value: its kind in the first byte, its content from the 8th on.
_VALUE = 32
# One field of a record: the name as length and pointer, then the value.
_FIELD = 48

_KINDS = {
    "bool": 0,
    "u8": 2,
    "u16": 4,
    "u32": 6,
    "u64": 8,
    "string": 12,
    "list": 13,
    "record": 14,
    "tuple": 15,
    "variant": 16,
    "enum": 17,
    "option": 18,
    "result": 19,
}

Keep = list[Any]
# Lays a value out at an offset of a buffer; what the buffer points to goes to the list, which keeps it alive.
Lay = Callable[[Any, bytearray, int, Keep], None]
# Reads the value at an offset of bytes that were copied out of wasmtime's memory.
Read = Callable[[bytes, int], Any]


def is_known() -> bool:
    """Whether wasmtime's structures are those that this module lays out."""
    try:
        value: Any = ffi.wasmtime_component_val
        field: Any = ffi.wasmtime_component_valrecord_entry
        union = ffi.wasmtime_component_valunion
        kinds = {
            "bool": ffi.WASMTIME_COMPONENT_BOOL,
            "u8": ffi.WASMTIME_COMPONENT_U8,
            "u16": ffi.WASMTIME_COMPONENT_U16,
            "u32": ffi.WASMTIME_COMPONENT_U32,
            "u64": ffi.WASMTIME_COMPONENT_U64,
            "string": ffi.WASMTIME_COMPONENT_STRING,
            "list": ffi.WASMTIME_COMPONENT_LIST,
            "record": ffi.WASMTIME_COMPONENT_RECORD,
            "tuple": ffi.WASMTIME_COMPONENT_TUPLE,
            "variant": ffi.WASMTIME_COMPONENT_VARIANT,
            "enum": ffi.WASMTIME_COMPONENT_ENUM,
            "option": ffi.WASMTIME_COMPONENT_OPTION,
            "result": ffi.WASMTIME_COMPONENT_RESULT,
        }
        lists: list[Any] = [
            ffi.wasm_byte_vec_t,
            ffi.wasmtime_component_vallist,
            ffi.wasmtime_component_valrecord,
            ffi.wasmtime_component_valtuple,
        ]
        variant: Any = ffi.wasmtime_component_valvariant
        result: Any = ffi.wasmtime_component_valresult
        return bool(
            version("wasmtime").startswith(_TRIED)
            and {name: kind.value for name, kind in kinds.items()} == _KINDS
            and ctypes.sizeof(ctypes.c_void_p) == 8
            and (ctypes.sizeof(value), value.kind.offset, value.of.offset) == (_VALUE, 0, 8)
            and (ctypes.sizeof(field), field.name.offset, field.val.offset) == (_FIELD, 0, 16)
            and ctypes.sizeof(union) == 24
            and all((kind.size.offset, kind.data.offset, ctypes.sizeof(kind)) == (0, 8, 16) for kind in lists)
            and (variant.discriminant.offset, variant.val.offset) == (0, 16)
            and (result.is_ok.offset, result.val.offset) == (0, 8)
            and callable(ffi.wasmtime_component_func_call)
            and callable(ffi.wasmtime_component_val_delete)
            and hasattr(Store, "_context")
            and hasattr(WasmtimeError, "_from_ptr")
        )
    except (AttributeError, PackageNotFoundError):
        return False


def _address(buffer: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def _text(text: str, keep: Keep) -> tuple[int, int]:
    """The length and the address of a text."""
    raw = bytearray(text.encode())
    keep.append(raw)
    return len(raw), _address(raw) if raw else 0


_head = struct.Struct("=B7xQQ")
_small = struct.Struct("=B7xQ")
_pair = struct.Struct("=QQ")
_byte = struct.Struct("=B7xB")
_word = struct.Struct("=B7xI")
_short = struct.Struct("=B7xH")
_result = struct.Struct("=B7xB7xQ")
_variant = struct.Struct("=B7xQQQ")


class Laid:
    """A value that is laid out once and used in many calls."""

    __slots__ = ("content", "keep")

    def __init__(self, kind: ValType, value: Any) -> None:
        lay = laying(kind)
        # The function owns the names of fields and cases that the content points to.
        self.keep: Keep = [lay]
        self.content = bytearray(_VALUE)
        lay(value, self.content, 0, self.keep)


def laying(kind: ValType) -> Lay:
    """Makes the function that lays a value of this type out."""
    lay = _laying(kind)

    def lay_or_copy(value: Any, buffer: bytearray, at: int, keep: Keep) -> None:
        if value.__class__ is Laid:
            buffer[at : at + _VALUE] = value.content
            keep.append(value)
        else:
            lay(value, buffer, at, keep)

    return lay_or_copy if isinstance(kind, RecordType) else lay


def _laying(kind: ValType) -> Lay:
    integers = {U8: (_byte, "u8"), U16: (_short, "u16"), U32: (_word, "u32"), U64: (_small, "u64")}
    if type(kind) in integers:
        packer, name = integers[type(kind)]
        pack, tag = packer.pack_into, _KINDS[name]

        def integer(value: Any, buffer: bytearray, at: int, keep: Keep) -> None:
            # It refuses what is out of the type's bounds.
            pack(buffer, at, tag, value)

        return integer
    if isinstance(kind, Bool):

        def boolean(value: Any, buffer: bytearray, at: int, keep: Keep) -> None:
            _byte.pack_into(buffer, at, 0, value is True)

        return boolean
    if isinstance(kind, (String, EnumType)):
        tag = _KINDS["string" if isinstance(kind, String) else "enum"]

        def text(value: Any, buffer: bytearray, at: int, keep: Keep) -> None:
            _head.pack_into(buffer, at, tag, *_text(value, keep))

        return text
    if isinstance(kind, ListType):
        return _laying_bytes if is_bytes(kind) else _laying_list(laying(kind.element), _KINDS["list"])
    if isinstance(kind, RecordType):
        return _laying_record(kind)
    if isinstance(kind, OptionType):
        payload = laying(kind.payload)

        def option(value: Any, buffer: bytearray, at: int, keep: Keep) -> None:
            address = 0
            if value is not None:
                inner = bytearray(_VALUE)
                payload(value, inner, 0, keep)
                keep.append(inner)
                address = _address(inner)
            _small.pack_into(buffer, at, 18, address)

        return option
    if isinstance(kind, TupleType):
        return _laying_tuple([laying(element) for element in kind.elements])
    if isinstance(kind, (VariantType, ResultType)):
        return _laying_cases(kind)
    raise TypeError(f"the component has a type that this host does not know: {kind!r}")


def _laying_bytes(value: Any, buffer: bytearray, at: int, keep: Keep) -> None:
    # A list of bytes is a list of values, each of kind `u8`.
    size = len(value)
    items = bytearray(b"\x02" + bytes(_VALUE - 1)) * size
    items[8::_VALUE] = value
    keep.append(items)
    _head.pack_into(buffer, at, 13, size, _address(items) if items else 0)


def _laying_list(element: Lay, tag: int) -> Lay:
    def lay(value: Any, buffer: bytearray, at: int, keep: Keep) -> None:
        items = bytearray(_VALUE * len(value))
        for index, item in enumerate(value):
            element(item, items, index * _VALUE, keep)
        keep.append(items)
        _head.pack_into(buffer, at, tag, len(value), _address(items) if items else 0)

    return lay


def _laying_tuple(elements: list[Lay]) -> Lay:
    def lay(value: Any, buffer: bytearray, at: int, keep: Keep) -> None:
        items = bytearray(_VALUE * len(elements))
        for index, (element, item) in enumerate(zip(elements, value, strict=True)):
            element(item, items, index * _VALUE, keep)
        keep.append(items)
        _head.pack_into(buffer, at, 15, len(elements), _address(items))

    return lay


def _laying_record(kind: RecordType) -> Lay:
    names: Keep = []
    fields = [(index * _FIELD + 16, name, laying(field)) for index, (name, field) in enumerate(kind.fields)]
    template = bytearray(_FIELD * len(fields))
    for at, name, _ in fields:
        _pair.pack_into(template, at - 16, *_text(name, names))
    count = len(fields)

    def lay(value: Any, buffer: bytearray, at: int, keep: Keep, names: Keep = names) -> None:
        content = bytearray(template)
        for field_at, name, field in fields:
            field(value[name], content, field_at, keep)
        keep.append(content)
        _head.pack_into(buffer, at, 14, count, _address(content))

    return lay


def _laying_cases(kind: VariantType | ResultType) -> Lay:
    names: Keep = []
    is_result = isinstance(kind, ResultType)
    cases = {name: (*_text(name, names), None if case is None else laying(case)) for name, case in cases_of(kind)}

    def lay(value: Any, buffer: bytearray, at: int, keep: Keep, names: Keep = names) -> None:
        size, name, case = cases[value[0]]
        address = 0
        if case is not None:
            inner = bytearray(_VALUE)
            case(value[1], inner, 0, keep)
            keep.append(inner)
            address = _address(inner)
        if is_result:
            _result.pack_into(buffer, at, 19, value[0] == "ok", address)
        else:
            _variant.pack_into(buffer, at, 16, size, name, address)

    return lay


_read_u64 = struct.Struct("=Q").unpack_from
_read_u32 = struct.Struct("=I").unpack_from
_read_u16 = struct.Struct("=H").unpack_from
_read_pair = _pair.unpack_from
_read_variant = struct.Struct("=QQQ").unpack_from
_read_result = struct.Struct("=B7xQ").unpack_from
_string_at = ctypes.string_at


def reading(kind: ValType) -> Read:
    """Makes the function that reads a value of this type."""
    unpack = {U16: _read_u16, U32: _read_u32, U64: _read_u64}.get(type(kind))
    if unpack is not None:
        return lambda data, at: unpack(data, at + 8)[0]
    if isinstance(kind, U8):
        return lambda data, at: data[at + 8]
    if isinstance(kind, Bool):
        return lambda data, at: data[at + 8] != 0
    if isinstance(kind, (String, EnumType)):

        def text(data: bytes, at: int) -> str:
            size, address = _read_pair(data, at + 8)
            return _string_at(address, size).decode() if size else ""

        return text
    if isinstance(kind, ListType):
        if is_bytes(kind):

            def octets(data: bytes, at: int) -> bytes:
                size, address = _read_pair(data, at + 8)
                return _string_at(address, size * _VALUE)[8::_VALUE] if size else b""

            return octets
        element = reading(kind.element)

        def items(data: bytes, at: int) -> list[Any]:
            size, address = _read_pair(data, at + 8)
            if not size:
                return []
            content = _string_at(address, size * _VALUE)
            return [element(content, index) for index in range(0, size * _VALUE, _VALUE)]

        return items
    if isinstance(kind, RecordType):
        fields = [(index * _FIELD + 16, name, reading(field)) for index, (name, field) in enumerate(kind.fields)]
        size = len(fields) * _FIELD

        def record(data: bytes, at: int) -> dict[str, Any]:
            content = _string_at(_read_u64(data, at + 16)[0], size)
            return {name: read(content, field_at) for field_at, name, read in fields}

        return record
    if isinstance(kind, TupleType):
        elements = [(index * _VALUE, reading(item)) for index, item in enumerate(kind.elements)]
        length = len(elements) * _VALUE

        def several(data: bytes, at: int) -> tuple[Any, ...]:
            content = _string_at(_read_u64(data, at + 16)[0], length)
            return tuple(read(content, item_at) for item_at, read in elements)

        return several
    if isinstance(kind, OptionType):
        payload = reading(kind.payload)

        def option(data: bytes, at: int) -> Any:
            (address,) = _read_u64(data, at + 8)
            return payload(_string_at(address, _VALUE), 0) if address else None

        return option
    if isinstance(kind, (VariantType, ResultType)):
        return _reading_cases(kind)
    raise TypeError(f"the component has a type that this host does not know: {kind!r}")


def _reading_cases(kind: VariantType | ResultType) -> Read:
    cases = {name: None if case is None else reading(case) for name, case in cases_of(kind)}
    if isinstance(kind, ResultType):

        def result(data: bytes, at: int) -> tuple[str, Any]:
            is_ok, address = _read_result(data, at + 8)
            name = "ok" if is_ok else "err"
            read = cases[name]
            return name, None if read is None else read(_string_at(address, _VALUE), 0)

        return result

    def variant(data: bytes, at: int) -> tuple[str, Any]:
        size, text, address = _read_variant(data, at + 8)
        name = _string_at(text, size).decode()
        read = cases[name]
        return name, None if read is None else read(_string_at(address, _VALUE), 0)

    return variant


class Signature:
    """How the arguments of a function are laid out and its result is read; for all instances of one component."""

    __slots__ = ("arguments", "parameters", "read")

    def __init__(self, store: Store, function: Func) -> None:
        kind = function.type(store)
        if kind.result is None:
            raise TypeError("the component has a function without a result, which this host does not know")
        self.parameters = [parameter for _, parameter in kind.params]
        self.arguments = [laying(parameter) for parameter in self.parameters]
        self.read = reading(kind.result)

    def call(self, store: Store, function: Func, arguments: tuple[Any, ...]) -> Any:
        """Calls; a trap is wasmtime's error."""
        keep: Keep = []
        given = bytearray(_VALUE * len(self.arguments))
        for index, (lay, argument) in enumerate(zip(self.arguments, arguments, strict=True)):
            lay(argument, given, index * _VALUE, keep)
        values = (ffi.wasmtime_component_val * len(self.arguments)).from_buffer(given)
        answer = ffi.wasmtime_component_val()
        error = ffi.wasmtime_component_func_call(
            ctypes.byref(function._func), store._context(), values, len(values), ctypes.byref(answer), 1
        )
        if error:
            raise WasmtimeError._from_ptr(error)
        try:
            return self.read(_string_at(ctypes.addressof(answer), _VALUE), 0)
        finally:
            ffi.wasmtime_component_val_delete(ctypes.byref(answer))

"""What a breaker is for, beside its name, and the default name of a circuit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

TENANT = "tenant"
"""The key of the tenant in a :class:`Context`."""


class Context(Mapping[str, str]):
    """What a breaker is for, beside its name: the tenant, the region.

    It goes to the name function and to the state-change callback, so keep secrets out of it. It does not change.

    >>> context = Context(tenant="acme").with_value("region", "eu")
    >>> context["tenant"]
    'acme'
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str] | None = None, /, **more: str) -> None:
        given = {**(values or {}), **more}
        for key, value in given.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TypeError(f"a context has texts only, not {key!r}: {value!r}")
        self._values = MappingProxyType(dict(sorted(given.items())))

    @classmethod
    def tenant(cls, id: str) -> Context:
        """The context of a tenant's jobs."""
        return cls({TENANT: id})

    def with_value(self, key: str, value: str) -> Context:
        """The same with one value more; a value of the same key is replaced."""
        return Context({**self._values, key: value})

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return f"Context({dict(self._values)!r})"


def default_name(name: str, context: Context) -> str:
    """The default name of a circuit: the name itself, and ``name/tenant`` where the context has a tenant.

    So that no two pairs share a circuit, ``%`` and ``/`` within a part become ``%25`` and ``%2F``.

    >>> default_name("emails", Context())
    'emails'
    >>> default_name("emails", Context.tenant("acme"))
    'emails/acme'
    >>> default_name("emails", Context.tenant("a/b"))
    'emails/a%2Fb'
    """
    tenant = context.get(TENANT)
    return _escape(name) if tenant is None else f"{_escape(name)}/{_escape(tenant)}"


def _escape(part: str) -> str:
    return part.replace("%", "%25").replace("/", "%2F")

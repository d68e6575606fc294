"""Kafka's messages: bytes to dicts and back, by interpreting the schema table.

A message is a dict of its fields under the table's names, nested structs are dicts, arrays
are lists, a uuid is 16 bytes, records are a view of what was decoded. **A decoded message
holds every field of the table**, also those its version lacks or the peer left out: they have
their defaults, so whoever reads it need not ask for the version. Encoding is as forgiving: an
absent field is its default. But a name that is not in the table, or a value that the version
cannot carry and that is not `ignorable`, is our own bug and raises ValueError.

From the table (schema.py) a *plan* is built for each pair of message and version at its first
use; decoding and encoding walk the plan. Nothing that a peer sends can cost more than its
bytes justify: each length is checked against what remains before anything is made of it, the
number of array elements is limited in all (`ELEMENTS_MAX`), nesting is the table's own. Bad
bytes raise Malformed, never anything else.

Not here: headers and sizes (frames.py), which versions are spoken (api.py), what they mean.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from isthmus.errors import Malformed
from isthmus.kafka import schema
from isthmus.wire.buffer import ReadBuffer, WriteBuffer

Data: TypeAlias = "bytes | bytearray | memoryview"
Body: TypeAlias = "dict[str, Any]"

ELEMENTS_MAX: Final = 250_000  # array elements in one message
SPLICE_BYTES_MIN: Final = 2_048  # shorter records are cheaper to copy than to send apart

_BOOL = 0
_INT8 = 1
_INT16 = 2
_UINT16 = 3
_INT32 = 4
_UINT32 = 5
_INT64 = 6
_FLOAT64 = 7
_UUID = 8
_STRING = 9
_BYTES = 10
_RECORDS = 11
_STRUCT = 12
_ARRAY = 13

_KINDS: Final = {
    "bool": (_BOOL, 1),
    "int8": (_INT8, 1),
    "int16": (_INT16, 2),
    "uint16": (_UINT16, 2),
    "int32": (_INT32, 4),
    "uint32": (_UINT32, 4),
    "int64": (_INT64, 8),
    "float64": (_FLOAT64, 8),
    "uuid": (_UUID, 16),
    "string": (_STRING, 2),
    "bytes": (_BYTES, 4),
    "records": (_RECORDS, 4),
}
_ABSENT: Final = object()


# --- plans ----------------------------------------------------------------------------------


class FieldPlan:
    """How one field is laid out in one version.

    `struct` is there for a struct, `element` for an array: how each of its elements looks.
    """

    __slots__ = (
        "bytes_min",
        "default",
        "element",
        "is_compact",
        "is_ignorable",
        "is_nullable",
        "kind",
        "name",
        "struct",
        "tag",
    )

    def __init__(
        self, field: schema.Field, version: int, path: str, *, is_flexible: bool
    ) -> None:
        self.name = field.name
        self.default = field.default
        self.tag = -1 if field.tag is None else field.tag
        self.is_ignorable = field.is_ignorable
        self.is_compact = is_flexible and not field.is_inflexible
        self.is_nullable = version in field.nullable
        self.struct: Any = None
        self.element: Any = None
        if field.is_array:
            single = field._replace(is_array=False, nullable=schema.Span(0, -1), default=None)
            self.kind = _ARRAY
            self.element = FieldPlan(single, version, path, is_flexible=is_flexible)
            self.bytes_min = 1 if self.is_compact else 4
        elif field.type == "struct":
            path = f"{path} {field.name}"
            self.kind = _STRUCT
            self.struct = StructPlan(field.fields, version, path, is_flexible=is_flexible)
            self.bytes_min = 1 if self.is_nullable else self.struct.bytes_min
        else:
            self.kind, self.bytes_min = _KINDS[field.type]
            if self.kind >= _STRING and self.is_compact:
                self.bytes_min = 1

    def fresh_default(self) -> Any:
        """Return the default, new where it could be changed by whoever gets it."""
        if self.default is None:
            return None
        if self.kind == _ARRAY:
            return []
        if self.kind == _STRUCT:
            return self.struct.defaults()
        return self.default

    def is_default(self, value: Any) -> bool:
        """Tell whether sending nothing would say the same as sending `value`."""
        if value is None or self.default is None:
            return value is self.default
        if self.kind == _ARRAY:
            return len(value) == 0
        if self.kind == _STRUCT:
            return bool(self.struct.is_default(value))
        return bool(value == self.default)


class StructPlan:
    """How a message or a struct inside it is laid out in one version.

    `fields` come in the order of the wire, `tagged` in that of their tags; `absent` are the
    fields of other versions. `blank` is what decoding starts from: every field with its
    default; those of `changeable` are then made afresh, so that no two messages share them.
    """

    __slots__ = (
        "absent",
        "blank",
        "by_tag",
        "bytes_min",
        "changeable",
        "fields",
        "is_flexible",
        "path",
        "tagged",
    )

    def __init__(
        self, fields: tuple[schema.Field, ...], version: int, path: str, *, is_flexible: bool
    ) -> None:
        plans = [FieldPlan(one, version, path, is_flexible=is_flexible) for one in fields]
        present = [
            plan for one, plan in zip(fields, plans, strict=True) if version in one.versions
        ]
        tagged = [one for one in present if one.tag >= 0]
        self.path = path
        self.is_flexible = is_flexible
        self.fields = [one for one in present if one.tag < 0]
        self.by_tag = {one.tag: one for one in tagged}
        self.tagged = [self.by_tag[tag] for tag in sorted(self.by_tag)]
        self.absent = [one for one in plans if one not in present]
        self.changeable = [
            one
            for one in tagged + self.absent
            if one.default is not None and one.kind in (_ARRAY, _STRUCT)
        ]
        self.blank = {
            one.name: None if one.kind in (_ARRAY, _STRUCT) else one.default for one in plans
        }
        self.bytes_min = max(1, sum([one.bytes_min for one in self.fields]) + is_flexible)

    def defaults(self) -> Body:
        """Return the struct as it is where nothing was sent."""
        body = self.blank.copy()
        for field in (*self.fields, *self.changeable):
            body[field.name] = field.fresh_default()
        return body

    def is_default(self, body: Body) -> bool:
        """Tell whether every field in `body` has its default."""
        for field in (*self.fields, *self.tagged, *self.absent):
            value = body.get(field.name, _ABSENT)
            if value is not _ABSENT and not field.is_default(value):
                return False
        return True

    def check_others(self, body: Body) -> None:
        """Raise ValueError for what `body` says beyond the fields of this version."""
        for name in body:
            if name not in self.blank:
                raise ValueError(f"{self.path} has no field {name}")
        for field in self.absent:
            value = body.get(field.name, _ABSENT)
            if value is _ABSENT or field.is_ignorable or field.is_default(value):
                continue
            raise ValueError(f"{self.path} cannot carry {field.name}: {value!r}")


_PLANS: Final[dict[tuple[str, int], StructPlan]] = {}


def _plan(message: str, version: int) -> StructPlan:
    plan = _PLANS.get((message, version))
    return _build(message, version) if plan is None else plan


def _build(message: str, version: int) -> StructPlan:
    found = schema.message(message)
    if version not in found.versions:
        raise ValueError(f"{message} has no version {version}")
    is_flexible = version >= found.flexible_first
    plan = StructPlan(found.fields, version, f"{message} v{version}", is_flexible=is_flexible)
    _PLANS[message, version] = plan
    return plan


# --- decode ---------------------------------------------------------------------------------


class _Decoder:
    """Reads one message; holds what its parts share."""

    __slots__ = ("_elements_left", "_source")

    def __init__(self, source: ReadBuffer) -> None:
        self._source = source
        self._elements_left = ELEMENTS_MAX

    def struct(self, plan: StructPlan) -> Body:
        body = plan.blank.copy()
        for field in plan.fields:
            body[field.name] = self._value(field)
        for field in plan.changeable:
            body[field.name] = field.fresh_default()
        if plan.is_flexible:
            self._tagged(plan, body)
        return body

    def _value(self, field: FieldPlan) -> Any:
        kind = field.kind
        source = self._source
        if kind == _INT32:
            return source.i32()
        if kind == _INT64:
            return source.i64()
        if kind == _INT16:
            return source.i16()
        if kind == _ARRAY:
            return self._array(field)
        if kind == _STRUCT:
            if field.is_nullable and source.i8() < 0:  # KIP-893
                return None
            return self.struct(field.struct)
        if kind >= _STRING:
            return self._sized(field)
        return self._small(kind)

    def _small(self, kind: int) -> Any:
        source = self._source
        if kind == _INT8:
            return source.i8()
        if kind == _BOOL:
            return source.u8() != 0
        if kind == _UUID:
            return source.bytes(16)
        if kind == _UINT16:
            return source.u16()
        if kind == _UINT32:
            return source.u32()
        return source.f64()

    def _sized(self, field: FieldPlan) -> Any:
        """Read a string, bytes or records."""
        source = self._source
        if field.is_compact:
            length = self._compact_length()
        elif field.kind == _STRING:
            length = source.i16()
        else:
            length = source.i32()
        if length < 0:
            return self._null(field)
        if field.kind == _RECORDS:
            return source.view(length)
        data = source.bytes(length)
        if field.kind == _BYTES:
            return data
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed(f"{field.name} is not UTF-8") from None

    def _compact_length(self) -> int:
        """Read a length that is stored plus one, 0 for null; return -1 for null."""
        stored = self._source.uvarint()
        left = self._source.end - self._source.position
        if stored > left + 1:
            raise Malformed(f"{stored - 1} announced, {left} bytes left")
        return stored - 1

    def _null(self, field: FieldPlan) -> None:
        if not field.is_nullable:
            raise Malformed(f"{field.name} may not be null")

    def _array(self, field: FieldPlan) -> list[Any] | None:
        element = field.element
        count = self._compact_length() if field.is_compact else self._source.i32()
        if count < 0:
            self._null(field)
            return None
        left = self._source.end - self._source.position
        if count > left // element.bytes_min:
            raise Malformed(f"{count} {field.name} announced, {left} bytes left")
        self._elements_left -= count
        if self._elements_left < 0:
            raise Malformed(f"more than {ELEMENTS_MAX} array elements")
        if element.kind == _STRUCT:
            return [self.struct(element.struct) for _ in range(count)]
        return [self._value(element) for _ in range(count)]

    def _tagged(self, plan: StructPlan, body: Body) -> None:
        """Read the tagged fields behind a struct; skip those we do not know (KIP-482)."""
        source = self._source
        count = source.uvarint()
        if count == 0:
            return
        left = source.end - source.position
        if count > left // 2:
            raise Malformed(f"{count} tagged fields announced, {left} bytes left")
        for _ in range(count):
            tag = source.uvarint()
            size = source.uvarint()
            left = source.end - source.position
            if size > left:
                raise Malformed(f"tag {tag} has {size} bytes, {left} left")
            field = plan.by_tag.get(tag)
            if field is None:
                source.skip(size)
                continue
            end = source.position + size
            body[field.name] = self._value(field)
            if source.position != end:
                raise Malformed(f"{field.name} is not as long as its tag says")


def decode(message: str, version: int, data: Data, position: int = 0) -> Body:
    """Decode the body of `message`, such as "FetchRequest", from `data[position:]`.

    Nothing else may follow it. Fields of type `records` are views of `data`: what they show
    changes with it.

    Raises:
        Malformed: The bytes are not that message.
        ValueError: The table has no such version of it.
    """
    body, end = decode_head(message, version, data, position)
    if end != len(data):
        raise Malformed(f"{message} v{version}: {len(data) - end} bytes too many")
    return body


def decode_head(message: str, version: int, data: Data, position: int = 0) -> tuple[Body, int]:
    """Decode as `decode` does, but let anything follow; return also the position after it."""
    plan = _plan(message, version)
    source = ReadBuffer()
    source.attach(data, position)
    try:
        body = _Decoder(source).struct(plan)
    except Malformed as error:
        raise Malformed(f"{plan.path}: {error}") from None
    return body, source.position


# --- encode ---------------------------------------------------------------------------------


class _Encoder:
    """Writes one message; holds what its parts share."""

    __slots__ = ("_out", "_splices")

    def __init__(self, out: WriteBuffer, splices: list[tuple[int, Data]] | None) -> None:
        self._out = out
        self._splices = splices

    def struct(self, plan: StructPlan, body: Body) -> None:
        seen = 0
        for field in plan.fields:
            value = body.get(field.name, _ABSENT)
            if value is _ABSENT:
                value = field.default
            else:
                seen += 1
            self._value(field, value)
        if plan.is_flexible:
            seen += self._tagged(plan, body)
        if seen != len(body):
            plan.check_others(body)

    def _value(self, field: FieldPlan, value: Any) -> None:
        kind = field.kind
        out = self._out
        if kind == _INT32:
            out.put_i32(value)
        elif kind == _INT64:
            out.put_i64(value)
        elif kind == _INT16:
            out.put_i16(value)
        elif kind == _ARRAY:
            self._array(field, value)
        elif kind == _STRUCT:
            self._struct_field(field, value)
        elif kind == _STRING:
            self._string(field, value)
        elif kind >= _BYTES:
            self._bytes(field, value)
        else:
            self._small(kind, value)

    def _small(self, kind: int, value: Any) -> None:
        out = self._out
        if kind == _BOOL:
            out.put_u8(1 if value else 0)
        elif kind == _INT8:
            out.put_i8(value)
        elif kind == _UUID:
            if len(value) != 16:
                raise ValueError(f"a uuid of {len(value)} bytes")
            out.put_bytes(value)
        elif kind == _UINT16:
            out.put_u16(value)
        elif kind == _UINT32:
            out.put_u32(value)
        else:
            out.put_f64(value)

    def _struct_field(self, field: FieldPlan, value: Any) -> None:
        if field.is_nullable:  # KIP-893
            self._out.put_i8(-1 if value is None else 1)
            if value is None:
                return
        self.struct(field.struct, value)

    def _null(self, field: FieldPlan) -> None:
        if not field.is_nullable:
            raise ValueError(f"{field.name} may not be null")
        if field.is_compact:
            self._out.put_u8(0)
        elif field.kind == _STRING:
            self._out.put_i16(-1)
        else:
            self._out.put_i32(-1)

    def _string(self, field: FieldPlan, value: Any) -> None:
        if value is None:
            self._null(field)
            return
        data = value.encode("utf-8")
        if field.is_compact:
            self._out.put_uvarint(len(data) + 1)
        else:
            self._out.put_i16(len(data))
        self._out.put_bytes(data)

    def _length(self, field: FieldPlan, length: int) -> None:
        if field.is_compact:
            self._out.put_uvarint(length + 1)
        else:
            self._out.put_i32(length)

    def _bytes(self, field: FieldPlan, value: Any) -> None:
        """Write bytes or records; records may be a list of buffers."""
        if value is None:
            self._null(field)
            return
        parts = value if isinstance(value, list) else [value]
        self._length(field, sum([len(part) for part in parts]))
        for part in parts:
            if self._splices is None or field.kind == _BYTES or len(part) < SPLICE_BYTES_MIN:
                self._out.put_bytes(part)
            else:
                self._splices.append((self._out.size, part))

    def _array(self, field: FieldPlan, value: Any) -> None:
        if value is None:
            self._null(field)
            return
        element = field.element
        self._length(field, len(value))
        if element.kind == _STRUCT:
            for one in value:
                self.struct(element.struct, one)
        else:
            for one in value:
                self._value(element, one)

    def _tagged(self, plan: StructPlan, body: Body) -> int:
        """Write the tagged fields that are not their defaults; return how many `body` names."""
        if not plan.tagged:
            self._out.put_u8(0)
            return 0
        seen = 0
        told = []
        for field in plan.tagged:
            value = body.get(field.name, _ABSENT)
            if value is not _ABSENT:
                seen += 1
                if not field.is_default(value):
                    told.append((field, value))
        self._out.put_uvarint(len(told))
        for field, value in told:
            self._out.put_uvarint(field.tag)
            self._prefixed(field, value)
        return seen

    def _prefixed(self, field: FieldPlan, value: Any) -> None:
        """Write a value behind its size, for which one byte is nearly always enough."""
        out = self._out
        start = out.size
        out.put_u8(0)
        self._value(field, value)
        size = out.size - start - 1
        if size < 0x80:
            out.patch_u8(start, size)
            return
        data = bytes(out.view()[start + 1 :])
        out.truncate(start)
        out.put_uvarint(size)
        out.put_bytes(data)


def encode(
    message: str,
    version: int,
    body: Body,
    out: WriteBuffer,
    splices: list[tuple[int, Data]] | None = None,
) -> None:
    """Append the body of `message` to `out`; where that fails, `out` is as it was.

    With `splices`, records of SPLICE_BYTES_MIN and more are left out of `out`, and appended to
    `splices` with the position in `out` where they belong.

    Raises:
        ValueError: `body` says what this version of the message cannot carry.
    """
    start = out.size
    try:
        _Encoder(out, splices).struct(_plan(message, version), body)
    except BaseException:
        out.truncate(start)
        raise

"""Bytes without meaning: one buffer to write into, one cursor to read with.

`buffer.py` beside this file is the readable twin and says what is promised; a property test
holds the two equal operation by operation. Only here does the message path touch
pointers, so every bound is checked here and nowhere else: each write goes through `_next` or
`_at`, each read is compared with `end` before a byte is touched.

While a view of a WriteBuffer lives, its memory must not move. `_capacity` is then lowered to
`size`, so the next put leaves the fast path and meets the check in `_grow`.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_FromStringAndSize
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcmp, memcpy

from isthmus.errors import Malformed

KEEP_BYTES_MAX = 1 << 20  # `take` gives more capacity than this back
UVARINT_BYTES_MAX = 10
I32_VARINT_BYTES_MAX = 5

cdef Py_ssize_t _KEEP_BYTES_MAX = KEEP_BYTES_MAX
cdef Py_ssize_t _FIRST_BYTES = 256
cdef Py_ssize_t _SSIZE_MAX = <Py_ssize_t>(<size_t>-1 >> 1)
cdef unsigned char _nothing = 0  # what an empty buffer without memory points to


# --- integers in memory -----------------------------------------------------------------------


cdef inline void _write16(unsigned char* at, unsigned int value) noexcept nogil:
    at[0] = <unsigned char>(value >> 8)
    at[1] = <unsigned char>value


cdef inline void _write32(unsigned char* at, unsigned int value) noexcept nogil:
    at[0] = <unsigned char>(value >> 24)
    at[1] = <unsigned char>(value >> 16)
    at[2] = <unsigned char>(value >> 8)
    at[3] = <unsigned char>value


cdef inline void _write64(unsigned char* at, unsigned long long value) noexcept nogil:
    _write32(at, <unsigned int>(value >> 32))
    _write32(at + 4, <unsigned int>value)


cdef inline unsigned int _read16(const unsigned char* at) noexcept nogil:
    return <unsigned int>at[0] << 8 | at[1]


cdef inline unsigned int _read32(const unsigned char* at) noexcept nogil:
    return (
        <unsigned int>at[0] << 24 | <unsigned int>at[1] << 16 | <unsigned int>at[2] << 8 | at[3]
    )


cdef inline unsigned long long _read64(const unsigned char* at) noexcept nogil:
    return <unsigned long long>_read32(at) << 32 | _read32(at + 4)


cdef inline unsigned long long _zigzag(long long value) noexcept nogil:
    return <unsigned long long>value << 1 ^ <unsigned long long>(value >> 63)


cdef inline int _size_of(unsigned long long value) noexcept nogil:
    cdef int size = 1
    while value > 0x7F:
        value >>= 7
        size += 1
    return size


cpdef int uvarint_size(unsigned long long value) noexcept:
    """Return how many bytes `put_uvarint(value)` writes."""
    return _size_of(value)


cpdef int varint_size(long long value) noexcept:
    """Return how many bytes `put_varint(value)` writes."""
    return _size_of(_zigzag(value))


cpdef Py_ssize_t varint_bytes_size(object data) except -1:
    """Return how many bytes `put_varint_bytes(data)` writes."""
    cdef Py_ssize_t size
    cdef Py_buffer source
    if data is None:
        return 1
    if PyBytes_CheckExact(data):
        size = PyBytes_GET_SIZE(data)
    else:
        PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
        size = source.len
        PyBuffer_Release(&source)
    return _size_of(_zigzag(size)) + size


# --- overwrite in place -----------------------------------------------------------------------


cdef unsigned char* _open(
    object data, Py_buffer* target, Py_ssize_t position, Py_ssize_t size
) except NULL:
    PyObject_GetBuffer(data, target, PyBUF_WRITABLE)
    if position < 0 or size > target.len - position:
        whole = target.len
        PyBuffer_Release(target)
        raise IndexError(f"cannot store {size} bytes at {position} of {whole}")
    return <unsigned char*>target.buf + position


cpdef object store_i16(object data, Py_ssize_t position, short value):
    """Overwrite two bytes of `data` in place; BufferError where it is read-only."""
    cdef Py_buffer target
    _write16(_open(data, &target, position, 2), <unsigned int>value)
    PyBuffer_Release(&target)


cpdef object store_i32(object data, Py_ssize_t position, int value):
    """Overwrite four bytes of `data` in place; BufferError where it is read-only."""
    cdef Py_buffer target
    _write32(_open(data, &target, position, 4), <unsigned int>value)
    PyBuffer_Release(&target)


cpdef object store_u32(object data, Py_ssize_t position, unsigned int value):
    """Overwrite four bytes of `data` in place; BufferError where it is read-only."""
    cdef Py_buffer target
    _write32(_open(data, &target, position, 4), value)
    PyBuffer_Release(&target)


cpdef object store_i64(object data, Py_ssize_t position, long long value):
    """Overwrite eight bytes of `data` in place; BufferError where it is read-only."""
    cdef Py_buffer target
    _write64(_open(data, &target, position, 8), <unsigned long long>value)
    PyBuffer_Release(&target)


# --- write ------------------------------------------------------------------------------------


@cython.final
cdef class WriteBuffer:
    """Bytes in the making, in memory that is kept from one use to the next."""

    def __dealloc__(self):
        PyMem_Free(self._data)

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        cdef void* start = &_nothing if self._data is NULL else self._data
        PyBuffer_FillInfo(buffer, self, start, self.size, 1, flags)
        self._views += 1
        self._capacity = self.size

    def __releasebuffer__(self, Py_buffer* buffer):
        self._views -= 1
        if self._views == 0:
            self._capacity = self._allocated

    cdef int _grow(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t wanted
        cdef void* moved
        if self._views:
            raise BufferError("the size cannot change while a view is out")
        if more > _SSIZE_MAX - self.size:
            raise MemoryError()
        wanted = self.size + more
        if self._allocated > wanted >> 1 and self._allocated <= _SSIZE_MAX >> 1:
            wanted = self._allocated << 1
        if wanted < _FIRST_BYTES:
            wanted = _FIRST_BYTES
        moved = PyMem_Realloc(self._data, <size_t>wanted)
        if moved is NULL:
            raise MemoryError()
        self._data = <unsigned char*>moved
        self._allocated = self._capacity = wanted
        return 0

    cdef int reserve(self, Py_ssize_t more) except -1:
        """Make room for `more` bytes, so that as many can be put without moving the memory."""
        if more > self._capacity - self.size:
            self._grow(more)
        return 0

    cdef unsigned char* _next(self, Py_ssize_t size) except NULL:
        """Return where the next `size` bytes go, and count them as written."""
        cdef unsigned char* at
        if size > self._capacity - self.size:
            self._grow(size)
        at = self._data + self.size
        self.size += size
        return at

    cdef unsigned char* _at(self, Py_ssize_t position, Py_ssize_t size) except NULL:
        if position < 0 or size > self.size - position:
            raise IndexError(f"cannot patch {size} bytes at {position} of {self.size}")
        return self._data + position

    cdef int put_raw(self, const char* data, Py_ssize_t size) except -1:
        if size > 0:
            memcpy(self._next(size), data, <size_t>size)
        return 0

    # --- integers ---------------------------------------------------------------------------

    cpdef object put_u8(self, unsigned char value):
        self._next(1)[0] = value

    cpdef object put_u16(self, unsigned short value):
        _write16(self._next(2), value)

    cpdef object put_u32(self, unsigned int value):
        _write32(self._next(4), value)

    cpdef object put_u64(self, unsigned long long value):
        _write64(self._next(8), value)

    cpdef object put_i8(self, signed char value):
        self._next(1)[0] = <unsigned char>value

    cpdef object put_i16(self, short value):
        _write16(self._next(2), <unsigned int>value)

    cpdef object put_i32(self, int value):
        _write32(self._next(4), <unsigned int>value)

    cpdef object put_i64(self, long long value):
        _write64(self._next(8), <unsigned long long>value)

    cpdef object put_f64(self, double value):
        cdef unsigned long long bits
        memcpy(&bits, &value, 8)
        _write64(self._next(8), bits)

    cdef int _put_uvarint(self, unsigned long long value) except -1:
        cdef unsigned char* at
        if value <= 0x7F:
            self._next(1)[0] = <unsigned char>value
            return 0
        at = self._next(_size_of(value))
        while value > 0x7F:
            at[0] = <unsigned char>(value | 0x80)
            at += 1
            value >>= 7
        at[0] = <unsigned char>value
        return 0

    cpdef object put_uvarint(self, unsigned long long value):
        """Write an unsigned varint of up to 64 bits, in as few bytes as it needs."""
        self._put_uvarint(value)

    cpdef object put_varint(self, long long value):
        """Write a zigzag varint of up to 64 bits."""
        self._put_uvarint(_zigzag(value))

    # --- bytes ------------------------------------------------------------------------------

    cdef int _put_buffer(self, object data, bint prefixed) except -1:
        cdef Py_buffer source
        PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
        try:
            if prefixed:
                self._put_uvarint(_zigzag(source.len))
            self.put_raw(<const char*>source.buf, source.len)
        finally:
            PyBuffer_Release(&source)
        return 0

    cpdef object put_bytes(self, object data):
        """Append a copy of `data`, any contiguous buffer."""
        if PyBytes_CheckExact(data):
            self.put_raw(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        else:
            self._put_buffer(data, False)

    cpdef object put_varint_bytes(self, object data):
        """Write a zigzag length and the bytes, or the length -1 for None (KIP-98)."""
        cdef Py_ssize_t size
        if PyBytes_CheckExact(data):
            size = PyBytes_GET_SIZE(data)
            self._put_uvarint(_zigzag(size))
            self.put_raw(PyBytes_AS_STRING(data), size)
        elif data is None:
            self._put_uvarint(1)
        else:
            self._put_buffer(data, True)

    # --- change what is there ---------------------------------------------------------------

    cpdef object patch_u8(self, Py_ssize_t position, unsigned char value):
        self._at(position, 1)[0] = value

    cpdef object patch_u16(self, Py_ssize_t position, unsigned short value):
        _write16(self._at(position, 2), value)

    cpdef object patch_u32(self, Py_ssize_t position, unsigned int value):
        _write32(self._at(position, 4), value)

    cpdef object patch_i16(self, Py_ssize_t position, short value):
        _write16(self._at(position, 2), <unsigned int>value)

    cpdef object patch_i32(self, Py_ssize_t position, int value):
        _write32(self._at(position, 4), <unsigned int>value)

    cpdef object patch_i64(self, Py_ssize_t position, long long value):
        _write64(self._at(position, 8), <unsigned long long>value)

    cpdef object truncate(self, Py_ssize_t size):
        """Forget what was written after the first `size` bytes."""
        if size < 0 or size > self.size:
            raise IndexError(f"cannot truncate {self.size} bytes to {size}")
        if size != self.size and self._views:
            raise BufferError("the size cannot change while a view is out")
        self.size = size

    cpdef object clear(self):
        """Forget everything; the memory is kept."""
        self.truncate(0)

    # --- the way out ------------------------------------------------------------------------

    cpdef object take(self):
        """Return everything as a copy and clear the buffer."""
        taken = PyBytes_FromStringAndSize(<char*>self._data, self.size)
        self._empty()
        return taken

    cpdef object take_mutable(self):
        """Return everything as a copy that may be changed, and clear the buffer."""
        taken = PyByteArray_FromStringAndSize(<char*>self._data, self.size)
        self._empty()
        return taken

    cpdef object view(self):
        """Return a read-only view of everything; while it lives the size cannot change."""
        return memoryview(self)

    cdef int _empty(self) except -1:
        self.truncate(0)
        if self._allocated > _KEEP_BYTES_MAX and not self._views:
            PyMem_Free(self._data)
            self._data = NULL
            self._allocated = self._capacity = 0
        return 0


# --- read -------------------------------------------------------------------------------------


@cython.final
@cython.no_gc  # the collector may not clear a memoryview while this has its bytes
@cython.freelist(32)
cdef class ReadBuffer:
    """A cursor over somebody else's bytes, from `position` to `end`.

    The bytes stay locked (a bytearray cannot change its size) until the next `attach` or
    `detach`.
    """

    def __dealloc__(self):
        if self._attached:
            PyBuffer_Release(&self._buffer)

    cpdef object attach(self, object data, Py_ssize_t start=0, Py_ssize_t end=-1):
        """Read `data[start:end]` from now on; `end` -1 stands for the end of `data`."""
        cdef Py_buffer source
        PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
        if end == -1:
            end = source.len
        if start < 0 or start > end or end > source.len:
            whole = source.len
            PyBuffer_Release(&source)
            raise IndexError(f"no bytes {start} to {end} in {whole}")
        self.detach()
        self._buffer = source
        self._attached = True
        self._data = <const unsigned char*>source.buf
        self.position = start
        self.end = end

    cpdef object detach(self):
        """Let go of the bytes; views that were given out stay valid."""
        if self._memory is not None:
            self._memory.release()
            self._memory = None
        if self._attached:
            self._attached = False
            PyBuffer_Release(&self._buffer)
        self._data = NULL
        self.position = 0
        self.end = 0

    @property
    def remaining(self):
        """Bytes between the cursor and the end."""
        return self.end - self.position

    cdef const unsigned char* _next(self, Py_ssize_t size) except NULL:
        """Return where the next `size` bytes are (at least one), and step over them."""
        cdef const unsigned char* at
        if size < 0 or size > self.end - self.position:
            raise _short(size, self.position, self.end - self.position)
        at = self._data + self.position
        self.position += size
        return at

    # --- integers ---------------------------------------------------------------------------

    cpdef int u8(self) except -1:
        return self._next(1)[0]

    cpdef int u16(self) except -1:
        return <int>_read16(self._next(2))

    cpdef long long u32(self) except -1:
        return _read32(self._next(4))

    cpdef unsigned long long u64(self) except? 0:
        return _read64(self._next(8))

    cpdef int i8(self) except? -1:
        return <signed char>self._next(1)[0]

    cpdef int i16(self) except? -1:
        return <short>_read16(self._next(2))

    cpdef int i32(self) except? -1:
        return <int>_read32(self._next(4))

    cpdef long long i64(self) except? -1:
        return <long long>_read64(self._next(8))

    cpdef double f64(self) except? -1:
        cdef unsigned long long bits = _read64(self._next(8))
        cdef double value
        memcpy(&value, &bits, 8)
        return value

    cdef int _uvarint(self, int bytes_max, unsigned long long* value) except -1:
        cdef const unsigned char* at = self._data + self.position
        cdef Py_ssize_t left = self.end - self.position
        cdef unsigned long long byte
        cdef int index
        if left > 0 and bytes_max > 0 and at[0] < 0x80:  # most are short
            value[0] = at[0]
            self.position += 1
            return 0
        value[0] = 0
        if bytes_max > 10:
            bytes_max = 10
        for index in range(bytes_max):
            if index >= left:
                raise _short(index + 1, self.position, left)
            byte = at[index]
            if index == 9 and byte & 0x7F > 1:
                break  # the 65th bit
            value[0] |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                self.position += index + 1
                return 0
        raise Malformed(f"varint at {self.position} is longer than allowed")

    cpdef unsigned long long uvarint(self, int bytes_max=10) except? 0:
        """Read an unsigned varint of at most `bytes_max` bytes and 64 bits."""
        cdef unsigned long long value
        self._uvarint(bytes_max, &value)
        return value

    cpdef long long varint(self, int bytes_max=10) except? -1:
        """Read a zigzag varint; the same limits as `uvarint`."""
        cdef unsigned long long value
        self._uvarint(bytes_max, &value)
        return <long long>(value >> 1 ^ (0 - (value & 1)))

    # --- bytes ------------------------------------------------------------------------------

    cpdef object bytes(self, Py_ssize_t size):
        """Return the next `size` bytes as a copy."""
        if size == 0:
            return b""
        return PyBytes_FromStringAndSize(<const char*>self._next(size), size)

    cpdef object varint_bytes(self):
        """Read a zigzag length and as many bytes; None for a length below 0."""
        cdef unsigned long long value
        cdef long long size
        cdef Py_ssize_t start = self.position
        self._uvarint(5, &value)
        if value & 1:
            return None
        size = <long long>(value >> 1)
        if size > self.end - self.position:
            left = self.end - self.position
            self.position = start
            raise _short(size, start, left)
        return self.bytes(size)

    cpdef object view(self, Py_ssize_t size):
        """Return the next `size` bytes as a view of the attached object."""
        cdef Py_ssize_t start = self.position
        self.skip(size)
        if not self._attached:
            return memoryview(b"")
        if self._memory is None:
            self._memory = memoryview(<object>self._buffer.obj).cast("B")
        return self._memory[start:self.position]

    cpdef object skip(self, Py_ssize_t size):
        """Move the cursor `size` bytes on."""
        if size < 0 or size > self.end - self.position:
            raise _short(size, self.position, self.end - self.position)
        self.position += size

    cpdef object seek(self, Py_ssize_t position):
        """Move the cursor to `position`, at most `end`."""
        if position < 0 or position > self.end:
            raise Malformed(f"position {position} is outside of {self.end} bytes")
        self.position = position

    cpdef int peek(self) except -1:
        """Return the next byte and leave the cursor."""
        if self.position >= self.end:
            raise _short(1, self.position, 0)
        return self._data[self.position]

    cpdef bint compare(self, object data) except -1:
        """Tell whether the next bytes are exactly `data`; leave the cursor."""
        cdef Py_ssize_t size = len(data)
        if not PyBytes_CheckExact(data):
            raise TypeError("compare takes bytes")
        if size > self.end - self.position:
            return False
        return size == 0 or memcmp(
            self._data + self.position, PyBytes_AS_STRING(data), <size_t>size
        ) == 0


cdef object _short(Py_ssize_t size, Py_ssize_t position, Py_ssize_t left):
    return Malformed(f"{size} bytes wanted at {position}, {left} left")

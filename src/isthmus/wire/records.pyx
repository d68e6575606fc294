"""Steps over records of a batch that say nothing of note, where their bytes are.

`records.py` beside this file is the readable twin and says what is promised; a property test
holds the two equal. Every pointer is compared with the end of the buffer, or of the record,
before what it points to is read.
"""

from isthmus.wire.buffer cimport ReadBuffer


cpdef int skip_plain_records(ReadBuffer buffer, int count, int first) except -1:
    """Step over up to `count` plain records; return how many."""
    cdef const unsigned char* at = buffer._data + buffer.position
    cdef const unsigned char* end = buffer._data + buffer.end
    cdef const unsigned char* stop
    cdef long long number
    cdef int done = 0
    while done < count:
        stop = _varint(at, end, &number)
        if stop == NULL or number <= 0 or number > end - stop:
            break
        at = stop + 1  # its attributes
        stop += number
        at = _varint(at, stop, &number)  # timestamp delta
        if at == NULL:
            break
        at = _varint(at, stop, &number)
        if at == NULL or number != <long long>first + done:
            break
        at = _behind_bytes(at, stop)  # key
        if at == NULL:
            break
        at = _behind_bytes(at, stop)  # value
        if at == NULL or at + 1 != stop or at[0] != 0:
            break
        done += 1
        at = stop
        buffer.position = at - buffer._data
    return done


cdef inline const unsigned char* _varint(
    const unsigned char* at, const unsigned char* end, long long* value
) noexcept nogil:
    """Read a zigzag varint of at most five bytes; return what follows it, NULL for none."""
    cdef unsigned long long read = 0
    cdef int shift = 0
    while at < end and shift < 35:
        read |= <unsigned long long>(at[0] & 0x7F) << shift
        shift += 7
        at += 1
        if at[-1] < 0x80:
            value[0] = <long long>(read >> 1 ^ (0 - (read & 1)))
            return at
    return NULL


cdef inline const unsigned char* _behind_bytes(
    const unsigned char* at, const unsigned char* end
) noexcept nogil:
    """Return what follows a zigzag length and as many bytes, none if below 0; or NULL."""
    cdef long long size
    at = _varint(at, end, &size)
    if at == NULL or size > end - at:
        return NULL
    return at + size if size > 0 else at

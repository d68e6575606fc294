# C types of wire/records.

from isthmus.wire.buffer cimport ReadBuffer


cpdef int skip_plain_records(ReadBuffer buffer, int count, int first) except -1

# C types of storage/local/sync.py; the code is there.

cimport cython

from isthmus.storage.local.gathering cimport Gathering


cdef class SyncWork:
    cdef readonly object partition
    cdef readonly long long end_offset
    cdef readonly long long records
    cdef readonly object chunks
    cdef readonly list descriptors
    cdef public object directories
    cdef public long long names_version
    cdef public object journalled
    cdef public object replacement
    cdef public object replacement_error

    cpdef object run(self, object files)


@cython.final
cdef class Syncer:
    cdef readonly object seconds
    cdef readonly long long failures
    cdef dict _asked
    cdef object _cancel
    cdef object _doubt
    cdef bint _failed
    cdef object _files
    cdef Gathering _gathering
    cdef object _journal
    cdef object _on_failure
    cdef object _round
    cdef object _runtime

    cpdef object ask(self, object syncable)
    cpdef object forget(self, object syncable)
    cpdef object start(self)
    cdef bint _waits(self) except -1
    cdef Py_ssize_t _waiting(self) except -1
    cdef object _begin(self)
    @cython.locals(answered="long long", work=SyncWork)
    cdef object _settle(self, object current)
    @cython.locals(work=SyncWork)
    cdef object _deliver(self, object current)

# C types of topics/names.py; the code is there.
cimport cython

cdef int _SPARE_MAX


@cython.final
cdef class NameNode:
    cdef readonly long long number
    cdef bytes tail
    cdef object value
    cdef readonly Branch branch

    @cython.locals(level=bytes, rest=bytes, child=NameNode)
    cdef unfold(self)


@cython.final
cdef class Branch:
    cdef dict nodes
    cdef list order
    cdef long long renewals

    @cython.locals(node=NameNode, number="long long")
    cdef NameNode add(self, bytes level)
    cdef remove(self, bytes level)


@cython.final
cdef class TopicNames:
    cdef Py_ssize_t _count
    cdef readonly NameNode _root
    cdef readonly NameNode _own

    @cython.locals(node=NameNode, child=NameNode, branch=Branch, level=bytes, rest=bytes)
    cpdef set(self, bytes name, object value)
    @cython.locals(node=NameNode, child=NameNode, level=bytes, rest=bytes)
    cpdef get(self, bytes name)
    @cython.locals(path=list, parent=NameNode, node=NameNode, child=NameNode, level=bytes,
                   rest=bytes)
    cpdef remove(self, bytes name)
    cpdef Walk walk(self, str topic_filter)
    cdef NameNode _root_of(self, bytes name)


@cython.final
cdef class Walk:
    cdef list _places
    cdef list _wanted

    @cython.locals(found=list, places=list, node=NameNode, place=_Place)
    cpdef list take(self, Py_ssize_t count_max, Py_ssize_t steps_max)
    @cython.locals(wanted=list, level=bytes, child=NameNode)
    cdef _visit(self, NameNode node, Py_ssize_t depth, list found)


@cython.final
cdef class _Place:
    cdef Branch _branch
    cdef Py_ssize_t _index
    cdef long long _number
    cdef long long _renewals
    cdef Py_ssize_t depth

    @cython.locals(branch=Branch, node=NameNode)
    cdef NameNode next(self)


cdef tuple _split(bytes name)

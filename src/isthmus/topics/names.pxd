# C types of topics/names.py; the code is there.
cimport cython

cdef int _SPARE_MAX
cdef int _SLASH
cdef Py_ssize_t _NOTHING


# A tree of names holds no circle, so the collector need not walk a million nodes to find none.
@cython.final
@cython.no_gc
cdef class NameNode:
    cdef readonly long long number
    cdef bytes tail
    cdef object value
    cdef readonly Branch branch

    @cython.locals(tail=bytes)
    cdef bint ends(self, bytes name, Py_ssize_t start) except -1
    @cython.locals(tail=bytes, end=Py_ssize_t, child=NameNode)
    cdef unfold(self)


@cython.final
@cython.no_gc
cdef class Branch:
    cdef dict nodes
    cdef list order
    cdef long long renewals
    cdef long long _number

    @cython.locals(node=NameNode)
    cdef NameNode add(self, bytes level, bytes tail)
    cdef remove(self, bytes level)


@cython.final
cdef class TopicNames:
    cdef Py_ssize_t _count
    cdef readonly NameNode _root
    cdef readonly NameNode _own

    @cython.locals(node=NameNode, child=NameNode, branch=Branch, level=bytes, start=Py_ssize_t,
                   end=Py_ssize_t)
    cpdef set(self, bytes name, object value)
    @cython.locals(node=NameNode, child=NameNode, start=Py_ssize_t, end=Py_ssize_t)
    cpdef get(self, bytes name)
    @cython.locals(path=list, parent=NameNode, node=NameNode, child=NameNode, level=bytes,
                   start=Py_ssize_t, end=Py_ssize_t)
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


@cython.locals(node=NameNode)
cdef NameNode _node(long long number, bytes tail)
@cython.locals(size=Py_ssize_t)
cdef Py_ssize_t _end_of_level(bytes name, Py_ssize_t start) except -1
cdef bytes _rest_of(bytes name, Py_ssize_t end)

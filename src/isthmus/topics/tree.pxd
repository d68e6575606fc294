cimport cython


@cython.final
cdef class TopicNode:
    cdef public int depth
    cdef public dict children
    cdef public TopicNode plus
    cdef public object values
    cdef public object rest

    cdef TopicNode child(self, str level)
    cdef bint is_empty(self) except -1


@cython.final
cdef class TopicTree:
    cdef readonly unsigned long long generation
    cdef Py_ssize_t _count
    cdef Py_ssize_t _wild
    cdef dict _exact
    cdef TopicNode _root

    @cython.locals(node=TopicNode, is_rest=bint)
    cpdef bint add(self, str topic_filter, object value) except -1
    cpdef bint remove(self, str topic_filter, object value) except -1

    cpdef outdate(self)

    @cython.locals(found=list, levels=list)
    cpdef list match(self, str topic_name)

    @cython.locals(pending=list, count=Py_ssize_t, following=TopicNode)
    cdef int _walk(self, TopicNode node, list levels, list found) except -1

    @cython.locals(node=TopicNode, child=TopicNode)
    cdef TopicNode _grow(self, str topic_filter)

    @cython.locals(path=list, levels=list, node=TopicNode)
    cdef bint _prune(self, str topic_filter, object value) except -1

    cdef int _cut(self, TopicNode node, list path, list levels) except -1


cdef object _with(object values, object value)
cdef object _without(object values, object value)
cdef bint _has_wildcard(str topic_filter) except -1

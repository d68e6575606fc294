cimport cython

cdef int _SLOT_BITS
cdef long long _SLOT_MASK


@cython.final
cdef class TopicNode:
    cdef public str level
    cdef public int depth
    cdef public object children
    cdef public TopicNode plus
    cdef public object values
    cdef public object rest


@cython.final
cdef class TopicTree:
    cdef long long _everywhere
    cdef unsigned long long[::1] _changes
    cdef Py_ssize_t _count
    cdef Py_ssize_t _wild
    cdef dict _exact
    cdef TopicNode _root

    cpdef bint add(self, str topic_filter, object value) except -1
    @cython.locals(node=TopicNode, is_rest=bint)
    cpdef bint put(self, str topic_filter, object value) except -1
    cpdef bint remove(self, str topic_filter, object value) except -1

    @cython.locals(node=TopicNode)
    cpdef object value_of(self, str topic_filter)

    cpdef outdate(self)

    cpdef long long version_at(self, long long slots) noexcept

    @cython.locals(levels=list)
    cdef int _changed(self, str topic_filter) except -1

    @cython.locals(found=list, levels=list)
    cpdef list match(self, str topic_name)

    @cython.locals(pending=list, count=Py_ssize_t, following=TopicNode)
    cdef int _walk(self, TopicNode node, list levels, list found) except -1

    @cython.locals(node=TopicNode, child=TopicNode)
    cdef TopicNode _grow(self, str topic_filter)

    @cython.locals(node=TopicNode)
    cdef TopicNode _end_of(self, str topic_filter)

    @cython.locals(path=list, levels=list, node=TopicNode)
    cdef bint _prune(self, str topic_filter, object value) except -1

    cdef int _cut(self, TopicNode node, list path, list levels) except -1


@cython.locals(levels=list)
cpdef long long slots_of(str topic_name) except -1
cdef long long _slot(str beginning, int levels) except -1
@cython.locals(only=TopicNode)
cdef TopicNode _child(TopicNode node, str level)
cdef int _add_child(TopicNode node, TopicNode child) except -1
cdef bint _is_empty(TopicNode node) except -1
cdef int _gather(object values, list found) except -1
cdef bint _has(object values, object value) except -1
cdef object _with(object values, object value)
cdef object _without(object values, object value)
cdef bint _has_wildcard(str topic_filter) except -1

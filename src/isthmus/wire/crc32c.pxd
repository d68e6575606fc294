# C types of wire/crc32c. `crc32c_raw` is for compiled modules that hold the bytes already.

cdef unsigned int crc32c_raw(
    const unsigned char* data, Py_ssize_t size, unsigned int value
) noexcept nogil
cpdef unsigned int crc32c(
    object data, unsigned int value=*, Py_ssize_t start=*, Py_ssize_t end=*
) except? 0
cpdef unsigned int crc32c_by_table(
    object data, unsigned int value=*, Py_ssize_t start=*
) except? 0

"""CRC-32C, the checksum of Kafka's record batches and of our own files (RFC 3720, B.4).

`crc32c.py` beside this file is the readable twin. Here the work is done by the instruction
that x86-64 processors have for it since SSE 4.2, chosen at run time; elsewhere by eight tables,
eight bytes a step (Kounavis and Berry's slicing).

The instruction takes one turn of the clock but answers after three, so long inputs are cut into
three lanes that are computed side by side. A checksum is linear: that of A followed by B is the
checksum of A pushed through as many zero bytes as B has, xor the checksum of B begun at 0. What
a whole lane of zero bytes does to a checksum is known beforehand, one table per byte of it.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #define CRC_POLYNOMIAL 0x82F63B78u /* Castagnoli's, bits reversed */
    #define CRC_LANE_BYTES 512

    static uint32_t crc_slices[8][256];
    static uint32_t crc_lane_zeros[4][256];

    static uint32_t crc_by_slices(uint32_t crc, const unsigned char *at, size_t left)
    {
        for (; left >= 8; at += 8, left -= 8) {
            crc ^= (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16
                 | (uint32_t)at[3] << 24;
            crc = crc_slices[7][crc & 0xFF] ^ crc_slices[6][crc >> 8 & 0xFF]
                ^ crc_slices[5][crc >> 16 & 0xFF] ^ crc_slices[4][crc >> 24]
                ^ crc_slices[3][at[4]] ^ crc_slices[2][at[5]]
                ^ crc_slices[1][at[6]] ^ crc_slices[0][at[7]];
        }
        for (; left > 0; at++, left--)
            crc = crc >> 8 ^ crc_slices[0][(crc ^ *at) & 0xFF];
        return crc;
    }

    static void crc_fill_tables(void)
    {
        static const unsigned char zeros[CRC_LANE_BYTES];
        for (uint32_t row = 0; row < 256; row++) {
            uint32_t crc = row;
            for (int bit = 0; bit < 8; bit++)
                crc = crc >> 1 ^ (crc & 1 ? CRC_POLYNOMIAL : 0);
            crc_slices[0][row] = crc;
        }
        for (int slice = 1; slice < 8; slice++)
            for (int row = 0; row < 256; row++) {
                uint32_t crc = crc_slices[slice - 1][row];
                crc_slices[slice][row] = crc >> 8 ^ crc_slices[0][crc & 0xFF];
            }
        for (int place = 0; place < 4; place++)
            for (uint32_t row = 0; row < 256; row++)
                crc_lane_zeros[place][row] =
                    crc_by_slices(row << 8 * place, zeros, CRC_LANE_BYTES);
    }

    #if defined(__x86_64__) && defined(__GNUC__)

    #include <nmmintrin.h>

    static int crc_has_instruction(void)
    {
        __builtin_cpu_init();
        return __builtin_cpu_supports("sse4.2") != 0;
    }

    static inline uint64_t crc_word(const unsigned char *at)
    {
        uint64_t word;
        memcpy(&word, at, 8);
        return word;
    }

    static inline uint32_t crc_past_lane(uint32_t crc)
    {
        return crc_lane_zeros[0][crc & 0xFF] ^ crc_lane_zeros[1][crc >> 8 & 0xFF]
             ^ crc_lane_zeros[2][crc >> 16 & 0xFF] ^ crc_lane_zeros[3][crc >> 24];
    }

    __attribute__((target("sse4.2")))
    static uint32_t crc_by_instruction(uint32_t crc, const unsigned char *at, size_t left)
    {
        for (; left >= 3 * CRC_LANE_BYTES; left -= 3 * CRC_LANE_BYTES) {
            uint64_t first = crc, second = 0, third = 0;
            const unsigned char *lane_end = at + CRC_LANE_BYTES;
            for (; at < lane_end; at += 8) {
                first = _mm_crc32_u64(first, crc_word(at));
                second = _mm_crc32_u64(second, crc_word(at + CRC_LANE_BYTES));
                third = _mm_crc32_u64(third, crc_word(at + 2 * CRC_LANE_BYTES));
            }
            crc = crc_past_lane((uint32_t)first) ^ (uint32_t)second;
            crc = crc_past_lane(crc) ^ (uint32_t)third;
            at += 2 * CRC_LANE_BYTES;
        }
        for (; left >= 8; at += 8, left -= 8)
            crc = (uint32_t)_mm_crc32_u64(crc, crc_word(at));
        for (; left > 0; at++, left--)
            crc = _mm_crc32_u8(crc, *at);
        return crc;
    }

    #else

    static int crc_has_instruction(void) { return 0; }

    #define crc_by_instruction crc_by_slices

    #endif
    """
    void crc_fill_tables() noexcept nogil
    bint crc_has_instruction() noexcept nogil
    unsigned int crc_by_slices(
        unsigned int crc, const unsigned char* at, size_t left
    ) noexcept nogil
    unsigned int crc_by_instruction(
        unsigned int crc, const unsigned char* at, size_t left
    ) noexcept nogil

cdef Py_ssize_t _HELD_BYTES_MAX = 64 * 1024  # above this other threads may run meanwhile
cdef bint _by_instruction = crc_has_instruction()
crc_fill_tables()

hardware = _by_instruction


cdef unsigned int crc32c_raw(
    const unsigned char* data, Py_ssize_t size, unsigned int value
) noexcept nogil:
    if _by_instruction:
        return ~crc_by_instruction(~value, data, <size_t>size)
    return ~crc_by_slices(~value, data, <size_t>size)


cpdef unsigned int crc32c(
    object data, unsigned int value=0, Py_ssize_t start=0, Py_ssize_t end=-1
) except? 0:
    """Return the checksum of `data[start:end]`, continued from the checksum `value`.

    `end` -1 stands for the end of `data`.
    """
    cdef Py_buffer view
    cdef const unsigned char* at
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if end == -1:
            end = view.len
        if start < 0 or start > end or end > view.len:
            raise IndexError(f"no bytes {start} to {end} in {view.len}")
        at = <const unsigned char*>view.buf + start
        if end - start <= _HELD_BYTES_MAX:
            return crc32c_raw(at, end - start, value)
        with nogil:
            value = crc32c_raw(at, end - start, value)
        return value
    finally:
        PyBuffer_Release(&view)


cpdef unsigned int crc32c_by_table(
    object data, unsigned int value=0, Py_ssize_t start=0
) except? 0:
    """Return the same without the processor's instruction; public so that tests may compare."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if start < 0 or start > view.len:
            raise IndexError(f"no byte {start} in {view.len}")
        return ~crc_by_slices(
            ~value, <const unsigned char*>view.buf + start, <size_t>(view.len - start)
        )
    finally:
        PyBuffer_Release(&view)

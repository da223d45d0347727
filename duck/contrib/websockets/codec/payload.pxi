# Masking and UTF-8 validation of payloads: part of _speedups.pyx. `payload.py` is its specification.

cdef int read_mask(object mask, uint32_t *value) except -1:
    cdef Py_buffer key
    if type(mask) is bytes and len(<bytes>mask) == 4:
        memcpy(value, PyBytes_AS_STRING(<bytes>mask), 4)
        return 0
    PyObject_GetBuffer(mask, &key, PyBUF_SIMPLE)
    try:
        if key.len != 4:
            raise ValueError(f"a mask has 4 bytes, not {key.len}")
        memcpy(value, key.buf, 4)
    finally:
        PyBuffer_Release(&key)
    return 0


cdef inline int read_offset(object offset) except -1:
    """Returns the offset modulo the size of a mask."""
    return PyNumber_Index(offset) & 3


def apply_mask(data, mask, offset=0):
    cdef Py_buffer view
    cdef uint32_t key
    cdef int shift
    cdef bytes masked
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        read_mask(mask, &key)
        shift = read_offset(offset)
        masked = PyBytes_FromStringAndSize(NULL, view.len)
        simd.mask(<uint8_t *>PyBytes_AS_STRING(masked), <const uint8_t *>view.buf, view.len, duck_rotate(key, shift))
    finally:
        PyBuffer_Release(&view)
    return masked


cdef object UTF8_BEGIN = 0


cdef int64_t read_state(object state) except -1:
    cdef int64_t within
    state = PyNumber_Index(state)
    if 0 <= state < 0x1000000:
        within = state
        if within in (0, UTF8_REJECT, 0xBF8001, 0xBF8002, 0xBF8003, 0xBFA002, 0x9F8002, 0xBF9003, 0x8F8003):
            return within
    raise ValueError(f"{state} is not a state of utf8_state")


def utf8_state(data, state=UTF8_BEGIN):
    cdef Py_buffer view
    cdef uint32_t begun = 0
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if state is not UTF8_BEGIN:
            begun = <uint32_t>read_state(state)
        return duck_utf8(simd, <const uint8_t *>view.buf, view.len, begun)
    finally:
        PyBuffer_Release(&view)

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


def apply_mask(data, mask, Py_ssize_t offset=0):
    cdef Py_buffer view
    cdef uint32_t key
    cdef bytes masked
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        read_mask(mask, &key)
        masked = PyBytes_FromStringAndSize(NULL, view.len)
        simd.mask(<uint8_t *>PyBytes_AS_STRING(masked), <const uint8_t *>view.buf, view.len, duck_rotate(key, offset & 3))
    finally:
        PyBuffer_Release(&view)
    return masked


def apply_mask_inplace(data, mask, Py_ssize_t offset=0):
    cdef Py_buffer view
    cdef uint32_t key
    cdef uint8_t *p
    if HAS_GIL and type(data) is bytearray:
        # With the GIL nothing can resize it meanwhile. The buffer protocol would take a quarter of the call's time.
        read_mask(mask, &key)
        p = <uint8_t *>PyByteArray_AS_STRING(<bytearray>data)
        simd.mask(p, p, PyByteArray_GET_SIZE(<bytearray>data), duck_rotate(key, offset & 3))
        return
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        read_mask(mask, &key)
        if view.readonly:
            raise BufferError("Object is not writable.")
        simd.mask(<uint8_t *>view.buf, <const uint8_t *>view.buf, view.len, duck_rotate(key, offset & 3))
    finally:
        PyBuffer_Release(&view)


def utf8_state(data, uint32_t state=0):
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return duck_utf8(simd, <const uint8_t *>view.buf, view.len, state)
    finally:
        PyBuffer_Release(&view)

# Headers of frames (section 5.2): part of _speedups.pyx. `header.py` is its specification.


cdef struct Header:
    int size
    uint8_t first
    uint64_t length
    uint32_t mask


cdef inline uint64_t big_endian(const uint8_t *p, int n) noexcept:
    cdef uint64_t value = 0
    cdef int i
    for i in range(n):
        value = value << 8 | p[i]
    return value


cdef inline int read_header(const uint8_t *p, size_t n, bint masked, bint rsv1, Header *header) noexcept:
    """Returns the size of the header at p; 0 if n bytes are not all of it; a negated error number if it is invalid."""
    cdef uint8_t first, opcode
    cdef uint64_t length
    cdef int size = 2
    if n < 2:
        return 0
    first = p[0]
    opcode = first & 0x0F
    length = p[1] & 0x7F
    if first & 0x70 and (first & 0x30 or not (rsv1 and (opcode == 1 or opcode == 2))):
        return -RESERVED_BITS
    if 2 < opcode < 8 or opcode > 10:
        return -RESERVED_OPCODE
    if (p[1] >> 7) != masked:
        return -FRAME_NOT_MASKED if masked else -FRAME_MASKED
    if opcode & CONTROL:
        if not first & FIN:
            return -FRAGMENTED_CONTROL
        if length > 125:
            return -LONG_CONTROL
    if length == 126:
        size = 4
        if n < 4:
            return 0
        length = big_endian(p + 2, 2)
        if length < 126:
            return -LENGTH_NOT_MINIMAL
    elif length == 127:
        size = 10
        if n < 10:
            return 0
        length = big_endian(p + 2, 8)
        if length > <uint64_t>INT64_MAX:
            return -LENGTH_TOP_BIT
        if length < 65536:
            return -LENGTH_NOT_MINIMAL
    header.mask = 0
    if masked:
        if n < <size_t>size + 4:
            return 0
        memcpy(&header.mask, p + size, 4)
        size += 4
    header.size = size
    header.first = first
    header.length = length
    return size


cdef inline int write_header(uint8_t *p, uint8_t first, uint64_t length, bint masked, uint32_t mask) noexcept:
    cdef uint8_t bit = 0x80 if masked else 0
    cdef int size, i
    p[0] = first
    if length < 126:
        p[1] = bit | <uint8_t>length
        size = 2
    else:
        size = 4 if length < 65536 else 10
        p[1] = bit | (126 if size == 4 else 127)
        for i in range(size - 2):
            p[size - 1 - i] = <uint8_t>(length >> (8 * i))
    if masked:
        memcpy(p + size, &mask, 4)
        size += 4
    return size


cdef inline Py_ssize_t payload_size(bytes frame) noexcept:
    """Returns the size of the payload of a serialized frame without mask."""
    cdef uint8_t length = <uint8_t>PyBytes_AS_STRING(frame)[1]
    return len(frame) - (2 if length < 126 else 4 if length == 126 else 10)


cdef int check_first(object first) except -1:
    first = PyNumber_Index(first)  # a float would be truncated silently
    if not 0 <= first <= 255:
        raise ValueError(f"a frame's first byte is 0 to 255, not {first}")
    return first


def parse_header(data, bint masked, bint rsv1, max_size):
    cdef Py_buffer view
    cdef Header header
    cdef int size
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        size = read_header(<const uint8_t *>view.buf, view.len, masked, rsv1, &header)
    finally:
        PyBuffer_Release(&view)
    if size == 0:
        return None
    if size < 0:
        raise ValueError(-size)
    if header.length > max_size:
        raise ValueError(TOO_BIG)
    return header.size, header.first, header.length, PyBytes_FromStringAndSize(<char *>&header.mask, 4)


def build_header(first, length, mask=None):
    cdef uint8_t header[MAX_HEADER]
    cdef uint32_t key = 0
    cdef uint8_t start = check_first(first)
    length = PyNumber_Index(length)
    if not 0 <= length <= MAX_LENGTH:
        raise ValueError(f"a payload has 0 to 2**63 - 1 bytes, not {length}")
    if mask is not None:
        read_mask(mask, &key)
    cdef int size = write_header(header, start, length, mask is not None, key)
    return PyBytes_FromStringAndSize(<char *>header, size)


def serialize(first, payload, mask=None):
    cdef Py_buffer view
    cdef uint8_t header[MAX_HEADER]
    cdef uint32_t key = 0
    cdef uint8_t start
    cdef uint8_t *p
    cdef int size
    cdef bytes frame
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        start = check_first(first)
        if mask is not None:
            read_mask(mask, &key)
        size = write_header(header, start, view.len, mask is not None, key)
        frame = PyBytes_FromStringAndSize(NULL, size + view.len)
        p = <uint8_t *>PyBytes_AS_STRING(frame)
        memcpy(p, header, size)
        if mask is None:
            memcpy(p + size, view.buf, view.len)
        else:
            simd.mask(p + size, <const uint8_t *>view.buf, view.len, key)
    finally:
        PyBuffer_Release(&view)
    return frame

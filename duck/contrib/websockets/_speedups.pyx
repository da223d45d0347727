# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The codec, compiled. `codec/pure.py` is its specification: same names, arguments, results and errors."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBUF_WRITE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.list cimport PyList_Append
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_XDECREF
from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "Python.h":
    # These three work on a bytes object that nobody else has seen yet.
    PyObject *new_bytes "PyBytes_FromStringAndSize" (const char *data, Py_ssize_t size) except NULL
    char *bytes_data "PyBytes_AS_STRING" (PyObject *value)
    Py_ssize_t bytes_size "PyBytes_GET_SIZE" (PyObject *value)
    int resize_bytes "_PyBytes_Resize" (PyObject **value, Py_ssize_t size) except -1


cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define DUCK_HAS_GIL 0
    #else
    #define DUCK_HAS_GIL 1
    #endif
    """
    const bint HAS_GIL "DUCK_HAS_GIL"


cdef extern from "_simd.h":
    ctypedef struct duck_tier:
        const char *name
        uint64_t (*mask)(uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask) noexcept nogil
        size_t (*ascii)(const uint8_t *p, size_t n) noexcept nogil

    const duck_tier *duck_tiers
    int duck_best_tier() noexcept
    uint32_t duck_rotate(uint32_t mask, size_t bytes) noexcept
    uint32_t duck_utf8(const duck_tier *tier, const uint8_t *p, size_t n, uint32_t state) noexcept
    uint32_t duck_mask_utf8(
        const duck_tier *tier, uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask, uint32_t state
    ) noexcept


RESERVED_BITS = 1
RESERVED_OPCODE = 2
FRAME_NOT_MASKED = 3
FRAME_MASKED = 4
FRAGMENTED_CONTROL = 5
LONG_CONTROL = 6
LENGTH_NOT_MINIMAL = 7
LENGTH_TOP_BIT = 8
TOO_BIG = 9
UNEXPECTED_CONTINUATION = 10
UNFINISHED_MESSAGE = 11
INVALID_UTF8 = 12
TOO_MANY_EMPTY_FRAGMENTS = 13

MAX_LENGTH = INT64_MAX
MAX_EMPTY_FRAGMENTS = 1024

UTF8_REJECT = 1

NOT_TEXT = "bytes that are sent as text must be UTF-8, and these are not: use send_binary, or send a str"

cdef enum:
    ERR_RESERVED_BITS = 1
    ERR_RESERVED_OPCODE = 2
    ERR_FRAME_NOT_MASKED = 3
    ERR_FRAME_MASKED = 4
    ERR_FRAGMENTED_CONTROL = 5
    ERR_LONG_CONTROL = 6
    ERR_LENGTH_NOT_MINIMAL = 7
    ERR_LENGTH_TOP_BIT = 8
    ERR_TOO_BIG = 9
    ERR_UNEXPECTED_CONTINUATION = 10
    ERR_UNFINISHED_MESSAGE = 11
    ERR_INVALID_UTF8 = 12
    ERR_TOO_MANY_EMPTY_FRAGMENTS = 13

    EMPTY_FRAGMENTS = 1024
    REJECT = 1
    MAX_HEADER = 14
    AHEAD = 16777216  # room made for a payload before it comes: what is never written to costs no memory
    DIRECT = 65536  # bytes still missing from which a payload is worth receiving in place
    DIRECT_STEP = 262144  # and how many of them at a time, so that they are unmasked while in cache


def _tier_names():
    return tuple([duck_tiers[i].name.decode() for i in range(duck_best_tier() + 1)])


def _choose_tier():
    """The best tier, or the one that DUCK_SIMD names, so that each can be tested on one machine."""
    from os import environ

    name = environ.get("DUCK_SIMD") or duck_tiers[duck_best_tier()].name.decode()
    if name not in SIMD_TIERS:
        raise ImportError(f"DUCK_SIMD={name!r}: this machine has {', '.join(SIMD_TIERS)}")
    return name


IMPLEMENTATION = "cython"
SIMD_TIERS = _tier_names()
SIMD_TIER = _choose_tier()

cdef const duck_tier *simd = &duck_tiers[<int>SIMD_TIERS.index(SIMD_TIER)]


# Masking (section 5.3)


cdef int take_mask(object mask, uint32_t *value) except -1:
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
        take_mask(mask, &key)
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
        # Nobody can resize it meanwhile, and the buffer protocol takes a quarter of the time of a call.
        take_mask(mask, &key)
        p = <uint8_t *>PyByteArray_AS_STRING(<bytearray>data)
        simd.mask(p, p, PyByteArray_GET_SIZE(<bytearray>data), duck_rotate(key, offset & 3))
        return
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        take_mask(mask, &key)
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


# Headers (section 5.2)


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
    """The size of the header at p; 0 if its n bytes do not hold it; minus an error number."""
    cdef uint8_t first, opcode
    cdef uint64_t length
    cdef int size = 2
    if n < 2:
        return 0
    first = p[0]
    opcode = first & 0x0F
    length = p[1] & 0x7F
    if first & 0x70 and (first & 0x30 or not (rsv1 and (opcode == 1 or opcode == 2))):
        return -ERR_RESERVED_BITS
    if 2 < opcode < 8 or opcode > 10:
        return -ERR_RESERVED_OPCODE
    if (p[1] >> 7) != masked:
        return -ERR_FRAME_NOT_MASKED if masked else -ERR_FRAME_MASKED
    if opcode >= 8:
        if not first & 0x80:
            return -ERR_FRAGMENTED_CONTROL
        if length > 125:
            return -ERR_LONG_CONTROL
    if length == 126:
        size = 4
        if n < 4:
            return 0
        length = big_endian(p + 2, 2)
        if length < 126:
            return -ERR_LENGTH_NOT_MINIMAL
    elif length == 127:
        size = 10
        if n < 10:
            return 0
        length = big_endian(p + 2, 8)
        if length > <uint64_t>INT64_MAX:
            return -ERR_LENGTH_TOP_BIT
        if length < 65536:
            return -ERR_LENGTH_NOT_MINIMAL
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


cdef int check_first(object first) except -1:
    first = PyNumber_Index(first)  # a float would be cut to an int without a word
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
        raise ValueError(ERR_TOO_BIG)
    return header.size, header.first, header.length, PyBytes_FromStringAndSize(<char *>&header.mask, 4)


def build_header(first, length, mask=None):
    cdef uint8_t header[MAX_HEADER]
    cdef uint32_t key = 0
    cdef uint8_t start = check_first(first)
    length = PyNumber_Index(length)
    if not 0 <= length <= MAX_LENGTH:
        raise ValueError(f"a payload has 0 to 2**63 - 1 bytes, not {length}")
    if mask is not None:
        take_mask(mask, &key)
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
            take_mask(mask, &key)
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


# Reading


cdef class MessageReader:
    cdef readonly int error
    cdef readonly bint closed
    cdef readonly bint control
    cdef uint64_t max_size
    cdef bint masked
    cdef bint rsv1
    cdef uint8_t encoded  # 0x80 or 0
    # The frame being read.
    cdef uint8_t head_size
    cdef uint8_t head[MAX_HEADER]  # its header, as far as it has come
    cdef bint in_frame
    cdef uint8_t first
    cdef uint64_t left  # bytes of payload still to come
    cdef uint32_t mask  # turned to the next byte
    cdef PyObject *payload  # a control frame's, where it comes in pieces
    # The message being read.
    cdef uint8_t kind  # its RSV1 and opcode, and `encoded`; 0 between messages
    cdef bint direct
    cdef uint32_t utf8
    cdef uint32_t empty  # frames of it without payload
    cdef PyObject *message  # a bytes object with room for `room` bytes, of which `size` have come; NULL at first
    cdef uint64_t size
    cdef uint64_t room

    def __cinit__(self, max_size, bint masked, bint rsv1, bint encoded=False):
        self.max_size = min(max_size, MAX_LENGTH)
        self.masked = masked
        self.rsv1 = rsv1
        self.encoded = 0x80 if encoded else 0

    def __dealloc__(self):
        Py_XDECREF(self.message)
        Py_XDECREF(self.payload)

    def receive(self, data):
        cdef Py_buffer view
        cdef list messages
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            messages = []
            self.feed(<const uint8_t *>view.buf, view.len, messages)
        except:
            self.closed = True  # memory ran out in the middle of a frame: what follows would be misread
            raise
        finally:
            PyBuffer_Release(&view)
        return messages

    def get_buffer(self, bytearray spare not None):
        cdef uint64_t some = min(self.left, <uint64_t>DIRECT_STEP)
        self.direct = False
        if self.left < DIRECT or self.error or self.closed:
            return spare
        try:
            view = PyMemoryView_FromMemory(<char *>self.target(some), <Py_ssize_t>some, PyBUF_WRITE)
        except:
            self.closed = True
            raise
        self.direct = True
        return view

    def buffer_updated(self, bytearray spare not None, Py_ssize_t size):
        cdef list messages
        cdef uint8_t *p
        size = max(size, 0)
        if not self.direct:
            return self.read_part(spare, 0, size)
        try:
            messages = []
            self.direct = self.control = False
            p = <uint8_t *>bytes_data(self.message) + self.size
            self.add_payload(p, p, min(<uint64_t>size, self.left, <uint64_t>DIRECT_STEP))
            if self.left == 0 and self.error == 0:
                self.end_frame(messages)
        except:
            self.closed = True
            raise
        return messages

    cdef list read_part(self, bytearray spare, Py_ssize_t at, Py_ssize_t size):
        """What a part of `spare` completes, which begins inside of it."""
        cdef list messages
        size = max(min(size, PyByteArray_GET_SIZE(spare) - at), 0)
        try:
            messages = []
            self.feed(<const uint8_t *>PyByteArray_AS_STRING(spare) + at, size, messages)
        except:
            self.closed = True
            raise
        return messages

    cdef int feed(self, const uint8_t *p, size_t n, list messages) except -1:
        cdef const uint8_t *end = p + n
        cdef Header header
        cdef size_t some
        cdef int size
        self.direct = self.control = False
        while not (self.error or self.closed):
            if not self.in_frame:
                if p == end:
                    break
                if self.head_size:
                    some = min(<size_t>(end - p), <size_t>(MAX_HEADER - self.head_size))
                    memcpy(self.head + self.head_size, p, some)
                    size = read_header(self.head, self.head_size + some, self.masked, self.rsv1, &header)
                else:
                    size = read_header(p, end - p, self.masked, self.rsv1, &header)
                if size < 0:
                    self.error = -size
                    break
                if size == 0:
                    if self.head_size == 0:
                        some = end - p
                        memcpy(self.head, p, some)
                    self.head_size += <uint8_t>some
                    break
                p += size - self.head_size
                self.head_size = 0
                self.begin_frame(&header)
                if self.error:
                    break
                if header.first & 0x80 and self.size == 0 and self.left <= <uint64_t>(end - p):
                    self.whole_frame(p, messages)
                    p += header.length
                    continue
                self.prepare()
            if p == end and self.left:
                break
            some = <size_t>min(self.left, <uint64_t>(end - p))
            self.add_payload(self.target(some), p, some)
            p += some
            if self.left == 0 and self.error == 0:
                self.end_frame(messages)
        return 0

    cdef inline int begin_frame(self, Header *header) except -1:
        cdef uint8_t opcode = header.first & 0x0F
        cdef uint64_t limit = self.max_size
        if opcode < 8:
            if opcode == 0:
                if not self.kind:
                    self.error = ERR_UNEXPECTED_CONTINUATION
                    return 0
            elif self.kind:
                self.error = ERR_UNFINISHED_MESSAGE
                return 0
            if (self.kind | header.first) & 0x40 or self.encoded:
                limit += (limit >> 4) + 64
            if header.length > limit - self.size:
                self.error = ERR_TOO_BIG
                return 0
            if opcode:
                self.kind = header.first & 0x4F | self.encoded
            if header.length == 0 and not header.first & 0x80:
                self.empty += 1
                if self.empty > EMPTY_FRAGMENTS:
                    self.error = ERR_TOO_MANY_EMPTY_FRAGMENTS
                    return 0
        self.in_frame = True
        self.first = header.first
        self.left = header.length
        self.mask = header.mask
        return 0

    cdef inline int whole_frame(self, const uint8_t *p, list messages) except -1:
        """A frame that is here whole and ends its message, of which nothing has come before: most frames."""
        cdef uint8_t kind = self.first & 0x0F
        cdef bytes payload = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>self.left)
        cdef uint8_t *target = <uint8_t *>PyBytes_AS_STRING(payload)
        if kind < 8:
            kind = self.kind
            self.kind = 0
            self.empty = 0
        else:
            self.control = True
            self.closed = kind == 8
        if kind == 1:
            if duck_mask_utf8(simd, target, p, self.left, self.mask, self.utf8):
                self.error = ERR_INVALID_UTF8
                return 0
        else:
            simd.mask(target, p, self.left, self.mask)
        self.in_frame = False
        self.left = 0
        PyList_Append(messages, (kind & 0x7F, payload))
        return 0

    cdef int prepare(self) except -1:
        """Room for the payload that begins."""
        if self.first & 0x08:
            self.payload = new_bytes(NULL, <Py_ssize_t>self.left)
        elif self.left:
            self.make_room(min(self.left, <uint64_t>AHEAD))
        return 0

    cdef int make_room(self, uint64_t some) except -1:
        """Room for so many more bytes of the message. A fragmented one grows by half, so that it is seldom copied."""
        cdef uint64_t needed = self.size + some
        if needed <= self.room:
            return 0
        if self.message == NULL:
            self.message = new_bytes(NULL, <Py_ssize_t>needed)
        else:
            needed = max(needed, min(self.room + self.room // 2, self.max_size))
            resize_bytes(&self.message, <Py_ssize_t>needed)
        self.room = needed
        return 0

    cdef inline uint8_t *target(self, uint64_t some) except NULL:
        """Where the next bytes of payload belong."""
        if self.first & 0x08:
            return <uint8_t *>bytes_data(self.payload) + (bytes_size(self.payload) - self.left)
        if some or self.message == NULL:
            self.make_room(some)
        if self.message == NULL:
            self.message = new_bytes(NULL, 0)
        return <uint8_t *>bytes_data(self.message) + self.size

    cdef inline int add_payload(self, uint8_t *target, const uint8_t *p, uint64_t some) noexcept:
        self.left -= some
        if not self.first & 0x08:
            self.size += some
            if self.kind == 1:
                self.utf8 = duck_mask_utf8(simd, target, p, some, self.mask, self.utf8)
                if self.utf8 == REJECT or (self.utf8 and self.left == 0 and self.first & 0x80):
                    self.error = ERR_INVALID_UTF8
                self.mask = duck_rotate(self.mask, some & 3)
                return 0
        simd.mask(target, p, some, self.mask)
        self.mask = duck_rotate(self.mask, some & 3)
        return 0

    cdef int end_frame(self, list messages) except -1:
        cdef uint8_t kind = self.first & 0x0F
        self.in_frame = False
        if kind >= 8:
            payload = <object>self.payload
            Py_CLEAR(self.payload)
            self.control = True
            self.closed = kind == 8
        elif self.first & 0x80:
            if self.room != self.size:
                resize_bytes(&self.message, <Py_ssize_t>self.size)
            payload = <object>self.message
            Py_CLEAR(self.message)
            kind = self.kind
            self.kind = 0
            self.size = self.room = self.empty = 0
        else:
            return 0
        PyList_Append(messages, (kind & 0x7F, payload))  # last: a tuple can start the garbage collector, and that anything
        return 0


include "codec/writer.pxi"
include "codec/dispatcher.pxi"
include "codec/hotpath.pxi"
include "codec/watching.pxi"

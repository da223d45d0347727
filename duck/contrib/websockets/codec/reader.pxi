# `MessageReader`: bytes in, messages and control frames out. Part of _speedups.pyx; `reader.py` is its specification.


cdef enum:
    AHEAD = 16777216  # bytes allocated in advance for a payload; untouched pages take no memory


cdef class MessageReader:
    cdef readonly int error
    cdef readonly bint closed
    cdef readonly bint control
    cdef public Counters counters
    cdef uint64_t max_size
    cdef bint masked
    cdef bint rsv1
    cdef uint8_t encoded  # 0x80 or 0
    cdef bint parts
    # The frame being read.
    cdef uint8_t head_size
    cdef uint8_t head[MAX_HEADER]  # its incomplete header
    cdef bint in_frame
    cdef uint8_t first
    cdef uint64_t left  # missing bytes of payload
    cdef uint32_t mask  # rotated for the next byte
    cdef PyObject *payload  # that of a control frame that is not received at once
    # The message being read.
    cdef uint8_t kind  # its RSV1 and opcode, and `encoded`; 0 between messages
    cdef bint direct
    cdef uint32_t utf8
    cdef uint32_t empty  # its frames without payload
    cdef PyObject *message  # a bytes object with room for `room` bytes, of which `size` are received; NULL at first
    cdef uint64_t size
    cdef uint64_t room
    cdef uint64_t given  # the bytes of returned parts

    def __cinit__(self, max_size, bint masked, bint rsv1, bint encoded=False, bint parts=False):
        max_size = PyNumber_Index(max_size)
        if max_size < 0:
            raise ValueError(f"max_size is 0 bytes or more, not {max_size}")
        self.max_size = min(max_size, MAX_LENGTH)
        self.masked = masked
        self.rsv1 = rsv1
        self.encoded = 0x80 if encoded else 0
        self.parts = parts

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
            self.closed = True  # memory ran out within a frame, so the next bytes would be misread
            raise
        finally:
            PyBuffer_Release(&view)
        return messages

    def get_buffer(self, bytearray spare not None):
        return self.target_of_read(spare)

    cdef object target_of_read(self, bytearray spare):
        """Returns the buffer for the next read: `spare`, or the rest of a large payload."""
        cdef uint64_t some = min(self.left, self.step())
        self.direct = False
        if self.left < IN_PLACE or self.parts or self.error or self.closed:
            return spare
        try:
            view = PyMemoryView_FromMemory(<char *>self.target(some), <Py_ssize_t>some, PyBUF_WRITE)
        except:
            self.closed = True
            raise
        self.direct = True
        return view

    cdef inline uint64_t step(self) noexcept:
        """The most bytes that are received at a time into the buffer of a message."""
        return IN_PLACE_STEP if self.masked or self.kind == 1 else UNTOUCHED_STEP

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
            self.add_payload(p, p, min(<uint64_t>size, self.left, self.step()))
            if self.left == 0 and self.error == 0:
                self.end_frame(messages)
        except:
            self.closed = True
            raise
        return messages

    cdef list read_part(self, bytearray spare, Py_ssize_t at, Py_ssize_t size):
        """Parses `size` bytes of `spare` from `at` on."""
        cdef list messages
        size = max(min(size, PyByteArray_GET_SIZE(spare) - at), 0)
        try:
            messages = []
            self.feed(<const uint8_t *>PyByteArray_AS_STRING(spare) + at, size, messages)
        except:
            self.closed = True
            raise
        return messages

    cdef bytes take_whole(self, bytearray spare, Py_ssize_t size, int *opcode):
        """Returns the payload of a read that is one whole message, neither compressed nor fragmented.

        For any other read it returns None, and changes nothing. Most reads are such a message, and need no list.
        """
        cdef Header header
        cdef const uint8_t *p = <const uint8_t *>PyByteArray_AS_STRING(spare)
        cdef int head
        cdef bytes payload
        cdef uint8_t *target
        if self.in_frame or self.head_size or self.kind or self.encoded or self.parts or self.error or self.closed:
            return None
        if size < 2 or size > PyByteArray_GET_SIZE(spare):
            return None
        head = read_header(p, size, self.masked, self.rsv1, &header)
        if head <= 0 or header.length > self.max_size or head + header.length != <uint64_t>size:
            return None
        if header.first != FIN | 1 and header.first != FIN | 2:
            return None
        opcode[0] = header.first & 0x0F
        payload = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>header.length)
        target = <uint8_t *>PyBytes_AS_STRING(payload)
        if opcode[0] != 1:
            simd.mask(target, p + head, header.length, header.mask)
        elif duck_mask_utf8(simd, target, p + head, header.length, header.mask, 0):
            return None
        self.control = False
        if self.counters is not None:
            self.counters.add_received(<uint8_t>opcode[0], header.length, True)
        return payload

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
                if header.first & FIN and self.size == 0 and self.left <= <uint64_t>(end - p):
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
        if self.parts and self.size and not self.error:
            self.give(messages, 0)
        return 0

    cdef inline int begin_frame(self, Header *header) except -1:
        cdef uint8_t opcode = header.first & 0x0F
        cdef uint64_t limit = self.max_size
        if not opcode & CONTROL:
            if opcode == 0:
                if not self.kind:
                    self.error = UNEXPECTED_CONTINUATION
                    return 0
            elif self.kind:
                self.error = UNFINISHED_MESSAGE
                return 0
            if (self.kind | header.first) & RSV1 or self.encoded:
                limit += (limit >> 4) + 64
            if header.length > limit - self.size - self.given:
                self.error = TOO_BIG
                return 0
            if opcode:
                self.kind = header.first & (RSV1 | 0x0F) | self.encoded
            if header.length == 0 and not header.first & FIN:
                self.empty += 1
                if self.empty > MAX_EMPTY_FRAGMENTS:
                    self.error = TOO_MANY_EMPTY_FRAGMENTS
                    return 0
        self.in_frame = True
        self.first = header.first
        self.left = header.length
        self.mask = header.mask
        return 0

    cdef inline int whole_frame(self, const uint8_t *p, list messages) except -1:
        """Reads a complete control frame, or a complete data frame that ends a message without buffered bytes."""
        cdef uint8_t kind = self.first & 0x0F
        cdef uint8_t shown = kind
        cdef bytes payload = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>self.left)
        cdef uint8_t *target = <uint8_t *>PyBytes_AS_STRING(payload)
        if not kind & CONTROL:
            kind = self.kind
            shown = kind & 0x7F
            if self.parts:
                shown = FIN if self.given else kind | FIN
                self.given = 0
            self.kind = 0
            self.empty = 0
        else:
            self.control = True
            self.closed = kind == 8
        if kind == 1:
            if duck_mask_utf8(simd, target, p, self.left, self.mask, self.utf8):
                self.error = INVALID_UTF8
                return 0
            self.utf8 = 0
        else:
            simd.mask(target, p, self.left, self.mask)
        if self.counters is not None:
            self.counters.add_received(kind & 0x0F, self.left, True)
        self.in_frame = False
        self.left = 0
        PyList_Append(messages, (shown, payload))
        return 0

    cdef int prepare(self) except -1:
        """Allocates memory for the payload of a frame."""
        if self.first & CONTROL:
            self.payload = new_bytes(NULL, <Py_ssize_t>self.left)
        elif self.left and not self.parts:
            self.make_room(min(self.left, <uint64_t>AHEAD))
        return 0

    cdef int make_room(self, uint64_t some) except -1:
        """Makes room for `some` more bytes. A fragmented message grows by half, so that it is copied rarely."""
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
        """Returns a pointer to the room for the next bytes of payload."""
        if self.first & CONTROL:
            return <uint8_t *>bytes_data(self.payload) + (bytes_size(self.payload) - self.left)
        if some or self.message == NULL:
            self.make_room(some)
        if self.message == NULL:
            self.message = new_bytes(NULL, 0)
        return <uint8_t *>bytes_data(self.message) + self.size

    cdef inline int add_payload(self, uint8_t *target, const uint8_t *p, uint64_t some) noexcept:
        self.left -= some
        if not self.first & CONTROL:
            self.size += some
            if self.kind == 1:
                self.utf8 = duck_mask_utf8(simd, target, p, some, self.mask, self.utf8)
                if self.utf8 == UTF8_REJECT or (self.utf8 and self.left == 0 and self.first & FIN):
                    self.error = INVALID_UTF8
                self.mask = duck_rotate(self.mask, some & 3)
                return 0
        if self.mask or p != target:  # without a mask, bytes received in place stay as they are
            simd.mask(target, p, some, self.mask)
            self.mask = duck_rotate(self.mask, some & 3)
        return 0

    cdef int end_frame(self, list messages) except -1:
        cdef uint8_t kind = self.first & 0x0F
        self.in_frame = False
        if kind & CONTROL:
            payload = <object>self.payload
            Py_CLEAR(self.payload)
            self.control = True
            self.closed = kind == 8
        elif self.first & FIN:
            return self.give(messages, FIN)
        else:
            return 0
        if self.counters is not None:
            self.counters.add_received(kind, len(<bytes>payload), True)
        PyList_Append(messages, (kind, payload))  # last: a new tuple can start the garbage collector, and so any code
        return 0

    cdef int give(self, list messages, uint8_t fin) except -1:
        """Appends the received payload of a message, whole or a part, to `messages`."""
        cdef uint8_t kind = self.kind & 0x7F
        if self.counters is not None:
            self.counters.add_received(kind & 0x0F, self.size, fin != 0)
        if self.parts:
            kind = fin if self.given else kind | fin
        if self.room != self.size:
            resize_bytes(&self.message, <Py_ssize_t>self.size)
        payload = <object>self.message
        Py_CLEAR(self.message)
        self.given += self.size
        self.size = self.room = 0
        if fin:
            self.kind = 0
            self.given = self.empty = 0
        PyList_Append(messages, (kind, payload))  # last, as in `end_frame`
        return 0

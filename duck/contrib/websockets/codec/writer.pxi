# `FrameWriter` and `MaskingWriter`: frames in, bytes out. Part of _speedups.pyx; `writer.py` is its specification.


cdef extern from "_socket.h":
    enum:
        PIECES "DUCK_PIECES"

    struct iovec:
        void *iov_base
        size_t iov_len

    Py_ssize_t duck_send(int fd, iovec *pieces, int n) noexcept


cdef enum:
    GATHER = 4096  # bytes allocated at least when a second frame is gathered
    KEPT = 256  # bytes of the largest allocation that is kept for later frames


# If memory runs out, a method raises and leaves its object unchanged: a frame is written as a whole or not at all, and
# no earlier frame is lost. Therefore all allocations precede the changes.


cdef class FrameWriter:
    cdef readonly Py_ssize_t size
    cdef readonly bint closed
    cdef readonly bint fragmenting
    cdef public Counters counters
    cdef uint8_t kind  # the opcode of the message that continuation frames belong to
    cdef PyObject *gathered  # a bytes object with room for `room` bytes, of which `used` are written; NULL at first
    cdef Py_ssize_t used
    cdef Py_ssize_t room
    cdef list chunks  # bytes objects that precede it; None if there are none

    def __dealloc__(self):
        Py_XDECREF(self.gathered)

    def write(self, first, payload):
        cdef Py_buffer view
        cdef uint8_t start = check_first(first)
        if type(payload) is bytes and len(payload) >= UNCOPIED:
            self.append_large(start, payload)
            return
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        try:
            self.append(start, <const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def write_serialized(self, bytes frame not None):
        self.append_serialized(frame)

    def take(self):
        return self.take_chunks()

    cdef list take_chunks(self):
        cdef list taken
        self.begin_chunks()
        self.seal()
        taken, self.chunks = self.chunks, None
        self.size = 0
        return taken

    cdef inline void note(self, uint8_t first, Py_ssize_t n) noexcept:
        cdef uint8_t opcode = first & 0x0F
        if first & CONTROL:
            self.closed = self.closed or opcode == 8
        else:
            self.fragmenting = not first & FIN
            if opcode:
                self.kind = opcode
        if self.counters is not None:
            self.counters.add_sent(opcode or self.kind, n, opcode != 0)

    cdef inline void count_serialized(self, bytes frame) noexcept:
        if self.counters is not None:
            self.counters.add_sent(PyBytes_AS_STRING(frame)[0] & 0x0F, payload_size(frame), True)

    cdef int append(self, uint8_t first, const uint8_t *p, Py_ssize_t n) except -1:
        """Writes a frame behind the gathered ones."""
        cdef uint8_t header[MAX_HEADER]
        cdef int head = write_header(header, first, n, False, 0)
        cdef uint8_t *target = self.make_room(head + n)
        memcpy(target, header, head)
        memcpy(target + head, p, n)
        self.note(first, n)
        return 0

    cdef int append_large(self, uint8_t first, bytes payload) except -1:
        """Writes a frame whose payload becomes a chunk of its own, behind the gathered frames and its header."""
        cdef uint8_t header[MAX_HEADER]
        cdef int head = write_header(header, first, len(payload), False, 0)
        self.begin_chunks()
        memcpy(self.make_room(head), header, head)
        try:
            self.seal(payload)
        except:
            self.used -= head
            self.size -= head
            raise
        self.size += len(payload)
        self.note(first, len(payload))
        return 0

    cdef int append_serialized(self, bytes frame) except -1:
        """Writes a whole message's frame as it is; a large one becomes a chunk, which several writers may share."""
        cdef Py_ssize_t n = len(frame)
        if n >= UNCOPIED:
            self.begin_chunks()
            self.seal(frame)
            self.size += n
        else:
            memcpy(self.make_room(n), PyBytes_AS_STRING(frame), n)
        self.fragmenting = False
        self.count_serialized(frame)
        return 0

    cdef uint8_t *make_room(self, Py_ssize_t some) except NULL:
        """Makes room for bytes, counts them as written, and returns a pointer to the room."""
        cdef Py_ssize_t used = self.used, needed = used + some
        cdef PyObject *larger
        if needed > self.room:
            if used:
                needed = max(needed * 2, GATHER)
            larger = new_bytes(NULL, needed)  # resizing would free the gathered frames if memory runs out
            if used:
                memcpy(bytes_data(larger), bytes_data(self.gathered), used)
            Py_XDECREF(self.gathered)
            self.gathered = larger
            self.room = needed
        self.used = used + some
        self.size += some
        return <uint8_t *>bytes_data(self.gathered) + used

    cdef bytes whole_gathered(self):
        """Returns the gathered bytes, at least one, as an object of their size, without removing them."""
        if self.room == self.used:
            return <bytes>self.gathered
        return PyBytes_FromStringAndSize(bytes_data(self.gathered), self.used)

    cdef inline void drop_gathered(self) noexcept:
        Py_CLEAR(self.gathered)
        self.used = self.room = 0

    cdef inline Py_ssize_t send_gathered(self, int fd) noexcept:
        """Sends the gathered bytes, at least one, and removes them if all were sent; returns the number sent."""
        cdef iovec piece
        cdef Py_ssize_t sent
        piece.iov_base = bytes_data(self.gathered)
        piece.iov_len = self.used
        sent = duck_send(fd, &piece, 1)
        if sent == self.used:
            self.size -= sent
            if self.room > KEPT:
                self.drop_gathered()
            self.used = 0
        return sent

    cdef bytes take_gathered(self):
        """Removes and returns the gathered bytes, at least one."""
        cdef bytes taken = self.whole_gathered()
        self.size -= self.used
        self.drop_gathered()
        return taken

    cdef int begin_chunks(self) except -1:
        cdef list made
        if self.chunks is None:
            made = []  # can start the garbage collector, and so a finalizer that sends
            if self.chunks is None:
                self.chunks = made
        return 0

    cdef int seal(self, bytes payload=None) except -1:
        """Appends the gathered bytes and a payload to the chunks; `begin_chunks` must have been called."""
        cdef list chunks = self.chunks
        cdef Py_ssize_t end = len(chunks)
        try:
            if self.used:
                chunks.append(self.whole_gathered())
            if payload is not None:
                chunks.append(payload)
        except:
            del chunks[end:]
            raise
        self.drop_gathered()
        return 0


cdef class MaskingWriter(FrameWriter):
    cdef object source
    cdef uint32_t masks[MASK_BATCH]
    cdef int spent  # used masks of the batch

    def __cinit__(self, source):  # not __init__, without which the masks would be zeros
        self.source = source
        self.spent = MASK_BATCH

    cdef int append(self, uint8_t first, const uint8_t *p, Py_ssize_t n) except -1:
        cdef uint8_t header[MAX_HEADER]
        cdef uint32_t mask = self.next_mask()
        cdef int head = write_header(header, first, n, True, mask)
        cdef uint8_t *target = self.make_room(head + n)
        memcpy(target, header, head)
        simd.mask(target + head, p, n, mask)
        self.note(first, n)
        return 0

    cdef int append_large(self, uint8_t first, bytes payload) except -1:
        """Writes a frame as a chunk of its own, with one allocation."""
        if self.used:
            self.begin_chunks()
            self.seal()
        return self.append(first, <const uint8_t *>PyBytes_AS_STRING(payload), len(payload))

    cdef inline uint32_t next_mask(self) except? 0:
        if self.spent == MASK_BATCH:
            self.draw_masks()
        self.spent += 1
        return self.masks[self.spent - 1]

    cdef int draw_masks(self) except -1:
        cdef bytes batch = self.source(4 * MASK_BATCH)
        if len(batch) != 4 * MASK_BATCH:
            raise ValueError(f"a source of masks must return the {4 * MASK_BATCH} requested bytes, not {len(batch)}")
        memcpy(self.masks, PyBytes_AS_STRING(batch), 4 * MASK_BATCH)
        self.spent = 0
        return 0


cdef list unsent(list chunks, Py_ssize_t sent):
    """Returns the rest of the chunks after their first `sent` bytes."""
    cdef Py_ssize_t at = 0
    while at < len(chunks) and sent >= len(<bytes>chunks[at]):
        sent -= len(<bytes>chunks[at])
        at += 1
    rest = chunks[at:]
    if sent:
        rest[0] = memoryview(<bytes>rest[0])[sent:]
    return rest

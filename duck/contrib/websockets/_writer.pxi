# Writing: part of _speedups.pyx


cdef enum:
    LARGE = 8192  # payloads from here on leave as they are, behind their header, and are not copied
    GATHER = 4096  # room made when a second frame joins the first


cdef class FrameWriter:
    cdef readonly Py_ssize_t size
    cdef readonly bint closed
    cdef readonly bint fragmenting
    cdef PyObject *gathered  # a bytes object with room for `room` bytes, of which `used` are written; NULL at first
    cdef Py_ssize_t used
    cdef Py_ssize_t room
    cdef list chunks  # what goes before it; None where there is nothing

    def __dealloc__(self):
        Py_XDECREF(self.gathered)

    def write(self, first, payload, mask=None):
        cdef Py_buffer view
        cdef uint32_t key = 0
        cdef uint8_t start = check_first(first)
        if mask is None and type(payload) is bytes and len(payload) >= LARGE:
            self.append_large(start, payload)
            return
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        try:
            if mask is not None:
                take_mask(mask, &key)
            self.append(start, <const uint8_t *>view.buf, view.len, mask is not None, key)
        finally:
            PyBuffer_Release(&view)

    def take(self):
        cdef list taken
        self.seal()
        taken, self.chunks = self.chunks, None
        self.size = 0
        return taken

    cdef inline void note(self, uint8_t first) noexcept:
        if first & 0x08:
            self.closed = self.closed or (first & 0x0F) == 8
        else:
            self.fragmenting = not first & 0x80

    cdef int append(self, uint8_t first, const uint8_t *p, Py_ssize_t n, bint masked, uint32_t mask) except -1:
        """Writes a frame behind those that are gathered already."""
        cdef uint8_t header[MAX_HEADER]
        cdef int head = write_header(header, first, n, masked, mask)
        cdef uint8_t *target = self.make_room(head + n)
        memcpy(target, header, head)
        if masked:
            simd.mask(target + head, p, n, mask)
        else:
            memcpy(target + head, p, n)
        self.note(first)
        return 0

    cdef int append_large(self, uint8_t first, bytes payload) except -1:
        """Writes a frame whose payload becomes a chunk of its own, behind what is gathered and its header."""
        cdef uint8_t header[MAX_HEADER]
        cdef int head = write_header(header, first, len(payload), False, 0)
        memcpy(self.make_room(head), header, head)
        self.seal()
        self.chunks.append(payload)
        self.size += len(payload)
        self.note(first)
        return 0

    cdef uint8_t *make_room(self, Py_ssize_t some) except NULL:
        """Where the next bytes are to be written, which count as written."""
        cdef Py_ssize_t used = self.used, needed = self.used + some
        if self.gathered == NULL:
            self.gathered = new_bytes(NULL, needed)
            self.room = needed
        elif needed > self.room:
            needed = max(needed * 2, GATHER)
            self.used = self.room = 0  # and stay so if memory runs out
            resize_bytes(&self.gathered, needed)
            self.room = needed
        self.used = used + some
        self.size += some
        return <uint8_t *>bytes_data(self.gathered) + used

    cdef bytes take_gathered(self):
        """What is gathered, which there must be."""
        cdef object taken
        if self.room != self.used:
            resize_bytes(&self.gathered, self.used)
        taken = <object>self.gathered
        Py_CLEAR(self.gathered)
        self.size -= self.used
        self.used = self.room = 0
        return <bytes>taken

    cdef int seal(self) except -1:
        """Makes a chunk of what is gathered."""
        cdef Py_ssize_t size = self.size
        if self.chunks is None:
            self.chunks = []
        if self.used:
            self.chunks.append(self.take_gathered())
            self.size = size
        return 0

# The hot path: part of _speedups.pyx. `hotpath.py` is its specification.


cdef extern from *:
    """
    /* Returns the value of a small int; -1 for any other object. */
    static inline int duck_small_int(PyObject *object)
    {
        if (!PyLong_Check(object))
            return -1;
    #if PY_VERSION_HEX >= 0x030C0000
        if (!PyUnstable_Long_IsCompact((PyLongObject *)object))
            return -1;
        return (int)PyUnstable_Long_CompactValue((PyLongObject *)object);
    #else
        if (Py_SIZE(object) == 0)
            return 0;
        return Py_SIZE(object) == 1 ? (int)((PyLongObject *)object)->ob_digit[0] : -1;
    #endif
    }
    """
    int duck_small_int(object) noexcept

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    unsigned long PyThread_get_thread_ident() noexcept


cdef extern from "_clock.h":
    long long duck_clock() noexcept  # milliseconds


cdef enum:
    PORTION = 20480  # bytes parsed at a time, so that the peer gets the first replies while the rest is parsed
    QUARTER = 128  # bytes of a portion that justify a separate write of the replies

from time import perf_counter as _perf_counter


cdef class ReceiveBuffer:
    cdef readonly bytearray data
    cdef readonly object window
    cdef readonly bint in_use
    cdef void *last  # the connection that received last; only compared, because it may have been freed

    def __cinit__(self, size):
        self.data = bytearray(size)
        self.window = memoryview(self.data)

    def unused(self):
        return ReceiveBuffer(len(self.data)) if self.in_use else self


cdef class HotPath:
    cdef public MessageReader reader
    cdef public FrameWriter writer
    cdef public object consumer  # a Dispatcher, or another consumer
    cdef public ReceiveBuffer buffer
    cdef public Burst burst
    cdef public Counters counters
    cdef public object transport
    cdef public bint alive
    cdef public bint corked
    cdef long long corked_since
    cdef public bint lost
    cdef public bint direct_in
    cdef public bint direct_out
    cdef public bint writes_paused
    cdef public Py_ssize_t max_size
    cdef public object deflate
    cdef public object agreement
    cdef public Py_ssize_t threshold
    cdef public unsigned long thread
    cdef public int fd
    cdef public bint queued
    cdef public bint busy
    cdef bint flushing
    cdef bint floods
    cdef readonly bint broken

    def __init__(
        self,
        MessageReader reader not None,
        FrameWriter writer not None,
        ReceiveBuffer buffer not None,
        Burst burst not None,
        Counters counters,
        deflate,
    ):
        self.reader = reader
        self.writer = writer
        self.buffer = buffer
        self.burst = burst
        self.counters = reader.counters = writer.counters = counters
        self.deflate = deflate
        self.threshold = 0 if deflate is None else deflate.threshold
        self.thread = PyThread_get_thread_ident()
        self.fd = -1

    @property
    def is_elsewhere(self):
        return self.thread != PyThread_get_thread_ident() or self.busy

    def get_buffer(self, sizehint):
        cdef ReceiveBuffer buffer = self.buffer
        if buffer.in_use:
            self.buffer = buffer = buffer.unused()
        target = self.reader.target_of_read(buffer.data)
        if target is not buffer.data:
            return target
        return buffer.window[:FLOOD_READ] if self.floods else buffer.window

    def buffer_updated(self, Py_ssize_t nbytes):
        cdef MessageReader reader = self.reader
        cdef ReceiveBuffer buffer = self.buffer
        cdef Py_ssize_t at = 0, portion = PORTION
        cdef list messages
        # Replies leave together, unless the previous read was from the same peer. Then they leave in quarters of a
        # read, so that the peer can process them meanwhile, and neither side waits for the other.
        cdef bint alone = buffer.last == <void *>self and self.fd >= 0
        cdef bint is_long = nbytes >= FLOOD_READ and not reader.direct
        cdef long long begun = duck_clock() if is_long else 0
        buffer.last = <void *>self
        buffer.in_use = True
        self.alive = True
        self.begin_cork()
        try:
            if reader.direct:
                self.take(reader.buffer_updated(buffer.data, nbytes))
            elif not self.take_whole(nbytes):
                if reader.left >= IN_PLACE:  # of a message in parts; each portion would be a part of its own
                    portion = nbytes
                elif alone and not reader.parts:
                    portion = min(max(nbytes // 4, QUARTER), PORTION)
                while at < nbytes:
                    messages = reader.read_part(buffer.data, at, min(nbytes - at, portion))
                    at += portion
                    self.burst.several = self.burst.several or len(messages) > 1 or at < nbytes
                    self.take(messages)
                    if alone:
                        self.write_out()
                    else:
                        self.flush_if_old()
        finally:
            buffer.in_use = self.burst.several = False
            self.corked = False
            self.write_out()
        self.floods = is_long and (self.floods or duck_clock() - begun >= FAIR_SHARE)
        if self.floods:
            self.yield_reading()
        if self.writer.closed:
            self.move_on()

    cdef inline bint take_whole(self, Py_ssize_t nbytes) except -1:
        """Delivers a read that is one whole message, if the idle worker or a waiting task can handle it at once.

        Returns whether it was delivered.
        """
        cdef bint to_worker = type(self.consumer) is Dispatcher
        cdef bytes payload
        cdef int opcode
        if not self.direct_in or self.writer.closed:
            return False
        if to_worker:
            if not (<Dispatcher>self.consumer).is_ready():
                return False
        elif not (isinstance(self.consumer, Inbox) and (<Inbox>self.consumer).is_ready()):
            return False
        payload = self.reader.take_whole(self.buffer.data, nbytes, &opcode)
        if payload is None:
            return False
        if to_worker:
            (<Dispatcher>self.consumer).take_one(opcode, payload)
        else:
            (<Inbox>self.consumer).take_one(opcode, payload)
        return True

    cdef inline int take(self, list messages) except -1:
        cdef MessageReader reader = self.reader
        if reader.control or reader.error or (messages and (self.writer.closed or not self.direct_in)):
            self.received(messages)
        elif messages:
            consumer = self.consumer
            if type(consumer) is Dispatcher:
                (<Dispatcher>consumer).deliver(messages)
            elif isinstance(consumer, Inbox):
                (<Inbox>consumer).put(messages)
            else:
                consumer.deliver(messages)
        return 0

    def cork(self):
        self.begin_cork()

    cdef inline void begin_cork(self) noexcept:
        self.corked = True
        self.corked_since = duck_clock()

    def uncork(self):
        self.corked = False
        self.write_out()

    cdef inline int flush_if_old(self) except -1:
        cdef long long now
        if self.writer.size:
            now = duck_clock()
            if now - self.corked_since > CORK_TIME:
                self.write_out()
                self.corked_since = now
        if self.burst.gathering:
            self.burst.flush_if_old()
        return 0

    def send(self, data, opcode):
        cdef const uint8_t *p = NULL
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t most
        cdef int kind
        if self.direct_out and PyThread_get_thread_ident() == self.thread:
            kind = duck_small_int(opcode)  # else `send_otherwise` checks it: a float must not be truncated
            self.expect_more()
            if type(data) is bytes:
                p = <const uint8_t *>PyBytes_AS_STRING(<bytes>data)
                size = len(<bytes>data)
                if kind == 1 and duck_utf8(simd, p, size, 0):
                    raise ValueError(NOT_TEXT)
            elif type(data) is str:
                p = <const uint8_t *>PyUnicode_AsUTF8AndSize(data, &size)
            if p != NULL and 1 <= kind <= 2 and size <= self.max_size and not (self.writer.closed or self.writer.fragmenting):
                most = self.most_waiting(size)
                if self.deflate is not None and size >= self.threshold and (kind == 1 or self.deflate.binary):
                    self.write_compressed(kind, data if type(data) is bytes else PyBytes_FromStringAndSize(<const char *>p, size))
                elif size >= UNCOPIED and type(data) is bytes:
                    self.writer.append_large(FIN | <uint8_t>kind, <bytes>data)
                else:
                    self.writer.append(FIN | <uint8_t>kind, p, size)
                if self.writer.size > most:
                    self.write_out()
                self.burst.credit -= size + MESSAGE_COST
                if self.writes_paused:
                    return self.until_writable()
                return self.pace() if self.burst.credit < 0 else all_sent
        return self.send_otherwise(data, opcode)

    def write_prepared(self, message):
        self.put_prepared(message, message.frame, message.size, message.compressed)

    cdef inline int put_prepared(self, message, bytes frame, Py_ssize_t size, dict compressed) except -1:
        if self.deflate is None or size < self.threshold:
            self.put_serialized(frame)
        elif (PyBytes_AS_STRING(frame)[0] & 0x0F) == 2 and not self.deflate.binary:
            self.put_serialized(frame)
        else:
            self.put_prepared_compressed(message, size, compressed)
        self.burst.credit -= size + MESSAGE_COST
        return 0

    cdef int put_prepared_compressed(self, message, Py_ssize_t size, dict compressed) except -1:
        cdef bint following = False
        cdef bytes frame
        # As in `write_compressed`.
        self.busy = True
        self.direct_out = False
        try:
            if self.agreement is None:
                self.agreement = self.deflate.agreement
            found = compressed.get(self.agreement)
            if found is None:
                found = message.compress_with(self.deflate)
            frame = <bytes?>(<tuple?>found)[0]
            following = True
            if self.deflate.followed is None:
                self.deflate.follow((<tuple>found)[1])
            else:  # as `follow` would do, without the call
                self.deflate.followed = (<tuple>found)[1]
            self.put_serialized(frame)
            if self.counters is not None:
                self.counters.note_deflated(payload_size(frame), size)
        except:
            if following:
                self.cut()
            raise
        finally:
            self.busy = False
            self.direct_out = not self.broken
        return 0

    cdef inline int put_serialized(self, bytes frame) except -1:
        """Writes a frame behind the gathered ones; if there are none, to the socket directly, without a copy."""
        cdef FrameWriter writer = self.writer
        cdef Py_ssize_t sent, most = self.most_waiting(len(frame))
        if most == 0 and writer.size == 0 and self.fd >= 0 and not (self.flushing or self.broken or self.lost):
            if self.queued:
                self.queued = self.transport.get_write_buffer_size() != 0
            if not self.queued and writer.size == 0:
                writer.count_serialized(frame)
                sent = self.write_one(frame)
                if sent < len(frame):
                    self.write_rest(frame, sent)
                return 0
        writer.append_serialized(frame)
        if writer.size > most:
            self.write_out()
        return 0

    cdef inline int expect_more(self) except -1:
        if self.burst.several and not self.corked:
            self.burst.begin()
        return 0

    cdef inline Py_ssize_t most_waiting(self, Py_ssize_t size) except -1:
        if self.corked or self.writes_paused:
            return CORK_LIMIT
        if not self.burst.gathering:
            return 0
        if size >= BURST_LIMIT or self.flushing or self.broken or self.lost:
            return 0
        if self.writer.size == 0:
            self.burst.add(self)
        return BURST_LIMIT

    def pace(self):
        cdef Burst burst = self.burst
        cdef double now = _perf_counter()
        burst.credit = SEND_CREDIT
        if burst.looked and now - burst.looked >= FAIR_SHARE * 0.001:
            burst.looked = now
            return self.rest()
        burst.looked = burst.looked or now
        return all_sent

    cdef inline void renew_share(self) noexcept:
        self.burst.credit = SEND_CREDIT
        self.burst.looked = 0

    cdef int write_compressed(self, int kind, bytes payload) except -1:
        cdef bint compressed = False
        cdef Py_ssize_t size = len(payload)
        # A signal handler may run during the compression, and call `send`.
        self.busy = True
        self.direct_out = False
        try:
            payload = self.deflate.compress(payload)
            compressed = True
            self.writer.write(FIN | RSV1 | kind, payload)
            if self.counters is not None:
                self.counters.note_deflated(len(payload), size)
        except:
            if compressed:
                self.cut()  # later messages would refer to one that the peer has not received
            raise
        finally:
            self.busy = False
            self.direct_out = not self.broken
        return 0

    def flush(self):
        self.write_out()

    cdef int write_out(self) except -1:
        cdef FrameWriter writer = self.writer
        cdef Py_ssize_t sent
        if writer.size == 0 or self.flushing:
            return 0
        if self.lost or self.broken:
            writer.take_chunks()
            if not self.lost:
                self.transport.abort()
            return 0
        if self.fd >= 0 and self.queued:
            self.queued = self.transport.get_write_buffer_size() != 0
            if writer.size == 0:
                return 0
        if writer.chunks is None and self.fd >= 0 and not self.queued:
            sent = writer.send_gathered(self.fd)
            if writer.size:
                self.write_rest(None, sent)
        else:
            self.write_rest(None, 0)
        return 0

    cdef int write_rest(self, bytes data, Py_ssize_t sent) except -1:
        """Writes the rest of the data, then all gathered frames. The socket has accepted `sent` bytes of the data.

        Without `data`, they were gathered bytes. Signal handlers may add frames meanwhile.
        """
        cdef FrameWriter writer = self.writer
        cdef list chunks
        self.flushing = True
        try:
            if data is None and sent:
                data = writer.take_gathered()
            if data is not None:
                self.queued = True
                self.write_chunks(unsent([data], sent))
            while writer.size:
                chunks = writer.take_chunks()
                sent = self.write_past(chunks)
                if sent:
                    chunks = unsent(chunks, sent)
                if chunks:
                    self.queued = True
                    self.write_chunks(chunks)
        except:
            self.cut()
            raise
        finally:
            self.flushing = False
        return 0

    def cut(self):
        self.broken = True
        self.direct_out = False
        self.transport.abort()

    cdef inline Py_ssize_t write_one(self, bytes data) noexcept:
        cdef iovec piece
        piece.iov_base = PyBytes_AS_STRING(data)
        piece.iov_len = len(data)
        return duck_send(self.fd, &piece, 1)

    cdef Py_ssize_t write_past(self, list chunks) except -1:
        """Writes to the socket directly if the transport's buffer is empty; returns the number of bytes written."""
        cdef iovec pieces[PIECES]
        cdef int n = 0
        if self.fd < 0 or self.queued:
            return 0
        for chunk in chunks:
            if n == PIECES:
                break
            pieces[n].iov_base = PyBytes_AS_STRING(<bytes>chunk)
            pieces[n].iov_len = len(<bytes>chunk)
            n += 1
        return duck_send(self.fd, pieces, n)


def fan_out(members, message):
    cdef HotPath protocol
    cdef bytes frame = message.frame
    cdef dict compressed = message.compressed
    cdef Py_ssize_t size = message.size, taken = 0
    cdef unsigned long thread = PyThread_get_thread_ident()
    cdef list everyone = members if type(members) is list else list(members)
    cdef list rest = []
    cdef Burst burst = None
    cdef Py_ssize_t at = 0
    while at < len(everyone):
        try:  # entered once, and again after each exception
            while at < len(everyone):
                member = everyone[at]
                at += 1
                found = getattr(member, "_protocol", None)
                if isinstance(found, HotPath):
                    protocol = <HotPath>found
                    if protocol.direct_out and protocol.thread == thread:
                        protocol.expect_more()
                        if (
                            type(protocol.writer) is FrameWriter
                            and not (protocol.writes_paused or protocol.writer.closed or protocol.writer.fragmenting)
                            and size <= protocol.max_size
                        ):
                            protocol.put_prepared(message, frame, size, compressed)
                            taken += 1
                            if burst is not protocol.burst:
                                burst = protocol.burst
                            continue
                rest.append(member)
        except Exception:
            rest.append(everyone[at - 1])
    if burst is not None:
        if burst.gathering:
            burst.flush_if_old()
        elif taken >= BURST_MEMBERS:
            burst.begin_after_broadcast()
    return taken, rest

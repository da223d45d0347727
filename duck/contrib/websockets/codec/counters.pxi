# Counters of messages, bytes and events: part of _speedups.pyx. `counters.py` is its specification.


cdef extern from "_clock.h":
    double duck_seconds() noexcept


cdef enum:
    OPCODES = 16
    MOST_BOUNDS = 20

SECONDS = (0.00001, 0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


cdef class Histogram:
    cdef readonly tuple bounds
    cdef readonly double sum
    cdef double limits[MOST_BOUNDS]
    cdef uint64_t filled[MOST_BOUNDS + 1]
    cdef int size

    def __cinit__(self, bounds):
        cdef int i
        self.bounds = tuple([float(bound) for bound in bounds])
        if not 0 < len(self.bounds) <= MOST_BOUNDS or list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"a histogram has 1 to {MOST_BOUNDS} bounds in ascending order, not {bounds!r}")
        self.size = <int>len(self.bounds)
        for i in range(self.size):
            self.limits[i] = self.bounds[i]

    @property
    def counts(self):
        return [self.filled[i] for i in range(self.size + 1)]

    def observe(self, double value):
        self.add(value, 1)

    cdef inline void add(self, double value, Py_ssize_t number) noexcept:
        cdef int i = 0
        while i < self.size and value > self.limits[i]:
            i += 1
        self.filled[i] += number
        self.sum += value * number


@cython.final
cdef class Counters:
    cdef readonly Histogram handlers
    cdef readonly Histogram pings
    cdef readonly dict events
    cdef public Py_ssize_t opened
    cdef public Py_ssize_t waiting_peak
    cdef public Py_ssize_t waiting_bytes_peak
    cdef public Py_ssize_t write_buffer_peak
    cdef uint64_t messages_in[OPCODES]
    cdef uint64_t bytes_in[OPCODES]
    cdef uint64_t messages_out[OPCODES]
    cdef uint64_t bytes_out[OPCODES]
    cdef uint64_t inflated_[2]
    cdef uint64_t deflated_[2]

    def __cinit__(self):
        self.handlers = Histogram(SECONDS)
        self.pings = Histogram(SECONDS)
        self.events = {}

    @property
    def received(self):
        return [self.messages_in[i] for i in range(OPCODES)]

    @property
    def received_bytes(self):
        return [self.bytes_in[i] for i in range(OPCODES)]

    @property
    def sent(self):
        return [self.messages_out[i] for i in range(OPCODES)]

    @property
    def sent_bytes(self):
        return [self.bytes_out[i] for i in range(OPCODES)]

    @property
    def inflated(self):
        return [self.inflated_[i] for i in range(2)]

    @property
    def deflated(self):
        return [self.deflated_[i] for i in range(2)]

    def note(self, tuple event, Py_ssize_t number=1):
        self.events[event] = self.events.get(event, 0) + number

    cpdef note_waiting(self, Py_ssize_t messages, Py_ssize_t size):
        self.waiting_peak = max(self.waiting_peak, messages)
        self.waiting_bytes_peak = max(self.waiting_bytes_peak, size)

    def note_write_buffer(self, Py_ssize_t size):
        self.write_buffer_peak = max(self.write_buffer_peak, size)

    def note_inflated(self, Py_ssize_t size, Py_ssize_t plain):
        # Large messages are decompressed in threads, which may have no lock in common.
        with cython.critical_section(self):
            self.inflated_[0] += size
            self.inflated_[1] += plain

    cpdef note_deflated(self, Py_ssize_t size, Py_ssize_t plain):
        self.deflated_[0] += size
        self.deflated_[1] += plain

    cdef inline void add_received(self, uint8_t opcode, uint64_t size, bint ends) noexcept:
        self.messages_in[opcode] += ends
        self.bytes_in[opcode] += size

    cdef inline void add_sent(self, uint8_t opcode, uint64_t size, bint begins) noexcept:
        self.messages_out[opcode] += begins
        self.bytes_out[opcode] += size

    cdef double add_handlers(self, double started, Py_ssize_t ended, Py_ssize_t waiting) noexcept:
        cdef double now = duck_seconds()
        cdef double mean = (now - started) / (ended + waiting)
        self.handlers.add(mean, ended)
        return now - mean * waiting

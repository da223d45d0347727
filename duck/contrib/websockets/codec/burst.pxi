# The sends of all connections of a loop: part of _speedups.pyx. `burst.py` is its specification.

from weakref import ref as _weakref


@cython.final
cdef class Burst:
    cdef readonly bint gathering
    cdef readonly bint several
    cdef public Py_ssize_t credit
    cdef double looked
    cdef public bint held
    cdef object loop
    cdef list connections
    cdef long long since
    cdef long long patience
    cdef int pause  # broadcasts to skip after a burst that has gathered nothing
    cdef int to_skip

    def __cinit__(self, loop, patience=CORK_TIME):
        self.loop = _weakref(loop)
        self.connections = []
        self.patience = patience

    cpdef bint begin(self) except -1:
        if self.gathering:
            return True
        loop = self.loop()
        if loop is not None and loop.is_running():
            loop.call_soon(self.end)
            self.since = duck_clock()
            self.gathering = True
        return self.gathering

    cpdef begin_after_broadcast(self):
        if self.to_skip:
            self.to_skip -= 1
        else:
            self.begin()

    cpdef add(self, connection):
        self.connections.append(connection)

    def end(self):
        self.gathering = False
        self.pause = 0 if self.connections else min(2 * self.pause + 1, BURST_PAUSE)
        self.to_skip = self.pause
        self.flush()

    cpdef flush_if_old(self):
        cdef long long now = duck_clock()
        if now - self.since > self.patience:
            self.since = now
            self.flush()

    cpdef flush(self):
        self.connections.reverse()
        while self.connections:
            try:  # entered once, and again after each failure
                while self.connections:
                    connection = self.connections.pop()
                    if isinstance(connection, HotPath):
                        (<HotPath>connection).write_out()
                    else:
                        connection.flush()
            except Exception as error:
                self.report(error)

    cdef int report(self, error) except -1:
        loop = self.loop()
        if loop is not None:
            loop.call_exception_handler({"message": "gathered frames could not be written", "exception": error})
        return 0

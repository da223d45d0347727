# The sends of all connections of a loop: part of _speedups.pyx. `burst.py` is its specification.

from weakref import ref as _weakref


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

    def begin(self):
        return self.begins()

    cdef bint begins(self) except -1:
        if self.gathering:
            return True
        loop = self.loop()
        if loop is not None and loop.is_running():
            loop.call_soon(self.end)
            self.since = duck_clock()
            self.gathering = True
        return self.gathering

    def begin_after_broadcast(self):
        self.begin_sometimes()

    cdef int begin_sometimes(self) except -1:
        if self.to_skip:
            self.to_skip -= 1
        else:
            self.begins()
        return 0

    def add(self, connection):
        self.connections.append(connection)

    def end(self):
        self.gathering = False
        self.pause = 0 if self.connections else min(2 * self.pause + 1, BURST_PAUSE)
        self.to_skip = self.pause
        self.write_all()

    def flush_if_old(self):
        self.write_if_old()

    cdef int write_if_old(self) except -1:
        cdef long long now = duck_clock()
        if now - self.since > self.patience:
            self.since = now
            self.write_all()
        return 0

    def flush(self):
        self.write_all()

    cdef int write_all(self) except -1:
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
        return 0

    cdef int report(self, error) except -1:
        loop = self.loop()
        if loop is not None:
            loop.call_exception_handler({"message": "gathered frames could not be written", "exception": error})
        return 0

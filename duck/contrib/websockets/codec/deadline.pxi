# The time limit of a task: part of _speedups.pyx. `deadline.py` is its specification.


cdef class Deadline:
    cdef object task
    cdef Clock clock
    cdef object seconds
    cdef object cancelled
    cdef object cancelling
    cdef object tick
    cdef readonly bint expired

    def __cinit__(self, task, Clock clock not None, seconds, cancelled):
        self.task = task
        self.clock = clock
        self.seconds = seconds
        self.cancelled = cancelled
        self.cancelling = task.cancelling()

    def __enter__(self):
        if self.seconds is not None and self.seconds < LONGEST_DEADLINE:
            loop = self.task.get_loop()
            self.tick = self.clock.set(loop, loop.time() + self.seconds, self)

    def expire(self):
        task = self.task
        if task is not None:
            task.get_loop().call_soon_threadsafe(self.wake)

    def wake(self):
        if self.task is not None and not self.expired:
            self.expired = True
            self.task.cancel()

    def __exit__(self, kind, error, traceback):
        task, self.task = self.task, None
        if self.tick is not None:
            self.clock.drop(self.tick, self)
            self.tick = None
        if self.expired and task.uncancel() <= self.cancelling and isinstance(error, self.cancelled):
            raise TimeoutError from None

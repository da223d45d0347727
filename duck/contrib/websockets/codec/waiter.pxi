# An awaitable for an event of a connection: part of _speedups.pyx. `waiter.py` is its specification.


cdef class Waiter:
    cdef object loop
    cdef list queue
    cdef object future
    cdef object callback  # the task's, of its last wait; or None
    cdef object context

    def __init__(self, loop, list queue not None):
        self.loop = loop
        self.queue = queue

    @property
    def is_over(self):
        return self.future is None or bool(self.future.done())

    def wake(self):
        self.step()

    cdef int step(self) except -1:
        """Steps the task at once."""
        cdef list queue = self.queue
        future = self.future
        if future is None:
            return 0
        callback, context = self.callback, self.context
        if callback is None or not future.remove_done_callback(callback):
            callbacks = future._callbacks
            if type(callbacks) is not list or len(<list>callbacks) != 1:
                self.wake_soon()
                return 0
            callback, context = <tuple>(<list>callbacks)[0]
            future.remove_done_callback(callback)
        self.callback = self.context = None
        done = self.resolved(future)
        PyContext_Enter(context)
        try:
            callback(done)
        finally:
            PyContext_Exit(context)
        self.stepped(queue, future, callback, context)
        return 0

    cpdef wake_soon(self):
        if self.future is not None and not self.future.done():
            self.future.set_result(None)

    def fail(self, error):
        self.leave()
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)
            self.future.exception()

    cdef int leave(self) except -1:
        if self.queue is not None and self in self.queue:
            self.queue.remove(self)
        return 0

    cdef object resolved(self, future):
        future.set_result(None)
        return future

    cdef int stepped(self, list waiters, future, callback, context) except -1:
        """Called with the callback of a task that has been stepped, and the queue in which it waited."""
        return 0

    cdef object new_future(self):
        return self.loop.create_future()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        self.begun()
        if self.future is None:
            return self.wait()
        self.queue = None
        raise StopIteration

    cdef inline int begun(self) except -1:
        if self.queue is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        return 0

    cdef inline object wait(self):
        if self.future is None:
            self.future = self.new_future()
        self.queue.append(self)
        self.future._asyncio_future_blocking = True
        return self.future

    def send(self, value):
        return self.__next__()

    def throw(self, error, value=None, traceback=None):
        self.close()
        raise error

    def close(self):
        self.leave()
        self.queue = self.future = self.callback = self.context = None

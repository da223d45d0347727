# The coroutine of a handler's task: part of _speedups.pyx. `worker.py` is its specification.


cdef extern from "Python.h":
    int iterator_send "PyIter_Send" (object iterator, PyObject *value, PyObject **result) except -1
    bint PyCoro_CheckExact(object value)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1


cdef enum:
    NEXT = 1  # PYGEN_NEXT: the iterator has yielded

cdef enum State:
    IDLE
    STARTING
    WAITING
    DRIVEN
    ENDED


cdef class Dispatcher


cdef class Worker:
    cdef Dispatcher dispatcher
    cdef object task
    cdef object context
    cdef object handler
    cdef object awaited  # the future that the handler has yielded, until the task waits for it
    cdef object value  # the handler's result
    cdef object error  # the handler's exception
    cdef object callback  # steps the task while it is parked, None otherwise
    cdef Py_ssize_t references  # of an unobserved task; 0 before they have been counted
    cdef PyObject *weak_references  # the first in the list of them, for comparison alone
    cdef double started  # the time when the handler began, once it waits; 0 if it is not to be counted
    cdef State state
    cdef bint cancelled
    cdef public bint observed
    cdef public bint _asyncio_future_blocking

    def __cinit__(self, Dispatcher dispatcher not None, context, hook):
        self.dispatcher = dispatcher
        self.context = context
        self.handler = hook
        self.state = IDLE if hook is None else DRIVEN

    def __getattr__(self, str name):
        if name == "__qualname__" and self.handler is None:
            return "idle WebSocket worker"
        if name.startswith(("cr_", "__")):
            return getattr(self.handler, name)
        raise AttributeError(name)

    # The coroutine of a task

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.state == DRIVEN:
            return self.drive()
        if self.state == WAITING:
            return self.hand_over()
        if self.state == IDLE:
            self._asyncio_future_blocking = True
            return self
        error, self.error = self.error, None
        if error is not None:
            raise error
        raise StopIteration(self.value)

    def send(self, value):
        return self.__next__()

    def throw(self, error, value=None, traceback=None):
        if self.state == DRIVEN:
            return self.throw_in(error)
        if self.state == IDLE:
            self.state = ENDED
            self.dispatcher.release(self)
            raise error
        # The handler was cancelled in its first step. The task acts on the result of that step as it would have then:
        # it cancels the future that the handler waits for, the handler's next step, or itself.
        if self.error is None:
            self.dispatcher.tasks.cancel_again(self.dispatcher.loop, error)
        return self.__next__()

    def close(self):
        if self.handler is not None:
            self.handler.close()

    # The future that a task waits for

    def get_loop(self):
        return self.dispatcher.loop

    def add_done_callback(self, callback, *, context):
        self.callback = callback

    def result(self):
        if self.cancelled:
            raise self.dispatcher.tasks.cancelled_error

    def cancel(self, msg=None):
        if self.state != IDLE or self.callback is None:
            return False  # so the task raises the cancellation in its next step
        callback, self.callback = self.callback, None
        self.cancelled = True
        self.dispatcher.release(self)
        self.dispatcher.loop.call_soon(callback, self, context=self.context)
        return True

    # Running handlers

    cdef inline int start(self, int opcode, bytes payload) except -1:
        """Creates the handler of a message, and runs it to its first wait."""
        cdef Dispatcher dispatcher = self.dispatcher
        cdef PyObject *result = NULL
        self.state = STARTING
        handler = dispatcher.handle(payload, dispatcher.tasks.opcodes[opcode])
        if not PyCoro_CheckExact(handler):
            handler = dispatcher.tasks.iterator(handler)
        self.handler = handler
        if iterator_send(handler, <PyObject *>None, &result) == NEXT:
            self.awaited = <object>result
            self.state = WAITING
        elif result is not <PyObject *>None:
            self.value = <object>result
        Py_CLEAR(result)
        return 0

    cdef object hand_over(self):
        """Returns the future of the handler's first wait. From now on the task drives the handler."""
        self.state = DRIVEN
        awaited, self.awaited = self.awaited, None
        return awaited

    cdef object drive(self):
        """Runs the handler to its next wait; raises StopIteration or its error when it ends."""
        cdef PyObject *result = NULL
        try:
            if iterator_send(self.handler, <PyObject *>None, &result) == NEXT:
                return <object>result
            value = <object>result
        except BaseException as error:
            return self.end_with(error)
        finally:
            Py_CLEAR(result)
        self.state = ENDED
        self.dispatcher.release(self)
        raise StopIteration(value)

    cdef object throw_in(self, error):
        """As `drive`, but raises an error in the handler."""
        try:
            return self.handler.throw(error)
        except StopIteration as stop:
            value = stop.value
        except BaseException as raised:
            return self.end_with(raised)
        self.state = ENDED
        self.dispatcher.release(self)
        raise StopIteration(value)

    cdef object end_with(self, error):
        self.fail(error)
        self.dispatcher.release(self)
        if self.error is None:
            raise StopIteration
        self.error = None  # its traceback refers to the frame that has started this worker
        raise error

    cdef int fail(self, error) except -1:
        """Ends the task with the handler's error."""
        self.state = ENDED
        if isinstance(error, KeyboardInterrupt):
            raise error
        self.dispatcher.owner.hook_failed(error)
        if isinstance(error, SystemExit):
            return 0  # raised by a task, it would end the loop
        self.error = error
        if self.task is not None and not isinstance(error, self.dispatcher.tasks.cancelled_error):
            self.task.add_done_callback(self.dispatcher.tasks.retrieve)
        return 0

    cdef int wake(self) except -1:
        """Steps the task at once, if it is parked. No other task may be running."""
        callback, self.callback = self.callback, None
        if callback is not None:
            PyContext_Enter(self.context)
            try:
                callback(self)
            finally:
                PyContext_Exit(self.context)
        return 0

    def end(self):
        if self.state == IDLE:
            self.state = ENDED
            self.task = None  # as in `release`
        self.wake()

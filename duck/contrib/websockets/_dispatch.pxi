# How messages get to handlers: part of _speedups.pyx. `_fallback_dispatch.py` is its specification.


cdef extern from "Python.h":
    int iterator_send "PyIter_Send" (object iterator, PyObject *value, PyObject **result) except -1
    bint PyCoro_CheckExact(object value)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1


cdef enum:
    NEXT = 1  # PYGEN_NEXT: the iterator has yielded


cdef class Worker:
    cdef Dispatcher dispatcher
    cdef object task  # None during its first step
    cdef object context
    cdef object handler  # what has waited and is not finished, None when idle
    cdef object awaited  # what it waits for, while the task does not know yet
    cdef object callback  # steps the task while it is parked, None otherwise
    cdef bint opening  # whether the handler is `on_open`
    cdef bint handed  # whether `awaited` is for the task to take
    cdef bint cancelled
    cdef public bint _asyncio_future_blocking

    def __cinit__(self, Dispatcher dispatcher not None, context, handler):
        self.dispatcher = dispatcher
        self.context = context
        self.handler = handler
        self.opening = handler is not None

    # What a task calls on its coroutine

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.handler is not None and not self.handed:
            try:
                if self.advance(self.handler):
                    return self.take_awaited()
            except BaseException as error:
                self.failed(error)
            self.ended()
        return self.go_on()

    def send(self, value):
        return self.__next__()

    def throw(self, error, value=None, traceback=None):
        if self.handler is None:
            self.dispatcher.leave(self)
            raise error
        self.handed = False
        self.awaited = None
        try:
            return self.handler.throw(error)
        except StopIteration:
            pass
        except BaseException as raised:
            self.failed(raised)
        self.ended()
        return self.go_on()

    def close(self):
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.close()

    # What a task calls on the future that it waits for

    def get_loop(self):
        return self.dispatcher.loop

    def add_done_callback(self, callback, *, context):
        self.callback = callback

    def result(self):
        if self.cancelled:
            raise self.dispatcher.cancelled_error

    def cancel(self, msg=None):
        callback, self.callback = self.callback, None
        if callback is None:
            return False
        self.cancelled = True
        self.dispatcher.leave(self)
        self.dispatcher.loop.call_soon(callback, self, context=self.context)
        return True

    def wake(self):
        callback, self.callback = self.callback, None
        if callback is not None:
            PyContext_Enter(self.context)
            try:
                callback(self)
            finally:
                PyContext_Exit(self.context)

    # Running handlers

    cdef bint advance(self, object handler) except -1:
        """Runs a handler to its next wait; false if it ended."""
        cdef PyObject *result = NULL
        cdef int status = iterator_send(handler, <PyObject *>None, &result)
        if status == NEXT:
            self.handler = handler
            self.awaited = <object>result
            self.handed = True
        Py_CLEAR(result)
        return status == NEXT

    cdef bint begin(self, tuple message) except -1:
        """Hands a message to a new handler, which runs to its first wait; false if it ended."""
        handler = self.dispatcher.handle(message[1], self.dispatcher.opcodes[<int>message[0]])
        if not PyCoro_CheckExact(handler):
            handler = self.dispatcher.iterator(handler)
        return self.advance(handler)

    cdef object take_awaited(self):
        awaited, self.awaited = self.awaited, None
        self.handed = False
        return awaited

    cdef int failed(self, object error) except -1:
        """A handler has raised; raises on if it was the task that was cancelled."""
        if self.dispatcher.owner.hook_failed(error):
            self.ended()
            self.dispatcher.leave(self)
            raise error
        return 0

    cdef int ended(self) except -1:
        self.handler = None
        if self.opening:
            self.opening = False
            self.dispatcher.opened = True
        return 0

    cdef object go_on(self):
        """What the task is to wait for next: a handler that waits already, one in the inbox that will, or a message."""
        cdef Dispatcher dispatcher = self.dispatcher
        if self.handed:
            return self.take_awaited()
        while dispatcher.inbox and dispatcher.opened:
            try:
                if self.begin(dispatcher.take_message()):
                    if self.task is not None:
                        dispatcher.join(self.task)
                    return self.take_awaited()
            except BaseException as error:
                self.failed(error)
        dispatcher.leave(self)
        if dispatcher.stopped or dispatcher.idle is not None:
            self.task = None  # which holds on to this: without the cycle both are freed at once, not by the collector
            raise StopIteration
        dispatcher.idle = self
        self._asyncio_future_blocking = True
        return self


NO_WORKERS = frozenset()


cdef class Dispatcher:
    cdef object owner
    cdef object handle
    cdef object start_task
    cdef object enter_task
    cdef object leave_task
    cdef object copy_context
    cdef object cancelled_error
    cdef object iterator
    cdef object new_deque
    cdef tuple opcodes
    cdef Py_ssize_t limit
    cdef bint opened
    cdef bint stopped
    cdef Worker idle
    cdef readonly object loop
    cdef readonly object inbox
    cdef readonly object workers

    def __init__(self, owner, loop, handle, Py_ssize_t limit, tasks):
        self.owner = owner
        self.loop = loop
        self.handle = handle
        self.limit = limit
        self.start_task = tasks.start_task
        self.enter_task = tasks.enter_task
        self.leave_task = tasks.leave_task
        self.copy_context = tasks.copy_context
        self.cancelled_error = tasks.CancelledError
        self.iterator = tasks.iterator
        self.opcodes = tasks.OPCODES
        self.new_deque = tasks.deque
        self.inbox = ()
        self.workers = NO_WORKERS

    def open(self, on_open):
        if on_open is None:
            self.opened = True
        else:
            self.new_worker(on_open)

    def deliver(self, list messages):
        cdef Py_ssize_t at = 0, end = len(messages)
        while at < end and not self.stopped:
            if self.inbox or not self.opened or (self.idle is None and len(self.workers) >= self.limit):
                if not self.inbox:
                    self.inbox = self.new_deque()
                self.inbox.extend(messages[at:])
                self.owner.hold_inbox()
                return
            if self.idle is None:
                self.idle = self.new_worker(None)
            at = self.run(self.idle, messages, at)

    def stop(self):
        self.stopped = True
        self.inbox = ()
        if self.idle is not None:
            self.loop.call_soon(self.idle.wake)
            self.idle = None

    def forget(self):
        self.owner = self.handle = None

    cdef Py_ssize_t run(self, Worker worker, list messages, Py_ssize_t at) except -1:
        """Hands messages to handlers within the worker's task, until one waits; where to go on."""
        cdef bint waits = False
        self.enter_task(self.loop, worker.task)
        PyContext_Enter(worker.context)
        try:
            while at < len(messages) and not waits and not self.stopped:
                at += 1
                try:
                    waits = worker.begin(<tuple>messages[at - 1])
                except BaseException as error:
                    worker.failed(error)
        finally:
            PyContext_Exit(worker.context)
            self.leave_task(self.loop, worker.task)
        if waits:
            self.idle = None
            self.join(worker.task)
            worker.wake()
        return at

    cdef Worker new_worker(self, on_open):
        cdef Worker worker
        context = self.copy_context()
        worker = Worker.__new__(Worker, self, context, self.iterator(on_open()) if on_open is not None else None)
        task = self.start_task(self.loop, worker, context)
        if not task.done():
            worker.task = task
            if worker.handler is not None:
                self.join(task)
        return worker

    cdef object take_message(self):
        message = self.inbox.popleft()
        if not self.inbox:
            self.inbox = ()
            self.owner.release_inbox()
        return message

    cdef int join(self, task) except -1:
        """The task is busy with a handler that waits."""
        if self.workers is NO_WORKERS:
            self.workers = set()
        (<set>self.workers).add(task)
        return 0

    cdef int leave(self, Worker worker) except -1:
        """The worker is not busy any more, nor idle."""
        if self.workers is not NO_WORKERS:
            (<set>self.workers).discard(worker.task)
        if self.idle is worker:
            self.idle = None
        if self.inbox:  # it was cancelled
            self.loop.call_soon(self.replace_worker)
        return 0

    def replace_worker(self):
        """Has what is in the inbox handled, if nobody is about to."""
        if self.inbox and self.opened and len(self.workers) < self.limit:
            self.new_worker(None)

# How messages get to handlers: part of _speedups.pyx. `dispatcher.py` is its specification.


cdef extern from "Python.h":
    int iterator_send "PyIter_Send" (object iterator, PyObject *value, PyObject **result) except -1
    bint PyCoro_CheckExact(object value)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    const Py_ssize_t PY_SSIZE_T_MAX
    Py_ssize_t Py_REFCNT(PyObject *value)
    PyObject **PyObject_GET_WEAKREFS_LISTPTR(PyObject *value)


cdef extern from "_context.h":
    int duck_find_map() except -1
    bint duck_same_variables(object context, object other)


duck_find_map()


cdef enum:
    NEXT = 1  # PYGEN_NEXT: the iterator has yielded

cdef enum State:
    IDLE
    STARTING
    WAITING
    DRIVEN
    ENDED

cdef enum:
    DRAINED = 64  # messages that leave the inbox at a time

cdef object NO_WORKERS = frozenset()
cdef tuple NO_MESSAGES = ()


cdef class HotPath


cdef class Worker:
    cdef Dispatcher dispatcher
    cdef object task
    cdef object context
    cdef object handler
    cdef object awaited  # what it waits for, while the task has not been told
    cdef object pending  # a cancellation that strikes at the next step
    cdef object value  # what the handler has returned
    cdef object error  # what it has raised
    cdef object callback  # steps the task while it is parked, None otherwise
    cdef Py_ssize_t references  # of a task that nobody keeps; 0 before they have been counted
    cdef PyObject *weak_references  # the first in the list of them, for comparison alone
    cdef State state
    cdef bint cancelled
    cdef public bint kept
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

    # What a task calls on its coroutine

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.state == DRIVEN:
            if self.pending is not None:
                error, self.pending = self.pending, None
                return self.throw_in(error)
            return self.drive()
        if self.state == WAITING:
            return self.hand_over()
        if self.state == IDLE:
            self._asyncio_future_blocking = True
            return self
        if self.error is not None:
            raise self.error
        raise StopIteration(self.value)

    def send(self, value):
        return self.__next__()

    def throw(self, error, value=None, traceback=None):
        if self.state == DRIVEN:
            pending, self.pending = self.pending, None
            if pending is not None and not isinstance(error, self.dispatcher.cancelled_error):
                error = pending
            return self.throw_in(error)
        if self.state == WAITING:
            # The handler was cancelled in its first step: so is what it waits for, as a task does it.
            awaited = self.hand_over()
            cancel = getattr(awaited, "cancel", None)
            if cancel is None or not cancel(msg=error.args[0] if error.args else None):
                self.pending = error
            return awaited
        if self.state == IDLE:
            self.state = ENDED
            self.dispatcher.lose(self)
        raise self.error or error

    def close(self):
        if self.handler is not None:
            self.handler.close()

    # What a task calls on the future that it waits for

    def get_loop(self):
        return self.dispatcher.loop

    def add_done_callback(self, callback, *, context):
        self.callback = callback

    def result(self):
        if self.cancelled:
            raise self.dispatcher.cancelled_error

    def cancel(self, msg=None):
        if self.state != IDLE or self.callback is None:
            return False  # the task notes it, and its next step raises it
        callback, self.callback = self.callback, None
        self.cancelled = True
        self.dispatcher.lose(self)
        self.dispatcher.loop.call_soon(callback, self, context=self.context)
        return True

    # What a task's own methods tell

    def withdraw_cancel(self):
        self.pending = None

    # Running handlers

    cdef inline int start(self, tuple message) except -1:
        """Hands a message to a new handler, which runs to its first wait."""
        cdef Dispatcher dispatcher = self.dispatcher
        cdef PyObject *result = NULL
        self.state = STARTING
        handler = dispatcher.handle(message[1], dispatcher.opcodes[<int>message[0]])
        if not PyCoro_CheckExact(handler):
            handler = dispatcher.iterator(handler)
        self.handler = handler
        if iterator_send(handler, <PyObject *>None, &result) == NEXT:
            self.awaited = <object>result
            self.state = WAITING
        elif result is not <PyObject *>None:
            self.value = <object>result
        Py_CLEAR(result)
        return 0

    cdef object hand_over(self):
        """What the handler waits for; from now on the task drives it."""
        self.state = DRIVEN
        awaited, self.awaited = self.awaited, None
        return awaited

    cdef object drive(self):
        """Runs the handler to its next wait; StopIteration or its error if it ends."""
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
        self.dispatcher.lose(self)
        raise StopIteration(value)

    cdef object throw_in(self, error):
        """The same, with an error that what it waits for has raised."""
        try:
            return self.handler.throw(error)
        except StopIteration as stop:
            value = stop.value
        except BaseException as raised:
            return self.end_with(raised)
        self.state = ENDED
        self.dispatcher.lose(self)
        raise StopIteration(value)

    cdef object end_with(self, error):
        self.fail(error)
        self.dispatcher.lose(self)
        if self.error is None:
            raise StopIteration
        raise error

    cdef int fail(self, error) except -1:
        """The handler has raised, which its task is to end with."""
        self.state = ENDED
        if isinstance(error, KeyboardInterrupt):
            raise error
        self.dispatcher.owner.hook_failed(error)
        if isinstance(error, SystemExit):
            return 0  # which would end the loop if a task raised it
        self.error = error
        if self.task is not None and not isinstance(error, self.dispatcher.cancelled_error):
            self.task.add_done_callback(self.dispatcher.retrieve)
        return 0

    cdef int wake(self) except -1:
        """Steps the task here and now, if it is parked; no other task may be running."""
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
        self.wake()


cdef class Dispatcher:
    cdef object owner
    cdef HotPath hot  # the same, where it is one
    cdef object handle
    cdef object start_worker
    cdef object enter_task
    cdef object leave_task
    cdef object retrieve
    cdef object cancelled_error
    cdef object iterator
    cdef object new_deque
    cdef tuple opcodes
    cdef Py_ssize_t limit
    cdef Py_ssize_t most_waiting
    cdef Py_ssize_t most_waiting_bytes
    cdef Py_ssize_t waiting_bytes
    cdef bint opened
    cdef bint stopped
    cdef bint running
    cdef bint draining
    cdef Worker idle
    cdef Worker opening
    cdef public object decode
    cdef public int encoded
    cdef public Py_ssize_t decoded_at_once
    cdef readonly bint decoding
    cdef readonly bint full
    cdef readonly object context
    cdef readonly object loop
    cdef readonly object inbox
    cdef readonly object workers

    def __init__(self, owner, loop, context, handle, Py_ssize_t limit, tuple most_waiting, tasks):
        self.owner = owner
        self.hot = owner if isinstance(owner, HotPath) else None
        self.loop = loop
        self.context = context
        self.handle = handle
        self.limit = limit
        self.most_waiting, self.most_waiting_bytes = most_waiting
        self.start_worker = tasks.start_worker
        self.enter_task = tasks.enter_task
        self.leave_task = tasks.leave_task
        self.retrieve = tasks.retrieve
        self.cancelled_error = tasks.CancelledError
        self.iterator = tasks.iterator
        self.opcodes = tasks.OPCODES
        self.new_deque = tasks.deque
        self.decoded_at_once = PY_SSIZE_T_MAX
        self.inbox = NO_MESSAGES
        self.workers = NO_WORKERS

    def open(self, on_open):
        if on_open is None:
            self.opened = True
            return
        cdef Worker worker = Worker.__new__(Worker, self, self.context, self.iterator(on_open()))
        self.opening = worker
        task = self.start_worker(self.loop, worker, self.context)
        if task.done():
            self.retrieve(task)
        else:
            worker.task = task
            self.join(task)

    def deliver(self, list messages):
        cdef Py_ssize_t at
        if self.inbox is not NO_MESSAGES or self.running:
            self.put(messages)
            return
        at = self.hand_out(messages)
        came_meanwhile = self.inbox
        if came_meanwhile is not NO_MESSAGES:  # a handler has run the loop
            self.inbox = NO_MESSAGES
            self.waiting_bytes = 0
        if at < len(messages) and not self.stopped:
            self.put(messages[at:])
        if came_meanwhile is not NO_MESSAGES:
            self.put(came_meanwhile)
            self.drain_soon()

    def resume(self, message):
        self.decoding = False
        if message is not None and not self.stopped:
            self.hand_out([message])
        self.drain()

    def drain(self):
        cdef Py_ssize_t at, size
        self.draining = False
        while self.inbox is not NO_MESSAGES and not (self.running or self.is_blocked()):
            inbox = self.inbox
            size = min(<Py_ssize_t>len(inbox), <Py_ssize_t>DRAINED)
            messages = [inbox.popleft() for _ in range(size)]
            at = self.hand_out(messages)
            if self.stopped:
                return
            for message in messages[:at]:
                self.waiting_bytes -= len(<bytes>message[1])
            inbox.extendleft(reversed(messages[at:]))
            if not inbox:
                self.inbox = NO_MESSAGES
        self.tell_of_room()

    def stop(self):
        cdef Py_ssize_t dropped = len(self.inbox)
        if self.stopped:
            return 0
        self.stopped = True
        self.inbox = NO_MESSAGES
        self.waiting_bytes = 0
        idle, self.idle = self.idle, None
        if idle is not None:
            self.loop.call_soon(idle.end)
        if dropped:
            self.tell_of_room()
        return dropped

    def forget(self):
        self.owner = self.hot = self.handle = self.decode = None

    cdef int lose(self, Worker worker) except -1:
        """The worker's task has ended, or is about to."""
        if self.idle is worker:
            self.idle = None
        if self.workers is not NO_WORKERS:
            (<set>self.workers).discard(worker.task)
        worker.task = None  # which holds on to the worker: without the cycle both are freed at once
        if self.opening is worker:
            self.opening = None
            self.opened = True
        if self.inbox is not NO_MESSAGES:
            self.drain_soon()
        return 0

    cdef int drain_soon(self) except -1:
        if not self.draining:
            self.draining = True
            self.loop.call_soon(self.owner.drain_inbox)
        return 0

    cdef inline bint is_blocked(self) except -1:
        """Whether a message has to wait."""
        return not self.opened or self.decoding or (self.idle is None and len(self.workers) >= self.limit)

    cdef Py_ssize_t hand_out(self, list messages) except -1:
        """Starts handlers until a message has to wait; where to go on."""
        cdef Worker worker
        cdef Py_ssize_t at = 0
        while at < len(messages) and not (self.stopped or self.is_blocked()):
            worker, self.idle = self.idle, None
            if worker is None:
                worker = self.new_worker()
            elif not duck_same_variables(worker.context, self.context):  # since it has copied that of the connection
                worker.end()
                worker = self.new_worker()
            at = self.run(worker, messages, at)
        return at

    cdef Py_ssize_t run(self, Worker worker, list messages, Py_ssize_t at) except -1:
        """Hands messages to handlers in a worker's task, while that can serve another; where to go on."""
        cdef tuple message
        task = worker.task
        cdef PyObject *bare = <PyObject *>task
        cdef PyObject **weak_references = PyObject_GET_WEAKREFS_LISTPTR(bare)
        self.running = True
        self.enter_task(self.loop, task)
        PyContext_Enter(worker.context)
        if worker.references == 0:
            worker.references = Py_REFCNT(bare)
            worker.weak_references = weak_references[0]
        elif Py_REFCNT(bare) != worker.references or weak_references[0] != worker.weak_references:
            worker.kept = True
        try:
            while at < len(messages) and not self.stopped:
                message = <tuple>messages[at]
                at += 1
                if self.encoded and <int>message[0] & self.encoded:
                    message = self.decoded(message)
                    if message is None:
                        break
                if self.hot is not None:
                    self.hot.renew_share()
                worker.start(message)
                if worker.state == WAITING:
                    break
                if (
                    worker.kept
                    or Py_REFCNT(bare) != worker.references
                    or weak_references[0] != worker.weak_references
                    or not duck_same_variables(worker.context, self.context)
                ):
                    worker.state = ENDED
                    break
                worker.state = IDLE
                worker.handler = worker.value = None
                if self.hot is not None and at < len(messages):
                    self.hot.flush_if_old()
        except BaseException as error:
            try:
                if worker.state != STARTING:
                    raise
                worker.fail(error)
            except BaseException:  # such as KeyboardInterrupt; a program that goes on with the loop may wait for the task
                worker.task = None
                self.loop.call_soon(worker.end)
                raise
        finally:
            self.running = False
            PyContext_Exit(worker.context)
            self.leave_task(self.loop, task)
        if worker.state == IDLE and not self.stopped:
            self.idle = worker
            return at
        if worker.state == WAITING:
            self.join(task)
        else:
            worker.task = None
        worker.end()
        return at

    cdef tuple decoded(self, tuple message):
        """The message as it was before extensions encoded it; None if it is not to be had, or not now."""
        if len(<bytes>message[1]) > self.decoded_at_once:
            self.decoding = True
            self.owner.decode_later(message)
            return None
        try:
            return <tuple?>self.decode(message[0], message[1])
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.owner.refuse(error)
            return None

    cdef Worker new_worker(self):
        cdef Worker worker
        context = self.context.copy()
        worker = Worker.__new__(Worker, self, context, None)
        worker.task = self.start_worker(self.loop, worker, context)
        return worker

    cdef int join(self, task) except -1:
        """The task has a handler that waits."""
        if self.workers is NO_WORKERS:
            self.workers = set()
        (<set>self.workers).add(task)
        return 0

    cdef int put(self, messages) except -1:
        """Lets messages wait."""
        if self.inbox is NO_MESSAGES:
            self.inbox = self.new_deque()
        self.inbox.extend(messages)
        for message in messages:
            self.waiting_bytes += len(<bytes>message[1])
        if not self.full and (
            len(self.inbox) > self.most_waiting or self.waiting_bytes > self.most_waiting_bytes
        ):
            self.full = True
            self.owner.hold_inbox()
        return 0

    cdef int tell_of_room(self) except -1:
        if (
            self.full
            and len(self.inbox) <= self.most_waiting // 2
            and self.waiting_bytes <= self.most_waiting_bytes // 2
        ):
            self.full = False
            self.owner.release_inbox()
        if self.inbox is NO_MESSAGES and not self.decoding:
            self.owner.inbox_emptied()
        return 0

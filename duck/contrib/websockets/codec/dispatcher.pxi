# The delivery of messages to handlers: part of _speedups.pyx. `dispatcher.py` is its specification.


cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    Py_ssize_t Py_REFCNT(PyObject *value)
    PyObject **PyObject_GET_WEAKREFS_LISTPTR(PyObject *value)
    PyObject *PyDict_SetDefault(dict values, object key, object value) except NULL
    int PyDict_DelItem(dict values, object key) except -1


cdef extern from "_context.h":
    int duck_find_map() except -1
    bint duck_same_variables(object context, object other)


from collections import deque as _deque

duck_find_map()

cdef object NO_WORKERS = frozenset()
cdef tuple NO_MESSAGES = ()


cdef class HotPath


cdef class _Tasks:
    """The attributes of the `tasks` of dispatchers, looked up once for all of them."""

    cdef object source
    cdef object start_worker
    cdef object enter_task
    cdef object leave_task
    cdef dict current_tasks  # asyncio's, with the current task of each loop; None if only the two functions work
    cdef object cancel_again
    cdef object retrieve
    cdef object cancelled_error
    cdef object iterator
    cdef tuple opcodes

    def __cinit__(self, source):
        self.source = source
        self.start_worker = source.start_worker
        self.enter_task = source.enter_task
        self.leave_task = source.leave_task
        self.current_tasks = source.current_tasks
        self.cancel_again = source.cancel_again
        self.retrieve = source.retrieve
        self.cancelled_error = source.CancelledError
        self.iterator = source.iterator
        self.opcodes = source.OPCODES


cdef _Tasks last_tasks = None


cdef _Tasks tasks_of(source):
    global last_tasks
    if last_tasks is None or last_tasks.source is not source:
        last_tasks = _Tasks.__new__(_Tasks, source)
    return last_tasks


@cython.final
cdef class Dispatcher:
    cdef object owner
    cdef HotPath hot  # the same object, if it is a HotPath
    cdef object handle
    cdef _Tasks tasks
    cdef dict current_tasks  # its attribute, which each message needs
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
    cdef readonly object waiting
    cdef readonly object workers

    def __init__(self, owner, loop, context, handle, Py_ssize_t limit, tuple most_waiting, tasks):
        self.owner = owner
        self.hot = owner if isinstance(owner, HotPath) else None
        self.loop = loop
        self.context = context
        self.handle = handle
        self.limit = limit
        self.most_waiting, self.most_waiting_bytes = most_waiting
        self.tasks = tasks_of(tasks)
        self.current_tasks = self.tasks.current_tasks
        self.decoded_at_once = PY_SSIZE_T_MAX
        self.waiting = NO_MESSAGES
        self.workers = NO_WORKERS

    def open(self, on_open):
        if on_open is None:
            self.opened = True
            return
        cdef Worker worker = Worker.__new__(Worker, self, self.context, self.tasks.iterator(on_open()))
        self.opening = worker
        task = self.tasks.start_worker(self.loop, worker, self.context)
        if task.done():
            self.tasks.retrieve(task)
        else:
            worker.task = task
            self.join(task)

    cpdef deliver(self, list messages):
        cdef Py_ssize_t at
        if self.waiting is not NO_MESSAGES or self.running:
            self.put(messages)
            return
        at = self.dispatch(messages)
        arrived = self.waiting
        if arrived is not NO_MESSAGES:  # a handler has run the loop
            self.waiting = NO_MESSAGES
            self.waiting_bytes = 0
        if at < len(messages) and not self.stopped:
            self.put(messages[at:])
        if arrived is not NO_MESSAGES:
            self.put(arrived)
            self.drain_soon()

    cdef inline bint is_ready(self) noexcept:
        """Whether the idle worker can handle a message at once."""
        return (
            self.idle is not None
            and self.waiting is NO_MESSAGES
            and self.opened
            and not (self.running or self.stopped or self.decoding)
            and duck_same_variables(self.idle.context, self.context)
        )

    cdef int take_one(self, int opcode, bytes payload) except -1:
        """`deliver` of one plain message, while the dispatcher is ready."""
        cdef Worker worker
        worker, self.idle = self.idle, None
        self.run(worker, None, 0, opcode, payload)
        if self.waiting is not NO_MESSAGES:  # a handler has run the loop
            self.drain_soon()
        return 0

    def resume(self, message):
        self.decoding = False
        if message is not None and not self.stopped:
            self.dispatch([message])
        self.drain()

    def drain(self):
        cdef Py_ssize_t at, size
        self.draining = False
        while self.waiting is not NO_MESSAGES and not (self.running or self.is_blocked()):
            waiting = self.waiting
            size = min(<Py_ssize_t>len(waiting), <Py_ssize_t>WAITING_BATCH)
            messages = [waiting.popleft() for _ in range(size)]
            at = self.dispatch(messages)
            if self.stopped:
                break
            for message in messages[:at]:
                self.waiting_bytes -= len(<bytes>message[1])
            waiting.extendleft(reversed(messages[at:]))
            if not waiting:
                self.waiting = NO_MESSAGES
        self.report_room()

    def stop(self):
        cdef Py_ssize_t dropped = len(self.waiting)
        if self.stopped:
            return 0
        self.stopped = True
        self.waiting = NO_MESSAGES
        self.waiting_bytes = 0
        idle, self.idle = self.idle, None
        if idle is not None:
            self.loop.call_soon(idle.end)
        if dropped:
            self.report_room()
        return dropped

    def forget(self):
        self.owner = self.hot = self.handle = self.decode = None

    cdef int release(self, Worker worker) except -1:
        """Releases a worker whose task has ended or is about to."""
        if worker.started != 0 and self.hot is not None and self.hot.counters is not None:
            self.hot.counters.add_handlers(worker.started, 1, 0)
            worker.started = 0
        if self.idle is worker:
            self.idle = None
        if self.workers is not NO_WORKERS:
            (<set>self.workers).discard(worker.task)
        worker.task = None  # the task refers to the worker: without the cycle both are freed at once
        if self.opening is worker:
            self.opening = None
            self.opened = True
        if self.waiting is not NO_MESSAGES:
            self.drain_soon()
        return 0

    cdef int drain_soon(self) except -1:
        if not self.draining:
            self.draining = True
            self.loop.call_soon(self.owner.drain_waiting)
        return 0

    cdef inline bint is_blocked(self) except -1:
        """Whether a message has to wait."""
        return not self.opened or self.decoding or (self.idle is None and len(self.workers) >= self.limit)

    cdef Py_ssize_t dispatch(self, list messages) except -1:
        """Starts handlers until a message has to wait; returns the index of the next message."""
        cdef Worker worker
        cdef Py_ssize_t at = 0
        while at < len(messages) and not (self.stopped or self.is_blocked()):
            worker, self.idle = self.idle, None
            if worker is None:
                worker = self.new_worker()
            elif not duck_same_variables(worker.context, self.context):  # the connection's may have changed since
                worker.end()
                worker = self.new_worker()
            at = self.run(worker, messages, at, 0, None)
        return at

    cdef Py_ssize_t run(self, Worker worker, list messages, Py_ssize_t at, int opcode, bytes payload) except -1:
        """Runs handlers in a worker's task while it can be reused; returns the index of the next message.

        Without a list, `opcode` and `payload` are the only message.
        """
        cdef tuple message
        cdef Py_ssize_t end = 1 if messages is None else len(messages)
        cdef Counters counters = None if self.hot is None else self.hot.counters
        cdef double started = 0 if counters is None else duck_seconds()
        cdef Py_ssize_t ended = 0  # handlers since then
        task = worker.task
        cdef PyObject *bare = <PyObject *>task
        cdef PyObject **weak_references = PyObject_GET_WEAKREFS_LISTPTR(bare)
        cdef Py_ssize_t context_references  # a kept token is one
        self.running = True
        self.enter(task)
        PyContext_Enter(worker.context)
        context_references = Py_REFCNT(<PyObject *>worker.context)
        if worker.references == 0:
            worker.references = Py_REFCNT(bare)
            worker.weak_references = weak_references[0]
        elif Py_REFCNT(bare) != worker.references or weak_references[0] != worker.weak_references:
            worker.observed = True
        try:
            while at < end and not self.stopped:
                if messages is not None:
                    message = <tuple>messages[at]
                    opcode = <int>message[0]
                    payload = <bytes>message[1]
                at += 1
                if opcode & self.encoded:
                    if counters is not None and ended:
                        counters.add_handlers(started, ended, 0)
                        ended = 0
                    message = self.decoded(message)
                    if message is None:
                        break
                    opcode = <int>message[0]
                    payload = <bytes>message[1]
                    if counters is not None:
                        started = duck_seconds()
                if self.hot is not None:
                    self.hot.renew_share()
                worker.start(opcode, payload)
                if worker.state == WAITING:
                    if counters is not None:
                        worker.started = counters.add_handlers(started, ended, 1)
                        ended = 0
                    break
                ended += 1
                if (
                    worker.observed
                    or Py_REFCNT(bare) != worker.references
                    or weak_references[0] != worker.weak_references
                    or Py_REFCNT(<PyObject *>worker.context) != context_references
                    or not duck_same_variables(worker.context, self.context)
                ):
                    worker.state = ENDED
                    break
                worker.state = IDLE
                worker.handler = None
                if worker.value is not None:
                    worker.value = None
                if self.hot is not None and at < end:
                    self.hot.flush_if_old()
        except BaseException as error:
            try:
                if worker.state != STARTING:
                    raise
                ended += 1
                worker.fail(error)
            except BaseException:  # such as KeyboardInterrupt; the program may run the loop again, and await the task
                worker.task = None
                self.loop.call_soon(worker.end)
                raise
        finally:
            if counters is not None and ended:
                counters.add_handlers(started, ended, 0)
            self.running = False
            PyContext_Exit(worker.context)
            self.leave(task)
        if worker.state == IDLE and not self.stopped:
            self.idle = worker
            return at
        if worker.state == WAITING:
            self.join(task)
        else:
            worker.task = None
        worker.end()
        return at

    cdef inline int enter(self, task) except -1:
        """Makes a task the current one of the loop. A call of asyncio's function would cost twice as much."""
        if self.current_tasks is None or PyDict_SetDefault(self.current_tasks, self.loop, task) != <PyObject *>task:
            self.tasks.enter_task(self.loop, task)
        return 0

    cdef inline int leave(self, task) except -1:
        if self.current_tasks is None:
            self.tasks.leave_task(self.loop, task)
        else:
            PyDict_DelItem(self.current_tasks, self.loop)
        return 0

    cdef tuple decoded(self, tuple message):
        """Returns the decoded message; None if a thread decodes it, or if it cannot be decoded."""
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
        worker.task = self.tasks.start_worker(self.loop, worker, context)
        return worker

    cdef int join(self, task) except -1:
        """Registers a task whose handler waits."""
        if self.workers is NO_WORKERS:
            self.workers = set()
        (<set>self.workers).add(task)
        return 0

    cdef int put(self, messages) except -1:
        """Appends messages to those that wait."""
        if self.waiting is NO_MESSAGES:
            self.waiting = _deque()
        self.waiting.extend(messages)
        for message in messages:
            self.waiting_bytes += len(<bytes>message[1])
        if self.hot is not None and self.hot.counters is not None:
            self.hot.counters.note_waiting(len(self.waiting), self.waiting_bytes)
        if not self.full and (
            len(self.waiting) > self.most_waiting or self.waiting_bytes > self.most_waiting_bytes
        ):
            self.full = True
            self.owner.hold_reading()
        return 0

    cdef int report_room(self) except -1:
        if (
            self.full
            and len(self.waiting) <= self.most_waiting // 2
            and self.waiting_bytes <= self.most_waiting_bytes // 2
        ):
            self.full = False
            self.owner.release_reading()
        if self.waiting is NO_MESSAGES and not self.decoding:
            self.owner.none_waits()
        return 0

# The hot path: part of _speedups.pyx. `_fallback_hotpath.py` is its specification.


cdef extern from "Python.h":
    int iterator_send "PyIter_Send" (object iterator, PyObject *value, PyObject **result) except -1
    bint PyCoro_CheckExact(object value)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    unsigned long PyThread_get_thread_ident() noexcept


cdef extern from "_socket.h":
    struct iovec:
        void *iov_base
        size_t iov_len

    Py_ssize_t duck_send(int fd, iovec *pieces, int n) noexcept


cdef enum:
    NEXT = 1  # PYGEN_NEXT: the iterator has yielded
    PIECES = 64  # DUCK_PIECES
    RSV1 = 0x40  # in an opcode: the message is compressed
    PORTION = 20480  # bytes decoded at a time, so that the peer has the first replies while the rest is decoded
    QUARTER = 128  # bytes of a read that are worth a write of their own
    CORK_LIMIT = 16384  # bytes gathered at most before they are written, so that the peer can begin on them


cdef class Sent:
    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        raise StopIteration

    def throw(self, error, value=None, traceback=None):
        raise error

    def close(self):
        pass


SENT = Sent()


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


cdef class ReceiveBuffer:
    cdef readonly bytearray data
    cdef readonly object window
    cdef void *last  # who has received last, for comparison alone: that may be gone

    def __cinit__(self, size):
        self.data = bytearray(size)
        self.window = memoryview(self.data)


cdef class HotPath:
    cdef public MessageReader reader
    cdef public FrameWriter writer
    cdef public object dispatcher  # a Dispatcher, or what a host has in its place
    cdef public ReceiveBuffer buffer
    cdef public object transport
    cdef public object sent
    cdef public bint alive
    cdef public bint corked
    cdef public bint lost
    cdef public bint direct_in
    cdef public bint direct_out
    cdef public bint writes_paused
    cdef public Py_ssize_t max_size
    cdef public object compress
    cdef public Py_ssize_t threshold
    cdef public object decode
    cdef public Py_ssize_t max_encoded
    cdef public unsigned long thread
    cdef public int fd
    cdef public bint queued

    def get_buffer(self, sizehint):
        cdef ReceiveBuffer buffer = self.buffer
        target = self.reader.get_buffer(buffer.data)
        return buffer.window if target is buffer.data else target

    def buffer_updated(self, Py_ssize_t nbytes):
        cdef MessageReader reader = self.reader
        cdef ReceiveBuffer buffer = self.buffer
        cdef Py_ssize_t at = 0, portion = PORTION
        # Among others, replies leave together. To the only one that sends they leave by quarters of a read, so that it
        # can go on meanwhile, and neither side waits for the other.
        cdef bint alone = buffer.last == <void *>self and self.fd >= 0
        buffer.last = <void *>self
        self.alive = True
        self.corked = True
        try:
            if reader.direct:
                self.take(reader.buffer_updated(buffer.data, nbytes))
            else:
                if alone:
                    portion = min(max(nbytes // 4, QUARTER), PORTION)
                while at < nbytes:
                    self.take(reader.read_part(buffer.data, at, min(nbytes - at, portion)))
                    at += portion
                    if alone:
                        self.flush()
        finally:
            self.corked = False
            self.flush()
        if self.writer.closed:
            self.move_on()

    cdef inline int take(self, list messages) except -1:
        cdef MessageReader reader = self.reader
        if reader.control or reader.error or self.writer.closed or not self.direct_in:
            self.received(messages)
        elif messages:
            if self.decode is None:
                self.dispatcher.deliver(messages)
            else:
                self.take_encoded(messages)
        return 0

    cdef int take_encoded(self, list messages) except -1:
        cdef Py_ssize_t at
        for message in messages:
            if <int>message[0] & RSV1 and len(<bytes>message[1]) > self.max_encoded:
                self.received(messages)
                return 0
        for at in range(len(messages)):
            message = messages[at]
            if <int>message[0] & RSV1:
                try:
                    messages[at] = self.decode(message[0], message[1])
                except Exception as error:
                    self.dispatcher.deliver(messages[:at])
                    self.refuse(error)
                    return 0
        self.dispatcher.deliver(messages)
        return 0

    def send(self, data, opcode):
        cdef const uint8_t *p = NULL
        cdef Py_ssize_t size = 0
        cdef int kind
        if self.direct_out and PyThread_get_thread_ident() == self.thread:
            kind = opcode
            if type(data) is bytes:
                p = <const uint8_t *>PyBytes_AS_STRING(<bytes>data)
                size = len(<bytes>data)
            elif type(data) is str:
                p = <const uint8_t *>PyUnicode_AsUTF8AndSize(data, &size)
            if p != NULL and 1 <= kind <= 2 and size <= self.max_size and not (self.writer.closed or self.writer.fragmenting):
                if self.compress is not None and size >= self.threshold:
                    payload = self.compress(data if type(data) is bytes else PyBytes_FromStringAndSize(<const char *>p, size))
                    self.writer.write(0xC0 | kind, payload)
                elif size >= LARGE and type(data) is bytes:
                    self.writer.write(0x80 | kind, data)
                else:
                    self.writer.append(0x80 | kind, p, size, False, 0)
                if not self.corked or self.writer.size > CORK_LIMIT:
                    self.flush()
                return self.until_writable() if self.writes_paused else self.sent
        return self.send_otherwise(data, opcode)

    def flush(self):
        cdef FrameWriter writer = self.writer
        cdef Py_ssize_t sent
        if writer.size == 0:
            return
        if self.lost:
            writer.take()
            return
        if self.fd >= 0 and self.queued:
            self.queued = self.transport.get_write_buffer_size() != 0
        if writer.chunks is None:
            data = writer.take_gathered()
            sent = self.write_past((data,))
            if sent < len(<bytes>data):
                self.queued = True
                self.transport.write(data[sent:] if sent else data)
        else:
            chunks = writer.take()
            sent = self.write_past(tuple(chunks))
            if sent:
                chunks = unsent(chunks, sent)
            if chunks:
                self.queued = True
                self.write_chunks(chunks)

    cdef Py_ssize_t write_past(self, tuple chunks) except -1:
        """Writes past the transport while that has nothing queued: now, and not in a later callback; how much went."""
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


cdef list unsent(list chunks, Py_ssize_t sent):
    """What is left of chunks of which so many bytes have gone."""
    cdef Py_ssize_t at = 0
    while at < len(chunks) and sent >= len(<bytes>chunks[at]):
        sent -= len(<bytes>chunks[at])
        at += 1
    rest = chunks[at:]
    if sent:
        rest[0] = memoryview(<bytes>rest[0])[sent:]
    return rest

# Messages that wait for tasks: part of _speedups.pyx. `inbox.py` is its specification.


cdef extern from *:
    """
    /* Sets StopIteration with a value, a str or bytes. A function that then raises a bare StopIteration leaves it set, and
       adds no traceback, which would cost more than the message. */
    static void duck_stop_with(PyObject *value) { PyErr_SetObject(PyExc_StopIteration, value); }
    """
    void duck_stop_with(PyObject *value) noexcept

cdef extern from "Python.h":
    int PyList_Reverse(list) except -1
    int PyList_SetSlice(list, Py_ssize_t, Py_ssize_t, PyObject *) except -1


cdef class Inbox


cdef class Turn:
    cdef Inbox inbox
    cdef object callback
    cdef object context
    cdef object error
    cdef bint woken
    cdef public object _asyncio_future_blocking

    def __init__(self, Inbox inbox not None):
        self.inbox = inbox

    cdef int step(self) except -1:
        """Steps the task at once, if it waits."""
        callback, self.callback = self.callback, None
        if callback is None:
            self.woken = True
        elif self.inbox is not None:
            context = self.context
            PyContext_Enter(context)
            try:
                callback(self.inbox.done)
            finally:
                PyContext_Exit(context)
        return 0

    def wake(self):
        self.step()

    cpdef wake_soon(self):
        callback, self.callback = self.callback, None
        if callback is None:
            self.woken = True
        elif self.inbox is not None:
            self.inbox.loop.call_soon(callback, self.inbox.done, context=self.context)

    def fail(self, error):
        self.leave()
        self.error = error
        self.wake_soon()

    cdef int leave(self) except -1:
        if self.inbox is not None and self in self.inbox.turns:
            self.inbox.turns.remove(self)
        return 0

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef Inbox inbox = self.begun()
        if self._asyncio_future_blocking is None:
            return self.wait(inbox)
        self.inbox = None
        raise StopIteration

    cdef inline Inbox begun(self):
        """Returns the inbox, unless an error has to be raised."""
        inbox = self.inbox
        if inbox is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if self.error is not None:
            self.inbox = None
            raise self.error
        return inbox

    cdef inline object wait(self, Inbox inbox):
        inbox.turns.append(self)
        self._asyncio_future_blocking = True
        return self

    def send(self, value):
        return self.__next__()

    def throw(self, error, value=None, traceback=None):
        self.close()
        raise error

    def close(self):
        self.leave()
        self.inbox = self.callback = None

    def get_loop(self):
        return None if self.inbox is None else self.inbox.loop

    def add_done_callback(self, callback, *, context):
        self.callback = callback
        self.context = context
        if self.woken:
            self.woken = False
            self.wake_soon()

    def cancel(self, msg=None):
        if self.callback is None or self.inbox is None:
            return False
        new = self.inbox.cancelled_error
        self.fail(new() if msg is None else new(msg))
        return True


cdef class NextMessage(Turn):
    cdef readonly object timeout
    cdef readonly double deadline
    cdef object ends
    cdef object slow

    def __init__(self, Inbox inbox not None, timeout=None, ends=None):
        self.inbox = inbox
        self.timeout = timeout
        self.ends = ends

    def __next__(self):
        cdef tuple message
        cdef Inbox inbox
        if self.slow is not None:
            message = self.drive(self.slow.send, None)
        else:
            inbox = self.begun()
            message = inbox.take_next()
            if message is None:
                if not (inbox.messages or inbox.has_ended):
                    if self.timeout is not None and self.deadline == 0:
                        self.deadline = inbox.expire_in(self.timeout)
                    return self.wait(inbox)
                self.slow = inbox.get_slowly(self.timeout)
                message = self.drive(self.slow.send, None)
        if self.slow is not None:
            return message[0]
        self.inbox = None
        value = (<bytes>message[1]).decode() if message[0] == 1 else message[1]
        duck_stop_with(<PyObject *>value)
        raise StopIteration

    cdef tuple drive(self, step, value):
        """Drives the coroutine that waits for a thread; returns the message, or what it yields in a tuple."""
        try:
            return (step(value),)
        except StopIteration as stop:
            self.slow = None
            return <tuple?>stop.value
        except BaseException as error:
            closed_class = self.inbox.closed_class
            self.inbox = self.slow = None
            if self.ends is not None and isinstance(error, closed_class) and self.ends(error):
                raise StopAsyncIteration from None
            raise

    def throw(self, error, value=None, traceback=None):
        cdef tuple message
        if self.slow is None:
            self.leave()
            self.inbox = self.callback = None
            raise error
        message = self.drive(self.slow.throw, error)
        if self.slow is not None:
            return message[0]
        self.inbox = None
        raise StopIteration((<bytes>message[1]).decode() if message[0] == 1 else message[1])

    def close(self):
        if self.slow is not None:
            self.slow.close()
            self.slow = None
        self.leave()
        self.inbox = self.callback = None


cdef class Inbox:
    cdef readonly object loop
    cdef readonly object done
    cdef readonly object cancelled_error
    cdef readonly object closed_class
    cdef public list messages
    cdef public list turns
    cdef public int encoded
    cdef public bint has_ended
    cdef public Py_ssize_t counted
    cdef public Py_ssize_t waiting_bytes
    cdef Py_ssize_t most
    cdef Py_ssize_t most_bytes
    cdef bint held

    def __init__(self, loop, Py_ssize_t most, Py_ssize_t most_bytes, done, cancelled_error, closed_class):
        self.loop = loop
        self.done = done
        self.most = most
        self.most_bytes = most_bytes
        self.cancelled_error = cancelled_error
        self.closed_class = closed_class
        self.messages = []
        self.turns = []

    def deliver(self, list messages not None):
        self.put(messages)

    cdef int put(self, list messages) except -1:
        cdef list turns = self.turns
        cdef Py_ssize_t waiting = len(turns)
        cdef Turn turn
        PyList_Reverse(messages)
        if self.messages:
            messages.extend(self.messages)
        self.messages = messages
        while waiting and turns and self.messages:
            waiting -= 1
            turn = <Turn>turns[0]
            PyList_SetSlice(turns, 0, 1, NULL)
            turn.step()
        if self.messages:
            self.count()
        return 0

    def take(self):
        return self.take_next()

    cdef inline tuple take_next(self):
        cdef tuple taken
        if not self.messages:
            return None
        taken = <tuple>self.messages[len(self.messages) - 1]
        if self.encoded and <int>taken[0] & self.encoded:
            taken = self.take_encoded(taken)
        else:
            self.remove_next()
        return taken

    def pop(self):
        self.remove_next()

    cdef inline int remove_next(self) except -1:
        cdef tuple message = <tuple>self.messages.pop()
        if self.counted:
            self.counted -= 1
            self.waiting_bytes -= len(<bytes>message[1])
            if (
                self.held
                and self.counted <= self.most // 2
                and self.waiting_bytes <= self.most_bytes // 2
            ):
                self.held = False
                self.release_reading()
        return 0

    cpdef count(self):
        cdef list messages = self.messages
        cdef Py_ssize_t at
        for at in range(len(messages) - self.counted):
            self.waiting_bytes += len(<bytes>(<tuple>messages[at])[1])
        self.counted = len(messages)
        if not self.held and (self.counted > self.most or self.waiting_bytes > self.most_bytes):
            self.held = True
            self.hold_reading()

# Queues of received messages and of waiting tasks: part of _speedups.pyx. `inbox.py` is its specification.


cdef extern from "_stop.h":
    object duck_new_stop()
    bint duck_is_unused(PyObject *stop) noexcept
    void duck_stop_with(PyObject *stop, PyObject *value) noexcept
    void duck_clear_stop(PyObject *stop) noexcept

cdef extern from *:
    """
    /* Removes the first item of a list that is not empty, and keeps the list's memory for the next one. */
    static void duck_remove_first(PyObject *list)
    {
        PyObject **items = ((PyListObject *)list)->ob_item, *first = items[0];
        Py_ssize_t left = PyList_GET_SIZE(list) - 1;
        memmove(items, items + 1, left * sizeof *items);
        Py_SET_SIZE(list, left);
        Py_DECREF(first);
    }
    """
    void duck_remove_first(list) noexcept

cdef extern from "Python.h":
    int PyList_Reverse(list) except -1


cdef class Inbox


cdef class NextMessage(Waiter):
    cdef Inbox inbox
    cdef readonly object timeout
    cdef readonly double deadline
    cdef object ends
    cdef object slow

    def __init__(self, Inbox inbox not None, timeout=None, ends=None):
        self.begin(inbox, timeout, ends)

    cdef inline int begin(self, Inbox inbox, timeout, ends) except -1:
        self.loop = inbox.loop
        self.queue = inbox.waiters
        self.inbox = inbox
        self.timeout = timeout
        self.deadline = 0
        self.ends = ends
        return 0

    cdef inline int finish(self) except -1:
        """Ends the awaitable, and leaves it to the inbox for another `next`."""
        cdef Inbox inbox = self.inbox
        self.inbox = None
        self.queue = self.future = self.callback = self.context = self.timeout = self.ends = None
        inbox.older, inbox.newer = inbox.newer, self
        return 0

    def __next__(self):
        cdef Inbox inbox = self.inbox
        cdef tuple message
        cdef bytes payload
        cdef int opcode
        self.begun()
        if inbox.payload is not None and self.slow is None:
            opcode = inbox.opcode
            payload, inbox.payload = inbox.payload, None
        else:
            message = self.next_step(inbox)
            if message is None:
                return self.wait()
            if self.slow is not None:
                return message[0]
            opcode = <int>message[0]
            payload = <bytes>message[1]
        value = payload.decode() if opcode == 1 else payload
        self.finish()
        # A bare StopIteration leaves this one set, and adds no traceback, which would cost more than the message.
        inbox.renew_stop()
        duck_stop_with(<PyObject *>inbox.stop, <PyObject *>value)
        raise StopIteration

    cdef tuple next_step(self, Inbox inbox):
        """Returns the message; None to wait for one; with `slow` set, a tuple of the future to wait for."""
        cdef tuple message
        if self.slow is None:
            self.future = None
            message = inbox.take_next()
            if message is not None:
                return message
            if not (inbox.messages or inbox.has_ended):
                if self.timeout is not None and self.deadline == 0:
                    self.deadline = inbox.expire_in(self.timeout)
                return None
            self.slow = inbox.get_slowly(self.timeout, self.deadline)
        return self.drive(self.slow.send, None)

    cdef tuple drive(self, step, value):
        """Steps the coroutine that waits for a thread; returns the message, or a tuple of the future that it yields."""
        try:
            return (step(value),)
        except StopIteration as stop:
            self.slow = None
            return <tuple?>stop.value
        except BaseException as error:
            self.queue = self.slow = None
            if self.ends is not None and isinstance(error, self.inbox.closed_class) and self.ends(error):
                raise StopAsyncIteration from None
            raise

    cdef object resolved(self, future):
        self.future = None
        self.inbox.spare = future
        return self.inbox.done

    cdef int stepped(self, list waiters, future, callback, context) except -1:
        # The task most likely waits again. Its waiter then has the callback, and only checks it when it is woken.
        cdef Waiter last
        if waiters:
            last = <Waiter>waiters[len(waiters) - 1]
            if last.future is future:
                last.callback = callback
                last.context = context
        return 0

    cdef object new_future(self):
        future, self.inbox.spare = self.inbox.spare, None
        return self.loop.create_future() if future is None else future

    def throw(self, error, value=None, traceback=None):
        cdef tuple message
        if self.slow is None:
            self.leave()
            self.queue = self.future = self.callback = self.context = None
            raise error
        message = self.drive(self.slow.throw, error)
        if self.slow is not None:
            return message[0]
        self.queue = None
        raise StopIteration((<bytes>message[1]).decode() if <int>message[0] == 1 else message[1])

    def close(self):
        if self.slow is not None:
            self.slow.close()
            self.slow = None
        self.leave()
        self.queue = self.future = self.callback = self.context = None


cdef class Inbox:
    cdef readonly object loop
    cdef readonly object done
    cdef readonly object closed_class
    cdef public list messages
    cdef public list waiters
    cdef public int encoded
    cdef public bint has_ended
    cdef public Py_ssize_t counted
    cdef public Py_ssize_t waiting_bytes
    cdef Py_ssize_t most
    cdef Py_ssize_t most_bytes
    cdef public object spare
    cdef bytes payload  # of a message that is being delivered without a list; else None
    cdef int opcode
    # The last two completed awaitables. The newer one often wakes the task that calls `next`, so it is still in use.
    cdef NextMessage older
    cdef NextMessage newer
    cdef object stop
    cdef bint held

    def __cinit__(self, *args, **kwargs):
        self.stop = duck_new_stop()

    def __init__(self, loop, Py_ssize_t most, Py_ssize_t most_bytes, done, closed_class):
        self.loop = loop
        self.done = done
        self.most = most
        self.most_bytes = most_bytes
        self.closed_class = closed_class
        self.messages = []
        self.waiters = []

    def next(self, timeout=None, ends=None):
        cdef NextMessage message = self.older
        self.older = None
        if message is None or Py_REFCNT(<PyObject *>message) != 1:  # none, or the program keeps it
            message = NextMessage.__new__(NextMessage)
        message.begin(self, timeout, ends)
        return message

    def deliver(self, list messages not None):
        self.put(messages)

    cdef inline bint is_ready(self) noexcept:
        """Whether a task waits for the next message."""
        return len(self.waiters) != 0 and len(self.messages) == 0 and self.payload is None

    cdef int take_one(self, int opcode, bytes payload) except -1:
        """`put` of one plain message, while the inbox is ready."""
        cdef Waiter waiter = <Waiter>self.waiters[0]
        self.opcode = opcode
        self.payload = payload
        duck_remove_first(self.waiters)
        try:
            waiter.step()
        finally:
            if self.payload is not None:  # the task has been cancelled, or will get the message in a later step
                self.messages.append(self.take_payload())
        if self.messages:
            self.put([])
        else:
            self.renew_stop()
            duck_clear_stop(<PyObject *>self.stop)
        return 0

    cdef inline tuple take_payload(self):
        payload, self.payload = self.payload, None
        return self.opcode, payload

    cdef int put(self, list messages) except -1:
        cdef list waiters = self.waiters
        cdef Py_ssize_t waiting = len(waiters)
        cdef Waiter waiter
        PyList_Reverse(messages)
        if self.messages:
            messages.extend(self.messages)
        self.messages = messages
        while waiting and waiters and self.messages:
            waiting -= 1
            waiter = <Waiter>waiters[0]
            duck_remove_first(waiters)
            waiter.step()
        self.renew_stop()
        duck_clear_stop(<PyObject *>self.stop)
        if self.messages:
            self.count()
        return 0

    cdef inline int renew_stop(self) except -1:
        """Creates a new StopIteration for completed awaitables, if the last one is still in use."""
        if not duck_is_unused(<PyObject *>self.stop):
            self.stop = duck_new_stop()
        return 0

    def take(self):
        return self.take_next()

    cdef inline tuple take_next(self):
        cdef tuple taken
        if self.payload is not None:
            return self.take_payload()
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

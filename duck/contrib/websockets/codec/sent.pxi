# The result of `send` when there is nothing to wait for: part of _speedups.pyx. `sent.py` is its specification.


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


cdef Sent all_sent = Sent()
SENT = all_sent

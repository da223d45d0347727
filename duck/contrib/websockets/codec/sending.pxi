# The method `send` of views and clients: part of _speedups.pyx. `sending.py` is its specification.

cdef extern from "Python.h":
    ctypedef struct PyMethodDef:
        const char *ml_doc

    ctypedef struct PyMemberDef:
        Py_ssize_t offset

    ctypedef struct PyMethodDescrObject:
        PyMethodDef *d_method

    ctypedef struct PyMemberDescrObject:
        PyMemberDef *d_member

    ctypedef struct BareObject "PyObject":
        pass

    PyTypeObject PyMemberDescr_Type
    object PyDescr_NewMethod(PyTypeObject *, PyMethodDef *)

# For each class its method in Python, and what its method in C refers to.
cdef dict sending_classes = {}


cdef class _Sends:
    """Lends its method to classes whose objects have the slot `_protocol` first; `self` is one of them."""

    @cython.binding(False)
    def send(self, data, opcode=1):
        cdef PyObject *protocol = (<PyObject **>(<char *><PyObject *>self + sizeof(BareObject)))[0]
        if protocol != NULL and isinstance(<object>protocol, HotPath):
            return (<HotPath>protocol).put(data, opcode)
        for cls in type(<object><PyObject *>self).__mro__:
            if cls in sending_classes:
                return sending_classes[cls][0](self, data, opcode)


def sending(type cls):
    """See `sending` in sending.py.

    The interpreter calls a method descriptor as fast as a function in Python, but needs a look-up for any other method.
    A base class in C would cost more, because its objects would have no values in line (Python 3.12).
    """
    cdef PyMethodDef definition = (<PyMethodDescrObject *>_Sends.__dict__["send"]).d_method[0]
    method, slot = cls.__dict__["send"], cls.__dict__.get("_protocol")
    if type(slot) is not <type><object>&PyMemberDescr_Type or (
        (<PyMemberDescrObject *>slot).d_member.offset != sizeof(BareObject)
    ):
        return method
    doc = f"send($self, data, opcode=1)\n--\n\n{method.__doc__}".encode()
    definition.ml_doc = PyBytes_AS_STRING(doc)
    kept = PyBytes_FromStringAndSize(<char *>&definition, sizeof(PyMethodDef))
    sending_classes[cls] = method, doc, kept
    return PyDescr_NewMethod(<PyTypeObject *>cls, <PyMethodDef *>PyBytes_AS_STRING(kept))

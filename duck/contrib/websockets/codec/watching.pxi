# Detection of changed attributes of a view and of its class: part of _speedups.pyx. `watching.py` is its specification.

cdef extern from "Python.h":
    int METH_FASTCALL

    ctypedef struct PyTypeObject:
        unsigned int tp_version_tag

    ctypedef struct PyMethodDef:
        const char *ml_name
        void *ml_meth
        int ml_flags
        const char *ml_doc

    PyTypeObject PyBaseObject_Type
    int PyObject_GenericSetAttr(object, object, PyObject *) except -1
    object PyDescr_NewMethod(PyTypeObject *, PyMethodDef *)

cdef frozenset watched_names = frozenset()
cdef PyMethodDef watched_method = PyMethodDef(
    "__setattr__", <void *>watched_setattr, METH_FASTCALL, "__setattr__($self, name, value, /)\n--\n\n"
)


cdef object watched_setattr(object self, PyObject **arguments, Py_ssize_t number):
    if number != 2:
        raise TypeError(f"__setattr__ takes a name and a value, not {number} arguments")
    if <object>arguments[0] in watched_names:
        self._watch(<object>arguments[0], <object>arguments[1])
    PyObject_GenericSetAttr(self, <object>arguments[0], arguments[1])


def watching(frozenset names):
    """See `watching` in watching.py.

    An assignment costs a quarter of one by a function in Python. A C function in the slot of the class would save 40 ns
    more, but Python then rejects `object.__setattr__` for its objects.
    """
    global watched_names
    watched_names = names
    return PyDescr_NewMethod(&PyBaseObject_Type, &watched_method), object.__delattr__


def type_version(cls):
    """See `type_version` in watching.py. The number is the tag of the class in the interpreter's attribute cache."""
    if not isinstance(cls, type):  # a parameter of that type would refuse the classes of a metaclass, such as ABCMeta
        raise TypeError(f"{cls!r} is not a class")
    return (<PyTypeObject *>cls).tp_version_tag

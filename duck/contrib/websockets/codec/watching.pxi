# Detection of changed attributes of a view and of its class: part of _speedups.pyx. `watching.py` is its specification.

cdef extern from "Python.h":
    ctypedef int (*setattrofunc)(PyObject *, PyObject *, PyObject *) except -1

    struct wrapperbase:
        pass

    ctypedef struct PyWrapperDescrObject:
        wrapperbase *d_base

    ctypedef struct PyTypeObject:
        unsigned int tp_version_tag

    PyTypeObject PyBaseObject_Type
    int PyObject_GenericSetAttr(object, object, PyObject *) except -1
    object PyDescr_NewWrapper(PyTypeObject *, wrapperbase *, void *)

cdef frozenset watched_names = frozenset()


cdef int watched_setattro(PyObject *self, PyObject *name, PyObject *value) except -1:
    if value is not NULL and <object>name in watched_names:
        (<object>self)._watch(<object>name, <object>value)
    return PyObject_GenericSetAttr(<object>self, <object>name, value)


def watching(frozenset names):
    """See `watching` in watching.py.

    As with the interpreter's own types, the slot of the class points to the same function as these methods. Therefore
    an assignment that is not watched costs only a look-up in a set. A Python function would cost seven times as much as
    the assignment itself.
    """
    global watched_names
    watched_names = names
    return wrapper(object.__setattr__), wrapper(object.__delattr__)


cdef object wrapper(method):
    """Returns a wrapper of `watched_setattro`. Both methods of a slot must be such wrappers for the slot to be used."""
    return PyDescr_NewWrapper(&PyBaseObject_Type, (<PyWrapperDescrObject *>method).d_base, <void *>watched_setattro)


def type_version(type cls):
    """See `type_version` in watching.py. The number is the tag of the class in the interpreter's attribute cache."""
    return (<PyTypeObject *>cls).tp_version_tag

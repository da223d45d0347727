/* StopIteration with a value, for the end of an awaitable.

Python 3.12 and later create an object each time, which takes 750 instructions. Instead an inbox reuses one object,
unless other code still refers to it, or Python has added a traceback to it. */

#ifndef DUCK_STOP_H
#define DUCK_STOP_H

#include <Python.h>

#if PY_VERSION_HEX >= 0x030C0000

static inline PyObject *duck_new_stop(void) { return PyObject_CallNoArgs(PyExc_StopIteration); }

/* Returns whether no other code refers to the object, and it has no data of an earlier use. */
static inline int duck_is_unused(PyObject *stop)
{
    PyStopIterationObject *inner = (PyStopIterationObject *)stop;
    return Py_REFCNT(stop) == 1 && inner->traceback == NULL && inner->context == NULL && inner->cause == NULL &&
           inner->dict == NULL && inner->notes == NULL;
}

/* Raises the object with a value. */
static inline void duck_stop_with(PyObject *stop, PyObject *value)
{
    Py_XSETREF(((PyStopIterationObject *)stop)->value, Py_NewRef(value));
    PyErr_SetRaisedException(Py_NewRef(stop));
}

/* Releases the value. */
static inline void duck_clear_stop(PyObject *stop) { Py_CLEAR(((PyStopIterationObject *)stop)->value); }

#else

static inline PyObject *duck_new_stop(void) { return Py_NewRef(Py_None); }
static inline int duck_is_unused(PyObject *stop) { return 1; }
static inline void duck_stop_with(PyObject *stop, PyObject *value) { PyErr_SetObject(PyExc_StopIteration, value); }
static inline void duck_clear_stop(PyObject *stop) {}

#endif

#endif

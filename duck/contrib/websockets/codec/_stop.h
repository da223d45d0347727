/* StopIteration with a value, for the end of an awaitable.

Python 3.12 and later make an object for each, which takes 750 instructions. An object of the owner's is used again
instead, unless somebody has kept it, or Python has added a traceback to it. */

#ifndef DUCK_STOP_H
#define DUCK_STOP_H

#include <Python.h>

#if PY_VERSION_HEX >= 0x030C0000

static inline PyObject *duck_new_stop(void) { return PyObject_CallNoArgs(PyExc_StopIteration); }

/* Whether nobody else refers to it, and it has nothing of an earlier use. */
static inline int duck_is_unused(PyObject *stop)
{
    PyStopIterationObject *inner = (PyStopIterationObject *)stop;
    return Py_REFCNT(stop) == 1 && inner->traceback == NULL && inner->context == NULL && inner->cause == NULL &&
           inner->dict == NULL && inner->notes == NULL;
}

/* Raises it with a value. */
static inline void duck_stop_with(PyObject *stop, PyObject *value)
{
    Py_XSETREF(((PyStopIterationObject *)stop)->value, Py_NewRef(value));
    PyErr_SetRaisedException(Py_NewRef(stop));
}

/* Lets go of the value. */
static inline void duck_clear_stop(PyObject *stop) { Py_CLEAR(((PyStopIterationObject *)stop)->value); }

#else

static inline PyObject *duck_new_stop(void) { return Py_NewRef(Py_None); }
static inline int duck_is_unused(PyObject *stop) { return 1; }
static inline void duck_stop_with(PyObject *stop, PyObject *value) { PyErr_SetObject(PyExc_StopIteration, value); }
static inline void duck_clear_stop(PyObject *stop) {}

#endif

#endif

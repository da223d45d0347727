/* Detection of changed contexts.

A context keeps its variables in one immutable map, and each change replaces the map. A comparison of two pointers takes
a hundredth of the instructions of a new context for each message. CPython has no function for it, so the offset of the
pointer within the object is determined by experiment when the module is loaded. If it is not found, all contexts count
as changed. */

#ifndef DUCK_CONTEXT_H
#define DUCK_CONTEXT_H

#include <Python.h>

static Py_ssize_t duck_map_offset = 0;

static inline void *duck_word(PyObject *object, Py_ssize_t offset)
{
    void *word;
    memcpy(&word, (char *)object + offset, sizeof word);
    return word;
}

/* Returns a copy of a context, with a variable set in it. */
static PyObject *duck_context_with(PyObject *context, PyObject *variable, PyObject *value)
{
    PyObject *copy = PyContext_Copy(context), *token = NULL;
    if (copy == NULL || PyContext_Enter(copy) < 0) {
        Py_XDECREF(copy);
        return NULL;
    }
    token = PyContextVar_Set(variable, value);
    if (PyContext_Exit(copy) < 0 || token == NULL)
        Py_CLEAR(copy);
    Py_XDECREF(token);
    return copy;
}

static int duck_find_map(void)
{
    PyObject *variable = PyContextVar_New("duck", NULL), *empty = PyContext_New();
    PyObject *one = NULL, *same = NULL, *other = NULL;
    if (variable != NULL && empty != NULL && (one = duck_context_with(empty, variable, Py_True)) != NULL &&
        (same = PyContext_Copy(one)) != NULL && (other = duck_context_with(one, variable, Py_False)) != NULL) {
        /* The first match ends the search, before the uninitialized padding behind the last field. */
        for (Py_ssize_t at = sizeof(PyObject);
             !duck_map_offset && at + (Py_ssize_t)sizeof(void *) <= Py_TYPE(one)->tp_basicsize; at += sizeof(void *)) {
            void *map = duck_word(one, at);
            if (map != NULL && map == duck_word(same, at) && map != duck_word(other, at) && map != duck_word(empty, at))
                duck_map_offset = at;
        }
    }
    Py_XDECREF(variable);
    Py_XDECREF(empty);
    Py_XDECREF(one);
    Py_XDECREF(same);
    Py_XDECREF(other);
    return PyErr_Occurred() ? -1 : 0;
}

/* Returns whether two contexts, one a copy of the other, still have the same variables. */
static inline int duck_same_variables(PyObject *one, PyObject *other)
{
    return duck_map_offset && duck_word(one, duck_map_offset) == duck_word(other, duck_map_offset);
}

#endif

# cython: auto_pickle=False, language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The codec, compiled. `codec/pure.py` is its specification: same names, arguments, results and errors."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.list cimport PyList_Append
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_XDECREF
from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "Python.h":
    # For a new bytes object, to which no Python code refers yet.
    PyObject *new_bytes "PyBytes_FromStringAndSize" (const char *data, Py_ssize_t size) except NULL
    char *bytes_data "PyBytes_AS_STRING" (PyObject *value)
    Py_ssize_t bytes_size "PyBytes_GET_SIZE" (PyObject *value)
    int resize_bytes "_PyBytes_Resize" (PyObject **value, Py_ssize_t size) except -1


cdef extern from "_simd.h":
    ctypedef struct duck_tier:
        const char *name
        uint64_t (*mask)(uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask) noexcept nogil
        size_t (*ascii)(const uint8_t *p, size_t n) noexcept nogil

    const duck_tier *duck_tiers
    int duck_best_tier() noexcept
    uint32_t duck_rotate(uint32_t mask, size_t bytes) noexcept
    uint32_t duck_utf8(const duck_tier *tier, const uint8_t *p, size_t n, uint32_t state) noexcept
    uint32_t duck_mask_utf8(
        const duck_tier *tier, uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask, uint32_t state
    ) noexcept


include "codec/numbers.pxi"


def _tier_names():
    return tuple([duck_tiers[i].name.decode() for i in range(duck_best_tier() + 1)])


def _choose_tier():
    """Returns the best tier, or the one named by DUCK_SIMD, so that each can be tested on one machine."""
    from os import environ

    name = environ.get("DUCK_SIMD") or duck_tiers[duck_best_tier()].name.decode()
    if name not in SIMD_TIERS:
        words = f"DUCK_SIMD={name!r}: this machine has {', '.join(SIMD_TIERS)}; set it to one of them, or unset it"
        raise ImportError(words, name="DUCK_SIMD")
    return name


IMPLEMENTATION = "cython"
SIMD_TIERS = _tier_names()
SIMD_TIER = _choose_tier()

cdef const duck_tier *simd = &duck_tiers[<int>SIMD_TIERS.index(SIMD_TIER)]


include "codec/payload.pxi"
include "codec/header.pxi"
include "codec/counters.pxi"
include "codec/reader.pxi"
include "codec/writer.pxi"
include "codec/worker.pxi"
include "codec/dispatcher.pxi"
include "codec/waiter.pxi"
include "codec/inbox.pxi"
include "codec/burst.pxi"
include "codec/clock.pxi"
include "codec/deadline.pxi"
include "codec/sent.pxi"
include "codec/hotpath.pxi"
include "codec/watching.pxi"

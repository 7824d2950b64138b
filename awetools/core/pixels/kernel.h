/* What every kernel shares: arrays as buffers, checked once, so that no numpy header is needed to build.
 *
 * A kernel takes C-contiguous arrays of one type each and returns None or numbers; it is handed
 * its outputs. The caller (the Python function beside it) checks shapes and converts types.
 */
#ifndef AWETOOLS_KERNEL_H
#define AWETOOLS_KERNEL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The processors that the package is built for are old ones; newer ones run their own clone of a loop.
 * No clone may fuse multiplications and additions: see -ffp-contract=off in setup.py. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif

/* What a loop calls; a clone of the loop has a clone of it. */
#define INLINE static inline __attribute__((always_inline))

#define MAX_AXES 3

/* One array: take() fills it, release() lets it go. */
typedef struct {
    Py_buffer view;
    int held;
} Array;

/* Take an array argument. code: the struct code of its items ('f', 'd', 'h', 'H', 'B', '?', 'q' ...).
 * Returns 0, or -1 with an exception set. */
static inline int take(Array *array, PyObject *object, char code, int axes, int writable)
{
    int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    array->held = 0;
    if (PyObject_GetBuffer(object, &array->view, flags) < 0)
        return -1;
    array->held = 1;
    const char *format = array->view.format ? array->view.format : "B";
    if (*format == '<' || *format == '=' || *format == '@')
        format++;
    /* 'l' and 'q' are one type where long has 64 bits. */
    int same = format[1] == '\0' && (*format == code || (code == 'q' && *format == 'l' && sizeof(long) == 8));
    if (!same || array->view.ndim != axes) {
        PyErr_Format(PyExc_TypeError, "an array of type '%c' and %d axes was expected, not '%s' and %d", code,
                     axes, format, array->view.ndim);
        return -1;
    }
    return 0;
}

static inline void release(Array *array)
{
    if (array->held)
        PyBuffer_Release(&array->view);
    array->held = 0;
}

static inline Py_ssize_t axis(const Array *array, int number) { return array->view.shape[number]; }

/* Bits that are in the order of the floats they stand for; zero has no sign. */
static inline uint32_t key_of(float value)
{
    uint32_t bits;
    value += 0.0f;
    memcpy(&bits, &value, sizeof bits);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

static inline float value_of(uint32_t key)
{
    float value;
    uint32_t bits = key ^ (key >> 31 ? 0x80000000u : 0xffffffffu);
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif

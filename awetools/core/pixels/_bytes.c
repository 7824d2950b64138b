/* Byte order and sums of FITS data: what fitsvalues.py and fitsbytes.py do for each block on its way. */
#include "kernel.h"

/* The numbers of `source` with their bytes turned round, as `target`; the two may be one. The sign bit of each
 * is turned over where `flip` is set: FITS stores unsigned integers so. Eight bytes or fewer a number. */
CLONES static void swap2(const uint8_t *source, uint8_t *target, Py_ssize_t count, uint16_t flip)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        uint16_t x;
        memcpy(&x, source + 2 * i, 2);
        x = (uint16_t)((x >> 8 | x << 8) ^ flip);
        memcpy(target + 2 * i, &x, 2);
    }
}

CLONES static void swap4(const uint8_t *source, uint8_t *target, Py_ssize_t count, uint32_t flip)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t x;
        memcpy(&x, source + 4 * i, 4);
        x = (x >> 24 | (x >> 8 & 0xff00) | (x << 8 & 0xff0000) | x << 24) ^ flip;
        memcpy(target + 4 * i, &x, 4);
    }
}

CLONES static void swap8(const uint8_t *source, uint8_t *target, Py_ssize_t count, uint64_t flip)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        uint64_t x;
        memcpy(&x, source + 8 * i, 8);
        x = __builtin_bswap64(x) ^ flip;
        memcpy(target + 8 * i, &x, 8);
    }
}

static PyObject *swap(PyObject *self, PyObject *args)
{
    PyObject *from, *to, *result = NULL;
    Array source = {0}, target = {0};
    int width;
    unsigned long long flip;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOiK", &from, &to, &width, &flip))
        return NULL;
    if (take(&source, from, 'B', 1, 0) < 0 || take(&target, to, 'B', 1, 1) < 0)
        goto done;
    Py_ssize_t bytes = axis(&source, 0);
    if ((width != 2 && width != 4 && width != 8) || bytes % width || axis(&target, 0) != bytes) {
        PyErr_SetString(PyExc_ValueError, "numbers of 2, 4 or 8 bytes are swapped, into as many");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    if (width == 2)
        swap2(source.view.buf, target.view.buf, bytes / 2, (uint16_t)flip);
    else if (width == 4)
        swap4(source.view.buf, target.view.buf, bytes / 4, (uint32_t)flip);
    else
        swap8(source.view.buf, target.view.buf, bytes / 8, flip);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    release(&source);
    release(&target);
    return result;
}

/* The plain sum of big-endian 32-bit words. */
CLONES static uint64_t words(const uint8_t *data, Py_ssize_t count)
{
    uint64_t total = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t x;
        memcpy(&x, data + 4 * i, 4);
        total += x >> 24 | (x >> 8 & 0xff00) | (x << 8 & 0xff0000) | x << 24;
    }
    return total;
}

static PyObject *sum_words(PyObject *self, PyObject *args)
{
    PyObject *from, *result = NULL;
    Array data = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "O", &from))
        return NULL;
    if (take(&data, from, 'B', 1, 0) == 0) {
        uint64_t total;
        Py_BEGIN_ALLOW_THREADS
        total = words(data.view.buf, axis(&data, 0) / 4);
        Py_END_ALLOW_THREADS
        result = PyLong_FromUnsignedLongLong(total);
    }
    release(&data);
    return result;
}

/* The sum of the 32-bit words that native numbers of 2 or 4 bytes become in a file, each less its zero point. A
 * word holds two of the short ones, the first above. */
CLONES static uint64_t short_words(const uint8_t *data, Py_ssize_t count, uint16_t flip)
{
    uint64_t high = 0, low = 0;
    for (Py_ssize_t i = 0; i + 1 < count; i += 2) {
        uint16_t pair[2];
        memcpy(pair, data + 2 * i, 4);
        high += (uint16_t)(pair[0] ^ flip);
        low += (uint16_t)(pair[1] ^ flip);
    }
    if (count % 2) {
        uint16_t last;
        memcpy(&last, data + 2 * (count - 1), 2);
        high += (uint16_t)(last ^ flip);
    }
    return (high << 16) + low;
}

CLONES static uint64_t long_words(const uint8_t *data, Py_ssize_t count, uint32_t flip)
{
    uint64_t total = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t x;
        memcpy(&x, data + 4 * i, 4);
        total += x ^ flip;
    }
    return total;
}

static PyObject *sum_numbers(PyObject *self, PyObject *args)
{
    PyObject *from, *result = NULL;
    Array data = {0};
    int width;
    unsigned long flip;
    (void)self;
    if (!PyArg_ParseTuple(args, "Oik", &from, &width, &flip))
        return NULL;
    if (take(&data, from, 'B', 1, 0) < 0)
        goto done;
    if ((width != 2 && width != 4) || axis(&data, 0) % width) {
        PyErr_SetString(PyExc_ValueError, "numbers of 2 or 4 bytes are summed");
        goto done;
    }
    uint64_t total;
    Py_BEGIN_ALLOW_THREADS
    if (width == 2)
        total = short_words(data.view.buf, axis(&data, 0) / 2, (uint16_t)flip);
    else
        total = long_words(data.view.buf, axis(&data, 0) / 4, (uint32_t)flip);
    Py_END_ALLOW_THREADS
    result = PyLong_FromUnsignedLongLong(total);
done:
    release(&data);
    return result;
}

static PyMethodDef methods[] = {
    {"swap", swap, METH_VARARGS, "swap(source bytes, target bytes, width, flip)"},
    {"sum_words", sum_words, METH_VARARGS, "sum_words(bytes) -> the sum of the big-endian 32-bit words in them"},
    {"sum_numbers", sum_numbers, METH_VARARGS, "sum_numbers(bytes, width, flip) -> the sum of the words of a file"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_bytes", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__bytes(void) { return PyModule_Create(&module); }

/* Sums over the rows of an overscan strip, and raw rows less the level of each; see overscan.py. */
#include "kernel.h"

#include <math.h>
#include <stdlib.h>

CLONES static void row_unsigned(const uint16_t *raw, float *out, Py_ssize_t width, float level)
{
    for (Py_ssize_t x = 0; x < width; x++)
        out[x] = (float)raw[x] - level;
}

CLONES static void row_signed(const int16_t *raw, float *out, Py_ssize_t width, float level)
{
    for (Py_ssize_t x = 0; x < width; x++)
        out[x] = (float)raw[x] - level;
}

static void turn(float *row, Py_ssize_t width)
{
    for (Py_ssize_t x = 0; x < width / 2; x++) {
        float kept = row[x];
        row[x] = row[width - 1 - x];
        row[width - 1 - x] = kept;
    }
}

static PyObject *less_levels(PyObject *self, PyObject *args)
{
    PyObject *objects[3], *result = NULL;
    Array raw = {0}, levels = {0}, out = {0};
    Py_ssize_t x0, x1, y, x;
    int flip_x, flip_y, is_signed;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOnnnnppp", &objects[0], &objects[1], &objects[2], &x0, &x1, &y, &x, &flip_x,
                          &flip_y, &is_signed))
        return NULL;
    if (take(&raw, objects[0], is_signed ? 'h' : 'H', 2, 0) < 0 || take(&levels, objects[1], 'f', 1, 0) < 0 ||
        take(&out, objects[2], 'f', 2, 1) < 0)
        goto done;
    Py_ssize_t rows = axis(&raw, 0), raw_width = axis(&raw, 1), width = axis(&out, 1);
    if (x0 < 0 || x1 < x0 || x1 > raw_width || x < 0 || x + x1 - x0 > width || y < 0 || y + rows > axis(&out, 0) ||
        axis(&levels, 0) != rows) {
        PyErr_SetString(PyExc_ValueError, "the rows, their levels and their place do not fit each other");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t row = 0; row < rows; row++) {
        Py_ssize_t from = (flip_y ? rows - 1 - row : row) * raw_width + x0;
        float *to = (float *)out.view.buf + (y + row) * width + x;
        float level = ((const float *)levels.view.buf)[row];
        if (is_signed)
            row_signed((const int16_t *)raw.view.buf + from, to, x1 - x0, level);
        else
            row_unsigned((const uint16_t *)raw.view.buf + from, to, x1 - x0, level);
        if (flip_x)
            turn(to, x1 - x0);
    }
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    release(&raw);
    release(&levels);
    release(&out);
    return result;
}

/* One row: what is further than `limit` from its median is no longer good; sums over the rest. */
CLONES static void reject(const float *values, uint8_t *good, Py_ssize_t width, double median, double limit,
                          double *away, double *row, double *column_sums, double *column_counts)
{
    for (Py_ssize_t x = 0; x < width; x++) {
        double distance = (double)values[x] - median;
        int keep = (good[x] != 0) & (fabs(distance) <= limit);
        good[x] = (uint8_t)keep;
        away[x] = keep ? distance : 0;
        column_sums[x] += away[x];
        column_counts[x] += keep;
    }
    double count = 0, sum = 0, square = 0;
    for (Py_ssize_t x = 0; x < width; x++) {
        count += good[x];
        sum += away[x];
        square += away[x] * away[x];
    }
    row[0] = count;
    row[1] = sum;
    row[2] = square;
}

static PyObject *row_sums(PyObject *self, PyObject *args)
{
    PyObject *objects[5], *result = NULL;
    Array values = {0}, good = {0}, medians = {0}, rows = {0}, columns = {0};
    double limit;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOOOd", &objects[0], &objects[1], &objects[2], &objects[3], &objects[4], &limit))
        return NULL;
    if (take(&values, objects[0], 'f', 2, 0) < 0 || take(&good, objects[1], '?', 2, 1) < 0 ||
        take(&medians, objects[2], 'f', 1, 0) < 0 || take(&rows, objects[3], 'd', 2, 1) < 0 ||
        take(&columns, objects[4], 'd', 2, 1) < 0)
        goto done;
    Py_ssize_t ny = axis(&values, 0), nx = axis(&values, 1);
    if (axis(&good, 0) != ny || axis(&good, 1) != nx || axis(&medians, 0) != ny || axis(&rows, 0) != ny ||
        axis(&rows, 1) != 3 || axis(&columns, 0) != 2 || axis(&columns, 1) != nx) {
        PyErr_SetString(PyExc_ValueError, "the arrays of the sums of rows do not fit each other");
        goto done;
    }
    double *away = malloc((size_t)(nx ? nx : 1) * sizeof(double)), *sums = columns.view.buf;
    if (away == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t y = 0; y < ny; y++)
        reject((const float *)values.view.buf + y * nx, (uint8_t *)good.view.buf + y * nx, nx,
               (double)((const float *)medians.view.buf)[y], limit, away, (double *)rows.view.buf + 3 * y, sums + nx,
               sums);
    Py_END_ALLOW_THREADS
    free(away);
    result = Py_NewRef(Py_None);
done:
    release(&values);
    release(&good);
    release(&medians);
    release(&rows);
    release(&columns);
    return result;
}

static PyMethodDef methods[] = {
    {"row_sums", row_sums, METH_VARARGS, "row_sums(values, good, medians, rows[ny, 3], columns[2, nx], limit)"},
    {"less_levels", less_levels, METH_VARARGS,
     "less_levels(raw[rows, :], levels[rows], out, x0, x1, out's y, out's x, flip_x, flip_y, signed)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_overscan", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__overscan(void) { return PyModule_Create(&module); }

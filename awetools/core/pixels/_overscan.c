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

/* Rows whose sums are added side by side: each sum waits for its own last addition only. */
#define ROWS 4

/* One row: what is further than `limit` from its median is no longer good; the distances of the rest, 0 for others. */
CLONES static void reject(const float *restrict values, uint8_t *restrict good, Py_ssize_t width, double median,
                          double limit, double *restrict away, double *restrict column_sums,
                          double *restrict column_counts)
{
    for (Py_ssize_t x = 0; x < width; x++) {
        double distance = (double)values[x] - median;
        int keep = (good[x] != 0) & (fabs(distance) <= limit);
        good[x] = (uint8_t)keep;
        away[x] = keep ? distance : 0;
        column_sums[x] += away[x];
        column_counts[x] += keep;
    }
}

/* Count, sum and sum of squares of some rows, each from its first pixel to its last. */
static void sum_rows(const double *away, const uint8_t *good, Py_ssize_t width, int count, double *rows)
{
    double sum[ROWS] = {0}, square[ROWS] = {0};
    for (Py_ssize_t x = 0; x < width; x++)
        for (int row = 0; row < ROWS; row++) {
            double distance = away[row * width + x];
            sum[row] += distance;
            square[row] += distance * distance;
        }
    for (int row = 0; row < count; row++) {
        int64_t kept = 0;
        for (Py_ssize_t x = 0; x < width; x++)
            kept += good[row * width + x];
        rows[3 * row] = (double)kept;
        rows[3 * row + 1] = sum[row];
        rows[3 * row + 2] = square[row];
    }
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
    double *away = calloc((size_t)(nx ? nx : 1) * ROWS, sizeof(double)), *sums = columns.view.buf;
    if (away == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    const float *value = values.view.buf, *median = medians.view.buf;
    uint8_t *keep = good.view.buf;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t y = 0; y < ny; y += ROWS) {
        int count = ny - y < ROWS ? (int)(ny - y) : ROWS;
        for (int row = 0; row < count; row++)
            reject(value + (y + row) * nx, keep + (y + row) * nx, nx, (double)median[y + row], limit, away + row * nx,
                   sums + nx, sums);
        sum_rows(away, keep + y * nx, nx, count, (double *)rows.view.buf + 3 * y);
    }
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

CLONES static void next_term(const double *term, const double *at, const double *weights, double *next,
                             double *weighted, Py_ssize_t ny)
{
    for (Py_ssize_t i = 0; i < ny; i++) {
        next[i] = at[i] * term[i];
        weighted[i] = term[i] * weights[i];
    }
}

CLONES static void take_off(double *next, const double *term, const double *before, const double *weights,
                            double *weighted, double centre, double norm, Py_ssize_t ny)
{
    for (Py_ssize_t i = 0; i < ny; i++) {
        double value = next[i] - centre * term[i];
        value = value - norm * before[i];
        next[i] = value;
        weighted[i] = value * weights[i];
    }
}

/* Rows of doubles, all of one length; the bits of `outputs` say which are written. -1 with an exception. */
static int take_rows(Array *arrays, PyObject *const *objects, int count, unsigned outputs)
{
    for (int i = 0; i < count; i++) {
        if (take(&arrays[i], objects[i], 'd', 1, (int)(outputs >> i & 1)) < 0)
            return -1;
        if (axis(&arrays[i], 0) != axis(&arrays[0], 0)) {
            PyErr_SetString(PyExc_ValueError, "the rows of a polynomial do not fit each other");
            return -1;
        }
    }
    return 0;
}

enum { POLYNOMIAL_ROWS = 5 };

static PyObject *next_degree(PyObject *self, PyObject *args)
{
    PyObject *objects[POLYNOMIAL_ROWS], *result = NULL;
    Array arrays[POLYNOMIAL_ROWS];
    (void)self;
    memset(arrays, 0, sizeof arrays);
    if (!PyArg_ParseTuple(args, "OOOOO", &objects[0], &objects[1], &objects[2], &objects[3], &objects[4]))
        return NULL;
    if (take_rows(arrays, objects, POLYNOMIAL_ROWS, 1u << 3 | 1u << 4) == 0) {
        next_term(arrays[0].view.buf, arrays[1].view.buf, arrays[2].view.buf, arrays[3].view.buf,
                  arrays[4].view.buf, axis(&arrays[0], 0));
        result = Py_NewRef(Py_None);
    }
    for (int i = 0; i < POLYNOMIAL_ROWS; i++)
        release(&arrays[i]);
    return result;
}

static PyObject *less_terms(PyObject *self, PyObject *args)
{
    PyObject *objects[POLYNOMIAL_ROWS], *result = NULL;
    Array arrays[POLYNOMIAL_ROWS];
    double centre, norm;
    (void)self;
    memset(arrays, 0, sizeof arrays);
    if (!PyArg_ParseTuple(args, "OOOOOdd", &objects[0], &objects[1], &objects[2], &objects[3], &objects[4], &centre,
                          &norm))
        return NULL;
    if (take_rows(arrays, objects, POLYNOMIAL_ROWS, 1u << 0 | 1u << 4) == 0) {
        take_off(arrays[0].view.buf, arrays[1].view.buf, arrays[2].view.buf, arrays[3].view.buf, arrays[4].view.buf,
                 centre, norm, axis(&arrays[0], 0));
        result = Py_NewRef(Py_None);
    }
    for (int i = 0; i < POLYNOMIAL_ROWS; i++)
        release(&arrays[i]);
    return result;
}

/* The weighted line of every window: its level in the middle and its tilt; see _Lines.running. */
CLONES static void window_lines(const double *sums, Py_ssize_t ny, Py_ssize_t window, double least, double *level,
                                double *tilt)
{
    const double *sum0 = sums, *sum1 = sum0 + ny + 1, *sum2 = sum1 + ny + 1, *mean0 = sum2 + ny + 1,
                 *mean1 = mean0 + ny + 1;
    double half = 0.5 * (double)(window - 1), square = (double)window * (double)window;
    for (Py_ssize_t i = 0; i < ny + 1 - window; i++) {
        double middle = (double)(int32_t)i + half;
        double s0 = sum0[i + window] - sum0[i], s1 = sum1[i + window] - sum1[i], s2 = sum2[i + window] - sum2[i];
        double t0 = mean0[i + window] - mean0[i], t1 = mean1[i + window] - mean1[i];
        s2 = s2 - 2 * middle * s1 + middle * middle * s0;
        t1 = t1 - middle * t0;
        s1 = s1 - middle * s0;
        double determinant = s0 * s2 - s1 * s1;
        int enough = (s0 > least) & (determinant > 1e-6 * s0 * s0 * square);
        double safe = enough ? determinant : 1.0;
        double high = (t0 * s2 - t1 * s1) / safe, steep = (s0 * t1 - s1 * t0) / safe;
        level[i] = enough ? high : 0.0;
        tilt[i] = enough ? steep : 0.0;
    }
}

static PyObject *running(PyObject *self, PyObject *args)
{
    PyObject *objects[3], *result = NULL;
    Array sums = {0}, whole = {0}, out = {0};
    Py_ssize_t window;
    double least;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOnd", &objects[0], &objects[1], &objects[2], &window, &least))
        return NULL;
    if (take(&sums, objects[0], 'd', 2, 0) < 0 || take(&whole, objects[1], 'd', 1, 0) < 0 ||
        take(&out, objects[2], 'd', 1, 1) < 0)
        goto done;
    Py_ssize_t ny = axis(&whole, 0);
    if (axis(&sums, 0) != 5 || axis(&sums, 1) != ny + 1 || axis(&out, 0) != ny || window < 1 || window > ny ||
        ny > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "the arrays of running lines do not fit each other");
        goto done;
    }
    Py_ssize_t last = ny - window;
    double *level = malloc(2 * (size_t)(last + 1) * sizeof(double));
    if (level == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    double *tilt = level + last + 1;
    window_lines(sums.view.buf, ny, window, least, level, tilt);
    for (Py_ssize_t row = 0; row < ny; row++) {
        Py_ssize_t i = row - window / 2;
        i = i < 0 ? 0 : i > last ? last : i;
        double away = (double)row - ((double)i + 0.5 * (double)(window - 1));
        ((double *)out.view.buf)[row] = ((const double *)whole.view.buf)[row] + level[i] + tilt[i] * away;
    }
    Py_END_ALLOW_THREADS
    free(level);
    result = Py_NewRef(Py_None);
done:
    release(&sums);
    release(&whole);
    release(&out);
    return result;
}

CLONES static void within(const double *fit, const double *shorter, const double *limit, uint8_t *growing,
                          Py_ssize_t ny)
{
    for (Py_ssize_t i = 0; i < ny; i++)
        growing[i] &= (uint8_t)(fabs(fit[i] - shorter[i]) <= limit[i]);
}

static PyObject *lengthen(PyObject *self, PyObject *args)
{
    PyObject *objects[4], *result = NULL;
    Array fits = {0}, limits = {0}, growing = {0}, out = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOO", &objects[0], &objects[1], &objects[2], &objects[3]))
        return NULL;
    if (take(&fits, objects[0], 'd', 2, 0) < 0 || take(&limits, objects[1], 'd', 2, 0) < 0 ||
        take(&growing, objects[2], '?', 1, 1) < 0 || take(&out, objects[3], 'd', 1, 1) < 0)
        goto done;
    Py_ssize_t shorter = axis(&limits, 0), ny = axis(&out, 0);
    if (axis(&fits, 0) != shorter + 1 || axis(&fits, 1) != ny || axis(&limits, 1) != ny || axis(&growing, 0) != ny) {
        PyErr_SetString(PyExc_ValueError, "the arrays of growing windows do not fit each other");
        goto done;
    }
    const double *all = fits.view.buf, *fit = all + shorter * ny;
    uint8_t *grow = growing.view.buf;
    double *found = out.view.buf;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t one = 0; one < shorter; one++)
        within(fit, all + one * ny, (const double *)limits.view.buf + one * ny, grow, ny);
    for (Py_ssize_t i = 0; i < ny; i++)
        found[i] = grow[i] ? fit[i] : found[i];
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    release(&fits);
    release(&limits);
    release(&growing);
    release(&out);
    return result;
}

static PyMethodDef methods[] = {
    {"next_degree", next_degree, METH_VARARGS, "next_degree(term, at, weights, next, weighted): at term; term weights"},
    {"less_terms", less_terms, METH_VARARGS,
     "less_terms(next, term, before, weights, weighted, centre, norm): next less its part in both; times weights"},
    {"running", running, METH_VARARGS, "running(sums[5, ny + 1], whole[ny], out[ny], window, least weight)"},
    {"lengthen", lengthen, METH_VARARGS, "lengthen(fits[n + 1, ny], limits[n, ny], growing[ny], out[ny])"},
    {"row_sums", row_sums, METH_VARARGS, "row_sums(values, good, medians, rows[ny, 3], columns[2, nx], limit)"},
    {"less_levels", less_levels, METH_VARARGS,
     "less_levels(raw[rows, :], levels[rows], out, x0, x1, out's y, out's x, flip_x, flip_y, signed)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_overscan", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__overscan(void) { return PyModule_Create(&module); }

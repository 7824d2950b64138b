/* Rows of an exposure less its bias and dark, over its flat, and what is masked on the way; see calibrate.py. */
#include "kernel.h"

#include <float.h>
#include <math.h>

#define WEIGHTS 2
#define MASKS 3

/* Row pointers of the inputs. */
typedef struct {
    const float *bias, *dark, *limit, *flat, *weights[WEIGHTS];
    const int16_t *masks[MASKS];
} Row;

typedef struct {
    float dark_factor;
    int16_t nonlinear, uncalibrated, outside;
} Rules;

/* One loop without a jump: the compiler makes vectors of it, and the processor loads one plane while it works on
 * another. */
CLONES static void correct(float *restrict data, int16_t *restrict bits, const Row *row, Rules rules, Py_ssize_t nx)
{
    const float *restrict bias = row->bias, *restrict dark = row->dark, *restrict limit = row->limit;
    const float *restrict flat = row->flat, *restrict one = row->weights[0], *restrict other = row->weights[1];
    const int16_t *restrict first = row->masks[0], *restrict second = row->masks[1], *restrict third = row->masks[2];
    for (Py_ssize_t x = 0; x < nx; x++) {
        float counts = data[x] - bias[x] - dark[x] * rules.dark_factor, light = counts / flat[x];
        int finite = fabsf(light) <= FLT_MAX;
        int16_t found = counts >= limit[x] ? rules.nonlinear : 0;
        found |= (one[x] <= 0.0f) | (other[x] <= 0.0f) ? rules.uncalibrated : 0;
        found |= finite ? 0 : rules.outside;
        bits[x] |= found | first[x] | second[x] | third[x];
        data[x] = finite ? light : 0.0f;
    }
}

/* A plane of one row serves them all; items: what a number of the plane takes. */
static const void *row_of(const Array *plane, Py_ssize_t y, size_t items)
{
    return (const char *)plane->view.buf + (axis(plane, 0) == 1 ? 0 : (size_t)(y * axis(plane, 1)) * items);
}

enum { DATA, BITS, BIAS, DARK, LIMIT, FLAT, FIRST_WEIGHT, FIRST_MASK = FIRST_WEIGHT + WEIGHTS,
       ARRAYS = FIRST_MASK + MASKS };
static const char CODES[] = "fhffffffhhh";

static int take_all(Array *arrays, PyObject *given)
{
    for (int i = 0; i < ARRAYS; i++) {
        PyObject *object = PyTuple_GetItem(given, i);
        if (object == NULL)
            return -1;
        if (take(&arrays[i], object, CODES[i], 2, i < BIAS) < 0)
            return -1;
    }
    return 0;
}

static int all_fit(const Array *arrays)
{
    Py_ssize_t ny = axis(&arrays[DATA], 0), nx = axis(&arrays[DATA], 1);
    int fits = axis(&arrays[BITS], 0) == ny;
    for (int i = BITS; i < ARRAYS; i++) {
        Py_ssize_t rows = axis(&arrays[i], 0);
        fits = fits && (rows == ny || rows == 1) && axis(&arrays[i], 1) == nx;
    }
    return fits;
}

static PyObject *calibrate(PyObject *self, PyObject *args)
{
    PyObject *given, *result = NULL;
    Array arrays[ARRAYS];
    Rules rules;
    (void)self;
    memset(arrays, 0, sizeof arrays);
    if (!PyArg_ParseTuple(args, "O!fhhh", &PyTuple_Type, &given, &rules.dark_factor, &rules.nonlinear,
                          &rules.uncalibrated, &rules.outside))
        return NULL;
    if (take_all(arrays, given) < 0)
        goto done;
    if (!all_fit(arrays)) {
        PyErr_SetString(PyExc_ValueError, "the planes of a calibration do not have the shape of the data");
        goto done;
    }
    Py_ssize_t ny = axis(&arrays[DATA], 0), nx = axis(&arrays[DATA], 1);
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t y = 0; y < ny; y++) {
        Row row = {.bias = row_of(&arrays[BIAS], y, sizeof(float)),
                   .dark = row_of(&arrays[DARK], y, sizeof(float)),
                   .limit = row_of(&arrays[LIMIT], y, sizeof(float)),
                   .flat = row_of(&arrays[FLAT], y, sizeof(float))};
        for (int k = 0; k < WEIGHTS; k++)
            row.weights[k] = row_of(&arrays[FIRST_WEIGHT + k], y, sizeof(float));
        for (int k = 0; k < MASKS; k++)
            row.masks[k] = row_of(&arrays[FIRST_MASK + k], y, sizeof(int16_t));
        correct((float *)arrays[DATA].view.buf + y * nx, (int16_t *)arrays[BITS].view.buf + y * nx, &row, rules, nx);
    }
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    for (int i = 0; i < ARRAYS; i++)
        release(&arrays[i]);
    return result;
}

CLONES static int mark_row(const float *restrict data, int16_t *restrict bits, Py_ssize_t width, float level, int16_t bit)
{
    int16_t any = 0;
    for (Py_ssize_t x = 0; x < width; x++) {
        int16_t marked = data[x] >= level ? bit : 0;
        bits[x] |= marked;
        any |= marked;
    }
    return any != 0;
}

static PyObject *mark(PyObject *self, PyObject *args)
{
    PyObject *objects[3], *result = NULL;
    Array data = {0}, bits = {0}, levels = {0};
    Py_ssize_t y, x0, x1;
    short bit;
    int any = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOnnnh", &objects[0], &objects[1], &objects[2], &y, &x0, &x1, &bit))
        return NULL;
    if (take(&data, objects[0], 'f', 2, 0) < 0 || take(&bits, objects[1], 'h', 2, 1) < 0 ||
        take(&levels, objects[2], 'f', 1, 0) < 0)
        goto done;
    Py_ssize_t ny = axis(&data, 0), nx = axis(&data, 1), rows = axis(&levels, 0);
    if (axis(&bits, 0) != ny || axis(&bits, 1) != nx || y < 0 || rows > ny - y || x0 < 0 || x1 < x0 || x1 > nx) {
        PyErr_SetString(PyExc_ValueError, "the levels and their place do not fit the data");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t row = 0; row < rows; row++) {
        Py_ssize_t at = (y + row) * nx + x0;
        any |= mark_row((const float *)data.view.buf + at, (int16_t *)bits.view.buf + at, x1 - x0,
                        ((const float *)levels.view.buf)[row], bit);
    }
    Py_END_ALLOW_THREADS
    result = PyBool_FromLong(any);
done:
    release(&data);
    release(&bits);
    release(&levels);
    return result;
}

static PyMethodDef methods[] = {
    {"calibrate", calibrate, METH_VARARGS,
     "calibrate((data, mask, bias, dark, limit, flat, 2 weights, 3 masks), dark's factor, bits of what is nonlinear, "
     "uncalibrated, outside): all but data and mask may be of one row"},
    {"mark", mark, METH_VARARGS, "mark(data, mask, levels[rows], y, x0, x1, bit) -> whether any is at its level"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_calibrate", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__calibrate(void) { return PyModule_Create(&module); }

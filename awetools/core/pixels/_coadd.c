/* Layers of resampled frames become one image; coadd.py says what is computed. */
#include "centres.h"
#include "combine.h"
#include "contrast.h"
#include "kernel.h"
#include "layers.h"
#include "outliers.h"

PyDoc_STRVAR(centres_doc, "centres(values, weights, layout, steps, fainter, out, number, y, x, rows, columns): fill a "
                          "rectangle of out and number.");

static PyObject *centres(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *values, *weights, *given[4], *result = NULL;
    Array layout = {.held = 0}, steps = {.held = 0}, out = {.held = 0}, number = {.held = 0}, *planes = NULL;
    Py_ssize_t y, x, rows, columns, count = 0;
    int fainter;
    float *block = NULL;
    if (!PyArg_ParseTuple(arguments, "OOOOpOOnnnn", &values, &weights, &given[0], &given[1], &fainter, &given[2],
                          &given[3], &y, &x, &rows, &columns))
        return NULL;
    if (take(&layout, given[0], 'q', 2, 0) < 0 || take(&steps, given[1], 'h', 2, 0) < 0 ||
        take(&out, given[2], 'f', 2, 1) < 0 || take(&number, given[3], 'h', 2, 1) < 0)
        goto done;
    count = axis(&layout, 0);
    planes = planes_for(count, 2);
    if (planes == NULL || take_layers(planes, values, count, 'f') < 0 || take_layers(planes + count, weights, count, 'f') < 0)
        goto done;
    Layers layers = {count, planes, planes + count, NULL, layout.view.buf};
    Network network = {steps.view.buf, axis(&steps, 0)};
    int fits = rows > 0 && columns > 0 && axis(&layout, 1) == 2 && axis(&steps, 1) == 2 &&
               rectangle_in(&out, y, x, rows, columns) && axis(&number, 0) == axis(&out, 0) &&
               axis(&number, 1) == axis(&out, 1) && inside(&layers, layers.values, rows, columns) &&
               inside(&layers, layers.weights, rows, columns);
    for (Py_ssize_t i = 0; fits && i < 2 * network.count; i++)
        fits = network.steps[i] >= 0 && network.steps[i] < count;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the layers do not cover the rectangle");
        goto done;
    }
    block = malloc((size_t)(count + 1) * LANES * sizeof *block);
    if (block == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t row = 0; row < rows; row++) {
        Py_ssize_t first = (y + row) * axis(&out, 1) + x;
        float *to = (float *)out.view.buf + first;
        int16_t *counts = (int16_t *)number.view.buf + first;
        for (Py_ssize_t at = 0; at < columns; at += LANES) {
            int width = columns - at < LANES ? (int)(columns - at) : LANES;
            centre_lanes(&layers, network, row, at, width, fainter, block, to + at, counts + at);
        }
    }
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    free(block);
    release_all(planes, 2 * count);
    release(&layout);
    release(&steps);
    release(&out);
    release(&number);
    return result;
}

PyDoc_STRVAR(contrast_doc, "contrast(plane, first, reach, out): fill out, whose first row is row `first` of the plane.");

static PyObject *contrast(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *given[2], *result = NULL;
    Array plane = {.held = 0}, out = {.held = 0};
    Py_ssize_t first, reach;
    if (!PyArg_ParseTuple(arguments, "OnnO", &given[0], &first, &reach, &given[1]))
        return NULL;
    if (take(&plane, given[0], 'f', 2, 0) < 0 || take(&out, given[1], 'f', 2, 1) < 0)
        goto done;
    Py_ssize_t nx = axis(&plane, 1), rows = axis(&out, 0);
    if (axis(&out, 1) != nx || first < 0 || reach < 0 || first + rows > axis(&plane, 0)) {
        PyErr_SetString(PyExc_ValueError, "the rows of a contrast are not in its plane");
        goto done;
    }
    float *work = malloc((size_t)(4 * nx + 1) * sizeof *work);
    if (work == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t row = 0; row < rows; row++)
        contrast_row(plane.view.buf, axis(&plane, 0), nx, first + row, reach, work, (float *)out.view.buf + row * nx);
    Py_END_ALLOW_THREADS
    free(work);
    result = Py_NewRef(Py_None);
done:
    release(&plane);
    release(&out);
    return result;
}

enum { LAYOUT, NUMBERS, REACH, FACTOR, CENTRE, CONTRAST, GOOD, SCI, WEIGHT, COUNT, MASK, TALLY, FOUND, ARRAYS };
static const char CODES[] = "qiffffhffhhqi";
static const int AXES[] = {2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2};

static int take_arrays(Array *arrays, PyObject *given)
{
    for (int i = 0; i < ARRAYS; i++) {
        PyObject *object = PyTuple_GetItem(given, i);
        if (object == NULL)
            return -1;
        if (i >= CENTRE && i <= GOOD && object == Py_None)
            continue;
        if (take(&arrays[i], object, CODES[i], AXES[i], i >= SCI) < 0)
            return -1;
    }
    return 0;
}

/* Rows of a plane above those of the result, as many as below; -1 if it is no such plane. */
static Py_ssize_t rows_above(const Array *arrays, int which)
{
    Py_ssize_t more = axis(&arrays[which], 0) - axis(&arrays[SCI], 0);
    return more < 0 || more % 2 || axis(&arrays[which], 1) != axis(&arrays[SCI], 1) ? -1 : more / 2;
}

static int all_fit(const Array *arrays, const Layers *layers, int mode, Py_ssize_t y, Py_ssize_t x, Py_ssize_t rows,
                   Py_ssize_t columns)
{
    Py_ssize_t n = layers->count;
    int fits = rows > 0 && columns > 0 && axis(&arrays[LAYOUT], 1) == 2 && axis(&arrays[NUMBERS], 0) == n &&
               axis(&arrays[FACTOR], 0) > n && axis(&arrays[TALLY], 0) == n && axis(&arrays[TALLY], 1) == 2 &&
               axis(&arrays[FOUND], 1) == 3;
    fits = fits && (mode == MEAN || (arrays[CENTRE].held && rows_above(arrays, CENTRE) >= 0));
    if (fits && mode == CLIP)
        fits = arrays[CONTRAST].held && arrays[GOOD].held && rows_above(arrays, CENTRE) >= 1 &&
               rows_above(arrays, CONTRAST) >= 1 && rows_above(arrays, GOOD) == rows_above(arrays, CENTRE);
    for (int i = SCI; fits && i <= MASK; i++)
        fits = rectangle_in(&arrays[i], y, x, rows, columns);
    return fits && inside(layers, layers->values, rows, columns) && inside(layers, layers->weights, rows, columns) &&
           inside(layers, layers->bits, rows, columns);
}

static Field field_of(const Array *arrays, float fraction)
{
    Field field = {.reach = arrays[REACH].view.buf, .reaches = axis(&arrays[REACH], 0), .fraction = fraction};
    if (!arrays[CENTRE].held)
        return field;
    field.centre = arrays[CENTRE].view.buf;
    field.rows = axis(&arrays[CENTRE], 0);
    field.columns = axis(&arrays[CENTRE], 1);
    field.above = rows_above(arrays, CENTRE);
    if (!arrays[CONTRAST].held || !arrays[GOOD].held)
        return field;
    field.contrast = arrays[CONTRAST].view.buf;
    field.contrast_above = rows_above(arrays, CONTRAST);
    field.number = arrays[GOOD].view.buf;
    return field;
}

static void place_parts(const Layers *layers, Part *parts, Py_ssize_t y, Py_ssize_t x)
{
    for (Py_ssize_t i = 0; i < layers->count; i++) {
        int64_t first = layers->layout[2 * i], stride = layers->layout[2 * i + 1];
        Py_ssize_t rows = axis(&layers->values[i], 0), weighted = axis(&layers->weights[i], 0);
        parts[i] = (Part){layers->values[i].view.buf, layers->weights[i].view.buf, rows < weighted ? rows : weighted, stride,
                          y - first / stride, x - first % stride};
    }
}

static Row row_at(const Array *arrays, int mode, const Field *field, const Part *parts, Py_ssize_t y, Py_ssize_t x)
{
#define AT(which, type) ((type *)arrays[which].view.buf + y * axis(&arrays[which], 1) + x)
    Py_ssize_t wide = (y + field->above) * field->columns + x;
    Row row = {.mode = mode,
               .field = field,
               .parts = parts,
               .factor = arrays[FACTOR].view.buf,
               .centre = field->centre ? field->centre + wide : NULL,
               .number = field->number ? field->number + wide : NULL,
               .sci = AT(SCI, float),
               .weight = AT(WEIGHT, float),
               .count = AT(COUNT, int16_t),
               .mask = AT(MASK, int16_t),
               .tally = arrays[TALLY].view.buf,
               .found = arrays[FOUND].view.buf,
               .numbers = arrays[NUMBERS].view.buf,
               .room = axis(&arrays[FOUND], 0),
               .y = (int32_t)y,
               .x = (int32_t)x};
#undef AT
    return row;
}

PyDoc_STRVAR(combine_doc, "combine(values, weights, bits, arrays, mode, fraction, y, x, rows, columns) -> how many values "
                          "were clipped; fills a rectangle of the planes.");

static PyObject *combine(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *values, *weights, *bits, *given, *result = NULL;
    Array arrays[ARRAYS], *planes = NULL;
    Py_ssize_t y, x, rows, columns, count = 0;
    int mode;
    float fraction;
    int32_t *states = NULL;
    Part *parts = NULL;
    memset(arrays, 0, sizeof arrays);
    if (!PyArg_ParseTuple(arguments, "OOOO!ifnnnn", &values, &weights, &bits, &PyTuple_Type, &given, &mode, &fraction,
                          &y, &x, &rows, &columns))
        return NULL;
    if (take_arrays(arrays, given) < 0)
        goto done;
    count = axis(&arrays[LAYOUT], 0);
    planes = planes_for(count, 3);
    if (planes == NULL || take_layers(planes, values, count, 'f') < 0 ||
        take_layers(planes + count, weights, count, 'f') < 0 || take_layers(planes + 2 * count, bits, count, 'h') < 0)
        goto done;
    Layers layers = {count, planes, planes + count, planes + 2 * count, arrays[LAYOUT].view.buf};
    if (!all_fit(arrays, &layers, mode, y, x, rows, columns)) {
        PyErr_SetString(PyExc_ValueError, "the layers and planes of a combination do not fit each other");
        goto done;
    }
    states = malloc((size_t)(count + 1) * LANES * sizeof *states);
    parts = malloc((size_t)(count + 1) * sizeof *parts);
    if (states == NULL || parts == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Field field = field_of(arrays, fraction);
    place_parts(&layers, parts, y, x);
    int64_t clipped = 0;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t row = 0; row < rows; row++) {
        Row out = row_at(arrays, mode, &field, parts, y + row, x);
        out.clipped = clipped;
        for (Py_ssize_t at = 0; at < columns; at += LANES) {
            int width = columns - at < LANES ? (int)(columns - at) : LANES;
            combine_lanes(&layers, &out, row, at, width, states);
        }
        clipped = out.clipped;
    }
    Py_END_ALLOW_THREADS
    result = PyLong_FromLongLong(clipped);
done:
    free(states);
    free(parts);
    release_all(planes, 3 * count);
    for (int i = 0; i < ARRAYS; i++)
        release(&arrays[i]);
    return result;
}

static PyMethodDef methods[] = {
    {"centres", centres, METH_VARARGS, centres_doc},
    {"contrast", contrast, METH_VARARGS, contrast_doc},
    {"combine", combine, METH_VARARGS, combine_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_coadd", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__coadd(void) { return PyModule_Create(&module); }

/* The background's inverse variance of one frame, in one pass; see weight.py, whose numpy twin gives the same bits. */
#include "kernel.h"

#include <math.h>

#define PLANES 8

/* Row pointers of the inputs. */
typedef struct {
    const float *sky, *flat, *gain, *read_noise, *dark, *bias_weight, *dark_weight, *flat_weight;
} Row;

static inline float reciprocal(float weight) { return weight > 0.0f ? 1.0f / weight : 0.0f; }

/* Not a number stays so. */
static inline float above_zero(float value) { return value < 0.0f ? 0.0f : value; }

/* One loop without a jump: the compiler makes vectors of it, and the processor loads one plane while it divides by
 * another. */
CLONES
static void weigh(const Row *row, const uint8_t *restrict bad, float exposure, float digitisation,
                  float *restrict weight, Py_ssize_t nx)
{
    const float *restrict sky = row->sky, *restrict flat = row->flat, *restrict gain = row->gain;
    const float *restrict noise = row->read_noise, *restrict dark = row->dark;
    const float *restrict bias_weight = row->bias_weight, *restrict dark_weight = row->dark_weight;
    const float *restrict flat_weight = row->flat_weight;
    float exposure2 = exposure * exposure;
    for (Py_ssize_t x = 0; x < nx; x++) {
        float response = flat[x], level = above_zero(sky[x] * response), light = level / response;
        float variance = (level + above_zero(dark[x] * exposure)) / gain[x];
        variance += noise[x] * noise[x] + digitisation;
        variance += reciprocal(bias_weight[x]);
        variance += reciprocal(dark_weight[x]) * exposure2;
        variance += light * light * reciprocal(flat_weight[x]);
        float found = response * response / variance;
        /* What is not finite compares false. Bits of | and &, not && and ||: no jumps. */
        int usable = (response > 0.0f) & (variance > 0.0f) & (found < INFINITY) & (bad[x] == 0);
        weight[x] = usable ? found : 0.0f;
    }
}

static const float *row_of(const Array *plane, Py_ssize_t y)
{
    /* A plane of one row serves them all. */
    return (const float *)plane->view.buf + (axis(plane, 0) == 1 ? 0 : y * axis(plane, 1));
}

PyDoc_STRVAR(weight_doc, "weight(out, bad, sky, flat, gain, read_noise, dark, bias_weight, dark_weight, "
                         "flat_weight, exposure, digitisation): fill out; planes may be of one row.");

static PyObject *weight(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *given[PLANES], *out_object, *bad_object;
    Array planes[PLANES], out, bad;
    float exposure, digitisation;
    PyObject *result = NULL;

    memset(planes, 0, sizeof planes);
    memset(&out, 0, sizeof out);
    memset(&bad, 0, sizeof bad);
    if (!PyArg_ParseTuple(arguments, "OOOOOOOOOOff", &out_object, &bad_object, &given[0], &given[1], &given[2],
                          &given[3], &given[4], &given[5], &given[6], &given[7], &exposure, &digitisation))
        return NULL;
    if (take(&out, out_object, 'f', 2, 1) < 0 || take(&bad, bad_object, '?', 2, 0) < 0)
        goto done;
    Py_ssize_t ny = axis(&out, 0), nx = axis(&out, 1);
    int fits = axis(&bad, 0) == ny && axis(&bad, 1) == nx;
    for (int number = 0; number < PLANES; number++) {
        if (take(&planes[number], given[number], 'f', 2, 0) < 0)
            goto done;
        Py_ssize_t rows = axis(&planes[number], 0);
        fits = fits && (rows == ny || rows == 1) && axis(&planes[number], 1) == nx;
    }
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the planes of a weight do not have its shape");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t y = 0; y < ny; y++) {
        Row row = {row_of(&planes[0], y), row_of(&planes[1], y), row_of(&planes[2], y), row_of(&planes[3], y),
                   row_of(&planes[4], y), row_of(&planes[5], y), row_of(&planes[6], y), row_of(&planes[7], y)};
        weigh(&row, (const uint8_t *)bad.view.buf + y * nx, exposure, digitisation, (float *)out.view.buf + y * nx,
              nx);
    }
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    for (int number = 0; number < PLANES; number++)
        release(&planes[number]);
    release(&out);
    release(&bad);
    return result;
}

static PyMethodDef methods[] = {{"weight", weight, METH_VARARGS, weight_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_weight", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__weight(void) { return PyModule_Create(&module); }

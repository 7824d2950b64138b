/* Layers of resampled frames: their planes, given from Python, and rows of them. */
#ifndef AWETOOLS_LAYERS_H
#define AWETOOLS_LAYERS_H

#include "kernel.h"

#include <stdlib.h>

/* Pixels that are worked on at once. */
#define LANES 64

/* Planes of the layers; offsets to the first pixel of the rectangle, and pixels from row to row. */
typedef struct {
    Py_ssize_t count;
    Array *values, *weights, *bits;
    const int64_t *layout;
} Layers;

INLINE const float *row_of(const Array *planes, const Layers *layers, Py_ssize_t layer, Py_ssize_t row)
{
    const int64_t *at = layers->layout + 2 * layer;
    return (const float *)planes[layer].view.buf + at[0] + row * at[1];
}

INLINE const int16_t *bits_of(const Layers *layers, Py_ssize_t layer, Py_ssize_t row)
{
    const int64_t *at = layers->layout + 2 * layer;
    return (const int16_t *)layers->bits[layer].view.buf + at[0] + row * at[1];
}

static int take_layers(Array *to, PyObject *given, Py_ssize_t count, char code)
{
    if (!PyTuple_Check(given) || PyTuple_Size(given) != count) {
        PyErr_SetString(PyExc_ValueError, "the planes of layers are not as many as the layers");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if (take(&to[i], PyTuple_GetItem(given, i), code, 2, 0) < 0)
            return -1;
    return 0;
}

static int inside(const Layers *layers, const Array *planes, Py_ssize_t rows, Py_ssize_t columns)
{
    for (Py_ssize_t i = 0; i < layers->count; i++) {
        int64_t first = layers->layout[2 * i], stride = layers->layout[2 * i + 1];
        int64_t last = first + (rows - 1) * stride + columns;
        if (first < 0 || stride != axis(&planes[i], 1) || last > axis(&planes[i], 0) * axis(&planes[i], 1))
            return 0;
    }
    return 1;
}

static int rectangle_in(const Array *plane, Py_ssize_t y, Py_ssize_t x, Py_ssize_t rows, Py_ssize_t columns)
{
    return y >= 0 && x >= 0 && y + rows <= axis(plane, 0) && x + columns <= axis(plane, 1);
}

static Array *planes_for(Py_ssize_t layers, Py_ssize_t kinds)
{
    Array *made = calloc((size_t)(layers * kinds + 1), sizeof *made);
    if (made == NULL)
        PyErr_NoMemory();
    return made;
}

static void release_all(Array *planes, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; planes && i < count; i++)
        release(&planes[i]);
    free(planes);
}

#endif

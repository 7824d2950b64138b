/* The contrast of a plane: the largest difference within a reach. */
#ifndef AWETOOLS_CONTRAST_H
#define AWETOOLS_CONTRAST_H

#include "kernel.h"

#include <math.h>

CLONES
static void narrow(const float *row, float *restrict low, float *restrict high, Py_ssize_t nx)
{
    for (Py_ssize_t x = 0; x < nx; x++) {
        float v = row[x];
        low[x] = v < low[x] ? v : low[x];
        high[x] = v > high[x] ? v : high[x];
    }
}

CLONES
static void narrow_line(const float *low, const float *high, Py_ssize_t shift, float *restrict least,
                        float *restrict most, Py_ssize_t nx)
{
    Py_ssize_t begin = shift < 0 ? -shift : 0, end = shift > 0 ? nx - shift : nx;
    for (Py_ssize_t x = begin; x < end; x++) {
        float a = low[x + shift], b = high[x + shift];
        least[x] = a < least[x] ? a : least[x];
        most[x] = b > most[x] ? b : most[x];
    }
}

CLONES
static void fill(float *restrict low, float *restrict high, Py_ssize_t nx)
{
    for (Py_ssize_t x = 0; x < nx; x++) {
        low[x] = INFINITY;
        high[x] = -INFINITY;
    }
}

CLONES
static void differ(const float *least, const float *most, float *restrict out, Py_ssize_t nx)
{
    for (Py_ssize_t x = 0; x < nx; x++)
        out[x] = most[x] >= least[x] ? most[x] - least[x] + 0.0f : 0.0f;
}

static void contrast_row(const float *plane, Py_ssize_t ny, Py_ssize_t nx, Py_ssize_t y, Py_ssize_t reach, float *work,
                         float *out)
{
    float *low = work, *high = low + nx, *least = high + nx, *most = least + nx;
    Py_ssize_t begin = y - reach > 0 ? y - reach : 0, end = y + reach < ny - 1 ? y + reach : ny - 1;
    fill(low, high, nx);
    fill(least, most, nx);
    for (Py_ssize_t row = begin; row <= end; row++)
        narrow(plane + row * nx, low, high, nx);
    for (Py_ssize_t shift = -reach; shift <= reach; shift++)
        if (shift < nx && -shift < nx)
            narrow_line(low, high, shift, least, most, nx);
    differ(least, most, out, nx);
}

#endif

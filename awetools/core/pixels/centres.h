/* The medians of layers, and how many values they have. */
#ifndef AWETOOLS_CENTRES_H
#define AWETOOLS_CENTRES_H

#include "layers.h"

#include <math.h>

/* Compare-exchanges that sort so many layers. */
typedef struct {
    const int16_t *steps;
    Py_ssize_t count;
} Network;

INLINE void sort_lanes(float *restrict block, const int16_t *steps, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        float *low = block + steps[2 * i] * LANES, *high = block + steps[2 * i + 1] * LANES;
        for (int j = 0; j < LANES; j++) {
            float a = low[j], b = high[j];
            low[j] = b < a ? b : a;
            high[j] = b < a ? a : b;
        }
    }
}

INLINE void load_lanes(float *restrict to, int32_t *restrict good, const float *value, const float *weight, int width)
{
    for (int j = 0; j < width; j++) {
        int use = weight[j] > 0.0f;
        to[j] = use ? value[j] : INFINITY;
        good[j] += use;
    }
    for (int j = width; j < LANES; j++)
        to[j] = INFINITY;
}

CLONES
static void centre_lanes(const Layers *layers, Network network, Py_ssize_t row, Py_ssize_t at, int width, int fainter,
                         float *block, float *out, int16_t *number)
{
    int32_t good[LANES] = {0};
    for (Py_ssize_t i = 0; i < layers->count; i++)
        load_lanes(block + i * LANES, good, row_of(layers->values, layers, i, row) + at,
                   row_of(layers->weights, layers, i, row) + at, width);
    sort_lanes(block, network.steps, network.count);
    for (int j = 0; j < width; j++) {
        int n = good[j];
        number[j] = (int16_t)n;
        if (n == 0)
            out[j] = NAN;
        else if (n == 2 && fainter)
            out[j] = block[j] + 0.0f;
        else
            out[j] = 0.5f * block[(n - 1) / 2 * LANES + j] + 0.5f * block[n / 2 * LANES + j] + 0.0f;
    }
}

#endif

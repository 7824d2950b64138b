/* Layers become one image: what is used, what is left out, and what of it is told. */
#ifndef AWETOOLS_COMBINE_H
#define AWETOOLS_COMBINE_H

#include "layers.h"
#include "outliers.h"

/* Bits of a mask, as in mask.py. */
#define OUTSIDE 32
/* What has these bits has light, if not all of it: SATURATED, NONLINEAR. */
#define LIGHT (4 | 256)
#define INTERPOLATED 64
#define CLIPPED 1024

enum { MEAN, CLIP, MEDIAN };

typedef struct {
    int mode;
    const Field *field;
    const Part *parts; /* of the layers */
    const float *factor;
    const float *centre; /* of this row of the rectangle, or NULL */
    const int16_t *number;
    float *sci, *weight;
    int16_t *count, *mask;
    int64_t *tally;
    int32_t *found;
    const int32_t *numbers;
    int64_t room, clipped;
    int32_t y, x;
} Row;

/* What a value is: without weight, used, clipped. */
enum { ABSENT, USED, LEFT_OUT };

typedef struct {
    double sums[LANES], weights[LANES];
    float least[LANES];
    int32_t kept[LANES], every[LANES], clipped[LANES];
} Sums;

/* The square of what is far, in sigma, whatever light is there. */
INLINE void find_limits(const Row *out, Py_ssize_t at, Sums *restrict to, int width)
{
    for (int j = 0; j < width; j++) {
        float reach = GROWN * reach_of(out->field, out->number[at + j]);
        to->least[j] = reach * reach;
    }
}

/* Which lanes of a layer are far from the median; how many. */
INLINE int32_t suspect_lanes(const float *value, const float *weight, const float *centre, const float *least,
                             int32_t *restrict state, int width)
{
    int32_t suspects = 0;
    for (int j = 0; j < width; j++) {
        float away = value[j] - centre[j];
        int32_t far = away * away * weight[j] > least[j];
        state[j] = weight[j] > 0.0f ? USED + far : ABSENT;
        suspects += state[j] == LEFT_OUT;
    }
    return suspects;
}

/* Those that are no outliers after all. */
static void judge(const Row *out, Py_ssize_t layer, Py_ssize_t at, int width, int32_t *state)
{
    for (int j = 0; j < width; j++)
        if (state[j] == LEFT_OUT && !is_left_out(out->field, &out->parts[layer], out->y, out->x + at + j))
            state[j] = USED;
}

INLINE void use_lanes(const float *weight, int32_t *restrict state, int width)
{
    for (int j = 0; j < width; j++)
        state[j] = weight[j] > 0.0f ? USED : ABSENT;
}

INLINE void add_lanes(const float *value, const float *weight, const int16_t *bits, const int32_t *state,
                      Sums *restrict to, int width)
{
    for (int j = 0; j < width; j++) {
        /* Loaded whether used or not, so that the loop has no branches. */
        float w = weight[j], v = value[j];
        w = state[j] == USED ? w : 0.0f;
        v = state[j] == USED ? v : 0.0f;
        to->weights[j] += (double)w;
        to->sums[j] += (double)w * (double)v;
    }
    for (int j = 0; j < width; j++) {
        int32_t own = bits[j];
        to->kept[j] += state[j] == USED;
        to->clipped[j] |= state[j] == LEFT_OUT ? CLIPPED : 0;
        to->every[j] &= state[j] == USED ? own : INTERPOLATED;
    }
}

INLINE int count_lanes(const int32_t *state, int32_t which, int width)
{
    int32_t n = 0;
    for (int j = 0; j < width; j++)
        n += state[j] == which;
    return n;
}

/* Where nothing good is left: the reasons, and the mean of what is light all the same. */
static void empty_pixel(const Layers *layers, Py_ssize_t row, Py_ssize_t x, float *sci, int16_t *mask)
{
    int16_t bits = 0;
    double sum = 0.0;
    int64_t n = 0;
    for (Py_ssize_t i = 0; i < layers->count; i++) {
        int16_t own = bits_of(layers, i, row)[x] & (int16_t)~OUTSIDE;
        bits |= own;
        if (own & LIGHT) {
            sum += (double)row_of(layers->values, layers, i, row)[x];
            n++;
        }
    }
    *sci = n ? (float)(sum / (double)n) : 0.0f;
    *mask = bits ? bits : OUTSIDE;
}

static void note_clipped(Row *out, Py_ssize_t layer, Py_ssize_t x)
{
    if (out->clipped < out->room) {
        int32_t *to = out->found + 3 * out->clipped;
        to[0] = out->y;
        to[1] = out->x + (int32_t)x;
        to[2] = out->numbers[layer];
    }
    out->clipped++;
}

/* Where all are clipped, none is: they do not tell which is right. */
INLINE void keep_all(const Layers *layers, int32_t *states, int width)
{
    int32_t kept[LANES] = {0}, any = 0;
    for (Py_ssize_t i = 0; i < layers->count; i++)
        for (int j = 0; j < width; j++)
            kept[j] |= states[i * LANES + j] == USED;
    for (int j = 0; j < width; j++)
        any |= !kept[j];
    for (Py_ssize_t i = 0; any && i < layers->count; i++)
        for (int j = 0; j < width; j++)
            states[i * LANES + j] = !kept[j] && states[i * LANES + j] ? USED : states[i * LANES + j];
}

/* The planes of the result, where something entered. */
INLINE int put_lanes(const Sums *sums, Row *out, Py_ssize_t at, int width)
{
    int empty = 0;
    const float *centre = out->centre ? out->centre + at : NULL;
    for (int j = 0; j < width; j++) {
        out->sci[at + j] = (float)(sums->sums[j] / sums->weights[j]);
        out->weight[at + j] = (float)sums->weights[j];
    }
    for (int j = 0; out->mode == MEDIAN && j < width; j++) {
        out->sci[at + j] = centre[j];
        out->weight[at + j] = (float)(sums->weights[j] * (double)out->factor[sums->kept[j]]);
    }
    for (int j = 0; j < width; j++) {
        out->count[at + j] = (int16_t)sums->kept[j];
        out->mask[at + j] = (int16_t)(sums->every[j] | sums->clipped[j]);
        empty |= sums->kept[j] == 0;
    }
    return empty;
}

INLINE void combine_some(const Layers *layers, Row *out, Py_ssize_t row, Py_ssize_t at, int width, int32_t *states)
{
    Sums sums;
    int any = 0;
    memset(&sums, 0, sizeof sums);
    for (int j = 0; j < LANES; j++)
        sums.every[j] = INTERPOLATED;
    if (out->mode == CLIP)
        find_limits(out, at, &sums, width);
    for (Py_ssize_t i = 0; i < layers->count; i++) {
        const float *weight = row_of(layers->weights, layers, i, row) + at;
        int32_t *state = states + i * LANES;
        if (out->mode != CLIP)
            use_lanes(weight, state, width);
        else if (suspect_lanes(row_of(layers->values, layers, i, row) + at, weight, out->centre + at, sums.least, state, width))
            judge(out, i, at, width, state);
    }
    if (out->mode == CLIP)
        keep_all(layers, states, width);
    for (Py_ssize_t i = 0; i < layers->count; i++) {
        const int32_t *state = states + i * LANES;
        int left = count_lanes(state, LEFT_OUT, width);
        add_lanes(row_of(layers->values, layers, i, row) + at, row_of(layers->weights, layers, i, row) + at,
                  bits_of(layers, i, row) + at, state, &sums, width);
        out->tally[2 * i] += count_lanes(state, USED, width);
        out->tally[2 * i + 1] += left;
        any |= left;
    }
    if (put_lanes(&sums, out, at, width))
        for (int j = 0; j < width; j++)
            if (sums.kept[j] == 0) {
                out->weight[at + j] = 0.0f;
                empty_pixel(layers, row, at + j, &out->sci[at + j], &out->mask[at + j]);
            }
    for (int j = 0; any && j < width; j++)
        for (Py_ssize_t i = 0; i < layers->count; i++)
            if (states[i * LANES + j] == LEFT_OUT)
                note_clipped(out, i, at + j);
}

/* Loops of a length that the compiler knows are the faster ones. */
CLONES
static void combine_lanes(const Layers *layers, Row *out, Py_ssize_t row, Py_ssize_t at, int width, int32_t *states)
{
    if (width == LANES)
        combine_some(layers, out, row, at, LANES, states);
    else
        combine_some(layers, out, row, at, width, states);
}

#endif

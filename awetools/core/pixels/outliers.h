/* Whether a value of a layer is an outlier; coadd.py says what is computed. */
#ifndef AWETOOLS_OUTLIERS_H
#define AWETOOLS_OUTLIERS_H

#include "kernel.h"

#include <math.h>

/* What noise alone makes of the contrast, in sigma of a value. */
#define NOISE_RANGE 2.0f
/* Times what is allowed where there are two values, of which the sharper one is not to be lost. */
#define OF_TWO 2.0f
/* Beside an outlier this part of the limit is enough: what hits a detector leaves a track. */
#define GROWN 0.6f
/* The fit of a frame about a pixel: pixels each way, and the fewest it takes. */
#define FIT_REACH 2
#define FIT_ROOM ((2 * FIT_REACH + 1) * (2 * FIT_REACH + 1))
#define FIT_LEAST 9
/* What is allowed: times the typical residual (three of five are smaller), the curvature, the contrast;
 * and of what the fit says, times the contrast. */
#define OF_RESIDUAL 3.0f
#define OF_CURVATURE 0.5f
#define OF_CONTRAST 0.25f
#define OF_FIT 2.0f
#define NINTH (1.0f / 9.0f)

/* Planes of medians, contrasts and numbers of good values; pixel (0, 0) of the result is at [above][0] of each. */
typedef struct {
    const float *centre, *contrast;
    const int16_t *number;
    Py_ssize_t rows, above, contrast_above, columns;
    const float *reach;
    Py_ssize_t reaches;
    float fraction;
} Field;

/* A layer, and where its first pixel is in the result. */
typedef struct {
    const float *value, *weight;
    Py_ssize_t rows, columns, y, x;
} Part;

/* Limit in sigma where so many values are good. */
static inline float reach_of(const Field *field, int16_t number)
{
    return (uint16_t)number < field->reaches ? field->reach[(uint16_t)number] : INFINITY;
}

/* What a pixel has over the mean of the 3 x 3 about it, in the medians; nan where one has none. */
static float curvature(const Field *field, Py_ssize_t y, Py_ssize_t x)
{
    y += field->above;
    if (y < 1 || x < 1 || y + 1 >= field->rows || x + 1 >= field->columns)
        return NAN;
    const float *middle = field->centre + y * field->columns + x;
    float sum = 0.0f;
    for (Py_ssize_t dy = -1; dy <= 1; dy++)
        for (Py_ssize_t dx = -1; dx <= 1; dx++)
            sum += middle[dy * field->columns + dx];
    return *middle - sum * NINTH;
}

/* A value less the median; nan without weight. */
static inline float misfit(const Field *field, const Part *part, Py_ssize_t y, Py_ssize_t x, float *weight)
{
    Py_ssize_t row = y - part->y, column = x - part->x;
    if (row < 0 || column < 0 || row >= part->rows || column >= part->columns)
        return NAN;
    if (y + field->above < 0 || x < 0 || y + field->above >= field->rows || x >= field->columns)
        return NAN;
    *weight = part->weight[row * part->columns + column];
    if (!(*weight > 0.0f))
        return NAN;
    return part->value[row * part->columns + column] - field->centre[(y + field->above) * field->columns + x];
}

/* Misfits and curvatures of the pixels about one, and their ratios: as many as there are, then infinite ratios. */
typedef struct {
    int count;
    float ratio[FIT_ROOM], misfit[FIT_ROOM], curvature[FIT_ROOM];
} Samples;

static void take_samples(const Field *field, const Part *part, Py_ssize_t y, Py_ssize_t x, Samples *to)
{
    to->count = 0;
    for (Py_ssize_t dy = -FIT_REACH; dy <= FIT_REACH; dy++)
        for (Py_ssize_t dx = -FIT_REACH; dx <= FIT_REACH; dx++) {
            float weight, curved = curvature(field, y + dy, x + dx);
            if (!(fabsf(curved) < INFINITY))
                continue;
            float away = misfit(field, part, y + dy, x + dx, &weight), ratio = away / curved;
            if (!(fabsf(ratio) < INFINITY))
                continue;
            to->ratio[to->count] = ratio;
            to->misfit[to->count] = away;
            to->curvature[to->count++] = curved;
        }
    for (int i = to->count; i < FIT_ROOM; i++)
        to->ratio[i] = INFINITY;
}

/* The index of each rank; of equal values the first comes first. */
INLINE void find_order(const float *values, int32_t *restrict order)
{
    int32_t rank[FIT_ROOM] = {0};
    for (int j = 0; j < FIT_ROOM; j++)
        for (int i = 0; i < FIT_ROOM; i++)
            rank[i] += (values[j] < values[i]) | ((values[j] == values[i]) & (j < i));
    for (int i = 0; i < FIT_ROOM; i++)
        order[rank[i]] = i;
}

/* The ratio that has half of the curvature on either side. */
INLINE float slope_of(const Samples *samples)
{
    int32_t order[FIT_ROOM];
    double sums[FIT_ROOM], sum = 0.0;
    find_order(samples->ratio, order);
    for (int i = 0; i < samples->count; i++)
        sums[i] = sum += (double)fabsf(samples->curvature[order[i]]);
    int at = 0;
    while (sums[at] < 0.5 * sum)
        at++;
    return samples->ratio[order[at]];
}

/* The residual that three of five are below. */
INLINE float residual_of(const Samples *samples, float slope)
{
    float residuals[FIT_ROOM];
    int32_t order[FIT_ROOM];
    for (int i = 0; i < FIT_ROOM; i++)
        residuals[i] = i < samples->count ? fabsf(samples->misfit[i] - slope * samples->curvature[i]) : INFINITY;
    find_order(residuals, order);
    return residuals[order[3 * samples->count / 5]];
}

/* What light so strong excuses in a frame that departs so far from a fit. */
static inline float excused(float residual, float curved, float light)
{
    float allowed = OF_RESIDUAL * residual + OF_CURVATURE * fabsf(curved) + OF_CONTRAST * light;
    return allowed < light ? allowed : light;
}

/* What a misfit may be by what the rest of the frame there tells. */
CLONES
static float fitted_limit(const Field *field, const Part *part, Py_ssize_t y, Py_ssize_t x, float curved, float least,
                          float light, float share)
{
    Samples samples;
    take_samples(field, part, y, x, &samples);
    if (samples.count < FIT_LEAST)
        return least + share * light;
    float slope = slope_of(&samples), told = slope * curved, most = OF_FIT * field->fraction * light;
    told = told > 0.0f ? told : 0.0f;
    told = told < most ? told : most;
    return least + share * excused(residual_of(&samples, slope), curved, light) + told;
}

/* Whether a value is farther from the median than `part_of` the limit. */
static int is_outlier(const Field *field, const Part *part, Py_ssize_t y, Py_ssize_t x, float part_of)
{
    float weight, away = misfit(field, part, y, x, &weight);
    if (!(fabsf(away) > 0.0f))
        return 0;
    int16_t number = field->number[(y + field->above) * field->columns + x];
    float reach = reach_of(field, number), near = part_of * reach;
    /* Most are within the noise, and need no root. */
    if (!(away * away * weight > 0.999f * near * near))
        return 0;
    float noise = 1.0f / sqrtf(weight), least = reach * noise;
    if (!(fabsf(away) > part_of * least))
        return 0;
    float light = field->contrast[(y + field->contrast_above) * field->columns + x] - NOISE_RANGE * noise;
    light = light > 0.0f ? light : 0.0f;
    float share = number == 2 ? OF_TWO * field->fraction : field->fraction;
    if (away < 0.0f)
        return -away > part_of * (least + share * light);
    float curved = curvature(field, y, x);
    if (!(fabsf(curved) < INFINITY))
        curved = 0.0f;
    /* The fit takes time: only between the most and the least that it can say. */
    if (away > part_of * (least + share * light + OF_FIT * field->fraction * light))
        return 1;
    if (!(away > part_of * (least + share * excused(0.0f, curved, light))))
        return 0;
    return away > part_of * fitted_limit(field, part, y, x, curved, least, light, share);
}

static int beside_outlier(const Field *field, const Part *part, Py_ssize_t y, Py_ssize_t x)
{
    for (Py_ssize_t dy = -1; dy <= 1; dy++)
        for (Py_ssize_t dx = -1; dx <= 1; dx++)
            if ((dy || dx) && is_outlier(field, part, y + dy, x + dx, 1.0f))
                return 1;
    return 0;
}

/* Whether a value is left out: an outlier, or beside one and nearly one. */
static int is_left_out(const Field *field, const Part *part, Py_ssize_t y, Py_ssize_t x)
{
    /* Most are not even nearly one, which spares the neighbours. */
    if (!is_outlier(field, part, y, x, GROWN))
        return 0;
    return is_outlier(field, part, y, x, 1.0f) || beside_outlier(field, part, y, x);
}

#endif

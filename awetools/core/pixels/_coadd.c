/* Layers of resampled frames become one image; coadd.py says what is computed. */
#include "kernel.h"
#include "outliers.h"

#include <stdlib.h>

/* Pixels that are worked on at once. */
#define LANES 64
/* Bits of a mask, as in mask.py. */
#define OUTSIDE 32
#define INTERPOLATED 64
#define CLIPPED 1024

enum { MEAN, CLIP, MEDIAN };

/* Planes of the layers; offsets to the first pixel of the rectangle, and pixels from row to row. */
typedef struct {
    Py_ssize_t count;
    Array *values, *weights, *bits;
    const int64_t *layout;
} Layers;

/* Compare-exchanges that sort so many layers. */
typedef struct {
    const int16_t *steps;
    Py_ssize_t count;
} Network;

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

/* Centres */

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

/* Contrast */

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

/* Combination */

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

/* Where nothing good is left: the reasons, and the mean of what has one. */
static void empty_pixel(const Layers *layers, Py_ssize_t row, Py_ssize_t x, float *sci, int16_t *mask)
{
    int16_t bits = 0;
    double sum = 0.0;
    int64_t n = 0;
    for (Py_ssize_t i = 0; i < layers->count; i++) {
        int16_t own = bits_of(layers, i, row)[x] & (int16_t)~OUTSIDE;
        bits |= own;
        if (own) {
            sum += (double)row_of(layers->values, layers, i, row)[x];
            n++;
        }
    }
    *sci = n ? (float)(sum / (double)n) : 0.0f;
    *mask = n ? bits : OUTSIDE;
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

/* For Python */

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

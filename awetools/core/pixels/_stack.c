/* Median and clipped mean over many frames; the kernels of stack.py, which says what they compute.
 *
 * Pixels are taken LANES at a time: the values of all frames for them lie in one small block, and every
 * step works on all lanes, so that the loops over lanes become vector instructions. A network of
 * compare-exchange steps, made by stack.py, puts the middle values in their place.
 */
#include "kernel.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define LANES 128
/* Floats of one line of the cache. */
#define LINE 16
#if defined(__GNUC__)
#define PREFETCH(place) __builtin_prefetch(place)
#else
#define PREFETCH(place) ((void)0)
#endif
enum { BOTH, LOW_ONLY, HIGH_ONLY };

/* A network: steps of three numbers, low line, high line, which result is needed. */
typedef struct {
    const int16_t *steps;
    Py_ssize_t count;
} Network;

/* What a clip needs to know; a pointer that is NULL is a term that is not there. */
typedef struct {
    Py_ssize_t frames, rows, columns, fixed_rows, gain_rows;
    const float *values, *fixed, *inverse_gain, *weights;
    const unsigned char *use;
    const float *fixed_factors, *signal_factors; /* one a frame */
    int scaled;
    float sigma;
    Network exact, balanced;
} Clip;

static inline void sort_lanes(float *block, Network network)
{
    for (Py_ssize_t s = 0; s < network.count; s++) {
        const int16_t *step = network.steps + 3 * s;
        float *a = block + (Py_ssize_t)step[0] * LANES, *b = block + (Py_ssize_t)step[1] * LANES;
        if (step[2] == LOW_ONLY) {
            for (int i = 0; i < LANES; i++)
                a[i] = b[i] < a[i] ? b[i] : a[i];
        } else if (step[2] == HIGH_ONLY) {
            for (int i = 0; i < LANES; i++)
                b[i] = b[i] < a[i] ? a[i] : b[i];
        } else {
            for (int i = 0; i < LANES; i++) {
                float low = b[i] < a[i] ? b[i] : a[i], high = b[i] < a[i] ? a[i] : b[i];
                a[i] = low;
                b[i] = high;
            }
        }
    }
}

static inline void load_lanes(float *block, const float *values, Py_ssize_t frames, Py_ssize_t plane, int width)
{
    for (Py_ssize_t k = 0; k < frames; k++) {
        /* No processor foresees so many streams: the lanes after these are called for while these are worked on. */
        for (int i = 0; i < LANES; i += LINE)
            PREFETCH(values + k * plane + LANES + i);
        memcpy(block + k * LANES, values + k * plane, (size_t)width * sizeof(float));
        for (int i = width; i < LANES; i++)
            block[k * LANES + i] = 0;
    }
}

CLONES static void median_lanes(float *block, const float *values, Py_ssize_t frames, Py_ssize_t plane,
                                int width, Network network, float *out)
{
    load_lanes(block, values, frames, plane, width);
    int unknown[LANES] = {0};
    for (Py_ssize_t k = 0; k < frames; k++)
        for (int i = 0; i < LANES; i++)
            unknown[i] |= block[k * LANES + i] != block[k * LANES + i];
    sort_lanes(block, network);
    const float *low = block + (frames - 1) / 2 * LANES, *high = block + frames / 2 * LANES;
    int single = low == high;
    for (int i = 0; i < width; i++) {
        float middle = single ? low[i] : (low[i] + high[i]) * 0.5f;
        out[i] = unknown[i] ? NAN : middle + 0.0f;
    }
}

/* The same, twice; whether all of them are finite. */
static inline int load_lanes_twice(float *block, float *copy, const float *values, Py_ssize_t frames,
                                   Py_ssize_t plane)
{
    int odd[LANES] = {0}, any = 0;
    for (Py_ssize_t k = 0; k < frames; k++) {
        const float *from = values + k * plane;
        for (int i = 0; i < LANES; i += LINE)
            PREFETCH(from + LANES + i);
        float *restrict one = block + k * LANES, *restrict other = copy + k * LANES;
        for (int i = 0; i < LANES; i++) {
            float value = from[i];
            odd[i] |= !(fabsf(value) <= FLT_MAX);
            one[i] = value;
            other[i] = value;
        }
    }
    for (int i = 0; i < LANES; i++)
        any |= odd[i];
    return !any;
}

/* Whether a value counts. */
static inline int is_usable(float value, const unsigned char *use, Py_ssize_t at)
{
    return (fabsf(value) <= FLT_MAX) & (use == NULL || use[at] != 0);
}

/* How many values of these lanes do not count. */
static inline int64_t not_usable(const Clip *clip, const float *block, Py_ssize_t first, Py_ssize_t plane,
                                 int width)
{
    int missing[LANES] = {0};
    for (Py_ssize_t k = 0; k < clip->frames; k++) {
        for (int i = 0; i < LANES; i++)
            missing[i] += !(fabsf(block[k * LANES + i]) <= FLT_MAX);
        if (clip->use != NULL) {
            const unsigned char *use = clip->use + k * plane + first;
            for (int i = 0; i < width; i++)
                missing[i] += !use[i] & (fabsf(block[k * LANES + i]) <= FLT_MAX);
        }
    }
    int64_t total = 0;
    for (int i = 0; i < width; i++)
        total += missing[i];
    return total;
}

/* Medians of what counts: the rest goes to the two ends by turns, so that the middle stays where it was. */
static inline void balanced_centre(const Clip *clip, float *block, Py_ssize_t first, Py_ssize_t plane, int width,
                                   float *centre)
{
    int missing[LANES] = {0};
    int n = (int)clip->frames;
    for (int k = 0; k < n; k++) {
        const unsigned char *use = clip->use == NULL ? NULL : clip->use + k * plane + first;
        for (int i = 0; i < width; i++) {
            float *value = block + k * LANES + i;
            int out = !is_usable(*value, use, i);
            float end = missing[i] & 1 ? -INFINITY : INFINITY;
            *value = out ? end : *value;
            missing[i] += out;
        }
    }
    sort_lanes(block, clip->balanced);
    const float *high = block + n / 2 * LANES, *low = n < 2 ? high : high - LANES;
    const float *single = n % 2 ? high : low;
    for (int i = 0; i < width; i++) {
        int count = n - missing[i];
        float middle = count % 2 ? single[i] : (low[i] + high[i]) * 0.5f;
        centre[i] = count ? middle : 0;
    }
}

/* The largest distance from the centre that a value of frame k may have. */
static inline void limits_of(const Clip *clip, Py_ssize_t k, const float *fixed, const float *inverse_gain,
                             const float *centre, int width, float *limit)
{
    float fixed_factor = clip->fixed_factors[k], signal_factor = clip->signal_factors[k];
    for (int i = 0; i < width; i++) {
        float square = fixed[i] * fixed_factor;
        if (inverse_gain != NULL)
            square += (centre[i] > 0 ? centre[i] : 0) * inverse_gain[i] * signal_factor;
        limit[i] = sqrtf(square) * clip->sigma;
    }
}

/* Mean, count of these lanes; how many values were kept. */
CLONES static int64_t clip_lanes(const Clip *clip, float *block, Py_ssize_t row, Py_ssize_t column, int width,
                                 int64_t *usable, float *mean, int16_t *count)
{
    Py_ssize_t plane = clip->rows * clip->columns, first = row * clip->columns + column;
    Py_ssize_t n = clip->frames;
    const float *fixed = clip->fixed + row % clip->fixed_rows * clip->columns + column;
    const float *inverse_gain = NULL;
    if (clip->inverse_gain != NULL)
        inverse_gain = clip->inverse_gain + row % clip->gain_rows * clip->columns + column;
    float centre[LANES] = {0}, limit[LANES] = {0}, total[LANES] = {0}, weight_sum[LANES] = {0};
    int kept[LANES] = {0};

    /* A copy in one piece is left as it is: what all frames lie apart by may be what the cache takes for one place. */
    float *original = block + n * LANES;
    int finite = 0;
    if (width == LANES) {
        finite = load_lanes_twice(block, original, clip->values + first, n, plane);
    } else {
        load_lanes(original, clip->values + first, n, plane, width);
        memcpy(block, original, (size_t)n * LANES * sizeof(float));
    }
    int64_t missing = finite && clip->use == NULL ? 0 : not_usable(clip, block, first, plane, width);
    *usable += n * width - missing;
    if (missing) {
        balanced_centre(clip, block, first, plane, width, centre);
    } else {
        sort_lanes(block, clip->exact);
        const float *low = block + (n - 1) / 2 * LANES, *high = block + n / 2 * LANES;
        int single = low == high;
        for (int i = 0; i < width; i++)
            centre[i] = single ? low[i] : (low[i] + high[i]) * 0.5f;
    }
    for (Py_ssize_t k = 0; k < n; k++) {
        const float *value = original + k * LANES;
        const unsigned char *use = clip->use == NULL ? NULL : clip->use + k * plane + first;
        float weight = clip->weights == NULL ? 1 : clip->weights[k];
        if (k == 0 || clip->scaled)
            limits_of(clip, k, fixed, inverse_gain, centre, width, limit);
        if (missing) {
            for (int i = 0; i < width; i++) {
                float away = value[i] - centre[i];
                int keep = (fabsf(away) <= limit[i]) & is_usable(value[i], use, i);
                total[i] += keep ? away * weight : 0;
                weight_sum[i] += keep ? weight : 0;
                kept[i] += keep;
            }
        } else if (clip->weights == NULL) {
            for (int i = 0; i < LANES; i++) {
                float away = value[i] - centre[i];
                int keep = fabsf(away) <= limit[i];
                total[i] += keep ? away : 0;
                kept[i] += keep;
            }
        } else {
            for (int i = 0; i < LANES; i++) {
                float away = value[i] - centre[i];
                int keep = fabsf(away) <= limit[i];
                total[i] += keep ? away * weight : 0;
                weight_sum[i] += keep ? weight : 0;
                kept[i] += keep;
            }
        }
    }
    int64_t sum = 0;
    for (int i = 0; i < width; i++) {
        float divisor = clip->weights == NULL ? (float)kept[i] : weight_sum[i];
        mean[first + i] = (kept[i] ? total[i] / divisor : total[i]) + centre[i];
        count[first + i] = (int16_t)kept[i];
        sum += kept[i];
    }
    return sum;
}

static const void *data_of(const Array *array) { return array->held ? array->view.buf : NULL; }

static Network network_of(const Array *array)
{
    Network network = {array->view.buf, axis(array, 0)};
    return network;
}

/* Whether all lines of a network are those of a block of so many frames. */
static int network_fits(Network network, Py_ssize_t frames)
{
    for (Py_ssize_t s = 0; s < network.count; s++) {
        const int16_t *step = network.steps + 3 * s;
        if (step[0] < 0 || step[1] < 0 || step[0] >= frames || step[1] >= frames)
            return 0;
    }
    return 1;
}

/* Room for the values of all frames in these lanes, twice. */
static void *lanes_for(Py_ssize_t frames)
{
    void *block = malloc(2 * (size_t)frames * LANES * sizeof(float));
    if (block == NULL)
        PyErr_NoMemory();
    return block;
}

static PyObject *median(PyObject *self, PyObject *args)
{
    PyObject *objects[3], *result = NULL;
    Array values = {0}, steps = {0}, out = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "OOO", &objects[0], &objects[1], &objects[2]))
        return NULL;
    if (take(&values, objects[0], 'f', 2, 0) < 0 || take(&steps, objects[1], 'h', 2, 0) < 0 ||
        take(&out, objects[2], 'f', 1, 1) < 0)
        goto done;
    Py_ssize_t frames = axis(&values, 0), plane = axis(&values, 1);
    if (frames < 1 || axis(&out, 0) != plane || axis(&steps, 1) != 3 || !network_fits(network_of(&steps), frames)) {
        PyErr_SetString(PyExc_ValueError, "the arrays of a median do not fit each other");
        goto done;
    }
    float *block = lanes_for(frames);
    if (block == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t at = 0; at < plane; at += LANES) {
        int width = plane - at < LANES ? (int)(plane - at) : LANES;
        median_lanes(block, (float *)values.view.buf + at, frames, plane, width, network_of(&steps),
                     (float *)out.view.buf + at);
    }
    Py_END_ALLOW_THREADS
    free(block);
    result = Py_NewRef(Py_None);
done:
    release(&values);
    release(&steps);
    release(&out);
    return result;
}

/* The arguments of clip(), in their order: type of the items and number of axes of each. */
enum { VALUES, USE, FIXED, GAIN, FIXED_FACTORS, SIGNAL_FACTORS, WEIGHTS, EXACT, BALANCED, MEAN, COUNT, ARRAYS };
static const char CODES[] = "f?fffffhhfh";
static const int AXES[] = {3, 3, 2, 2, 1, 1, 1, 2, 2, 2, 2};

static int take_clip(Array *arrays, PyObject *given)
{
    for (int i = 0; i < ARRAYS; i++) {
        PyObject *object = PyTuple_GetItem(given, i);
        int optional = i == USE || i == GAIN || i == WEIGHTS;
        if (object == NULL)
            return -1;
        if (optional && object == Py_None)
            continue;
        if (take(&arrays[i], object, CODES[i], AXES[i], i == MEAN || i == COUNT) < 0)
            return -1;
    }
    return 0;
}

static int clip_fits(const Array *arrays, const Clip *clip)
{
    Py_ssize_t n = clip->frames, ny = clip->rows, nx = clip->columns;
    int fits = n > 0 && axis(&arrays[MEAN], 0) == ny && axis(&arrays[MEAN], 1) == nx &&
               axis(&arrays[COUNT], 0) == ny && axis(&arrays[COUNT], 1) == nx;
    if (arrays[USE].held)
        fits &= axis(&arrays[USE], 0) == n && axis(&arrays[USE], 1) == ny && axis(&arrays[USE], 2) == nx;
    fits &= axis(&arrays[FIXED], 1) == nx && (clip->fixed_rows == 1 || clip->fixed_rows == ny);
    if (arrays[GAIN].held)
        fits &= axis(&arrays[GAIN], 1) == nx && (clip->gain_rows == 1 || clip->gain_rows == ny);
    if (arrays[WEIGHTS].held)
        fits &= axis(&arrays[WEIGHTS], 0) == n;
    fits &= axis(&arrays[FIXED_FACTORS], 0) == n && axis(&arrays[SIGNAL_FACTORS], 0) == n;
    fits &= axis(&arrays[EXACT], 1) == 3 && axis(&arrays[BALANCED], 1) == 3;
    return fits && network_fits(clip->exact, n) && network_fits(clip->balanced, n);
}

static Clip clip_of(const Array *arrays, int scaled, float sigma)
{
    const Array *values = &arrays[VALUES];
    Clip clip = {
        .frames = axis(values, 0),
        .rows = axis(values, 1),
        .columns = axis(values, 2),
        .fixed_rows = axis(&arrays[FIXED], 0),
        .gain_rows = arrays[GAIN].held ? axis(&arrays[GAIN], 0) : 1,
        .values = data_of(values),
        .fixed = data_of(&arrays[FIXED]),
        .inverse_gain = data_of(&arrays[GAIN]),
        .weights = data_of(&arrays[WEIGHTS]),
        .use = data_of(&arrays[USE]),
        .fixed_factors = data_of(&arrays[FIXED_FACTORS]),
        .signal_factors = data_of(&arrays[SIGNAL_FACTORS]),
        .scaled = scaled,
        .sigma = sigma,
        .exact = network_of(&arrays[EXACT]),
        .balanced = network_of(&arrays[BALANCED]),
    };
    return clip;
}

static PyObject *clip(PyObject *self, PyObject *args)
{
    PyObject *given, *result = NULL;
    int scaled;
    float sigma;
    Array arrays[ARRAYS];
    (void)self;
    memset(arrays, 0, sizeof arrays);
    if (!PyArg_ParseTuple(args, "O!pf", &PyTuple_Type, &given, &scaled, &sigma))
        return NULL;
    if (take_clip(arrays, given) < 0)
        goto done;
    Clip job = clip_of(arrays, scaled, sigma);
    if (!clip_fits(arrays, &job)) {
        PyErr_SetString(PyExc_ValueError, "the arrays of a clipped mean do not fit each other");
        goto done;
    }
    float *block = lanes_for(job.frames), *mean = arrays[MEAN].view.buf;
    int16_t *count = arrays[COUNT].view.buf;
    if (block == NULL)
        goto done;
    int64_t usable = 0, kept = 0;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t row = 0; row < job.rows; row++)
        for (Py_ssize_t at = 0; at < job.columns; at += LANES) {
            int width = job.columns - at < LANES ? (int)(job.columns - at) : LANES;
            kept += clip_lanes(&job, block, row, at, width, &usable, mean, count);
        }
    Py_END_ALLOW_THREADS
    free(block);
    result = PyLong_FromLongLong(usable - kept);
done:
    for (int i = 0; i < ARRAYS; i++)
        release(&arrays[i]);
    return result;
}

static PyMethodDef methods[] = {
    {"median", median, METH_VARARGS, "median(values[n, m], steps[s, 3], out[m])"},
    {"clip", clip, METH_VARARGS, "clip((values, use, fixed, inverse_gain, factors of both, weights, networks, mean, "
                                 "count), scaled, sigma) -> values rejected"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_stack", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__stack(void) { return PyModule_Create(&module); }

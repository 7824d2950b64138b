/* The two loops of the search for cosmic rays: which pixels stand out, and what the medians say of them.
 *
 * `candidates` runs over every pixel, `judge` over the few that it names. The numpy twins in cosmic.py do
 * the same operations in the same order on float32. The frame is mirrored by MARGIN pixels on all sides,
 * and all its values are finite.
 */
#include "kernel.h"

#include <math.h>

#define MARGIN 3
#define LOW_RANK 12
#define HOLE_SIGMA 2.0f
#define FIRM_SIGMA 2.0f
#define FREE 0

static inline float least(float a, float b) { return a < b ? a : b; }
static inline float most(float a, float b) { return a > b ? a : b; }
static inline float positive(float a) { return a > 0.0f ? a : 0.0f; }

/* Positive parts of the Laplacian of the four quarters of a pixel, averaged. */
static inline float laplacian(const float *below, const float *row, const float *above, ptrdiff_t x)
{
    float centre = row[x] * 2.0f, up = above[x], down = below[x], left = row[x - 1], right = row[x + 1];
    float total = positive(centre - up - left);
    total += positive(centre - up - right);
    total += positive(centre - down - left);
    total += positive(centre - down - right);
    return total * 0.25f;
}

CLONES static void flag_row(const float *restrict row, ptrdiff_t width, const uint8_t *restrict state,
                            const float *restrict sky, const float *restrict per_gain,
                            const float *restrict read_variance, float factor, uint8_t *restrict flags,
                            ptrdiff_t nx)
{
    for (ptrdiff_t x = 0; x < nx; x++) {
        float value = laplacian(row - width, row, row + width, x);
        float variance = read_variance[x] + positive(sky[x]) * per_gain[x];
        flags[x] = (uint8_t)((value * value > factor * variance) & (state[x] == FREE));
    }
}

static PyObject *candidates(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *object[6];
    float factor;
    if (!PyArg_ParseTuple(arguments, "OOOOOfO", &object[0], &object[1], &object[2], &object[3], &object[4],
                          &factor, &object[5]))
        return NULL;
    Array array[6] = {0};
    const char *codes = "fBfffB";
    PyObject *result = NULL;
    for (int k = 0; k < 6; k++)
        if (take(&array[k], object[k], codes[k], 2, k == 5) < 0)
            goto done;
    ptrdiff_t ny = axis(&array[5], 0), nx = axis(&array[5], 1), width = nx + 2 * MARGIN;
    for (int k = 0; k < 5; k++) {
        ptrdiff_t rows = axis(&array[k], 0), columns = axis(&array[k], 1);
        int fits = k < 2 ? rows == ny + 2 * MARGIN && columns == width : (rows == ny || rows == 1) && columns == nx;
        if (!fits) {
            PyErr_SetString(PyExc_ValueError, "arrays of different shapes");
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    for (ptrdiff_t y = 0; y < ny; y++) {
        ptrdiff_t start = (y + MARGIN) * width + MARGIN;
        const float *noise[3];
        for (int k = 0; k < 3; k++)
            noise[k] = (const float *)array[2 + k].view.buf + (axis(&array[2 + k], 0) == 1 ? 0 : y * nx);
        flag_row((const float *)array[0].view.buf + start, width, (const uint8_t *)array[1].view.buf + start,
                 noise[0], noise[1], noise[2], factor, (uint8_t *)array[5].view.buf + y * nx, nx);
    }
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    for (int k = 0; k < 6; k++)
        release(&array[k]);
    return result;
}

static inline float median3(float a, float b, float c) { return most(least(a, b), least(most(a, b), c)); }

static inline float median5(float a, float b, float c, float d, float e)
{
    /* Neither the smallest nor the largest of four is the median of five. */
    float low = most(least(a, b), least(c, d)), high = least(most(a, b), most(c, d));
    return median3(low, high, e);
}

/* Median of the medians of the rows of 5 x 5 pixels; rows are `width` apart. */
static float row_median(const float *corner, ptrdiff_t width)
{
    float row[5];
    for (int j = 0; j < 5; j++) {
        const float *p = corner + j * width;
        row[j] = median5(p[0], p[1], p[2], p[3], p[4]);
    }
    return median5(row[0], row[1], row[2], row[3], row[4]);
}

/* The value of rank LOW_RANK among 7 x 7 pixels: the largest of the lowest ones, which are kept in order. */
static float low_level(const float *corner, ptrdiff_t width)
{
    float lowest[LOW_RANK + 1];
    int held = 0;
    for (int j = 0; j < 7; j++)
        for (int i = 0; i < 7; i++) {
            float value = corner[j * width + i];
            if (held > LOW_RANK && value >= lowest[LOW_RANK])
                continue;
            int k = held > LOW_RANK ? LOW_RANK : held++;
            for (; k > 0 && lowest[k - 1] > value; k--)
                lowest[k] = lowest[k - 1];
            lowest[k] = value;
        }
    return lowest[LOW_RANK];
}

/* The smallest of the medians of three pixels across a pixel. */
static float narrowest(const float *p, ptrdiff_t width)
{
    float across = median3(p[-1], p[1], p[0]), along = median3(p[-width], p[width], p[0]);
    float falling = median3(p[-width - 1], p[width + 1], p[0]), rising = median3(p[-width + 1], p[width - 1], p[0]);
    return least(least(across, along), least(falling, rising));
}

/* Sigma of a pixel whose half Laplacian is `contrast` times the structure around it, else 0; `firm` if by far. */
static float sigma_of(const float *p, ptrdiff_t width, float variance, float per_gain, float factor,
                      float contrast, float scatter, uint8_t *firm)
{
    float centre = laplacian(p - width, p, p + width, 0);
    if (!(centre * centre > factor * variance))
        return 0.0f;
    float around[25];
    for (int j = 0; j < 5; j++) {
        const float *row = p + (j - 2) * width;
        for (int i = 0; i < 5; i++)
            around[5 * j + i] = laplacian(row - width, row, row + width, i - 2);
    }
    float level = positive(row_median(p - 2 * width - 2, width));
    float noise = sqrtf(variance + level * per_gain);
    float low = low_level(p - 3 * width - 3, width), floor = low - HOLE_SIGMA * noise, filled[9];
    for (int k = 0; k < 9; k++)
        filled[k] = most(p[(k / 3 - 1) * width + k % 3 - 1], floor);
    float sharp = laplacian(filled, filled + 3, filled + 6, 1) - row_median(around, 5);
    float excess = 0.5f * sharp - contrast * (narrowest(p, width) - low);
    if (!(excess > 0.0f))
        return 0.0f;
    *firm = excess > FIRM_SIGMA * noise;
    return sharp / (scatter * noise);
}

static PyObject *judge(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *object[6];
    float factor, contrast;
    if (!PyArg_ParseTuple(arguments, "OOOOffOO", &object[0], &object[1], &object[2], &object[3], &factor,
                          &contrast, &object[4], &object[5]))
        return NULL;
    Array array[6] = {0};
    const char *codes = "fqfffB";
    PyObject *result = NULL;
    for (int k = 0; k < 6; k++)
        if (take(&array[k], object[k], codes[k], k ? 1 : 2, k >= 4) < 0)
            goto done;
    const float *work = array[0].view.buf, *variance = array[2].view.buf, *per_gain = array[3].view.buf;
    const int64_t *at = array[1].view.buf;
    float *sigma = array[4].view.buf;
    uint8_t *firm = array[5].view.buf;
    ptrdiff_t rows = axis(&array[0], 0), width = axis(&array[0], 1), count = axis(&array[1], 0);
    int fits = 1;
    for (int k = 2; k < 6; k++)
        fits = fits && axis(&array[k], 0) == count;
    for (ptrdiff_t k = 0; fits && k < count; k++) {
        ptrdiff_t y = at[k] < 0 ? -1 : at[k] / width, x = at[k] < 0 ? -1 : at[k] % width;
        fits = y >= MARGIN && y < rows - MARGIN && x >= MARGIN && x < width - MARGIN;
    }
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "lists of different lengths, or places in the margin");
        goto done;
    }
    float scatter = (float)(2.0 * sqrt(1.25));
    Py_BEGIN_ALLOW_THREADS
    for (ptrdiff_t k = 0; k < count; k++)
        sigma[k] = sigma_of(work + at[k], width, variance[k], per_gain[k], factor, contrast, scatter, &firm[k]);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    for (int k = 0; k < 6; k++)
        release(&array[k]);
    return result;
}

static PyMethodDef methods[] = {
    {"candidates", candidates, METH_VARARGS, "Flag free pixels whose squared Laplacian exceeds factor x variance."},
    {"judge", judge, METH_VARARGS, "Significance of pixels of the mirrored frame, 0 where not sharp, and whether it is firm."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cosmic", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__cosmic(void) { return PyModule_Create(&module); }

/* Clipped statistics of the blocks of an image, and a coarse map made an image; smooth.py says what they compute. */
#include "kernel.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/* At most; blocks are of some thousand values, and more buckets would take longer than the values. */
#define DIGIT_BITS 9
#define BUCKETS (1 << DIGIT_BITS)
#define ITERATIONS 8

/* Room for one block: its values, keys twice over, and sums up to each place. */
typedef struct {
    float *values;
    uint32_t *one, *other;
    double *first, *second;
    double reference;
    int size;
} Block;

typedef struct {
    double clip_sigma, quartiles_per_sigma, truncation, mode_reach;
} Rules;

/* How many bits a number has. */
static int bits_of(uint32_t number)
{
    int bits = 0;
    for (; number; number >>= 1)
        bits++;
    return bits;
}

/* One pass of a sort: stable, by the digit at this place. */
static void sort_by_digit(const uint32_t *from, uint32_t *to, int size, int shift, int buckets)
{
    int32_t places[BUCKETS] = {0}, before = 0;
    uint32_t digit = (uint32_t)buckets - 1;
    for (int i = 0; i < size; i++)
        places[from[i] >> shift & digit]++;
    for (int bucket = 0; bucket < buckets; bucket++) {
        int32_t here = places[bucket];
        places[bucket] = before;
        before += here;
    }
    for (int i = 0; i < size; i++)
        to[places[from[i] >> shift & digit]++] = from[i];
}

/* Sort by digits, the lowest first, of the distances from the least value: those have few bits. */
static void sort_block(Block *block)
{
    uint32_t *one = block->one, *other = block->other, least = UINT32_MAX, most = 0;
    int size = block->size;
    for (int i = 0; i < size; i++) {
        one[i] = key_of(block->values[i]);
        least = one[i] < least ? one[i] : least;
        most = one[i] > most ? one[i] : most;
    }
    for (int i = 0; i < size; i++)
        one[i] -= least;
    int bits = bits_of(most - least), digits = (bits + DIGIT_BITS - 1) / DIGIT_BITS;
    int width = digits ? (bits + digits - 1) / digits : 0;
    for (int digit = 0; digit < digits; digit++) {
        sort_by_digit(one, other, size, digit * width, 1 << width);
        uint32_t *swap = one;
        one = other;
        other = swap;
    }
    for (int i = 0; i < size; i++)
        block->values[i] = value_of(one[i] + least);
}

/* How many of the sorted values are below a bound (or not above it, where `equal` is set). */
static int place_of(const Block *block, float bound, int equal)
{
    int low = 0, high = block->size;
    while (low < high) {
        int middle = (low + high) / 2;
        float value = block->values[middle];
        if (value < bound || (equal && value == bound))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void add_up(Block *block)
{
    double first = 0, second = 0;
    block->reference = block->values[block->size / 2];
    block->first[0] = block->second[0] = 0;
    for (int i = 0; i < block->size; i++) {
        double away = block->values[i] - block->reference;
        first += away;
        second += away * away;
        block->first[i + 1] = first;
        block->second[i + 1] = second;
    }
}

static double mean_and_stdev(const Block *block, int begin, int end, double *stdev)
{
    double n = end - begin, shift = (block->first[end] - block->first[begin]) / n;
    double square = block->second[end] - block->second[begin];
    double variance = (square - n * shift * shift) / (n > 2 ? n - 1 : 1);
    *stdev = sqrt(variance > 0 ? variance : 0);
    return block->reference + shift;
}

static double middle_of(const Block *block, int first, int last)
{
    int n = last - first;
    return 0.5 * ((double)block->values[first + (n - 1) / 2] + (double)block->values[first + n / 2]);
}

/* The median, interpolated within a run of equal values. */
static double tied_middle(const Block *block, int first, int last)
{
    double middle = middle_of(block, first, last);
    int begin = place_of(block, (float)middle, 0), end = place_of(block, (float)middle, 1);
    if (!(begin > first && end < last && end > begin + 1))
        return middle;
    double low = 0.5 * ((double)block->values[begin - 1] + middle);
    double high = 0.5 * (middle + (double)block->values[end]);
    return low + (high - low) * ((0.5 * (first + last) - begin) / (end - begin));
}

static int clip_block(Block *block, const Rules *rules, double *median, double *mode, double *stdev)
{
    int first = 0, last = block->size;
    sort_block(block);
    add_up(block);
    float quartiles = block->values[3 * last / 4] - block->values[last / 4];
    double scale = quartiles / rules->quartiles_per_sigma;
    if (!(scale > 0))
        mean_and_stdev(block, first, last, &scale);
    for (int iteration = 0; iteration < ITERATIONS; iteration++) {
        double centre = middle_of(block, first, last);
        int begin = place_of(block, (float)(centre - rules->clip_sigma * scale), 0);
        int end = place_of(block, (float)(centre + rules->clip_sigma * scale), 1);
        int same = end <= begin || (begin == first && end == last);
        if (same && iteration)
            break;
        if (!same) {
            first = begin;
            last = end;
        }
        mean_and_stdev(block, first, last, &scale);
        scale /= rules->truncation;
    }
    double mean = mean_and_stdev(block, first, last, stdev);
    *stdev /= rules->truncation;
    *median = tied_middle(block, first, last);
    *mode = fabs(mean - *median) < rules->mode_reach * *stdev ? 2.5 * *median - 1.5 * mean : *median;
    return last - first;
}

static int load_block(float *values, const float *image, const uint8_t *use, Py_ssize_t row_step, Py_ssize_t rows,
                      Py_ssize_t columns)
{
    int size = 0;
    for (Py_ssize_t y = 0; y < rows; y++)
        for (Py_ssize_t x = 0; x < columns; x++) {
            float value = image[y * row_step + x];
            values[size] = value;
            size += (fabsf(value) <= FLT_MAX) & (use == NULL || use[y * row_step + x] != 0);
        }
    return size;
}

enum { IMAGE, USE, Y_EDGES, X_EDGES, MEDIAN, MODE, STDEV, COUNT, ARRAYS };
static const char CODES[] = "f?qqdddq";
static const int AXES[] = {2, 2, 1, 1, 2, 2, 2, 2};

static int take_all(Array *arrays, PyObject *given)
{
    for (int i = 0; i < ARRAYS; i++) {
        PyObject *object = PyTuple_GetItem(given, i);
        if (object == NULL)
            return -1;
        if (i == USE && object == Py_None)
            continue;
        if (take(&arrays[i], object, CODES[i], AXES[i], i >= MEDIAN) < 0)
            return -1;
    }
    return 0;
}

/* Whether the edges rise from 0 to the length. */
static int edges_fit(const Array *edges, Py_ssize_t length)
{
    const int64_t *at = edges->view.buf;
    Py_ssize_t count = axis(edges, 0);
    for (Py_ssize_t i = 1; i < count; i++)
        if (at[i] < at[i - 1])
            return 0;
    return count > 1 && at[0] == 0 && at[count - 1] == length;
}

/* Of every `step` rows of the image one counts; the edges are among those. */
static int all_fit(const Array *arrays, Py_ssize_t step)
{
    int fits = step > 0 && edges_fit(&arrays[Y_EDGES], (axis(&arrays[IMAGE], 0) + step - 1) / step) &&
               edges_fit(&arrays[X_EDGES], axis(&arrays[IMAGE], 1));
    for (int i = MEDIAN; i < ARRAYS; i++)
        fits &= axis(&arrays[i], 0) == axis(&arrays[Y_EDGES], 0) - 1 &&
                axis(&arrays[i], 1) == axis(&arrays[X_EDGES], 0) - 1;
    if (arrays[USE].held)
        fits &= axis(&arrays[USE], 0) == axis(&arrays[IMAGE], 0) && axis(&arrays[USE], 1) == axis(&arrays[IMAGE], 1);
    return fits;
}

static Py_ssize_t longest(const Array *edges)
{
    const int64_t *at = edges->view.buf;
    Py_ssize_t most = 0;
    for (Py_ssize_t i = 1; i < axis(edges, 0); i++)
        most = at[i] - at[i - 1] > most ? at[i] - at[i - 1] : most;
    return most;
}

static void all_blocks(const Array *arrays, Block *block, const Rules *rules, double least_fraction, Py_ssize_t step)
{
    const int64_t *ys = arrays[Y_EDGES].view.buf, *xs = arrays[X_EDGES].view.buf;
    const float *image = arrays[IMAGE].view.buf;
    const uint8_t *use = arrays[USE].held ? arrays[USE].view.buf : NULL;
    double *median = arrays[MEDIAN].view.buf, *mode = arrays[MODE].view.buf, *stdev = arrays[STDEV].view.buf;
    int64_t *count = arrays[COUNT].view.buf;
    Py_ssize_t row_step = step * axis(&arrays[IMAGE], 1), bx = axis(&arrays[X_EDGES], 0) - 1, at = 0;
    double widest = (double)longest(&arrays[X_EDGES]);
    for (Py_ssize_t j = 0; j + 1 < axis(&arrays[Y_EDGES], 0); j++)
        for (Py_ssize_t i = 0; i < bx; i++, at++) {
            Py_ssize_t start = ys[j] * row_step + xs[i];
            block->size = load_block(block->values, image + start, use == NULL ? NULL : use + start, row_step,
                                     ys[j + 1] - ys[j], xs[i + 1] - xs[i]);
            double least = least_fraction * ((double)(ys[j + 1] - ys[j]) * widest);
            if (block->size < (least > 4 ? least : 4))
                median[at] = mode[at] = stdev[at] = NAN, count[at] = 0;
            else
                count[at] = clip_block(block, rules, &median[at], &mode[at], &stdev[at]);
        }
}

static PyObject *blocks(PyObject *self, PyObject *args)
{
    PyObject *given, *result = NULL;
    Array arrays[ARRAYS];
    Rules rules;
    double least_fraction;
    Py_ssize_t step;
    (void)self;
    memset(arrays, 0, sizeof arrays);
    if (!PyArg_ParseTuple(args, "O!dddddn", &PyTuple_Type, &given, &rules.clip_sigma, &rules.quartiles_per_sigma,
                          &rules.truncation, &rules.mode_reach, &least_fraction, &step))
        return NULL;
    if (take_all(arrays, given) < 0)
        goto done;
    if (!all_fit(arrays, step)) {
        PyErr_SetString(PyExc_ValueError, "the arrays of the blocks do not fit each other");
        goto done;
    }
    size_t most = (size_t)longest(&arrays[Y_EDGES]) * (size_t)longest(&arrays[X_EDGES]) + 1;
    char *room = malloc(most * (2 * sizeof(double) + 3 * sizeof(float)) + 2 * sizeof(double));
    if (room == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Block block = {.first = (double *)room};
    block.second = block.first + most + 1;
    block.values = (float *)(block.second + most + 1);
    block.one = (uint32_t *)(block.values + most);
    block.other = block.one + most;
    Py_BEGIN_ALLOW_THREADS
    all_blocks(arrays, &block, &rules, least_fraction, step);
    Py_END_ALLOW_THREADS
    free(room);
    result = Py_NewRef(Py_None);
done:
    for (int i = 0; i < ARRAYS; i++)
        release(&arrays[i]);
    return result;
}

CLONES static void mix_rows(const double *const *rows, const double *weights, float *out, Py_ssize_t nx)
{
    const double *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3];
    double wa = weights[0], wb = weights[1], wc = weights[2], wd = weights[3];
    for (Py_ssize_t x = 0; x < nx; x++)
        out[x] = (float)(((a[x] * wa + b[x] * wb) + c[x] * wc) + d[x] * wd);
}

static PyObject *mix(PyObject *self, PyObject *args)
{
    PyObject *objects[4], *result = NULL;
    Array wide = {0}, at = {0}, weights = {0}, out = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOO", &objects[0], &objects[1], &objects[2], &objects[3]))
        return NULL;
    if (take(&wide, objects[0], 'd', 2, 0) < 0 || take(&at, objects[1], 'q', 2, 0) < 0 ||
        take(&weights, objects[2], 'd', 2, 0) < 0 || take(&out, objects[3], 'f', 2, 1) < 0)
        goto done;
    Py_ssize_t ny = axis(&out, 0), nx = axis(&out, 1), fits = axis(&wide, 1) == nx;
    fits = fits && axis(&at, 0) == ny && axis(&at, 1) == 4 && axis(&weights, 0) == ny && axis(&weights, 1) == 4;
    for (Py_ssize_t i = 0; fits && i < 4 * ny; i++)
        fits = ((int64_t *)at.view.buf)[i] >= 0 && ((int64_t *)at.view.buf)[i] < axis(&wide, 0);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the map and its places do not fit the image");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t y = 0; y < ny; y++) {
        const double *rows[4];
        for (int k = 0; k < 4; k++)
            rows[k] = (const double *)wide.view.buf + ((int64_t *)at.view.buf)[4 * y + k] * nx;
        mix_rows(rows, (const double *)weights.view.buf + 4 * y, (float *)out.view.buf + y * nx, nx);
    }
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    release(&wide);
    release(&at);
    release(&weights);
    release(&out);
    return result;
}

static PyMethodDef methods[] = {
    {"blocks", blocks, METH_VARARGS,
     "blocks((image, use, y edges, x edges, median, mode, stdev, count), sigma, quartiles, truncation, reach, least, row step)"},
    {"mix", mix, METH_VARARGS, "mix(map[blocks, nx], places[ny, 4], weights[ny, 4], out[ny, nx])"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_smooth", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__smooth(void) { return PyModule_Create(&module); }

/* One pass over the pixels of an image for all its statistics, and sums of its rows and columns; see stats.py.
 *
 * Sums are taken in LANES lanes (value i goes to lane i % LANES, in order), so that the loops become vector
 * instructions and the numpy twin can add in the same order.
 */
#include "kernel.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define LANES 16
/* Values of a sum; a multiple of BLOCK, which is what is worked on at once. */
#define SUM_BLOCK 65536
#define BLOCK 2048
#define CHUNK 32

/* Values within two bounds, copied out for an exact order statistic; how many are below them, and below `floor`. */
typedef struct {
    float floor, low, high, *found;
    Py_ssize_t room, under, below, inside;
} Bracket;

typedef struct {
    float low, high;
    int whole; /* whether sums and extremes of all values are wanted, not only those between low and high */
    int64_t count, kept;
    float least, most;
    Bracket middle;
} Survey;

/* What counts, and not-a-number, with which every comparison is false, for what does not. */
CLONES static void usable(const float *values, const uint8_t *use, float *block, int width)
{
    if (use == NULL)
        for (int i = 0; i < width; i++)
            block[i] = fabsf(values[i]) <= FLT_MAX ? values[i] : NAN;
    else
        for (int i = 0; i < width; i++)
            block[i] = (fabsf(values[i]) <= FLT_MAX) & (use[i] != 0) ? values[i] : NAN;
    for (int i = width; i < BLOCK; i++)
        block[i] = NAN;
}

CLONES static int add_lanes(const float *block, double reference, float low, float high, double *sums,
                            double *squares)
{
    double sum[LANES], square[LANES];
    int count[LANES] = {0}, total = 0;
    memcpy(sum, sums, sizeof sum);
    memcpy(square, squares, sizeof square);
    for (int at = 0; at < BLOCK; at += LANES)
        for (int j = 0; j < LANES; j++) {
            float value = block[at + j];
            int in = (value >= low) & (value <= high);
            double away = in ? (double)value - reference : 0;
            sum[j] += away;
            square[j] += away * away;
            count[j] += in;
        }
    memcpy(sums, sum, sizeof sum);
    memcpy(squares, square, sizeof square);
    for (int j = 0; j < LANES; j++)
        total += count[j];
    return total;
}

/* The same for all values and for those between the bounds, which share their distances. */
CLONES static int add_both(const float *block, double reference, float low, float high, double *sums)
{
    double all[LANES], all2[LANES], within[LANES], within2[LANES];
    int count[LANES] = {0}, total = 0;
    memcpy(all, sums, sizeof all);
    memcpy(all2, sums + LANES, sizeof all2);
    memcpy(within, sums + 2 * LANES, sizeof within);
    memcpy(within2, sums + 3 * LANES, sizeof within2);
    for (int at = 0; at < BLOCK; at += LANES)
        for (int j = 0; j < LANES; j++) {
            float value = block[at + j];
            int in = (value >= low) & (value <= high);
            double away = value == value ? (double)value - reference : 0, near = in ? away : 0;
            all[j] += away;
            all2[j] += away * away;
            within[j] += near;
            within2[j] += near * near;
            count[j] += in;
        }
    memcpy(sums, all, sizeof all);
    memcpy(sums + LANES, all2, sizeof all2);
    memcpy(sums + 2 * LANES, within, sizeof within);
    memcpy(sums + 3 * LANES, within2, sizeof within2);
    for (int j = 0; j < LANES; j++)
        total += count[j];
    return total;
}

CLONES static void extremes(const float *block, float *least, float *most)
{
    float low[CHUNK], high[CHUNK];
    for (int j = 0; j < CHUNK; j++) {
        low[j] = *least;
        high[j] = *most;
    }
    for (int at = 0; at < BLOCK; at += CHUNK)
        for (int j = 0; j < CHUNK; j++) {
            low[j] = block[at + j] < low[j] ? block[at + j] : low[j];
            high[j] = block[at + j] > high[j] ? block[at + j] : high[j];
        }
    for (int j = 0; j < CHUNK; j++) {
        *least = low[j] < *least ? low[j] : *least;
        *most = high[j] > *most ? high[j] : *most;
    }
}

/* Count the values of a block in the bracket and below it; how many there are in all. */
CLONES static int count_values(Bracket *bracket, const float *block)
{
    float floor = bracket->floor, low = bracket->low;
    int usable[CHUNK] = {0}, under[CHUNK] = {0}, below[CHUNK] = {0}, total = 0;
    for (int at = 0; at < BLOCK; at += CHUNK)
        for (int j = 0; j < CHUNK; j++) {
            usable[j] += block[at + j] == block[at + j];
            under[j] += block[at + j] < floor;
            below[j] += block[at + j] < low;
        }
    for (int j = 0; j < CHUNK; j++) {
        total += usable[j];
        bracket->under += under[j];
        bracket->below += below[j];
    }
    return total;
}

/* Copy the values in the bracket out. Few are: eight flags at once say whether one is among them. */
CLONES static void fill(Bracket *bracket, const float *block)
{
    float low = bracket->low, high = bracket->high;
    uint8_t flags[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        flags[i] = (block[i] >= low) & (block[i] <= high);
    for (int at = 0; at < BLOCK; at += 8) {
        uint64_t eight;
        memcpy(&eight, flags + at, sizeof eight);
        if (!eight)
            continue;
        for (int i = at; i < at + 8; i++)
            if (flags[i]) {
                if (bracket->inside < bracket->room)
                    bracket->found[bracket->inside] = block[i];
                bracket->inside++;
            }
    }
}

static void look(Survey *survey, const float *values, const uint8_t *use, Py_ssize_t size, double reference,
                 double *sums)
{
    float block[BLOCK];
    for (Py_ssize_t at = 0; at < size; at += BLOCK) {
        int width = size - at < BLOCK ? (int)(size - at) : BLOCK;
        double *here = sums + at / SUM_BLOCK * 4 * LANES;
        usable(values + at, use == NULL ? NULL : use + at, block, width);
        if (survey->whole) {
            survey->kept += add_both(block, reference, survey->low, survey->high, here);
            extremes(block, &survey->least, &survey->most);
        } else
            survey->kept +=
                add_lanes(block, reference, survey->low, survey->high, here + 2 * LANES, here + 3 * LANES);
        survey->count += count_values(&survey->middle, block);
        fill(&survey->middle, block);
    }
}

static PyObject *survey(PyObject *self, PyObject *args)
{
    PyObject *objects[4], *result = NULL;
    Array values = {0}, use = {0}, sums = {0}, found = {0};
    Survey job = {.least = INFINITY, .most = -INFINITY};
    double reference;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOOdffffp", &objects[0], &objects[1], &objects[2], &objects[3], &reference,
                          &job.low, &job.high, &job.middle.low, &job.middle.high, &job.whole))
        return NULL;
    if (take(&values, objects[0], 'f', 1, 0) < 0 || (objects[1] != Py_None && take(&use, objects[1], '?', 1, 0) < 0) ||
        take(&sums, objects[2], 'd', 3, 1) < 0 || take(&found, objects[3], 'f', 1, 1) < 0)
        goto done;
    Py_ssize_t size = axis(&values, 0);
    if ((use.held && axis(&use, 0) != size) || axis(&sums, 0) * SUM_BLOCK < size || axis(&sums, 1) != 4 ||
        axis(&sums, 2) != LANES) {
        PyErr_SetString(PyExc_ValueError, "the arrays of the statistics do not fit each other");
        goto done;
    }
    job.middle.floor = job.low;
    job.middle.room = axis(&found, 0);
    job.middle.found = found.view.buf;
    Py_BEGIN_ALLOW_THREADS
    look(&job, values.view.buf, use.held ? use.view.buf : NULL, size, reference, sums.view.buf);
    Py_END_ALLOW_THREADS
    result = Py_BuildValue("LLffnnn", (long long)job.count, (long long)job.kept, job.least, job.most,
                           job.middle.under, job.middle.below, job.middle.inside);
done:
    release(&values);
    release(&use);
    release(&sums);
    release(&found);
    return result;
}

static PyObject *moments(PyObject *self, PyObject *args)
{
    PyObject *from, *to, *result = NULL;
    Array values = {0}, sums = {0};
    double reference;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOd", &from, &to, &reference))
        return NULL;
    if (take(&values, from, 'f', 1, 0) < 0 || take(&sums, to, 'd', 3, 1) < 0)
        goto done;
    Py_ssize_t size = axis(&values, 0);
    if (axis(&sums, 0) * SUM_BLOCK < size || axis(&sums, 1) != 2 || axis(&sums, 2) != LANES) {
        PyErr_SetString(PyExc_ValueError, "the sums do not fit the values");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    float block[BLOCK];
    for (Py_ssize_t at = 0; at < size; at += BLOCK) {
        int width = size - at < BLOCK ? (int)(size - at) : BLOCK;
        double *here = (double *)sums.view.buf + at / SUM_BLOCK * 2 * LANES;
        usable((const float *)values.view.buf + at, NULL, block, width);
        add_lanes(block, reference, -FLT_MAX, FLT_MAX, here, here + LANES);
    }
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    release(&values);
    release(&sums);
    return result;
}

#define DIGITS 3
#define DIGIT_BITS 11
#define BUCKETS (1 << DIGIT_BITS)

/* Sort by digits, the lowest first: no comparison, no jump. */
static void sort_by_digits(const float *values, Py_ssize_t size, uint32_t *one, uint32_t *other, float *out)
{
    Py_ssize_t places[DIGITS][BUCKETS] = {{0}};
    for (Py_ssize_t i = 0; i < size; i++) {
        one[i] = key_of(values[i]);
        for (int digit = 0; digit < DIGITS; digit++)
            places[digit][one[i] >> digit * DIGIT_BITS & (BUCKETS - 1)]++;
    }
    for (int digit = 0; digit < DIGITS; digit++) {
        Py_ssize_t before = 0;
        for (int bucket = 0; bucket < BUCKETS; bucket++) {
            Py_ssize_t here = places[digit][bucket];
            places[digit][bucket] = before;
            before += here;
        }
        for (Py_ssize_t i = 0; i < size; i++)
            other[places[digit][one[i] >> digit * DIGIT_BITS & (BUCKETS - 1)]++] = one[i];
        uint32_t *swap = one;
        one = other;
        other = swap;
    }
    for (Py_ssize_t i = 0; i < size; i++)
        out[i] = value_of(one[i]);
}

static PyObject *sorted(PyObject *self, PyObject *args)
{
    PyObject *from, *to, *result = NULL;
    Array values = {0}, out = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "OO", &from, &to))
        return NULL;
    if (take(&values, from, 'f', 1, 0) < 0 || take(&out, to, 'f', 1, 1) < 0)
        goto done;
    Py_ssize_t size = axis(&values, 0);
    if (axis(&out, 0) != size) {
        PyErr_SetString(PyExc_ValueError, "the sorted values need as much room");
        goto done;
    }
    uint32_t *work = malloc((size_t)(2 * size + 1) * sizeof(uint32_t));
    if (work == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    sort_by_digits(values.view.buf, size, work, work + size, out.view.buf);
    Py_END_ALLOW_THREADS
    free(work);
    result = Py_NewRef(Py_None);
done:
    release(&values);
    release(&out);
    return result;
}

/* The sum of a row of values, cut off at two bounds, which is also added to the sums of the columns. */
CLONES static double add_row(const float *row, Py_ssize_t width, float low, float high, double *columns)
{
    double lanes[LANES] = {0}, total;
    Py_ssize_t x = 0;
    for (; x + LANES <= width; x += LANES)
        for (int j = 0; j < LANES; j++) {
            float value = row[x + j] < low ? low : row[x + j];
            value = value > high ? high : value;
            lanes[j] += (double)value;
            columns[x + j] += (double)value;
        }
    for (int j = 0; x < width; x++, j++) {
        float value = row[x] < low ? low : row[x];
        value = value > high ? high : value;
        lanes[j] += (double)value;
        columns[x] += (double)value;
    }
    total = lanes[0];
    for (int j = 1; j < LANES; j++)
        total += lanes[j];
    return total;
}

static PyObject *line_sums(PyObject *self, PyObject *args)
{
    PyObject *objects[3], *result = NULL;
    Array image = {0}, rows = {0}, columns = {0};
    float low, high;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOff", &objects[0], &objects[1], &objects[2], &low, &high))
        return NULL;
    if (take(&image, objects[0], 'f', 2, 0) < 0 || take(&rows, objects[1], 'd', 1, 1) < 0 ||
        take(&columns, objects[2], 'd', 1, 1) < 0)
        goto done;
    Py_ssize_t ny = axis(&image, 0), nx = axis(&image, 1);
    if (axis(&rows, 0) != ny || axis(&columns, 0) != nx) {
        PyErr_SetString(PyExc_ValueError, "the sums do not fit the image");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t y = 0; y < ny; y++)
        ((double *)rows.view.buf)[y] =
            add_row((const float *)image.view.buf + y * nx, nx, low, high, columns.view.buf);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    release(&image);
    release(&rows);
    release(&columns);
    return result;
}

static PyMethodDef methods[] = {
    {"survey", survey, METH_VARARGS,
     "survey(values, use, sums, found, reference, low, high, bounds of the bracket, whole)"},
    {"moments", moments, METH_VARARGS, "moments(values, sums[blocks, 2, lanes], reference)"},
    {"sorted", sorted, METH_VARARGS, "sorted(values, out)"},
    {"line_sums", line_sums, METH_VARARGS, "line_sums(image, rows, columns, low, high)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_stats", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__stats(void) { return PyModule_Create(&module); }

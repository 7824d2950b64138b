/* Places interpolated from a grid, and an image interpolated at them; resample.py says what is computed. */
#include "kernel.h"

#include <float.h>
#include <math.h>

/* Of a row of the image this many values are read at once, whatever the kernel. */
#define LANES 8
/* What is known of a footprint: a bad pixel or the image's edge is in it; a bit of the mask is. */
#define BAD 1
#define MARKED 2

/* A vector of the compiler: its operations are those of each lane by itself. */
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef float Half __attribute__((vector_size(LANES / 2 * sizeof(float))));

/* What the image and its neighbours are, and where. */
typedef struct {
    const float *image, *weight;
    const uint8_t *state, *near_by;
    const int16_t *mask;
    Py_ssize_t ny, nx;
} Input;

typedef struct {
    const float *table, *near;
    int taps, steps;
    float min_good, min_share;
    int16_t outside;
} Rules;

typedef struct {
    float value, weight, spread;
    int16_t bits;
} Found;

/* Places: a cubic through four nodes each way. */

CLONES
static void line_of_nodes(const double *nodes, Py_ssize_t count, const double *weights, double *restrict line)
{
    const double *a = nodes, *b = a + count, *c = b + count, *d = c + count;
    double u = weights[0], v = weights[1], w = weights[2], z = weights[3];
    for (Py_ssize_t i = 0; i < count; i++)
        line[i] = u * a[i] + v * b[i] + w * c[i] + z * d[i];
}

CLONES
static void cell(const double *line, const double *t, double *restrict out, Py_ssize_t count)
{
    /* The cubic through the values at -1, 0, 1, 2. */
    double a = line[0], b = line[1], c = line[2], d = line[3];
    double third = (d - a + 3.0 * (b - c)) / 6.0, second = (a + c) * 0.5 - b;
    double first = (c - a) * 0.5 - third;
    for (Py_ssize_t i = 0; i < count; i++)
        out[i] = ((third * t[i] + second) * t[i] + first) * t[i] + b;
}

/* The footprints with a bad pixel */

CLONES
static void judge(const float *image, const float *weight, const int16_t *mask, int16_t zero_bits,
                  uint8_t *restrict state, Py_ssize_t nx)
{
    for (Py_ssize_t x = 0; x < nx; x++)
        state[x] = fabsf(image[x]) <= FLT_MAX ? 0 : BAD;
    if (weight)
        for (Py_ssize_t x = 0; x < nx; x++)
            state[x] |= (weight[x] > 0.0f) & (weight[x] <= FLT_MAX) ? 0 : BAD;
    if (mask)
        for (Py_ssize_t x = 0; x < nx; x++)
            state[x] |= (uint8_t)((mask[x] & zero_bits ? BAD : 0) | (mask[x] ? MARKED : 0));
}

CLONES
static void gather(const uint8_t *state, uint8_t *restrict column, uint8_t *restrict out, Py_ssize_t nx, int taps)
{
    for (Py_ssize_t x = 0; x < nx; x++)
        column[x] = state[x];
    for (int j = 1; j < taps; j++)
        for (Py_ssize_t x = 0; x < nx; x++)
            column[x] |= state[j * nx + x];
    int before = taps / 2 - 1;
    /* A row is read LANES at once: what would be beyond its end takes the slow way. */
    Py_ssize_t last = nx - LANES + before;
    memset(out, BAD | MARKED, (size_t)nx);
    for (Py_ssize_t x = before; x <= last; x++)
        out[x] = column[x - before];
    for (int i = 1; i < taps; i++)
        for (Py_ssize_t x = before; x <= last; x++)
            out[x] |= column[x - before + i];
}

/* One pixel */

INLINE void read_lanes(const float *from, Lanes *to) { memcpy(to, from, sizeof *to); }

INLINE float clean_sum(const float *start, Py_ssize_t nx, const float *kx, const float *ky, int taps)
{
    Lanes lanes = {0}, row;
    Half low, high;
    for (int j = 0; j < taps; j++) {
        read_lanes(start + j * nx, &row);
        lanes += ky[j] * row;
    }
    read_lanes(kx, &row);
    lanes *= row;
    /* What is behind the taps may not even be finite. */
    for (int i = taps; i < LANES; i++)
        lanes[i] = 0.0f;
    memcpy(&low, &lanes, sizeof low);
    memcpy(&high, (const char *)&lanes + sizeof low, sizeof high);
    low += high;
    return (low[0] + low[2]) + (low[1] + low[3]);
}

static inline int is_bad(const Input *in, Py_ssize_t y, Py_ssize_t x)
{
    return y < 0 || y >= in->ny || x < 0 || x >= in->nx || (in->state[y * in->nx + x] & BAD);
}

static inline int16_t bits_at(const Input *in, Py_ssize_t y, Py_ssize_t x, int16_t outside)
{
    if (y < 0 || y >= in->ny || x < 0 || x >= in->nx)
        return outside;
    return in->mask ? in->mask[y * in->nx + x] : 0;
}

/* The weight, by the shares of the four nearest pixels; bad ones have none. */
static inline float near_weight(const Input *in, Py_ssize_t y, Py_ssize_t x, const float *sx, const float *sy)
{
    float total = 0.0f;
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 2; i++) {
            float own = is_bad(in, y + j, x + i) ? 0.0f : in->weight ? in->weight[(y + j) * in->nx + x + i] : 1.0f;
            total += sy[j] * sx[i] * own;
        }
    return total;
}

/* The bits of those of the four nearest pixels that matter; whether one of them is bad. */
static int near_bits(const Input *in, Py_ssize_t y, Py_ssize_t x, const float *sx, const float *sy,
                     const Rules *rules, int16_t *bits)
{
    int bad = 0;
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 2; i++)
            if (sy[j] * sx[i] >= rules->min_share) {
                *bits |= bits_at(in, y + j, x + i, rules->outside);
                bad |= is_bad(in, y + j, x + i);
            }
    return bad;
}

/* The kernel over the good pixels of a footprint that has others too. */
static Found sum_of_good(const Input *in, Py_ssize_t y, Py_ssize_t x, const float *kx, const float *ky,
                         const float *sx, const float *sy, const Rules *rules)
{
    float total = 0.0f, sum = 0.0f, kept = 0.0f, size = 0.0f, square = 0.0f, squares = 0.0f;
    int before = rules->taps / 2 - 1;
    int16_t lost = 0;
    for (int j = 0; j < rules->taps; j++)
        for (int i = 0; i < rules->taps; i++) {
            Py_ssize_t row = y - before + j, column = x - before + i;
            float k = ky[j] * kx[i];
            size += fabsf(k);
            squares += k * k;
            if (is_bad(in, row, column)) {
                lost |= bits_at(in, row, column, rules->outside);
                continue;
            }
            total += k * in->image[row * in->nx + column];
            sum += k;
            kept += fabsf(k);
            square += k * k;
        }
    Found found = {0.0f, 0.0f, 0.0f, 0};
    int bad = near_bits(in, y, x, sx, sy, rules, &found.bits);
    if (!bad && kept >= rules->min_good * size && sum >= 0.5f) {
        float loss = squares * (sum * sum) / square;
        found.value = total / sum;
        found.spread = squares;
        found.weight = near_weight(in, y, x, sx, sy) * (loss < 1.0f ? loss : 1.0f);
        return found;
    }
    Py_ssize_t row = y + (sy[1] >= sy[0]), column = x + (sx[1] >= sx[0]);
    int inside = row >= 0 && row < in->ny && column >= 0 && column < in->nx;
    float nearest = inside ? in->image[row * in->nx + column] : 0.0f;
    found.value = fabsf(nearest) <= FLT_MAX ? nearest : 0.0f;
    found.bits |= lost;
    return found;
}

static inline float squares_of(const float *k, int taps)
{
    float total = 0.0f;
    for (int i = 0; i < taps; i++)
        total += k[i] * k[i];
    return total;
}

typedef struct {
    const double *x, *y;
    float *value, *weight, *spread;
    int16_t *bits;
} Row;

/* Pixels whose places are looked up together. */
#define CHUNK 256
/* Columns of which rows are worked on one after the other: the input's rows under them stay in the cache. */
#define TILE 512

/* Whole pixels before the places, and steps within them; x is NOWHERE outside of the image. */
#define NOWHERE (-2)
typedef struct {
    int32_t x[CHUNK], y[CHUNK], fx[CHUNK], fy[CHUNK];
} Steps;

INLINE void find_steps(const Input *in, const double *x, const double *y, double steps, Steps *to, int count)
{
    double most_x = (double)in->nx - 0.5, most_y = (double)in->ny - 0.5;
    for (int p = 0; p < count; p++) {
        int inside = (x[p] >= -0.5) & (x[p] < most_x) & (y[p] >= -0.5) & (y[p] < most_y);
        double px = inside ? x[p] : 0.0, py = inside ? y[p] : 0.0;
        /* Not negative, so that cutting off is rounding down. */
        int32_t ix = (int32_t)(px + 1.0) - 1, iy = (int32_t)(py + 1.0) - 1;
        to->fx[p] = (int32_t)((px - (double)ix) * steps + 0.5);
        to->fy[p] = (int32_t)((py - (double)iy) * steps + 0.5);
        to->x[p] = inside ? ix : NOWHERE;
        to->y[p] = iy;
    }
}

/* A pixel whose footprint is clean, but for bits of the mask. */
INLINE void clean_pixel(const Input *in, const Rules *rules, const Row *row, Py_ssize_t p, Py_ssize_t y, Py_ssize_t x,
                        const float *kx, const float *ky, const float *sx, const float *sy, int marked, int taps)
{
    int before = taps / 2 - 1;
    int16_t bits = 0;
    row->value[p] = clean_sum(in->image + (y - before) * in->nx + x - before, in->nx, kx, ky, taps);
    row->weight[p] = 1.0f;
    if (in->weight) {
        const float *w = in->weight + y * in->nx + x, *above = w + in->nx;
        row->weight[p] =
            sy[0] * sx[0] * w[0] + sy[0] * sx[1] * w[1] + sy[1] * sx[0] * above[0] + sy[1] * sx[1] * above[1];
    }
    if (marked)
        near_bits(in, y, x, sx, sy, rules, &bits);
    row->bits[p] = bits;
    if (row->spread)
        row->spread[p] = squares_of(ky, taps) * squares_of(kx, taps);
}

static void other_pixel(const Row *row, Py_ssize_t p, Found found)
{
    row->value[p] = found.value;
    row->weight[p] = found.weight;
    row->bits[p] = found.bits;
    if (row->spread)
        row->spread[p] = found.spread;
}

INLINE void one_row(const Input *in, const Rules *rules, const Row *row, Py_ssize_t count, int taps)
{
    Steps to;
    for (Py_ssize_t begin = 0; begin < count; begin += CHUNK) {
        int some = count - begin < CHUNK ? (int)(count - begin) : CHUNK;
        find_steps(in, row->x + begin, row->y + begin, rules->steps, &to, some);
        for (int i = 0; i < some; i++) {
            Py_ssize_t p = begin + i, x = to.x[i], y = to.y[i];
            if (x == NOWHERE) {
                other_pixel(row, p, (Found){0.0f, 0.0f, 0.0f, rules->outside});
                continue;
            }
            const float *kx = rules->table + to.fx[i] * LANES, *ky = rules->table + to.fy[i] * LANES;
            const float *sx = rules->near + to.fx[i] * 2, *sy = rules->near + to.fy[i] * 2;
            int state = x < 0 || y < 0 ? BAD : in->near_by[y * in->nx + x];
            if (state & BAD)
                other_pixel(row, p, sum_of_good(in, y, x, kx, ky, sx, sy, rules));
            else
                clean_pixel(in, rules, row, p, y, x, kx, ky, sx, sy, state, taps);
        }
    }
}

CLONES
static void interpolate_row(const Input *in, const Rules *rules, const Row *row, Py_ssize_t count)
{
    switch (rules->taps) {
    case 2:
        one_row(in, rules, row, count, 2);
        break;
    case 4:
        one_row(in, rules, row, count, 4);
        break;
    case 6:
        one_row(in, rules, row, count, 6);
        break;
    default:
        one_row(in, rules, row, count, 8);
    }
}

/* Areas */

static inline double within(double value) { return value < 0.0 ? 0.0 : value > 1.0 ? 1.0 : value; }

/* The integral of within(). */
static inline double integral(double value)
{
    double inner = within(value);
    return inner * inner * 0.5 + (value > 1.0 ? value - 1.0 : 0.0);
}

/* What lies between an edge and the lower side of the unit square, signed. */
static inline double below_edge(double x1, double y1, double x2, double y2)
{
    double a = within(x1), b = within(x2);
    if (a == b)
        return 0.0;
    double slope = (y2 - y1) / (x2 - x1), ya = y1 + (a - x1) * slope, yb = y1 + (b - x1) * slope;
    double rise = yb - ya;
    double height = fabs(rise) > 1e-6 ? (integral(yb) - integral(ya)) / rise : within(0.5 * (ya + yb));
    return (b - a) * height;
}

static inline double overlap(const double *xs, const double *ys, double x, double y)
{
    double total = 0.0;
    for (int i = 0; i < 4; i++) {
        int next = (i + 1) & 3;
        total += below_edge(xs[i] - x, ys[i] - y, xs[next] - x, ys[next] - y);
    }
    return fabs(total);
}

static inline double least(const double *v)
{
    double a = v[0] < v[1] ? v[0] : v[1], b = v[2] < v[3] ? v[2] : v[3];
    return a < b ? a : b;
}

static inline double most(const double *v)
{
    double a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
}

/* Corners are in coordinates in which pixel i reaches from i to i + 1. */
static Found mean_of_area(const Input *in, const double *xs, const double *ys, double area, const Rules *rules)
{
    Found found = {0.0f, 0.0f, 0.0f, rules->outside};
    double x0 = least(xs), x1 = most(xs), y0 = least(ys), y1 = most(ys);
    if (!(x1 > 0.0 && y1 > 0.0 && x0 < (double)in->nx && y0 < (double)in->ny && area > 0.0))
        return found;
    Py_ssize_t left = x0 > 0.0 ? (Py_ssize_t)x0 : 0, low = y0 > 0.0 ? (Py_ssize_t)y0 : 0;
    Py_ssize_t right = x1 < (double)in->nx ? (Py_ssize_t)x1 : in->nx - 1;
    Py_ssize_t high = y1 < (double)in->ny ? (Py_ssize_t)y1 : in->ny - 1;
    double total = 0.0, kept = 0.0, square = 0.0, weight = 0.0, all = 0.0, whole = 0.0;
    int16_t bits = 0, lost = 0;
    for (Py_ssize_t y = low; y <= high; y++)
        for (Py_ssize_t x = left; x <= right; x++) {
            double part = overlap(xs, ys, (double)x, (double)y);
            Py_ssize_t at = y * in->nx + x;
            int16_t own = in->mask ? in->mask[at] : 0;
            float value = in->image[at];
            if (part >= rules->min_share * area)
                bits |= own;
            whole += part;
            all += fabsf(value) <= FLT_MAX ? part * (double)value : 0.0;
            if (in->state[at] & BAD) {
                if (part > 0.0)
                    lost |= own;
                continue;
            }
            total += part * (double)value;
            kept += part;
            square += part * part;
            weight += part * (double)(in->weight ? in->weight[at] : 1.0f);
        }
    if (!(whole > 0.0))
        return found;
    found.bits = bits;
    if (kept >= rules->min_good * area && kept > 0.0) {
        found.value = (float)(total / kept);
        found.weight = (float)(weight / area);
        found.spread = (float)(square / (kept * area));
        return found;
    }
    found.bits |= lost;
    if (whole < rules->min_good * area)
        found.bits |= rules->outside;
    found.value = (float)(all / whole);
    return found;
}

static void area_row(const Input *in, const Rules *rules, const Row *row, Py_ssize_t columns, Py_ssize_t count)
{
    const double *x = row->x, *y = row->y;
    for (Py_ssize_t p = 0; p < count; p++) {
        Py_ssize_t above = p + columns + 1;
        double xs[4] = {x[p], x[p + 1], x[above + 1], x[above]};
        double ys[4] = {y[p], y[p + 1], y[above + 1], y[above]};
        double area = 0.5 * fabs((xs[2] - xs[0]) * (ys[3] - ys[1]) - (xs[3] - xs[1]) * (ys[2] - ys[0]));
        other_pixel(row, p, mean_of_area(in, xs, ys, area, rules));
    }
}

/* Units */

typedef struct {
    float scale;
    int flux, last;
    const float *gains;
} Units;

/* Entries of the gains for 1 of area, the first being that of 1. */
#define GAIN_STEPS 16.0f

static inline float shared_of(float area, const Units *units)
{
    if (!units->gains || area < 1.0f)
        return area;
    float place = (area - 1.0f) * GAIN_STEPS;
    int i = place < (float)units->last ? (int)place : units->last;
    float below = units->gains[i];
    return below + (place < (float)units->last ? (place - (float)i) * (units->gains[i + 1] - below) : 0.0f);
}

CLONES
static void finish_row(const double *area, const Units *units, float *restrict value, float *restrict weight,
                       float *restrict spread, float *restrict areas, Py_ssize_t count)
{
    for (Py_ssize_t p = 0; p < count; p++) {
        float a = (float)area[p];
        a = fabsf(a) <= FLT_MAX ? a : 0.0f;
        float factor = units->flux ? units->scale * a : units->scale, square = factor * factor;
        float shared = shared_of(a, units), own = weight[p];
        value[p] *= factor;
        if (spread)
            spread[p] *= own > 0.0f ? square / own : 0.0f;
        if (areas)
            areas[p] = a;
        weight[p] = (own > 0.0f) & (shared > 0.0f) ? own * shared / square : 0.0f;
    }
}

/* For Python */

static int same_shape(const Array *one, const Array *other)
{
    return axis(one, 0) == axis(other, 0) && axis(one, 1) == axis(other, 1);
}

static int take_some(Array *array, PyObject *object, char code, int axes, int writable)
{
    array->held = 0;
    return object == Py_None ? 0 : take(array, object, code, axes, writable);
}

static const void *buffer(const Array *array) { return array->held ? array->view.buf : NULL; }

PyDoc_STRVAR(places_doc, "places(nodes, node_rows, weights, starts, t, first_cell, line, out): fill out, and line on the way.");

static PyObject *places(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    enum { NODES, NODE_ROWS, WEIGHTS, STARTS, T, OUT, LINE, COUNT };
    PyObject *given[COUNT], *result = NULL;
    Array arrays[COUNT];
    Py_ssize_t first_cell;

    memset(arrays, 0, sizeof arrays);
    if (!PyArg_ParseTuple(arguments, "OOOOOnOO", &given[NODES], &given[NODE_ROWS], &given[WEIGHTS], &given[STARTS],
                          &given[T], &first_cell, &given[LINE], &given[OUT]))
        return NULL;
    if (take(&arrays[NODES], given[NODES], 'd', 2, 0) < 0 || take(&arrays[NODE_ROWS], given[NODE_ROWS], 'q', 1, 0) < 0 ||
        take(&arrays[WEIGHTS], given[WEIGHTS], 'd', 2, 0) < 0 || take(&arrays[STARTS], given[STARTS], 'q', 1, 0) < 0 ||
        take(&arrays[T], given[T], 'd', 1, 0) < 0 || take(&arrays[LINE], given[LINE], 'd', 1, 1) < 0 ||
        take(&arrays[OUT], given[OUT], 'd', 2, 1) < 0)
        goto done;
    Py_ssize_t rows = axis(&arrays[OUT], 0), columns = axis(&arrays[OUT], 1), gy = axis(&arrays[NODES], 0);
    Py_ssize_t gx = axis(&arrays[NODES], 1), cells = axis(&arrays[STARTS], 0) - 1;
    const int64_t *node_rows = arrays[NODE_ROWS].view.buf, *starts = arrays[STARTS].view.buf;
    int fits = axis(&arrays[NODE_ROWS], 0) == rows && axis(&arrays[WEIGHTS], 0) == rows &&
               axis(&arrays[WEIGHTS], 1) == 4 && axis(&arrays[T], 0) == columns && axis(&arrays[LINE], 0) == gx &&
               cells >= 0 && first_cell >= 0 && first_cell + cells + 3 <= gx;
    for (Py_ssize_t i = 0; fits && i < rows; i++)
        fits = node_rows[i] >= 0 && node_rows[i] + 4 <= gy;
    for (Py_ssize_t i = 0; fits && i < cells; i++)
        fits = starts[i] >= 0 && starts[i] <= starts[i + 1] && starts[i + 1] <= columns;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the nodes do not cover the places");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    double *line = arrays[LINE].view.buf;
    const double *t = arrays[T].view.buf;
    for (Py_ssize_t i = 0; i < rows; i++) {
        double *out = (double *)arrays[OUT].view.buf + i * columns;
        line_of_nodes((const double *)arrays[NODES].view.buf + node_rows[i] * gx, gx,
                      (const double *)arrays[WEIGHTS].view.buf + i * 4, line);
        for (Py_ssize_t c = 0; c < cells; c++)
            cell(line + first_cell + c, t + starts[c], out + starts[c], starts[c + 1] - starts[c]);
    }
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    for (int i = 0; i < COUNT; i++)
        release(&arrays[i]);
    return result;
}

PyDoc_STRVAR(footprints_doc, "footprints(image, weight, mask, zero_bits, taps, padded, column, near_by): fill the last "
                             "three; padded is the state of all pixels, with taps - 1 rows more.");

static PyObject *footprints(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    enum { IMAGE, WEIGHT, MASK, PADDED, NEAR, COLUMN, COUNT };
    PyObject *given[COUNT], *result = NULL;
    Array arrays[COUNT];
    int taps;
    short zero_bits;

    memset(arrays, 0, sizeof arrays);
    if (!PyArg_ParseTuple(arguments, "OOOhiOOO", &given[IMAGE], &given[WEIGHT], &given[MASK], &zero_bits, &taps,
                          &given[PADDED], &given[COLUMN], &given[NEAR]))
        return NULL;
    if (take(&arrays[IMAGE], given[IMAGE], 'f', 2, 0) < 0 || take_some(&arrays[WEIGHT], given[WEIGHT], 'f', 2, 0) < 0 ||
        take_some(&arrays[MASK], given[MASK], 'h', 2, 0) < 0 || take(&arrays[PADDED], given[PADDED], 'B', 2, 1) < 0 ||
        take(&arrays[COLUMN], given[COLUMN], 'B', 1, 1) < 0 || take(&arrays[NEAR], given[NEAR], 'B', 2, 1) < 0)
        goto done;
    Py_ssize_t ny = axis(&arrays[IMAGE], 0), nx = axis(&arrays[IMAGE], 1);
    int fits = taps >= 2 && taps <= LANES && taps % 2 == 0 && same_shape(&arrays[NEAR], &arrays[IMAGE]) &&
               axis(&arrays[PADDED], 0) == ny + taps - 1 && axis(&arrays[PADDED], 1) == nx &&
               axis(&arrays[COLUMN], 0) == nx;
    for (int i = WEIGHT; i <= MASK; i++)
        fits = fits && (!arrays[i].held || same_shape(&arrays[i], &arrays[IMAGE]));
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the planes of an image do not have its shape");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    const float *image = buffer(&arrays[IMAGE]), *weight = buffer(&arrays[WEIGHT]);
    const int16_t *mask = buffer(&arrays[MASK]);
    uint8_t *padded = arrays[PADDED].view.buf, *near_by = arrays[NEAR].view.buf;
    int before = taps / 2 - 1;
    memset(padded, BAD | MARKED, (size_t)(before * nx));
    memset(padded + (before + ny) * nx, BAD | MARKED, (size_t)((taps - 1 - before) * nx));
    for (Py_ssize_t y = 0; y < ny; y++)
        judge(image + y * nx, weight ? weight + y * nx : NULL, mask ? mask + y * nx : NULL, zero_bits,
              padded + (before + y) * nx, nx);
    for (Py_ssize_t y = 0; y < ny; y++)
        gather(padded + y * nx, arrays[COLUMN].view.buf, near_by + y * nx, nx, taps);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    for (int i = 0; i < COUNT; i++)
        release(&arrays[i]);
    return result;
}

enum { IMAGE, WEIGHT, MASK, STATE, NEAR_BY, TABLE, NEAR, X, Y, VALUE, OUT_WEIGHT, BITS, SPREAD, ARRAYS };
static const char CODES[] = "ffhBBffddffhf";
static const int OPTIONAL = 1 << WEIGHT | 1 << MASK | 1 << NEAR_BY | 1 << TABLE | 1 << NEAR | 1 << SPREAD;

/* By area where there is no table: the places are then those of corners. */
static int all_fit(const Array *arrays, const Rules *rules, int by_area)
{
    int fits = by_area || (arrays[NEAR_BY].held && arrays[NEAR].held && rules->taps >= 2 && rules->taps <= LANES &&
                           rules->taps % 2 == 0 && axis(&arrays[TABLE], 1) == LANES && rules->steps > 0 &&
                           axis(&arrays[NEAR], 0) == axis(&arrays[TABLE], 0) && axis(&arrays[NEAR], 1) == 2);
    for (int i = WEIGHT; i <= NEAR_BY; i++)
        fits = fits && (!arrays[i].held || same_shape(&arrays[i], &arrays[IMAGE]));
    for (int i = OUT_WEIGHT; i <= SPREAD; i++)
        fits = fits && (!arrays[i].held || same_shape(&arrays[i], &arrays[VALUE]));
    for (int i = X; i <= Y; i++)
        fits = fits && axis(&arrays[i], 0) == axis(&arrays[VALUE], 0) + by_area &&
               axis(&arrays[i], 1) == axis(&arrays[VALUE], 1) + by_area;
    return fits;
}

static void all_rows(const Array *arrays, const Rules *rules, int by_area)
{
    Input in = {buffer(&arrays[IMAGE]), buffer(&arrays[WEIGHT]), buffer(&arrays[STATE]), buffer(&arrays[NEAR_BY]),
                buffer(&arrays[MASK]),  axis(&arrays[IMAGE], 0), axis(&arrays[IMAGE], 1)};
    Py_ssize_t rows = axis(&arrays[VALUE], 0), columns = axis(&arrays[VALUE], 1);
    for (Py_ssize_t begin = 0; begin < columns; begin += TILE) {
        Py_ssize_t some = columns - begin < TILE ? columns - begin : TILE;
        for (Py_ssize_t i = 0; i < rows; i++) {
            Py_ssize_t place = i * (columns + by_area) + begin, at = i * columns + begin;
            Row row = {(const double *)arrays[X].view.buf + place,
                       (const double *)arrays[Y].view.buf + place,
                       (float *)arrays[VALUE].view.buf + at,
                       (float *)arrays[OUT_WEIGHT].view.buf + at,
                       arrays[SPREAD].held ? (float *)arrays[SPREAD].view.buf + at : NULL,
                       (int16_t *)arrays[BITS].view.buf + at};
            if (by_area)
                area_row(&in, rules, &row, columns, some);
            else
                interpolate_row(&in, rules, &row, some);
        }
    }
}

PyDoc_STRVAR(resample_doc, "resample((image, weight, mask, state, near_by, table, near, x, y, value, out_weight, bits, "
                           "spread), taps, min_good, min_share, outside): fill the last four; by area without a table.");

static PyObject *resample(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *given, *result = NULL;
    Array arrays[ARRAYS];
    Rules rules = {NULL, NULL, 0, 0, 0.0f, 0.0f, 0};

    memset(arrays, 0, sizeof arrays);
    if (!PyArg_ParseTuple(arguments, "O!iffh", &PyTuple_Type, &given, &rules.taps, &rules.min_good, &rules.min_share,
                          &rules.outside))
        return NULL;
    for (int i = 0; i < ARRAYS; i++) {
        PyObject *object = PyTuple_GetItem(given, i);
        if (object == NULL)
            goto done;
        if (object == Py_None && (OPTIONAL >> i & 1))
            continue;
        if (take(&arrays[i], object, CODES[i], 2, i >= VALUE) < 0)
            goto done;
    }
    int by_area = !arrays[TABLE].held;
    rules.table = buffer(&arrays[TABLE]);
    rules.near = buffer(&arrays[NEAR]);
    rules.steps = by_area ? 0 : (int)axis(&arrays[TABLE], 0) - 1;
    if (!all_fit(arrays, &rules, by_area)) {
        PyErr_SetString(PyExc_ValueError, "the planes of a resampled image do not have its shape");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    all_rows(arrays, &rules, by_area);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    for (int i = 0; i < ARRAYS; i++)
        release(&arrays[i]);
    return result;
}

PyDoc_STRVAR(finish_doc, "finish(area, value, weight, spread, areas, gains, scale, flux): apply them, in place.");

static PyObject *finish(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    enum { AREA, OWN_VALUE, OWN_WEIGHT, OWN_SPREAD, AREAS, GAINS, COUNT };
    PyObject *given[COUNT], *result = NULL;
    Array arrays[COUNT];
    Units units = {0};

    memset(arrays, 0, sizeof arrays);
    if (!PyArg_ParseTuple(arguments, "OOOOOOfp", &given[AREA], &given[OWN_VALUE], &given[OWN_WEIGHT],
                          &given[OWN_SPREAD], &given[AREAS], &given[GAINS], &units.scale, &units.flux))
        return NULL;
    if (take(&arrays[AREA], given[AREA], 'd', 2, 0) < 0 || take_some(&arrays[GAINS], given[GAINS], 'f', 1, 0) < 0)
        goto done;
    for (int i = OWN_VALUE; i <= AREAS; i++)
        if (take_some(&arrays[i], given[i], 'f', 2, 1) < 0)
            goto done;
    int fits = arrays[OWN_VALUE].held && arrays[OWN_WEIGHT].held;
    fits = fits && (!arrays[GAINS].held || (axis(&arrays[GAINS], 0) >= 1 && axis(&arrays[GAINS], 0) <= 1 << 20));
    for (int i = OWN_VALUE; i <= AREAS; i++)
        fits = fits && (!arrays[i].held || same_shape(&arrays[i], &arrays[AREA]));
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the planes of a resampled image do not have its shape");
        goto done;
    }
    units.gains = buffer(&arrays[GAINS]);
    units.last = units.gains ? (int)axis(&arrays[GAINS], 0) - 1 : 0;
    Py_BEGIN_ALLOW_THREADS
    finish_row(arrays[AREA].view.buf, &units, arrays[OWN_VALUE].view.buf, arrays[OWN_WEIGHT].view.buf,
               arrays[OWN_SPREAD].held ? arrays[OWN_SPREAD].view.buf : NULL,
               arrays[AREAS].held ? arrays[AREAS].view.buf : NULL, axis(&arrays[AREA], 0) * axis(&arrays[AREA], 1));
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    for (int i = 0; i < COUNT; i++)
        release(&arrays[i]);
    return result;
}

static PyMethodDef methods[] = {{"places", places, METH_VARARGS, places_doc},
                                {"footprints", footprints, METH_VARARGS, footprints_doc},
                                {"resample", resample, METH_VARARGS, resample_doc},
                                {"finish", finish, METH_VARARGS, finish_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_resample", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__resample(void) { return PyModule_Create(&module); }

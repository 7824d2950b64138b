/* Measures of one source after the other on a stamp around it; see sourcestamp.py, whose numpy twin gives the same bits.
 *
 * A stamp holds 2 r + 1 pixels a side: what belongs to a neighbour, is bad or lies outside is replaced by its mirror
 * image about the source. Sums are doubles, in the order of the pixels; those of the Gaussian windows are made of
 * column sums, so that the compiler can make vectors of them.
 */
#include "kernel.h"

#include <math.h>
#include <stdlib.h>

#define BAD 1
#define SATURATED 2

/* States of a stamp's pixel. */
#define NEIGHBOUR 1
#define REFUSED 2
#define OUTSIDE 3
#define WHY 3
#define MISSING 4
#define BURNT 8
#define OWN 16

#define RINGS 100
#define RING_STEPS 10.0
#define KRON_REACH 6.0
#define TABLE_STEPS 64.0
#define TABLE_END 40.0
#define REACH_SIGMA 4.0
#define MOST_STEPS 20
#define CLOSE2 1e-8
#define FIRM 0.02
#define WIDE 1.7
#define INNER 0.6
#define INNER_LEAST 0.8
#define CORE 3.0
#define HALF_STEPS 30
#define HALF_CLOSE 1e-3
#define PETRO_FIRST 2
#define PETRO_LAST 16
#define FOUND_NO_CENTROID 1
#define FOUND_LIMITED 2
#define FOUND_NO_HALF 4
#define FOUND_NO_KRON 8
#define FOUND_NO_PETRO 16
#define FOUND_PETRO_CUT 32
#define COLUMNS 45
#define PI 3.141592653589793
#define ROOT_TWO_PI 2.5066282746310002
#define RING_LOW 8.5
#define RING_HIGH 11.5
#define PLACE 7
#define SETTINGS 10

typedef struct {
    const float *image, *weight;
    const uint8_t *flags;
    const int32_t *segments;
    ptrdiff_t ny, nx;
    const double *table;
    double inverse_gain, noise2, fallback, kron_factor, kron_least, petro_factor, petro_level, sigma, walk, filter;
} Field;

typedef struct {
    float *value, *noise;
    uint8_t *state;
    double *work;
    ptrdiff_t r, width;
    double x, y; /* of the source, in pixels of the stamp */
} Stamp;

typedef struct {
    double flux, variance, area;
    double whole, neighbour, refused, outside, missing, burnt;
} Light;

typedef struct {
    double m, x, y, xx, xy, yy, x4, x2y2, y4;
} Moments;

static inline double least(double a, double b) { return a < b ? a : b; }
static inline double most(double a, double b) { return a > b ? a : b; }

/* exp(-t) for t >= 0, to 1e-11. */
static inline double decay(const double *table, double t)
{
    if (!(t < TABLE_END))
        return 0.0;
    ptrdiff_t k = (ptrdiff_t)(t * TABLE_STEPS);
    double d = t - (double)k / TABLE_STEPS;
    return table[k] * (1.0 - d * (1.0 - d * (0.5 - d * (1.0 / 6.0 - d * (1.0 / 24.0)))));
}

static inline int state_at(const Field *field, ptrdiff_t y, ptrdiff_t x, int32_t name)
{
    if (y < 0 || x < 0 || y >= field->ny || x >= field->nx)
        return OUTSIDE;
    ptrdiff_t at = y * field->nx + x;
    if (field->flags[at] & BAD)
        return REFUSED;
    return field->segments[at] == 0 || field->segments[at] == name ? 0 : NEIGHBOUR;
}

static void fill(const Field *field, Stamp *stamp, double x, double y, int32_t name)
{
    ptrdiff_t r = stamp->r, x0 = (ptrdiff_t)floor(x + 0.5) - r, y0 = (ptrdiff_t)floor(y + 0.5) - r;
    ptrdiff_t twice_x = (ptrdiff_t)floor(2.0 * x + 0.5), twice_y = (ptrdiff_t)floor(2.0 * y + 0.5);
    stamp->width = 2 * r + 1;
    stamp->x = x - (double)x0;
    stamp->y = y - (double)y0;
    for (ptrdiff_t j = 0; j < stamp->width; j++)
        for (ptrdiff_t i = 0; i < stamp->width; i++) {
            ptrdiff_t to = j * stamp->width + i, py = y0 + j, px = x0 + i;
            int state = state_at(field, py, px, name);
            if (state) {
                py = twice_y - py;
                px = twice_x - px;
                if (state_at(field, py, px, name)) {
                    stamp->value[to] = stamp->noise[to] = 0.0f;
                    stamp->state[to] = (uint8_t)(state | MISSING);
                    continue;
                }
            }
            ptrdiff_t at = py * field->nx + px;
            if (!state) {
                state |= field->flags[at] & SATURATED ? BURNT : 0;
                state |= field->segments[at] == name && name ? OWN : 0;
            }
            float value = field->image[at], weight = field->weight[at];
            double variance = weight > 0.0f ? 1.0 / (double)weight : field->fallback;
            stamp->value[to] = value;
            stamp->noise[to] = (float)(field->noise2 * variance + (double)value * field->inverse_gain);
            stamp->state[to] = (uint8_t)state;
        }
}

static inline void count(Light *light, uint8_t state)
{
    light->whole += 1.0;
    light->neighbour += (state & WHY) == NEIGHBOUR ? 1.0 : 0.0;
    light->refused += (state & WHY) == REFUSED ? 1.0 : 0.0;
    light->outside += (state & WHY) == OUTSIDE ? 1.0 : 0.0;
    light->missing += state & MISSING ? 1.0 : 0.0;
    light->burnt += state & BURNT ? 1.0 : 0.0;
}

static inline void add(Light *light, const Stamp *stamp, ptrdiff_t at, double cover)
{
    light->flux += cover * (double)stamp->value[at];
    light->variance += cover * cover * (double)stamp->noise[at];
    light->area += cover;
    count(light, stamp->state[at]);
}

/* How far a pixel reaches into an ellipse of radius k: its edge is a straight line there. */
static inline double covered(const double *shape, double k, double dx, double dy, double rho)
{
    double gx = 2.0 * shape[0] * dx + shape[2] * dy, gy = 2.0 * shape[1] * dy + shape[2] * dx;
    double steep = gx * gx + gy * gy;
    return steep > 0.0 ? least(0.5 + (k - rho) * 2.0 * rho / sqrt(steep), 1.0) : 1.0;
}

static Light isophote(const Stamp *stamp)
{
    Light light = {0};
    for (ptrdiff_t at = 0; at < stamp->width * stamp->width; at++)
        if (stamp->state[at] & OWN)
            add(&light, stamp, at, 1.0);
    return light;
}

/* Pixels from low to high that a length about a centre touches; `cut` if the stamp ends before. */
static inline void span(const Stamp *stamp, double centre, double length, ptrdiff_t *low, ptrdiff_t *high, int *cut)
{
    double first = floor(centre - length + 0.5), last = floor(centre + length + 0.5);
    double end = (double)(stamp->width - 1);
    if (first < 0.0 || last > end)
        *cut = 1;
    *low = (ptrdiff_t)most(first, 0.0);
    *high = (ptrdiff_t)least(last, end);
}

/* Light within `k` ellipses; the edge is a straight line within a pixel. */
static Light ellipse(const Stamp *stamp, const double *shape, double k, int *cut)
{
    Light light = {0};
    double cxx = shape[0], cyy = shape[1], cxy = shape[2], det = cxx * cyy - 0.25 * cxy * cxy;
    ptrdiff_t i0, i1, j0, j1;
    span(stamp, stamp->x, k * sqrt(cyy / det) + 0.5, &i0, &i1, cut);
    span(stamp, stamp->y, k * sqrt(cxx / det) + 0.5, &j0, &j1, cut);
    for (ptrdiff_t j = j0; j <= j1; j++)
        for (ptrdiff_t i = i0; i <= i1; i++) {
            double dx = (double)i - stamp->x, dy = (double)j - stamp->y;
            double cover = covered(shape, k, dx, dy, sqrt(cxx * dx * dx + cyy * dy * dy + cxy * dx * dy));
            if (cover > 0.0)
                add(&light, stamp, j * stamp->width + i, cover);
        }
    return light;
}

/* Integral of sqrt(r^2 - t^2) from 0 to t. */
static inline double arc(double r, double t)
{
    return 0.5 * (t * sqrt(most(r * r - t * t, 0.0)) + r * r * asin(most(least(t / r, 1.0), -1.0)));
}

/* Area of the circle between the axes and (x, y), with the sign of x y; `under` is the arc's integral to x, `across`
 * where the circle crosses y, `under_across` the integral to there. */
static inline double corner(double r2, double r, double x, double y, double under, double across, double under_across)
{
    if (x * x + y * y <= r2)
        return x * y;
    double area = across * least(fabs(y), r) + under - under_across;
    return (x < 0.0) != (y < 0.0) ? -area : area;
}

/* Light within a circle: the exact overlap of each pixel. */
static Light circle(const Stamp *stamp, double cx, double cy, double r, int *cut)
{
    Light light = {0};
    ptrdiff_t i0, i1, j0, j1;
    span(stamp, cx, r, &i0, &i1, cut);
    span(stamp, cy, r, &j0, &j1, cut);
    ptrdiff_t edges = stamp->width + 1;
    double *x = stamp->work, *under = x + edges, *below = under + edges, *above = below + edges, r2 = r * r;
    for (ptrdiff_t e = 0; e <= i1 - i0 + 1; e++) {
        x[e] = (double)(i0 + e) - 0.5 - cx;
        under[e] = arc(r, least(fabs(x[e]), r));
    }
    for (ptrdiff_t f = 0; f <= j1 - j0 + 1; f++) {
        double y = (double)(j0 + f) - 0.5 - cy, high = least(fabs(y), r);
        double across = sqrt(r2 - high * high), under_across = arc(r, across);
        for (ptrdiff_t e = 0; e <= i1 - i0 + 1; e++)
            above[e] = corner(r2, r, x[e], y, under[e], across, under_across);
        for (ptrdiff_t e = 0; f > 0 && e <= i1 - i0; e++) {
            double cover = above[e + 1] - above[e] - below[e + 1] + below[e];
            if (cover > 1e-9)
                add(&light, stamp, (j0 + f - 1) * stamp->width + i0 + e, cover);
        }
        double *swap = below;
        below = above;
        above = swap;
    }
    return light;
}

/* Radius about the source that holds half of a flux; less than 0 where there is none. */
static double half_light(const Stamp *stamp, double flux)
{
    double goal = 0.5 * flux, most_r = (double)stamp->r - 1.0, low = 0.0, low_flux = 0.0, high = 1.0, high_flux;
    int cut = 0;
    if (!(flux > 0.0))
        return -1.0;
    for (;;) {
        high = least(high, most_r);
        high_flux = circle(stamp, stamp->x, stamp->y, high, &cut).flux;
        if (high_flux >= goal)
            break;
        if (high >= most_r)
            return -1.0;
        low = high;
        low_flux = high_flux;
        high *= 1.5;
    }
    for (int step = 0; step < HALF_STEPS && high - low > HALF_CLOSE; step++) {
        /* Flux grows with the area, nearly. */
        double part = (goal - low_flux) / (high_flux - low_flux);
        double try = sqrt(low * low + part * (high * high - low * low));
        try = step % 3 == 2 ? 0.5 * (low + high) : try;
        double found = circle(stamp, stamp->x, stamp->y, try, &cut).flux;
        if (fabs(found - goal) < 1e-4 * flux)
            return try;
        if (found < goal) {
            low = try;
            low_flux = found;
        } else {
            high = try;
            high_flux = found;
        }
    }
    return 0.5 * (low + high);
}

CLONES static void gather(const float *restrict row, ptrdiff_t n, double weight, double y, double *restrict c0,
                          double *restrict c1, double *restrict c2)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        double value = weight * (double)row[i], first = value * y;
        c0[i] += value;
        c1[i] += first;
        c2[i] += first * y;
    }
}

/* Moments of a plane in a Gaussian window exp(-k d^2) about (cx, cy), of pixels up to `half` from the source. */
static Moments window(const Stamp *stamp, const double *table, const float *plane, double cx, double cy, double k,
                      ptrdiff_t half)
{
    Moments sum = {0};
    ptrdiff_t low = stamp->r - half, n = 2 * half + 1, width = stamp->width;
    double *c0 = stamp->work, *c1 = c0 + n, *c2 = c1 + n, *c4 = c2 + n;
    memset(c0, 0, 4 * (size_t)n * sizeof *c0);
    for (ptrdiff_t j = low; j < low + n; j++) {
        double dy = (double)j - cy;
        const float *row = plane + j * width + low;
        double weight = decay(table, k * dy * dy);
        gather(row, n, weight, dy, c0, c1, c2);
        double fourth = weight * dy * dy * dy * dy;
        for (ptrdiff_t i = 0; i < n; i++)
            c4[i] += fourth * (double)row[i];
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        double dx = (double)(low + i) - cx, weight = decay(table, k * dx * dx);
        double zero = weight * c0[i], first = weight * c1[i], second = weight * c2[i];
        sum.m += zero;
        sum.x += dx * zero;
        sum.y += first;
        sum.xx += dx * dx * zero;
        sum.xy += dx * first;
        sum.yy += second;
        sum.x4 += dx * dx * dx * dx * zero;
        sum.x2y2 += dx * dx * second;
        sum.y4 += weight * c4[i];
    }
    return sum;
}

static inline ptrdiff_t reach(const Stamp *stamp, double sigma)
{
    return (ptrdiff_t)least(ceil(REACH_SIGMA * sigma) + 1.0, (double)stamp->r);
}

/* Steps of Newton towards the place about which the windowed first moments vanish. */
static int find_centre(const Field *field, const Stamp *stamp, double sigma, double limit, double *cx, double *cy)
{
    double q = 1.0 / (sigma * sigma), x = stamp->x, y = stamp->y;
    ptrdiff_t half = reach(stamp, sigma);
    *cx = x;
    *cy = y;
    for (int step = 0; step < MOST_STEPS; step++) {
        Moments m = window(stamp, field->table, stamp->value, x, y, 0.5 * q, half);
        if (!(m.m > 0.0))
            return 0;
        double jx = m.m - q * m.xx, jy = m.m - q * m.yy, jxy = q * m.xy, det = jx * jy - jxy * jxy;
        int firm = jx > 0.0 && jy > 0.0 && det > FIRM * m.m * m.m;
        double dx = firm ? (jy * m.x + jxy * m.y) / det : 2.0 * m.x / m.m;
        double dy = firm ? (jx * m.y + jxy * m.x) / det : 2.0 * m.y / m.m;
        dx = most(least(dx, 0.5 * sigma), -0.5 * sigma);
        dy = most(least(dy, 0.5 * sigma), -0.5 * sigma);
        x += dx;
        y += dy;
        double away_x = x - stamp->x, away_y = y - stamp->y;
        if (!(away_x * away_x + away_y * away_y <= limit * limit))
            return 0;
        if (dx * dx + dy * dy < CLOSE2) {
            *cx = x;
            *cy = y;
            return 1;
        }
    }
    return 0;
}

typedef struct {
    double light[RINGS], pixels[RINGS]; /* within each ring */
    double kron, within, petro;
} Profile;

/* Kron's first moment, the light it is the moment of, and the radius at which the light of a ring falls to a part of
 * the mean within; radii in units of the ellipse, less than 0 where there is none. */
static void measure_profile(const Field *field, const Stamp *stamp, const double *shape, Profile *profile)
{
    double *light = profile->light, *pixels = profile->pixels, first = 0.0, all = 0.0;
    memset(profile, 0, sizeof *profile);
    for (ptrdiff_t j = 0; j < stamp->width; j++)
        for (ptrdiff_t i = 0; i < stamp->width; i++) {
            double dx = (double)i - stamp->x, dy = (double)j - stamp->y;
            double rho2 = shape[0] * dx * dx + shape[1] * dy * dy + shape[2] * dx * dy;
            ptrdiff_t at = j * stamp->width + i;
            if (!(rho2 < RINGS / RING_STEPS * (RINGS / RING_STEPS)) || (stamp->state[at] & MISSING))
                continue;
            double rho = sqrt(rho2), value = (double)stamp->value[at];
            ptrdiff_t ring = (ptrdiff_t)least(rho * RING_STEPS, RINGS - 1.0);
            light[ring] += value;
            pixels[ring] += 1.0;
            if (rho <= KRON_REACH) {
                first += rho * value;
                all += value;
            }
        }
    profile->kron = all > 0.0 && first > 0.0 ? first / all : -1.0;
    profile->within = all;
    profile->petro = -1.0;
    for (int ring = 1; ring < RINGS; ring++) {
        light[ring] += light[ring - 1];
        pixels[ring] += pixels[ring - 1];
    }
    double before = 1.0;
    for (int m = PETRO_FIRST; m <= PETRO_LAST; m++) {
        /* Ring from 0.8 to 1.2 of the radius m / 2. */
        double number = pixels[6 * m - 1] - pixels[4 * m - 1], within = light[5 * m - 1];
        if (!(number > 0.0) || !(within > 0.0))
            continue;
        double part = (light[6 * m - 1] - light[4 * m - 1]) / number / (within / pixels[5 * m - 1]);
        if (part < field->petro_level) {
            double share = before > part ? (before - field->petro_level) / (before - part) : 1.0;
            profile->petro = 0.5 * ((double)m - 1.0 + most(least(share, 1.0), 0.0));
            return;
        }
        before = part;
    }
}

/* Variance of the light in an ellipse whose radius k the same pixels tell: sourcestamp.py has the equations. */
static double own_variance(const Field *field, const Stamp *stamp, const double *shape, double k,
                           const Profile *profile, const Light *own, double edge)
{
    double first = least(floor(RING_LOW * k + 0.5), RINGS - 1.0), last = least(floor(RING_HIGH * k + 0.5), RINGS);
    int by_kron = field->kron_factor * profile->kron > field->kron_least;
    double scale = by_kron ? profile->within : 4.0 * own->flux, slope = 0.0, total = 0.0;
    if (first >= 1.0 && last > first && scale > 0.0)
        slope = (profile->light[(int)last - 1] - profile->light[(int)first - 1]) * 0.5 * (last + first) / (last - first);
    double area = sqrt(shape[0] * shape[1] - 0.25 * shape[2] * shape[2]), limit2 = own->whole / PI * area;
    double limit = sqrt(limit2), narrow = 0.5 / (field->filter * field->filter * area);
    /* Of the isophote's own noise, spread over a ring as wide as the filter. */
    double height = limit > 0.0 ? (limit2 - 2.0) * edge / (2.0 * PI * limit / sqrt(area) * ROOT_TWO_PI * field->filter)
                                : 0.0;
    for (ptrdiff_t j = 0; j < stamp->width; j++)
        for (ptrdiff_t i = 0; i < stamp->width; i++) {
            double dx = (double)i - stamp->x, dy = (double)j - stamp->y;
            double rho2 = shape[0] * dx * dx + shape[1] * dy * dy + shape[2] * dx * dy, rho = sqrt(rho2);
            ptrdiff_t at = j * stamp->width + i;
            double grows = 0.0, away = rho - limit;
            if (by_kron)
                grows = rho <= KRON_REACH ? rho / profile->kron - 1.0 : 0.0;
            else
                grows = (stamp->state[at] & OWN ? rho2 - 2.0 : 0.0) + height * decay(field->table, narrow * away * away);
            double part = most(covered(shape, k, dx, dy, rho), 0.0) + (slope != 0.0 ? slope * grows / scale : 0.0);
            total += part * part * (double)stamp->noise[at];
        }
    return total;
}

static double *put(double *out, const Light *light)
{
    *out++ = light->flux;
    *out++ = light->variance;
    return out;
}

static void measure_one(const Field *field, Stamp *stamp, const double *place, int32_t name, const double *radii,
                        ptrdiff_t apertures, double *out)
{
    const double *shape = place + 3;
    Profile profile;
    int found = 0, cut = 0, petro_cut = 0;
    stamp->r = (ptrdiff_t)place[2];
    fill(field, stamp, place[0], place[1], name);
    Light own = isophote(stamp), core = ellipse(stamp, shape, CORE, &cut);
    measure_profile(field, stamp, shape, &profile);
    double kron = profile.kron, petro = profile.petro;
    found |= kron > 0.0 ? 0 : FOUND_NO_KRON;
    found |= petro > 0.0 ? 0 : FOUND_NO_PETRO;
    double kron_k = most(field->kron_factor * kron, field->kron_least);
    double petro_k = most(field->petro_factor * petro, field->kron_least);
    Light automatic = ellipse(stamp, shape, kron_k, &cut), petrosian = ellipse(stamp, shape, petro_k, &petro_cut);
    if (place[6] >= 0.0)
        automatic.variance = own_variance(field, stamp, shape, kron_k, &profile, &own, place[6]);
    double half = half_light(stamp, automatic.flux);
    found |= petro_cut ? FOUND_PETRO_CUT : 0;
    found |= half > 0.0 ? 0 : FOUND_NO_HALF;

    double sigma = half > 0.0 ? 2.0 * half / 2.3548200450309493 : field->sigma;
    sigma = least(most(sigma, 0.7 * field->sigma), most(((double)stamp->r - 1.0) / REACH_SIGMA, 0.5));
    double q = 1.0 / (sigma * sigma), cx, cy;
    if (!find_centre(field, stamp, sigma, field->walk * sigma, &cx, &cy))
        found |= FOUND_NO_CENTROID;
    ptrdiff_t range = reach(stamp, sigma);
    Moments m = window(stamp, field->table, stamp->value, cx, cy, 0.5 * q, range);
    Moments e = window(stamp, field->table, stamp->noise, cx, cy, q, range);

    double inner = most(INNER * field->sigma, INNER_LEAST);
    Moments middle = window(stamp, field->table, stamp->value, cx, cy, 0.5 / (inner * inner), reach(stamp, inner));
    double narrow = 0.5 / (field->sigma * field->sigma), wide = narrow / (WIDE * WIDE);
    ptrdiff_t far = reach(stamp, WIDE * field->sigma);
    double narrow_flux = window(stamp, field->table, stamp->value, cx, cy, narrow, far).m;
    double wide_flux = window(stamp, field->table, stamp->value, cx, cy, wide, far).m;
    double narrow_error = window(stamp, field->table, stamp->noise, cx, cy, 2.0 * narrow, far).m;
    double both_error = window(stamp, field->table, stamp->noise, cx, cy, narrow + wide, far).m;
    double wide_error = window(stamp, field->table, stamp->noise, cx, cy, 2.0 * wide, far).m;

    double *to = out + 1;
    *to++ = place[0] + (cx - stamp->x);
    *to++ = place[1] + (cy - stamp->y);
    *to++ = kron;
    *to++ = petro;
    *to++ = half;
    *to++ = sigma;
    to = put(to, &own);
    to = put(to, &automatic);
    to = put(to, &petrosian);
    *to++ = own.area;
    *to++ = automatic.area;
    *to++ = own.burnt + core.burnt;
    *to++ = core.refused;
    *to++ = core.whole;
    *to++ = automatic.neighbour;
    *to++ = automatic.outside;
    *to++ = automatic.missing;
    *to++ = automatic.whole;
    memcpy(to, &m, 6 * sizeof *to);
    to += 6;
    memcpy(to, &e, 9 * sizeof *to);
    to += 9;
    *to++ = middle.m;
    *to++ = middle.xx;
    *to++ = middle.yy;
    *to++ = narrow_flux;
    *to++ = wide_flux;
    *to++ = narrow_error;
    *to++ = both_error;
    *to++ = wide_error;
    for (ptrdiff_t k = 0; k < apertures; k++) {
        Light light = circle(stamp, cx, cy, radii[k], &cut);
        to = put(to, &light);
        *to++ = light.missing;
    }
    out[0] = (double)(found | (cut ? FOUND_LIMITED : 0));
}

PyDoc_STRVAR(measure_doc, "measure(out, place, names, image, weight, flags, segments, radii, settings, table): fill "
                          "out, one row a source.");

static PyObject *measure(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *given[10], *result = NULL;
    Array array[10];
    const char *codes = "ddiffBiddd";
    const int axes[10] = {2, 2, 1, 2, 2, 2, 2, 1, 1, 1};
    double *work = NULL;
    float *planes = NULL;
    uint8_t *states = NULL;

    memset(array, 0, sizeof array);
    if (!PyArg_ParseTuple(arguments, "OOOOOOOOOO", &given[0], &given[1], &given[2], &given[3], &given[4], &given[5],
                          &given[6], &given[7], &given[8], &given[9]))
        return NULL;
    for (int k = 0; k < 10; k++)
        if (take(&array[k], given[k], codes[k], axes[k], k == 0) < 0)
            goto done;
    Field field = {.image = array[3].view.buf, .weight = array[4].view.buf, .flags = array[5].view.buf,
                   .segments = array[6].view.buf, .ny = axis(&array[3], 0), .nx = axis(&array[3], 1),
                   .table = array[9].view.buf};
    const double *settings = array[8].view.buf;
    ptrdiff_t n = axis(&array[0], 0), apertures = axis(&array[7], 0), columns = axis(&array[0], 1), largest = 0;
    int fits = axis(&array[1], 0) == n && axis(&array[1], 1) == PLACE && axis(&array[2], 0) == n;
    fits = fits && columns == COLUMNS + 3 * apertures && axis(&array[8], 0) == SETTINGS;
    fits = fits && axis(&array[9], 0) > (Py_ssize_t)(TABLE_END * TABLE_STEPS);
    for (int k = 4; k < 7; k++)
        fits = fits && axis(&array[k], 0) == field.ny && axis(&array[k], 1) == field.nx;
    const double *place = array[1].view.buf, *radii = array[7].view.buf;
    for (ptrdiff_t k = 0; fits && k < n; k++) {
        double r = place[PLACE * k + 2];
        fits = r >= 2.0 && r <= 4096.0 && fabs(place[PLACE * k]) < 1e9 && fabs(place[PLACE * k + 1]) < 1e9;
        largest = r > (double)largest ? (ptrdiff_t)r : largest;
    }
    for (ptrdiff_t k = 0; fits && k < apertures; k++)
        fits = radii[k] > 0.0;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the arrays of a measurement do not fit together");
        goto done;
    }
    field.inverse_gain = settings[0];
    field.noise2 = settings[1];
    field.fallback = settings[2];
    field.kron_factor = settings[3];
    field.kron_least = settings[4];
    field.petro_factor = settings[5];
    field.petro_level = settings[6];
    field.sigma = settings[7];
    field.walk = settings[8];
    field.filter = settings[9];
    size_t width = 2 * (size_t)largest + 1;
    work = malloc(4 * (width + 1) * sizeof *work);
    planes = malloc(2 * width * width * sizeof *planes);
    states = malloc(width * width);
    if (!work || !planes || !states) {
        PyErr_NoMemory();
        goto done;
    }
    Stamp stamp = {.value = planes, .noise = planes + width * width, .state = states, .work = work};
    const int32_t *names = array[2].view.buf;
    double *out = array[0].view.buf;
    Py_BEGIN_ALLOW_THREADS
    for (ptrdiff_t k = 0; k < n; k++)
        measure_one(&field, &stamp, place + PLACE * k, names[k], radii, apertures, out + columns * k);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    free(states);
    free(planes);
    free(work);
    for (int k = 0; k < 10; k++)
        release(&array[k]);
    return result;
}

CLONES static void blur_row(const float *restrict row, const float *restrict kernel, ptrdiff_t reach, ptrdiff_t nx,
                            float *restrict out)
{
    for (ptrdiff_t i = 0; i < nx; i++)
        out[i] = row[i] * kernel[0];
    for (ptrdiff_t k = 1; k <= reach; k++)
        for (ptrdiff_t i = 0; i < nx; i++)
            out[i] += (row[i - k] + row[i + k]) * kernel[k];
}

CLONES static void blend_row(const float *const *restrict rows, const float *restrict kernel, ptrdiff_t reach,
                             ptrdiff_t nx, float *restrict out)
{
    const float *middle = rows[reach];
    for (ptrdiff_t i = 0; i < nx; i++)
        out[i] = middle[i] * kernel[0];
    for (ptrdiff_t k = 1; k <= reach; k++) {
        const float *restrict low = rows[reach - k], *restrict high = rows[reach + k];
        for (ptrdiff_t i = 0; i < nx; i++)
            out[i] += (low[i] + high[i]) * kernel[k];
    }
}

/* In units of the noise; where there is no weight but light, in those of the usual noise. */
CLONES static void per_noise(const float *restrict weight, const uint8_t *restrict flags, float usual, ptrdiff_t nx,
                             float *restrict out)
{
    for (ptrdiff_t i = 0; i < nx; i++) {
        float known = weight[i] > 0.0f ? weight[i] : usual;
        out[i] = flags[i] & BAD ? 0.0f : out[i] * sqrtf(known);
    }
}

PyDoc_STRVAR(blur_doc, "blur(out, image, weight, flags, kernel, usual): convolve with a symmetric kernel along both "
                       "axes, in units of the noise; bad pixels and what lies outside count as 0.");

static PyObject *blur(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *given[5], *result = NULL;
    Array array[5];
    float usual;
    float *rows = NULL, *padded = NULL;
    const float **order = NULL;
    memset(array, 0, sizeof array);
    if (!PyArg_ParseTuple(arguments, "OOOOOf", &given[0], &given[1], &given[2], &given[3], &given[4], &usual))
        return NULL;
    if (take(&array[0], given[0], 'f', 2, 1) < 0 || take(&array[1], given[1], 'f', 2, 0) < 0 ||
        take(&array[2], given[2], 'f', 2, 0) < 0 || take(&array[3], given[3], 'B', 2, 0) < 0 ||
        take(&array[4], given[4], 'f', 1, 0) < 0)
        goto done;
    ptrdiff_t ny = axis(&array[0], 0), nx = axis(&array[0], 1), far = axis(&array[4], 0) - 1, size = 2 * far + 1;
    int fits = far >= 0;
    for (int k = 1; k < 4; k++)
        fits = fits && axis(&array[k], 0) == ny && axis(&array[k], 1) == nx;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "arrays of different shapes");
        goto done;
    }
    rows = calloc((size_t)(size * nx) + 1, sizeof *rows);
    padded = calloc((size_t)(nx + 2 * far) + 1, sizeof *padded);
    order = malloc((size_t)size * sizeof *order);
    if (!rows || !padded || !order) {
        PyErr_NoMemory();
        goto done;
    }
    const float *image = array[1].view.buf, *weight = array[2].view.buf, *kernel = array[4].view.buf;
    const uint8_t *flags = array[3].view.buf;
    float *out = array[0].view.buf;
    Py_BEGIN_ALLOW_THREADS
    for (ptrdiff_t y = -far; y < ny + far; y++) {
        float *to = rows + ((y + far) % size) * nx;
        if (y >= 0 && y < ny) {
            for (ptrdiff_t x = 0; x < nx; x++)
                padded[far + x] = flags[y * nx + x] & BAD ? 0.0f : image[y * nx + x];
            blur_row(padded + far, kernel, far, nx, to);
        } else
            memset(to, 0, (size_t)nx * sizeof *to);
        if (y < far)
            continue;
        for (ptrdiff_t k = 0; k < size; k++)
            order[k] = rows + ((y - 2 * far + k + far) % size) * nx;
        ptrdiff_t at = (y - far) * nx;
        blend_row(order, kernel, far, nx, out + at);
        per_noise(weight + at, flags + at, usual, nx, out + at);
    }
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    free(order);
    free(padded);
    free(rows);
    for (int k = 0; k < 5; k++)
        release(&array[k]);
    return result;
}

static PyMethodDef methods[] = {{"measure", measure, METH_VARARGS, measure_doc},
                                {"blur", blur, METH_VARARGS, blur_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_sources", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__sources(void) { return PyModule_Create(&module); }

/* SHA-256 of the same blocks for two digests at once, by the processor's own instructions; see fitsdigest.py.
 *
 * The message schedule, half of the work, is shared, and the rounds of one digest run while those of the other
 * wait for their result: two digests take the time of one. Source of the method: FIPS 180-4; hashlib is the twin.
 */
#include "kernel.h"

#define BLOCK_BYTES 64
#define WORDS 8

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

static const uint32_t CONSTANTS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* The words of a digest as the instructions take them: a b e f and c d g h, the first of them highest. */
typedef struct {
    __m128i abef, cdgh;
} State;

static inline State load_state(const uint32_t *h)
{
    State state = {_mm_set_epi32((int)h[0], (int)h[1], (int)h[4], (int)h[5]),
                   _mm_set_epi32((int)h[2], (int)h[3], (int)h[6], (int)h[7])};
    return state;
}

static inline void store_state(uint32_t *h, State state)
{
    uint32_t fe_ba[4], hg_dc[4];
    memcpy(fe_ba, &state.abef, sizeof fe_ba);
    memcpy(hg_dc, &state.cdgh, sizeof hg_dc);
    const uint32_t words[WORDS] = {fe_ba[3], fe_ba[2], hg_dc[3], hg_dc[2], fe_ba[1], fe_ba[0], hg_dc[1], hg_dc[0]};
    memcpy(h, words, sizeof words);
}

#define WITH_SHA __attribute__((target("sha,sse4.1")))

/* Four rounds; words: those of the message with their constants added. */
WITH_SHA static inline State four_rounds(State state, __m128i words)
{
    state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, words);
    state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_shuffle_epi32(words, 0x0e));
    return state;
}

WITH_SHA static inline State add_states(State one, State other)
{
    one.abef = _mm_add_epi32(one.abef, other.abef);
    one.cdgh = _mm_add_epi32(one.cdgh, other.cdgh);
    return one;
}

WITH_SHA static void digest(uint32_t *first, uint32_t *second, const uint8_t *data, Py_ssize_t blocks)
{
    const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    State one = load_state(first), two = load_state(second);
    for (; blocks > 0; blocks--, data += BLOCK_BYTES) {
        State one_before = one, two_before = two;
        __m128i w[4];
#pragma GCC unroll 16
        for (int group = 0; group < 16; group++) {
            __m128i *now = &w[group & 3], last = w[(group + 3) & 3];
            if (group < 4)
                *now = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data + group), big_endian);
            else {
                __m128i before = _mm_sha256msg1_epu32(*now, w[(group + 1) & 3]);
                before = _mm_add_epi32(before, _mm_alignr_epi8(last, w[(group + 2) & 3], 4));
                *now = _mm_sha256msg2_epu32(before, last);
            }
            __m128i words = _mm_add_epi32(*now, _mm_loadu_si128((const __m128i *)CONSTANTS + group));
            one = four_rounds(one, words);
            two = four_rounds(two, words);
        }
        one = add_states(one, one_before);
        two = add_states(two, two_before);
    }
    store_state(first, one);
    store_state(second, two);
}

static int has_instructions(void)
{
    unsigned int a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
}
#else
static void digest(uint32_t *first, uint32_t *second, const uint8_t *data, Py_ssize_t blocks)
{
    (void)first, (void)second, (void)data, (void)blocks;
}

static int has_instructions(void) { return 0; }
#endif

/* Asked once: a virtual machine may take its time to answer. */
static int is_usable;

static PyObject *usable(PyObject *self, PyObject *args)
{
    (void)self, (void)args;
    return PyBool_FromLong(is_usable);
}

static PyObject *update(PyObject *self, PyObject *args)
{
    PyObject *objects[3], *result = NULL;
    Array first = {0}, second = {0}, data = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "OOO", &objects[0], &objects[1], &objects[2]))
        return NULL;
    if (take(&first, objects[0], 'I', 1, 1) < 0 || take(&second, objects[1], 'I', 1, 1) < 0 ||
        take(&data, objects[2], 'B', 1, 0) < 0)
        goto done;
    if (!is_usable || axis(&first, 0) != WORDS || axis(&second, 0) != WORDS ||
        axis(&data, 0) % BLOCK_BYTES) {
        PyErr_SetString(PyExc_ValueError, "two digests of 8 words and whole blocks of 64 bytes are needed");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    digest(first.view.buf, second.view.buf, data.view.buf, axis(&data, 0) / BLOCK_BYTES);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    release(&first);
    release(&second);
    release(&data);
    return result;
}

static PyMethodDef methods[] = {
    {"usable", usable, METH_NOARGS, "usable() -> whether this processor has the instructions"},
    {"update", update, METH_VARARGS, "update(one digest's words, the other's, whole blocks): the blocks into both"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_sha256", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__sha256(void)
{
    is_usable = has_instructions();
    return PyModule_Create(&module);
}

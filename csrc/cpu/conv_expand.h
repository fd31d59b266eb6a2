/* The parts of convs that run as one: a pointwise one that adds channels, a depthwise one, and perhaps a pointwise one
   that takes channels away. What is between them is of some rows and LANES channels at a time, as a vector of channels
   for each pixel, and stays in the cache.

   Not for strict plans: what is between is not rounded. An element is its bias and its products, in order. */
#ifndef ANEX_CONV_EXPAND_H
#define ANEX_CONV_EXPAND_H

#include "conv.h"

#if defined(__AVX512F__)
enum { PIXELS = 14, RUN = 7 }; /* rows of a product; outputs whose taps are summed together */
#elif defined(__aarch64__)
enum { PIXELS = 12, RUN = 7 };
#else
enum { PIXELS = 6, RUN = 6 };
#endif
enum { ACROSS = 2, LANES = ACROSS * VF };
enum { EXPAND_HELD = 640 << 10 /* bytes in scratch, at most */ };

typedef struct expand {
    conv_arguments c;              /* of the depthwise conv */
    int64_t k, groups;             /* channels of x; LANES channels of the result at a time */
    int64_t pitch, reach;          /* pixels in a row between the convs; rows there under the taps of one output row */
    int64_t most, rows;            /* output rows at a time, at most; rows between the convs for so many */
    int64_t taps, *tap;            /* [taps], in floats from an output's first one */
    bool halves;                   /* weights are float16 */
    char *weights;                 /* [groups][k][LANES] */
    float *bias, *filters, *last;  /* [groups][LANES], [groups][taps][LANES], [groups][LANES] */
    size_t panels, places, between; /* bytes in scratch, in this order */
} expand;

/* Output rows h0 .. h1-1, and the rows of x that they need: those outside of the plane are left out. */
typedef struct expand_band {
    int64_t h0, h1, top, bottom;
    int64_t before; /* rows of zeros above them */
    float *panels, *between; /* [pixels / PIXELS][k][PIXELS], [rows][pitch][LANES] */
    int32_t *places;         /* of pixels in `between` */
} expand_band;

/* What a product of one kind does with so many pixels is one of three sizes */
static inline int expand_size(int64_t pixels) { return pixels > PIXELS / 2 ? 0 : pixels > 1 ? 1 : 2; }

/* Memory for `most` output rows at a time; the bytes of all */
#define expand_set_rows ANEX_LOCAL(expand_set_rows)
size_t expand_set_rows(expand *e, int64_t most);
/* Rows of x under output rows h0 .. h1-1 */
#define expand_input_rows ANEX_LOCAL(expand_input_rows)
int64_t expand_input_rows(const expand *e, int64_t h0, int64_t h1);

/* Rows h0 .. h1-1 of a batch, `most` at most, with their pixels of x fetched to `scratch` */
#define expand_begin ANEX_LOCAL(expand_begin)
expand_band expand_begin(const anex_node *node, const expand *e, int64_t batch, int64_t h0, int64_t h1, void *scratch);
/* Both convs for LANES channels: to[(h - h0) * width + j][LANES], and RUN behind the last may be overwritten. */
#define expand_group ANEX_LOCAL(expand_group)
void expand_group(const anex_node *node, const expand *e, const expand_band *b, int64_t group);
/* Output rows h .. h + rows - 1 of the band: to[j][LANES] of each after the other; RUN behind the last may become
   anything. `follows`: the ops behind the depthwise conv; done if they read nothing else. */
#define expand_filter ANEX_LOCAL(expand_filter)
void expand_filter(const expand *e, const expand_band *b, int64_t group, int64_t h, int64_t rows,
                   const anex_epilogue *follows, float *to);

/* Planes of `channels` channels, LANES at most, from vectors of channels: elements first .. first + n - 1 of out[0], and
   so on `plane` apart. `ended`: node->epilogue is done already. */
#define expand_store ANEX_LOCAL(expand_store)
void expand_store(const anex_node *node, int64_t channels, int64_t plane, int64_t first, int64_t n, bool ended,
                  const float *line);

/* Weights [out][k] as [groups][k][LANES] of float16 or float */
#define expand_pack ANEX_LOCAL(expand_pack)
void expand_pack(const anex_tensor *weight, int64_t out, int64_t k, bool halves, char *to);
static inline void expand_widen(float *to, const anex_tensor *from) {
    if (from) gemm_widen(to, from->data, from->dtype, 0, anex_tensor_size(from));
}

/* The arguments of a conv of constant weights 1x1, that `made` is the result of; false: it is none. */
#define expand_read_pointwise ANEX_LOCAL(expand_read_pointwise)
bool expand_read_pointwise(const anex_node *node, const anex_tensor *made, conv_arguments *c);

/* Of a node that conv_expand has made; NULL: it did not */
#define expand_of ANEX_LOCAL(expand_of)
const expand *expand_of(const anex_node *node);

/* Nanoseconds, roughly: the first conv of so many pixels, and the second of so many outputs, of all channels; to fetch
   pixels of x */
#define expand_cost ANEX_LOCAL(expand_cost)
double expand_cost(const expand *e, double pixels, double outputs);
static inline double expand_fetch_cost(const expand *e, double pixels) {
    return 0.25 * pixels * ((double)e->k * 1.5 / VF + ACROSS);
}

#endif

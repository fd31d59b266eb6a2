/* The parts of convs that run as one: one that adds channels, pointwise or of few taps, a depthwise one, and perhaps a
   pointwise one that takes channels away. What is between them is of some rows and LANES channels at a time, as a
   vector of channels for each pixel, and stays in the cache.

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
    conv_arguments first, c;       /* the first conv, and the depthwise one */
    int64_t k, groups;             /* products of the first one; LANES channels of the result at a time */
    bool gathers;                  /* the first one is not pointwise: its panels come from an image of some rows of x */
    conv_image image;              /* `volume`: of so many rows as a band has at most */
    conv_gather gather;
    int64_t pitch, reach;          /* pixels in a row between the convs; rows there under the taps of one output row */
    int64_t most, rows;            /* output rows at a time, at most; rows between the convs for so many */
    int64_t keep;                  /* of them, that the output rows which follow need again */
    int64_t taps, *tap;            /* [taps], in floats from an output's first one */
    int64_t *sources;              /* [k], places in the image */
    bool halves;                   /* weights are float16 */
    char *weights;                 /* [groups][k][LANES] */
    float *bias, *filters, *last;  /* [groups][LANES], [groups][taps][LANES], [groups][LANES] */
    size_t panels, places, between, kept, images; /* bytes in scratch, in this order */
    size_t scratch;                               /* all of them */
} expand;

/* Output rows h0 .. h1-1, and the rows between the convs that are made for them: those outside of the plane, and those
   that the band before has made, are left out. */
typedef struct expand_band {
    int64_t h0, h1, top, bottom;
    int64_t before; /* rows above them */
    bool follows;   /* another band, which has made `keep` of the rows */
    float *panels, *between; /* [pixels / PIXELS][k][PIXELS], [rows][pitch][LANES] */
    int32_t *places;         /* of pixels in `between` */
    float *kept;             /* [groups][keep][pitch][LANES] */
} expand_band;

/* What a product of one kind does with so many pixels is one of three sizes */
static inline int expand_size(int64_t pixels) { return pixels > PIXELS / 2 ? 0 : pixels > 1 ? 1 : 2; }

/* Memory for `most` output rows at a time; the bytes of all */
#define expand_set_rows ANEX_LOCAL(expand_set_rows)
size_t expand_set_rows(expand *e, int64_t most);
/* Rows between the convs that output rows h0 .. h1-1 need, if no band made some of them */
#define expand_input_rows ANEX_LOCAL(expand_input_rows)
int64_t expand_input_rows(const expand *e, int64_t h0, int64_t h1);

/* Rows h0 .. h1-1 of a batch, `most` at most, with what the first conv needs for them fetched to `scratch`. `follows`:
   all groups of the rows before h0 were made there last. */
#define expand_begin ANEX_LOCAL(expand_begin)
expand_band expand_begin(const anex_node *node, const expand *e, int64_t batch, int64_t h0, int64_t h1, bool follows,
                         void *scratch);
/* The first conv for LANES channels */
#define expand_group ANEX_LOCAL(expand_group)
void expand_group(const anex_node *node, const expand *e, const expand_band *b, int64_t group);
/* Output rows h .. h + rows - 1 of the band: to[j][LANES] of each after the other; RUN behind the last may become
   anything. `follows`: the ops behind the depthwise conv; done if they read nothing else. */
#define expand_filter ANEX_LOCAL(expand_filter)
void expand_filter(const expand *e, const expand_band *b, int64_t group, int64_t h, int64_t rows,
                   const anex_epilogue *follows, float *to);

/* Planes of `channels` channels, LANES at most, from vectors of channels: elements first .. first + n - 1 of out[0],
   and so on `plane` apart. `ended`: node->epilogue is done already. */
#define expand_store ANEX_LOCAL(expand_store)
void expand_store(const anex_node *node, int64_t channels, int64_t plane, int64_t first, int64_t n, bool ended,
                  const float *line);

/* The taps of both convs, once the rows of a band are chosen */
#define expand_make_taps ANEX_LOCAL(expand_make_taps)
void expand_make_taps(expand *e);
/* Weights [out][k] as [groups][k][LANES] of float16 or float */
#define expand_pack ANEX_LOCAL(expand_pack)
void expand_pack(const anex_tensor *weight, int64_t out, int64_t k, bool halves, char *to);
static inline void expand_widen(float *to, const anex_tensor *from) {
    if (from) gemm_widen(to, from->data, from->dtype, 0, anex_tensor_size(from));
}

/* The arguments of a conv of floats and constant weights in one group, that makes `made`; false: it is none. */
#define expand_read ANEX_LOCAL(expand_read)
bool expand_read(const anex_node *node, const anex_tensor *made, conv_arguments *c);
#define expand_is_pointwise ANEX_LOCAL(expand_is_pointwise)
bool expand_is_pointwise(const conv_arguments *c);

/* Of a node that conv_expand has made; NULL: it did not */
#define expand_of ANEX_LOCAL(expand_of)
const expand *expand_of(const anex_node *node);

/* Nanoseconds, roughly: the first conv of so many pixels, and the second of so many outputs, of all channels; to fetch
   pixels of x */
#define expand_cost ANEX_LOCAL(expand_cost)
double expand_cost(const expand *e, double pixels, double outputs);
static inline double expand_fetch_cost(const expand *e, double pixels) {
    return 0.25 * pixels * ((double)e->k * (e->gathers ? 4.0 : 1.5) / VF + ACROSS);
}

#endif

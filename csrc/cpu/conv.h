/* Convolutions as matrix products: what conv, conv_transpose and depthwise share.

   Spatial axes are always three, leading ones of size 1 added. Along each, output q takes at tap t the
   input q * stride + first + t * step. The input is copied once into an image with zeros around it and with
   columns sorted by (column mod stride): then the values of one tap for neighbouring outputs are neighbours,
   whatever the stride, and no tap needs a bounds check. */
#ifndef ANEX_CONV_H
#define ANEX_CONV_H

#include "gemm.h"

enum { AXES = 3 };

typedef struct conv_axis {
    int64_t in, out, taps, first, step, stride;
} conv_axis;

enum { FILL_ROOM = VF }; /* elements behind each channel's image, so that whole vectors can be stored to its rows */

/* One channel is [size[0]][size[1]][split][sub] elements, and room; `row`, `plane`, `volume` are its strides and size. */
typedef struct conv_image {
    int64_t in[AXES], before[AXES], size[AXES];
    int64_t split, sub, row, plane, volume;
} conv_image;

/* The im2col matrix [taps, outputs] of an image, never written down. */
typedef struct conv_gather {
    int64_t batch, batch_step; /* outputs of several batches follow each other */
    int64_t out[AXES], step[AXES];
} conv_gather;

/* A gemm_pack's source: element (k, j) is image[taps[k] + place of output j]. */
typedef struct conv_source {
    const conv_gather *gather;
    const int64_t *taps;
    const void *image;
    anex_dtype dtype;
} conv_source;

/* The arguments that conv and conv_transpose have in common. */
typedef struct conv_arguments {
    int64_t in[AXES], out[AXES], kernel[AXES], stride[AXES], dilation[AXES];
    int64_t before[AXES]; /* padding */
    int64_t batch, in_channels, out_channels, groups;
} conv_arguments;

typedef struct conv_inputs { /* tensors, NULL if left out */
    const anex_tensor *x, *weight, *bias, *strides, *pad_type, *pad, *dilations, *groups;
} conv_inputs;

#define conv_read ANEX_LOCAL(conv_read)
anex_status conv_read(anex_node *node, const conv_inputs *inputs, bool transposed, conv_arguments *c,
                      anex_error *error);

/* Room around the input for `axis`; call for each of the products that share an image, after zeroing it. */
#define conv_image_fit ANEX_LOCAL(conv_image_fit)
void conv_image_fit(conv_image *image, const conv_axis axis[AXES]);
#define conv_image_finish ANEX_LOCAL(conv_image_finish)
void conv_image_finish(conv_image *image, int64_t split);

/* Offsets of the taps [channels][taps..] in the image, and the steps between outputs. */
#define conv_gather_make ANEX_LOCAL(conv_gather_make)
conv_gather conv_gather_make(const conv_image *image, const conv_axis axis[AXES], int64_t channels, int64_t *taps);

/* Rows begin .. end-1 (of size[0] * size[1]) of one channel's image; all of it, of bytes, with others than 0 around */
#define conv_spread ANEX_LOCAL(conv_spread)
void conv_spread(const conv_image *image, const void *x, void *to, size_t item, int64_t begin, int64_t end);
/* The same rows as floats, where all is 0 already */
#define conv_fill ANEX_LOCAL(conv_fill)
void conv_fill(const conv_image *image, const void *x, anex_dtype dtype, int64_t begin, int64_t end, float *to);
/* The work of a stage whose task is a channel of a batch: all images, one after the other, in `shared` */
#define conv_spread_widened ANEX_LOCAL(conv_spread_widened)
void conv_spread_widened(const conv_image *image, const anex_tensor *x, const anex_slice *slice);
#define conv_spread_bytes ANEX_LOCAL(conv_spread_bytes)
void conv_spread_bytes(const conv_image *image, const void *x, void *to, uint8_t around);

enum { CONV_COLUMNS = 3 * VF > NR ? (3 * VF > MR ? 3 * VF : MR) : NR }; /* that are packed at a time, at most */
#define conv_pack ANEX_LOCAL(conv_pack)
gemm_pack conv_pack;
/* Bytes of the same as to[depth][width]; up to 15 past the cols of a row may be overwritten. */
#define conv_pack_bytes ANEX_LOCAL(conv_pack_bytes)
void conv_pack_bytes(const conv_source *source, uint8_t *to, int64_t width, int64_t k0, int64_t depth, int64_t j0,
                     int64_t cols);

#define conv_depthwise ANEX_LOCAL(conv_depthwise)
anex_status conv_depthwise(anex_node *node, const conv_arguments *c, const conv_axis axis[AXES], anex_error *error);

/* Whether 3x3 taps are faster in squares of side x side outputs; see winograd.c. */
#define conv_winograd_suits ANEX_LOCAL(conv_winograd_suits)
bool conv_winograd_suits(const anex_node *node, const conv_arguments *c, int64_t *side);
#define conv_winograd ANEX_LOCAL(conv_winograd)
anex_status conv_winograd(anex_node *node, const conv_arguments *c, int64_t side, anex_error *error);

/* Constant weights and enough outputs to be done in panels; see conv_panels.c. */
#define conv_panels_suits ANEX_LOCAL(conv_panels_suits)
bool conv_panels_suits(const anex_node *node, const conv_arguments *c, bool pointwise);
#define conv_panels ANEX_LOCAL(conv_panels)
anex_status conv_panels(anex_node *node, const conv_arguments *c, const conv_axis axis[AXES], bool pointwise,
                        anex_error *error);

/* What `tasks` equal tasks take on two, four and eight threads, together, beside an even share of each: they wait for
   the last one. */
#define conv_uneven ANEX_LOCAL(conv_uneven)
double conv_uneven(int64_t tasks);

/* A depthwise conv, and the pointwise one before it that nobody else reads, in one; see conv_expand.c. */
#define conv_expand_suits ANEX_LOCAL(conv_expand_suits)
bool conv_expand_suits(const anex_node *node, const conv_arguments *c);
/* Part of node->onto from then on, unless `joins` says that they are better apart */
#define conv_expand ANEX_LOCAL(conv_expand)
anex_status conv_expand(anex_node *node, const conv_arguments *c, bool *joins, anex_error *error);
/* A pointwise conv behind those two, as part of them too; see conv_narrow.c. */
#define conv_narrow_suits ANEX_LOCAL(conv_narrow_suits)
bool conv_narrow_suits(const anex_node *node, const conv_arguments *c);
#define conv_narrow ANEX_LOCAL(conv_narrow)
anex_status conv_narrow(anex_node *node, const conv_arguments *c, bool *joins, anex_error *error);

ANEX_KERNEL(conv);

#endif

/* The product of int8 (or uint8) activations and int8 weights, exact in int32, then float.

   y = activation_scale * weight_scale[o] * sum over k of (activation - zero) * weight + bias[o]

   The weights' channels o are the rows of C (a convolution: its columns are pixels) or its columns (linear).
   Four values along k lie side by side: panels are [k / 4][channels or columns of a panel][4] on both sides, MR to
   a panel of rows and NR to one of columns. Tiles, tasks, threads and instruction sets never change a sum. */
#ifndef ANEX_GEMM_INT8_H
#define ANEX_GEMM_INT8_H

#include "conv.h"
#include "gemm.h"

enum { GEMM_INT8_MOST_K = 1 << 16 }; /* |sum| <= 255 * 128 * k must be an int32 */

typedef struct gemm_int8 {
    int64_t m, n, k;
    int64_t tile_m, tile_n, tiles_m, tiles_n;
    bool weight_rows; /* the rows of C are the weights' channels, else its columns */
    bool dot;
    double cost; /* of one tile in nanoseconds */
} gemm_int8;

/* The activations: column (or row) j's value at k is x[k * k_step + j * step], one of the two steps being 1; or,
   with `gather`, what conv_pack_bytes takes from an image. */
typedef struct gemm_int8_activations {
    const uint8_t *x;
    int64_t k_step, step;
    const conv_source *gather;
    bool is_signed;
} gemm_int8_activations;

/* What belongs to one product's weights besides themselves: as the tensors have it */
typedef struct gemm_int8_weights {
    const int8_t *weight; /* of channel o at k: weight[o * k_total + k] */
    const anex_tensor *scale, *bias; /* one value or one per channel; bias may be NULL */
    int64_t first;                   /* channel of scale and bias that channel 0 is */
    float activation_scale;
    int32_t zero; /* of the activations, as their dtype has it */
    bool is_signed;
} gemm_int8_weights;

#define gemm_int8_plan ANEX_LOCAL(gemm_int8_plan)
void gemm_int8_plan(gemm_int8 *g, const anex_node *node, int64_t batch, int64_t m, int64_t n, int64_t k,
                    bool weight_rows);
static inline int64_t gemm_int8_tiles(const gemm_int8 *g) { return g->tiles_m * g->tiles_n; }

#define gemm_int8_scratch ANEX_LOCAL(gemm_int8_scratch)
size_t gemm_int8_scratch(const gemm_int8 *g);

/* The weights as tiles read them */
#define gemm_int8_packed_bytes ANEX_LOCAL(gemm_int8_packed_bytes)
size_t gemm_int8_packed_bytes(const gemm_int8 *g);
#define gemm_int8_pack ANEX_LOCAL(gemm_int8_pack)
void gemm_int8_pack(const gemm_int8 *g, const gemm_int8_weights *w, void *packed);

#define gemm_int8_tile ANEX_LOCAL(gemm_int8_tile)
void gemm_int8_tile(const gemm_int8 *g, const void *packed, const gemm_int8_activations *a, const gemm_output *c,
                    int64_t tile, void *scratch);

#endif

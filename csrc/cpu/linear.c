/* linear, matmul, einsum: batches of matrix products over strided operands. */
#include "few.h"

#include <math.h>

/* out [batch.., m, n] = x [batch.., m, k] . y [batch.., k, n] (+ bias [n]); strides in elements, 0 where broadcast */
typedef struct product {
    int64_t m, n, k;
    gemm_matrix x, y; /* without data */
    int64_t out_row;  /* the output's columns are side by side */
    int32_t batch_rank;
    int64_t batch[ANEX_MAX_RANK];
    int64_t x_step[ANEX_MAX_RANK], y_step[ANEX_MAX_RANK], out_step[ANEX_MAX_RANK];
    bool bias; /* in[2] */
    gemm g;
    bool many_x;                        /* for multiply_few: its many vectors are the rows of x */
    bool panels;                        /* a constant operand lies behind this struct in panels */
    int64_t panels_step[ANEX_MAX_RANK]; /* bytes */
} product;

static char *panels_of(const product *p) { return (char *)p + anex_align(sizeof *p); }

typedef struct place { /* of one product of the batch, in elements; panels in bytes */
    int64_t x, y, out, panels;
} place;

static place place_of(const product *p, int64_t batch) {
    place at = {0};
    for (int32_t d = p->batch_rank; d-- > 0;) {
        int64_t i = batch % p->batch[d];
        batch /= p->batch[d];
        at.x += i * p->x_step[d], at.y += i * p->y_step[d], at.out += i * p->out_step[d];
        at.panels += i * p->panels_step[d];
    }
    return at;
}

static gemm_matrix part(const gemm_matrix *form, const anex_tensor *t, int64_t at) {
    gemm_matrix part = *form;
    part.data = (const char *)t->data + at * (int64_t)anex_itemsize(t);
    return part;
}

static void multiply(const anex_node *node, const anex_slice *slice) {
    const product *p = node->state;
    const anex_tensor *x = node->n_list ? node->list[0] : node->in[0], *y = node->n_list ? node->list[1] : node->in[1];
    const anex_tensor *bias = p->bias ? node->in[2] : NULL;
    anex_tensor *out = node->out[0];
    int64_t tiles = gemm_tiles(&p->g);
    for (int64_t task = slice->begin, n; task < slice->end; task += n) {
        n = anex_min(slice->end - task, tiles - task % tiles);
        place at = place_of(p, task / tiles);
        gemm_side a = {.matrix = part(&p->x, x, at.x)}, b = {.matrix = part(&p->y, y, at.y)};
        gemm_output c = {.data = (char *)out->data + at.out * (int64_t)anex_itemsize(out), .dtype = out->dtype};
        c.row = p->out_row, c.col = 1;
        c.node = node, c.first = at.out;
        if (bias) c.bias = bias->data, c.bias_dtype = bias->dtype;
        if (p->g.turned) {
            gemm_side turned = {.matrix = gemm_transposed(b.matrix)};
            b = (gemm_side){.matrix = gemm_transposed(a.matrix)}, a = turned;
            c.row = 1, c.col = p->out_row, c.bias_by_row = true;
        }
        if (p->panels) b.panels = panels_of(p) + at.panels;
        gemm_tiles_run(&p->g, &a, &b, &c, task % tiles, n, slice->scratch);
    }
}

/* x . y, along one stream of memory, which prefetch follows best */
static inline __attribute__((always_inline)) float dot_row(const float *x, const void *y, const anex_dtype dtype,
                                                           int64_t at, int64_t n, const bool past) {
    enum { SUMS = 8, LINE = 64 }; /* as many sums as hide the time of an addition */
    const int64_t item = dtype == ANEX_F16 ? 2 : 4;
    vf sum[SUMS]; /* in registers, as long as all that is done with it is unrolled */
#pragma GCC unroll 8
    for (int v = 0; v < SUMS; v++) sum[v] = vf_zero();
    int64_t i = 0;
    for (; i + SUMS * VF <= n; i += SUMS * VF)
#pragma GCC unroll 8
        for (int v = 0; v < SUMS; v++) {
            if (v * VF * item % LINE == 0) few_prefetch(past, (const char *)y + (at + i + v * VF) * item);
            sum[v] = vf_fma(vf_load(x + i + v * VF), gemm_load(y, dtype, at + i + v * VF), sum[v]);
        }
    for (; i + VF <= n; i += VF) sum[0] = vf_fma(vf_load(x + i), gemm_load(y, dtype, at + i), sum[0]);
    float rest = 0;
    for (; i < n; i++) rest += x[i] * gemm_one(y, dtype, at + i);
    sum[0] = (sum[0] + sum[4]) + (sum[2] + sum[6]), sum[1] = (sum[1] + sum[5]) + (sum[3] + sum[7]);
    return few_total(sum[0] + sum[1]) + rest;
}

/* sums[i][j - begin] = vector i . row j; in a strict plan as gemm_dot, which every instruction set adds alike */
static inline __attribute__((always_inline)) void dot_rows(const bool strict, const anex_dtype dtype, const bool past,
                                                           const float *const *vector, int64_t few,
                                                           const gemm_matrix *rows, int64_t k, int64_t begin,
                                                           int64_t end, float *sums) {
    for (int64_t j = begin; j < end; j++) /* the row is in the cache for the second vector */
        for (int64_t i = 0; i < few; i++)
            sums[i * CHUNK + j - begin] = strict ? gemm_dot(true, vector[i], rows->data, dtype, j * rows->row, k)
                                                 : dot_row(vector[i], rows->data, dtype, j * rows->row, k, past);
}

static void dot_chunk(bool strict, bool past, const float *const *vector, int64_t few, const gemm_matrix *rows,
                      int64_t k, int64_t begin, int64_t end, float *sums) {
    const bool halves = rows->dtype == ANEX_F16;
    if (strict)
        halves ? dot_rows(true, ANEX_F16, false, vector, few, rows, k, begin, end, sums)
               : dot_rows(true, ANEX_F32, false, vector, few, rows, k, begin, end, sums);
    else if (halves)
        past ? dot_rows(false, ANEX_F16, true, vector, few, rows, k, begin, end, sums)
             : dot_rows(false, ANEX_F16, false, vector, few, rows, k, begin, end, sums);
    else
        past ? dot_rows(false, ANEX_F32, true, vector, few, rows, k, begin, end, sums)
             : dot_rows(false, ANEX_F32, false, vector, few, rows, k, begin, end, sums);
}

/* Vectors along k of one operand times the few of the other: no panels. Task: CHUNK of the many vectors of a product */
static void multiply_few(const anex_node *node, const anex_slice *slice) {
    const product *p = node->state;
    const anex_tensor *x = node->n_list ? node->list[0] : node->in[0], *y = node->n_list ? node->list[1] : node->in[1];
    int64_t few = p->many_x ? p->n : p->m, many = p->many_x ? p->m : p->n, chunks = (many + CHUNK - 1) / CHUNK;
    float *room = slice->scratch, *sums = room + few * p->k;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        place at = place_of(p, task / chunks);
        int64_t begin = task % chunks * CHUNK, end = anex_min(begin + CHUNK, many);
        gemm_matrix a = part(&p->x, x, at.x), b = gemm_transposed(part(&p->y, y, at.y));
        gemm_matrix from = p->many_x ? b : a, rows = p->many_x ? a : b;
        const bool past = few_past(node, many * p->k * (rows.dtype == ANEX_F16 ? 2 : 4));
        const float *vector[FEW];
        for (int64_t i = 0; i < few; i++) vector[i] = few_vector(&from, i, p->k, p->k, room + i * p->k);
        dot_chunk(node->strict, past, vector, few, &rows, p->k, begin, end, sums);
        few_output to = {.at = at.out,
                         .few = p->many_x ? 1 : p->out_row,
                         .many = p->many_x ? p->out_row : 1,
                         .bias = p->bias ? node->in[2] : NULL,
                         .bias_of_few = p->many_x};
        few_store(node, sums, few, begin, end, &to);
    }
}

/* The same where the many vectors lie across k: rows of y, read as they lie, add to the sums of a BAND of columns. */
enum { BAND = 8 * VF };

static inline __attribute__((always_inline)) void add_rows(const int few, const float *x, const void *y,
                                                           const anex_dtype dtype, int64_t step, int64_t k,
                                                           float *sums) {
    enum { ROWS_AHEAD = 8 };
    const int64_t item = dtype == ANEX_F16 ? 2 : 4;
    const char *row = y;
    vf sum[2][8];
#pragma GCC unroll 2
    for (int i = 0; i < few; i++)
#pragma GCC unroll 8
        for (int v = 0; v < 8; v++) sum[i][v] = vf_zero();
    for (int64_t r = 0; r < k; r++, row += step * item) {
        const char *later = row + step * item * anex_min(ROWS_AHEAD, k - 1 - r);
        for (int64_t at = 0; at < BAND * item; at += 64) __builtin_prefetch(later + at);
#pragma GCC unroll 8
        for (int v = 0; v < 8; v++) {
            vf values = gemm_load(row, dtype, v * VF);
#pragma GCC unroll 2
            for (int i = 0; i < few; i++) sum[i][v] = vf_fma(vf_set(x[i * k + r]), values, sum[i][v]);
        }
    }
#pragma GCC unroll 2
    for (int i = 0; i < few; i++)
#pragma GCC unroll 8
        for (int v = 0; v < 8; v++) vf_store(sums + i * BAND + v * VF, sum[i][v]);
}

/* task: BAND columns of a product, n of which is a multiple */
static void multiply_across(const anex_node *node, const anex_slice *slice) {
    const product *p = node->state;
    const anex_tensor *x = node->n_list ? node->list[0] : node->in[0], *y = node->n_list ? node->list[1] : node->in[1];
    anex_tensor *out = node->out[0];
    int64_t bands = p->n / BAND;
    float *vectors = slice->scratch, *sums = vectors + p->m * p->k;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        place at = place_of(p, task / bands);
        int64_t first = task % bands * BAND;
        gemm_matrix a = part(&p->x, x, at.x), b = part(&p->y, y, at.y + first);
        for (int64_t i = 0; i < p->m; i++)
            for (int64_t k = 0; k < p->k; k++)
                vectors[i * p->k + k] = gemm_one(a.data, a.dtype, i * a.row + k * a.col);
        for (int64_t i = 0; i < p->m; i += 2) {
            const float *some = vectors + i * p->k;
            float *to = sums + i * BAND;
            if (p->m - i > 1)
                b.dtype == ANEX_F16 ? add_rows(2, some, b.data, ANEX_F16, b.row, p->k, to)
                                    : add_rows(2, some, b.data, ANEX_F32, b.row, p->k, to);
            else
                b.dtype == ANEX_F16 ? add_rows(1, some, b.data, ANEX_F16, b.row, p->k, to)
                                    : add_rows(1, some, b.data, ANEX_F32, b.row, p->k, to);
        }
        gemm_output c = {.data = (char *)out->data + at.out * (int64_t)anex_itemsize(out), .dtype = out->dtype};
        c.row = p->out_row, c.col = 1, c.node = node, c.first = at.out;
        for (int64_t j = 0; j < BAND; j += NR) {
            float tile[FEW * NR];
            for (int64_t i = 0; i < p->m; i++) memcpy(tile + i * NR, sums + i * BAND + j, NR * sizeof *tile);
            gemm_store_tile(&c, tile, 0, p->m, first + j, NR);
        }
    }
}

/* int32, modulo 2^32 as numpy; task: a row of the output */
static void multiply_integers(const anex_node *node, const anex_slice *slice) {
    const product *p = node->state;
    const uint32_t *bias = p->bias ? node->in[2]->data : NULL;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        place at = place_of(p, task / p->m);
        int64_t i = task % p->m;
        const uint32_t *x = (const uint32_t *)node->in[0]->data + at.x + i * p->x.row;
        const uint32_t *y = (const uint32_t *)node->in[1]->data + at.y;
        uint32_t *restrict out = (uint32_t *)node->out[0]->data + at.out + i * p->out_row;
        for (int64_t j = 0; j < p->n; j++) out[j] = bias ? bias[j] : 0;
        if (p->y.col == 1)
            for (int64_t k = 0; k < p->k; k++) {
                const uint32_t *restrict row = y + k * p->y.row;
                uint32_t factor = x[k * p->x.col];
                for (int64_t j = 0; j < p->n; j++) out[j] += factor * row[j];
            }
        else
            for (int64_t j = 0; j < p->n; j++) {
                uint32_t sum = 0;
                for (int64_t k = 0; k < p->k; k++) sum += x[k * p->x.col] * y[k * p->y.row + j * p->y.col];
                out[j] += sum;
            }
    }
}

static double element(const gemm_matrix *form, const anex_tensor *t, int64_t at, int64_t row, int64_t col, bool whole) {
    double v = anex_real(t, at + row * form->row + col * form->col);
    return whole ? trunc(v) : v;
}

/* A constant of another kind than x, which iOS 17 allows, counts as of the output's; task: a row of the output */
static void multiply_mixed(const anex_node *node, const anex_slice *slice) {
    const product *p = node->state;
    const anex_tensor *out = node->out[0];
    const bool whole = out->dtype == ANEX_I32;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        place at = place_of(p, task / p->m);
        int64_t i = task % p->m, to = at.out + i * p->out_row;
        for (int64_t j = 0; j < p->n; j++) {
            double sum = p->bias ? anex_real(node->in[2], j) : 0;
            for (int64_t k = 0; k < p->k; k++)
                sum += element(&p->x, node->in[0], at.x, i, k, whole) * element(&p->y, node->in[1], at.y, k, j, whole);
            if (whole) /* modulo 2^32, as far as a double counts */
                ((int32_t *)out->data)[to + j] = fabs(sum) < 0x1p62 ? (int32_t)(uint32_t)(int64_t)sum : 0;
            else if (out->dtype == ANEX_F16)
                ((half *)out->data)[to + j] = anex_float_to_half((float)sum);
            else
                ((float *)out->data)[to + j] = (float)sum;
        }
    }
}

/* Products that share y and follow each other in x and out are one taller product. */
static void fold_batch(product *p) {
    while (p->batch_rank) {
        int32_t last = p->batch_rank - 1;
        bool single = p->batch[last] == 1,
             follows = p->x_step[last] == p->m * p->x.row && p->out_step[last] == p->m * p->out_row;
        if (!single && (p->y_step[last] || !follows)) return;
        p->m *= p->batch[last];
        p->batch_rank = last;
    }
}

static gemm_kind kind_of(const anex_tensor *t, bool by_k, bool may_pack) {
    return anex_is_constant(t) && may_pack ? GEMM_CONSTANT : by_k ? GEMM_BY_K : GEMM_ACROSS_K;
}

/* The constant operand on B's side goes into panels, once for each of its own matrices. */
static anex_status pack_constant(anex_node *node, product *p, const anex_tensor *t, anex_error *error) {
    gemm_matrix form = p->g.turned ? gemm_transposed(p->x) : p->y;
    const int64_t *step = p->g.turned ? p->x_step : p->y_step;
    size_t bytes = anex_align(gemm_panels_bytes(p->k, p->g.n, form.dtype));
    int64_t count = 1;
    for (int32_t d = p->batch_rank; d-- > 0;) {
        p->panels_step[d] = step[d] ? count * (int64_t)bytes : 0;
        count *= step[d] ? p->batch[d] : 1;
    }
    p->panels = true;
    char *state = anex_node_state(node, anex_align(sizeof *p) + (size_t)count * bytes, error);
    if (!state) return ANEX_MEMORY;
    memcpy(state, p, sizeof *p);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = 0, rest = i;
        for (int32_t d = p->batch_rank; d-- > 0;)
            if (step[d]) at += rest % p->batch[d] * step[d], rest /= p->batch[d];
        gemm_matrix one = part(&form, t, at);
        gemm_make_panels(&one, p->k, p->g.n, panels_of((product *)state) + (size_t)i * bytes);
    }
    node->packed |= 1u << (p->g.turned ? 0 : 1);
    return ANEX_OK;
}

static anex_status keep(anex_node *node, const product *p, anex_error *error) {
    void *state = anex_node_state(node, sizeof *p, error);
    if (state) memcpy(state, p, sizeof *p);
    return state ? ANEX_OK : ANEX_MEMORY;
}

static anex_status add_few(anex_node *node, product *p, int64_t batch, bool many_x, anex_error *error) {
    p->many_x = many_x;
    int64_t few = many_x ? p->n : p->m, many = many_x ? p->m : p->n, chunks = (many + CHUNK - 1) / CHUNK;
    node->ends_float = true;
    node->scratch = (size_t)(few * (p->k + CHUNK)) * sizeof(float);
    const anex_tensor *read = node->n_list ? NULL : node->in[many_x ? 0 : 1];
    if (anex_is_constant(read)) node->once = anex_tensor_nbytes(read);
    anex_add_stage(node, multiply_few, batch * chunks, few_cost(few, p->k, many));
    return keep(node, p, error);
}

static bool is_float(const anex_tensor *t) { return t->dtype == ANEX_F16 || t->dtype == ANEX_F32; }

static anex_status add_product(anex_node *node, product *p, const anex_tensor *x, const anex_tensor *y,
                               anex_error *error) {
    const anex_tensor *out = node->out[0];
    const anex_tensor *bias = p->bias ? node->in[2] : NULL;
    bool integers = x->dtype == ANEX_I32 && y->dtype == ANEX_I32 && (!bias || bias->dtype == ANEX_I32);
    bool mixed = !integers && !(is_float(x) && is_float(y) && (!bias || is_float(bias)));
    const anex_tensor *operands[] = {x, y, bias};
    for (int i = 0; i < 3; i++)
        if (mixed && operands[i] && (node->n_list || (!is_float(operands[i]) && operands[i]->dtype != ANEX_I32)))
            return anex_node_fail(node, error, ANEX_UNSUPPORTED,
                                  "the operands are %s and %s; the CPU engine multiplies float16, float32 and, except "
                                  "in einsum, int32: cast one",
                                  anex_dtypes[x->dtype].name, anex_dtypes[y->dtype].name);
    p->x.dtype = x->dtype, p->y.dtype = y->dtype;
    fold_batch(p);
    int64_t batch = 1;
    for (int32_t d = 0; d < p->batch_rank; d++) batch *= p->batch[d];
    if (!anex_tensor_size(out)) return ANEX_OK;
    if (integers || mixed) {
        anex_add_stage(node, integers ? multiply_integers : multiply_mixed, batch * p->m,
                       (integers ? 0.2 : 5) * (double)(p->n * p->k));
        return keep(node, p, error);
    }
    /* constants too: reading them once is all there is to do, and where they lie programs can share them */
    if (p->m <= FEW && p->y.row == 1 && p->y.col == p->k) return add_few(node, p, batch, false, error);
    if (p->n <= FEW && p->x.col == 1) return add_few(node, p, batch, true, error);
    bool across = !anex_is_constant(y) && p->y.col == 1 && p->n % BAND == 0;
    if (p->m <= FEW && across && !node->strict) {
        node->ends_float = true;
        node->scratch = (size_t)(p->m * (p->k + BAND)) * sizeof(float);
        anex_add_stage(node, multiply_across, batch * (p->n / BAND), 0.05 * (double)(p->m * p->k * BAND) + 10);
        return keep(node, p, error);
    }
    bool may_pack = !node->n_list; /* a list's constants stay where they are, so packing would hold them twice */
    gemm_plan(&p->g, batch, p->m, p->n, p->k, kind_of(x, p->x.col == 1, may_pack), kind_of(y, p->y.row == 1, may_pack));
    p->g.strict = node->strict;
    const anex_tensor *columns = p->g.turned ? x : y;
    if (anex_is_constant(columns) && may_pack) {
        anex_status status = pack_constant(node, p, columns, error);
        if (status) return status;
    } else {
        anex_status status = keep(node, p, error);
        if (status) return status;
    }
    node->ends_float = node->ends_bytes = true;
    node->scratch = gemm_scratch(&p->g);
    anex_add_stage(node, multiply, batch * gemm_tiles(&p->g), p->g.cost);
    return ANEX_OK;
}

/* y [.., n] = x [.., k] . weight [n, k]^T + bias [n] */
ANEX_KERNEL(linear) {
    enum { X, WEIGHT, BIAS };
    const anex_tensor *x = node->in[X], *weight = node->in[WEIGHT], *bias = node->in[BIAS];
    if (!x->rank || weight->rank != 2 || x->shape[x->rank - 1] != weight->shape[1])
        return anex_node_fail(node, error, ANEX_SHAPE, "the last axis of x must be the last of weight [n, k]");
    product p = {.m = anex_span(x, 0, x->rank - 1), .n = weight->shape[0], .k = weight->shape[1], .bias = bias};
    if (bias && (bias->rank != 1 || bias->shape[0] != p.n))
        return anex_node_fail(node, error, ANEX_SHAPE, "bias must be [%lld], one value per row of weight",
                              (long long)p.n);
    p.x.row = p.k, p.x.col = 1, p.y.row = 1, p.y.col = p.k, p.out_row = p.n;
    return add_product(node, &p, x, weight, error);
}

/* The row-major strides of t's axes, seen as if it had `rank` of them; 0 where it has one element. */
static void batch_steps(const anex_tensor *t, int32_t matrix_rank, int32_t rank, int64_t *shape, int64_t *step) {
    int64_t size = anex_span(t, anex_max(t->rank - matrix_rank, 0), t->rank);
    for (int32_t d = rank, axis = t->rank - matrix_rank; d-- > 0;) {
        int64_t n = --axis >= 0 ? t->shape[axis] : 1;
        step[d] = n == 1 ? 0 : size;
        shape[d] = anex_max(shape[d], n);
        size *= n;
    }
}

ANEX_KERNEL(matmul) {
    enum { X, Y, TRANSPOSE_X, TRANSPOSE_Y };
    const anex_tensor *x = node->in[X], *y = node->in[Y];
    anex_status status = anex_need_constants(node, 1u << TRANSPOSE_X | 1u << TRANSPOSE_Y, error);
    if (status) return status;
    if (!x->rank || !y->rank) return anex_node_fail(node, error, ANEX_SHAPE, "x and y must have at least one axis");
    bool turn_x = anex_int(node->in[TRANSPOSE_X], false) && x->rank > 1,
         turn_y = anex_int(node->in[TRANSPOSE_Y], false) && y->rank > 1;
    int64_t x_rows = x->rank > 1 ? x->shape[x->rank - 2] : 1,
            x_cols = x->shape[x->rank - 1]; /* as they lie in memory */
    int64_t y_rows = y->rank > 1 ? y->shape[y->rank - 2] : y->shape[0],
            y_cols = y->rank > 1 ? y->shape[y->rank - 1] : 1;
    product p = {.m = turn_x ? x_cols : x_rows, .k = turn_x ? x_rows : x_cols, .n = turn_y ? y_rows : y_cols};
    if (p.k != (turn_y ? y_cols : y_rows))
        return anex_node_fail(node, error, ANEX_SHAPE, "x has %lld columns, y %lld rows", (long long)p.k,
                              (long long)(turn_y ? y_cols : y_rows));
    p.x.row = turn_x ? 1 : x_cols, p.x.col = turn_x ? x_cols : 1;
    p.y.row = turn_y ? 1 : y_cols, p.y.col = turn_y ? y_cols : 1;
    p.out_row = p.n;
    p.batch_rank = (int32_t)anex_max(anex_max(x->rank, y->rank) - 2, 0);
    for (int32_t d = 0; d < p.batch_rank; d++) p.batch[d] = 1;
    batch_steps(x, 2, p.batch_rank, p.batch, p.x_step);
    batch_steps(y, 2, p.batch_rank, p.batch, p.y_step);
    int64_t size = p.m * p.n;
    for (int32_t d = p.batch_rank; d-- > 0; size *= p.batch[d]) p.out_step[d] = size;
    if (size != anex_tensor_size(node->out[0]))
        return anex_node_fail(node, error, ANEX_SHAPE, "x and y do not broadcast to the output");
    return add_product(node, &p, x, y, error);
}

/* "nchw,nwhu->nchu" and, without n, "chw,whu->chu": a product over w for each n and h */
ANEX_KERNEL(einsum) {
    if (node->n_list != 2 || node->list[0]->rank != node->list[1]->rank || node->list[0]->rank < 3 ||
        node->list[0]->rank > 4)
        return anex_node_fail(node, error, ANEX_UNSUPPORTED, "einsum takes two tensors of rank 3 or 4");
    const anex_tensor *x = node->list[0], *y = node->list[1], *out = node->out[0];
    const int64_t *xs = x->shape + x->rank - 3, *ys = y->shape + y->rank - 3, *os = out->shape + out->rank - 3;
    if (xs[2] != ys[0])
        return anex_node_fail(node, error, ANEX_SHAPE,
                              "the last axis of the first must be the third last of the second");
    product p = {.m = xs[0], .k = xs[2], .n = ys[2], .batch_rank = 2};
    p.x.row = xs[1] * xs[2], p.x.col = 1;
    p.y.row = ys[1] * ys[2], p.y.col = 1;
    p.out_row = os[1] * os[2];
    bool batched = x->rank == 4;
    p.batch[0] = batched ? out->shape[0] : 1, p.batch[1] = os[1];
    p.x_step[0] = batched && x->shape[0] > 1 ? anex_span(x, 1, 4) : 0, p.x_step[1] = xs[1] > 1 ? xs[2] : 0;
    p.y_step[0] = batched && y->shape[0] > 1 ? anex_span(y, 1, 4) : 0, p.y_step[1] = ys[1] > 1 ? ys[2] : 0;
    p.out_step[0] = batched ? anex_span(out, 1, 4) : 0, p.out_step[1] = os[2];
    return add_product(node, &p, x, y, error);
}

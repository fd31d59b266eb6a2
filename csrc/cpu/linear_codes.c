/* anex_linear_codes: linear (matmul, a convolution of one tap) by weights that stay in memory as codes of 8 or 4 bits.

   The value of code w is scale * (w - zero), or scale * (table[w] - zero) where there is a table: then codes have 4
   bits. scale and zero are [n, k / block]. Few rows of x go along the rows of codes, and read a half or a quarter of
   what float16 weights would be; more decode panels where they multiply, many a block at a time before.
   anex/devices/quantized.py finds them. */
#include "digits.h"

typedef struct coded {
    gemm g;
    int64_t batch, m, x_step, out_step; /* elements from one product to the next */
    gemm_matrix x;                      /* without data */
    int64_t row, col;                   /* of the output */
    gemm_codes codes;                   /* behind this struct: tables, scales and zeros, panels */
    int64_t n, k, units;                /* with few rows; k in UNITs */
    const uint8_t *nibbles;             /* [n][units][UNIT / 2]; NULL: the weights are bytes, as they are */
    const float *scales, *zeros;        /* [n][units]; NULL: one a row, as they are, or no zeros */
    digits_affine affine;               /* where nibbles are as in digits.h: the same, of the first row */
    float offset;                       /* of all codes; or of those of a row, beside its zeros */
} coded;

static void multiply(const anex_node *node, const anex_slice *slice) {
    enum { X, WEIGHT, SCALE, ZERO, TABLE, BIAS };
    const coded *l = node->state;
    const anex_tensor *x = node->in[X], *out = node->out[0], *bias = node->in[BIAS];
    int64_t tiles = gemm_tiles(&l->g);
    for (int64_t task = slice->begin, n; task < slice->end; task += n) {
        n = anex_min(slice->end - task, tiles - task % tiles);
        int64_t part = task / tiles;
        gemm_side a = {.matrix = l->x}, b = {.codes = &l->codes};
        a.matrix.data = (const char *)x->data + part * l->x_step * (int64_t)anex_itemsize(x);
        gemm_output c = {.data = (char *)out->data + part * l->out_step * (int64_t)anex_itemsize(out),
                         .row = l->row,
                         .col = l->col,
                         .dtype = out->dtype,
                         .node = node,
                         .first = part * l->out_step};
        if (bias) c.bias = bias->data, c.bias_dtype = bias->dtype;
        gemm_tiles_run(&l->g, &a, &b, &c, task % tiles, n, slice->scratch);
    }
}

/* Codes [n, k], a byte each, as panels */
static void pack_codes(uint8_t *to, const uint8_t *from, int64_t n, int64_t k, bool nibbles) {
    const int64_t row = nibbles ? NR / 2 : NR;
    for (int64_t j = 0; j < n; j++) {
        uint8_t *panel = to + j / NR * k * row;
        int64_t lane = j % NR;
        for (int64_t i = 0; i < k; i++)
            if (nibbles)
                panel[i * row + lane % (NR / 2)] |= (uint8_t)((from[j * k + i] & 15) << (lane < NR / 2 ? 0 : 4));
            else
                panel[i * row + lane] = from[j * k + i];
    }
}

/* ---- few rows ------------------------------------------------------------------------------- */

/* Of 4 bits, byte b of a unit has the codes of its columns b, and b + UNIT / 2 above. */
enum { UNITS = 4 };

/* sum + x . unit of codes - zero */
static inline __attribute__((always_inline)) vf add_unit(const bool nibbles, const bool zeros, const float *x,
                                                         const uint8_t *codes, const float *table, vf zero, vf sum) {
#pragma GCC unroll 8
    for (int i = 0; i < UNIT; i += VF) {
        vf y = nibbles ? vf_look_up(table, codes + i % (UNIT / 2), i < UNIT / 2 ? 0 : 4) : vf_load_i8(codes + i);
        if (zeros) y = y - zero;
        sum = vf_fma(vf_load(x + i), y, sum);
    }
    return sum;
}

/* x . row: `each` unit has a scale and zero, else the row; n units, and of bytes `rest` codes more */
static inline __attribute__((always_inline)) float dot_codes(const bool nibbles, const bool each, const bool zeros,
                                                             const bool past, const float *x, const uint8_t *codes,
                                                             const float *table, const float *scale, const float *zero,
                                                             int64_t n, int64_t rest) {
    enum { LINE = 64 };
    const int64_t step = nibbles ? UNIT / 2 : UNIT;
    vf sum[UNITS];
#pragma GCC unroll 4
    for (int s = 0; s < UNITS; s++) sum[s] = vf_zero();
    for (int64_t u = 0; u < n; u += UNITS)
#pragma GCC unroll 4
        for (int s = 0; s < UNITS; s++) {
            if (u + s >= n) break;
            const uint8_t *unit = codes + (u + s) * step;
            if (s * step % LINE == 0) few_prefetch(past, unit);
            const vf none = zeros ? vf_set(zero[each ? u + s : 0]) : vf_zero();
            if (each) {
                vf part = add_unit(nibbles, zeros, x + (u + s) * UNIT, unit, table, none, vf_zero());
                sum[s] = vf_fma(part, vf_set(scale[u + s]), sum[s]);
            } else
                sum[s] = add_unit(nibbles, zeros, x + (u + s) * UNIT, unit, table, none, sum[s]);
        }
    float total = few_total((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (int64_t i = n * UNIT; i < n * UNIT + rest; i++)
        total += x[i] * ((float)(int8_t)codes[i] - (zeros ? zero[0] : 0));
    return each ? total : total * scale[0];
}

/* task: CHUNK rows of the weights of a product */
static inline __attribute__((always_inline)) void few_of(const bool nibbles, const bool each, const bool zeros,
                                                         const anex_node *node, const anex_slice *slice) {
    enum { X, WEIGHT, SCALE, ZERO, TABLE, BIAS };
    const coded *l = node->state;
    const anex_tensor *x = node->in[X], *table = node->in[TABLE];
    const int64_t chunks = (l->n + CHUNK - 1) / CHUNK, rest = nibbles ? 0 : l->k % UNIT,
                  units = nibbles ? l->units : l->k / UNIT, padded = nibbles ? units * UNIT : l->k,
                  step = nibbles ? units * UNIT / 2 : l->k, affine = each ? l->units : 1;
    const uint8_t *codes = nibbles ? l->nibbles : node->in[WEIGHT]->data;
    const float *scale = each ? l->scales : node->in[SCALE]->data;
    const float *zero = !zeros ? NULL : each ? l->zeros : node->in[ZERO]->data;
    const bool past = few_past(node, l->n * step);
    float *room = slice->scratch, *sums = room + l->m * padded;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t part = task / chunks, begin = task % chunks * CHUNK, end = anex_min(begin + CHUNK, l->n);
        gemm_matrix from = l->x;
        const float *vector[FEW];
        from.data = (const char *)x->data + part * l->x_step * (int64_t)anex_itemsize(x);
        for (int64_t i = 0; i < l->m; i++) vector[i] = few_vector(&from, i, l->k, padded, room + i * padded);
        for (int64_t j = begin; j < end; j++) {
            const uint8_t *row = codes + j * step;
            const float *look = nibbles ? (const float *)table->data + j * table->shape[0] / l->n * 16 : NULL;
            const float *z = zeros ? zero + j * affine : NULL;
            for (int64_t i = 0; i < l->m; i++)
                sums[i * CHUNK + j - begin] =
                    past ? dot_codes(nibbles, each, zeros, true, vector[i], row, look, scale + j * affine, z, units, rest)
                         : dot_codes(nibbles, each, zeros, false, vector[i], row, look, scale + j * affine, z, units, rest);
        }
        few_output to = {.at = part * l->out_step, .few = l->row, .many = l->col, .bias = node->in[BIAS]};
        few_store(node, sums, l->m, begin, end, &to);
    }
}

#define FEW_OF(nibbles, each, zeros)                                                                 \
    static void few_##nibbles##each##zeros(const anex_node *node, const anex_slice *slice) {        \
        few_of(nibbles, each, zeros, node, slice);                                                  \
    }
FEW_OF(0, 0, 0) FEW_OF(0, 0, 1) FEW_OF(0, 1, 0) FEW_OF(0, 1, 1)
FEW_OF(1, 0, 0) FEW_OF(1, 0, 1) FEW_OF(1, 1, 0) FEW_OF(1, 1, 1)
static anex_work *const few_works[2][2][2] = {{{few_000, few_001}, {few_010, few_011}},
                                              {{few_100, few_101}, {few_110, few_111}}};

/* ---- few rows, in integers ------------------------------------------------------------------- */

/* task: a row of x, to be shared */
static void make_digits(const anex_node *node, const anex_slice *slice) {
    enum { X };
    const coded *l = node->state;
    const anex_tensor *x = node->in[X];
    for (int64_t task = slice->begin; task < slice->end; task++) {
        gemm_matrix from = l->x;
        from.data = (const char *)x->data + task / l->m * l->x_step * (int64_t)anex_itemsize(x);
        const float *vector = few_vector(&from, task % l->m, l->k, l->units * UNIT, slice->scratch);
        digits_make(l->units, vector, l->affine.zeros ? 1 : l->offset,
                    (char *)slice->shared + (size_t)task * digits_bytes(l->units));
    }
}

/* The scale and zeros of row j */
static inline digits_affine affine_of(const digits_affine *first, int64_t units, int64_t j) {
    const int64_t step = j * (first->each ? units : 1) * (int64_t)(first->halves ? sizeof(half) : sizeof(float));
    digits_affine of = *first;
    of.scale = (const char *)first->scale + step;
    if (first->zeros) of.zero = (const char *)first->zero + step;
    return of;
}

/* x . row in floats, for an x that is not finite: slow */
static float dot_plain(const coded *l, const gemm_matrix *x, int64_t i, const uint8_t *row, const digits_affine *a) {
    const anex_dtype dtype = a->halves ? ANEX_F16 : ANEX_F32;
    float total = 0;
    for (int64_t u = 0; u * UNIT < l->k; u++) {
        const float zero = a->zeros ? gemm_one(a->zero, dtype, a->each ? u : 0) : l->offset;
        float sum = 0;
        for (int64_t k = u * UNIT; k < anex_min(l->k, (u + 1) * UNIT); k++)
            sum += gemm_one(x->data, x->dtype, i * x->row + k * x->col) * ((float)digits_code(l->units, row, k) - zero);
        total += sum * gemm_one(a->scale, dtype, a->each ? u : 0);
    }
    return total;
}

/* sums[j - begin] = x . row j */
static inline __attribute__((always_inline)) void dot_rows(const bool dot, const bool past, const coded *l,
                                                           const digits *x, const digits_affine *first, int64_t begin,
                                                           int64_t end, float *sums) {
    const int64_t units = l->units;
    const uint8_t *row = l->nibbles + begin * units * (UNIT / 2);
    for (int64_t j = begin; j < end; j++, row += units * (UNIT / 2)) {
        const digits_affine a = affine_of(first, units, j);
        float sum = digits_dot(dot, past, units, x, row, &a);
        sums[j - begin] = first->each ? sum : sum * *(const float *)a.scale;
    }
}

/* task: CHUNK rows of the weights of a product */
static inline __attribute__((always_inline)) void few_in_integers(const bool dot, const bool each, const bool halves,
                                                                  const bool zeros, const anex_node *node,
                                                                  const anex_slice *slice) {
    enum { X, WEIGHT, SCALE, ZERO, TABLE, BIAS };
    const coded *l = node->state;
    const anex_tensor *x = node->in[X];
    const digits_affine first = {each, halves, zeros, l->affine.scale, l->affine.zero};
    const int64_t chunks = (l->n + CHUNK - 1) / CHUNK, units = l->units;
    const bool past = few_past(node, l->n * units * (UNIT / 2));
    float *sums = slice->scratch;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        const int64_t part = task / chunks, begin = task % chunks * CHUNK, end = anex_min(begin + CHUNK, l->n);
        const char *made = (const char *)slice->shared + (size_t)(part * l->m) * digits_bytes(units);
        for (int64_t i = 0; i < l->m; i++, made += digits_bytes(units)) {
            const digits *vector = (const digits *)made;
            float *to = sums + i * CHUNK;
            if (!vector->finite) {
                gemm_matrix from = l->x;
                from.data = (const char *)x->data + part * l->x_step * (int64_t)anex_itemsize(x);
                for (int64_t j = begin; j < end; j++) {
                    const digits_affine a = affine_of(&first, units, j);
                    to[j - begin] = dot_plain(l, &from, i, l->nibbles + j * units * (UNIT / 2), &a);
                }
            } else if (past)
                dot_rows(dot, true, l, vector, &first, begin, end, to);
            else
                dot_rows(dot, false, l, vector, &first, begin, end, to);
        }
        few_output to = {.at = part * l->out_step, .few = l->row, .many = l->col, .bias = node->in[BIAS]};
        few_store(node, sums, l->m, begin, end, &to);
    }
}

#define IN_INTEGERS(each, halves, zeros)                                                                \
    static void integers_##each##halves##zeros(const anex_node *node, const anex_slice *slice) {        \
        node->dot ? few_in_integers(true, each, halves, zeros, node, slice)                             \
                  : few_in_integers(false, each, halves, zeros, node, slice);                           \
    }
IN_INTEGERS(0, 0, 0) IN_INTEGERS(0, 0, 1)
IN_INTEGERS(1, 0, 0) IN_INTEGERS(1, 0, 1) IN_INTEGERS(1, 1, 0) IN_INTEGERS(1, 1, 1)
static anex_work *const integer_works[2][2][2] = {{{integers_000, integers_001}, {NULL, NULL}},
                                                  {{integers_100, integers_101}, {integers_110, integers_111}}};

/* What makes codes 0 .. 15, in order, of those to which `table` gives the integers from -8 or 0 on; negative: none */
static int32_t flip_of(const anex_tensor *table) {
    const float *value = table->data;
    const int32_t flip = value[0] == 0 && value[8] == -8 ? 8 : 0;
    for (int64_t i = 0; i < anex_tensor_size(table); i++)
        if (value[i] != (float)((i % 16 ^ flip) - flip)) return -1;
    return flip;
}

static bool fits_half(const anex_tensor *t, float more) {
    for (int64_t i = 0; t && i < anex_tensor_size(t); i++) {
        float value = ((const float *)t->data)[i] + more;
        if (anex_half_to_float(anex_float_to_half(value)) != value) return false;
    }
    return true;
}

/* from [n, blocks], each plus `more`, to [n, units], of `k` codes a row */
static void spread_as(void *to, bool halves, const anex_tensor *from, int64_t units, int64_t k, float more) {
    const int64_t n = from->shape[0], blocks = from->shape[1];
    for (int64_t j = 0; j < n; j++)
        for (int64_t u = 0; u < units; u++) {
            int64_t block = anex_min(u * UNIT * blocks / k, blocks - 1);
            float value = ((const float *)from->data)[j * blocks + block] + more;
            if (halves)
                ((half *)to)[j * units + u] = anex_float_to_half(value);
            else
                ((float *)to)[j * units + u] = value;
        }
}

static anex_status plan_integers(anex_node *node, coded *l, int32_t flip, anex_error *error) {
    enum { X, WEIGHT, SCALE, ZERO, TABLE, BIAS, ACROSS };
    const anex_tensor *scale = node->in[SCALE], *zero = node->in[ZERO];
    const bool each = scale->shape[1] > 1, halves = each && fits_half(scale, 0) && fits_half(zero, (float)flip);
    l->units = digits_units(l->k), l->offset = (float)flip;
    const int64_t step = l->units * (UNIT / 2), affine = each ? l->units : 1;
    const size_t codes = anex_align((size_t)(l->n * step)), past = ANEX_ALIGNMENT,
                 scales = anex_align((size_t)(l->n * affine) * (halves ? sizeof(half) : sizeof(float)));
    char *state = anex_node_state(node, anex_align(sizeof *l) + codes + scales * (zero ? 2 : 1) + past, error);
    if (!state) return ANEX_MEMORY;
    uint8_t *to = (uint8_t *)state + anex_align(sizeof *l);
    l->nibbles = to;
    l->affine = (digits_affine){each, halves, zero, to + codes, to + codes + scales};
    for (int64_t j = 0; j < l->n; j++)
        digits_pack(l->units, (const uint8_t *)node->in[WEIGHT]->data + j * l->k, l->k, (uint8_t)flip, to + j * step);
    spread_as(to + codes, halves, scale, affine, l->k, 0);
    if (zero) spread_as(to + codes + scales, halves, zero, affine, l->k, (float)flip);
    memcpy(state, l, sizeof *l);
    node->once = l->n * step;
    node->packed |= 1u << WEIGHT | 1u << SCALE | 1u << ZERO | 1u << TABLE | 1u << ACROSS;
    node->ends_float = true;
    node->scratch = (size_t)anex_max(l->units * UNIT, l->m * CHUNK) * sizeof(float);
    node->shared = (size_t)(l->batch * l->m) * digits_bytes(l->units);
    anex_add_stage(node, make_digits, l->batch * l->m, 0.5 * (double)l->k);
    anex_add_stage(node, integer_works[each][halves][zero != NULL], l->batch * ((l->n + CHUNK - 1) / CHUNK),
                   few_cost(l->m, l->k, l->n));
    return ANEX_OK;
}

/* from [n, blocks] to [n, units] */
static const float *spread(float *to, const anex_tensor *from, int64_t units) {
    const int64_t n = from->shape[0], blocks = from->shape[1];
    for (int64_t j = 0; j < n; j++)
        for (int64_t u = 0; u < units; u++)
            to[j * units + u] = ((const float *)from->data)[j * blocks + u * blocks / units];
    return to;
}

static anex_status plan_few(anex_node *node, coded *l, anex_error *error) {
    enum { X, WEIGHT, SCALE, ZERO, TABLE, BIAS, ACROSS };
    const anex_tensor *scale = node->in[SCALE], *zero = node->in[ZERO];
    const int32_t flip = node->in[TABLE] ? flip_of(node->in[TABLE]) : -1;
    if (flip >= 0) return plan_integers(node, l, flip, error);
    const bool nibbles = node->in[TABLE], each = scale->shape[1] > 1;
    l->units = (l->k + UNIT - 1) / UNIT;
    const size_t affine = each ? anex_align((size_t)(l->n * l->units) * sizeof(float)) : 0,
                 codes = nibbles ? (size_t)(l->n * l->units * (UNIT / 2)) : 0;
    char *state = anex_node_state(node, anex_align(sizeof *l) + affine * (zero ? 2 : 1) + codes, error);
    if (!state) return ANEX_MEMORY;
    char *at = state + anex_align(sizeof *l);
    node->packed |= 1u << ACROSS;
    if (each) {
        l->scales = spread((float *)at, scale, l->units), at += affine;
        if (zero) l->zeros = spread((float *)at, zero, l->units), at += affine;
        node->packed |= 1u << SCALE | 1u << ZERO;
    }
    if (nibbles) {
        const uint8_t *from = node->in[WEIGHT]->data;
        l->nibbles = (uint8_t *)at;
        for (int64_t j = 0; j < l->n; j++)
            for (int64_t i = 0; i < l->k; i++)
                at[(j * l->units + i / UNIT) * (UNIT / 2) + i % (UNIT / 2)] |=
                    (char)((from[j * l->k + i] & 15) << (i % UNIT < UNIT / 2 ? 0 : 4));
        node->packed |= 1u << WEIGHT;
    }
    memcpy(state, l, sizeof *l);
    node->once = nibbles ? (int64_t)codes : l->n * l->k;
    node->ends_float = true;
    node->scratch = (size_t)(l->m * (l->units * UNIT + CHUNK)) * sizeof(float);
    anex_add_stage(node, few_works[nibbles][each][zero != NULL], l->batch * ((l->n + CHUNK - 1) / CHUNK),
                   few_cost(l->m, l->k, l->n));
    return ANEX_OK;
}

/* ---- plan ----------------------------------------------------------------------------------- */

static anex_status check_codes(const anex_node *node, const anex_tensor *weight, const anex_tensor *scale,
                               const anex_tensor *zero, const anex_tensor *table, const anex_tensor *bias,
                               anex_error *error) {
    const anex_tensor *constants[] = {weight, scale, zero, table};
    for (int32_t i = 0; i < 4; i++)
        if (constants[i] && !constants[i]->data)
            return anex_node_fail(node, error, ANEX_UNSUPPORTED, "weights and their parameters must be constants");
    bool fits = weight->rank == 2 && scale->rank == 2 && scale->dtype == ANEX_F32 && anex_itemsize(weight) == 1 &&
                scale->shape[0] == weight->shape[0] && scale->shape[1] && weight->shape[1] % scale->shape[1] == 0 &&
                (!zero || (zero->dtype == ANEX_F32 && anex_tensor_size(zero) == anex_tensor_size(scale))) &&
                (!table || (table->dtype == ANEX_F32 && table->rank == 2 && table->shape[1] == 16 &&
                            (table->shape[0] == 1 || weight->shape[0] % (table->shape[0] * NR) == 0))) &&
                (!bias || (anex_is_float(bias) && anex_tensor_size(bias) == weight->shape[0]));
    return fits ? ANEX_OK : anex_node_fail(node, error, ANEX_SHAPE, "the parameters of the weights do not fit them");
}

/* x [.., k], or across: x [batch, k, m] and y [batch, n, m] */
ANEX_KERNEL(anex_linear_codes) {
    enum { X, WEIGHT, SCALE, ZERO, TABLE, BIAS, ACROSS };
    const anex_tensor *x = node->in[X], *weight = node->in[WEIGHT], *scale = node->in[SCALE], *zero = node->in[ZERO],
                      *table = node->in[TABLE];
    anex_status status = check_codes(node, weight, scale, zero, table, node->in[BIAS], error);
    if (status || !anex_tensor_size(node->out[0])) return status;
    bool across = anex_int(node->in[ACROSS], false);
    int64_t n = weight->shape[0], k = weight->shape[1], panels = (n + NR - 1) / NR, blocks = scale->shape[1];
    coded l = {.batch = across ? x->shape[0] : 1};
    if (x->rank < 1 + across || x->shape[across ? 1 : x->rank - 1] != k)
        return anex_node_fail(node, error, ANEX_SHAPE, "x must have %lld values for each sum", (long long)k);
    l.m = across ? anex_span(x, 2, x->rank) : anex_span(x, 0, x->rank - 1);
    l.x = across ? (gemm_matrix){NULL, 1, l.m, x->dtype} : (gemm_matrix){NULL, k, 1, x->dtype};
    if (across && l.m == 1) l.x.row = k, l.x.col = 1;
    l.row = across ? 1 : n, l.col = across ? l.m : 1;
    if (across && l.m == 1) l.row = n, l.col = 1;
    l.x_step = l.m * k, l.out_step = l.m * n;
    l.n = n, l.k = k;
    if (l.m <= FEW && l.x.col == 1 && (blocks == 1 || k / blocks % UNIT == 0)) return plan_few(node, &l, error);
    gemm_plan_codes(&l.g, l.batch, l.m, n, k, l.x.col == 1 ? GEMM_BY_K : GEMM_ACROSS_K, k / blocks);
    const int64_t tables = !table ? 0 : table->shape[0] > 1 ? panels : 1, step = zero ? 2 * NR : NR;
    const size_t table_bytes = anex_align((size_t)tables * 16 * sizeof(float)),
                 affine = anex_align((size_t)(panels * blocks * step) * sizeof(float)),
                 codes = anex_align((size_t)(panels * k * (table ? NR / 2 : NR))), past = ANEX_ALIGNMENT;
    char *state = anex_node_state(node, anex_align(sizeof l) + table_bytes + affine + codes + past, error);
    if (!state) return ANEX_MEMORY;
    float *to_table = (float *)(state + anex_align(sizeof l)), *to_affine = (float *)((char *)to_table + table_bytes);
    uint8_t *to_codes = (uint8_t *)to_affine + affine;
    for (int64_t i = 0; i < tables; i++)
        memcpy(to_table + i * 16, (const float *)table->data + i * NR * table->shape[0] / n * 16, 16 * sizeof(float));
    for (int64_t j = 0; j < n; j++)
        for (int64_t b = 0; b < blocks; b++) {
            float *to = to_affine + (j / NR * blocks + b) * step + j % NR;
            to[0] = ((const float *)scale->data)[j * blocks + b];
            if (zero) to[NR] = ((const float *)zero->data)[j * blocks + b];
        }
    pack_codes(to_codes, weight->data, n, k, table);
    l.codes = (gemm_codes){.panels = to_codes,
                           .nibbles = table,
                           .table = to_table,
                           .table_step = tables > 1 ? 16 : 0,
                           .zeros = zero,
                           .block = k / blocks,
                           .affine = to_affine};
    memcpy(state, &l, sizeof l);
    node->packed |= 1u << WEIGHT | 1u << SCALE | 1u << ZERO | 1u << TABLE | 1u << ACROSS;
    node->ends_float = node->ends_bytes = true;
    node->scratch = gemm_scratch(&l.g);
    anex_add_stage(node, multiply, l.batch * gemm_tiles(&l.g), l.g.cost);
    return ANEX_OK;
}

/* The one loop that moves data: contiguous bytes, rows of strided elements, or tiles to transpose. */
#include "move.h"

#include <stdlib.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { NOTHING, BYTES, ROWS, TILES };

static const int64_t TASK_BYTES = 32768;
/* Nanoseconds, as measured in cache: per byte moved in runs or tiles, per element on its own */
static const double PER_BYTE = 0.03, PER_ELEMENT = 0.35;

/* ---- planning ------------------------------------------------------------------------------- */

static void remove_axis(anex_move *m, int32_t axis) {
    m->rank--;
    for (int32_t i = axis; i < m->rank; i++)
        m->shape[i] = m->shape[i + 1], m->from[i] = m->from[i + 1], m->to[i] = m->to[i + 1];
}

static void put_last(anex_move *m, int32_t axis, int32_t last) {
    int64_t shape = m->shape[axis], from = m->from[axis], to = m->to[axis];
    for (int32_t i = axis; i < last; i++)
        m->shape[i] = m->shape[i + 1], m->from[i] = m->from[i + 1], m->to[i] = m->to[i + 1];
    m->shape[last] = shape, m->from[last] = from, m->to[last] = to;
}

/* Axes in the order of the target, adjacent ones joined, contiguous elements made one run. */
static void collapse(anex_move *m) {
    for (int32_t i = m->rank - 1; i >= 0; i--)
        if (m->shape[i] == 1) remove_axis(m, i);
    for (int32_t i = 1; i < m->rank; i++)
        for (int32_t j = i; j > 0 && llabs(m->to[j - 1]) < llabs(m->to[j]); j--) put_last(m, j - 1, j);
    for (int32_t i = m->rank - 2; i >= 0; i--)
        if (m->from[i] == m->from[i + 1] * m->shape[i + 1] && m->to[i] == m->to[i + 1] * m->shape[i + 1]) {
            m->from[i] = m->from[i + 1], m->to[i] = m->to[i + 1], m->shape[i] *= m->shape[i + 1];
            remove_axis(m, i + 1);
        }
    int32_t last = m->rank - 1;
    if (last >= 0 && m->from[last] == m->run && m->to[last] == m->run) m->run *= m->shape[last], m->rank--;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void ANEX_LOCAL(move_plan)(anex_move *m) {
    m->kind = NOTHING, m->tasks = 0, m->block = m->chunks = 1, m->cost = 0;
    for (int32_t i = 0; i < m->rank; i++)
        if (!m->shape[i]) return;
    collapse(m);
    if (!m->rank) {
        m->kind = BYTES;
        m->block = TASK_BYTES;
        m->tasks = ceil_div(m->run, m->block);
        m->cost = (double)anex_min(m->run, m->block) * PER_BYTE;
        return;
    }
    int32_t last = m->rank - 1, across = -1; /* the axis along which the source is contiguous */
    for (int32_t i = 0; i < last; i++)
        if (m->from[i] == m->run) across = i;
    int64_t outer = 1;
    bool small = m->run == 1 || m->run == 2 || m->run == 4 || m->run == 8;
    if (across >= 0 && small && m->to[last] == m->run && m->shape[last] >= 4 && m->shape[across] >= 4) {
        m->kind = TILES;
        put_last(m, across, last - 1);
        for (int32_t i = 0; i < m->rank - 2; i++) outer *= m->shape[i];
        int64_t line = m->shape[last] * m->run;
        m->block = anex_max(32, TASK_BYTES / line / 32 * 32);
        m->chunks = ceil_div(m->shape[last - 1], m->block);
        m->tasks = outer * m->chunks;
        m->cost = (double)(anex_min(m->block, m->shape[last - 1]) * line) * PER_BYTE;
        return;
    }
    m->kind = ROWS;
    if (across >= 0 && m->shape[last] < m->shape[across] && m->shape[last] < 8) put_last(m, across, last);
    for (int32_t i = 0; i < last; i++) outer *= m->shape[i];
    double step = PER_ELEMENT + (double)m->run * PER_BYTE;
    int64_t row = m->shape[last] * anex_max(m->run, 8);
    if (row > 2 * TASK_BYTES) { /* each row is cut */
        m->block = anex_max(1, TASK_BYTES / anex_max(m->run, 8));
        m->chunks = ceil_div(m->shape[last], m->block);
        m->tasks = outer * m->chunks;
        m->cost = (double)m->block * step;
    } else { /* a task takes several rows; chunks 0 says so */
        m->block = anex_max(1, TASK_BYTES / row);
        m->chunks = 0;
        m->tasks = ceil_div(outer, m->block);
        m->cost = (double)(anex_min(m->block, outer) * m->shape[last]) * step;
    }
}

/* ---- rows ----------------------------------------------------------------------------------- */

/* n elements, `from_step` and `to_step` bytes apart. Runs may be of smaller items, so nothing is
   known of alignment: memcpy of a constant size is one move. */
#define LINE(type)                                                                                           \
    static void line_##type(const char *from, int64_t from_step, char *to, int64_t to_step, int64_t n) {     \
        const int64_t size = (int64_t)sizeof(type);                                                          \
        type v;                                                                                              \
        if (to_step == size && from_step == 0) {                                                             \
            memcpy(&v, from, sizeof v);                                                                      \
            for (int64_t i = 0; i < n; i++) memcpy(to + i * size, &v, sizeof v);                             \
        } else if (to_step == size && from_step == -size) {                                                  \
            for (int64_t i = 0; i < n; i++)                                                                  \
                memcpy(&v, from - i * size, sizeof v), memcpy(to + i * size, &v, sizeof v);                  \
        } else {                                                                                             \
            for (int64_t i = 0; i < n; i++, from += from_step, to += to_step)                                \
                memcpy(&v, from, sizeof v), memcpy(to, &v, sizeof v);                                        \
        }                                                                                                    \
    }
LINE(uint8_t)
LINE(uint16_t)
LINE(uint32_t)
LINE(uint64_t)
#undef LINE

static void line(const char *from, int64_t from_step, char *to, int64_t to_step, int64_t n, int64_t run) {
    switch (run) {
    case 1: line_uint8_t(from, from_step, to, to_step, n); return;
    case 2: line_uint16_t(from, from_step, to, to_step, n); return;
    case 4: line_uint32_t(from, from_step, to, to_step, n); return;
    case 8: line_uint64_t(from, from_step, to, to_step, n); return;
    case 16:
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_step, from + i * from_step, 16);
        return;
    default:
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_step, from + i * from_step, (size_t)run);
    }
}

/* Walk over the first `rank` axes of a move in order. */
typedef struct odometer {
    int64_t index[ANEX_MOVE_RANK];
    const char *from;
    char *to;
} odometer;

static odometer odometer_at(const anex_move *m, int32_t rank, int64_t position, const char *from, char *to) {
    odometer o = {.from = from, .to = to};
    for (int32_t i = rank - 1; i >= 0; i--) {
        o.index[i] = position % m->shape[i];
        position /= m->shape[i];
        o.from += o.index[i] * m->from[i], o.to += o.index[i] * m->to[i];
    }
    return o;
}

static void odometer_next(odometer *o, const anex_move *m, int32_t rank) {
    for (int32_t i = rank - 1; i >= 0; i--) {
        o->from += m->from[i], o->to += m->to[i];
        if (++o->index[i] < m->shape[i]) return;
        o->from -= m->from[i] * m->shape[i], o->to -= m->to[i] * m->shape[i];
        o->index[i] = 0;
    }
}

static void run_rows(const anex_move *m, const char *from, char *to, int64_t begin, int64_t end) {
    int32_t last = m->rank - 1;
    if (m->chunks) {
        for (int64_t t = begin; t < end; t++) {
            odometer o = odometer_at(m, last, t / m->chunks, from, to);
            int64_t at = t % m->chunks * m->block;
            line(o.from + at * m->from[last], m->from[last], o.to + at * m->to[last], m->to[last],
                 anex_min(m->block, m->shape[last] - at), m->run);
        }
        return;
    }
    int64_t rows = 1;
    for (int32_t i = 0; i < last; i++) rows *= m->shape[i];
    odometer o = odometer_at(m, last, begin * m->block, from, to);
    for (int64_t r = begin * m->block, stop = anex_min(end * m->block, rows); r < stop; r++, odometer_next(&o, m, last))
        line(o.from, m->from[last], o.to, m->to[last], m->shape[last], m->run);
}

/* ---- tiles ---------------------------------------------------------------------------------- */

/* 16 bytes of a row, and the halves of two rows with their elements in turn */
#if defined(__SSE2__)
typedef __m128i row;
static inline row row_load(const void *p) { return _mm_loadu_si128(p); }
static inline row row_load_8(const void *p) { return _mm_loadl_epi64(p); }
static inline void row_store(void *p, row x) { _mm_storeu_si128(p, x); }
static inline void row_store_low(void *p, row x) { _mm_storel_epi64(p, x); }
static inline void row_store_high(void *p, row x) { _mm_storel_epi64(p, _mm_unpackhi_epi64(x, x)); }
static inline row zip_low_8(row a, row b) { return _mm_unpacklo_epi8(a, b); }
static inline row zip_low_16(row a, row b) { return _mm_unpacklo_epi16(a, b); }
static inline row zip_high_16(row a, row b) { return _mm_unpackhi_epi16(a, b); }
static inline row zip_low_32(row a, row b) { return _mm_unpacklo_epi32(a, b); }
static inline row zip_high_32(row a, row b) { return _mm_unpackhi_epi32(a, b); }
#elif defined(__aarch64__)
typedef uint8x16_t row;
#define ROW_ZIP(name, zip, bits) \
    static inline row name(row a, row b) { \
        return vreinterpretq_u8_u##bits(zip##_u##bits(vreinterpretq_u##bits##_u8(a), vreinterpretq_u##bits##_u8(b))); \
    }
static inline row row_load(const void *p) { return vld1q_u8(p); }
static inline row row_load_8(const void *p) { return vcombine_u8(vld1_u8(p), vdup_n_u8(0)); }
static inline void row_store(void *p, row x) { vst1q_u8(p, x); }
static inline void row_store_low(void *p, row x) { vst1_u8(p, vget_low_u8(x)); }
static inline void row_store_high(void *p, row x) { vst1_u8(p, vget_high_u8(x)); }
static inline row zip_low_8(row a, row b) { return vzip1q_u8(a, b); }
ROW_ZIP(zip_low_16, vzip1q, 16)
ROW_ZIP(zip_high_16, vzip2q, 16)
ROW_ZIP(zip_low_32, vzip1q, 32)
ROW_ZIP(zip_high_32, vzip2q, 32)
#endif

#if defined(__SSE2__) || defined(__aarch64__)
enum { SIDE_1 = 8, SIDE_2 = 8, SIDE_4 = 4 };
static inline void tile_1(const char *from, int64_t from_step, char *to, int64_t to_step) {
    row a[8], b[4];
    for (int i = 0; i < 8; i++) a[i] = row_load_8(from + i * from_step);
    for (int i = 0; i < 4; i++) b[i] = zip_low_8(a[2 * i], a[2 * i + 1]);
    for (int i = 0; i < 2; i++) {
        a[2 * i] = zip_low_16(b[2 * i], b[2 * i + 1]);
        a[2 * i + 1] = zip_high_16(b[2 * i], b[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        b[2 * i] = zip_low_32(a[i], a[i + 2]);
        b[2 * i + 1] = zip_high_32(a[i], a[i + 2]);
    }
    for (int i = 0; i < 4; i++) {
        row_store_low(to + 2 * i * to_step, b[i]);
        row_store_high(to + (2 * i + 1) * to_step, b[i]);
    }
}
/* 8 x 8 elements of 2 bytes: source rows `from_step` apart become target columns */
static inline void tile_2(const char *from, int64_t from_step, char *to, int64_t to_step) {
    row a[8], b[8];
    for (int i = 0; i < 8; i++) a[i] = row_load(from + i * from_step);
    for (int i = 0; i < 4; i++) /* pairs 4 apart, three times: bits of the row move to the column */
        b[2 * i] = zip_low_16(a[i], a[i + 4]), b[2 * i + 1] = zip_high_16(a[i], a[i + 4]);
    for (int i = 0; i < 4; i++)
        a[2 * i] = zip_low_16(b[i], b[i + 4]), a[2 * i + 1] = zip_high_16(b[i], b[i + 4]);
    for (int i = 0; i < 4; i++)
        b[2 * i] = zip_low_16(a[i], a[i + 4]), b[2 * i + 1] = zip_high_16(a[i], a[i + 4]);
    for (int i = 0; i < 8; i++) row_store(to + i * to_step, b[i]);
}
static inline void tile_4(const char *from, int64_t from_step, char *to, int64_t to_step) {
    row a[4], b[4];
    for (int i = 0; i < 4; i++) a[i] = row_load(from + i * from_step);
    for (int i = 0; i < 2; i++)
        b[2 * i] = zip_low_32(a[i], a[i + 2]), b[2 * i + 1] = zip_high_32(a[i], a[i + 2]);
    for (int i = 0; i < 2; i++)
        a[2 * i] = zip_low_32(b[i], b[i + 2]), a[2 * i + 1] = zip_high_32(b[i], b[i + 2]);
    for (int i = 0; i < 4; i++) row_store(to + i * to_step, a[i]);
}
#else
enum { SIDE_1 = 8, SIDE_2 = 8, SIDE_4 = 8 };
static inline void tile_1(const char *from, int64_t from_step, char *to, int64_t to_step) {
    char block[8][8];
    for (int j = 0; j < 8; j++) memcpy(block[j], from + j * from_step, 8);
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) to[i * to_step + j] = block[j][i];
}
static inline void tile_2(const char *from, int64_t from_step, char *to, int64_t to_step) {
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) memcpy(to + i * to_step + j * 2, from + j * from_step + i * 2, 2);
}
static inline void tile_4(const char *from, int64_t from_step, char *to, int64_t to_step) {
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) memcpy(to + i * to_step + j * 4, from + j * from_step + i * 4, 4);
}
#endif
enum { SIDE_8 = 4 };
static inline void tile_8(const char *from, int64_t from_step, char *to, int64_t to_step) {
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) memcpy(to + i * to_step + j * 8, from + j * from_step + i * 8, 8);
}

/* Steps of 2048 bytes and their multiples fall on the same few sets of the first cache. */
static bool collides(int64_t from_step, int64_t to_step) { return from_step % 2048 == 0 || to_step % 2048 == 0; }

/* to[r, c] = from[c, r]. plain: columns in groups of 32, so that the lines of 32 source rows stay in the
   first cache while all their target rows are written. plane: when those lines collide, whole source
   lines are transposed into a small block first, which is then written in long runs. */
#define PLANE(size)                                                                                           \
    static void plain_##size(const char *from, int64_t from_step, char *to, int64_t to_step, int64_t rows,    \
                             int64_t columns) {                                                               \
        int64_t whole_rows = rows - rows % SIDE_##size;                                                       \
        for (int64_t c0 = 0; c0 < columns; c0 += 32) {                                                        \
            int64_t stop = anex_min(c0 + 32, columns), whole = c0 + (stop - c0) / SIDE_##size * SIDE_##size;  \
            for (int64_t r = 0; r < whole_rows; r += SIDE_##size) {                                           \
                for (int64_t c = c0; c < whole; c += SIDE_##size)                                             \
                    tile_##size(from + c * from_step + r * size, from_step, to + r * to_step + c * size, to_step); \
                for (int64_t c = whole; c < stop; c++)                                                        \
                    for (int64_t i = r; i < r + SIDE_##size; i++)                                             \
                        memcpy(to + i * to_step + c * size, from + c * from_step + i * size, size);           \
            }                                                                                                 \
            for (int64_t r = whole_rows; r < rows; r++)                                                       \
                for (int64_t c = c0; c < stop; c++)                                                           \
                    memcpy(to + r * to_step + c * size, from + c * from_step + r * size, size);               \
        }                                                                                                     \
    }                                                                                                         \
    static void plane_##size(const char *from, int64_t from_step, char *to, int64_t to_step, int64_t rows,    \
                             int64_t columns) {                                                               \
        enum { LINE = 64 / size, GROUP = 64 };                                                                \
        bool staged = collides(from_step, to_step);                                                           \
        int64_t whole_rows = staged ? rows / LINE * LINE : 0, whole = staged ? columns / GROUP * GROUP : 0;   \
        char block[LINE * GROUP * size];                                                                      \
        for (int64_t r0 = 0; r0 < whole_rows; r0 += LINE)                                                     \
            for (int64_t c0 = 0; c0 < whole; c0 += GROUP) {                                                   \
                const char *corner = from + c0 * from_step + r0 * size;                                       \
                for (int64_t c = 0; c < GROUP; c += SIDE_##size)                                              \
                    for (int64_t r = 0; r < LINE; r += SIDE_##size)                                           \
                        tile_##size(corner + c * from_step + r * size, from_step, block + (r * GROUP + c) * size, \
                                    GROUP * size);                                                            \
                for (int64_t r = 0; r < LINE; r++)                                                            \
                    memcpy(to + (r0 + r) * to_step + c0 * size, block + r * GROUP * size, GROUP * size);      \
            }                                                                                                 \
        plain_##size(from + whole * from_step, from_step, to + whole * size, to_step, whole_rows, columns - whole); \
        plain_##size(from + whole_rows * size, from_step, to + whole_rows * to_step, to_step, rows - whole_rows, \
                     columns);                                                                                \
    }
PLANE(1)
PLANE(2)
PLANE(4)
PLANE(8)
#undef PLANE

static void run_tiles(const anex_move *m, const char *from, char *to, int64_t begin, int64_t end) {
    int32_t rank = m->rank - 2;
    const int64_t from_step = m->from[rank + 1], to_step = m->to[rank], columns = m->shape[rank + 1];
    for (int64_t t = begin; t < end; t++) {
        odometer o = odometer_at(m, rank, t / m->chunks, from, to);
        int64_t at = t % m->chunks * m->block, rows = anex_min(m->block, m->shape[rank] - at);
        const char *source = o.from + at * m->run;
        char *target = o.to + at * to_step;
        switch (m->run) {
        case 1: plane_1(source, from_step, target, to_step, rows, columns); break;
        case 2: plane_2(source, from_step, target, to_step, rows, columns); break;
        case 4: plane_4(source, from_step, target, to_step, rows, columns); break;
        default: plane_8(source, from_step, target, to_step, rows, columns);
        }
    }
}

void ANEX_LOCAL(move_run)(const anex_move *m, const void *from, void *to, int64_t begin, int64_t end) {
    if (begin >= end) return;
    switch (m->kind) {
    case BYTES:
        memcpy((char *)to + begin * m->block, (const char *)from + begin * m->block,
               (size_t)(anex_min(end * m->block, m->run) - begin * m->block));
        return;
    case ROWS: run_rows(m, from, to, begin, end); return;
    case TILES: run_tiles(m, from, to, begin, end); return;
    default: return;
    }
}

/* ---- pieces --------------------------------------------------------------------------------- */

anex_pieces *ANEX_LOCAL(pieces_new)(anex_node *node, int32_t n, anex_error *error) {
    return anex_node_state(node, sizeof(anex_pieces) + (size_t)n * sizeof(anex_piece), error);
}

anex_piece *ANEX_LOCAL(pieces_add)(anex_pieces *pieces, int32_t stage, int32_t in, int32_t out, int64_t run) {
    anex_piece *piece = &pieces->piece[pieces->n[0] + pieces->n[1]];
    pieces->n[stage]++;
    piece->in = in, piece->out = out, piece->move.run = run;
    return piece;
}

static void run_pieces(const anex_node *node, const anex_slice *slice, const anex_piece *piece, int32_t n) {
    const anex_pieces *pieces = node->state;
    for (int32_t i = 0; i < n && piece->first < slice->end; i++, piece++) {
        if (piece->first + piece->move.tasks <= slice->begin) continue;
        const char *from = piece->in == ANEX_MOVE_FILL ? (const char *)&pieces->fill
                           : node->n_list             ? node->list[piece->in]->data
                                                      : node->in[piece->in]->data;
        ANEX_LOCAL(move_run)(&piece->move, from + piece->from, (char *)node->out[piece->out]->data + piece->to,
                             anex_max(slice->begin - piece->first, 0),
                             anex_min(slice->end - piece->first, piece->move.tasks));
    }
}

static void run_first(const anex_node *node, const anex_slice *slice) {
    const anex_pieces *pieces = node->state;
    run_pieces(node, slice, pieces->piece, pieces->n[0]);
}
static void run_second(const anex_node *node, const anex_slice *slice) {
    const anex_pieces *pieces = node->state;
    run_pieces(node, slice, pieces->piece + pieces->n[0], pieces->n[1]);
}

void ANEX_LOCAL(pieces_finish)(anex_node *node, anex_pieces *pieces) {
    anex_piece *piece = pieces->piece;
    for (int32_t stage = 0; stage < 2; stage++) {
        int64_t tasks = 0;
        double cost = 0;
        for (int32_t i = 0; i < pieces->n[stage]; i++, piece++) {
            ANEX_LOCAL(move_plan)(&piece->move);
            piece->first = tasks;
            tasks += piece->move.tasks;
            cost += piece->move.cost * (double)piece->move.tasks;
        }
        if (tasks) anex_add_stage(node, stage ? run_second : run_first, tasks, cost / (double)tasks);
    }
}

void ANEX_LOCAL(pieces_copy)(const anex_node *node, anex_pieces *pieces, int32_t in) {
    anex_piece *piece = ANEX_LOCAL(pieces_add)(pieces, 0, in, 0, 1);
    anex_move_axis(&piece->move, anex_tensor_nbytes(node->out[0]), 1, 1);
}

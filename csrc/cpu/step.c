/* One step of an optimizer over all parameters: cut into pieces of elements that lie side by side, which the
   engine's threads share. What a step gives does not depend on how many there are. */
#include "isa.h"
#include "optimizer.h"
#include "team.h"

#include <math.h>
#include <stdlib.h>

enum { PIECE = 1 << 14, TENSORS = 5 };

typedef struct step {
    const anex_isa *isa;
    const anex_parameter *parameters;
    const anex_optimizer *optimizer;
    int32_t n;
    double scale;
    int64_t *first; /* [n + 1]: number of the first piece of each */
    int64_t *run;   /* [n]: elements side by side in all tensors of each */
    double *squares; /* of each piece */
} step;

static void tensors_of(const anex_parameter *p, const anex_tensor *list[TENSORS]) {
    list[0] = p->weight, list[1] = p->gradient, list[2] = p->copy, list[3] = p->first, list[4] = p->second;
}

/* The elements from the last axis on that lie side by side. */
static int64_t contiguous(const anex_tensor *t) {
    int64_t n = 1, bytes = anex_dtypes[t->dtype].bits / 8;
    for (int32_t i = t->rank; i-- > 0; n *= t->shape[i])
        if (t->shape[i] > 1 && t->strides[i] != n * bytes) break;
    return n;
}

static void *at(const anex_tensor *t, int64_t element) {
    char *data = t->data;
    for (int32_t i = t->rank; i-- > 0; element /= t->shape[i]) data += element % t->shape[i] * t->strides[i];
    return data;
}

static int32_t owner(const step *s, int64_t piece) {
    int32_t low = 0, high = s->n;
    while (high - low > 1) {
        int32_t middle = low + (high - low) / 2;
        if (s->first[middle] <= piece)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static anex_update update_of(const step *s, const anex_parameter *p) {
    const anex_optimizer *o = s->optimizer;
    anex_update u = {.rule = o->rule, .nesterov = o->nesterov, .scale = (float)s->scale, .rate = (float)o->rate};
    u.keep = 1, u.kept = (float)o->beta1, u.starts = o->step <= 1;
    if (o->rule == ANEX_ADAMW)
        u.keep = (float)(1 - o->rate * p->weight_decay);
    else
        u.decay = (float)p->weight_decay;
    if (o->rule == ANEX_ADAM || o->rule == ANEX_ADAMW) {
        u.rate = (float)(o->rate / (1 - pow(o->beta1, (double)o->step)));
        u.root = (float)(1 / sqrt(1 - pow(o->beta2, (double)o->step)));
        u.one = (float)(1 - o->beta1), u.two = (float)(1 - o->beta2), u.kept = (float)o->beta2;
        u.epsilon = (float)o->epsilon;
    }
    return u;
}

static void piece_do(const step *s, int64_t piece, bool measures) {
    int32_t number = owner(s, piece);
    const anex_parameter *p = &s->parameters[number];
    const anex_update u = update_of(s, p);
    int64_t size = anex_tensor_size(p->weight), run = s->run[number];
    int64_t begin = (piece - s->first[number]) * PIECE, end = anex_min(size, begin + PIECE);
    double squares = 0;
    while (begin < end) {
        int64_t count = anex_min(end - begin, run - begin % run);
        anex_elements e = {.gradient = at(p->gradient, begin), .gradient_dtype = p->gradient->dtype};
        if (measures) {
            squares += s->isa->squares(&e, count);
        } else {
            e.weight = at(p->weight, begin);
            if (p->copy) e.copy = at(p->copy, begin);
            if (p->first) e.first = at(p->first, begin);
            if (p->second) e.second = at(p->second, begin);
            s->isa->update(&u, &e, count);
        }
        begin += count;
    }
    if (measures) s->squares[piece] = squares;
}

static void measure(void *context, int32_t worker, int64_t begin, int64_t end) {
    (void)worker;
    for (int64_t i = begin; i < end; i++) piece_do(context, i, true);
}

static void update(void *context, int32_t worker, int64_t begin, int64_t end) {
    (void)worker;
    for (int64_t i = begin; i < end; i++) piece_do(context, i, false);
}

static void run(anex_team_body *body, step *s, int32_t workers) {
    int64_t pieces = s->first[s->n];
    if (workers > 1 && pieces > 1)
        anex_team_run(workers, pieces, 1 + pieces / (workers * 64), body, s);
    else
        body(s, 0, 0, pieces);
}

static anex_status check(const anex_optimizer *o, const anex_parameter *p, anex_error *error) {
    static const char *const names[TENSORS] = {"weight", "gradient", "copy", "first moment", "second moment"};
    bool adam = o->rule == ANEX_ADAM || o->rule == ANEX_ADAMW;
    const anex_tensor *list[TENSORS];
    tensors_of(p, list);
    if (!list[0] || !list[1] || (adam && !(list[3] && list[4])))
        return anex_fail(error, ANEX_INVALID, "parameter '%s': a tensor that the rule needs is missing", p->name);
    for (int32_t i = 0; i < TENSORS; i++) {
        const anex_tensor *t = list[i];
        if (!t) continue;
        bool half = i == 2 || (i == 1 && t->dtype == ANEX_F16);
        if (t->dtype != (half ? ANEX_F16 : ANEX_F32))
            return anex_fail(error, ANEX_DTYPE, "parameter '%s': the %s is %s; it must be %s", p->name, names[i],
                             anex_dtypes[t->dtype].name, i == 1 ? "float16 or float32" : half ? "float16" : "float32");
        bool same = t->rank == list[0]->rank;
        for (int32_t k = 0; same && k < t->rank; k++) same = t->shape[k] == list[0]->shape[k];
        if (!same)
            return anex_fail(error, ANEX_SHAPE, "parameter '%s': the %s has another shape than the weight", p->name,
                             names[i]);
    }
    return ANEX_OK;
}

static anex_status cut(step *s, anex_error *error) {
    s->first = malloc(sizeof *s->first * (size_t)(2 * s->n + 1));
    if (!s->first) return anex_fail(error, ANEX_MEMORY, "no memory for a step of %d parameters", s->n);
    s->run = s->first + s->n + 1, s->first[0] = 0;
    for (int32_t i = 0; i < s->n; i++) {
        const anex_parameter *p = &s->parameters[i];
        anex_status status = check(s->optimizer, p, error);
        if (status) return status;
        const anex_tensor *list[TENSORS];
        tensors_of(p, list);
        int64_t size = anex_tensor_size(p->weight);
        s->run[i] = anex_max(1, size);
        for (int32_t k = 0; k < TENSORS; k++)
            if (list[k]) s->run[i] = anex_min(s->run[i], contiguous(list[k]));
        s->first[i + 1] = s->first[i] + (size + PIECE - 1) / PIECE;
    }
    if (s->optimizer->measures && !(s->squares = malloc(sizeof(double) * (size_t)anex_max(1, s->first[s->n]))))
        return anex_fail(error, ANEX_MEMORY, "no memory for a step of %d parameters", s->n);
    return ANEX_OK;
}

anex_status anex_optimizer_step(const anex_optimizer *optimizer, int32_t n, const anex_parameter *parameters,
                                double *norm, bool *applied, anex_error *error) {
    step s = {.isa = anex_isa_find(NULL), .parameters = parameters, .optimizer = optimizer, .n = n,
              .scale = optimizer->gradient_scale};
    *norm = NAN, *applied = true;
    anex_status status = cut(&s, error);
    if (!status) {
        int32_t workers = anex_team_borrow();
        if (optimizer->measures) {
            run(measure, &s, workers);
            double total = 0;
            for (int64_t i = 0; i < s.first[n]; i++) total += s.squares[i];
            *norm = sqrt(total) * fabs(s.scale);
            *applied = isfinite(total);
            if (optimizer->clip > 0 && *norm > optimizer->clip) s.scale *= optimizer->clip / *norm;
        }
        if (*applied) run(update, &s, workers);
        anex_team_return(workers);
    }
    free(s.first), free(s.squares);
    return status;
}

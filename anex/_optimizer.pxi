# One step of an optimizer over many tensors; included by _native.pyx. The policy is in anex/optim.

RULES = {"sgd": ANEX_SGD, "adam": ANEX_ADAM, "adamw": ANEX_ADAMW, "sum": ANEX_SUM}


def optimizer_step(str rule, rows, *, int64_t step, double rate=0, double beta1=0, double beta2=0, double epsilon=0,
                   double gradient_scale=1, double clip=0, bint nesterov=False, bint measures=False):
    """(norm of the scaled gradients, or NaN; whether the weights have changed), of one step in place.

    A row is (name, weight, gradient, copy, first moment, second moment, weight decay), None for what is not there.
    """
    cdef anex_optimizer optimizer
    cdef anex_error error
    cdef anex_status status
    cdef double norm
    cdef c_bool applied
    cdef int32_t n = len(rows)
    cdef Py_ssize_t held = 0
    cdef Operand *operands = <Operand *> PyMem_Malloc(sizeof(Operand) * <size_t> max(1, 5 * n))
    cdef anex_parameter *parameters = <anex_parameter *> PyMem_Malloc(sizeof(anex_parameter) * <size_t> max(1, n))
    names = [row[0].encode() for row in rows]
    optimizer.rule, optimizer.nesterov, optimizer.measures = RULES[rule], nesterov, measures
    optimizer.step, optimizer.rate, optimizer.beta1, optimizer.beta2 = step, rate, beta1, beta2
    optimizer.epsilon, optimizer.gradient_scale, optimizer.clip = epsilon, gradient_scale, clip
    try:
        if operands == NULL or parameters == NULL:
            raise MemoryError
        for i in range(n):
            name = rows[i][0]
            parameters[i].name = <const char *> <bytes> names[i]
            for k in range(5):
                argument = rows[i][k + 1]
                if argument is None:
                    continue
                acquire(&operands[held], argument, k != 1, f"{name!r}" if k != 1 else f"the gradient of {name!r}")
                held += 1
                lock_operand(&operands[held - 1])
                if k == 0:
                    parameters[i].weight = operands[held - 1].tensor
                elif k == 1:
                    parameters[i].gradient = operands[held - 1].tensor
                elif k == 2:
                    parameters[i].copy = operands[held - 1].tensor
                elif k == 3:
                    parameters[i].first = operands[held - 1].tensor
                else:
                    parameters[i].second = operands[held - 1].tensor
            if rows[i][3] is None:
                parameters[i].copy = NULL
            if rows[i][4] is None:
                parameters[i].first = NULL
            if rows[i][5] is None:
                parameters[i].second = NULL
            parameters[i].weight_decay = rows[i][6]
        with nogil:
            status = anex_optimizer_step(&optimizer, n, parameters, &norm, &applied, &error)
        check(status, &error)
        return norm, bool(applied)
    finally:
        while held > 0:
            held -= 1
            release(&operands[held])
        PyMem_Free(operands)
        PyMem_Free(parameters)

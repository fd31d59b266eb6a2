# Programs planned for the CPU engine; included by _native.pyx, because only one extension may hold
# the native code: two would each have their own thread pool.

cdef str mismatch(const anex_tensor *found, const anex_tensor *wanted, name):
    return (f"{name} is {shape_text(found)} {anex_dtypes[found.dtype].name.decode()}; "
            f"the program has {shape_text(wanted)} {anex_dtypes[wanted.dtype].name.decode()}")


cdef inline bint fits(const anex_tensor *found, const anex_tensor *wanted) noexcept nogil:
    return (found.dtype == wanted.dtype and found.rank == wanted.rank
            and memcmp(found.shape, wanted.shape, sizeof(int64_t) * <size_t> wanted.rank) == 0)


cdef void bounds(const anex_tensor *t, char **low, char **high) noexcept nogil:
    """The bytes a tensor may touch; strides of foreign arrays can be negative."""
    cdef int64_t step
    low[0] = <char *> t.data
    high[0] = low[0] + anex_dtypes[t.dtype].bits // 8
    for i in range(t.rank):
        step = (t.shape[i] - 1) * t.strides[i]
        if step < 0:
            low[0] += step
        else:
            high[0] += step


cdef inline bint overlap(const anex_tensor *a, const anex_tensor *b) noexcept nogil:
    cdef char *a0
    cdef char *a1
    cdef char *b0
    cdef char *b1
    bounds(a, &a0, &a1)
    bounds(b, &b0, &b1)
    return a0 < b1 and b0 < a1


@cython.final
cdef class Executable:
    """A program planned for the CPU engine: values and ops are added in order, then it is finished and run."""

    cdef anex_plan *plan
    cdef list constants        # arrays the plan reads in place, by value number
    cdef list input_names, output_names
    cdef anex_tensor *specs    # of the inputs, then of the outputs; data unused
    cdef list inputs, outputs  # (shape, dtype code) before finish()
    cdef int32_t n_inputs, n_outputs, running
    cdef bint is_closed

    def __cinit__(self, str isa=None):
        cdef anex_error error
        cdef bytes name = b"" if isa is None else isa.encode()
        cdef const char *text = name
        check(anex_plan_new(NULL if isa is None else text, &self.plan, &error), &error)
        self.constants, self.input_names, self.output_names = [], [], []
        self.inputs, self.outputs = [], []

    def __dealloc__(self):
        anex_plan_free(self.plan)
        PyMem_Free(self.specs)

    # ---- planning

    cdef int need_unfinished(self) except -1:
        if self.specs != NULL or self.is_closed:
            raise errors.Error("this program is finished or closed")
        return 0

    def add_input(self, str name, shape, str dtype):
        cdef anex_tensor t
        cdef anex_value value
        cdef anex_error error
        self.need_unfinished()
        init_tensor(&t, shape, find_dtype(dtype), 0)
        check(anex_plan_input(self.plan, t.dtype, t.rank, t.shape, &value, &error), &error)
        self.inputs.append((name, tuple(shape), dtype))
        return value

    def add_value(self, shape, str dtype):
        cdef anex_tensor t
        cdef anex_value value
        cdef anex_error error
        self.need_unfinished()
        init_tensor(&t, shape, find_dtype(dtype), 0)
        check(anex_plan_value(self.plan, t.dtype, t.rank, t.shape, &value, &error), &error)
        return value

    def add_constant(self, array):
        """A packed buffer, or a str; read in place for as long as the program needs it."""
        cdef anex_tensor text
        cdef anex_value value
        cdef anex_error error
        cdef Operand operand
        self.need_unfinished()
        if isinstance(array, str):
            array = array.encode() + b"\0"
            memset(&text, 0, sizeof(text))
            text.dtype, text.rank, text.shape[0], text.strides[0] = ANEX_STRING, 1, len(array), 1
            text.data = <char *> <bytes> array
            check(anex_plan_constant(self.plan, &text, &value, &error), &error)
        else:
            acquire(&operand, array, False, "constant")
            try:
                check(anex_plan_constant(self.plan, operand.tensor, &value, &error), &error)
            finally:
                release(&operand)
        self.constants.append((value, array))
        return value

    def add_op(self, str op, str name, inputs, values, outputs, int32_t through=-1):
        """``inputs`` in the order of ``kernels()[op]``, -1 where left out; ``values``: the variadic input.

        ``through``: an input made by the op added last, which nothing else reads; both may become one node.
        """
        cdef anex_error error
        cdef anex_status status
        cdef bytes op_text = op.encode(), name_text = name.encode()
        cdef const char *c_op = op_text
        cdef const char *c_name = name_text
        cdef int32_t counts[3]
        cdef anex_value *numbers
        self.need_unfinished()
        everything = [*inputs, *values, *outputs]
        counts[0], counts[1], counts[2] = len(inputs), len(values), len(outputs)
        numbers = <anex_value *> PyMem_Malloc((len(everything) + 1) * sizeof(anex_value))
        if numbers == NULL:
            raise MemoryError
        try:
            for i, number in enumerate(everything):
                numbers[i] = number
            with nogil:
                status = anex_plan_op(self.plan, c_op, c_name, counts[0], numbers, counts[1], numbers + counts[0],
                                      counts[2], numbers + counts[0] + counts[1], through, &error)
            check(status, &error)
        finally:
            PyMem_Free(numbers)

    def finish(self, outputs):
        """``outputs``: (name, value, shape, dtype) each."""
        cdef anex_error error
        cdef anex_value *values
        self.need_unfinished()
        self.n_inputs, self.n_outputs = len(self.inputs), len(outputs)
        cdef size_t total = <size_t> (self.n_inputs + self.n_outputs)
        values = <anex_value *> PyMem_Malloc((len(outputs) + 1) * sizeof(anex_value))
        self.specs = <anex_tensor *> PyMem_Malloc((total + 1) * sizeof(anex_tensor))
        if values == NULL or self.specs == NULL:
            PyMem_Free(values)
            raise MemoryError
        try:
            for i, output in enumerate(outputs):
                values[i] = output[1]
            check(anex_plan_finish(self.plan, self.n_outputs, values, &error), &error)
        finally:
            PyMem_Free(values)
        for i, (name, shape, dtype) in enumerate([*self.inputs, *((o[0], o[2], o[3]) for o in outputs)]):
            init_tensor(&self.specs[i], shape, find_dtype(dtype), 0)
        self.input_names = [i[0] for i in self.inputs]
        self.output_names = [o[0] for o in outputs]
        self.constants = [c for c in self.constants if anex_plan_needs_constant(self.plan, c[0])]

    # ---- running

    def stats(self):
        """Counts and bytes of the plan: nodes, arena_bytes, packed_bytes, live_bytes_peak."""
        return anex_plan_get_stats(self.plan)

    def close(self):
        """Free the program; runs that are under way finish first. Twice is harmless."""
        self.is_closed = True
        self.free_when_idle()

    cdef void free_when_idle(self) noexcept:
        if self.is_closed and self.running == 0 and self.plan != NULL:
            anex_plan_free(self.plan)
            self.plan = NULL
            self.constants = []

    def run(self, tuple arguments not None, out=None):
        """Run on one Tensor or buffer per input; into `out` (one, or a tuple), or into new tensors."""
        cdef Operand few[8]
        cdef const anex_tensor *pointers[8]
        cdef Operand *operands = few
        cdef const anex_tensor **tensors = pointers
        cdef int32_t total = self.n_inputs + self.n_outputs, held = 0
        cdef anex_status status
        cdef anex_error error
        if self.is_closed or self.specs == NULL:
            raise errors.ClosedError("this program is closed")
        if len(arguments) != self.n_inputs:
            raise errors.ArgumentError(f"the program takes {self.n_inputs} input(s) ({', '.join(self.input_names)}); "
                                       f"got {len(arguments)}")
        results = self.results(out)
        if total > 8:
            operands = <Operand *> PyMem_Malloc(<size_t> total * sizeof(Operand))
            tensors = <const anex_tensor **> PyMem_Malloc(<size_t> total * sizeof(void *))
        self.running += 1
        try:
            if operands == NULL or tensors == NULL:
                raise MemoryError
            for held in range(total):
                self.take(operands, held, arguments, results, tensors)
            held = total
            if out is not None:
                self.refuse_overlaps(tensors)
            with nogil:
                status = anex_plan_run(self.plan, tensors, tensors + self.n_inputs, &error)
            check(status, &error)
        finally:
            if operands != NULL:
                for i in range(held):
                    release(&operands[i])
            if operands != few:
                PyMem_Free(operands)
                PyMem_Free(tensors)
            self.running -= 1
            self.free_when_idle()
        if out is not None:
            return out
        return results[0] if self.n_outputs == 1 else results

    cdef tuple results(self, out):
        cdef list made
        cdef Tensor tensor
        cdef anex_error error
        if out is None:
            made = []
            for i in range(self.n_inputs, self.n_inputs + self.n_outputs):
                tensor = Tensor.__new__(Tensor)
                tensor.t = self.specs[i]
                check(anex_memory_new(<size_t> anex_tensor_extent(&tensor.t), &tensor.memory, &error), &error)
                tensor.t.data = anex_memory_data(tensor.memory)
                made.append(tensor)
            return tuple(made)
        if not isinstance(out, tuple):
            out = tuple(out) if isinstance(out, list) else (out,)
        if len(out) != self.n_outputs:
            raise errors.ArgumentError(f"the program has {self.n_outputs} output(s) ({', '.join(self.output_names)}); "
                                       f"out= has {len(out)}")
        return <tuple> out

    cdef int take(self, Operand *operands, int32_t i, tuple arguments, tuple results, const anex_tensor **tensors) except -1:
        cdef bint output = i >= self.n_inputs
        argument = results[i - self.n_inputs] if output else arguments[i]
        name = f"output {self.output_names[i - self.n_inputs]!r}" if output else None
        if name is None and not isinstance(argument, Tensor):
            name = f"input {self.input_names[i]!r}"
        acquire(&operands[i], argument, output, name)
        tensors[i] = operands[i].tensor
        if fits(tensors[i], &self.specs[i]):
            return 0
        text = mismatch(tensors[i], &self.specs[i], name or f"input {self.input_names[i]!r}")
        kind = errors.ShapeError if tensors[i].dtype == self.specs[i].dtype else errors.DTypeError
        release(&operands[i])
        raise kind(text)

    cdef int refuse_overlaps(self, const anex_tensor **tensors) except -1:
        for o in range(self.n_inputs, self.n_inputs + self.n_outputs):
            for i in range(o):
                if overlap(tensors[o], tensors[i]):
                    other = self.input_names[i] if i < self.n_inputs else self.output_names[i - self.n_inputs]
                    raise errors.ArgumentError(f"out= for {self.output_names[o - self.n_inputs]!r} shares memory with "
                                               f"{other!r}; give it memory of its own")
        return 0


# ---- the engine -------------------------------------------------------------------------------

def kernels():
    """The ops of the CPU engine: {op: (names of its inputs, dtypes of the first)}."""
    cdef int32_t count
    cdef const anex_kernel_info *info = anex_kernel_list(&count)
    return {info[i].op.decode(): (tuple(info[i].inputs.decode().split()),
                                  tuple([name for name, code in DTYPES.items() if info[i].dtypes >> <int> code & 1]))
            for i in range(count)}


def instruction_sets():
    """Those the kernels were built for and this machine has, the best one first."""
    cdef const char *names[8]
    return tuple([names[i].decode() for i in range(anex_isa_list(names, 8))])


def set_num_threads(int32_t threads):
    """How many threads one program may use, the caller's included; the processors of this process at first."""
    anex_set_num_threads(threads)


def get_num_threads():
    return anex_get_num_threads()

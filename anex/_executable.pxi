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
    cdef list constants        # what the plan reads until it is finished
    cdef list input_names, output_names
    cdef anex_tensor *specs    # of the inputs, then of the outputs; data unused
    cdef list inputs           # their values before finish()
    cdef int32_t n_inputs, n_outputs, running
    cdef bint is_closed

    def __cinit__(self, str isa=None, bint strict=False):
        cdef anex_error error
        cdef bytes name = b"" if isa is None else isa.encode()
        cdef const char *text = NULL
        if isa is not None:
            text = name
        check(anex_plan_new(text, strict, &self.plan, &error), &error)
        self.constants, self.input_names, self.output_names = [], [], []
        self.inputs = []

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
        self.inputs.append(value)
        self.input_names.append(name)
        return value

    def add_value(self, shape, str dtype):
        cdef anex_tensor t
        cdef anex_value value
        cdef anex_error error
        self.need_unfinished()
        init_tensor(&t, shape, find_dtype(dtype), 0, ANEX_MAX_RANK)  # a palette has two axes more than a tensor
        check(anex_plan_value(self.plan, t.dtype, t.rank, t.shape, &value, &error), &error)
        return value

    def add_constant(self, array):
        """A packed buffer, or a str; not to change before the program is finished."""
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
        self.constants.append(array)
        return value

    def add_op(self, str op, str name, inputs, values, outputs, blocks=(), int32_t through=-1):
        """``inputs`` in the order of ``kernels()[op]``, -1 where left out; ``values``: the variadic input.

        ``blocks``: finished programs that take ``values``, of cond and while_loop; this one owns them from then on.
        ``through``: an input made by the op added last, which nothing else reads; both may become one node.
        """
        cdef anex_error error
        cdef anex_status status
        cdef bytes op_text = op.encode(), name_text = name.encode()
        cdef const char *c_op = op_text
        cdef const char *c_name = name_text
        cdef int32_t counts[4]
        cdef anex_value *numbers
        cdef anex_plan **plans
        self.need_unfinished()
        everything = [*inputs, *values, *outputs]
        counts[0], counts[1], counts[2], counts[3] = len(inputs), len(values), len(outputs), len(blocks)
        numbers = <anex_value *> PyMem_Malloc((len(everything) + 1) * sizeof(anex_value))
        plans = <anex_plan **> PyMem_Malloc((len(blocks) + 1) * sizeof(anex_plan *))
        try:
            if numbers == NULL or plans == NULL:
                raise MemoryError
            for i, number in enumerate(everything):
                numbers[i] = number
            for i in range(counts[3]):
                plans[i] = (<Executable?> blocks[i]).plan
            with nogil:
                if counts[3]:
                    status = anex_plan_control(self.plan, c_op, c_name, counts[0], numbers, counts[1],
                                               numbers + counts[0], counts[2], numbers + counts[0] + counts[1],
                                               counts[3], plans, &error)
                else:
                    status = anex_plan_op(self.plan, c_op, c_name, counts[0], numbers, counts[1], numbers + counts[0],
                                          counts[2], numbers + counts[0] + counts[1], through, &error)
            check(status, &error)
        finally:
            PyMem_Free(numbers)
            PyMem_Free(plans)
        for block in blocks:
            (<Executable> block).plan = NULL
            (<Executable> block).is_closed = True

    def finish(self, outputs):
        """``outputs``: (name, value) each. What fails here is closed: a plan is finished once."""
        cdef anex_error error
        cdef anex_value *values
        cdef anex_tensor *specs
        self.need_unfinished()
        self.n_inputs, self.n_outputs = len(self.inputs), len(outputs)
        cdef size_t total = <size_t> (self.n_inputs + self.n_outputs)
        values = <anex_value *> PyMem_Malloc((total + 1) * sizeof(anex_value))
        specs = <anex_tensor *> PyMem_Malloc((total + 1) * sizeof(anex_tensor))
        try:
            if values == NULL or specs == NULL:
                raise MemoryError
            for i, value in enumerate([*self.inputs, *(value for _, value in outputs)]):
                values[i] = value
            check(anex_plan_finish(self.plan, self.n_outputs, values + self.n_inputs, &error), &error)
            for i in range(total):
                specs[i] = anex_plan_tensor(self.plan, values[i])[0]
            self.output_names = [name for name, _ in outputs]
            self.specs, specs = specs, NULL
        except BaseException:
            self.close()
            raise
        finally:
            PyMem_Free(values)
            PyMem_Free(specs)
        self.constants = []

    # ---- running

    def stats(self):
        """Counts and bytes of the plan: nodes, arena_bytes, packed_bytes, live_bytes_peak."""
        if self.plan == NULL:
            raise errors.ClosedError("this program is closed")
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
        return self.run_timed(arguments, out, NULL)

    def nodes(self):
        """What runs, in order: (MIL op, name, bytes of the outputs); views and folded ops do not."""
        cdef anex_node_info info
        if self.is_closed or self.specs == NULL:
            raise errors.ClosedError("this program is closed")
        found = []
        for i in range(<int32_t> anex_plan_get_stats(self.plan).nodes):
            info = anex_plan_get_node(self.plan, i)
            found.append((info.op.decode(), info.name.decode(), info.output_bytes))
        return tuple(found)

    def profile(self, tuple arguments not None, out=None):
        """Run, and return the wall seconds of each node instead of the results."""
        cdef size_t count
        cdef double *seconds
        if self.is_closed or self.specs == NULL:
            raise errors.ClosedError("this program is closed")
        count = <size_t> anex_plan_get_stats(self.plan).nodes
        seconds = <double *> PyMem_Malloc((count + 1) * sizeof(double))
        if seconds == NULL:
            raise MemoryError
        try:
            self.run_timed(arguments, out, seconds)
            return tuple([seconds[i] for i in range(count)])
        finally:
            PyMem_Free(seconds)

    cdef object run_timed(self, tuple arguments, out, double *seconds):
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
            while held < total:
                self.take(&operands[held], held, arguments[held] if held < self.n_inputs else results[held - self.n_inputs])
                tensors[held] = operands[held].tensor
                held += 1
            if out is not None:
                self.refuse_overlaps(tensors, arguments, results)
            with nogil:
                if seconds == NULL:
                    status = anex_plan_run(self.plan, tensors, tensors + self.n_inputs, &error)
                else:
                    status = anex_plan_profile(self.plan, tensors, tensors + self.n_inputs, seconds, &error)
            check(status, &error)
        finally:
            while held > 0:
                held -= 1
                release(&operands[held])
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

    cdef int take(self, Operand *operand, int32_t i, argument) except -1:
        """Pin input i, or output i - n_inputs, and see that it fits."""
        cdef bint is_output = i >= self.n_inputs
        if not isinstance(argument, Tensor) or not pin(operand, <Tensor> argument, is_output):
            acquire(operand, argument, is_output, self.label(i))
        if fits(operand.tensor, &self.specs[i]):
            return 0
        kind = errors.ShapeError if operand.tensor.dtype == self.specs[i].dtype else errors.DTypeError
        try:
            raise kind(mismatch(operand.tensor, &self.specs[i], self.label(i)))
        finally:
            release(operand)

    cdef str label(self, int32_t i):
        if i < self.n_inputs:
            return f"input {self.input_names[i]!r}"
        return f"output {self.output_names[i - self.n_inputs]!r}"

    cdef int refuse_overlaps(self, const anex_tensor **tensors, tuple arguments, tuple results) except -1:
        cdef int32_t o, i
        for o in range(self.n_inputs, self.n_inputs + self.n_outputs):
            for i in range(o):
                if overlap(tensors[o], tensors[i]) and numpy().shares_memory((arguments + results)[o], (arguments + results)[i]):
                    names = self.input_names + self.output_names
                    raise errors.ArgumentError(f"out= for {names[o]!r} shares memory with {names[i]!r}; give it memory of its own")
        return 0


cdef class Caller:
    """What is called as ``program(x, y=y, out=z)``, without a Python frame in between."""

    cdef object run
    cdef tuple names
    cdef bint stateful

    def __init__(self, executable, names, bint stateful):
        self.run, self.names, self.stateful = executable.run, tuple(names), stateful

    def __call__(self, *arguments, out=None, state=None, **named):
        if named or self.stateful or state is not None:
            arguments = self.bind(arguments, named, state)
        return self.run(arguments, out)

    def bind(self, tuple arguments, dict named, state):
        """What a call with these runs on: the inputs by position, then the states."""
        if named:
            arguments = by_position(self.names, arguments, named)
        return arguments + self.state_tensors(state) if self.stateful or state is not None else arguments


cdef tuple by_position(tuple names, tuple arguments, dict named):
    rest = names[len(arguments):]
    if len(arguments) <= len(names) and set(rest) == set(named):
        return (*arguments, *[named[name] for name in rest])
    problems = [f"unknown {name!r}" for name in named if name not in names]
    problems += [f"{name!r} given twice" for name in named if name in names[:len(arguments)]]
    problems += [f"missing {name!r}" for name in rest if name not in named]
    if len(arguments) > len(names):
        problems.append(f"{len(arguments)} arguments by position")
    raise errors.ArgumentError(f"inputs: {', '.join(problems)}; the program takes {', '.join(names)}")


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
    if threads < 1:
        raise errors.ArgumentError(f"{threads} threads; one is the least")
    anex_set_num_threads(threads)


def get_num_threads():
    return anex_get_num_threads()


def measure_limits():
    """(FLOP/s in float32 registers, bytes/s of a copy that no cache holds) with the threads set now; some 50 ms."""
    cdef anex_limits limits
    cdef anex_error error
    cdef anex_status status
    with nogil:
        status = anex_measure_limits(&limits, &error)
    check(status, &error)
    return limits.flops_per_second, limits.bytes_per_second

# Programs planned for the CPU engine; included by _native.pyx.

@cython.final
cdef class Plan(Executable):
    """A program planned for the CPU engine: values and ops are added in order, then it is finished and run."""

    cdef anex_plan *plan
    cdef list constants        # what the plan reads until it is finished
    cdef list lasting          # what it reads as long as it lives
    cdef list inputs           # their values before finish()
    cdef bint is_brief         # a run takes so little that the GIL is kept

    def __cinit__(self, str isa=None, bint strict=False):
        cdef anex_error error
        cdef bytes name = b"" if isa is None else isa.encode()
        cdef const char *text = NULL
        if isa is not None:
            text = name
        check(anex_plan_new(text, strict, &self.plan, &error), &error)
        self.constants, self.lasting, self.input_names, self.output_names = [], [], [], []
        self.inputs = []

    def __dealloc__(self):
        anex_plan_free(self.plan)

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
        """A packed buffer, or a str; not to change before the program is finished.

        An array that nobody can write is not copied, and may be shared by any number of programs.
        """
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
            if is_frozen(array):
                anex_plan_lasting(self.plan, value)
                self.lasting.append(array)
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
                plans[i] = (<Plan?> blocks[i]).plan
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
            (<Plan> block).plan = NULL
            (<Plan> block).is_closed = True

    def finish(self, outputs):
        """``outputs``: (name, value) each. What fails here is closed: a plan is finished once."""
        cdef anex_error error
        cdef anex_status status
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
            with nogil:
                status = anex_plan_finish(self.plan, self.n_outputs, values + self.n_inputs, &error)
            check(status, &error)
            for i in range(total):
                specs[i] = anex_plan_tensor(self.plan, values[i])[0]
            self.output_names = [name for name, _ in outputs]
            self.is_brief = anex_plan_is_brief(self.plan)
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

    cdef void free_when_idle(self) noexcept:
        if self.is_closed and self.running == 0 and self.plan != NULL:
            anex_plan_free(self.plan)
            self.plan = NULL
            self.constants, self.lasting = [], []

    def nodes(self):
        """What runs, in order: (MIL op, name, bytes of the outputs); views and folded ops do not."""
        cdef anex_node_info info
        self.need_ready()
        found = []
        for i in range(<int32_t> anex_plan_get_stats(self.plan).nodes):
            info = anex_plan_get_node(self.plan, i)
            found.append((info.op.decode(), info.name.decode(), info.output_bytes))
        return tuple(found)

    def take_crossings(self):
        """(op, name, count, largest magnitude) of the nodes that changed values since this was last asked."""
        cdef anex_crossing some[16]
        cdef int32_t count = 16
        self.need_ready()
        found = []
        while count == 16:
            count = anex_plan_take_crossings(self.plan, some, 16)
            found += [(some[i].op.decode(), some[i].name.decode(), some[i].count, some[i].most) for i in range(count)]
        return found

    def profile(self, tuple arguments not None, out=None):
        """Run, and return the wall seconds of each node instead of the results."""
        cdef size_t count
        cdef double *seconds
        self.need_ready()
        count = <size_t> anex_plan_get_stats(self.plan).nodes
        seconds = <double *> PyMem_Malloc((count + 1) * sizeof(double))
        if seconds == NULL:
            raise MemoryError
        try:
            self.run_timed(items_of(arguments), len(arguments), out, seconds)
            return tuple([seconds[i] for i in range(count)])
        finally:
            PyMem_Free(seconds)

    cdef int launch(self, Call *call) except -1:
        cdef const anex_tensor **tensors = <const anex_tensor **> call.slots
        cdef anex_status status
        cdef anex_error error
        cdef bint brief = self.is_brief and call.seconds == NULL
        for i in range(call.held):
            lock_operand(&call.operands[i])
            tensors[i] = call.operands[i].tensor
            brief = brief and is_laid_out(tensors[i], &self.specs[i])
        if brief:  # over before another thread had got hold of the GIL, and given it back
            status = anex_plan_run(self.plan, tensors, tensors + self.n_inputs, &error)
            return check(status, &error)
        with nogil:
            if call.seconds == NULL:
                status = anex_plan_run(self.plan, tensors, tensors + self.n_inputs, &error)
            else:
                status = anex_plan_profile(self.plan, tensors, tensors + self.n_inputs, call.seconds, &error)
        return check(status, &error)


cdef bint is_frozen(array):
    """A numpy array that is read-only, as are all arrays it is a view of, down to its memory or a file's map."""
    ndarray = numpy().ndarray
    if not isinstance(array, ndarray):
        return False
    while isinstance(array, ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None or (isinstance(array, (bytes, mmap)) and memoryview(array).readonly)


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

# Functions whose operands are surfaces, and those that run in another process; included by _native.pyx.

cdef struct Frame:             # surfaces of the program's own, for the operands of one call that it cannot take as they are
    Frame *next
    anex_memory **memories     # NULL where no call needed one yet


cdef bint is_laid_out(const anex_tensor *found, const anex_tensor *wanted) noexcept nogil:
    for i in range(wanted.rank):
        if wanted.shape[i] != 1 and found.strides[i] != wanted.strides[i]:
            return False
    return True


cdef int lay_out(anex_tensor *spec, const anex_tensor *port, str label) except -1:
    """Give `spec`, as the user has it, the strides of `port`, the same elements as the compiled program has them.

    An axis of the port may be several of the user's, and dimensions of 1 may come and go.
    """
    cdef int32_t i = spec.rank - 1, k
    cdef int64_t left, step = anex_dtypes[spec.dtype].bits // 8
    if anex_dtypes[spec.dtype].bits != anex_dtypes[port.dtype].bits:
        raise errors.UnsupportedError(f"{label} is {anex_dtypes[spec.dtype].name.decode()}, and "
                                      f"{anex_dtypes[port.dtype].name.decode()} in the compiled program, which nothing converts")
    for k in range(port.rank - 1, -1, -1):
        left, step = port.shape[k], port.strides[k]
        while i >= 0 and (left > 1 or spec.shape[i] == 1):
            if left % spec.shape[i]:
                break
            spec.strides[i] = step
            step *= spec.shape[i]
            left //= spec.shape[i]
            i -= 1
            if left == 1 and k > 0 and i >= 0 and spec.shape[i] == 1 and port.shape[k - 1] == 1:
                break  # the next dimension of 1 of the one is that of the other
        if left != 1:
            raise errors.CompileError(f"{label} is {shape_text(spec)}, and {shape_text(port)} in the compiled program")
    if i >= 0:
        raise errors.CompileError(f"{label} is {shape_text(spec)}, and {shape_text(port)} in the compiled program")
    return 0


cdef class SurfaceFunction(Executable):
    """A function whose operands are surfaces.

    A Tensor on a surface of the right layout is used as it is. Anything else is copied through a surface
    of the function's own, made at the first such call and kept; stats()["staged"] counts the copies.
    """

    cdef int64_t *sizes        # the least bytes of each surface
    cdef Frame *idle           # frames that no call uses
    cdef int64_t staged

    def __dealloc__(self):
        self.free_frames()
        PyMem_Free(self.sizes)

    cdef void free_frames(self) noexcept:
        cdef Frame *frame
        while self.idle != NULL:
            frame, self.idle = self.idle, self.idle.next
            for i in range(self.n_inputs + self.n_outputs):
                anex_memory_release(frame.memories[i])
            PyMem_Free(frame)

    cdef int declare(self, inputs, outputs) except -1:
        """`inputs`, `outputs`: (name, shape, dtype) as the user calls them."""
        self.input_names = [name for name, _, _ in inputs]
        self.output_names = [name for name, _, _ in outputs]
        cdef size_t total = <size_t> (len(inputs) + len(outputs))
        self.specs = <anex_tensor *> PyMem_Malloc((total + 1) * sizeof(anex_tensor))
        self.sizes = <int64_t *> PyMem_Malloc((total + 1) * sizeof(int64_t))
        if self.specs == NULL or self.sizes == NULL:
            raise MemoryError
        for i, (_, shape, dtype) in enumerate([*inputs, *outputs]):
            init_tensor(&self.specs[i], shape, find_dtype(dtype), 0)
        self.n_inputs, self.n_outputs = len(inputs), len(outputs)
        return 0

    cdef int new_result(self, Tensor tensor, int32_t i) except -1:
        tensor.t = self.specs[i]
        return allocate(tensor, self.sizes[i], False)

    cdef int launch(self, Call *call) except -1:
        self.arrange(call)
        self.evaluate(call)
        return self.deliver(call)

    cdef int evaluate(self, Call *call) except -1:
        raise NotImplementedError

    cdef int arrange(self, Call *call) except -1:
        """A surface for each operand, with the inputs in it."""
        cdef Operand *operand
        cdef Tensor tensor
        for i in range(call.held):
            operand = &call.operands[i]
            if operand.pinned != NULL:
                tensor = <Tensor> operand.pinned
                if (tensor.surface and is_laid_out(operand.tensor, &self.specs[i])
                        and <int64_t> anex_memory_bytes(tensor.memory) >= self.sizes[i]):
                    call.slots[i] = tensor.memory
                    continue
                lock_operand(operand)
            self.stage(call, i)
        if call.frame != NULL:
            self.copy_all(call, 0, self.n_inputs)
        return 0

    cdef int stage(self, Call *call, int32_t i) except -1:
        cdef size_t total = <size_t> (self.n_inputs + self.n_outputs)
        cdef anex_error error
        if call.frame == NULL:
            if self.idle == NULL:
                call.frame = <Frame *> PyMem_Malloc(sizeof(Frame) + total * sizeof(void *))
                if call.frame == NULL:
                    raise MemoryError
                call.frame.memories = <anex_memory **> (call.frame + 1)
                memset(call.frame.memories, 0, total * sizeof(void *))
            else:
                call.frame, self.idle = self.idle, self.idle.next
        if call.frame.memories[i] == NULL:
            check(anex_memory_new(<size_t> self.sizes[i], True, &call.frame.memories[i], &error), &error)
        call.slots[i] = call.frame.memories[i]
        self.staged += 1
        return 0

    cdef int copy_all(self, Call *call, int32_t begin, int32_t end) except -1:
        """Inputs into their surfaces, or outputs out of them."""
        cdef anex_tensor surface
        cdef anex_memory *memory
        cdef anex_status status = ANEX_OK
        cdef anex_error error
        cdef int32_t i
        with nogil:
            for i in range(begin, end):
                memory = call.frame.memories[i]
                if memory == NULL or call.slots[i] != memory:
                    continue
                surface = self.specs[i]
                surface.data = anex_memory_data(memory)
                anex_memory_lock(memory)
                if i < self.n_inputs:
                    status = anex_tensor_copy(&surface, call.operands[i].tensor, &error)
                else:
                    status = anex_tensor_copy(call.operands[i].tensor, &surface, &error)
                anex_memory_unlock(memory)
                if status != ANEX_OK:
                    break
        return check(status, &error)

    cdef int deliver(self, Call *call) except -1:
        if call.frame != NULL:
            self.copy_all(call, self.n_inputs, self.n_inputs + self.n_outputs)
        return 0

    cdef void settle(self, Call *call) noexcept:
        if call.frame != NULL:
            call.frame.next, self.idle = self.idle, call.frame
            call.frame = NULL

    def profile(self, tuple arguments not None, out=None):
        """Run, and return the wall seconds instead of the results."""
        self.need_ready()
        begin = perf_counter()
        self.run_timed(items_of(arguments), len(arguments), out, NULL)
        return (perf_counter() - begin,)

    def ports(self):
        """(strides, least bytes) of the surface of each input, then of each output."""
        self.need_ready()
        return tuple([(tuple([self.specs[i].strides[k] for k in range(self.specs[i].rank)]), self.sizes[i])
                      for i in range(self.n_inputs + self.n_outputs)])


@cython.final
cdef class RemoteFunction(SurfaceFunction):
    """A function of a program in another process, which finds the surfaces by their numbers.

    `ports`: what ports() says there. `evaluate(numbers)` runs it; it raises what went wrong. `closed()` is called once,
    when it is closed and the last run under way has returned.
    """

    cdef object call_worker, closed

    def __init__(self, inputs, outputs, ports, evaluate, closed):
        self.declare(inputs, outputs)
        for i, (strides, size) in enumerate(ports):
            for k, stride in enumerate(strides):
                self.specs[i].strides[k] = stride
            self.sizes[i] = size
        self.call_worker, self.closed = evaluate, closed

    cdef int evaluate(self, Call *call) except -1:
        self.call_worker(tuple([anex_memory_surface_id(<anex_memory *> call.slots[i]) for i in range(call.held)]))
        return 0

    cdef void free_when_idle(self) noexcept:
        if self.running == 0:
            self.free_frames()
            closed, self.closed = self.closed, None
            if closed is not None:
                closed()

    def stats(self):
        self.need_ready()
        return {"staged": self.staged}

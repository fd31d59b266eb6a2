# What a program is called with: Tensors, buffers and DLPack exporters, pinned while it runs; included by _native.pyx.

cdef bint LITTLE_ENDIAN = sys.byteorder == "little"


cdef numpy_from_dlpack(exporter, name):
    """torch's CPU tensors and the like have no buffer; numpy speaks DLPack for us."""
    try:
        return numpy().from_dlpack(exporter)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as cause:
        raise errors.ArgumentError(f"{name} cannot be shared through DLPack: {cause}") from cause


cdef struct Operand:
    const anex_tensor *tensor  # that of a Tensor, or `own`
    char *low                  # the bytes it may touch: from here
    char *high                 # to before this
    anex_tensor own
    PyObject *pinned           # a Tensor with an export of ours, or NULL: then `view` is
    Py_buffer view
    bint held
    bint locked                # a Tensor that the processor looks at until it is released


cdef int dtype_of_format(const Py_buffer *view) noexcept:
    """The dtype of native-endian items, or -1."""
    cdef const char *format = view.format
    if format == NULL:
        return DTYPES["uint8"]
    cdef char code = format[0]
    if code == c'@' or code == c'=' or code == (c'<' if LITTLE_ENDIAN else c'>'):
        format += 1
        code = format[0]
    if code == c'l' and view.itemsize == 4:
        code = c'i'
    elif code == c'L' and view.itemsize == 4:
        code = c'I'
    if code == 0 or format[1] != 0:
        return -1
    for i in range(ANEX_DTYPE_COUNT):
        if anex_dtypes[i].bits >= 8 and anex_dtypes[i].format[0] == code and i != ANEX_STRING:
            return i
    return -1


cdef inline bint pin(Operand *operand, Tensor tensor, bint writable) noexcept:
    """Export a Tensor's memory, unless that is closed, read-only or not to be seen as it is."""
    if tensor.memory == NULL or (writable and tensor.is_readonly) or anex_dtypes[tensor.t.dtype].bits < 8:
        return False
    tensor.exports += 1
    Py_INCREF(tensor)
    operand.pinned, operand.held, operand.locked = <PyObject *> tensor, True, False
    operand.tensor, operand.low, operand.high = &tensor.t, tensor.low, tensor.high
    return True


cdef int acquire(Operand *operand, argument, bint writable, name) except -1:
    """Look at the memory of a Tensor, a buffer or a DLPack exporter, and pin it."""
    cdef Tensor tensor
    cdef int flags = PyBUF_RECORDS_RO | (PyBUF_WRITABLE if writable else 0)
    operand.pinned, operand.held, operand.locked = NULL, False, False
    if not isinstance(argument, Tensor) and not PyObject_CheckBuffer(argument) and hasattr(argument, "__dlpack__"):
        argument = numpy_from_dlpack(argument, name)
    if isinstance(argument, Tensor):
        tensor = <Tensor> argument
        if pin(operand, tensor, writable):
            return 0
        if tensor.memory == NULL:
            raise errors.ClosedError(f"{name}: this tensor is closed")
        if writable and tensor.is_readonly:
            raise errors.ArgumentError(f"{name} is read-only")
    if not PyObject_CheckBuffer(argument):
        raise errors.ArgumentError(f"{name} is a {type(argument).__name__}; pass an anex.Tensor or a numpy array")
    try:
        PyObject_GetBuffer(argument, &operand.view, flags)
    except (BufferError, ValueError) as cause:
        raise errors.ArgumentError(f"{name} cannot be {'written' if writable else 'read'}: {cause}") from cause
    cdef int dtype = dtype_of_format(&operand.view)
    cdef int32_t rank = operand.view.ndim
    if dtype < 0 or rank > ANEX_MAX_RANK:
        found = f"items of format {operand.view.format.decode()!r}" if dtype < 0 else f"rank {rank}"
        PyBuffer_Release(&operand.view)
        raise (errors.DTypeError if dtype < 0 else errors.ShapeError)(
            f"{name} has {found}, which no Core ML tensor has; convert it first (for example x.astype('float16'))")
    operand.own.data = operand.view.buf
    operand.own.dtype = <anex_dtype> dtype
    operand.own.rank = rank
    for i in range(rank):
        operand.own.shape[i] = operand.view.shape[i]
        operand.own.strides[i] = operand.view.strides[i]
    operand.tensor = &operand.own
    bounds(&operand.own, &operand.low, &operand.high)
    operand.held = True
    return 0


cdef inline void lock_operand(Operand *operand) noexcept:
    """The processor reads or writes the operand until it is released; a buffer's owner knows already, and who has plain
    memory need not."""
    if operand.pinned != NULL and (<Tensor> operand.pinned).surface and not operand.locked:
        operand.locked = True
        (<Tensor> operand.pinned).lock()


cdef void release(Operand *operand) noexcept:
    if not operand.held:
        return
    operand.held = False
    if operand.pinned != NULL:
        if operand.locked:
            (<Tensor> operand.pinned).unlock()
        (<Tensor> operand.pinned).exports -= 1
        Py_DECREF(<object> operand.pinned)
    else:
        PyBuffer_Release(&operand.view)



cdef str mismatch(const anex_tensor *found, const anex_tensor *wanted, name):
    return (f"{name} is {shape_text(found)} {anex_dtypes[found.dtype].name.decode()}; "
            f"the program has {shape_text(wanted)} {anex_dtypes[wanted.dtype].name.decode()}")


cdef inline bint fits(const anex_tensor *found, const anex_tensor *wanted) noexcept nogil:
    if found.dtype != wanted.dtype or found.rank != wanted.rank:
        return False
    for i in range(wanted.rank):
        if found.shape[i] != wanted.shape[i]:
            return False
    return True


cdef void bounds(const anex_tensor *t, char **low, char **high) noexcept nogil:
    """The bytes a tensor may touch; strides of foreign arrays can be negative. None, of one without elements."""
    cdef int64_t step
    low[0] = high[0] = <char *> t.data
    if anex_tensor_size(t) == 0:
        return
    high[0] += anex_dtypes[t.dtype].bits // 8
    for i in range(t.rank):
        step = (t.shape[i] - 1) * t.strides[i]
        if step < 0:
            low[0] += step
        else:
            high[0] += step


cdef inline bint meet(const char *low, const char *high, const Operand *other) noexcept nogil:
    return low < other.high and other.low < high and low < high and other.low < other.high


cdef inline bint overlap(const Operand *a, const Operand *b) noexcept nogil:
    return meet(a.low, a.high, b)

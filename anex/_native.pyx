"""The native layer: tensors, DLPack, and programs planned for the CPU engine. No policy lives here.

Ownership. A ``Tensor`` holds one reference to its ``anex_memory`` and gives it back when it is
closed or dies; numpy views, DLPack capsules and running programs count as exports, and a tensor
with exports cannot be closed. An ``Executable`` owns one ``anex_plan`` and frees it when it is
closed or dies, or, if it is running then, when the last run returns. Nothing else frees anything.
"""

cimport cython
from cpython.buffer cimport (PyBUF_ANY_CONTIGUOUS, PyBUF_C_CONTIGUOUS, PyBUF_F_CONTIGUOUS, PyBUF_FORMAT, PyBUF_ND,
                             PyBUF_RECORDS_RO, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_IsContiguous, PyBuffer_Release,
                             PyObject_CheckBuffer, PyObject_GetBuffer)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcmp, memset

import sys

from . import errors

DTYPES = {anex_dtypes[i].name.decode(): i for i in range(ANEX_DTYPE_COUNT) if i != ANEX_STRING}

cdef int check(anex_status status, anex_error *error) except -1:
    """The only place that raises for native failures."""
    if status != ANEX_OK:
        raise getattr(errors, anex_status_exception(status).decode())((<bytes> error.text).decode(errors="replace"))
    return 0


cdef str shape_text(const anex_tensor *t):
    return str(tuple([t.shape[i] for i in range(t.rank)]))


cdef anex_dtype find_dtype(str name) except ANEX_DTYPE_COUNT:
    code = DTYPES.get(name)
    if code is None:
        raise errors.DTypeError(f"Core ML has no {name} tensors; use one of {', '.join(DTYPES)}")
    return <anex_dtype> <int> code


cdef int init_tensor(anex_tensor *t, shape, anex_dtype dtype, int64_t alignment, size_t max_rank=5) except -1:
    cdef int64_t dims[ANEX_MAX_RANK]
    cdef anex_error error
    cdef tuple sizes = tuple(shape)
    if <size_t> len(sizes) > max_rank:
        raise errors.ShapeError(f"shape {sizes} has rank {len(sizes)}; Core ML tensors have rank 0 to {max_rank}")
    for i, size in enumerate(sizes):
        dims[i] = size
    return check(anex_tensor_init(t, dtype, <int32_t> len(sizes), dims, alignment, &error), &error)


cdef void give_back_buffer(void *owner) noexcept with gil:
    PyBuffer_Release(<Py_buffer *> owner)
    PyMem_Free(owner)


@cython.final
cdef class Tensor:
    """Memory with a shape and a dtype, of no device in particular.

    ``np.asarray(t)``, ``memoryview(t)`` and ``torch.from_dlpack(t)`` see the memory itself, row
    padding and all, as strides; ``t[...]`` reads and writes through such a view. Made by ``empty``,
    ``zeros``, ``ones``, ``full``, ``tensor``, ``empty_like`` and ``from_dlpack``.

    A 4-bit tensor holds two values a byte, the first in the low half; its views are the packed bytes.
    """

    def __init__(self, shape, str dtype, bint padded=False):
        cdef anex_error error
        if self.memory != NULL:
            raise errors.Error("a tensor is initialised once")
        init_tensor(&self.t, shape, find_dtype(dtype), 64 if padded else 0)
        check(anex_memory_new(<size_t> anex_tensor_extent(&self.t), &self.memory, &error), &error)
        self.t.data = anex_memory_data(self.memory)

    @staticmethod
    def wrap(buffer):
        """A tensor on somebody else's memory, kept alive until the tensor is closed; read-only if it is."""
        cdef Tensor tensor = Tensor.__new__(Tensor)
        cdef Operand operand
        cdef anex_error error
        cdef Py_buffer *view = NULL
        acquire(&operand, buffer, False, "buffer")
        try:
            if operand.tensor != &operand.own:
                return buffer  # a Tensor
            init_tensor(&tensor.t, [operand.own.shape[i] for i in range(operand.own.rank)], operand.own.dtype, 0)
            view = <Py_buffer *> PyMem_Malloc(sizeof(Py_buffer))
            if view == NULL:
                raise MemoryError
            check(anex_memory_wrap(operand.own.data, give_back_buffer, view, &tensor.memory, &error), &error)
            view[0] = operand.view
            operand.held = False  # the memory has it now
            tensor.t = operand.own
            tensor.is_readonly = view.readonly
            return tensor
        finally:
            if tensor.memory == NULL:
                PyMem_Free(view)
            release(&operand)

    def __dealloc__(self):
        anex_memory_release(self.memory)

    cdef int need_open(self) except -1:
        if self.memory == NULL:
            raise errors.ClosedError("this tensor is closed")
        return 0

    def close(self):
        """Give the memory back now. ``ViewError`` (a BufferError) while views of it are alive; twice is harmless."""
        if self.exports:
            raise errors.ViewError(f"a tensor of shape {self.shape} has {self.exports} live view(s); drop them before closing it")
        anex_memory_release(self.memory)
        self.memory = NULL
        self.t.data = NULL

    @property
    def shape(self):
        return tuple([self.t.shape[i] for i in range(self.t.rank)])

    @property
    def ndim(self):
        return self.t.rank

    @property
    def dtype(self):
        """numpy's dtype; for the 4-bit dtypes, which numpy lacks, their names."""
        name = self.dtype_name
        return name if anex_dtypes[self.t.dtype].bits < 8 else numpy().dtype(name)

    @property
    def dtype_name(self):
        return anex_dtypes[self.t.dtype].name.decode()

    @property
    def strides(self):
        """Bytes from one element to the next along each axis; a row may be longer than its elements."""
        return tuple([self.t.strides[i] for i in range(self.t.rank)])

    @property
    def size(self):
        return anex_tensor_size(&self.t)

    @property
    def nbytes(self):
        """Bytes of the elements themselves, as numpy counts them: row padding is left out."""
        return anex_tensor_nbytes(&self.t)

    @property
    def packed(self):
        """Whether the elements stand one after the other without padding."""
        return anex_tensor_is_packed(&self.t)

    @property
    def readonly(self):
        return self.is_readonly

    @property
    def closed(self):
        return self.memory == NULL

    def copy_from(self, source):
        """Copy the elements of a buffer of the same shape; float16 and float32 convert, other dtypes must match."""
        cdef Operand operand
        cdef anex_error error
        cdef anex_status status
        self.need_open()
        if self.is_readonly:
            raise errors.ArgumentError("this tensor is read-only")
        acquire(&operand, source, False, "source")
        self.exports += 1
        try:
            if overlap(&self.t, operand.tensor):
                return self.copy_from(numpy().array(source))
            with nogil:
                status = anex_tensor_copy(&self.t, operand.tensor, &error)
            check(status, &error)
        finally:
            self.exports -= 1
            release(&operand)

    # ---- numpy and DLPack, which numpy writes for us

    def __array__(self, dtype=None, copy=None):
        self.need_open()
        view = numpy().asarray(memoryview(self))
        if dtype is not None and numpy().dtype(dtype) != view.dtype:
            if copy is False:
                raise errors.DTypeError(f"{self.dtype_name} memory as {numpy().dtype(dtype)} needs a copy")
            return view.astype(dtype)
        return view.copy() if copy else view

    def __getitem__(self, key):
        return self.__array__()[key]

    def __setitem__(self, key, value):
        self.__array__()[key] = value

    def __len__(self):
        if self.t.rank == 0:
            raise TypeError("len() of a tensor of rank 0")
        return self.t.shape[0]

    def item(self):
        """The only element, as a Python number."""
        return self.__array__().item()

    def tolist(self):
        return self.__array__().tolist()

    def __dlpack__(self, **options):
        """A DLPack capsule of the memory itself; 4-bit tensors export their bytes."""
        return self.__array__().__dlpack__(**options)

    def __dlpack_device__(self):
        return 1, 0  # kDLCPU

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __reduce__(self):
        return restore, (self.shape, self.dtype_name, not self.packed, self.__array__(copy=True))

    def __repr__(self):
        known = f"shape={self.shape}, dtype={self.dtype_name}" + ("" if self.packed else f", strides={self.strides}")
        if self.memory == NULL:
            return f"anex.Tensor(closed, {known})"
        text = numpy().array2string(self.__array__(), threshold=16, edgeitems=2, separator=", ", prefix="anex.Tensor(")
        return f"anex.Tensor({text}, {known})"

    # ---- the buffer protocol

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef const anex_dtype_info *info = &anex_dtypes[self.t.dtype]
        self.need_open()
        if flags & PyBUF_WRITABLE and self.is_readonly:
            raise errors.ViewError("this tensor is read-only")
        view.buf = self.t.data
        view.len = anex_tensor_nbytes(&self.t)
        view.readonly = self.is_readonly
        view.format = <char *> info.format if flags & PyBUF_FORMAT else NULL
        view.suboffsets = NULL
        view.internal = NULL
        if info.bits < 8:  # the packed bytes, in one row
            self.packed_bytes = view.len
            self.packed_stride = 1
            view.itemsize, view.ndim = 1, 1
            view.shape, view.strides = &self.packed_bytes, &self.packed_stride
        else:
            view.itemsize, view.ndim = info.bits // 8, self.t.rank
            view.shape, view.strides = <Py_ssize_t *> self.t.shape, <Py_ssize_t *> self.t.strides
        if (order := order_asked_for(flags)) and not PyBuffer_IsContiguous(view, order):
            raise errors.ViewError(f"this tensor has strides {self.strides}; np.ascontiguousarray(t) makes a packed copy")
        if flags & PyBUF_STRIDES != PyBUF_STRIDES:
            view.strides = NULL
        if not flags & PyBUF_ND:
            view.shape = NULL
        view.obj = self
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1


cdef char order_asked_for(int flags) noexcept:
    """The order of contiguous elements that a consumer relies on, or 0 when it reads strides."""
    for asked, order in ((PyBUF_ANY_CONTIGUOUS, c'A'), (PyBUF_F_CONTIGUOUS, c'F'), (PyBUF_C_CONTIGUOUS, c'C')):
        if flags & asked == asked:
            return order
    return 0 if flags & PyBUF_STRIDES == PyBUF_STRIDES else c'C'


cdef object numpy_module = None

cdef numpy():
    """numpy, loaded at first use: programs and tensors run without it."""
    global numpy_module
    if numpy_module is None:
        import numpy
        numpy_module = numpy
    return numpy_module


def restore(shape, dtype, padded, values):
    """The tensor that was pickled."""
    tensor = Tensor(shape, dtype, padded)
    tensor[...] = values
    return tensor


# ---- operands: what a program is called with -------------------------------------------------

cdef bint LITTLE_ENDIAN = sys.byteorder == "little"


cdef numpy_from_dlpack(exporter, name):
    """torch's CPU tensors and the like have no buffer; numpy speaks DLPack for us."""
    try:
        return numpy().from_dlpack(exporter)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as cause:
        raise errors.ArgumentError(f"{name} cannot be shared through DLPack: {cause}") from cause


cdef struct Operand:
    const anex_tensor *tensor  # that of a Tensor, or `own`
    anex_tensor own
    PyObject *pinned           # a Tensor with an export of ours, or NULL: then `view` is
    Py_buffer view
    bint held


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
    operand.pinned, operand.held = <PyObject *> tensor, True
    operand.tensor = &tensor.t
    return True


cdef int acquire(Operand *operand, argument, bint writable, name) except -1:
    """Look at the memory of a Tensor, a buffer or a DLPack exporter, and pin it."""
    cdef Tensor tensor
    cdef int flags = PyBUF_RECORDS_RO | (PyBUF_WRITABLE if writable else 0)
    operand.pinned, operand.held = NULL, False
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
    operand.held = True
    return 0


cdef void release(Operand *operand) noexcept:
    if not operand.held:
        return
    operand.held = False
    if operand.pinned != NULL:
        (<Tensor> operand.pinned).exports -= 1
        Py_DECREF(<object> operand.pinned)
    else:
        PyBuffer_Release(&operand.view)


include "_executable.pxi"

"""The native layer: tensors, DLPack, and programs for the CPU engine and the Neural Engine. No policy lives here.

Ownership. A ``Tensor`` holds one reference to its ``anex_memory`` and gives it back when it is
closed or dies; numpy views, DLPack capsules and running programs count as exports, and a tensor
with exports cannot be closed. An ``Executable`` owns what its device runs (a ``Plan`` one
``anex_plan``, an ``AneFunction`` one ``anex_ane_function`` and its share of an ``AneProgram``) and
frees it when it is closed or dies, or, if it is running then, when the last run returns. A
``Submission`` pins what it was called with until it is done. Nothing else frees anything.
"""

cimport cython
from cpython.buffer cimport (PyBUF_ANY_CONTIGUOUS, PyBUF_C_CONTIGUOUS, PyBUF_F_CONTIGUOUS, PyBUF_FORMAT, PyBUF_ND,
                             PyBUF_RECORDS_RO, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_IsContiguous, PyBuffer_Release,
                             PyObject_CheckBuffer, PyObject_GetBuffer)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memcmp, memset

import sys
from mmap import mmap
from time import perf_counter

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

    def __init__(self, shape, str dtype, bint padded=False, bint zeroed=True):
        if self.memory != NULL:
            raise errors.Error("a tensor is initialised once")
        init_tensor(&self.t, shape, find_dtype(dtype), 64 if padded else 0)
        allocate(self, 0, zeroed)

    @staticmethod
    def from_surface(uint32_t share_id, shape, str dtype, strides):
        """A tensor on the surface that another process calls ``share_id``; both see the same memory."""
        cdef Tensor tensor = Tensor.__new__(Tensor)
        cdef anex_error error
        init_tensor(&tensor.t, shape, find_dtype(dtype), 0)
        if len(strides) != tensor.t.rank:
            raise errors.ShapeError(f"strides {tuple(strides)} for a tensor of rank {tensor.t.rank}")
        for i, stride in enumerate(strides):
            if stride < 0:
                raise errors.ShapeError(f"strides {tuple(strides)}; those of a surface are never negative")
            tensor.t.strides[i] = stride
        check(anex_memory_of_surface(share_id, &tensor.memory, &error), &error)
        if <size_t> anex_tensor_extent(&tensor.t) > anex_memory_bytes(tensor.memory):
            raise errors.ShapeError(f"surface {share_id} has {anex_memory_bytes(tensor.memory)} bytes; a tensor of shape "
                                    f"{tuple(shape)} and strides {tuple(strides)} needs {anex_tensor_extent(&tensor.t)}")
        place(tensor)
        return tensor

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
            tensor.low, tensor.high = operand.low, operand.high
            tensor.is_readonly = view.readonly
            return tensor
        finally:
            if tensor.memory == NULL:
                PyMem_Free(view)
            release(&operand)

    def __dealloc__(self):
        anex_memory_release(self.memory)

    cdef void lock(self) noexcept:
        """The processor looks at the memory from here on: a surface is told once, whoever else looks too."""
        if self.locks == 0:
            anex_memory_lock(self.memory)
        self.locks += 1

    cdef void unlock(self) noexcept:
        self.locks -= 1
        if self.locks == 0:
            anex_memory_unlock(self.memory)

    cdef int need_open(self) except -1:
        if self.memory == NULL:
            raise errors.ClosedError("this tensor is closed")
        return 0

    def close(self):
        """Give the memory back now. ``ViewError`` (a BufferError) while views of it are alive; twice is harmless."""
        if self.exports:
            raise errors.ViewError(f"a tensor of shape {self.shape} has {self.exports} live view(s); drop them before closing it")
        anex_memory_release(self.memory)
        self.memory, self.surface = NULL, 0
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

    @property
    def share_id(self):
        """The number by which other processes find the surface that this memory is; 0 for plain memory."""
        return self.surface

    def copy_from(self, source):
        """Copy the elements of a buffer of the same shape; float16 and float32 convert, other dtypes must match."""
        cdef Operand operand
        cdef anex_error error
        cdef anex_status status
        self.need_open()
        if self.is_readonly:
            raise errors.ArgumentError("this tensor is read-only")
        acquire(&operand, source, False, "source")
        lock_operand(&operand)
        self.exports += 1
        self.lock()
        try:
            if meet(self.low, self.high, &operand):
                return self.copy_from(numpy().array(source))
            with nogil:
                status = anex_tensor_copy(&self.t, operand.tensor, &error)
            check(status, &error)
        finally:
            self.unlock()
            self.exports -= 1
            release(&operand)

    def astype(self, dtype, *, bint copy=True):
        """A packed tensor with the elements in `dtype`, as numpy's ``astype`` has them; float16 and float32 convert fast,
        some 10 times faster than ``np.asarray(t, dtype)``, which numpy does from the memory it sees.

        ``copy=False``: the tensor itself where that is its dtype already. Raises ``DTypeError`` for what Core ML
        lacks, and for 4-bit tensors, which ``anex.tensor`` packs.

        >>> anex.ones((2,), "float16").astype("float32")
        anex.Tensor([1., 1.], shape=(2,), dtype=float32)
        """
        cdef Tensor made
        self.need_open()
        if isinstance(dtype, str) and dtype in DTYPES:
            name = dtype
        else:
            found = numpy().dtype(dtype)
            name = found.name if found.isnative else str(found)
        if not copy and name == self.dtype_name:
            return self
        made = Tensor(self.shape, name, False, False)
        if anex_dtypes[made.t.dtype].bits < 8 or anex_dtypes[self.t.dtype].bits < 8:
            raise errors.DTypeError(f"astype from {self.dtype_name} to {name}: anex.tensor packs 4-bit values, and only "
                                    "programs unpack them")
        if made.t.dtype == self.t.dtype or is_float(&made.t) and is_float(&self.t):
            made.copy_from(self)
        else:
            made[...] = self.__array__()
        return made

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
        self.lock()

    def __releasebuffer__(self, Py_buffer *view):
        self.unlock()
        self.exports -= 1


cdef inline bint is_float(const anex_tensor *t) noexcept:
    return t.dtype == ANEX_F16 or t.dtype == ANEX_F32


cdef int allocate(Tensor tensor, int64_t least, bint zeroed) except -1:
    """Memory for whole rows and planes, as surfaces are measured, and of `least` bytes."""
    cdef anex_error error
    cdef int64_t bytes = anex_tensor_extent(&tensor.t)
    if tensor.t.rank and anex_dtypes[tensor.t.dtype].bits >= 8:
        bytes = max(bytes, tensor.t.shape[0] * tensor.t.strides[0])
    check(anex_memory_new(<size_t> max(bytes, least), zeroed, &tensor.memory, &error), &error)
    place(tensor)
    return 0


cdef void place(Tensor tensor) noexcept:
    """Its elements are in its memory now."""
    tensor.t.data = anex_memory_data(tensor.memory)
    tensor.surface = anex_memory_surface_id(tensor.memory)
    bounds(&tensor.t, &tensor.low, &tensor.high)


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


include "_operands.pxi"
include "_executable.pxi"
include "_plan.pxi"
include "_surfaces.pxi"
include "_ane.pxi"
include "_probe.pxi"
include "_optimizer.pxi"

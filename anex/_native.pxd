# csrc/anex.h for Cython: declarations only.
from libc.stdint cimport int32_t, int64_t, uint32_t

cdef extern from "anex.h" nogil:
    ctypedef enum anex_status:
        ANEX_OK
    ctypedef struct anex_error:
        char text[1024]
    const char *anex_status_exception(anex_status status)

    ctypedef int anex_dtype
    enum:
        ANEX_STRING
        ANEX_DTYPE_COUNT
    ctypedef struct anex_dtype_info:
        const char *name
        const char *format
        int32_t bits
        int32_t dlpack
    const anex_dtype_info anex_dtypes[]

    enum: ANEX_MAX_RANK
    ctypedef struct anex_tensor:
        void *data
        int64_t shape[8]
        int64_t strides[8]
        int32_t rank
        anex_dtype dtype
    anex_status anex_tensor_init(anex_tensor *, anex_dtype, int32_t, const int64_t *, int64_t, anex_error *)
    int64_t anex_tensor_size(const anex_tensor *)
    int64_t anex_tensor_nbytes(const anex_tensor *)
    int64_t anex_tensor_extent(const anex_tensor *)
    bint anex_tensor_is_packed(const anex_tensor *)
    anex_status anex_tensor_copy(const anex_tensor *, const anex_tensor *, anex_error *)

    ctypedef struct anex_memory:
        pass
    anex_status anex_memory_new(size_t, anex_memory **, anex_error *)
    anex_status anex_memory_wrap(void *, void (*)(void *) noexcept, void *, anex_memory **, anex_error *)
    void *anex_memory_data(const anex_memory *)
    anex_memory *anex_memory_retain(anex_memory *)
    void anex_memory_release(anex_memory *)

    ctypedef struct anex_plan:
        pass
    ctypedef int32_t anex_value
    ctypedef struct anex_kernel_info:
        const char *op
        const char *inputs
        uint32_t dtypes
    ctypedef struct anex_plan_stats:
        int64_t nodes
        int64_t arena_bytes
        int64_t packed_bytes
        int64_t live_bytes_peak
    const anex_kernel_info *anex_kernel_list(int32_t *)
    int32_t anex_isa_list(const char **, int32_t)
    anex_status anex_plan_new(const char *, bint, anex_plan **, anex_error *)
    void anex_plan_free(anex_plan *)
    anex_status anex_plan_input(anex_plan *, anex_dtype, int32_t, const int64_t *, anex_value *, anex_error *)
    anex_status anex_plan_value(anex_plan *, anex_dtype, int32_t, const int64_t *, anex_value *, anex_error *)
    anex_status anex_plan_constant(anex_plan *, const anex_tensor *, anex_value *, anex_error *)
    anex_status anex_plan_control(anex_plan *, const char *, const char *, int32_t, const anex_value *, int32_t,
                                  const anex_value *, int32_t, const anex_value *, int32_t, anex_plan *const *,
                                  anex_error *)
    anex_status anex_plan_op(anex_plan *, const char *, const char *, int32_t, const anex_value *, int32_t,
                             const anex_value *, int32_t, const anex_value *, anex_value, anex_error *)
    anex_status anex_plan_finish(anex_plan *, int32_t, const anex_value *, anex_error *)
    const anex_tensor *anex_plan_tensor(const anex_plan *, anex_value)
    anex_plan_stats anex_plan_get_stats(const anex_plan *)
    anex_status anex_plan_run(anex_plan *, const anex_tensor *const *, const anex_tensor *const *, anex_error *)
    anex_status anex_plan_profile(anex_plan *, const anex_tensor *const *, const anex_tensor *const *, double *,
                                  anex_error *)
    ctypedef struct anex_node_info:
        const char *op
        const char *name
        int64_t output_bytes
    anex_node_info anex_plan_get_node(const anex_plan *, int32_t)
    ctypedef struct anex_limits:
        double flops_per_second
        double bytes_per_second
    anex_status anex_measure_limits(anex_limits *, anex_error *)
    void anex_set_num_threads(int32_t)
    int32_t anex_get_num_threads()


cdef class Tensor:
    cdef anex_tensor t
    cdef anex_memory *memory
    cdef Py_ssize_t exports, packed_bytes, packed_stride
    cdef bint is_readonly
    cdef object __weakref__
    cdef int need_open(self) except -1
